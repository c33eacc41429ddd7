//! Rules about connection events, which are appended in the step that makes them true.

use std::time::{Duration, SystemTime};

use bytes::Bytes;

use super::sessions::resumable;
use super::{Member, Nodes, Witness, eventually, open, record};
use crate::backplane::{ConnectionRecord, End, HubOptions};
use crate::error::BackplaneError;
use crate::events::{
    ConnectionEvent, EventKind, EventOptions, EventPlace, EventRecord, MAX_EVENT_RECORD_BYTES, NOT_RESUMED,
};
use crate::sessions::TakeOver;
use crate::topic::ConnectionId;

/// Longest wait of a rule for an event that must come.
const PATIENCE: Duration = Duration::from_secs(30);

/// A hub whose events are delivered.
#[must_use]
pub fn delivering() -> HubOptions {
    HubOptions {
        events: Some(EventOptions {
            deliver: true,
            ..EventOptions::default()
        }),
        ..HubOptions::default()
    }
}

fn end(reason: &str) -> End {
    End {
        reason: reason.to_owned(),
        ..End::unreported(Duration::from_secs(60))
    }
}

impl Member {
    async fn end(&self, id: &ConnectionId, reason: &str) {
        assert!(self.hub.remove(id, end(reason)).await.unwrap());
    }

    /// The next event that this node has to deliver.
    pub async fn next_event(&self) -> ConnectionEvent {
        let mut events = self.hub.read_events(1, PATIENCE).await.unwrap();
        assert_eq!(events.len(), 1, "no event came");
        events.remove(0)
    }

    /// Asserts that this node has no event to deliver now.
    async fn has_no_event(&self) {
        let events = self.hub.read_events(10, Duration::ZERO).await.unwrap();
        assert_eq!(events, []);
    }

    /// Records that an event is finished.
    pub async fn finish(&self, event: &ConnectionEvent) {
        let places = [event.place];
        self.hub.finish_events(&places).await.unwrap();
    }

    /// All events of the hub that are kept.
    pub async fn all_events(&self) -> Vec<ConnectionEvent> {
        let (mut after, mut all) = (EventPlace::START, Vec::new());
        loop {
            let page = self.hub.follow_events(Some(after), 100, Duration::ZERO);
            let page = page.await.unwrap();
            if page.events.is_empty() {
                return all;
            }
            after = page.reached;
            all.extend(page.events);
        }
    }
}

fn disconnected(reason: &str) -> EventKind {
    EventKind::Disconnected {
        reason: reason.to_owned(),
    }
}

/// Entering and removing append one event each, in the order of the log, with ids that differ.
pub async fn each_connection_has_one_event_of_each_kind(nodes: &Nodes) {
    let members = open(nodes, delivering()).await;
    let (first, last) = (&members[0], members.last().unwrap());
    let one = first.connect(Some("ann")).await;
    let two = last.connect(None).await;
    first.end(&one, "client").await;
    assert!(!first.hub.remove(&one, end("again")).await.unwrap());
    last.end(&two, "lost: the socket broke").await;
    let events = first.all_events().await;
    let seen: Vec<_> = events
        .iter()
        .map(|event| {
            (
                &event.connection,
                event.user.as_ref().map(|user| user.stored()),
                event.kind.clone(),
            )
        })
        .collect();
    let expected = [
        (&one, Some("ann"), EventKind::Connected),
        (&two, None, EventKind::Connected),
        (&one, Some("ann"), disconnected("client")),
        (&two, None, disconnected("lost: the socket broke")),
    ];
    assert_eq!(seen, expected);
    let mut ids: Vec<_> = events.iter().map(|event| event.id.clone()).collect();
    assert!(
        ids.iter().all(|id| id
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')),
        "{ids:?}"
    );
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), events.len());
    assert!(events.windows(2).all(|pair| pair[0].place < pair[1].place));
    let age = SystemTime::now()
        .duration_since(events[0].time)
        .unwrap_or_default();
    assert!(age < Duration::from_secs(600), "{age:?}");
}

