//! Tests with a Redis Cluster.

use std::sync::Arc;
use std::time::Duration;

use hubcast_backplane::conformance::{eventually, open};
use hubcast_backplane::redis::{RedisBackplane, RedisOptions};
use hubcast_backplane::{Backplane, BackplaneError, HubOptions};
use tokio::time::Instant;

use crate::cluster_set::{ClusterSet, ask, masters_of};
use crate::failover::Watched;
use crate::support::{RedisServer, free_port};
use crate::{Tls, can_run, impatient_nodes, nodes, options};

const PROGRAMS: [&str; 2] = ["redis-server", "redis-cli"];

/// Hubs with a connection each, one on every master.
async fn watched_everywhere(set: &ClusterSet, nodes: &[Arc<dyn Backplane>]) -> Vec<Watched> {
    let (mut watched, mut masters) = (Vec::new(), Vec::new());
    while masters.len() < 3 {
        let members = open(nodes, HubOptions::default()).await;
        let master = set.master_of(members[0].hub.name().as_str()).await.port;
        if !masters.contains(&master) {
            masters.push(master);
            watched.push(Watched::new(&members).await);
        }
    }
    watched
}

#[tokio::test]
async fn the_rules_hold() {
    if !can_run(&PROGRAMS) {
        return;
    }
    let set = ClusterSet::start(0).await;
    let count = all_rules!(in_turn, nodes(&set.url(), 3));
    println!("{count} rules hold on a cluster");
}

#[tokio::test]
async fn hubs_spread_over_the_masters_and_leave_nothing() {
    if !can_run(&PROGRAMS) {
        return;
    }
    let set = ClusterSet::start(0).await;
    let nodes = nodes(&set.url(), 2).await;
    let watched = watched_everywhere(&set, &nodes).await;
    let hubs: Vec<_> = watched.iter().map(Watched::hub).collect();
    assert_eq!(masters_of(&set, &hubs).await.len(), 3);
    for one in &watched {
        one.publish_all("more").await;
        assert!(one.gaps().is_empty());
        one.leave().await;
    }
    for node in &nodes {
        node.shutdown().await;
    }
    for server in &set.servers {
        let keys: Vec<String> = ask(server.port(), &["KEYS", "*"]).await.unwrap();
        let about_connections = [":connection:", ":groups:", ":group:", ":user:", "}:node:"];
        let left = keys
            .iter()
            .find(|key| about_connections.iter().any(|part| key.contains(part)));
        assert_eq!(left, None);
    }
}

#[tokio::test]
async fn a_killed_master_concerns_its_hubs_only() {
    if !can_run(&PROGRAMS) {
        return;
    }
    let mut set = ClusterSet::start(1).await;
    let nodes = nodes(&set.url(), 2).await;
    let mut others = watched_everywhere(&set, &nodes).await;
    // First the master that the nodes' beats go to, then another one.
    let home = set.master_of("*").await;
    for round in 0..2 {
        let mut index = 0;
        for (at, watched) in others.iter().enumerate() {
            if set.master_of(watched.hub()).await.port == home.port {
                index = at;
            }
        }
        let concerned = others.remove(index);
        let master = set.master_of(concerned.hub()).await;
        let begun = Instant::now();
        set.replicated(&master).await;
        set.kill(&master).await;
        let outage = concerned.survives(begun).await;
        println!("cluster, SIGKILL {round}: publishing worked again after {outage:?}");
        for other in &others {
            other.publish_all(&format!("round-{round}")).await;
            assert!(other.gaps().is_empty(), "{:?}", other.gaps());
        }
        concerned.leave().await;
    }
}

#[tokio::test]
async fn a_master_that_is_replaced_while_it_lives_is_left() {
    if !can_run(&PROGRAMS) {
        return;
    }
    let set = ClusterSet::start(1).await;
    let nodes = nodes(&set.url(), 2).await;
    let watched = Watched::new(&open(&nodes, HubOptions::default()).await).await;
    let master = set.master_of(watched.hub()).await;
    let replica = set.replica_of(&master).await;
    let load = watched.load();
    let begun = Instant::now();
    ask::<()>(replica.port, &["CLUSTER", "FAILOVER"]).await.unwrap();
    eventually("the replica is the master", async || {
        let now = set.master_of(watched.hub()).await;
        (now.port == replica.port).then_some(())
    })
    .await;
    let outage = watched.survives(begun).await;
    println!("cluster, planned: publishing worked {outage:?} after the request");
    watched.receives_all_of(load).await;
    watched.leave().await;
}

