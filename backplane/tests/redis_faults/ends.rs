//! Tests that ends of connections are reported once, by the node that removed them or by a survivor; and that a node's
//! own connections win when the server went back to an earlier state.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::join_all;
use hubcast_backplane::conformance::{Member, Recorder, Witness, eventually, group, open, owner, record};
use hubcast_backplane::redis::RedisBackplane;
use hubcast_backplane::{Backplane, ConnectionId, End, HubBackplane, HubName, HubOptions, Members};

use crate::support::RedisServer;
use crate::support::frozen::Freezer;
use crate::support::reporter::{Reported, Reporter, note};
use crate::support::way::Way;

fn reporting() -> HubOptions {
    HubOptions {
        reports_ends: true,
        ..HubOptions::default()
    }
}

fn end(report: &'static str) -> End {
    End {
        tombstone: Duration::from_secs(60),
        report: Some(Bytes::from_static(report.as_bytes())),
        reason: report.to_owned(),
    }
}

/// Removes a connection, and reports its end if that is for this node.
async fn end_and_report(hub: &dyn HubBackplane, id: &ConnectionId, reported: &Reported) {
    if hub.remove(id, end("goodbye")).await.unwrap() {
        note(reported, id, Bytes::from_static(b"goodbye"));
        hub.end_reported(id);
    }
}

async fn survivor(server: &RedisServer, name: &str) -> Arc<dyn Backplane> {
    let mut options = server.options(name);
    options.lease = Duration::from_millis(600);
    Arc::new(RedisBackplane::connect(options).await.unwrap())
}

/// Opens a new hub on every node, whose code is told of ends.
async fn open_reporting(nodes: &[Arc<dyn Backplane>], reported: &Reported) -> Vec<Member> {
    let members = open(nodes, reporting()).await;
    for member in &members {
        Reporter::of(member.node.as_ref(), &member.hub, reported);
    }
    members
}

async fn nothing_is_noted(server: &RedisServer) {
    eventually("no end is noted any more", async || {
        let keys = server.keys().await;
        (!keys.iter().any(|key| key.ends_with(":ended"))).then_some(())
    })
    .await;
}

#[tokio::test]
async fn an_end_is_told_once_when_the_answer_to_its_removal_is_lost() {
    let server = RedisServer::start().await;
    let reported = Reported::default();
    let way = Way::to(server.port()).await;
    let nodes = [way.node("cut").await, survivor(&server, "other").await];
    let members = open_reporting(&nodes, &reported).await;
    let mut ids = Vec::new();
    for _ in 0..100 {
        ids.push(members[0].connect(Some("u")).await);
    }
    way.lose(":closed:");
    join_all(
        ids.iter()
            .map(|id| end_and_report(members[0].hub.as_ref(), id, &reported)),
    )
    .await;
    assert!(way.has_lost());
    nothing_is_noted(&server).await;
    let reported = reported.lock();
    assert!(
        ids.iter().all(|id| reported[id.as_str()] == ["goodbye"]),
        "{reported:?}"
    );
}

/// One survivor makes the reports of a node that removed connections and died before it reported their ends.
#[tokio::test]
async fn an_end_that_was_not_told_is_told_by_a_survivor() {
    let server = RedisServer::start().await;
    let reported = Reported::default();
    let survivors = [survivor(&server, "a").await, survivor(&server, "b").await];
    let members = open_reporting(&survivors, &reported).await;
    let name = members[0].hub.name().clone();
    let options = {
        let mut options = server.options("dies");
        options.lease = Duration::from_millis(600);
        options
    };
    let died = std::thread::spawn(move || {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let ids = runtime.block_on(async {
            let node = RedisBackplane::connect(options).await.unwrap();
            let sink = Arc::new(Recorder::default());
            let hub = node.open_hub(name, reporting(), sink).await.unwrap();
            let mut ids = Vec::new();
            for _ in 0..20 {
                let connection = record(Some("ann"));
                hub.enter(&connection, true).await.unwrap();
                assert!(hub.remove(&connection.id, end("it left")).await.unwrap());
                ids.push(connection.id);
            }
            std::mem::forget(node);
            ids
        });
        runtime.shutdown_background();
        ids
    });
    let ids = tokio::task::spawn_blocking(|| died.join().unwrap())
        .await
        .unwrap();
    nothing_is_noted(&server).await;
    let reported = reported.lock();
    assert_eq!(reported.len(), ids.len());
    assert!(
        ids.iter().all(|id| reported[id.as_str()] == ["it left"]),
        "{reported:?}"
    );
}

