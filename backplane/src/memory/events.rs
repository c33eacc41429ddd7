//! The connection events of a node that is alone.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use super::hub::{HubState, MemoryHub};
use crate::error::BackplaneError;
use crate::events::{
    ConnectionEvent, EventKind, EventOptions, EventPage, EventPlace, EventRecord, Events, Held,
    PendingEvents, check_bytes, event_base, event_id,
};
use crate::position::{Epoch, Offset};
use crate::topic::ConnectionId;

/// A hub's stream of events.
pub(super) struct EventLog {
    options: EventOptions,
    entries: VecDeque<StoredEvent>,
    last: EventPlace,
    /// The last place that the bounds have dropped.
    cut: Option<EventPlace>,
    unfinished: BTreeSet<EventPlace>,
    held: Held,
    /// Number of events that were dropped unfinished.
    dropped: u64,
    news: Arc<Notify>,
}

struct StoredEvent {
    event: ConnectionEvent,
    since: Instant,
}

/// The events of a connection that has entered.
pub(super) struct Reported {
    base: String,
    connected: EventPlace,
    pub(super) record: EventRecord,
}

impl EventLog {
    pub(super) fn new(options: EventOptions) -> Self {
        Self {
            options,
            entries: VecDeque::new(),
            last: EventPlace::START,
            cut: None,
            unfinished: BTreeSet::new(),
            held: Held::default(),
            dropped: 0,
            news: Arc::default(),
        }
    }

    fn append(&mut self, event: ConnectionEvent, earlier: Option<EventPlace>) -> EventPlace {
        let now = SystemTime::now();
        let millis = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64;
        let place = if millis > self.last.millis {
            EventPlace { millis, number: 0 }
        } else {
            EventPlace {
                number: self.last.number + 1,
                ..self.last
            }
        };
        self.last = place;
        let event = ConnectionEvent {
            place,
            time: now,
            ..event
        };
        if self.options.deliver {
            let behind = earlier.filter(|earlier| self.unfinished.contains(earlier));
            self.unfinished.insert(place);
            self.held.add(event.clone(), behind);
        }
        self.entries.push_back(StoredEvent {
            event,
            since: Instant::now(),
        });
        while self.entries.len() > self.options.most.max(1) {
            self.drop_oldest();
        }
        self.news.notify_waiters();
        place
    }

    fn drop_oldest(&mut self) {
        let Some(StoredEvent { event, .. }) = self.entries.pop_front() else {
            return;
        };
        self.cut = Some(event.place);
        if self.unfinished.remove(&event.place) {
            self.held.end(&event.place);
            self.dropped += 1;
        }
    }

    /// Drops events that are too old.
    pub(super) fn sweep(&mut self, now: Instant) {
        let life = self.options.life;
        while self
            .entries
            .front()
            .is_some_and(|entry| now.saturating_duration_since(entry.since) > life)
        {
            self.drop_oldest();
        }
    }

    fn finish(&mut self, places: &[EventPlace]) {
        for place in places {
            self.unfinished.remove(place);
            self.held.end(place);
        }
        self.news.notify_waiters();
    }

    fn page(&self, after: EventPlace, count: usize) -> EventPage {
        let from = self.entries.partition_point(|entry| entry.event.place <= after);
        let events: Vec<_> = self
            .entries
            .iter()
            .skip(from)
            .take(count)
            .map(|entry| entry.event.clone())
            .collect();
        EventPage {
            reached: events.last().map_or(after, |event| event.place),
            trimmed: self.cut.is_some_and(|cut| cut > after),
            events,
        }
    }

    fn pending(&self) -> PendingEvents {
        let oldest = self.unfinished.first().and_then(|oldest| {
            let at = self.entries.partition_point(|entry| entry.event.place < *oldest);
            self.entries.get(at).map(|entry| entry.since.elapsed())
        });
        PendingEvents {
            count: self.unfinished.len() as u64,
            oldest,
        }
    }
}

impl HubState {
    /// Appends the event of a connection that has entered with the log's entry at `offset`, unless it has one.
    pub(super) fn report_connected(
        &mut self,
        id: &ConnectionId,
        epoch: &Epoch,
        offset: Offset,
        record: &EventRecord,
    ) {
        let (Some(events), Some(connection)) = (&mut self.events, self.connections.get_mut(id)) else {
            return;
        };
        if connection.reported.is_some() {
            return;
        }
        let base = event_base(epoch, offset);
        let event = event_of(id, &base, connection.user.clone(), EventKind::Connected, record);
        let connected = events.append(event, None);
        connection.reported = Some(Reported {
            base,
            connected,
            record: record.clone(),
        });
    }