#[tokio::test]
async fn a_master_that_hangs_is_left() {
    if !can_run(&PROGRAMS) {
        return;
    }
    let set = ClusterSet::start(1).await;
    let nodes = impatient_nodes(&set.url(), 2).await;
    let watched = Watched::new(&open(&nodes, HubOptions::default()).await).await;
    let master = set.master_of(watched.hub()).await;
    let hanging = set.servers.iter().find(|server| server.port() == master.port);
    set.replicated(&master).await;
    let begun = Instant::now();
    hanging.unwrap().signal("STOP").await;
    let outage = watched.survives(begun).await;
    println!("cluster, SIGSTOP: publishing worked again after {outage:?}");
    hanging.unwrap().signal("CONT").await;
    watched.publish_all("later").await;
    watched.leave().await;
}

#[tokio::test]
async fn a_slot_may_move() {
    if !can_run(&PROGRAMS) {
        return;
    }
    let set = ClusterSet::start(0).await;
    let nodes = nodes(&set.url(), 2).await;
    let watched = Watched::new(&open(&nodes, HubOptions::default()).await).await;
    let from = set.master_of(watched.hub()).await;
    let to = set.seen().await.into_iter().find(|seen| seen.port != from.port);
    let slot = set.slot_of(watched.hub()).await;
    let load = watched.load();
    set.move_slot(slot, &from, &to.unwrap()).await;
    let outage = watched.survives(Instant::now()).await;
    println!("cluster, moved slot: publishing worked {outage:?} after the move");
    watched.receives_all_of(load).await;
    watched.leave().await;
}

#[tokio::test]
async fn urls_that_do_not_fit_the_servers_are_told() {
    if !can_run(&PROGRAMS) {
        return;
    }
    let single = RedisServer::start().await;
    let set = ClusterSet::start(0).await;
    let refused = async |url: &str| {
        let refused = RedisBackplane::connect(options(url, "a")).await.err().unwrap();
        assert!(matches!(refused, BackplaneError::Config { .. }), "{refused:?}");
        refused.to_string()
    };
    let reported = refused(&format!("redis+cluster://127.0.0.1:{}", single.port())).await;
    assert!(reported.contains("not part of a Redis Cluster"), "{reported}");
    let home = set.master_of("*").await.port;
    let another = set
        .servers
        .iter()
        .map(RedisServer::port)
        .find(|port| *port != home);
    let reported = refused(&format!("redis://127.0.0.1:{}", another.unwrap())).await;
    assert!(reported.contains("use redis+cluster://"), "{reported}");
    // One server of the cluster is enough to find the others.
    let url = format!("redis+cluster://127.0.0.1:{},127.0.0.1:{home}", free_port());
    let node = RedisBackplane::connect(options(&url, "a")).await.unwrap();
    node.shutdown().await;
    let mut gone = RedisOptions::parse(&format!("redis+cluster://127.0.0.1:{}", free_port())).unwrap();
    gone.command_timeout = Duration::from_millis(300);
    let error = RedisBackplane::connect(gone).await.err().unwrap();
    assert!(matches!(error, BackplaneError::Unavailable { .. }), "{error:?}");
}

#[tokio::test]
async fn a_cluster_is_reached_by_tls() {
    if !can_run(&PROGRAMS) {
        return;
    }
    let tls = Tls::new();
    let plain = free_port();
    let mut arguments = vec![
        "--cluster-enabled yes".to_owned(),
        format!("--cluster-port {}", free_port()),
        format!("--port {plain}"),
        "--tls-port PORT".to_owned(),
        "--tls-cluster yes".to_owned(),
    ];
    arguments.extend(tls.settings().iter().map(|setting| format!("--{setting}")));
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    let server = RedisServer::start_with(&arguments).await;
    ask::<()>(plain, &["CLUSTER", "ADDSLOTSRANGE", "0", "16383"])
        .await
        .unwrap();
    let mut nodes: Vec<Arc<dyn Backplane>> = Vec::new();
    for name in ["a", "b"] {
        let url = format!("rediss+cluster://127.0.0.1:{}", server.port());
        let mut options = options(&url, name);
        options.ca_file = Some(tls.cert.clone());
        nodes.push(Arc::new(RedisBackplane::connect(options).await.unwrap()));
    }
    let watched = Watched::new(&open(&nodes, HubOptions::default()).await).await;
    watched.leave().await;
}