/// Clients leave while their node is paused for longer than its lease. It wakes up, and ends them after others have.
#[tokio::test]
async fn a_node_that_stood_still_tells_nothing_that_others_told() {
    let server = RedisServer::start().await;
    let reported = Reported::default();
    let survivors = [survivor(&server, "a").await];
    let members = open_reporting(&survivors, &reported).await;
    let (node, freezer, ids) = frozen_node(&server, members[0].hub.name(), &reported).await;
    // The first ones have left just before: their departures may be under way.
    let leaving = ids
        .iter()
        .map(|id| end_and_report(node.hub.as_ref(), id, &reported));
    let mut leaving: Vec<_> = leaving.map(Box::pin).collect();
    for left in leaving.iter_mut().take(10) {
        assert!(left.now_or_never().is_none());
    }
    let thaw = freezer.freeze().await;
    eventually("a survivor removes the node's connections", async || {
        let reported = reported.lock();
        ids[10..]
            .iter()
            .all(|id| reported.contains_key(id.as_str()))
            .then_some(())
    })
    .await;
    drop(thaw);
    join_all(leaving).await;
    node.node.shutdown().await;
    nothing_is_noted(&server).await;
    assert_each_was_reported_once(&ids, &reported);
}

/// The server forgets which connections the others removed, before the node ends them, too.
#[tokio::test]
async fn a_node_that_was_taken_for_dead_tells_nothing_though_the_server_forgot() {
    let server = RedisServer::start().await;
    let reported = Reported::default();
    let survivors = [survivor(&server, "a").await];
    let members = open_reporting(&survivors, &reported).await;
    let (node, freezer, ids) = frozen_node(&server, members[0].hub.name(), &reported).await;
    let witness = Witness::of(node.node.as_ref());
    let thaw = freezer.freeze().await;
    eventually("a survivor removes the node's connections", async || {
        (reported.lock().len() == ids.len()).then_some(())
    })
    .await;
    drop(thaw);
    eventually("the node is fenced", async || {
        (witness.fenced() == 1).then_some(())
    })
    .await;
    server.command("FLUSHALL").await;
    eventually("the node serves in the new epoch", async || {
        node.hub.enter(&record(None), true).await.ok()
    })
    .await;
    eventually("nothing else is registered again", async || {
        (listed(&members[0]).await? == 1).then_some(())
    })
    .await;
    join_all(
        ids.iter()
            .map(|id| end_and_report(node.hub.as_ref(), id, &reported)),
    )
    .await;
    nothing_is_noted(&server).await;
    assert_each_was_reported_once(&ids, &reported);
    node.node.shutdown().await;
}

/// A node that can be frozen, with 20 connections.
async fn frozen_node(
    server: &RedisServer,
    hub: &HubName,
    reported: &Reported,
) -> (Member, Freezer, Vec<ConnectionId>) {
    let mut options = server.options("frozen");
    options.lease = Duration::from_millis(600);
    let (node, freezer) = Freezer::node(options).await;
    let member = Member::open(&node, hub, reporting()).await;
    Reporter::of(node.as_ref(), &member.hub, reported);
    let mut ids = Vec::new();
    for _ in 0..20 {
        ids.push(member.connect(None).await);
    }
    (member, freezer, ids)
}

fn assert_each_was_reported_once(ids: &[ConnectionId], reported: &Reported) {
    let reported = reported.lock();
    let times = |id: &ConnectionId| reported.get(id.as_str()).map_or(0, Vec::len);
    let wrong: Vec<_> = ids
        .iter()
        .map(times)
        .enumerate()
        .filter(|(_, times)| *times != 1)
        .collect();
    assert!(
        wrong.is_empty(),
        "connections and how often they were told: {wrong:?}"
    );
}

/// The server does not have them by then, and the node registers its remaining connections at the same time.
#[tokio::test]
async fn ends_of_connections_that_the_server_has_forgotten_are_told() {
    let server = RedisServer::start().await;
    let reported = Reported::default();
    let node = survivor(&server, "a").await;
    let members = open_reporting(&[node], &reported).await;
    let mut ids = Vec::new();
    for _ in 0..2_000 {
        ids.push(members[0].connect(None).await);
    }
    server.command("FLUSHALL").await;
    let ends = ids
        .iter()
        .map(|id| end_and_report(members[0].hub.as_ref(), id, &reported));
    join_all(ends).await;
    nothing_is_noted(&server).await;
    assert_each_was_reported_once(&ids, &reported);
}

/// The number of connections that the directory has.
async fn listed(member: &Member) -> Option<u64> {
    let statistics = member.hub.connection_statistics().await.ok()?;
    let owned: u64 = statistics.nodes.iter().map(|(_, count)| count).sum();
    Some(owned + statistics.parked)
}

