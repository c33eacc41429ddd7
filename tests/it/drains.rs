//! The pace at which nodes let their clients go.

use std::time::Duration;

use hubcast_tests::cluster::{Cluster, Plan};
use hubcast_tests::hub_client::{HubClient, Transport};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::Instant;

fn goodbye() -> Value {
    json!({ "type": 7, "allowReconnect": true })
}

/// So many clients on each node, each of which reads until its end; the last message to each, and its time.
async fn clients(cluster: &Cluster, of_each: usize) -> JoinSet<(Option<Value>, Instant)> {
    let mut reading = JoinSet::new();
    for node in 0..cluster.nodes.len() {
        let entry = cluster.entry_on(node);
        for _ in 0..of_each {
            let mut client = HubClient::connect(&entry, Transport::WebSockets).await;
            reading.spawn(async move {
                let told = client.rest().await.pop();
                (told, Instant::now())
            });
        }
    }
    reading
}

/// Time from the beginning until the last of them was sent the request to come back.
async fn told_to_come_back(begun: Instant, reading: JoinSet<(Option<Value>, Instant)>) -> Duration {
    let ends = reading.join_all().await;
    for (told, _) in &ends {
        assert_eq!(told, &Some(goodbye()));
    }
    let last = ends.into_iter().map(|(_, at)| at).max().unwrap();
    last - begun
}

async fn exit(cluster: &mut Cluster) {
    for node in &mut cluster.nodes {
        assert_eq!(node.exit().await.code(), Some(0), "{}", node.log());
        assert!(node.log().contains("drained"), "{}", node.log());
    }
}

/// A bound from below: slow machines take longer.
#[tokio::test]
async fn nodes_that_drain_at_once_share_the_rate() {
    const RATE: u32 = 20;
    let plan = Plan::nodes(2).set("drain.rate_per_second", RATE);
    let mut cluster = plan.set("drain.deadline_seconds", 120).start().await;
    let reading = clients(&cluster, 25).await;
    let begun = Instant::now();
    cluster.nodes.iter().for_each(|node| node.terminate());
    let took = told_to_come_back(begun, reading).await;
    // 50 departures have 49 times between them.
    let least = Duration::from_secs(1) * 49 / RATE;
    assert!(
        took >= least,
        "50 clients left within {took:?}, sooner than {RATE} a second"
    );
    exit(&mut cluster).await;
}

#[tokio::test]
async fn a_node_without_redis_keeps_the_rate_too() {
    const RATE: u32 = 20;
    let plan = Plan::one_node().set("drain.rate_per_second", RATE);
    let mut cluster = plan.set("drain.deadline_seconds", 120).start().await;
    let reading = clients(&cluster, 30).await;
    let begun = Instant::now();
    cluster.nodes[0].terminate();
    let took = told_to_come_back(begun, reading).await;
    assert!(took >= Duration::from_secs(1) * 29 / RATE, "{took:?}");
    exit(&mut cluster).await;
}

/// And a node whose Redis has gone keeps it by itself.
#[tokio::test]
async fn a_node_that_lost_its_redis_keeps_the_rate_by_itself() {
    const RATE: u32 = 20;
    let plan = Plan::nodes(1).set("drain.rate_per_second", RATE);
    let mut cluster = plan.set("drain.deadline_seconds", 30).start().await;
    let reading = clients(&cluster, 30).await;
    cluster.redis().kill();
    let begun = Instant::now();
    cluster.nodes[0].terminate();
    let took = told_to_come_back(begun, reading).await;
    assert!(took >= Duration::from_secs(1) * 29 / RATE, "{took:?}");
}

/// At a rate of one a second the last would be notified after 19 s.
#[tokio::test]
async fn the_deadline_goes_before_the_rate() {
    let plan = Plan::nodes(2).set("drain.rate_per_second", 1);
    let mut cluster = plan.set("drain.deadline_seconds", 8).start().await;
    let reading = clients(&cluster, 10).await;
    let begun = Instant::now();
    cluster.nodes.iter().for_each(|node| node.terminate());
    told_to_come_back(begun, reading).await;
    exit(&mut cluster).await;
}