/// Both events carry the payload, and the state as it is by then.
pub async fn an_event_carries_what_the_connection_entered_with(nodes: &Nodes) {
    let members = open(nodes, delivering()).await;
    let member = &members[0];
    let carried = |state: &'static [u8]| EventRecord {
        payload: Bytes::from_static(b"\0claims\xff"),
        state: Bytes::from_static(state),
    };
    let connection = ConnectionRecord {
        event: carried(b"first"),
        ..record(None)
    };
    member.hub.enter(&connection, true).await.unwrap();
    let state = Bytes::from_static(b"second");
    let restated = member.hub.restate_events(&connection.id, state);
    assert!(restated.await.unwrap());
    member.end(&connection.id, "client").await;
    let state = Bytes::new();
    let late = member.hub.restate_events(&connection.id, state);
    assert!(!late.await.unwrap());
    let records: Vec<_> = member
        .all_events()
        .await
        .into_iter()
        .map(|event| event.record)
        .collect();
    assert_eq!(records, [carried(b"first"), carried(b"second")]);
}

/// A connection that was claimed and released, or removed before it entered, has no events.
pub async fn a_connection_that_never_entered_has_no_event(nodes: &Nodes) {
    let members = open(nodes, delivering()).await;
    let member = &members[0];
    let (one, two) = (record(Some("ann")), record(None));
    member.hub.claim(&one).await.unwrap();
    member.hub.release(&one.id).await.unwrap();
    member.hub.claim(&two).await.unwrap();
    member.end(&two.id, "client").await;
    assert_eq!(member.all_events().await, []);
    member.has_no_event().await;
}

/// A connection that is parked and taken over has no event of that; its last event comes from where it was.
pub async fn a_move_is_no_event(nodes: &Nodes) {
    let members = open(nodes, delivering()).await;
    let (first, last) = (&members[0], members.last().unwrap());
    let connection = ConnectionRecord {
        event: EventRecord {
            payload: Bytes::from_static(b"claims"),
            state: Bytes::new(),
        },
        ..resumable(Some("ann"))
    };
    let entered = first.hub.enter(&connection, true).await.unwrap();
    assert!(
        first
            .hub
            .park(&connection.id, entered.version, None)
            .await
            .unwrap()
    );
    let taken = last.hub.take_over(&connection.id, entered.version).await.unwrap();
    let TakeOver::Taken(taken) = taken else {
        panic!("{taken:?}");
    };
    assert_eq!(taken.record, connection);
    last.join(&connection.id, "g").await;
    assert_eq!(first.all_events().await.len(), 1);
    assert!(!last.hub.connected_finished(&connection.id).await.unwrap());
    let connected = first.next_event().await;
    first.finish(&connected).await;
    assert!(last.hub.connected_finished(&connection.id).await.unwrap());
    last.end(&connection.id, "client").await;
    let event = last.next_event().await;
    assert_eq!(event.kind, disconnected("client"));
    assert_eq!(
        (event.connection, event.record),
        (connection.id, connection.event)
    );
}

/// A parked connection that nobody takes over, or that is removed while it is parked, has its event.
pub async fn an_end_by_time_is_an_event(nodes: &Nodes) {
    let options = HubOptions {
        resume_window: Duration::from_millis(200),
        ..delivering()
    };
    let members = open(nodes, options).await;
    nodes.iter().for_each(|node| drop(Witness::of(&**node)));
    let (first, last) = (&members[0], members.last().unwrap());
    let connection = resumable(Some("ann"));
    let entered = first.hub.enter(&connection, true).await.unwrap();
    assert!(
        first
            .hub
            .park(&connection.id, entered.version, None)
            .await
            .unwrap()
    );
    let ended = eventually("the connection ends", async || {
        let events = last.all_events().await;
        (events.len() == 2).then(|| events[1].clone())
    });
    assert_eq!(ended.await.kind, disconnected(NOT_RESUMED));
    let connection = resumable(None);
    let entered = first.hub.enter(&connection, true).await.unwrap();
    assert!(
        first
            .hub
            .park(&connection.id, entered.version, None)
            .await
            .unwrap()
    );
    let removed = last.hub.remove_parked(&connection.id, end("server"));
    let by_time = removed.await.unwrap().is_none(); // a slow machine may have been faster
    let events = last.all_events().await;
    assert_eq!(events.len(), 4);
    let reason = if by_time { NOT_RESUMED } else { "server" };
    assert_eq!(events[3].kind, disconnected(reason));
}

