//! Connection events: the data that they carry, and reading them.

use std::time::Duration;

use bytes::Bytes;
use hubcast_backplane::{self as backplane, EventKind, EventPlace, EventRecord, MAX_EVENT_RECORD_BYTES};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Connection, HubHandle};
use crate::error::Error;
use crate::protocol::Timestamp;

/// Most events that [`HubHandle::events`] returns at once.
pub const MAX_EVENTS: usize = 1_000;

/// An event of a connection: it has entered, or it has ended. Each connection has one of each kind.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConnectionEvent {
    /// The same on every node and attempt: whoever counts events ignores an id that they know.
    pub id: String,
    /// The place of the event in the hub's stream, `MS-NUMBER`.
    pub place: String,
    /// `connected` or `disconnected`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The connection's id.
    pub connection_id: String,
    /// The connection's user, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_id: Option<String>,
    /// The time of the change, by the clock of the Redis server.
    pub time: Timestamp,
    /// The reason of a `disconnected`: `client`, `server`, `node stopped`, `node died`, or `lost: …` or `refused: …` with
    /// the words for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Transport, protocol and the token's claims when the connection entered.
    #[serde(default)]
    pub data: Value,
}

/// Some events of a hub.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ConnectionEventPage {
    /// The events, in the order of the stream.
    pub events: Vec<ConnectionEvent>,
    /// The place to go on from.
    pub next: String,
    /// True if events after the requested place may be missing, because the stream keeps no more (`hubs.events_most`,
    /// `hubs.events_seconds`).
    pub trimmed: bool,
}

impl HubHandle {
    /// The connection events of the hub after a place of its stream, at most [`MAX_EVENTS`]; waits for at most `wait`
    /// until there is one. `None`: the present end of the stream, without events; `"0"`: all that are kept. The hub must
    /// have `hubs.events`.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use hubcast::Hub;
    /// use hubcast::testing::HubTester;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let tester = HubTester::new(Hub::new("games").configure(|hub| hub.hubs.events = true)).await?;
    /// let ann = tester.connect_as("ann").await;
    /// let page = tester.hub().events(Some("0"), 10, Duration::ZERO).await?;
    /// assert_eq!((&*page.events[0].kind, &*page.events[0].connection_id), ("connected", ann.id()));
    /// assert_eq!(page.events[0].data["transport"], "WebSockets");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::EventPlace`] where `after` is no place, [`Error::NoEvents`] where the hub has no events, or a backplane
    /// that can't be reached.
    pub async fn events(
        &self,
        after: Option<&str>,
        limit: usize,
        wait: Duration,
    ) -> Result<ConnectionEventPage, Error> {
        let after: Option<EventPlace> = after.map(str::parse).transpose()?;
        let hub = self.runtime();
        if !hub.options().hubs.events {
            return Err(Error::NoEvents);
        }
        let limit = limit.clamp(1, MAX_EVENTS);
        let events = hub.backplane().follow_events(after, limit, wait);
        let page = events.await?;
        Ok(ConnectionEventPage {
            events: page.events.into_iter().filter_map(shown).collect(),
            next: page.reached.to_string(),
            trimmed: page.trimmed,
        })
    }
}

/// An event as it is shown. `None` for one whose time no client could read: the clock of the server is wrong.
fn shown(event: backplane::ConnectionEvent) -> Option<ConnectionEvent> {
    Some(ConnectionEvent {
        id: event.id,
        place: event.place.to_string(),
        kind: event.kind.name().to_owned(),
        connection_id: event.connection.to_string(),
        user_id: event.user.map(|user| user.to_string()),
        time: event.time.try_into().ok()?,
        reason: match event.kind {
            EventKind::Connected => None,
            EventKind::Disconnected { reason } => Some(reason),
        },
        data: serde_json::from_slice(&event.record.payload).unwrap_or_default(),
    })
}

/// The data of a connection that its events carry.
pub(crate) fn event_record(connection: &Connection) -> EventRecord {
    let data = |claims: Option<&Value>| {
        let mut data = json!({
            "transport": connection.transport().map(|transport| transport.to_string()),
            "protocol": connection.protocol().map(|protocol| protocol.name()),
        });
        match claims {
            Some(claims) => data["claims"] = claims.clone(),
            None => data["claimsTooLarge"] = true.into(),
        }
        Bytes::from(data.to_string())
    };
    let identity = connection.identity();
    let claims = identity.claims();
    let claims = Value::Object(
        claims
            .map(|(name, value)| (name.to_owned(), value.clone()))
            .collect(),
    );
    let mut payload = data(Some(&claims));
    if payload.len() > MAX_EVENT_RECORD_BYTES {
        payload = data(None);
    }
    EventRecord {
        payload,
        state: Bytes::new(),
    }
}
