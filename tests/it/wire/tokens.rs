//! Connection tokens: made by any node without a trace, accepted by any node, once.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hubcast_tests::cluster::Cluster;
use hubcast_tests::entry_point::{EntryPoint, Negotiated};
use hubcast_tests::eventually::eventually;
use hubcast_tests::hub_client::{HubClient, JSON_HANDSHAKE, Transport};
use serde_json::json;

use super::UNKNOWN;

proves_on_one_node_and_on_two! { |plan| plan;
    negotiating_leaves_no_trace,
    the_public_id_does_not_open_the_connection,
    a_token_that_was_changed_is_unknown,
    a_token_of_another_cluster_is_unknown,
    a_token_is_used_up_when_its_connection_has_ended,
    two_requests_with_a_fresh_token_open_one_connection,
    what_is_posted_before_the_first_get_is_delivered,
}

/// No node takes the token, for anything.
async fn is_unknown(entry: &EntryPoint, token: &str) {
    for _ in 0..entry.nodes() {
        assert_eq!(
            entry.upgrade(&format!("id={token}")).await.outcome(),
            UNKNOWN,
            "a WebSocket"
        );
        let events = entry.request("GET", token).header("Accept", "text/event-stream");
        assert_eq!(entry.fetch(&events).await.outcome(), UNKNOWN, "an event stream");
        assert_eq!(entry.poll(token).await.outcome(), UNKNOWN, "a poll");
        assert_eq!(entry.post(token, "x").await.outcome(), UNKNOWN, "a POST");
        assert_eq!(entry.delete(token).await.outcome(), UNKNOWN, "a DELETE");
    }
}

async fn negotiating_leaves_no_trace(cluster: &mut Cluster) {
    let entry = cluster.entry();
    for _ in 0..20 {
        entry.negotiate().await;
    }
    cluster.is_tidy().await;
    assert_eq!(cluster.sum("hubcast_connections").await, 0.0);
}

async fn the_public_id_does_not_open_the_connection(cluster: &mut Cluster) {
    let entry = cluster.entry();
    let fresh = entry.negotiate().await;
    is_unknown(&entry, &fresh.id).await;
    for transport in Transport::ALL {
        let mut client = HubClient::connect(&entry, transport).await;
        is_unknown(&entry, client.id()).await;
        assert_eq!(client.result("Echo", json!([1])).await, 1);
    }
}

async fn a_token_that_was_changed_is_unknown(cluster: &mut Cluster) {
    let entry = cluster.entry();
    let Negotiated { token, .. } = entry.negotiate().await;
    for at in 0..token.len() {
        let mut forged = token.clone().into_bytes();
        // Not only the last bit, which base64 may ignore at the end of a text.
        forged[at] = if forged[at] == b'A' { b'z' } else { b'A' };
        let forged = String::from_utf8(forged).unwrap();
        let request = entry.request("GET", &forged);
        assert_eq!(entry.fetch(&request).await.outcome(), UNKNOWN, "changed at {at}");
    }
    for forged in [
        &token[1..],
        &token[..token.len() - 2],
        &format!("{token}AA"),
        &token.to_uppercase(),
    ] {
        is_unknown(&entry, forged).await;
    }
    is_unknown(&entry, &URL_SAFE_NO_PAD.encode([0; 64])).await;
    assert_eq!(entry.poll(&token).await.outcome(), (200, ""), "the real one");
}

async fn a_token_of_another_cluster_is_unknown(cluster: &mut Cluster) {
    let other = hubcast_tests::cluster::Plan::one_node().start().await;
    let Negotiated { token, .. } = other.entry().negotiate().await;
    is_unknown(&cluster.entry(), &token).await;
}

async fn a_token_is_used_up_when_its_connection_has_ended(cluster: &mut Cluster) {
    let entry = cluster.entry();
    for transport in Transport::ALL {
        for ends_politely in [true, false] {
            let client = HubClient::connect(&entry, transport).await;
            let token = client.token().to_owned();
            if ends_politely {
                client.close().await;
            } else if transport == Transport::LongPolling {
                assert_eq!(entry.delete(&token).await.status(), 202);
            } else {
                drop(client);
            }
            for _ in 0..entry.nodes() {
                eventually("the token is unknown", async || {
                    (entry.post(&token, "{\"type\":6}\u{1e}").await.outcome() == UNKNOWN).then_some(())
                })
                .await;
            }
            is_unknown(&entry, &token).await;
        }
    }
    cluster.has_connections(0).await;
}

async fn two_requests_with_a_fresh_token_open_one_connection(cluster: &mut Cluster) {
    let entry = cluster.entry();
    for _ in 0..10 {
        let Negotiated { token, .. } = entry.negotiate().await;
        let (one, other) = tokio::join!(entry.websocket(&token), entry.websocket(&token));
        let (winner, loser) = if one.is_ok() { (one, other) } else { (other, one) };
        assert!(
            matches!(loser, Err(409)),
            "one of two is refused: {:?}",
            loser.err()
        );
        let mut winner = winner.expect("one of two is accepted");
        winner.text(JSON_HANDSHAKE).await;
        assert!(winner.next().await.is_some(), "and it works");
    }
}

async fn what_is_posted_before_the_first_get_is_delivered(cluster: &mut Cluster) {
    let entry = cluster.entry();
    for transport in [Transport::ServerSentEvents, Transport::LongPolling] {
        for _ in 0..entry.nodes() {
            let Negotiated { token, .. } = entry.negotiate().await;
            let call =
                "{\"type\":1,\"invocationId\":\"0\",\"target\":\"Echo\",\"arguments\":[\"early\"]}\u{1e}";
            assert_eq!(
                entry.post(&token, JSON_HANDSHAKE).await.outcome(),
                (200, ""),
                "{transport:?}"
            );
            assert_eq!(
                entry.post(&token, call).await.outcome(),
                (200, ""),
                "{transport:?}"
            );
            entry.turn(); // with two nodes: the GET reaches the one that the first POST did not reach
            let expected = "{\"type\":3,\"invocationId\":\"0\",\"result\":\"early\"}\u{1e}";
            let received = if transport == Transport::LongPolling {
                polled(&entry, &token, expected).await
            } else {
                streamed(&entry, &token, expected).await
            };
            assert!(
                received.contains("{}\u{1e}") && received.contains(expected),
                "{transport:?}: {received}"
            );
        }
    }
}

async fn polled(entry: &EntryPoint, token: &str, until: &str) -> String {
    let mut received = String::new();
    while !received.contains(until) {
        let response = entry.poll(token).await;
        assert_eq!(response.status(), 200, "{}", response.text());
        received.push_str(response.text());
    }
    received
}

async fn streamed(entry: &EntryPoint, token: &str, until: &str) -> String {
    let (head, mut connection) = entry.events(token).await;
    assert_eq!(head.status, 200);
    let mut received = String::new();
    while !received.contains(until) {
        let piece = hubcast_tests::eventually::within("an event", connection.piece()).await;
        let piece = piece
            .unwrap()
            .unwrap_or_else(|| panic!("the stream ended after {received:?}"));
        received.push_str(std::str::from_utf8(&piece).unwrap());
    }
    received
}
