//! Tests with nodes that die, or seem to.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hubcast_backplane::conformance::whole::{self, Whole};
use hubcast_backplane::conformance::{Recorder, Witness, eventually, group, open, record};
use hubcast_backplane::redis::RedisBackplane;
use hubcast_backplane::{
    Backplane, BackplaneError, Claim, ConnectionRecord, End, GroupName, HubName, HubOptions, Status, Topic,
    Unheard,
};
use tokio::time::Instant;

use crate::support::RedisServer;
use crate::support::dying::Dying;
use crate::support::frozen::Freezer;
use crate::{many, status};

/// Two survivors and a third node, with short leases.
async fn short_leases(server: &RedisServer) -> Vec<(Arc<dyn Backplane>, Arc<Witness>)> {
    let mut nodes = Vec::new();
    for name in ["a", "b", "c"] {
        let mut options = server.options(name);
        options.lease = Duration::from_millis(600);
        let node: Arc<dyn Backplane> = Arc::new(RedisBackplane::connect(options).await.unwrap());
        let witness = Witness::of(node.as_ref());
        nodes.push((node, witness));
    }
    nodes
}

#[tokio::test]
async fn a_dead_node_is_removed_once_by_one_survivor() {
    let server = RedisServer::start().await;
    let survivors = short_leases(&server).await;
    let nodes: Vec<_> = survivors.iter().map(|(node, _)| Arc::clone(node)).collect();
    let members = open(&nodes, many()).await;
    let mut ids = BTreeSet::new();
    {
        // A node in a runtime of its own dies with it: no goodbye, no more heartbeats.
        let (hub, mut options) = (members[0].hub.name().clone(), server.options("dead"));
        options.lease = Duration::from_millis(600);
        let records: Vec<_> = (0..50)
            .map(|number| record(Some(&format!("u{}", number % 3))))
            .collect();
        ids.extend(records.iter().map(|record| record.id.to_string()));
        let died = std::thread::spawn(move || {
            let runtime = tokio::runtime::Runtime::new().unwrap();
            runtime.block_on(async {
                let node = RedisBackplane::connect(options).await.unwrap();
                let opened = node.open_hub(hub, many(), Arc::new(Recorder::default()));
                let hub = opened.await.unwrap();
                for (number, record) in records.iter().enumerate() {
                    hub.enter(record, true).await.unwrap();
                    hub.join(&record.id, &group(&format!("g{}", number % 5)))
                        .await
                        .unwrap();
                }
                std::mem::forget(node);
            });
            runtime.shutdown_background();
        });
        tokio::task::spawn_blocking(|| died.join().unwrap())
            .await
            .unwrap();
    }
    let orphans = || -> Vec<ConnectionRecord> {
        survivors
            .iter()
            .flat_map(|(_, witness)| witness.orphans())
            .collect()
    };
    eventually("the orphans are removed", async || {
        (orphans().len() >= 50).then_some(())
    })
    .await;
    eventually("nothing is left of the dead node", async || {
        let keys = server.keys().await;
        let about = |key: &&String| {
            [
                ":node:",
                ":connection:",
                ":groups:",
                ":group:",
                ":user:",
                ":stream:",
                ":tail:c:",
                ":dying",
            ]
            .iter()
            .any(|part| key.contains(part))
        };
        keys.iter().find(about).is_none().then_some(())
    })
    .await;
    let found = orphans();
    assert_eq!(found.len(), 50, "each once");
    assert_eq!(
        found
            .iter()
            .map(|record| record.id.to_string())
            .collect::<BTreeSet<_>>(),
        ids
    );
    assert!(found.iter().all(|record| record.user.is_some()));
    assert!(survivors.iter().all(|(_, witness)| witness.fenced() == 0));
    assert_eq!(members[0].hub.claim(&found[0]).await.unwrap(), Claim::Closed);
}