/// A copy of the server's data is restored that is older than moves and ends of connections. The node that took a
/// connection over last owns it and reports its end; connections that had ended before are not listed or reported
/// again.
#[tokio::test]
async fn connections_that_moved_or_ended_after_a_restored_copy_are_told_once() {
    let mut server = RedisServer::start().await;
    let reported = Reported::default();
    let nodes = [
        survivor(&server, "former").await,
        survivor(&server, "present").await,
    ];
    let members = open_reporting(&nodes, &reported).await;
    let [former, present] = [&members[0], &members[1]];
    let mut ids = Vec::new();
    for number in 0..60 {
        let (connection, _) = former.connect_resumable(Some("u")).await;
        for name in 0..number % 12 {
            former.join(&connection.id, &format!("g{name}")).await;
        }
        ids.push(connection.id);
    }
    server.command("SAVE").await;
    let (moved, ended) = ids.split_at(40);
    for id in moved {
        present.take_over(id).await;
    }
    for id in ended {
        end_and_report(former.hub.as_ref(), id, &reported).await;
    }
    nothing_is_noted(&server).await;
    server.kill().await;
    assert!(server.restart().await);
    let (at_once, later) = moved.split_at(20);
    let ends = at_once
        .iter()
        .map(|id| end_and_report(present.hub.as_ref(), id, &reported));
    join_all(ends).await;
    eventually("the directory has only what the nodes have", async || {
        (listed(present).await? == later.len() as u64).then_some(())
    })
    .await;
    for id in later {
        assert_eq!(owner(former, id).await, Some(nodes[1].node().clone()));
        end_and_report(present.hub.as_ref(), id, &reported).await;
    }
    nothing_is_noted(&server).await;
    assert_eq!(listed(present).await, Some(0));
    assert_eq!(present.hub.connection_statistics().await.unwrap().groups, 0);
    assert_each_was_reported_once(&ids, &reported);
}

/// A copy is restored that is older than a node's death: its connections are removed once more, and not reported again.
#[tokio::test]
async fn a_node_whose_death_a_restored_copy_lacks_is_not_told_of_again() {
    let mut server = RedisServer::start().await;
    let reported = Reported::default();
    let survivors = [survivor(&server, "a").await];
    let members = open_reporting(&survivors, &reported).await;
    let (node, freezer, ids) = frozen_node(&server, members[0].hub.name(), &reported).await;
    server.command("SAVE").await;
    let thaw = freezer.freeze().await;
    eventually("the node is removed", async || {
        (reported.lock().len() == ids.len()).then_some(())
    })
    .await;
    nothing_is_noted(&server).await;
    eventually("the server has nothing of the node", async || {
        let keys = server.keys().await;
        (!keys.iter().any(|key| key.ends_with(":dying"))).then_some(())
    })
    .await;
    server.kill().await;
    assert!(server.restart().await);
    eventually("what the copy had is removed", async || {
        let look = members[0].hub.look_up(&ids[0]).await;
        (listed(&members[0]).await? == 0 && matches!(look, Ok(None))).then_some(())
    })
    .await;
    nothing_is_noted(&server).await;
    assert_each_was_reported_once(&ids, &reported);
    drop(thaw);
    node.node.shutdown().await;
}

/// A node that was only taken for dead serves on, and then dies.
#[tokio::test]
async fn a_node_that_came_back_and_dies_is_told_of() {
    let server = RedisServer::start().await;
    let reported = Reported::default();
    let survivors = [survivor(&server, "a").await];
    let members = open_reporting(&survivors, &reported).await;
    let (node, freezer, ids) = frozen_node(&server, members[0].hub.name(), &reported).await;
    for round in 1..=2 {
        let thaw = freezer.freeze().await;
        eventually("the node's connections are removed", async || {
            (reported.lock().len() == round * ids.len()).then_some(())
        })
        .await;
        drop(thaw);
        if round == 1 {
            for _ in 0..ids.len() {
                eventually("the node serves on", async || {
                    node.hub.enter(&record(None), true).await.ok()
                })
                .await;
            }
        }
    }
    node.node.shutdown().await;
    assert!(reported.lock().values().all(|times| times.len() == 1));
}

/// The server deletes entries of connections to make room: ends right after that are reported, the others are listed
/// again.
#[tokio::test]
async fn connections_whose_entries_were_evicted_are_told_and_listed_again() {
    let server = RedisServer::start().await;
    let reported = Reported::default();
    let nodes = [survivor(&server, "a").await];
    let members = open_reporting(&nodes, &reported).await;
    let member = &members[0];
    let mut ids = Vec::new();
    for _ in 0..40 {
        let id = member.connect(Some("u")).await;
        member.join(&id, "g").await;
        ids.push(id);
    }
    let of = |kind: &str, name: &str| format!("hubcast:{{{}}}:{kind}:{name}", member.hub.name());
    let mut entries: Vec<_> = ids.iter().map(|id| of("connection", id.as_str())).collect();
    entries.push(of("group", "g"));
    server.evict(&entries).await;
    let (ended, kept) = ids.split_at(20);
    let ends = ended
        .iter()
        .map(|id| end_and_report(member.hub.as_ref(), id, &reported));
    join_all(ends).await;
    assert_each_was_reported_once(ended, &reported);
    let g = group("g");
    eventually("the others are listed again", async || {
        let count = member.hub.count(Members::Group(&g)).await.ok()?;
        let mut known = count == kept.len() as u64;
        for id in kept {
            known &= matches!(member.hub.look_up(id).await, Ok(Some(_)));
        }
        known.then_some(())
    })
    .await;
}
