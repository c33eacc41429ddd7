//! Connection events: the scripts that enter and remove connections append them; this node reads those that are
//! assigned to it, and takes over those of nodes that are gone.
//!
//! Events are assigned in the script that appends them, so no connection to the server waits for them: this node knows
//! of its own, and looks for those that it took over, or that wait for another node, with each heartbeat.

use std::collections::HashSet;
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::{Mutex as AsyncMutex, Notify};
use tokio::time::{Instant, timeout_at};
use tracing::{info, warn};

use crate::error::BackplaneError;
use crate::events::{
    CONNECTED, ConnectionEvent, DISCONNECTED, EventKind, EventPage, EventPlace, EventRecord, Events, Held,
    PendingEvents, check_bytes,
};
use crate::redis::directory::ends::Missing;
use crate::redis::feed::hub::Hub;
use crate::redis::hub::RedisHub;
use crate::redis::inner::Inner;
use crate::redis::script::calls::events::{
    ClaimEvents, CountPending, FinishEvents, FollowEvents, NodeOfEvent, ReadEvents, RestateEvents,
};
use crate::redis::script::invocation::Invocation;
use crate::redis::script::writer::Patience;
use crate::redis::server::commands::Repeat;
use crate::redis::server::replies::{decode, malformed};
use crate::topic::{ConnectionId, NodeId, UserId};

/// Most events that are read, finished or taken over in one round trip.
const PAGE: usize = 100;
/// About how many bytes of events are read in one round trip by those that follow the stream.
const PAGE_BYTES: u128 = 1 << 20;
/// Time between two looks of a follower for other nodes' events.
const FOLLOWING: Duration = Duration::from_millis(250);

/// The fields of an entry of the stream: names and values in turn.
type EventFields = Vec<Bytes>;

/// The events of a hub that this node delivers.
#[derive(Default)]
pub(in crate::redis) struct EventsHere {
    state: Mutex<Here>,
    /// Held while events are read from the server.
    reading: AsyncMutex<()>,
    /// Notified when there may be events to read.
    pub(in crate::redis) news: Notify,
}

#[derive(Default)]
struct Here {
    held: Held,
    /// The place up to which this node has read its events.
    cursor: EventPlace,
    /// Events that were given out before this node stood still for so long that another one may have them now.
    doubted: HashSet<EventPlace>,
}

impl EventsHere {
    /// Records that other nodes may have taken this one for dead, and its events with it.
    pub(in crate::redis) fn doubt(&self) {
        self.read_anew();
        let mut state = self.state.lock();
        state.doubted = state.held.given().collect();
    }

    /// Has all events read anew that were not given out: some may have been assigned to this node, or to others.
    fn read_anew(&self) {
        let mut state = self.state.lock();
        state.held.forget_rest();
        state.cursor = EventPlace::START;
    }
}

impl Hub {
    fn check_events(&self) -> Result<(), BackplaneError> {
        match self.scripts.options.events {
            Some(_) => Ok(()),
            None => Err(BackplaneError::NoEvents {
                hub: self.name.to_string(),
            }),
        }
    }
}

impl Inner {
    async fn read_events(
        &self,
        hub: &Hub,
        count: usize,
        wait: Duration,
    ) -> Result<Vec<ConnectionEvent>, BackplaneError> {
        hub.check_events()?;
        let deadline = Instant::now() + wait;
        loop {
            let news = hub.events.news.notified();
            // Others may have taken this node for dead, and its events with it.
            if !self.nodes.is_fresh(self.options.lease / 2) {
                hub.events.read_anew();
            }
            let taken = hub.events.state.lock().held.take(count);
            if !taken.is_empty() {
                return Ok(taken);
            }
            let found = {
                let _turn = hub.events.reading.lock().await;
                self.fetch_events(hub, count).await?
            };
            if found {
                continue;
            }
            tokio::select! {
                () = self.closing.cancelled() => return Err(BackplaneError::Closed),
                news = timeout_at(deadline, news) => if news.is_err() { return Ok(Vec::new()) },
            }
        }
    }

    /// Reads the next events that are assigned to this node. Returns whether some may be given out now, or more can be
    /// read.
    async fn fetch_events(&self, hub: &Hub, count: usize) -> Result<bool, BackplaneError> {
        if self.nodes.is_barred() {
            return Ok(false);
        }
        let (cursor, awaited) = {
            let state = hub.events.state.lock();
            (state.cursor, state.held.awaited())
        };
        let call = Invocation::of(ReadEvents {
            stream: hub.scripts.keys.events(),
            node: &self.options.node,
            after: cursor,
            most: count.clamp(1, PAGE),
            awaited,
        });
        let answer = self.commands.script(&call, Repeat::Safe).await?;
        let (finished, events): (Vec<String>, Vec<(String, EventFields, bool)>) = decode(answer)?;
        let full = events.len() == count.clamp(1, PAGE);
        let mut state = hub.events.state.lock();
        for earlier in finished.iter().filter_map(|place| place.parse().ok()) {
            state.held.let_go(&earlier);
        }
        if state.cursor != cursor {
            return Ok(true); // all is read anew meanwhile
        }
        for (place, fields, waits) in events {
            let place: EventPlace = place.parse().map_err(|_| malformed("the place of an event"))?;
            state.cursor = place;
            if state.held.has(&place) {
                continue;
            }
            match read_event(place, &fields) {
                Some((event, earlier)) => state.held.add(event, earlier.filter(|_| waits)),
                None => {
                    warn!(hub = %hub.name, %place, "an event of this hub has a form that this version does not read");
                }
            }
        }
        Ok(full || state.held.has_ready())
    }

