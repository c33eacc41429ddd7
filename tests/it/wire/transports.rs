//! A connection has one transport, and each transport its own methods.

use hubcast_tests::cluster::Cluster;
use hubcast_tests::entry_point::EntryPoint;
use hubcast_tests::eventually::eventually;
use hubcast_tests::http::{Connection, Request};
use hubcast_tests::hub_client::{HubClient, JSON_HANDSHAKE, MESSAGEPACK_HANDSHAKE, Transport};
use hubcast_tests::websocket::Message;
use serde_json::json;

use super::UNKNOWN;

proves_on_one_node_and_on_two! { |plan| plan.set("limits.http_body_bytes", 100_000); // of REST alone
    a_websocket_needs_no_id,
    an_upgrade_is_read_as_proxies_write_it,
    a_second_websocket_on_a_connection_is_refused,
    a_connection_keeps_its_transport,
    a_websocket_connection_takes_no_post,
    only_long_polling_is_ended_by_delete,
    a_burst_of_small_calls_is_answered_whatever_it_comes_in,
    messages_may_be_split_and_merged_at_will,
    frames_may_be_text_or_binary,
    what_follows_the_handshake_in_one_frame_is_read,
    binary_over_an_event_stream_is_refused,
    bodies_that_arrive_together_are_read_one_after_the_other,
}

async fn an_upgrade_is_read_as_proxies_write_it(cluster: &mut Cluster) {
    let node = cluster.nodes[0].address();
    let ask = |lines: [&str; 2], version: &str| {
        Request::get("/hubs/demo")
            .header("Connection", lines[0])
            .header("Connection", lines[1])
            .header("Upgrade", "websocket")
            .header("Sec-WebSocket-Version", version)
            .header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")
    };
    for lines in [["keep-alive", "Upgrade"], ["Upgrade", "keep-alive"]] {
        let mut connection = Connection::open(node).await.expect("it connects");
        let head = connection.start(&ask(lines, "13")).await.expect("an answer");
        assert_eq!(head.status, 101, "{lines:?}");
    }
    let mut connection = Connection::open(node).await.expect("it connects");
    let refused = connection.start(&ask(["keep-alive", "Upgrade"], "8")).await;
    let refused = refused.expect("an answer");
    assert_eq!(
        (refused.status, refused.header("sec-websocket-version")),
        (400, Some("13"))
    );
}

async fn a_websocket_needs_no_id(cluster: &mut Cluster) {
    let entry = cluster.entry();
    let mut socket = entry.websocket_with("").await.expect("the WebSocket opens");
    socket.text(JSON_HANDSHAKE).await;
    assert_eq!(socket.next().await, Some(Message::text("{}\u{1e}")));
    socket
        .text("{\"type\":1,\"invocationId\":\"0\",\"target\":\"WhoAmI\",\"arguments\":[]}\u{1e}")
        .await;
    let Some(Message::Text(answer)) = socket.next().await else {
        panic!("no answer")
    };
    let answer: serde_json::Value = serde_json::from_str(answer.trim_end_matches('\u{1e}')).unwrap();
    let id = answer["result"]["connectionId"]
        .as_str()
        .expect("it has a connection id");
    assert_eq!(id.len(), 22, "{id}");
    cluster.has_connections(1).await;
}

async fn a_second_websocket_on_a_connection_is_refused(cluster: &mut Cluster) {
    let entry = cluster.entry();
    let mut client = HubClient::connect(&entry, Transport::WebSockets).await;
    for _ in 0..entry.nodes() {
        let refusal = entry.upgrade(&format!("id={}", client.token())).await;
        assert_eq!(refusal.outcome(), (409, ""));
    }
    assert_eq!(client.result("Echo", json!(["still here"])).await, "still here");
}

