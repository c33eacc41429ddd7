//! Connection events: one when a connection has entered, one when it was removed, for code that counts or bills them.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::future::BoxFuture;

use crate::error::BackplaneError;
use crate::position::{Epoch, Offset};
use crate::topic::{ConnectionId, UserId};

/// Most bytes of [`EventRecord::payload`], and of [`EventRecord::state`].
pub const MAX_EVENT_RECORD_BYTES: usize = 16 << 10;

/// The stream of a hub's connection events. Part of [`HubBackplane`](crate::HubBackplane).
///
/// Where [`HubOptions::events`](crate::HubOptions::events) is set, the step that makes a change true also appends its
/// event to the hub's stream:
/// * `connected` when a connection enters. None when it is parked, moves to another node, or is registered again after
///   the server lost its data.
/// * `disconnected` when it is removed: by its owner, by time after it was parked, or by another node after its owner
///   died. None for a connection that never entered.
///
/// So each connection has one event of each kind, however often an answer is lost and whichever node dies. Both have the
/// same [`id`](ConnectionEvent::id) on every attempt and node. Events are kept as well as the server keeps its data:
/// one that forgets the connections' entries forgets their events, too.
///
/// # Reading
/// [`follow_events`](Events::follow_events) reads the stream without changing it. Any number of readers may do so.
///
/// # Delivery
/// With [`EventOptions::deliver`], each event is assigned to a node in the step that appends it: a `connected` to the
/// connection's owner, a `disconnected` to the node that removes the connection. A node reads its events with
/// [`read_events`](Events::read_events), delivers them, and calls [`finish_events`](Events::finish_events). An event
/// that is not finished stays assigned. Once its node is dead, or has left, one of the other nodes that deliver gets it
/// assigned. So an event is delivered at least once: again, with the same id, where its node dies between the delivery
/// and the end of `finish_events`.
///
/// # Order
/// `read_events` returns an event only when the earlier event of the same connection is finished, on whichever node
/// that was, or dropped. So a caller delivers everything that it is given at once and in any order, and retries each
/// event for itself. The order also holds after a node was killed, because a dead node's event counts as unfinished
/// until the node that took it over has finished it.
///
/// A node that was taken for dead and comes back (it was paused, or cut off for longer than its lease) may still be
/// busy with an event that another node delivers by then. Call [`holds_event`](Events::holds_event) before each
/// repeated attempt.
///
/// # Bounds
/// The stream keeps finished events, too, for those that follow it. The oldest ones go beyond
/// [`EventOptions::most`] and [`EventOptions::life`]. Unfinished events that go that way are counted in
/// [`Statistics::events_dropped`](crate::Statistics::events_dropped) of the node that noticed, with a line in its log.
pub trait Events: Send + Sync {
    /// The next events that this node has to deliver, at most `count`, in the order of the stream; waits for at most
    /// `wait` until there is one. Each event is returned once, until [`return_events`](Events::return_events). The
    /// future may be dropped at any time: no event is lost with it.
    fn read_events<'a>(
        &'a self,
        count: usize,
        wait: Duration,
    ) -> BoxFuture<'a, Result<Vec<ConnectionEvent>, BackplaneError>>;

    /// Records that events of this node are done with: delivered, or given up for good. After an error the call may be
    /// repeated. Events that another node holds by now are left as they are.
    fn finish_events<'a>(&'a self, places: &'a [EventPlace]) -> BoxFuture<'a, Result<(), BackplaneError>>;

    /// Takes back events that were read and are not being delivered any more: [`read_events`](Events::read_events) of
    /// this node returns them anew.
    fn return_events(&self, places: &[EventPlace]);

    /// Returns whether an event is still assigned to this node. Asks the server only where this node may have been
    /// taken for dead meanwhile.
    fn holds_event<'a>(&'a self, event: &'a ConnectionEvent) -> BoxFuture<'a, Result<bool, BackplaneError>>;

    /// Returns whether the `connected` event of a connection is finished, on whichever node it is; `true` also for
    /// connections without one. A node that a connection has moved to asks before it delivers the connection's
    /// messages.
    fn connected_finished<'a>(
        &'a self,
        connection: &'a ConnectionId,
    ) -> BoxFuture<'a, Result<bool, BackplaneError>>;

    /// The unfinished events of the hub, on all nodes.
    fn pending_events(&self) -> BoxFuture<'_, Result<PendingEvents, BackplaneError>>;

    /// Events after a place of the stream, at most `count`; waits for at most `wait` until there is one. `None`: returns
    /// the present end of the stream at once, as a place to go on from.
    fn follow_events<'a>(
        &'a self,
        after: Option<EventPlace>,
        count: usize,
        wait: Duration,
    ) -> BoxFuture<'a, Result<EventPage, BackplaneError>>;

    /// Replaces [`EventRecord::state`] of a connection that this node owns. `false` where it does not own it, or the
    /// connection has no events.
    fn restate_events<'a>(
        &'a self,
        connection: &'a ConnectionId,
        state: Bytes,
    ) -> BoxFuture<'a, Result<bool, BackplaneError>>;
}