    async fn finish_events(&self, hub: &Hub, places: &[EventPlace]) -> Result<(), BackplaneError> {
        hub.check_events()?;
        for places in places.chunks(PAGE) {
            let call = Invocation::of(FinishEvents {
                stream: hub.scripts.keys.events(),
                node: &self.options.node,
                places: places.to_vec(),
            });
            self.commands.script(&call, Repeat::Safe).await?;
            let mut state = hub.events.state.lock();
            for place in places {
                state.held.end(place);
                state.doubted.remove(place);
            }
        }
        hub.events.news.notify_waiters();
        Ok(())
    }

    /// The node that an unfinished event is assigned to: the event at a place, or else the `connected` of a connection.
    async fn node_of_event(
        &self,
        hub: &Hub,
        place: Option<EventPlace>,
        connection: &ConnectionId,
    ) -> Result<Option<NodeId>, BackplaneError> {
        let call = Invocation::of(NodeOfEvent {
            stream: hub.scripts.keys.events(),
            connection: hub.scripts.keys.connection(connection),
            place,
        });
        let node: Option<String> = decode(self.commands.script(&call, Repeat::Safe).await?)?;
        Ok(node.and_then(|node| NodeId::parse(node).ok()))
    }

    /// The unfinished events, and how many each node has.
    async fn pending_events(&self, hub: &Hub) -> Result<(PendingEvents, Vec<(NodeId, u64)>), BackplaneError> {
        let call = Invocation::of(CountPending {
            stream: hub.scripts.keys.events(),
        });
        let (count, oldest, nodes): (u64, u64, Vec<(String, u64)>) =
            decode(self.commands.script(&call, Repeat::Safe).await?)?;
        let pending = PendingEvents {
            count,
            oldest: (count > 0).then(|| Duration::from_millis(oldest)),
        };
        let named = |(node, count): (String, u64)| Some((NodeId::parse(node).ok()?, count));
        Ok((pending, nodes.into_iter().filter_map(named).collect()))
    }

    /// Takes over events of nodes that are gone, forgets those nodes, and has this node's readers look for theirs.
    pub(in crate::redis) async fn tend_events(
        &self,
        hub: &Hub,
        missing: &mut Missing,
    ) -> Result<(), BackplaneError> {
        let (_, nodes) = self.pending_events(hub).await?;
        let (mut gone, mut assigned) = (Vec::new(), 0);
        for (node, count) in nodes {
            if node == self.options.node {
                assigned = count;
            } else if self.is_gone(Some(&node), missing) {
                gone.push(node);
            }
        }
        // More than this node has read: they were assigned to it by a call whose answer was lost, or came back with
        // an earlier state of the server; or this node is yet to read them.
        if assigned > hub.events.state.lock().held.len() as u64 {
            hub.events.read_anew();
        }
        hub.events.news.notify_waiters();
        if gone.is_empty() {
            return Ok(());
        }
        let call = Invocation::of(ClaimEvents {
            stream: hub.scripts.keys.events(),
            node: &self.options.node,
            most: PAGE,
            gone: gone.iter().collect(),
        });
        let claimed: u64 = decode(self.commands.script(&call, Repeat::Safe).await?)?;
        if claimed > 0 {
            info!(hub = %hub.name, events = claimed, "delivering events of nodes that are gone");
            hub.events.read_anew();
            hub.events.news.notify_waiters();
        }
        Ok(())
    }

    async fn follow_events(
        &self,
        hub: &Hub,
        after: Option<EventPlace>,
        count: usize,
        wait: Duration,
    ) -> Result<EventPage, BackplaneError> {
        hub.check_events()?;
        let deadline = Instant::now() + wait;
        let call = Invocation::of(FollowEvents {
            log: hub.scripts.keys.log(),
            stream: hub.scripts.keys.events(),
            after,
            most: count,
            most_bytes: PAGE_BYTES,
        });
        loop {
            let news = hub.events.news.notified();
            let (reached, trimmed, entries): (String, bool, Vec<(String, EventFields)>) =
                decode(self.commands.read(&call).await?)?;
            let event =
                |(place, fields): (String, EventFields)| Some(read_event(place.parse().ok()?, &fields)?.0);
            let page = EventPage {
                events: entries.into_iter().filter_map(event).collect(),
                reached: reached.parse().map_err(|_| malformed("the place of an event"))?,
                trimmed,
            };
            let moved = after.is_none_or(|after| after != page.reached);
            if moved || trimmed || Instant::now() >= deadline {
                return Ok(page);
            }
            let look = deadline.min(Instant::now() + FOLLOWING);
            tokio::select! {
                () = self.closing.cancelled() => return Err(BackplaneError::Closed),
                _ = timeout_at(look, news) => {}
            }
        }
    }
}