#[tokio::test]
async fn a_survivor_that_does_not_serve_the_hub_tells_who_leaves() {
    let server = RedisServer::start().await;
    let mut options = server.options("survivor");
    options.lease = Duration::from_millis(600);
    let survivor = RedisBackplane::connect(options).await.unwrap();
    let witness = Witness::of(&survivor);
    let hub = HubName::parse("presence").unwrap();
    let reporting = HubOptions {
        presence: true,
        keeps_unread: true,
        ..HubOptions::default()
    };
    let dying = Dying::new(&server, &hub, reporting.clone());
    let (position, id) = dying
        .live(async |member| {
            let position = member.hub.position().await.unwrap();
            let id = member.connect(Some("ann")).await;
            for _ in 0..2 {
                member.join(&id, "g").await;
            }
            (position, id)
        })
        .await;
    eventually("the connection is removed", async || {
        let keys = server.keys().await;
        let is_left = keys.iter().any(|key| key.ends_with(":group:g"));
        (!is_left).then_some(())
    })
    .await;
    assert!(witness.orphans().is_empty(), "it serves no such hub");
    let sink = Arc::new(Recorder::default());
    let hub = survivor.open_hub(hub, reporting, sink).await.unwrap();
    let topic = Topic::Group(GroupName::presence_of(&group("g")));
    let read = whole::read(hub.as_ref(), &topic, &position).await;
    let Whole::Exact(messages) = read else {
        panic!("{read:?}")
    };
    let reported: Vec<_> = messages
        .iter()
        .map(|message| String::from_utf8_lossy(&message.envelope.arguments[0]))
        .collect();
    let expected = ["join", "leave"]
        .map(|event| format!(r#"{{"event":"{event}","group":"g","connectionId":"{id}","userId":"ann"}}"#));
    assert_eq!(reported, expected);
}

#[tokio::test]
async fn a_node_that_was_away_too_long_is_told() {
    let server = RedisServer::start().await;
    let survivors = short_leases(&server).await;
    let nodes: Vec<_> = survivors.iter().map(|(node, _)| Arc::clone(node)).collect();
    let name = open(&nodes, many()).await[0].hub.name().clone();
    let mut options = server.options("frozen");
    options.lease = Duration::from_millis(600);
    let (node, freezer) = Freezer::node(options).await;
    let witness = Witness::of(node.as_ref());
    let sink = Arc::new(Recorder::default());
    let hub = node.open_hub(name, many(), sink).await.unwrap();
    let connection = record(None);
    hub.enter(&connection, true).await.unwrap();
    let thaw = freezer.freeze().await;
    eventually("a survivor removes the connection", async || {
        let orphans: usize = survivors.iter().map(|(_, witness)| witness.orphans().len()).sum();
        (orphans == 1).then_some(())
    })
    .await;
    drop(thaw);
    eventually("the node is fenced", async || {
        (witness.fenced() == 1).then_some(())
    })
    .await;
    let end = End::unreported(Duration::from_secs(9));
    assert!(!hub.remove(&connection.id, end).await.unwrap());
    // It serves on as a node without connections.
    eventually("the node is admitted again", async || {
        hub.enter(&record(None), true).await.ok()
    })
    .await;
    node.shutdown().await;
    assert_eq!(witness.fenced(), 1);
}

#[tokio::test]
async fn an_outage_longer_than_the_lease_kills_nobody() {
    let mut server = RedisServer::start_with(&["--appendonly yes", "--appendfsync always"]).await;
    let survivors = short_leases(&server).await;
    let nodes: Vec<_> = survivors.iter().map(|(node, _)| Arc::clone(node)).collect();
    let members = open(&nodes, many()).await;
    let mut connections = Vec::new();
    for member in &members {
        connections.push(member.connect(None).await);
    }
    server.kill().await;
    for node in &nodes {
        status(node.as_ref(), Status::Disconnected).await;
    }
    let ended = Instant::now() + Duration::from_millis(900); // the fault itself: longer than the lease
    tokio::time::sleep_until(ended).await;
    assert!(server.restart().await);
    for node in &nodes {
        status(node.as_ref(), Status::Connected).await;
    }
    for (member, connection) in members.iter().zip(&connections) {
        member
            .publish(Topic::Connection(connection.clone()), "end")
            .await
            .unwrap();
        member.sink.received_until(connection, "end").await;
    }
    for (_, witness) in &survivors {
        assert_eq!(witness.fenced(), 0);
        assert!(witness.orphans().is_empty());
    }
}

#[tokio::test]
async fn a_request_ends_when_the_asked_node_dies() {
    let server = RedisServer::start().await;
    let survivors = short_leases(&server).await;
    let (asking, _) = &survivors[0];
    let mut options = server.options("frozen");
    options.lease = Duration::from_millis(600);
    let node = options.node.clone();
    let (freeze, frozen_until) = std::sync::mpsc::channel::<()>();
    let (at, mut is_frozen) = tokio::sync::mpsc::channel::<()>(1);
    let runs = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let _node = RedisBackplane::connect(options).await.unwrap();
            at.send(()).await.unwrap();
            frozen_until.recv().unwrap();
        });
    });
    is_frozen.recv().await.unwrap();
    let asked = asking
        .request(&node, Bytes::new(), Duration::from_secs(25), Unheard::Wait)
        .await;
    assert!(
        matches!(asked, Err(BackplaneError::NodeUnreachable { .. })),
        "{asked:?}"
    );
    freeze.send(()).unwrap();
    tokio::task::spawn_blocking(|| runs.join().unwrap())
        .await
        .unwrap();
}

/// A server that makes room may delete the nodes' counts. No node is removed for that.
#[tokio::test]
async fn no_node_is_shut_out_because_keys_were_evicted() {
    let server = RedisServer::start().await;
    let survivors = short_leases(&server).await;
    let nodes: Vec<_> = survivors.iter().map(|(node, _)| Arc::clone(node)).collect();
    let members = open(&nodes, many()).await;
    let hub = members[0].hub.name();
    let keys = [
        "hubcast:{*}:beats".to_owned(),
        "hubcast:{*}:dying".to_owned(),
        "hubcast:{*}:cluster".to_owned(),
        "hubcast:{*}:hubs".to_owned(),
        format!("hubcast:{{{hub}}}:registered"),
    ];
    for key in &keys {
        server.command(&format!("DEL {key}")).await;
        eventually("every node has given another sign of life", async || {
            let counts = redis::cmd("HLEN").arg("hubcast:{*}:beats").clone();
            let counted: usize = counts.query_async(&mut server.look().await).await.unwrap();
            (counted == nodes.len()).then_some(())
        })
        .await;
        for node in &nodes {
            status(node.as_ref(), Status::Connected).await;
        }
        for member in &members {
            let connection = eventually("connections come in", async || {
                let connection = record(None);
                let entered = member.hub.enter(&connection, true).await;
                entered.is_ok().then_some(connection.id)
            })
            .await;
            member
                .publish(Topic::Connection(connection.clone()), key)
                .await
                .unwrap();
            member.sink.received_until(&connection, key).await;
        }
        for (_, witness) in &survivors {
            assert_eq!(witness.fenced(), 0, "{key}");
            assert!(witness.orphans().is_empty(), "{key}");
        }
    }
}
