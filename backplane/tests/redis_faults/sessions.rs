//! Tests of resumable connections when nodes die, the server restarts, answers are lost or a lane is late.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hubcast_backplane::conformance::sessions::{exact, of_connection, of_group, resumable};
use hubcast_backplane::conformance::whole::{self, Whole};
use hubcast_backplane::conformance::{Member, Recorder, Witness, eventually, group, open, owner, record};
use hubcast_backplane::redis::RedisBackplane;
use hubcast_backplane::{
    Backplane, BackplaneError, Claim, ConnectionId, ConnectionRecord, Delivery, HubName, HubOptions, HubSink,
    TakeOver, Taken, Topic, Version,
};

use crate::connection::Publisher;
use crate::lane::Gate;
use crate::support::RedisServer;
use crate::{many, one};

/// Runs a node until `records` are entered and in group `g`, and ends it without a goodbye.
async fn live_and_die(
    server: &RedisServer,
    hub: &HubName,
    options: &HubOptions,
    records: &[ConnectionRecord],
) {
    let mut node_options = server.options("dead");
    node_options.lease = Duration::from_millis(600);
    let (hub, options, records) = (hub.clone(), options.clone(), records.to_vec());
    let died = std::thread::spawn(move || {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let node = RedisBackplane::connect(node_options).await.unwrap();
            let opened = node.open_hub(hub, options, Arc::new(Recorder::default()));
            let hub = opened.await.unwrap();
            for record in &records {
                hub.enter(record, true).await.unwrap();
                hub.join(&record.id, &group("g")).await.unwrap();
            }
            std::mem::forget(node);
        });
        runtime.shutdown_background();
    });
    tokio::task::spawn_blocking(|| died.join().unwrap())
        .await
        .unwrap();
}

fn sorted(mut records: Vec<ConnectionRecord>) -> Vec<ConnectionRecord> {
    records.sort_by(|a, b| a.id.as_str().cmp(b.id.as_str()));
    records
}

/// Of a dead node's connections, the resumable ones wait for a node, before and after the lease's end; the others end
/// with the lease. Connections that no node took over end with the window. Each ends once, by one survivor.
#[tokio::test]
async fn the_resumable_connections_of_a_dead_node_wait() {
    let server = RedisServer::start().await;
    let (mut nodes, mut witnesses) = (Vec::new(), Vec::new());
    for name in ["a", "b", "c"] {
        let mut options = server.options(name);
        options.lease = Duration::from_millis(600);
        let node: Arc<dyn Backplane> = Arc::new(RedisBackplane::connect(options).await.unwrap());
        witnesses.push(Witness::of(node.as_ref()));
        nodes.push(node);
    }
    let options = HubOptions {
        resume_window: Duration::from_secs(4),
        ..many()
    };
    let members = open(&nodes, options.clone()).await;
    let plain: Vec<_> = (0..20).map(|_| record(Some("plain"))).collect();
    let kept: Vec<_> = (0..20).map(|_| resumable(Some("kept"))).collect();
    let all: Vec<_> = plain.iter().chain(&kept).cloned().collect();
    live_and_die(&server, members[0].hub.name(), &options, &all).await;
    let orphans = || sorted(witnesses.iter().flat_map(|witness| witness.orphans()).collect());
    // The take-over comes before the lease's end: it does not wait for that.
    members[1].publish(of_group("g"), "one").await;
    let before = members[0].take_over(&kept[0].id).await;
    eventually("the others end with the lease", async || {
        (orphans().len() >= plain.len()).then_some(())
    })
    .await;
    assert_eq!(orphans(), sorted(plain));
    for connection in &kept[1..] {
        eventually("it is parked", async || {
            owner(&members[2], &connection.id).await.is_none().then_some(())
        })
        .await;
    }
    members[1].publish(of_group("g"), "two").await;
    members[1].leave(&kept[1].id, "g").await;
    let after = members[1].take_over(&kept[1].id).await;
    members[2].publish(of_group("g"), "three").await;
    members[2].publish(Topic::All, "end").await;
    for (member, taken, expected) in [
        (&members[0], &before, &["one", "two", "three", "end"][..]),
        (&members[1], &after, &["one", "two", "end"]),
    ] {
        let whole = member.whole_until(taken, "end").await;
        let targets: Vec<_> = whole.iter().map(|(_, target)| target.as_str()).collect();
        assert_eq!(targets, expected);
    }
    let ended = [&all[..20], &kept[2..]].concat();
    eventually("the window ends", async || {
        (orphans().len() >= ended.len()).then_some(())
    })
    .await;
    assert_eq!(orphans(), sorted(ended), "each once, with its user and state");
    assert_eq!(members[0].hub.claim(&kept[5]).await.unwrap(), Claim::Closed);
    for (member, connection) in [(&members[0], &kept[0]), (&members[1], &kept[1])] {
        assert!(member.remove(&connection.id).await, "it has an owner and stays");
    }
    assert!(witnesses.iter().all(|witness| witness.fenced() == 0));
}