/// Reads an entry of the stream as `append_event` in `log.lua` writes it, and the place of the connection's earlier
/// event.
fn read_event(place: EventPlace, fields: &[Bytes]) -> Option<(ConnectionEvent, Option<EventPlace>)> {
    let field = |name: &str| {
        let (pairs, _) = fields.as_chunks::<2>();
        let found = pairs.iter().find(|[known, _]| *known == name.as_bytes());
        found.map(|[_, value]| value.clone())
    };
    let text = |name| String::from_utf8(field(name)?.to_vec()).ok();
    let kind = match text("type")?.as_str() {
        CONNECTED => EventKind::Connected,
        DISCONNECTED => EventKind::Disconnected {
            reason: text("reason").unwrap_or_default(),
        },
        _ => return None,
    };
    let event = ConnectionEvent {
        id: text("id")?,
        place,
        connection: ConnectionId::parse(text("connection")?).ok()?,
        user: UserId::from_stored(&text("user").unwrap_or_default()).ok(),
        kind,
        time: UNIX_EPOCH + Duration::from_millis(text("time")?.parse().ok()?),
        record: EventRecord {
            payload: field("payload").unwrap_or_default(),
            state: field("state").unwrap_or_default(),
        },
    };
    Some((event, text("connected").and_then(|place| place.parse().ok())))
}

impl Events for RedisHub {
    fn read_events<'a>(
        &'a self,
        count: usize,
        wait: Duration,
    ) -> BoxFuture<'a, Result<Vec<ConnectionEvent>, BackplaneError>> {
        self.inner.read_events(&self.hub, count, wait).boxed()
    }

    fn finish_events<'a>(&'a self, places: &'a [EventPlace]) -> BoxFuture<'a, Result<(), BackplaneError>> {
        self.inner.finish_events(&self.hub, places).boxed()
    }

    fn return_events(&self, places: &[EventPlace]) {
        let hub = &self.hub;
        {
            let mut state = hub.events.state.lock();
            for place in places {
                if state.doubted.remove(place) {
                    state.held.end(place); // if it still is this node's, it is read anew
                    state.cursor = EventPlace::START;
                } else {
                    state.held.give_back(place);
                }
            }
        }
        hub.events.news.notify_waiters();
    }

    fn holds_event<'a>(&'a self, event: &'a ConnectionEvent) -> BoxFuture<'a, Result<bool, BackplaneError>> {
        async move {
            let (inner, hub) = (&self.inner, &self.hub);
            hub.check_events()?;
            let is_fresh = inner.nodes.is_fresh(inner.options.lease / 2);
            {
                let state = hub.events.state.lock();
                if !state.held.has(&event.place) {
                    return Ok(false);
                }
                if is_fresh && !state.doubted.contains(&event.place) {
                    return Ok(true);
                }
            }
            let node = inner
                .node_of_event(hub, Some(event.place), &event.connection)
                .await?;
            let mine = node.as_ref() == Some(&inner.options.node);
            let mut state = hub.events.state.lock();
            if !mine {
                state.held.end(&event.place);
            }
            if is_fresh || !mine {
                state.doubted.remove(&event.place);
            }
            Ok(mine)
        }
        .boxed()
    }

    fn connected_finished<'a>(
        &'a self,
        connection: &'a ConnectionId,
    ) -> BoxFuture<'a, Result<bool, BackplaneError>> {
        async move {
            self.hub.check_events()?;
            let node = self.inner.node_of_event(&self.hub, None, connection).await?;
            Ok(node.is_none())
        }
        .boxed()
    }

    fn pending_events(&self) -> BoxFuture<'_, Result<PendingEvents, BackplaneError>> {
        async move {
            self.hub.check_events()?;
            Ok(self.inner.pending_events(&self.hub).await?.0)
        }
        .boxed()
    }

    fn follow_events<'a>(
        &'a self,
        after: Option<EventPlace>,
        count: usize,
        wait: Duration,
    ) -> BoxFuture<'a, Result<EventPage, BackplaneError>> {
        self.inner.follow_events(&self.hub, after, count, wait).boxed()
    }

    fn restate_events<'a>(
        &'a self,
        connection: &'a ConnectionId,
        state: Bytes,
    ) -> BoxFuture<'a, Result<bool, BackplaneError>> {
        async move {
            check_bytes(&state)?;
            let (inner, hub) = (&self.inner, &self.hub);
            hub.check_events()?;
            let call = Invocation::of(RestateEvents {
                connection: hub.scripts.keys.connection(connection),
                node: &inner.options.node,
                state: state.clone(),
            });
            let _gate = inner.pass_with(hub, connection, inner.deadline()).await?;
            let restated = decode::<bool>(hub.scripts.writer.carry_out(call, Patience::Short).await?)?;
            if restated {
                hub.local.lock().set_event_state(connection, state);
            }
            Ok(restated)
        }
        .boxed()
    }
}