async fn a_connection_keeps_its_transport(cluster: &mut Cluster) {
    let entry = cluster.entry();
    const REFUSAL: (u16, &str) = (400, "Cannot change transports mid-connection");
    for transport in Transport::ALL {
        let mut client = HubClient::connect(&entry, transport).await;
        for _ in 0..entry.nodes() {
            let token = client.token();
            if transport != Transport::LongPolling {
                assert_eq!(
                    entry.poll(token).await.outcome(),
                    REFUSAL,
                    "a poll of {transport:?}"
                );
            }
            if transport != Transport::ServerSentEvents {
                let request = entry.request("GET", token).header("Accept", "text/event-stream");
                assert_eq!(
                    entry.fetch(&request).await.outcome(),
                    REFUSAL,
                    "an event stream of {transport:?}"
                );
            }
            if transport != Transport::WebSockets {
                let refusal = entry.upgrade(&format!("id={token}")).await;
                assert_eq!(refusal.outcome(), REFUSAL, "a WebSocket of {transport:?}");
            }
        }
        assert_eq!(client.result("Echo", json!([1])).await, 1, "{transport:?}");
    }
}

async fn a_websocket_connection_takes_no_post(cluster: &mut Cluster) {
    let entry = cluster.entry();
    let client = HubClient::connect(&entry, Transport::WebSockets).await;
    for _ in 0..entry.nodes() {
        let refusal = entry.post(client.token(), "{\"type\":6}\u{1e}").await;
        assert_eq!(
            refusal.outcome(),
            (405, "POST requests are not allowed for WebSocket connections.")
        );
    }
}

async fn only_long_polling_is_ended_by_delete(cluster: &mut Cluster) {
    let entry = cluster.entry();
    const REFUSAL: (u16, &str) = (400, "Cannot terminate this connection using the DELETE endpoint.");
    for transport in [Transport::WebSockets, Transport::ServerSentEvents] {
        let mut client = HubClient::connect(&entry, transport).await;
        for _ in 0..entry.nodes() {
            assert_eq!(
                entry.delete(client.token()).await.outcome(),
                REFUSAL,
                "{transport:?}"
            );
        }
        assert_eq!(client.result("Echo", json!([1])).await, 1, "{transport:?}");
    }
    for _ in 0..entry.nodes() {
        let client = HubClient::connect(&entry, Transport::LongPolling).await;
        assert_eq!(entry.delete(client.token()).await.outcome(), (202, ""));
        is_forgotten(&entry, client.token()).await;
    }
}

/// Waits until no node knows the token, for none of the requests.
async fn is_forgotten(entry: &EntryPoint, token: &str) {
    for _ in 0..entry.nodes() {
        eventually("the token is forgotten", async || {
            (entry.poll(token).await.outcome() == UNKNOWN).then_some(())
        })
        .await;
    }
    for _ in 0..entry.nodes() {
        assert_eq!(entry.poll(token).await.outcome(), UNKNOWN, "a poll");
        assert_eq!(entry.delete(token).await.outcome(), UNKNOWN, "DELETE");
        assert_eq!(
            entry.upgrade(&format!("id={token}")).await.outcome(),
            UNKNOWN,
            "a WebSocket"
        );
    }
}

/// Clients join everything that waits while they send.
async fn a_burst_of_small_calls_is_answered_whatever_it_comes_in(cluster: &mut Cluster) {
    let entry = cluster.entry();
    for transport in Transport::ALL {
        for (count, size) in [(60_u32, 20_000), (3_000, 20)] {
            let mut client = HubClient::connect(&entry, transport).await;
            let text = "x".repeat(size);
            let call = |i: u32| {
                format!(
                    "{{\"type\":1,\"invocationId\":\"{i}\",\"target\":\"Echo\",\"arguments\":[\"{text}\"]}}\u{1e}"
                )
            };
            let all: String = (0..count).map(call).collect();
            let token = client.token().to_owned();
            let posting = async {
                if transport != Transport::WebSockets {
                    assert_eq!(
                        entry.post(&token, all.clone()).await.status(),
                        200,
                        "{transport:?}"
                    );
                }
            };
            if transport == Transport::WebSockets {
                client.send(&all).await;
            }
            let reading = async {
                for i in 0..count {
                    let answer = client.next().await.expect("an answer");
                    assert_eq!(answer["invocationId"], i.to_string(), "{transport:?}");
                    assert_eq!(answer["result"], text.as_str(), "{transport:?}");
                }
            };
            tokio::join!(posting, reading);
        }
    }
}

