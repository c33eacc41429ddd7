//! Coming back, and what was before.

use hubcast_tests::cluster::Plan;
use hubcast_tests::event_source::EventSource;
use serde_json::json;

use super::{open, resume, send, send_all, sender, texts, three_nodes};

#[tokio::test]
async fn who_comes_back_to_another_node_gets_exactly_what_it_missed() {
    let mut cluster = three_nodes().await;
    let mut source = open(&cluster, 0, "group=g").await;
    let mut other = sender(&cluster, 1).await;
    send_all(&mut other, "g", 0..20).await;
    assert_eq!(source.texts(20).await, texts(0..20));
    let last = source.last_id.clone();
    drop(source);
    send_all(&mut other, "g", 20..120).await;
    let mut again = resume(&cluster, 2, "group=g", &last).await;
    assert_eq!(again.texts(100).await, texts(20..120));
    send(&mut other, "g", "120").await;
    assert_eq!(
        again.texts(1).await,
        texts(120..121),
        "nothing comes between or twice"
    );
    drop((again, other));
    cluster.is_tidy().await;
}

#[tokio::test]
async fn who_has_received_nothing_lacks_nothing_either() {
    let cluster = three_nodes().await;
    let mut other = sender(&cluster, 1).await;
    send_all(&mut other, "g", 0..3).await;
    let source = open(&cluster, 0, "group=g").await;
    let last = source.last_id.clone();
    drop(source);
    send_all(&mut other, "g", 3..6).await;
    let mut again =
        EventSource::open(cluster.nodes[2].address(), &format!("group=g&lastEventId={last}")).await;
    assert_eq!(again.texts(3).await, texts(3..6));
}

#[tokio::test]
async fn a_killed_node_loses_nothing() {
    let mut cluster = Plan::nodes(3).with_short_leases().start().await;
    let mut source = open(&cluster, 0, "group=g").await;
    let mut other = sender(&cluster, 1).await;
    let sending = tokio::spawn(async move { send_all(&mut other, "g", 0..400).await });
    let mut seen = source.texts(50).await;
    cluster.nodes[0].kill();
    while let Some(event) = source.next().await {
        seen.push(event.data[1].clone());
    }
    let mut source = resume(&cluster, 2, "group=g", &source.last_id).await;
    let rest = source.texts(400 - seen.len()).await;
    seen.extend(rest);
    assert_eq!(seen, texts(0..400));
    sending.await.unwrap();
    drop(source);
    cluster.has_connections(0).await;
}

/// Breaks off again and again while messages come, on whichever node is next.
#[tokio::test]
async fn two_groups_keep_one_order_across_resumes() {
    let cluster = three_nodes().await;
    let (query, mut source) = ("group=a&group=b", open(&cluster, 0, "group=a&group=b").await);
    let mut witness = open(&cluster, 1, query).await;
    let mut sending = Vec::new();
    for (node, group) in [(1, "a"), (2, "b")] {
        let mut sender = sender(&cluster, node).await;
        sending.push(tokio::spawn(async move {
            for number in 0..200 {
                send(&mut sender, group, format!("{group}{number}")).await;
            }
        }));
    }
    let mut seen = Vec::new();
    for round in 1..=20 {
        seen.extend(source.texts(17).await);
        let last = source.last_id.clone();
        source = resume(&cluster, round % 3, query, &last).await;
    }
    seen.extend(source.texts(400 - seen.len()).await);
    assert_eq!(seen, witness.texts(400).await);
    for sending in sending {
        sending.await.unwrap();
    }
}

#[tokio::test]
async fn a_reader_may_begin_with_the_last_messages_of_each_topic() {
    let cluster = three_nodes().await;
    drop(open(&cluster, 0, "group=a&group=b").await); // clients' messages to groups that never had a member are not kept
    let mut other = sender(&cluster, 1).await;
    for number in 0..5 {
        send(&mut other, "a", format!("a{number}")).await;
        send(&mut other, "b", format!("b{number}")).await;
        send(&mut other, "c", format!("c{number}")).await;
    }
    other.result("SendMessage", json!(["ann", "all"])).await;
    let address = cluster.nodes[2].address();
    let mut source = EventSource::open(address, "group=a&group=b&rewind=2").await;
    assert_eq!(source.texts(5).await, ["a3", "b3", "a4", "b4", "all"]);
    send(&mut other, "a", "live").await;
    assert_eq!(source.texts(1).await, ["live"]);
    let mut none = EventSource::open(address, "group=a&rewind=0").await.begun().await;
    send(&mut other, "a", "only").await;
    assert_eq!(none.texts(1).await, ["only"]);
    // A client that comes back does not begin anew.
    let mut again = resume(&cluster, 0, "group=a&group=b&rewind=2", &source.last_id).await;
    assert_eq!(again.texts(1).await, ["only"]);
}

#[tokio::test]
async fn history_is_read_from_any_id() {
    let cluster = three_nodes().await;
    let mut source = open(&cluster, 0, "group=g").await;
    let mut other = sender(&cluster, 1).await;
    send_all(&mut other, "g", 0..600).await;
    let first = source.event().await;
    assert_eq!(source.texts(599).await, texts(1..600));
    let query = format!("group=g&since={}", first.id);
    let mut again = EventSource::open(cluster.nodes[1].address(), &query).await;
    assert_eq!(again.texts(599).await, texts(1..600));
    let mut header_counts = resume(&cluster, 2, &query, &source.last_id).await;
    send(&mut other, "g", "600").await;
    assert_eq!(header_counts.texts(1).await, texts(600..601));
}

#[tokio::test]
async fn one_node_without_redis_resumes_as_well() {
    let cluster = Plan::one_node().start().await;
    let mut source = open(&cluster, 0, "group=g").await;
    let mut other = sender(&cluster, 0).await;
    send_all(&mut other, "g", 0..5).await;
    assert_eq!(source.texts(5).await, texts(0..5));
    let last = source.last_id.clone();
    drop(source);
    send_all(&mut other, "g", 5..600).await;
    let mut again = resume(&cluster, 0, "group=g", &last).await;
    assert_eq!(again.texts(595).await, texts(5..600));
    let mut newest = EventSource::open(cluster.nodes[0].address(), "group=g&rewind=3").await;
    assert_eq!(newest.texts(3).await, texts(597..600));
}
