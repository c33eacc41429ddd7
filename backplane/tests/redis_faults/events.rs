//! Tests that each connection has its two events, and that they are delivered in order, whatever fails.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use hubcast_backplane::conformance::events::delivering;
use hubcast_backplane::conformance::sessions::resumable;
use hubcast_backplane::conformance::{Member, Witness, eventually, open, record};
use hubcast_backplane::redis::RedisBackplane;
use hubcast_backplane::{
    Backplane, ConnectionEvent, ConnectionId, ConnectionRecord, EventKind, EventOptions, EventRecord,
    HubOptions, NODE_DIED,
};
use parking_lot::Mutex;
use tokio::task::JoinSet;

use crate::support::RedisServer;
use crate::support::dying::Dying;
use crate::support::frozen::Freezer;
use crate::support::way::Way;

const PATIENCE: Duration = Duration::from_secs(30);

fn short_lived() -> HubOptions {
    HubOptions {
        resume_window: Duration::from_millis(300),
        ..delivering()
    }
}

async fn survivors(server: &RedisServer, count: usize) -> Vec<Arc<dyn Backplane>> {
    let mut nodes: Vec<Arc<dyn Backplane>> = Vec::new();
    for number in 0..count {
        let mut options = server.options(&format!("survivor-{number}"));
        options.lease = Duration::from_millis(600);
        let node: Arc<dyn Backplane> = Arc::new(RedisBackplane::connect(options).await.unwrap());
        let _service = Witness::of(node.as_ref());
        nodes.push(node);
    }
    nodes
}

/// The events that were delivered, in order, by all nodes.
type Delivered = Arc<Mutex<Vec<ConnectionEvent>>>;

/// Delivers a node's events, several at a time, until the value is dropped.
fn deliver(member: &Member, delivered: &Delivered) -> JoinSet<()> {
    let mut deliveries = JoinSet::new();
    for _ in 0..3 {
        let (member, delivered) = (member.clone(), Arc::clone(delivered));
        deliveries.spawn(async move {
            loop {
                let events = member.hub.read_events(2, PATIENCE).await.unwrap();
                for event in &events {
                    tokio::time::sleep(Duration::from_millis(event.place.millis % 3)).await;
                    delivered.lock().push(event.clone());
                    member.finish(event).await;
                }
            }
        });
    }
    deliveries
}

/// The names of the events by connection, in the order in which they were delivered; repetitions count once.
fn by_connection(events: &[ConnectionEvent]) -> HashMap<ConnectionId, Vec<&'static str>> {
    let (mut known, mut kinds) = (HashSet::new(), HashMap::<_, Vec<_>>::new());
    for event in events {
        if known.insert(&event.id) {
            kinds
                .entry(event.connection.clone())
                .or_default()
                .push(event.kind.name());
        }
    }
    kinds
}

/// Waits until so many connections have both events delivered, and checks their order.
async fn all_delivered(delivered: &Delivered, connections: usize) -> Vec<ConnectionEvent> {
    eventually("all events are delivered", async || {
        let delivered = delivered.lock();
        let kinds = by_connection(&delivered);
        let both = kinds.values().filter(|kinds| kinds.len() == 2).count();
        (both == connections).then_some(())
    })
    .await;
    let delivered = delivered.lock().clone();
    for (connection, kinds) in by_connection(&delivered) {
        assert_eq!(kinds, ["connected", "disconnected"], "{connection}");
    }
    delivered
}

