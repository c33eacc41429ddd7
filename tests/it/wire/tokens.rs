//! Connection tokens: made by any node without a trace, accepted by any node, once.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hubcast_tests::cluster::Cluster;
use hubcast_tests::door::{Door, Negotiated};
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
async fn is_unknown(door: &Door, token: &str) {
    for _ in 0..door.nodes() {
        assert_eq!(
            door.upgrade(&format!("id={token}")).await.outcome(),
            UNKNOWN,
            "a WebSocket"
        );
        let events = door.request("GET", token).header("Accept", "text/event-stream");
        assert_eq!(door.fetch(&events).await.outcome(), UNKNOWN, "an event stream");
        assert_eq!(door.poll(token).await.outcome(), UNKNOWN, "a poll");
        assert_eq!(door.post(token, "x").await.outcome(), UNKNOWN, "a POST");
        assert_eq!(door.delete(token).await.outcome(), UNKNOWN, "a DELETE");
    }
}

async fn negotiating_leaves_no_trace(cluster: &mut Cluster) {
    let door = cluster.door();
    for _ in 0..20 {
        door.negotiate().await;
    }
    cluster.is_tidy().await;
    assert_eq!(cluster.sum("hubcast_connections").await, 0.0);
}

async fn the_public_id_does_not_open_the_connection(cluster: &mut Cluster) {
    let door = cluster.door();
    let fresh = door.negotiate().await;
    is_unknown(&door, &fresh.id).await;
    for transport in Transport::ALL {
        let mut client = HubClient::connect(&door, transport).await;
        is_unknown(&door, client.id()).await;
        assert_eq!(client.result("Echo", json!([1])).await, 1);
    }
}

async fn a_token_that_was_changed_is_unknown(cluster: &mut Cluster) {
    let door = cluster.door();
    let Negotiated { token, .. } = door.negotiate().await;
    for at in 0..token.len() {
        let mut forged = token.clone().into_bytes();
        // Not only the last bit, which base64 may ignore at the end of a text.
        forged[at] = if forged[at] == b'A' { b'z' } else { b'A' };
        let forged = String::from_utf8(forged).unwrap();
        let request = door.request("GET", &forged);
        assert_eq!(door.fetch(&request).await.outcome(), UNKNOWN, "changed at {at}");
    }
    for forged in [
        &token[1..],
        &token[..token.len() - 2],
        &format!("{token}AA"),
        &token.to_uppercase(),
    ] {
        is_unknown(&door, forged).await;
    }
    is_unknown(&door, &URL_SAFE_NO_PAD.encode([0; 64])).await;
    assert_eq!(door.poll(&token).await.outcome(), (200, ""), "the real one");
}

async fn a_token_of_another_cluster_is_unknown(cluster: &mut Cluster) {
    let other = hubcast_tests::cluster::Plan::one_node().start().await;
    let Negotiated { token, .. } = other.door().negotiate().await;
    is_unknown(&cluster.door(), &token).await;
}

async fn a_token_is_used_up_when_its_connection_has_ended(cluster: &mut Cluster) {
    let door = cluster.door();
    for transport in Transport::ALL {
        for ends_politely in [true, false] {
            let client = HubClient::connect(&door, transport).await;
            let token = client.token().to_owned();
            if ends_politely {
                client.close().await;
            } else if transport == Transport::LongPolling {
                assert_eq!(door.delete(&token).await.status(), 202);
            } else {
                drop(client);
            }
            for _ in 0..door.nodes() {
                eventually("the token is unknown", async || {
                    (door.post(&token, "{\"type\":6}\u{1e}").await.outcome() == UNKNOWN).then_some(())
                })
                .await;
            }
            is_unknown(&door, &token).await;
        }
    }
    cluster.has_connections(0).await;
}

async fn two_requests_with_a_fresh_token_open_one_connection(cluster: &mut Cluster) {
    let door = cluster.door();
    for _ in 0..10 {
        let Negotiated { token, .. } = door.negotiate().await;
        let (one, other) = tokio::join!(door.websocket(&token), door.websocket(&token));
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
    let door = cluster.door();
    for transport in [Transport::ServerSentEvents, Transport::LongPolling] {
        for _ in 0..door.nodes() {
            let Negotiated { token, .. } = door.negotiate().await;
            let call =
                "{\"type\":1,\"invocationId\":\"0\",\"target\":\"Echo\",\"arguments\":[\"early\"]}\u{1e}";
            assert_eq!(
                door.post(&token, JSON_HANDSHAKE).await.outcome(),
                (200, ""),
                "{transport:?}"
            );
            assert_eq!(
                door.post(&token, call).await.outcome(),
                (200, ""),
                "{transport:?}"
            );
            door.turn(); // with two nodes: the GET reaches the one that the first POST did not reach
            let expected = "{\"type\":3,\"invocationId\":\"0\",\"result\":\"early\"}\u{1e}";
            let received = if transport == Transport::LongPolling {
                polled(&door, &token, expected).await
            } else {
                streamed(&door, &token, expected).await
            };
            assert!(
                received.contains("{}\u{1e}") && received.contains(expected),
                "{transport:?}: {received}"
            );
        }
    }
}

async fn polled(door: &Door, token: &str, until: &str) -> String {
    let mut received = String::new();
    while !received.contains(until) {
        let response = door.poll(token).await;
        assert_eq!(response.status(), 200, "{}", response.text());
        received.push_str(response.text());
    }
    received
}

async fn streamed(door: &Door, token: &str, until: &str) -> String {
    let (head, mut connection) = door.events(token).await;
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
