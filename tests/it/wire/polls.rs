//! Long polling.

use hubcast_tests::cluster::Cluster;
use hubcast_tests::entry_point::Negotiated;
use hubcast_tests::eventually::{eventually, within};
use hubcast_tests::http::{Connection, Response};
use hubcast_tests::hub_client::{HubClient, JSON_HANDSHAKE, MESSAGEPACK_HANDSHAKE, Transport};
use serde_json::json;

use super::UNKNOWN;

proves_on_one_node_and_on_two! { |plan| plan;
    the_first_poll_returns_at_once_with_nothing,
    a_poll_waits_for_data_and_gets_all_of_it,
    a_poll_is_never_cached,
    a_newer_poll_supersedes_the_one_before,
    after_the_end_a_poll_gets_what_is_left_then_204_then_404,
    a_poll_of_an_unread_abort_gets_the_close_message,
    messagepack_comes_as_bytes,
}

/// A connection whose handshake has been answered and read.
async fn connected(cluster: &Cluster) -> Negotiated {
    let entry = cluster.entry();
    let negotiated = entry.negotiate().await;
    assert_eq!(entry.poll(&negotiated.token).await.outcome(), (200, ""));
    assert_eq!(
        entry.post(&negotiated.token, JSON_HANDSHAKE).await.outcome(),
        (200, "")
    );
    assert_eq!(entry.poll(&negotiated.token).await.outcome(), (200, "{}\u{1e}"));
    negotiated
}

async fn the_first_poll_returns_at_once_with_nothing(cluster: &mut Cluster) {
    let entry = cluster.entry();
    for _ in 0..entry.nodes() {
        let Negotiated { token, .. } = entry.negotiate().await;
        let first = entry.poll(&token).await;
        assert_eq!(first.outcome(), (200, ""));
        assert_eq!(first.head.header("content-length"), Some("0"));
    }
}

async fn a_poll_waits_for_data_and_gets_all_of_it(cluster: &mut Cluster) {
    let entry = cluster.entry();
    let Negotiated { token, .. } = connected(cluster).await;
    let polling = tokio::spawn({
        let (entry, token) = (cluster.entry(), token.clone());
        async move { entry.poll(&token).await }
    });
    let echo = |i: u32| {
        format!("{{\"type\":1,\"invocationId\":\"{i}\",\"target\":\"Echo\",\"arguments\":[{i}]}}\u{1e}")
    };
    let answer = |i: u32| format!("{{\"type\":3,\"invocationId\":\"{i}\",\"result\":{i}}}\u{1e}");
    assert_eq!(entry.post(&token, echo(0)).await.outcome(), (200, ""));
    let response = within("the poll ends", polling).await.unwrap();
    assert_eq!(response.outcome(), (200, answer(0).as_str()));
    assert_eq!(
        response.head.header("content-type"),
        Some("application/octet-stream")
    );
    assert_eq!(
        response.head.header("content-length"),
        Some(response.body.len().to_string().as_str())
    );
    for i in 1..4 {
        entry.post(&token, echo(i)).await;
    }
    let mut received = String::new();
    while received.matches('\u{1e}').count() < 3 {
        let response = entry.poll(&token).await;
        assert_eq!(response.status(), 200);
        received.push_str(response.text());
    }
    assert_eq!(received, [1, 2, 3].map(answer).concat());
}

async fn a_poll_is_never_cached(cluster: &mut Cluster) {
    let entry = cluster.entry();
    let Negotiated { token, .. } = entry.negotiate().await;
    let check = |response: Response| {
        assert_eq!(response.head.list("cache-control"), ["no-cache", "no-store"]);
        assert_eq!(response.head.header("pragma"), Some("no-cache"));
        assert_eq!(
            response.head.header("expires"),
            Some("Thu, 01 Jan 1970 00:00:00 GMT")
        );
    };
    check(entry.poll(&token).await);
    entry.post(&token, JSON_HANDSHAKE).await;
    check(entry.poll(&token).await);
}

async fn a_newer_poll_supersedes_the_one_before(cluster: &mut Cluster) {
    let entry = cluster.entry();
    let Negotiated { token, .. } = connected(cluster).await;
    let mut one = Connection::open(entry.turn()).await.unwrap();
    let mut other = Connection::open(entry.turn()).await.unwrap();
    let request = entry.request("GET", &token);
    let one = tokio::spawn({
        let request = request.clone();
        async move { one.fetch(&request).await.unwrap() }
    });
    // A waiting poll can't be seen from outside. So the two race: the first one must be the one that ends.
    let other = tokio::spawn(async move { other.fetch(&request).await.unwrap() });
    eventually("one of the polls ends", async || {
        (one.is_finished() || other.is_finished()).then_some(())
    })
    .await;
    let (superseded, live) = if one.is_finished() {
        (one, other)
    } else {
        (other, one)
    };
    assert_eq!(superseded.await.unwrap().outcome(), (204, ""));
    let ping = "{\"type\":1,\"invocationId\":\"0\",\"target\":\"Echo\",\"arguments\":[1]}\u{1e}";
    assert_eq!(entry.post(&token, ping).await.status(), 200);
    let response = within("the live poll ends", live).await.unwrap();
    assert_eq!(
        response.outcome(),
        (200, "{\"type\":3,\"invocationId\":\"0\",\"result\":1}\u{1e}")
    );
}

async fn after_the_end_a_poll_gets_what_is_left_then_204_then_404(cluster: &mut Cluster) {
    let entry = cluster.entry();
    let Negotiated { token, .. } = connected(cluster).await;
    assert_eq!(
        entry.post(&token, "{\"type\":7}\u{1e}").await.outcome(),
        (200, "")
    );
    assert_eq!(entry.poll(&token).await.outcome(), (200, "{\"type\":7}\u{1e}"));
    assert_eq!(entry.poll(&token).await.outcome(), (204, ""));
    for _ in 0..entry.nodes() {
        eventually("it is forgotten", async || {
            (entry.poll(&token).await.outcome() == UNKNOWN).then_some(())
        })
        .await;
    }
    cluster.has_connections(0).await;
}

async fn a_poll_of_an_unread_abort_gets_the_close_message(cluster: &mut Cluster) {
    let entry = cluster.entry();
    let mut client = HubClient::connect(&entry, Transport::LongPolling).await;
    client
        .say(&json!({ "type": 1, "target": "Abort", "arguments": [] }))
        .await;
    assert_eq!(client.rest().await, [json!({ "type": 7 })]);
}

async fn messagepack_comes_as_bytes(cluster: &mut Cluster) {
    let entry = cluster.entry();
    let Negotiated { token, .. } = entry.negotiate().await;
    entry.poll(&token).await;
    let call = [
        0x0E, 0x95, 0x01, 0x80, 0xA1, b'0', 0xA4, b'E', b'c', b'h', b'o', 0x91, 0xC4, 0x01, 0xFF,
    ];
    entry
        .post(&token, [MESSAGEPACK_HANDSHAKE.as_bytes(), &call].concat())
        .await;
    let mut received = Vec::new();
    while received.len() < 13 {
        received.extend_from_slice(&entry.poll(&token).await.body);
    }
    let answer = [0x09, 0x95, 0x03, 0x80, 0xA1, b'0', 0x03, 0xC4, 0x01, 0xFF];
    assert_eq!(received, [&b"{}\x1e"[..], &answer].concat());
}