/// A node dies with connections of all kinds, some of whose events it was delivering: two survivors append what is
/// missing once, and deliver all in order.
#[tokio::test]
async fn survivors_report_and_deliver_what_a_dead_node_left() {
    let server = RedisServer::start().await;
    let members = open(&survivors(&server, 2).await, short_lived()).await;
    let delivered = Delivered::default();
    let _delivering: Vec<_> = members.iter().map(|member| deliver(member, &delivered)).collect();
    let dying = Dying::new(&server, members[0].hub.name(), short_lived());
    let reported = Arc::clone(&delivered);
    let (ids, parked) = dying
        .live(async move |member| {
            let mut ids = HashSet::new();
            let mut parked = HashSet::new();
            for number in 0..60 {
                let connection = match number % 3 {
                    0 => resumable(Some("ann")),
                    _ => record(None),
                };
                member.hub.enter(&connection, true).await.unwrap();
                match number % 3 {
                    0 => drop(parked.insert(connection.id.clone())),
                    1 => assert!(member.remove(&connection.id).await),
                    _ => {}
                }
                ids.insert(connection.id);
            }
            for _ in 0..5 {
                member.hub.claim(&record(None)).await.unwrap(); // these never enter
            }
            // It delivers some, and others without getting to finish them.
            for number in 0..30 {
                let event = member.next_event().await;
                reported.lock().push(event.clone());
                if number % 2 == 0 {
                    member.finish(&event).await;
                }
            }
            (ids, parked)
        })
        .await;
    let delivered = all_delivered(&delivered, ids.len()).await;
    assert!(delivered.iter().all(|event| ids.contains(&event.connection)));
    for event in delivered
        .iter()
        .filter(|event| event.kind != EventKind::Connected)
    {
        let EventKind::Disconnected { reason } = &event.kind else {
            continue;
        };
        let died = parked.contains(&event.connection) || reason == NODE_DIED;
        assert_eq!(reason, if died { NODE_DIED } else { "server" }, "{event:?}");
    }
    let all = members[0].all_events().await;
    assert_eq!(all.len(), 2 * ids.len(), "events were appended twice");
    eventually("nothing is left of the dead node", async || {
        let key = format!("hubcast:{{{}}}:events", members[0].hub.name());
        let mut command = redis::cmd("XINFO");
        command.arg("CONSUMERS").arg(key).arg("hubcast");
        let consumers: Vec<HashMap<String, redis::Value>> =
            command.query_async(&mut server.look().await).await.unwrap();
        (consumers.len() <= 2).then_some(())
    })
    .await;
    eventually("nothing is unfinished", async || {
        let pending = members[1].hub.pending_events().await.unwrap();
        (pending.count == 0).then_some(())
    })
    .await;
}

/// A node that does not serve the hub removes the connections of a dead one: their events wait for a node that does.
#[tokio::test]
async fn events_wait_for_a_node_that_serves_the_hub() {
    let server = RedisServer::start().await;
    let others = survivors(&server, 1).await;
    let hub = hubcast_backplane::HubName::parse("chat").unwrap();
    let id = Dying::new(&server, &hub, short_lived())
        .live(async |member| member.connect(Some("ann")).await)
        .await;
    eventually("the connection is removed", async || {
        let keys = server.keys().await;
        (!keys.iter().any(|key| key.ends_with(&format!(":connection:{id}")))).then_some(())
    })
    .await;
    let member = Member::open(&others[0], &hub, short_lived()).await;
    let connected = member.next_event().await;
    assert_eq!(
        (&connected.connection, &connected.kind),
        (&id, &EventKind::Connected)
    );
    member.finish(&connected).await;
    let disconnected = member.next_event().await;
    let died = EventKind::Disconnected {
        reason: NODE_DIED.to_owned(),
    };
    assert_eq!((&disconnected.connection, &disconnected.kind), (&id, &died));
}

/// A node that was taken for dead learns that its events are others' by now, and reads none of them again.
#[tokio::test]
async fn a_node_that_stood_still_does_not_go_on_with_its_events() {
    let server = RedisServer::start().await;
    let survivor = open(&survivors(&server, 1).await, short_lived()).await.remove(0);
    let mut options = server.options("frozen");
    options.lease = Duration::from_millis(600);
    let (node, freezer) = Freezer::node(options).await;
    let frozen = Member::open(&node, survivor.hub.name(), short_lived()).await;
    let ids = [frozen.connect(None).await, frozen.connect(None).await];
    let held = frozen.next_event().await;
    assert!(frozen.hub.holds_event(&held).await.unwrap());
    let thaw = freezer.freeze().await;
    let delivered = Delivered::default();
    let delivering = deliver(&survivor, &delivered);
    all_delivered(&delivered, ids.len()).await;
    drop(delivering);
    drop(thaw);
    eventually("the node learns of that", async || {
        let holds = frozen.hub.holds_event(&held).await;
        (!holds.unwrap_or(true)).then_some(())
    })
    .await;
    frozen.finish(&held).await; // changes nothing
    let again = frozen.hub.read_events(10, Duration::from_millis(300)).await;
    assert_eq!(again.unwrap(), []);
    assert_eq!(survivor.all_events().await.len(), 2 * ids.len());
}

/// An event that was finished while the answer to that was lost does not come again, nor one whose reading was lost.
#[tokio::test]
async fn lost_answers_neither_lose_nor_repeat_events() {
    let server = RedisServer::start().await;
    let way = Way::to(server.port()).await;
    let nodes: [Arc<dyn Backplane>; 1] = [way.node("cut").await];
    let member = open(&nodes, delivering()).await.remove(0);
    let one = member.connect(None).await;
    way.lose("events\r\n"); // the key of the stream, in the call that reads
    let connected = member.next_event().await;
    assert!(way.has_lost());
    assert_eq!(connected.connection, one);
    way.lose(&connected.place.to_string());
    member.finish(&connected).await;
    assert!(way.has_lost());
    assert!(member.remove(&one).await);
    let event = member.next_event().await;
    assert_eq!(event.kind.name(), "disconnected");
    assert_eq!(member.all_events().await.len(), 2);
}