/// The connection events of one hub.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventOptions {
    /// Most events that are kept, finished or not. The server may keep up to 100 more.
    pub most: usize,
    /// The time for which an event is kept, finished or not.
    pub life: Duration,
    /// True if the nodes of the hub deliver its events: each event is then assigned to a node until it is finished.
    /// When a hub begins to deliver, events that are in the stream already are not assigned.
    pub deliver: bool,
}

impl Default for EventOptions {
    fn default() -> Self {
        Self {
            most: 100_000,
            life: Duration::from_secs(24 * 3_600),
            deliver: false,
        }
    }
}

/// The data of a connection that its events carry, as the gateway encodes it. It goes with the connection to other
/// nodes, and is in both events, also where another node appends the last one after the owner died.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventRecord {
    /// The data of the connection, for instance its claims; at most [`MAX_EVENT_RECORD_BYTES`].
    pub payload: Bytes,
    /// State that the receiver of the events keeps with the connection, see [`Events::restate_events`]; at most
    /// [`MAX_EVENT_RECORD_BYTES`].
    pub state: Bytes,
}

impl EventRecord {
    /// Checks that both parts are within their bound.
    ///
    /// # Errors
    /// [`BackplaneError::EventTooLarge`] where one is not.
    pub fn check(&self) -> Result<(), BackplaneError> {
        check_bytes(&self.payload)?;
        check_bytes(&self.state)
    }
}

pub(crate) fn check_bytes(part: &[u8]) -> Result<(), BackplaneError> {
    if part.len() > MAX_EVENT_RECORD_BYTES {
        return Err(BackplaneError::EventTooLarge { bytes: part.len() });
    }
    Ok(())
}

/// One event of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionEvent {
    /// The event's id, made from the epoch and offset in the log at which the connection entered, and the kind of
    /// event: letters, digits and `-`. The same on every attempt and every node.
    pub id: String,
    /// The event's place in the stream.
    pub place: EventPlace,
    /// The connection's id.
    pub connection: ConnectionId,
    /// The connection's user, if it has one.
    pub user: Option<UserId>,
    /// The change of the connection.
    pub kind: EventKind,
    /// The server's time of the change.
    pub time: SystemTime,
    /// The data that the connection entered with, and its state at that time.
    pub record: EventRecord,
}

/// The change that an event reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// The connection has entered.
    Connected,
    /// The connection was removed.
    Disconnected {
        /// [`End::reason`](crate::End::reason), or the one that the backplane knows.
        reason: String,
    },
}

impl EventKind {
    /// `connected` or `disconnected`.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Connected => CONNECTED,
            Self::Disconnected { .. } => DISCONNECTED,
        }
    }
}

pub(crate) const CONNECTED: &str = "connected";
pub(crate) const DISCONNECTED: &str = "disconnected";

/// The log line for unfinished events that are lost by the bounds of the stream.
pub(crate) const EVENTS_DROPPED: &str =
    "connection events were dropped before they were delivered (hubs.events_most, hubs.events_seconds)";

/// The reason in the event of a connection whose node died.
pub const NODE_DIED: &str = "node died";
/// The reason in the event of a connection that was parked and that no node took over in time.
pub const NOT_RESUMED: &str = "lost: the client did not come back in time";

/// The part that the ids of a connection's events share: where the connection entered.
pub(crate) fn event_base(epoch: &Epoch, offset: Offset) -> String {
    format!("{epoch}-{offset}")
}

/// The id of a connection's event. `base`: where the connection entered, as [`event_base`] writes it.
pub(crate) fn event_id(base: &str, kind: &str) -> String {
    format!("{base}-{kind}")
}

/// The place of an event in its hub's stream: milliseconds of the server's time, and a number. Written `MS-NUMBER`, as
/// Redis writes the ids of stream entries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventPlace {
    /// Milliseconds since 1970. They never go back, also where the server's clock does.
    pub millis: u64,
    /// The number among the events of this millisecond.
    pub number: u64,
}

impl EventPlace {
    /// The place before all events.
    pub const START: Self = Self { millis: 0, number: 0 };
}

impl fmt::Display for EventPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.millis, self.number)
    }
}

/// The text is not a place: `MS-NUMBER` or `MS`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not the place of an event; it is written like 1764370000000-0")]
pub struct NoEventPlace;

impl FromStr for EventPlace {
    type Err = NoEventPlace;

