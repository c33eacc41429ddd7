//! Tests with a master that sentinels watch.

use std::sync::Arc;
use std::time::Duration;

use hubcast_backplane::conformance::{eventually, open};
use hubcast_backplane::redis::{RedisBackplane, RedisOptions};
use hubcast_backplane::{Backplane, BackplaneError, HubOptions, Status};
use tokio::time::Instant;

use crate::cluster_set::ask;
use crate::failover::Watched;
use crate::sentinel_set::{MASTER, SentinelSet, Settings};
use crate::support::{RedisServer, free_port};
use crate::{Tls, can_run, impatient_nodes, nodes, options};

async fn three() -> SentinelSet {
    let set = SentinelSet::start(&Settings {
        replicas: 2,
        sentinels: 3,
        ..Settings::default()
    })
    .await;
    set.settled().await;
    set
}

async fn connected(nodes: &[Arc<dyn Backplane>]) {
    for node in nodes {
        let mut status = node.status();
        let connected = status.wait_for(|status| *status == Status::Connected);
        tokio::time::timeout(Duration::from_secs(30), connected)
            .await
            .unwrap()
            .unwrap();
    }
}

#[tokio::test]
async fn the_rules_hold() {
    if !can_run(&["redis-server"]) {
        return;
    }
    let set = SentinelSet::start(&Settings {
        replicas: 1,
        sentinels: 1,
        ..Settings::default()
    })
    .await;
    let count = all_rules!(in_turn, nodes(&set.url(), 3));
    println!("{count} rules hold with sentinels");
}

#[tokio::test]
async fn a_killed_master_is_followed_by_another_and_a_new_epoch() {
    if !can_run(&["redis-server"]) {
        return;
    }
    let mut set = three().await;
    let nodes = nodes(&set.url(), 2).await;
    let members = open(&nodes, HubOptions::default()).await;
    let watched = Watched::new(&members).await;
    let begun = Instant::now();
    set.replicated().await;
    set.servers[0].kill().await;
    let outage = watched.survives(begun).await;
    println!("sentinels, SIGKILL: publishing worked again after {outage:?}");
    connected(&nodes).await;
    let failovers = set.failovers().await;
    // The old master comes back, and is made a replica by the sentinels: no node follows it.
    assert!(set.servers[0].restart().await);
    let role = async || {
        let info: String = ask(set.servers[0].port(), &["INFO", "replication"]).await.ok()?;
        info.contains("role:slave").then_some(())
    };
    eventually("the old master is a replica", role).await;
    watched.publish_all("later").await;
    // A busy machine may make the sentinels change the master once more.
    assert!(watched.gaps().len() == 1 || set.failovers().await > failovers);
    watched.leave().await;
}

#[tokio::test]
async fn a_master_that_is_replaced_while_it_lives_is_left() {
    if !can_run(&["redis-server"]) {
        return;
    }
    let set = three().await;
    let nodes = nodes(&set.url(), 2).await;
    let members = open(&nodes, HubOptions::default()).await;
    let watched = Watched::new(&members).await;
    let load = watched.load();
    set.switch().await;
    eventually("the epoch is a new one", async || {
        let _ = members[0].hub.position().await;
        (!watched.gaps().is_empty()).then_some(())
    })
    .await;
    let outage = watched.survives(Instant::now()).await;
    println!("sentinels, planned: publishing worked {outage:?} after the new epoch was told");
    connected(&nodes).await;
    watched.receives_all_of(load).await;
    watched.leave().await;
}

#[tokio::test]
async fn a_master_that_hangs_is_left() {
    if !can_run(&["redis-server"]) {
        return;
    }
    let set = three().await;
    let nodes = impatient_nodes(&set.url(), 2).await;
    let watched = Watched::new(&open(&nodes, HubOptions::default()).await).await;
    let begun = Instant::now();
    set.replicated().await;
    set.servers[0].signal("STOP").await;
    let outage = watched.survives(begun).await;
    println!("sentinels, SIGSTOP: publishing worked again after {outage:?}");
    connected(&nodes).await;
    set.servers[0].signal("CONT").await;
    nobody_listens(&set.servers[0]).await;
    for round in 0..10 {
        watched.publish_all(&format!("later-{round}")).await;
    }
    watched.leave().await;
}

#[tokio::test]
async fn a_master_that_wakes_up_while_most_sentinels_still_name_it_is_left() {
    if !can_run(&["redis-server"]) {
        return;
    }
    let set = three().await;
    let nodes = nodes(&set.url(), 2).await;
    let watched = Watched::new(&open(&nodes, HubOptions::default()).await).await;
    let begun = Instant::now();
    set.replicated().await;
    set.servers[0].signal("STOP").await;
    set.failover_begins().await;
    set.servers[0].signal("CONT").await;
    nobody_listens(&set.servers[0]).await;
    let outage = watched.survives(begun).await;
    println!("sentinels, SIGSTOP and at once SIGCONT: publishing worked again after {outage:?}");
    // Sentinels demote it after ten seconds: messages that it takes until then are lost.
    assert!(outage < Duration::from_secs(9), "{outage:?}");
    watched.leave().await;
}

/// Waits until no node is subscribed to anything at a server.
async fn nobody_listens(server: &RedisServer) {
    eventually("all nodes have left the server", async || {
        let channels: Vec<String> = ask(server.port(), &["PUBSUB", "CHANNELS", "hubcast*"])
            .await
            .ok()?;
        channels.is_empty().then_some(())
    })
    .await;
}