/// The last event of a connection is given out when the first one is finished, on whichever node each of them is.
pub async fn an_event_waits_for_the_earlier_one_of_its_connection(nodes: &Nodes) {
    let members = open(nodes, delivering()).await;
    let (first, last) = (&members[0], members.last().unwrap());
    let connection = resumable(None);
    let entered = first.hub.enter(&connection, true).await.unwrap();
    let connected = first.next_event().await;
    assert!(
        first
            .hub
            .park(&connection.id, entered.version, None)
            .await
            .unwrap()
    );
    let taken = last.hub.take_over(&connection.id, entered.version);
    assert!(matches!(taken.await.unwrap(), TakeOver::Taken(_)));
    last.end(&connection.id, "client").await;
    let other = last.connect(None).await;
    let next = last.next_event().await; // another connection's event does not wait
    assert_eq!((&next.connection, &next.kind), (&other, &EventKind::Connected));
    last.has_no_event().await;
    let pending = first.hub.pending_events().await.unwrap();
    assert_eq!(pending.count, 3);
    assert!(pending.oldest.is_some());
    first.finish(&connected).await;
    let event = last.next_event().await;
    assert_eq!(
        (&event.connection, &event.kind),
        (&connection.id, &disconnected("client"))
    );
    last.finish(&event).await;
    last.finish(&next).await;
    let pending = first.hub.pending_events().await.unwrap();
    assert_eq!((pending.count, pending.oldest), (0, None));
}

/// An event comes once, again only after it was returned, and not after it was finished.
pub async fn an_event_is_given_out_once_until_it_is_returned(nodes: &Nodes) {
    let members = open(nodes, delivering()).await;
    let member = &members[0];
    for _ in 0..3 {
        member.connect(None).await;
    }
    let read = async |count| {
        let events = member.hub.read_events(count, PATIENCE);
        events.await.unwrap()
    };
    let two = read(2).await;
    let three = read(10).await;
    assert_eq!((two.len(), three.len()), (2, 1));
    assert!(member.hub.holds_event(&two[0]).await.unwrap());
    member.hub.return_events(&[two[1].place]);
    assert_eq!(read(10).await, two[1..]);
    let places: Vec<_> = two.iter().chain(&three).map(|event| event.place).collect();
    for _ in 0..2 {
        member.hub.finish_events(&places).await.unwrap();
    }
    assert!(!member.hub.holds_event(&two[0]).await.unwrap());
    member.hub.return_events(&places);
    member.has_no_event().await;
    assert_eq!(member.all_events().await.len(), 3); // finished events can be followed
}

/// A follower goes on from where it was, waits for the next event, and begins at the end where it asks for that.
pub async fn events_are_followed_from_any_place(nodes: &Nodes) {
    let members = open(nodes, delivering()).await;
    let (first, last) = (&members[0], members.last().unwrap());
    let empty = last.hub.follow_events(None, 10, PATIENCE).await.unwrap();
    assert!(empty.events.is_empty() && !empty.trimmed);
    let one = first.connect(None).await;
    let page = last.hub.follow_events(Some(empty.reached), 10, PATIENCE);
    let page = page.await.unwrap();
    assert_eq!(page.events[0].connection, one);
    let now = last.hub.follow_events(None, 10, PATIENCE).await.unwrap();
    assert_eq!((now.events.len(), now.reached), (0, page.reached));
    let following = last.hub.follow_events(Some(now.reached), 10, PATIENCE);
    let (page, two) = tokio::join!(following, first.connect(None));
    assert_eq!(page.unwrap().events[0].connection, two);
    let page = last.hub.follow_events(Some(EventPlace::START), 1, Duration::ZERO);
    let page = page.await.unwrap();
    assert_eq!((page.events.len(), page.trimmed), (1, false));
    let rest = last.hub.follow_events(Some(page.reached), 10, Duration::ZERO);
    assert_eq!(rest.await.unwrap().events[0].connection, two);
}

