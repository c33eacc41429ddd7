//! The content of event streams.

use std::sync::Arc;

use hubcast_tests::cluster::Plan;
use hubcast_tests::event_source::{EventSource, events};
use hubcast_tests::eventually::eventually;
use hubcast_tests::http::{Connection, Request};
use hubcast_tests::hub_client::{HubClient, Transport};
use hubcast_tests::jwt::token_for;
use hubcast_tests::messagepack;
use hubcast_tests::webpubsub::{PLAIN, WebPubSub};
use serde_json::json;

use super::{open, resume, send, send_all, sender, texts, three_nodes};

#[tokio::test]
async fn messages_of_other_nodes_arrive_as_named_events_with_ids() {
    let mut cluster = three_nodes().await;
    let request = events("group=tea&group=tea&group=milk", "");
    let (head, source) = EventSource::start(cluster.nodes[0].address(), &request).await;
    assert_eq!(head.status, 200);
    assert_eq!(head.header("content-type"), Some("text/event-stream"));
    assert_eq!(
        head.list("cache-control"),
        ["no-cache", "no-store", "no-transform"]
    );
    assert_eq!(head.header("x-accel-buffering"), Some("no"));
    assert_eq!(head.header("content-encoding"), Some("identity"));
    let mut source = source.begun().await;
    assert!(source.retry.is_some_and(|retry| (1_000..2_000).contains(&retry)));
    cluster.has_connections(1).await;

    let mut other = sender(&cluster, 1).await;
    send(&mut other, "coffee", "not for it").await;
    send(&mut other, "tea", "ready\r\nevent: x\n\n€😀").await;
    other.result("SendMessage", json!(["ann", "hi"])).await;
    send(&mut other, "milk", "sour").await;
    let tea = source.event().await;
    assert_eq!(tea.name, "GroupMessage");
    assert_eq!(tea.data, json!(["tea", "ready\r\nevent: x\n\n€😀"]));
    let all = source.event().await;
    assert_eq!(
        (all.name.as_str(), all.data),
        ("ReceiveMessage", json!(["ann", "hi"]))
    );
    let milk = source.event().await;
    assert_eq!(milk.data, json!(["milk", "sour"]));
    assert!(tea.id != all.id && all.id != milk.id);
    drop((source, other));
    cluster.is_tidy().await;
}

#[tokio::test]
async fn a_user_receives_its_own_messages_and_messagepack_comes_as_json() {
    let cluster = three_nodes().await;
    let request = events(&format!("access_token={}", token_for("ann")), "");
    let (_, source) = EventSource::start(cluster.nodes[0].address(), &request).await;
    let mut source = source.begun().await;
    let mut other = HubClient::connect_messagepack(&cluster.entry_on(1), Transport::WebSockets).await;
    let call = rmp(&json!([1, {}, null, "SendToUser", ["ann", "hello"], []]));
    other.send(&call).await;
    let event = source.event().await;
    assert_eq!(
        (event.name.as_str(), event.data),
        ("UserMessage", json!(["hello"]))
    );
    cluster.logs_are_clean();
}

/// A hub message in MessagePack.
fn rmp(message: &serde_json::Value) -> Vec<u8> {
    messagepack::frame(&messagepack::from_json(message))
}

#[tokio::test]
async fn signalr_clients_and_event_sources_see_one_order() {
    let cluster = three_nodes().await;
    let mut source = open(&cluster, 0, "group=g").await;
    let mut client = sender(&cluster, 2).await;
    client.result("JoinGroup", json!(["g"])).await;
    let mut sending = Vec::new();
    for node in 0..3 {
        let mut sender = sender(&cluster, node).await;
        sending.push(tokio::spawn(async move {
            for number in 0..50 {
                send(&mut sender, "g", format!("{node}-{number}")).await;
            }
        }));
    }
    for sending in sending {
        sending.await.unwrap();
    }
    let seen = source.texts(150).await;
    let mut by_client = Vec::new();
    for _ in 0..150 {
        by_client.push(client.expect("GroupMessage").await[1].clone());
    }
    assert_eq!(seen, by_client);
}

#[tokio::test]
async fn streams_work_over_http2_too() {
    let cluster = three_nodes().await;
    let entry = cluster.entry().over_http2().await;
    let (head, source) = EventSource::through(&entry, &events("group=g", "")).await;
    assert_eq!(head.status, 200);
    let mut source = source.begun().await;
    let mut other = sender(&cluster, 1).await;
    send_all(&mut other, "g", 0..10).await;
    assert_eq!(source.texts(10).await, texts(0..10));
}

#[tokio::test]
async fn a_quiet_stream_is_kept_alive_by_comments() {
    let cluster = Plan::nodes(1)
        .set("timeouts.keep_alive_seconds", 0.1)
        .start()
        .await;
    let mut source = open(&cluster, 0, "group=g").await;
    source.comments(3).await;
    let mut other = sender(&cluster, 0).await;
    send(&mut other, "g", "0").await;
    assert_eq!(source.texts(1).await, texts(0..1));
}