/// A server that forgets everything, and connections that go on: no second `connected`, and the last event has the id
/// and the data of the first.
#[tokio::test]
async fn a_connection_keeps_its_events_when_the_server_forgets_it() {
    let server = RedisServer::start().await;
    let member = open(&server.nodes(1).await, delivering()).await.remove(0);
    let carried = |state: &'static str| EventRecord {
        payload: "claims".into(),
        state: state.into(),
    };
    let connection = ConnectionRecord {
        event: carried("first"),
        ..record(Some("a\nb"))
    };
    member.hub.enter(&connection, true).await.unwrap();
    let restated = member.hub.restate_events(&connection.id, "second".into());
    assert!(restated.await.unwrap());
    let connected = member.next_event().await;
    for round in 0..2 {
        server.command("FLUSHALL").await;
        eventually("the connection is registered again", async || {
            let listing = member.hub.look_up(&connection.id).await;
            listing.ok().flatten()
        })
        .await;
        if round == 1 {
            assert_eq!(member.all_events().await, []);
        }
    }
    let other = member.connect(None).await;
    assert!(member.remove(&connection.id).await);
    let events = member.all_events().await;
    assert_eq!(
        events.iter().map(|event| &event.connection).collect::<Vec<_>>(),
        [&other, &connection.id]
    );
    let (base, _) = connected.id.rsplit_once('-').unwrap();
    assert_eq!(events[1].id, format!("{base}-disconnected"));
    assert_eq!(
        (&events[1].record, &events[1].user),
        (&carried("second"), &connection.user)
    );
    let first = member.next_event().await;
    assert_eq!(first.connection, other);
    let last = member.next_event().await;
    assert_eq!(last, events[1]);
    // A connection that the server forgets and that ends before it is registered again has its event, too.
    server.command("FLUSHALL").await;
    assert!(member.remove(&other).await);
    let events = member.all_events().await;
    assert_eq!(events.len(), 1);
    let (base, _) = first.id.rsplit_once('-').unwrap();
    assert_eq!(events[0].id, format!("{base}-disconnected"));
}

/// The server deletes entries of connections to make room: their events stay complete.
#[tokio::test]
async fn a_connection_whose_entry_was_evicted_has_its_last_event() {
    let server = RedisServer::start().await;
    let member = open(&server.nodes(1).await, delivering()).await.remove(0);
    let id = member.connect(Some("ann")).await;
    let connected = member.next_event().await;
    member.finish(&connected).await;
    let entry = format!("hubcast:{{{}}}:connection:{id}", member.hub.name());
    server.evict(&[entry]).await;
    eventually("the connection can be removed", async || {
        member
            .hub
            .remove(&id, hubcast_backplane::End::unreported(PATIENCE))
            .await
            .ok()
    })
    .await;
    let events = eventually("the last event is there", async || {
        let events = member.all_events().await;
        events
            .iter()
            .any(|event| event.kind.name() == "disconnected")
            .then_some(events)
    })
    .await;
    let last = events.last().unwrap();
    assert_eq!(last.connection, id);
    let (base, _) = connected.id.rsplit_once('-').unwrap();
    assert_eq!(last.id, format!("{base}-disconnected"));
}

/// A stream without nodes that deliver has no consumer group, and is readable by plain commands.
#[tokio::test]
async fn the_stream_is_readable_by_plain_commands() {
    let server = RedisServer::start().await;
    let options = HubOptions {
        events: Some(EventOptions::default()),
        ..HubOptions::default()
    };
    let member = open(&server.nodes(1).await, options).await.remove(0);
    let connection = ConnectionRecord {
        event: EventRecord {
            payload: "{\"claims\":{}}".into(),
            state: "s".into(),
        },
        ..record(Some("ann"))
    };
    member.hub.enter(&connection, true).await.unwrap();
    let entry: Vec<(String, HashMap<String, String>)> = redis::cmd("XRANGE")
        .arg(format!("hubcast:{{{}}}:events", member.hub.name()))
        .arg("-")
        .arg("+")
        .query_async(&mut server.look().await)
        .await
        .unwrap();
    let [(place, fields)] = entry.as_slice() else {
        panic!("{entry:?}");
    };
    let event = &member.all_events().await[0];
    assert_eq!(*place, event.place.to_string());
    let time = event
        .time
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_millis();
    let expected = [
        ("time", time.to_string()),
        ("id", event.id.clone()),
        ("type", "connected".to_owned()),
        ("connection", connection.id.to_string()),
        ("user", "ann".to_owned()),
        ("payload", "{\"claims\":{}}".to_owned()),
        ("state", "s".to_owned()),
    ];
    let expected = expected.map(|(name, value)| (name.to_owned(), value));
    assert_eq!(*fields, HashMap::from(expected));
}