/// The oldest events go first; unfinished ones are counted, and a follower that missed some learns of that. What waits
/// for a dropped event does not wait any more.
pub async fn events_beyond_the_bounds_are_dropped_and_counted(nodes: &Nodes) {
    let mut options = delivering();
    if let Some(events) = &mut options.events {
        (events.most, events.life) = (200, Duration::from_secs(3_600));
    }
    let members = open(nodes, options).await;
    let (first, last) = (&members[0], members.last().unwrap());
    let one = first.connect(None).await;
    let connected = first.next_event().await;
    first.end(&one, "client").await;
    let finished = first.connect(None).await;
    let event = first.next_event().await;
    assert_eq!(event.connection, finished);
    first.finish(&event).await;
    for _ in 0..500 {
        first.connect(None).await;
    }
    let all = last.all_events().await;
    assert!(all.len() >= 200 && all.len() <= 300, "{}", all.len());
    let dropped = 503 - all.len() as u64 - 1; // one of those that are gone was finished
    eventually("dropped events are counted", async || {
        let counted: u64 = members
            .iter()
            .map(|member| member.node.statistics().events_dropped)
            .sum();
        (counted == dropped).then_some(())
    })
    .await;
    let pending = last.hub.pending_events().await.unwrap();
    assert_eq!(pending.count, all.len() as u64);
    let page = last.hub.follow_events(Some(connected.place), 1, Duration::ZERO);
    assert!(page.await.unwrap().trimmed);
    let page = last.hub.follow_events(Some(all[0].place), 1, Duration::ZERO);
    assert!(!page.await.unwrap().trimmed);
}

/// Where nodes do not deliver, events are assigned to nobody and can be followed.
pub async fn events_that_are_not_delivered_are_nobodys(nodes: &Nodes) {
    let options = HubOptions {
        events: Some(EventOptions {
            life: Duration::from_millis(300),
            ..EventOptions::default()
        }),
        ..HubOptions::default()
    };
    let members = open(nodes, options).await;
    let member = &members[0];
    let id = member.connect(None).await;
    member.end(&id, "client").await;
    member.has_no_event().await;
    assert_eq!(member.hub.pending_events().await.unwrap().count, 0);
    assert!(member.hub.connected_finished(&id).await.unwrap());
    eventually("events end by time", async || {
        member.all_events().await.is_empty().then_some(())
    })
    .await;
    let dropped: u64 = members
        .iter()
        .map(|member| member.node.statistics().events_dropped)
        .sum();
    assert_eq!(dropped, 0);
    let without = &open(nodes, HubOptions::default()).await[0];
    let id = without.connect(None).await;
    without.join(&id, "g").await;
    let refused = without.hub.read_events(1, Duration::ZERO).await;
    assert!(
        matches!(refused, Err(BackplaneError::NoEvents { .. })),
        "{refused:?}"
    );
}

/// A connection with a larger payload or state does not enter.
pub async fn what_events_carry_is_bounded(nodes: &Nodes) {
    let members = open(nodes, delivering()).await;
    let member = &members[0];
    let carried = |bytes: usize| ConnectionRecord {
        event: EventRecord {
            payload: vec![b'x'; bytes].into(),
            state: Bytes::new(),
        },
        ..record(None)
    };
    let most = carried(MAX_EVENT_RECORD_BYTES);
    member.hub.enter(&most, true).await.unwrap();
    let refused = member.hub.enter(&carried(MAX_EVENT_RECORD_BYTES + 1), true).await;
    assert!(
        matches!(refused, Err(BackplaneError::EventTooLarge { .. })),
        "{refused:?}"
    );
    let state = vec![b'x'; MAX_EVENT_RECORD_BYTES + 1].into();
    let refused = member.hub.restate_events(&most.id, state).await;
    assert!(
        matches!(refused, Err(BackplaneError::EventTooLarge { .. })),
        "{refused:?}"
    );
    assert_eq!(member.all_events().await.len(), 1);
}