/// A server that was restarted may have forgotten its last second: there is no replay across that.
#[tokio::test]
async fn nothing_is_replayed_across_a_restart() {
    let mut server = RedisServer::start_with(&["--appendonly yes", "--appendfsync always"]).await;
    let nodes = server.nodes(2).await;
    let members = open(&nodes, many()).await;
    let (parked, _) = members[0].connect_resumable(None).await;
    let (owned, _) = members[0].connect_resumable(None).await;
    assert!(members[0].park(&parked.id).await);
    server.kill().await;
    assert!(server.restart().await);
    for id in [&parked.id, &owned.id] {
        let taken = persistently(&members[1], id).await;
        let read = members[1].replay_after(&taken, &taken.checkpoint.position).await;
        assert!(
            matches!(&read, Whole::OtherEpoch(epoch) if *epoch == taken.position.epoch),
            "{read:?}"
        );
        assert_ne!(taken.checkpoint.position.epoch, taken.position.epoch);
    }
}

/// A connection that the server lost can't be taken over, and is not mistaken for a resumable one.
#[tokio::test]
async fn what_the_server_lost_is_gone() {
    let mut server = RedisServer::start().await;
    let nodes = server.nodes(2).await;
    let members = open(&nodes, many()).await;
    let (parked, entered) = members[0].connect_resumable(None).await;
    let (owned, _) = members[0].connect_resumable(None).await;
    assert!(members[0].park(&parked.id).await);
    server.kill().await;
    assert!(server.restart().await);
    eventually("the owner registers it again", async || {
        let listing = members[1].hub.look_up(&owned.id).await;
        listing.ok().flatten()
    })
    .await;
    for id in [&parked.id, &owned.id] {
        for version in 0..10 {
            let outcome = members[1].take_over_of(id, Version(version)).await;
            assert!(matches!(outcome, TakeOver::Gone), "{outcome:?}");
        }
    }
    let noted = members[0].hub.record(&owned.id, entered.version, 1, None);
    assert!(!noted.await.unwrap(), "nothing of it can be resumed");
    assert!(members[0].remove(&owned.id).await);
}

/// Takes a connection over, with as many tries as it needs.
async fn persistently(member: &Member, id: &ConnectionId) -> Taken {
    eventually("it is taken over", async || {
        let listing = member.hub.look_up(id).await.ok().flatten()?;
        match member.hub.take_over(id, listing.version).await {
            Ok(TakeOver::Taken(taken)) => Some(*taken),
            Ok(TakeOver::Changed) => None,
            Ok(TakeOver::Gone) => panic!("it exists"),
            Err(error) => {
                assert!(error.is_transient(), "{error}");
                None
            }
        }
    })
    .await
}

/// Answers to calls that park and take over are lost again and again. No message is lost.
#[tokio::test]
async fn a_connection_moves_while_commands_are_cut() {
    let server = RedisServer::start().await;
    let nodes = server.nodes(2).await;
    let members = open(&nodes, many()).await;
    let (connection, _) = members[0].connect_resumable(None).await;
    let id = &connection.id;
    members[0].join(id, "g").await;
    let publishers = [
        Publisher::start(&members[0], of_group("g")),
        Publisher::start(&members[1], of_connection(id)),
    ];
    let mut taken = None;
    for round in 0..16 {
        let (from, to) = (&members[round % 2], &members[(round + 1) % 2]);
        let version = from.version(id).await;
        let cut = async {
            for _ in 0..4 {
                server.command("CLIENT KILL TYPE normal").await;
            }
        };
        let moving = async {
            if round % 2 == 0 {
                let parked = from.hub.park(id, version, None).await;
                assert!(!matches!(parked, Ok(false)), "it was the owner");
            }
            persistently(to, id).await
        };
        taken = Some(tokio::join!(cut, moving).1);
    }
    let taken = taken.unwrap();
    let (mut published, mut unknown) = (BTreeSet::new(), 0);
    for publisher in publishers {
        let (offsets, uncertain) = publisher.stop().await;
        published.extend(offsets);
        unknown += uncertain;
    }
    crate::publish_until_it_works(&members[0], Topic::All, "end").await;
    let whole = members[0].whole_until(&taken, "end").await;
    assert!(whole.is_sorted_by(|(a, _), (b, _)| a < b), "order and once");
    let received: BTreeSet<_> = whole.iter().map(|(offset, _)| *offset).collect();
    let missing: Vec<_> = published.difference(&received).collect();
    assert!(
        missing.is_empty(),
        "{missing:?} of {} are missing",
        published.len()
    );
    assert!(received.len() <= published.len() + unknown + 1);
    assert!(members[0].remove(id).await);
}