#[tokio::test]
async fn the_newest_failover_counts_though_most_sentinels_have_not_heard_of_it() {
    if !can_run(&["redis-server"]) {
        return;
    }
    let mut set = SentinelSet::start(&Settings {
        sentinels: 2,
        ..Settings::default()
    })
    .await;
    let newer = RedisServer::start().await;
    set.add_sentinel(&newer, 5).await;
    let nodes = nodes(&set.url(), 2).await;
    let watched = Watched::new(&open(&nodes, HubOptions::default()).await).await;
    assert!(
        set.servers[0].keys().await.is_empty(),
        "the former master is not used"
    );
    watched.leave().await;
}

#[tokio::test]
async fn a_former_master_that_lives_on_and_takes_itself_for_one_is_left() {
    a_former_master_is_left(false).await;
}

#[tokio::test]
async fn a_demoted_master_is_left_though_it_passes_on_what_is_published() {
    a_former_master_is_left(true).await;
}

async fn a_former_master_is_left(is_demoted: bool) {
    if !can_run(&["redis-server"]) {
        return;
    }
    let set = one_replica().await;
    let nodes = nodes(&set.url(), 2).await;
    let watched = Watched::new(&open(&nodes, HubOptions::default()).await).await;
    let begun = Instant::now();
    set.forget_master().await;
    set.replicated().await;
    set.servers[1].promote().await;
    if is_demoted {
        // Sentinels end the connections of a server that they demote; this one keeps them.
        set.servers[0].follow(&set.servers[1]).await;
    }
    set.name_master(&set.servers[1]).await;
    nobody_listens(&set.servers[0]).await;
    watched.survives(begun).await;
    watched.leave().await;
}

/// A master with a replica, and one sentinel.
async fn one_replica() -> SentinelSet {
    let set = SentinelSet::start(&Settings {
        replicas: 1,
        sentinels: 1,
        ..Settings::default()
    })
    .await;
    set.settled().await;
    set
}

#[tokio::test]
async fn some_sentinels_may_be_gone() {
    if !can_run(&["redis-server"]) {
        return;
    }
    let set = SentinelSet::start(&Settings {
        sentinels: 1,
        ..Settings::default()
    })
    .await;
    let gone = free_port();
    let url = format!("redis+sentinel://127.0.0.1:{gone},{}/{MASTER}/2", set.hosts());
    let begun = Instant::now();
    let nodes = nodes(&url, 2).await;
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    let members = open(&nodes, HubOptions::default()).await;
    let watched = Watched::new(&members).await;
    watched.leave().await;
    assert!(set.servers[0].keys().await.is_empty(), "database 2 is used");
}

async fn refusal(url: &str) -> String {
    let mut options = RedisOptions::parse(url).unwrap();
    options.command_timeout = Duration::from_millis(500);
    let error = RedisBackplane::connect(options).await.err().unwrap();
    assert!(matches!(error, BackplaneError::Config { .. }), "{error:?}");
    let text = format!("{error} {error:?}");
    assert!(!text.contains("secret"), "{text}");
    text
}

#[tokio::test]
async fn wrong_names_and_passwords_are_told() {
    if !can_run(&["redis-server"]) {
        return;
    }
    let set = SentinelSet::start(&Settings {
        sentinels: 1,
        password: Some("secret-of-servers"),
        sentinel_password: Some("secret-of-sentinels"),
        ..Settings::default()
    })
    .await;
    let hosts = set.hosts();
    let url = |password: &str, master: &str, sentinel: &str| {
        format!("redis+sentinel://:{password}@{hosts}/{master}?sentinel_password={sentinel}")
    };
    let right = ("secret-of-servers", MASTER, "secret-of-sentinels");
    let reported = refusal(&url(right.0, "another", right.2)).await;
    assert!(
        reported.contains("know no master") && reported.contains("another"),
        "{reported}"
    );
    let reported = refusal(&url(right.0, MASTER, "secret-wrong")).await;
    assert!(reported.contains("a sentinel refuses"), "{reported}");
    let reported = refusal(&format!("redis+sentinel://:{}@{hosts}/{MASTER}", right.0)).await;
    assert!(reported.contains("a sentinel refuses"), "{reported}");
    let reported = refusal(&url("secret-wrong", MASTER, right.2)).await;
    assert!(
        reported.contains("server refused the user name or password"),
        "{reported}"
    );
    let nodes = nodes(&url(right.0, right.1, right.2), 2).await;
    let watched = Watched::new(&open(&nodes, HubOptions::default()).await).await;
    watched.leave().await;
}

#[tokio::test]
async fn sentinels_that_are_not_there_are_told_within_the_bound() {
    let url = format!("redis+sentinel://127.0.0.1:{}/{MASTER}", free_port());
    let mut options = options(&url, "a");
    options.command_timeout = Duration::from_millis(300);
    let error = RedisBackplane::connect(options).await.err().unwrap();
    assert!(matches!(error, BackplaneError::Unavailable { .. }), "{error:?}");
    assert!(error.to_string().contains("a sentinel can't be asked"), "{error}");
}

#[tokio::test]
async fn sentinels_and_servers_are_reached_by_tls() {
    if !can_run(&["redis-server"]) {
        return;
    }
    let tls = Tls::new();
    let set = SentinelSet::start(&Settings {
        sentinels: 1,
        tls: Some(&tls),
        ..Settings::default()
    })
    .await;
    let url = format!("rediss+sentinel://{}/{MASTER}", set.hosts());
    let mut nodes: Vec<Arc<dyn Backplane>> = Vec::new();
    for name in ["a", "b"] {
        let mut options = options(&url, name);
        options.ca_file = Some(tls.cert.clone());
        nodes.push(Arc::new(RedisBackplane::connect(options).await.unwrap()));
    }
    let watched = Watched::new(&open(&nodes, HubOptions::default()).await).await;
    watched.leave().await;
}