#[tokio::test]
async fn a_node_that_leaves_says_so_and_its_readers_go_on_elsewhere() {
    let cluster = three_nodes().await;
    let mut source = open(&cluster, 0, "group=g").await;
    let mut other = sender(&cluster, 1).await;
    send_all(&mut other, "g", 0..5).await;
    assert_eq!(source.texts(5).await, texts(0..5));
    cluster.nodes[0].terminate();
    let close = source.event().await;
    assert_eq!(
        (close.name.as_str(), &close.data),
        ("close", &json!({ "error": null, "allowReconnect": true }))
    );
    assert_eq!(source.next().await, None);
    send_all(&mut other, "g", 5..10).await;
    let mut source = resume(&cluster, 2, "group=g", &source.last_id).await;
    assert_eq!(source.texts(5).await, texts(5..10));
}

#[tokio::test]
async fn a_slow_reader_harms_only_itself_and_goes_on_where_it_was() {
    const COUNT: usize = 1_500;
    let mut cluster = Plan::nodes(2)
        .set("limits.message_bytes", 16_384)
        .set("limits.outbox_bytes", 524_288)
        .start()
        .await;
    let slow = open(&cluster, 0, "group=g").await;
    let mut quick = open(&cluster, 0, "group=g").await;
    let mut other = sender(&cluster, 1).await;
    let padding = "x".repeat(10_000);
    let reading = tokio::spawn(async move {
        let texts = quick.texts(COUNT).await;
        (quick, texts)
    });
    for number in 0..COUNT {
        send(&mut other, "g", format!("{number} {padding}")).await;
    }
    let (_quick, of_quick) = reading.await.unwrap();
    eventually("the slow one is closed", async || {
        (cluster.sum("hubcast_slow_consumers_total").await >= 1.0).then_some(())
    })
    .await;
    let mut of_slow = Vec::new();
    let (mut source, mut rounds) = (slow, 0);
    while of_slow.len() < COUNT {
        match source.next().await {
            Some(event) if event.name == "GroupMessage" => of_slow.push(event.data[1].clone()),
            Some(event) => assert_eq!(event.name, "close", "{event:?}"),
            None => {
                rounds += 1;
                source = resume(&cluster, rounds % 2, "group=g", &source.last_id).await;
            }
        }
    }
    assert!(rounds > 0);
    assert!(of_slow == of_quick, "every message once and in order");
}

#[tokio::test]
async fn only_get_opens_a_stream_and_only_of_hubs_that_there_are() {
    let mut cluster = Plan::one_node().start().await;
    let node = cluster.nodes[0].address();
    for method in ["POST", "PUT", "DELETE"] {
        let (status, _) = EventSource::refusal(node, &Request::new(method, "/sse/demo")).await;
        assert_eq!(status, 405, "{method}");
    }
    assert_eq!(
        EventSource::refusal(node, &Request::get("/sse/none")).await.0,
        404
    );
    let mut connection = Connection::open(node).await.expect("it connects");
    let head = connection.fetch(&Request::new("HEAD", "/sse/demo")).await;
    let head = head.expect("HEAD is answered at once").head;
    assert_eq!(
        (head.status, head.header("content-type")),
        (200, Some("text/event-stream"))
    );
    cluster.has_connections(0).await;
    let mut asking = HubClient::connect(&Arc::new(cluster.entry_on(0).on(0)), Transport::WebSockets).await;
    let _source = open(&cluster, 0, "").await;
    let who = asking.result("WhoAmI", json!([])).await;
    assert!(who["connectionId"].is_string());
}

#[tokio::test]
async fn who_was_told_that_it_is_connected_misses_nothing_from_then_on() {
    for plan in [Plan::one_node(), Plan::nodes(2)] {
        let cluster = plan.start().await;
        let mut other = sender(&cluster, cluster.nodes.len() - 1).await;
        for round in 0..12 {
            let group = format!("g{round}");
            let query = format!("group={group}");
            let (head, mut source) =
                EventSource::start(cluster.nodes[0].address(), &events(&query, "")).await;
            send_all(&mut other, &group, 0..10).await;
            assert_eq!(head.status, 200);
            assert_eq!(source.texts(10).await, texts(0..10), "round {round}");
            let target = format!("/client/hubs/demo?{query}");
            let socket = WebPubSub::open(cluster.nodes[0].address(), &target, PLAIN).await;
            send_all(&mut other, &group, 10..20).await;
            let mut socket = socket.expect("it opens");
            let mut seen = Vec::new();
            while seen.len() < 10 {
                let message = socket.next().await.expect("it goes on");
                if message["type"] == "message" {
                    seen.push(message["arguments"][1].clone());
                }
            }
            assert_eq!(seen, texts(10..20), "round {round}");
        }
    }
}