/// A node's lane needs a catch-up while the connection goes to another node, changes there and comes back.
async fn come_back_to_a_late_lane(lane_capacity: usize) {
    let server = RedisServer::start().await;
    let mut options = server.options("slow");
    options.lane_capacity = lane_capacity;
    options.delivery_interval = Duration::MAX; // the sink may block the lane's task, and no connection
    let slow: Arc<dyn Backplane> = Arc::new(RedisBackplane::connect(options).await.unwrap());
    let other = one(server.node("other").await, many()).await;
    let gate = Arc::new(Gate::default());
    let sink = Arc::clone(&gate) as Arc<dyn HubSink>;
    let opened = slow.open_hub(other.hub.name().clone(), many(), sink);
    let hub = opened.await.unwrap();
    let connection = resumable(None);
    let id = &connection.id;
    hub.enter(&connection, true).await.unwrap();
    hub.join(id, &group("g")).await.unwrap();
    gate.close();
    other.publish(of_group("g"), "one").await;
    gate.wait().await;
    other.publish(of_group("g"), "two").await;
    let away = other.take_over(id).await;
    other.leave(id, "g").await;
    other.join(id, "h").await;
    for topic in [of_group("g"), of_group("h"), of_connection(id)] {
        other
            .publish(topic.clone(), &format!("{}-{id}", topic.key()))
            .await;
    }
    assert!(other.park(id).await);
    other.publish(of_group("h"), "parked").await;
    let back = {
        let version = other.version(id).await;
        let (hub, id) = (Arc::clone(&hub), id.clone());
        tokio::spawn(async move { hub.take_over(&id, version).await.unwrap() })
    };
    eventually("the server says that it is back", async || {
        (owner(&other, id).await.as_ref() == Some(slow.node())).then_some(())
    })
    .await;
    other.publish(of_group("h"), "back").await;
    gate.open();
    let TakeOver::Taken(taken) = back.await.unwrap() else {
        panic!("it was parked")
    };
    other.publish(Topic::All, "end").await;
    let live = gate.recorder.received_until(id, "end").await;
    let live: Vec<_> = live
        .into_iter()
        .filter(|(offset, _)| *offset > taken.position.offset)
        .collect();
    let lacks = whole::lacks(&taken, &taken.checkpoint.position);
    let mut whole = exact(whole::replay(hub.as_ref(), lacks).await, id);
    whole.extend(live);
    let targets: Vec<_> = whole.iter().map(|(_, target)| target.as_str()).collect();
    let (h, own) = (format!("g:h-{id}"), format!("c:{id}-{id}"));
    assert_eq!(
        targets,
        ["one", "two", h.as_str(), own.as_str(), "parked", "back", "end"]
    );
    // The earlier session got its end, at its offset and before the new one began.
    let reported = gate
        .recorder
        .deliveries()
        .into_iter()
        .filter_map(|delivery| match delivery {
            Delivery::Taken { offset, .. } => Some((offset, "taken")),
            Delivery::Joined { offset, .. } if offset > away.position.offset => Some((offset, "joined")),
            Delivery::Left { offset, .. } => Some((offset, "left")),
            _ => None,
        });
    let expected = [(away.position.offset, "taken"), (taken.position.offset, "joined")];
    assert_eq!(reported.collect::<Vec<_>>(), expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_connection_comes_back_to_a_node_whose_lane_is_late() {
    come_back_to_a_late_lane(1_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_connection_comes_back_to_a_node_that_has_to_read_the_log() {
    come_back_to_a_late_lane(1).await;
}

/// A change that the server carried out, but whose answer was lost, reaches the sink when it is repeated.
#[tokio::test]
async fn a_change_that_the_server_knows_already_is_told_to_the_sink() {
    let server = RedisServer::start().await;
    let member = one(server.node("a").await, many()).await;
    let (connection, _) = member.connect_resumable(None).await;
    let (hub, id) = (member.hub.name(), &connection.id);
    server
        .command(&format!("SADD hubcast:{{{hub}}}:groups:{id} g"))
        .await;
    server
        .command(&format!("ZADD hubcast:{{{hub}}}:group:g 0 {id}"))
        .await;
    member.join(id, "g").await;
    member.publish(of_group("g"), "one").await;
    member.sink.received_until(id, "one").await;
    server
        .command(&format!("SREM hubcast:{{{hub}}}:groups:{id} g"))
        .await;
    member.leave(id, "g").await;
    member.publish(of_group("g"), "two").await;
    member.publish(Topic::All, "end").await;
    assert_eq!(member.sink.received_until(id, "end").await.len(), 2);
}

/// While it is not known whether this node owns a connection, its id can't be claimed as a new one.
#[tokio::test]
async fn the_id_of_a_connection_is_refused_after_a_take_over_without_an_answer() {
    let mut server = RedisServer::start_with(&["--appendonly yes", "--appendfsync always"]).await;
    let mut options = server.options("a");
    options.reconnect_wait = Duration::from_millis(300);
    let member = one(Arc::new(RedisBackplane::connect(options).await.unwrap()), many()).await;
    let (connection, entered) = member.connect_resumable(None).await;
    server.kill().await;
    let failed = member.hub.park(&connection.id, entered.version, None).await;
    let failed = failed.map(drop).unwrap_err();
    assert!(failed.is_transient(), "{failed}");
    assert!(server.restart().await);
    eventually("it is given up later", async || {
        let claim = member.hub.claim(&connection).await;
        assert!(
            matches!(
                claim,
                Ok(Claim::Closed) | Err(BackplaneError::Unavailable { .. } | BackplaneError::Timeout { .. })
            ),
            "{claim:?}"
        );
        let listing = member.hub.look_up(&connection.id).await.ok()??;
        listing.owner.is_none().then_some(())
    })
    .await;
    let taken = member.take_over(&connection.id).await;
    assert_eq!(taken.record, connection);
    assert!(member.remove(&connection.id).await);
}

/// A connection that was closed while the server could not be reached is not taken over before the server has that.
#[tokio::test]
async fn a_connection_whose_removal_waits_is_not_taken_over() {
    let mut server = RedisServer::start_with(&["--appendonly yes", "--appendfsync always"]).await;
    let mut options = server.options("a");
    options.reconnect_wait = Duration::from_millis(300);
    options.heartbeat_interval = Duration::from_secs(2); // a beat also sends the departure
    let member = one(Arc::new(RedisBackplane::connect(options).await.unwrap()), many()).await;
    let (connection, entered) = member.connect_resumable(None).await;
    server.kill().await;
    let removing = tokio::spawn({
        let (member, id) = (member.clone(), connection.id.clone());
        async move { member.remove(&id).await }
    });
    assert!(server.restart().await);
    eventually("the server is reached", async || {
        let outcome = member.hub.take_over(&connection.id, entered.version).await;
        match outcome {
            Ok(outcome) => {
                assert!(matches!(outcome, TakeOver::Gone), "{outcome:?}");
                Some(())
            }
            Err(error) => {
                assert!(error.is_transient(), "{error}");
                None
            }
        }
    })
    .await;
    assert!(removing.await.unwrap());
    assert_eq!(member.hub.look_up(&connection.id).await.unwrap(), None);
}

/// Groups that change without pause do not hold up a take-over, and no change is lost by it.
#[tokio::test]
async fn a_take_over_does_not_wait_for_the_groups_to_stay() {
    let server = RedisServer::start().await;
    let members = open(&server.nodes(3).await, many()).await;
    let (connection, _) = members[0].connect_resumable(None).await;
    let id = connection.id.clone();
    let stop = Arc::new(AtomicBool::new(false));
    let hub = Arc::clone(&members[0].hub);
    let changing = tokio::spawn({
        let (id, stop) = (id.clone(), Arc::clone(&stop));
        async move {
            let mut changes = 0;
            while !stop.load(Ordering::Acquire) {
                let name = group(&format!("g{}", changes % 20));
                // The change is made on this node, as far as it owns the connection.
                let changed = match changes % 2 {
                    0 => hub.join(&id, &name).await,
                    _ => hub.leave(&id, &name).await,
                };
                if changed.is_err() {
                    break;
                }
                changes += 1;
            }
            changes
        }
    });
    eventually("its groups change", async || {
        let groups = members[1].hub.groups(&id).await.unwrap();
        (!groups.is_empty()).then_some(())
    })
    .await;
    let version = members[1].version(&id).await;
    let taken = members[1].take_over_of(&id, version).await;
    let TakeOver::Taken(taken) = taken else {
        panic!("{taken:?}")
    };
    stop.store(true, Ordering::Release);
    assert!(changing.await.unwrap() > 0);
    let mut groups = members[2].hub.groups(&id).await.unwrap();
    let mut of_taken = taken.groups.clone();
    groups.sort();
    of_taken.sort();
    assert_eq!(groups, of_taken);
    members[2].publish(of_connection(&id), "end").await;
    members[1].whole_until(&taken, "end").await;
}
