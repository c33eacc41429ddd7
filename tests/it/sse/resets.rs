//! A reset is reported where the missed messages are unknown.

use hubcast_tests::cluster::Plan;
use hubcast_tests::eventually::eventually;
use serde_json::json;

use super::{open, resume, send, send_all, sender, texts};

#[tokio::test]
async fn a_reader_whose_messages_were_trimmed_is_told_first() {
    let cluster = Plan::nodes(3).set("hubs.retention_messages", 10).start().await;
    let source = open(&cluster, 0, "group=g").await;
    let last = source.last_id.clone();
    drop(source);
    let mut other = sender(&cluster, 1).await;
    send_all(&mut other, "g", 0..300).await;
    let mut again = resume(&cluster, 2, "group=g", &last).await;
    let reset = again.event().await;
    assert_eq!(
        (reset.name.as_str(), &reset.data),
        ("reset", &json!({ "reason": "trimmed" }))
    );
    assert_ne!(reset.id, last, "from here on it is exact again");
    send(&mut other, "g", "300").await;
    assert_eq!(again.texts(1).await, texts(300..301));
    drop(again);
    send(&mut other, "g", "301").await;
    let mut exact = resume(&cluster, 0, "group=g", &reset.id).await;
    assert_eq!(exact.texts(2).await, texts(300..302));
}

#[tokio::test]
async fn a_new_log_is_told_to_those_who_are_here_and_to_those_who_come_back() {
    let mut cluster = Plan::nodes(3).start().await;
    let mut stays = open(&cluster, 0, "group=g").await;
    let leaves = open(&cluster, 1, "group=g").await;
    let old = leaves.last_id.clone();
    drop(leaves);
    cluster.redis().kill();
    cluster.redis().restart().await;
    let reset = stays.event().await;
    assert_eq!(
        (reset.name.as_str(), reset.data),
        ("reset", json!({ "reason": "epoch" }))
    );
    // While the node has no Redis yet, its streams end at once.
    let (mut again, reset) = eventually("a stream begins", async || {
        let mut again = resume(&cluster, 2, "group=g", &old).await;
        let event = again.next().await?;
        Some((again, event))
    })
    .await;
    assert_eq!(
        (reset.name.as_str(), reset.data),
        ("reset", json!({ "reason": "epoch" }))
    );
    assert_ne!(reset.id, old);
    let mut other = sender(&cluster, 1).await;
    send_all(&mut other, "g", 0..5).await;
    assert_eq!(stays.texts(5).await, texts(0..5));
    assert_eq!(again.texts(5).await, texts(0..5));
    let last = stays.last_id.clone();
    drop(stays);
    send_all(&mut other, "g", 5..10).await;
    let mut exact = resume(&cluster, 1, "group=g", &last).await;
    assert_eq!(exact.texts(5).await, texts(5..10));
}

#[tokio::test]
async fn a_volatile_hub_keeps_nothing_and_says_so() {
    let cluster = Plan::nodes(2).set("hubs.volatile", true).start().await;
    let mut source = open(&cluster, 0, "group=g").await;
    let mut other = sender(&cluster, 1).await;
    send(&mut other, "g", "0").await;
    assert_eq!(source.texts(1).await, texts(0..1));
    let last = source.last_id.clone();
    drop(source);
    send(&mut other, "g", "1").await;
    let mut again = resume(&cluster, 1, "group=g", &last).await;
    assert_eq!(again.event().await.data, json!({ "reason": "trimmed" }));
}