async fn messages_may_be_split_and_merged_at_will(cluster: &mut Cluster) {
    let entry = cluster.entry();
    for transport in Transport::ALL {
        let mut client = HubClient::connect(&entry, transport).await;
        let call = |i: u32| {
            format!("{{\"type\":1,\"invocationId\":\"{i}\",\"target\":\"Echo\",\"arguments\":[{i}]}}\u{1e}")
        };
        let all: String = (0..3).map(call).collect();
        for piece in all.as_bytes().chunks(29) {
            assert_eq!(client.send(piece).await, 200, "{transport:?}");
        }
        assert_eq!(client.send(&all).await, 200, "{transport:?}");
        for i in [0, 1, 2, 0, 1, 2] {
            let expected = json!({ "type": 3, "invocationId": i.to_string(), "result": i });
            assert_eq!(client.next().await, Some(expected), "{transport:?}");
        }
    }
}

async fn frames_may_be_text_or_binary(cluster: &mut Cluster) {
    let mut socket = cluster
        .entry()
        .websocket_with("")
        .await
        .expect("the WebSocket opens");
    socket.binary(JSON_HANDSHAKE.as_bytes()).await;
    assert_eq!(socket.next().await, Some(Message::text("{}\u{1e}")));
    socket
        .binary(b"{\"type\":1,\"invocationId\":\"0\",\"target\":\"Ec")
        .await;
    socket.text("ho\",\"arguments\":[true]}\u{1e}").await;
    let answer = Message::text("{\"type\":3,\"invocationId\":\"0\",\"result\":true}\u{1e}");
    assert_eq!(socket.next().await, Some(answer));
}

async fn what_follows_the_handshake_in_one_frame_is_read(cluster: &mut Cluster) {
    let entry = cluster.entry();
    for transport in Transport::ALL {
        let mut client = HubClient::open(&entry, transport).await;
        let call = "{\"type\":1,\"invocationId\":\"0\",\"target\":\"Echo\",\"arguments\":[null]}\u{1e}";
        client.send(format!("{JSON_HANDSHAKE}{call}")).await;
        assert_eq!(client.next().await, Some(json!({})), "{transport:?}");
        let expected = json!({ "type": 3, "invocationId": "0", "result": null });
        assert_eq!(client.next().await, Some(expected), "{transport:?}");
    }
}

async fn binary_over_an_event_stream_is_refused(cluster: &mut Cluster) {
    let entry = cluster.entry();
    for _ in 0..entry.nodes() {
        let mut client = HubClient::open(&entry, Transport::ServerSentEvents).await;
        client.send(MESSAGEPACK_HANDSHAKE).await;
        let error = "Cannot use the 'messagepack' protocol on the current transport. \
                     The transport does not support 'Binary' transfer format.";
        assert_eq!(client.rest().await, [json!({ "error": error })]);
        is_forgotten(&entry, client.token()).await;
    }
    cluster.is_tidy().await;
}

async fn bodies_that_arrive_together_are_read_one_after_the_other(cluster: &mut Cluster) {
    let entry = cluster.entry();
    for transport in [Transport::ServerSentEvents, Transport::LongPolling] {
        let mut client = HubClient::connect(&entry, transport).await;
        let call = |i: usize| {
            let text = "x".repeat(5_000);
            let call =
                json!({ "type": 1, "invocationId": i.to_string(), "target": "Echo", "arguments": [text] });
            entry.post(client.token(), format!("{call}\u{1e}"))
        };
        // No 409: they wait for each other, and none is mixed with another one.
        for answer in futures_util::future::join_all((0..10).map(call)).await {
            assert_eq!(answer.outcome(), (200, ""), "{transport:?}");
        }
        let mut answered = Vec::new();
        while answered.len() < 10 {
            let answer = client.next().await.expect("an answer");
            assert_eq!(answer["result"], "x".repeat(5_000), "{transport:?}");
            answered.push(answer["invocationId"].to_string());
        }
        answered.sort();
        answered.dedup();
        assert_eq!(answered.len(), 10, "{transport:?}");
    }
}
