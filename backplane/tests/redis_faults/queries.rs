//! Tests of queries about connections when nodes die and servers forget, and a benchmark of its queries.

use std::sync::Arc;
use std::time::Duration;

use hubcast_backplane::conformance::sessions::resumable;
use hubcast_backplane::conformance::{Member, Recorder, Witness, eventually, group, open, record};
use hubcast_backplane::redis::RedisBackplane;
use hubcast_backplane::{Backplane, ConnectionId, ConnectionStatistics, Members, UserId};
use tokio::time::Instant;
use uuid::Uuid;

use crate::support::RedisServer;
use crate::{many, one};

const LEASE: Duration = Duration::from_millis(600);

async fn count(member: &Member, of: Members<'_>) -> u64 {
    member.hub.count(of).await.unwrap()
}

async fn connection_statistics(member: &Member) -> ConnectionStatistics {
    member.hub.connection_statistics().await.unwrap()
}

#[tokio::test]
async fn a_dead_nodes_connections_count_until_they_are_removed() {
    let server = RedisServer::start().await;
    let mut options = server.options("living");
    options.lease = LEASE;
    let node: Arc<dyn Backplane> = Arc::new(RedisBackplane::connect(options).await.unwrap());
    let _witness = Witness::of(node.as_ref());
    let member = one(Arc::clone(&node), many()).await;
    let stays = member.connect(Some("me")).await;
    member.join(&stays, "g").await;
    let (hub, mut options) = (member.hub.name().clone(), server.options("dead"));
    options.lease = LEASE;
    // A node in a runtime of its own dies with it: no goodbye, no more heartbeats.
    let died = std::thread::spawn(move || {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let node = RedisBackplane::connect(options).await.unwrap();
            let sink = Arc::new(Recorder::default());
            let hub = node.open_hub(hub, many(), sink).await.unwrap();
            for number in 0..20 {
                let connection = if number < 5 {
                    resumable(Some("me"))
                } else {
                    record(Some("me"))
                };
                hub.enter(&connection, true).await.unwrap();
                for name in ["g", "of the dead"] {
                    hub.join(&connection.id, &group(name)).await.unwrap();
                }
            }
            std::mem::forget(node);
        });
        runtime.shutdown_background();
    });
    tokio::task::spawn_blocking(|| died.join().unwrap())
        .await
        .unwrap();
    let (g, me) = (group("g"), UserId::parse("me").unwrap());
    let lists = [Members::Group(&g), Members::User(&me)];
    for of in lists {
        assert_eq!(count(&member, of).await, 21);
    }
    let before = connection_statistics(&member).await;
    assert_eq!((before.nodes.len(), before.parked, before.groups), (2, 0, 2));
    let began = Instant::now();
    eventually("the dead node's connections are removed", async || {
        (count(&member, lists[0]).await == 6).then_some(())
    })
    .await;
    assert!(began.elapsed() < LEASE * 5, "{:?}", began.elapsed());
    eventually("the dead node is forgotten", async || {
        let after = connection_statistics(&member).await;
        let nodes = [(node.node().clone(), 1)];
        (after.nodes == nodes && after.parked == 5 && after.groups == 2).then_some(())
    })
    .await;
    assert_eq!(count(&member, lists[1]).await, 6);
    let parked = member
        .hub
        .parked(Some(lists[0]), Default::default())
        .await
        .unwrap();
    assert_eq!((parked.connections.len(), parked.next), (5, None));
}

#[tokio::test]
async fn a_server_that_forgot_is_told_who_is_connected() {
    let server = RedisServer::start().await;
    let nodes = server.nodes(2).await;
    let members = open(&nodes, many()).await;
    let mut connections = Vec::new();
    for member in members.iter().cycle().take(10) {
        let connection = member.connect(Some("me")).await;
        member.join(&connection, "g").await;
        connections.push(connection);
    }
    connections.sort();
    server.command("FLUSHALL").await;
    let (g, me) = (group("g"), UserId::parse("me").unwrap());
    for member in &members {
        for of in [Members::Group(&g), Members::User(&me)] {
            eventually("everybody is counted again", async || {
                let page = member.hub.page(of, None, 100).await.unwrap();
                (page == connections).then_some(())
            })
            .await;
        }
        // The server lists a node again with its next beat.
        eventually("the statistics has everybody", async || {
            let statistics = connection_statistics(member).await;
            let connections: u64 = statistics.nodes.iter().map(|(_, count)| count).sum();
            ((connections, statistics.groups) == (10, 1)).then_some(())
        })
        .await;
    }
}

/// The times of calls, in order.
async fn times(rounds: usize, mut call: impl AsyncFnMut()) -> Vec<Duration> {
    let mut times = Vec::with_capacity(rounds);
    for _ in 0..rounds {
        let begun = Instant::now();
        call().await;
        times.push(begun.elapsed());
    }
    times.sort();
    times
}

fn tell(what: &str, times: &[Duration]) {
    let at = |share: usize| times[times.len() * share / 1_000];
    println!(
        "{what}: p50 {:?}, p99 {:?}, p99.9 {:?}",
        at(500),
        at(990),
        at(999)
    );
}

/// Prints the cost of queries about a group of 100,000 connections.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "prints figures, proves nothing"]
async fn figures_of_a_large_group() {
    const MEMBERS: usize = 100_000;
    let server = RedisServer::start().await;
    let member = one(server.node("a").await, many()).await;
    let key = format!("hubcast:{{{}}}:group:large", member.hub.name());
    let mut look = server.look().await;
    let ids: Vec<_> = (0..MEMBERS)
        .map(|_| Uuid::new_v4().simple().to_string())
        .collect();
    for ids in ids.chunks(1_000) {
        let mut add = redis::cmd("ZADD");
        add.arg(&key);
        for id in ids {
            add.arg(0).arg(id);
        }
        add.exec_async(&mut look).await.unwrap();
    }
    let large = group("large");
    let connection = member.connect(None).await;
    member.join(&connection, "small").await;
    for (name, size) in [("small", 1), ("large", MEMBERS)] {
        let (hub, of) = (&member.hub, group(name));
        let counts = times(10_000, async || {
            hub.count(Members::Group(&of)).await.unwrap();
        });
        tell(&format!("a group of {size}: count"), &counts.await);
        let finds = times(10_000, async || {
            let of = Members::Group(&of);
            hub.contains(of, &connection).await.unwrap();
        });
        tell(&format!("a group of {size}: contains"), &finds.await);
        let joins = times(2_000, async || {
            member.join(&connection, name).await;
        });
        tell(&format!("a group of {size}: join"), &joins.await);
        member.leave(&connection, name).await;
        member.join(&connection, "small").await;
    }
    let (mut after, mut seen): (Option<ConnectionId>, _) = (None, 0);
    let pages = times(1_000, async || {
        let of = Members::Group(&large);
        let page = member.hub.page(of, after.as_ref(), 1_000);
        let page = page.await.unwrap();
        seen += page.len();
        after = page.last().cloned().filter(|_| seen % MEMBERS > 0);
    })
    .await;
    assert_eq!(seen, MEMBERS * 10);
    tell(&format!("a group of {MEMBERS}: a page of 1,000"), &pages);
    let bytes: u64 = redis::cmd("MEMORY")
        .arg(&["USAGE", &key, "SAMPLES", "0"])
        .query_async(&mut look)
        .await
        .unwrap();
    println!("{} bytes for each member", bytes / MEMBERS as u64);
}