    fn from_str(text: &str) -> Result<Self, NoEventPlace> {
        let (millis, number) = text.split_once('-').unwrap_or((text, "0"));
        let digits = |text: &str| -> Result<u64, NoEventPlace> {
            let all = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            all.then(|| text.parse().ok()).flatten().ok_or(NoEventPlace)
        };
        Ok(Self {
            millis: digits(millis)?,
            number: digits(number)?,
        })
    }
}

/// The answer to one call of [`Events::follow_events`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventPage {
    /// The events, in the order of the stream.
    pub events: Vec<ConnectionEvent>,
    /// The place to go on from.
    pub reached: EventPlace,
    /// True if events between the requested place and the first event returned may have been dropped by the bounds of
    /// the stream.
    pub trimmed: bool,
}

/// The unfinished events that a node holds: an event waits while the earlier one of its connection is unfinished.
#[derive(Debug, Default)]
pub(crate) struct Held {
    ready: BTreeMap<EventPlace, ConnectionEvent>,
    /// Events that wait, by the place of the earlier event of the connection and their own.
    waiting: BTreeMap<(EventPlace, EventPlace), ConnectionEvent>,
    /// Events that were returned to the caller.
    given: BTreeMap<EventPlace, ConnectionEvent>,
}

impl Held {
    /// Adds an event that the node holds; `behind`: the earlier event of its connection, where that is unfinished.
    pub(crate) fn add(&mut self, event: ConnectionEvent, behind: Option<EventPlace>) {
        match behind {
            Some(earlier) => self.waiting.insert((earlier, event.place), event),
            None => self.ready.insert(event.place, event),
        };
    }

    /// Gives out the first events that may be delivered.
    pub(crate) fn take(&mut self, count: usize) -> Vec<ConnectionEvent> {
        let mut taken = Vec::new();
        while taken.len() < count
            && let Some((place, event)) = self.ready.pop_first()
        {
            self.given.insert(place, event.clone());
            taken.push(event);
        }
        taken
    }

    /// Takes an event back that was given out.
    pub(crate) fn give_back(&mut self, place: &EventPlace) {
        if let Some(event) = self.given.remove(place) {
            self.ready.insert(*place, event);
        }
    }

    /// Forgets an event that is finished, dropped or another node's, and lets those go that wait for it.
    pub(crate) fn end(&mut self, place: &EventPlace) {
        self.given.remove(place);
        self.ready.remove(place);
        self.waiting.retain(|(_, own), _| own != place);
        self.let_go(place);
    }

    /// Lets events go whose earlier event is finished, on whichever node.
    pub(crate) fn let_go(&mut self, earlier: &EventPlace) {
        let first = (*earlier, EventPlace::START);
        while let Some((key, _)) = self.waiting.range(first..).next()
            && key.0 == *earlier
        {
            let key = *key;
            if let Some(event) = self.waiting.remove(&key) {
                self.ready.insert(event.place, event);
            }
        }
    }
}

#[cfg(feature = "redis")]
impl Held {
    /// Returns whether the node has this event.
    pub(crate) fn has(&self, place: &EventPlace) -> bool {
        self.given.contains_key(place)
            || self.ready.contains_key(place)
            || self.waiting.keys().any(|(_, own)| own == place)
    }

    /// Returns whether an event may be given out.
    pub(crate) fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// The places of unfinished events that are not this node's and that events of this node wait for.
    pub(crate) fn awaited(&self) -> Vec<EventPlace> {
        let mine = |place: &EventPlace| self.given.contains_key(place) || self.ready.contains_key(place);
        let awaited = self.waiting.keys().map(|(earlier, _)| *earlier);
        awaited.filter(|place| !mine(place)).collect()
    }

    /// The number of events that the node has.
    pub(crate) fn len(&self) -> usize {
        self.ready.len() + self.waiting.len() + self.given.len()
    }

    /// The places of events that were given out.
    pub(crate) fn given(&self) -> impl Iterator<Item = EventPlace> {
        self.given.keys().copied()
    }

    /// Forgets all events that were not given out.
    pub(crate) fn forget_rest(&mut self) {
        self.ready.clear();
        self.waiting.clear();
    }
}

/// The unfinished events of a hub.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PendingEvents {
    /// Their number.
    pub count: u64,
    /// The age of the oldest one; `None` where there is none.
    pub oldest: Option<Duration>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_read_as_it_is_written() {
        let place = EventPlace {
            millis: 1_764_370_000_000,
            number: 7,
        };
        assert_eq!(place.to_string(), "1764370000000-7");
        assert_eq!(place.to_string().parse(), Ok(place));
        assert_eq!("5".parse(), Ok(EventPlace { millis: 5, number: 0 }));
        assert!(EventPlace::START < place);
        for other in [
            "",
            "-",
            "1-",
            "-1",
            "+1-0",
            "1-0-0",
            "x",
            "18446744073709551616-0",
            "(1-0",
        ] {
            assert_eq!(other.parse::<EventPlace>(), Err(NoEventPlace), "{other}");
        }
    }
}
