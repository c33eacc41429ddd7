//! Clocks: what happens when nothing happens.

use std::time::Duration;

use hubcast_tests::cluster::{Cluster, Plan};
use hubcast_tests::eventually::{eventually, within};
use hubcast_tests::http::{Connection, Request};
use hubcast_tests::hub_client::{HubClient, JSON_HANDSHAKE, Transport};
use serde_json::{Value, json};
use tokio::time::sleep;

fn short(plan: Plan) -> Plan {
    plan.set("timeouts.disconnect_seconds", 1)
        .set("timeouts.long_poll_seconds", 1)
        .set("timeouts.keep_alive_seconds", 1)
        .set("timeouts.client_timeout_seconds", 2)
}

proves_on_one_node_and_on_two! { super::short;
    a_poll_without_data_ends_empty,
    a_connection_that_nobody_polls_is_forgotten,
    a_token_that_nobody_uses_expires,
    pings_keep_streams_alive_and_polls_need_none,
    a_client_that_falls_silent_is_told_so,
}

/// The balancer before a node must be the one that closes connections: its time is longer than any default of ours.
#[tokio::test]
async fn a_connection_that_asks_for_nothing_is_kept_as_long_as_is_set() {
    let cluster = Plan::one_node().set("timeouts.idle_seconds", 1).start().await;
    let other = Plan::one_node().set("timeouts.idle_seconds", 600).start().await;
    let ask = Request::get("/healthz");
    let mut kept = Connection::open(other.nodes[0].address()).await.unwrap();
    kept.fetch(&ask).await.unwrap();
    for asked in [false, true] {
        let mut idle = Connection::open(cluster.nodes[0].address()).await.unwrap();
        if asked {
            assert_eq!(idle.fetch(&ask).await.unwrap().status(), 200);
        }
        let closed = within("it is closed", idle.head("GET")).await;
        assert!(closed.is_err(), "nothing was asked");
    }
    assert_eq!(kept.fetch(&ask).await.unwrap().status(), 200);
}

const UNKNOWN: (u16, &str) = (404, "No Connection with that ID");

async fn a_poll_without_data_ends_empty(cluster: &mut Cluster) {
    let entry = cluster.entry();
    let client = HubClient::connect(&entry, Transport::LongPolling).await;
    for _ in 0..2 * entry.nodes() {
        assert_eq!(entry.poll(client.token()).await.outcome(), (200, ""));
    }
    cluster.has_connections(1).await;
}

async fn a_connection_that_nobody_polls_is_forgotten(cluster: &mut Cluster) {
    let entry = cluster.entry();
    let mut client = HubClient::connect(&entry, Transport::LongPolling).await;
    client.result("JoinGroup", json!(["g"])).await;
    cluster.is_tidy().await;
    for _ in 0..entry.nodes() {
        assert_eq!(entry.poll(client.token()).await.outcome(), UNKNOWN);
        assert_eq!(entry.post(client.token(), "x").await.outcome(), UNKNOWN);
    }
}

async fn a_token_that_nobody_uses_expires(cluster: &mut Cluster) {
    let entry = cluster.entry();
    let mut tokens = Vec::new();
    for _ in 0..100 {
        tokens.push(entry.negotiate().await.token);
    }
    // Each token is used once: a request counts as use.
    eventually("a token is too old", async || {
        sleep(Duration::from_millis(100)).await;
        let poll = entry.poll(&tokens.pop().expect("10 seconds are enough")).await;
        (poll.outcome() == UNKNOWN).then_some(())
    })
    .await;
    for token in &tokens {
        assert_eq!(
            entry.upgrade(&format!("id={token}")).await.outcome(),
            UNKNOWN,
            "so are all the others"
        );
    }
}

async fn pings_keep_streams_alive_and_polls_need_none(cluster: &mut Cluster) {
    let entry = cluster.entry();
    for transport in [Transport::WebSockets, Transport::ServerSentEvents] {
        let mut client = HubClient::open(&entry, transport).await;
        client.send(JSON_HANDSHAKE).await;
        for expected in [
            "{}\u{1e}",
            "{\"type\":6}\u{1e}",
            "{\"type\":6}\u{1e}",
            "{\"type\":6}\u{1e}",
        ] {
            assert_eq!(
                client.receive().await.expect("it is alive"),
                expected,
                "{transport:?}"
            );
        }
    }
    let client = HubClient::connect(&entry, Transport::LongPolling).await;
    for _ in 0..3 {
        assert_eq!(
            entry.poll(client.token()).await.outcome(),
            (200, ""),
            "no Ping in a poll"
        );
    }
}

async fn a_client_that_falls_silent_is_told_so(cluster: &mut Cluster) {
    let entry = cluster.entry();
    let expected = json!({ "type": 7, "error": "Connection closed with an error.", "allowReconnect": true });
    for transport in [Transport::WebSockets, Transport::ServerSentEvents] {
        let mut never_pinged = HubClient::connect(&entry, transport).await;
        let mut pinged_once = HubClient::connect(&entry, transport).await;
        pinged_once.say(&json!({ "type": 6 })).await;
        assert_eq!(
            pinged_once.rest().await,
            std::slice::from_ref(&expected),
            "{transport:?}"
        );
        let alive = never_pinged.result("Echo", json!(["here"])).await;
        assert_eq!(alive, Value::from("here"), "who never pings is never waited for");
    }
}
