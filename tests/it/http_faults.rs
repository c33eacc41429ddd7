//! Clients whose connections are many requests, each on another node than the one before, while Redis fails. Nothing ends.

use futures_util::future::join_all;
use hubcast_tests::balancer::Rules;
use hubcast_tests::cluster::{Cluster, Plan};
use hubcast_tests::eventually::eventually_equals;
use hubcast_tests::js::{Connect, Js, JsClient};
use serde_json::{Value, json};
use tokio::time::{Duration, Instant, sleep_until};

async fn cluster() -> Cluster {
    let rules = Rules {
        checks_life: true,
        ..Rules::default()
    };
    Plan::nodes(3)
        .balanced_by(rules)
        .set("backplane.command_timeout_seconds", 1)
        .with_short_leases()
        .start()
        .await
}

/// Clients by long polling and by server-sent events, all in one group. None of them tries again when it has ended.
async fn clients(cluster: &Cluster, js: &Js) -> Vec<JsClient> {
    let mut clients = Vec::new();
    for transport in ["LongPolling", "ServerSentEvents"].repeat(4) {
        let connect = Connect::to(&cluster.hub_url()).transport(transport);
        let client = js.connect(connect.listening(&["GroupMessage"])).await;
        client.call("JoinGroup", json!(["g"])).await;
        clients.push(client);
    }
    clients
}

/// Calls every client once, and has each of them send to all.
async fn everybody_goes_on(clients: &[JsClient], round: &str) {
    let goes_on = async |(i, client): (usize, &JsClient)| {
        assert_eq!(client.call("Echo", json!([i])).await, i);
        let text = format!("{round} {i}");
        client.call("SendToGroup", json!(["g", text])).await;
        for receiver in clients {
            receiver.receives("GroupMessage", json!(["g", text])).await;
        }
    };
    join_all(clients.iter().enumerate().map(goes_on)).await;
    for client in clients {
        assert_eq!(client.events("closed"), Vec::<Value>::new(), "{round}");
    }
}

/// Every client received each message once at most.
fn nothing_came_twice(clients: &[JsClient]) {
    for client in clients {
        let mut received: Vec<_> = client
            .received("GroupMessage")
            .iter()
            .map(Value::to_string)
            .collect();
        received.sort();
        let count = received.len();
        received.dedup();
        assert_eq!(received.len(), count);
    }
}

async fn readiness_is(cluster: &Cluster, status: u16) {
    for node in &cluster.nodes {
        eventually_equals("readiness", &Some(status), async || node.readiness().await).await;
    }
}

async fn stop(mut cluster: Cluster, clients: &[JsClient]) {
    nothing_came_twice(clients);
    join_all(clients.iter().map(JsClient::stop)).await;
    cluster.has_connections(0).await;
    cluster.redis_is_tidy().await;
}

#[tokio::test]
async fn clients_outlive_lost_subscriptions() {
    let mut cluster = cluster().await;
    let js = Js::start().await;
    let clients = clients(&cluster, &js).await;
    for round in 0..5 {
        let mut redis = cluster.redis().connection().await;
        let mut command = redis::cmd("CLIENT");
        command.arg("KILL").arg("TYPE").arg("pubsub");
        let killed: u64 = command.query_async(&mut redis).await.expect("Redis answers");
        assert!(killed > 0);
        everybody_goes_on(&clients, &format!("round {round}")).await;
    }
    stop(cluster, &clients).await;
}

#[tokio::test]
async fn clients_outlive_a_redis_that_comes_back_empty_at_once() {
    let mut cluster = cluster().await;
    let js = Js::start().await;
    let clients = clients(&cluster, &js).await;
    for round in 0..3 {
        cluster.redis().kill();
        cluster.redis().restart().await;
        let echo = async |client: &JsClient| assert_eq!(client.call("Echo", json!([round])).await, round);
        join_all(clients.iter().map(echo)).await;
        readiness_is(&cluster, 200).await;
        everybody_goes_on(&clients, &format!("round {round}")).await;
    }
    stop(cluster, &clients).await;
}

#[tokio::test]
async fn requests_wait_for_a_redis_that_is_away() {
    let mut cluster = cluster().await;
    let js = Js::start().await;
    let clients = clients(&cluster, &js).await;
    cluster.redis().kill();
    let begun = Instant::now();
    readiness_is(&cluster, 503).await;
    let calls = join_all(clients.iter().map(|client| client.call("Echo", json!(["waits"]))));
    let back = async {
        sleep_until(begun + Duration::from_secs(3)).await; // the fault itself
        cluster.redis().restart().await;
    };
    let (answers, ()) = tokio::join!(calls, back);
    assert!(answers.iter().all(|answer| answer == "waits"));
    readiness_is(&cluster, 200).await;
    everybody_goes_on(&clients, "after").await;
    stop(cluster, &clients).await;
}