    /// Appends the event of a connection that was removed, if it has one from its entering.
    pub(super) fn report_disconnected(
        &mut self,
        id: &ConnectionId,
        connection: &super::hub::StoredConnection,
        reason: &str,
    ) {
        let (Some(events), Some(reported)) = (&mut self.events, &connection.reported) else {
            return;
        };
        let kind = EventKind::Disconnected {
            reason: reason.to_owned(),
        };
        let event = event_of(
            id,
            &reported.base,
            connection.user.clone(),
            kind,
            &reported.record,
        );
        events.append(event, Some(reported.connected));
    }
}

fn event_of(
    id: &ConnectionId,
    base: &str,
    user: Option<crate::topic::UserId>,
    kind: EventKind,
    record: &EventRecord,
) -> ConnectionEvent {
    ConnectionEvent {
        id: event_id(base, kind.name()),
        place: EventPlace::START,
        connection: id.clone(),
        user,
        kind,
        time: UNIX_EPOCH,
        record: record.clone(),
    }
}

impl MemoryHub {
    /// Number of events that were dropped unfinished.
    pub(super) fn events_dropped(&self) -> u64 {
        self.state
            .lock()
            .events
            .as_ref()
            .map_or(0, |events| events.dropped)
    }

    fn with_events<T>(&self, work: impl FnOnce(&mut EventLog) -> T) -> Result<T, BackplaneError> {
        let mut state = self.state.lock();
        let events = state.events.as_mut();
        events.map(work).ok_or_else(|| BackplaneError::NoEvents {
            hub: self.name.to_string(),
        })
    }

    /// Repeats `look` at each change of the stream, until it finds something or the time is up.
    async fn await_events<T>(
        &self,
        wait: Duration,
        look: impl Fn(&mut EventLog) -> T,
        found: impl Fn(&T) -> bool,
    ) -> Result<T, BackplaneError> {
        let deadline = Instant::now() + wait;
        let news = self.with_events(|events| Arc::clone(&events.news))?;
        loop {
            let notified = news.notified();
            let looked = self.with_events(&look)?;
            if found(&looked) || timeout_at(deadline, notified).await.is_err() {
                return Ok(looked);
            }
        }
    }
}

impl Events for MemoryHub {
    fn read_events<'a>(
        &'a self,
        count: usize,
        wait: Duration,
    ) -> BoxFuture<'a, Result<Vec<ConnectionEvent>, BackplaneError>> {
        async move {
            let take = |events: &mut EventLog| events.held.take(count);
            self.await_events(wait, take, |taken| !taken.is_empty()).await
        }
        .boxed()
    }

    fn finish_events<'a>(&'a self, places: &'a [EventPlace]) -> BoxFuture<'a, Result<(), BackplaneError>> {
        async move { self.with_events(|events| events.finish(places)) }.boxed()
    }

    fn return_events(&self, places: &[EventPlace]) {
        let _ = self.with_events(|events| {
            places.iter().for_each(|place| events.held.give_back(place));
            events.news.notify_waiters();
        });
    }

    fn holds_event<'a>(&'a self, event: &'a ConnectionEvent) -> BoxFuture<'a, Result<bool, BackplaneError>> {
        async move { self.with_events(|events| events.unfinished.contains(&event.place)) }.boxed()
    }

    fn connected_finished<'a>(
        &'a self,
        connection: &'a ConnectionId,
    ) -> BoxFuture<'a, Result<bool, BackplaneError>> {
        async move {
            let state = self.state.lock();
            let reported = state
                .connections
                .get(connection)
                .and_then(|known| known.reported.as_ref());
            Ok(match (reported, &state.events) {
                (Some(reported), Some(events)) => !events.unfinished.contains(&reported.connected),
                _ => true,
            })
        }
        .boxed()
    }

    fn pending_events(&self) -> BoxFuture<'_, Result<PendingEvents, BackplaneError>> {
        async move { self.with_events(|events| events.pending()) }.boxed()
    }

    fn follow_events<'a>(
        &'a self,
        after: Option<EventPlace>,
        count: usize,
        wait: Duration,
    ) -> BoxFuture<'a, Result<EventPage, BackplaneError>> {
        async move {
            let Some(after) = after else {
                return self.with_events(|events| events.page(events.last, 0));
            };
            let look = |events: &mut EventLog| events.page(after, count);
            self.await_events(wait, look, |page| !page.events.is_empty() || page.trimmed)
                .await
        }
        .boxed()
    }

    fn restate_events<'a>(
        &'a self,
        connection: &'a ConnectionId,
        state: Bytes,
    ) -> BoxFuture<'a, Result<bool, BackplaneError>> {
        async move {
            check_bytes(&state)?;
            let mut known = self.state.lock();
            let owned = known
                .connections
                .get_mut(connection)
                .filter(|known| known.parked.is_none());
            let reported = owned.and_then(|known| known.reported.as_mut());
            Ok(reported.map(|reported| reported.record.state = state).is_some())
        }
        .boxed()
    }
}
