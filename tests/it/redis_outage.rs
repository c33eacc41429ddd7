//! Redis goes away and comes back. Clients stay.

use futures_util::future::join_all;
use hubcast_tests::cluster::{Cluster, Plan};
use hubcast_tests::eventually::{eventually, eventually_equals};
use hubcast_tests::js::{Connect, Js, JsClient};
use serde_json::json;

fn plan() -> Plan {
    Plan::nodes(2)
        .set("backplane.command_timeout_seconds", 1)
        .set("timeouts.outage_seconds", 1)
        .set("timeouts.keep_alive_seconds", 2)
        .with_short_leases()
}

/// A client of each transport on each node, with its id; all in one group.
async fn clients(cluster: &Cluster, js: &Js) -> Vec<(String, JsClient)> {
    let mut clients = Vec::new();
    for node in &cluster.nodes {
        for transport in ["WebSockets", "ServerSentEvents", "LongPolling"] {
            let connect = Connect::to(&node.hub_url()).transport(transport).reconnecting();
            let client = js
                .connect(connect.listening(&["GroupMessage", "ReceiveMessage", "DirectMessage"]))
                .await;
            client.call("JoinGroup", json!(["before"])).await;
            clients.push((client.id().await, client));
        }
    }
    clients
}

async fn everybody_is_as_before(clients: &[(String, JsClient)]) {
    for (id, client) in clients {
        assert_eq!(client.id().await, *id, "the connection is the same");
        assert_eq!(
            client.events("reconnecting").len() + client.events("closed").len(),
            0,
            "nobody noticed"
        );
    }
}

async fn everybody_reaches_everybody(clients: &[(String, JsClient)], round: &str) {
    for (i, (_, sender)) in clients.iter().enumerate() {
        let text = format!("{round} {i}");
        sender.call("SendToGroup", json!(["before", text])).await;
        sender.call("SendMessage", json!(["all", text])).await;
        let (neighbour_id, neighbour) = &clients[(i + 1) % clients.len()];
        sender.call("SendToConnection", json!([neighbour_id, text])).await;
        neighbour.receives("DirectMessage", json!([text])).await;
        for (_, receiver) in clients {
            receiver.receives("GroupMessage", json!(["before", text])).await;
            receiver.receives("ReceiveMessage", json!(["all", text])).await;
        }
    }
}

async fn readiness_is(cluster: &Cluster, status: u16) {
    for node in &cluster.nodes {
        eventually_equals("readiness", &Some(status), async || node.readiness().await).await;
    }
}

#[tokio::test]
async fn clients_outlive_a_redis_that_comes_back_empty() {
    let mut cluster = plan().start().await;
    let js = Js::start().await;
    let clients = clients(&cluster, &js).await;
    everybody_reaches_everybody(&clients, "before").await;
    for round in ["first", "second"] {
        cluster.redis().kill();
        readiness_is(&cluster, 503).await;
        cannot_send(&clients).await;
        everybody_is_as_before(&clients).await;

        cluster.redis().restart().await;
        readiness_is(&cluster, 200).await;
        everybody_reaches_everybody(&clients, round).await;
        everybody_is_as_before(&clients).await;
    }
    newcomers_are_served(&cluster, &js, &clients).await;
    for (_, client) in &clients {
        client.stop().await;
    }
    cluster.has_connections(0).await;
    cluster.redis_is_tidy().await;
}

#[tokio::test]
async fn clients_outlive_a_redis_that_comes_back_with_its_data() {
    let mut cluster = plan().durable().start().await;
    let js = Js::start().await;
    let clients = clients(&cluster, &js).await;
    everybody_reaches_everybody(&clients, "before").await;
    cluster.redis().kill();
    readiness_is(&cluster, 503).await;
    cannot_send(&clients).await;
    // Connections that leave meanwhile are removed later.
    let (_, leaver) = &clients[0];
    leaver.stop().await;
    cluster.redis().restart().await;
    readiness_is(&cluster, 200).await;
    everybody_reaches_everybody(&clients[1..], "after").await;
    everybody_is_as_before(&clients[1..]).await;
    for (_, client) in &clients[1..] {
        client.stop().await;
    }
    cluster.has_connections(0).await;
    cluster.redis_is_tidy().await;
}

#[tokio::test]
async fn clients_outlive_a_redis_that_hangs() {
    let mut cluster = plan().start().await;
    let js = Js::start().await;
    let clients = clients(&cluster, &js).await;
    everybody_reaches_everybody(&clients, "before").await;
    cluster.redis().pause();
    readiness_is(&cluster, 503).await;
    cannot_send(&clients).await;
    everybody_is_as_before(&clients).await;
    cluster.redis().resume();
    readiness_is(&cluster, 200).await;
    everybody_reaches_everybody(&clients, "after").await;
    everybody_is_as_before(&clients).await;
}

/// Calls that need Redis fail with words, in bounded time; the others go on.
async fn cannot_send(clients: &[(String, JsClient)]) {
    let attempt = async |client: &JsClient| {
        assert_eq!(client.call("Echo", json!(["local"])).await, "local");
        for (method, arguments) in [
            ("SendToGroup", json!(["before", "lost"])),
            ("SendMessage", json!(["all", "lost"])),
            ("JoinGroup", json!(["meanwhile"])),
        ] {
            let error = client
                .invoke(method, arguments)
                .await
                .expect_err("it can't succeed without Redis");
            let expected = format!("An unexpected error occurred invoking '{method}' on the server.");
            assert!(error.starts_with(&expected), "{error}");
        }
    };
    join_all(clients.iter().map(|(_, client)| attempt(client))).await;
}

async fn newcomers_are_served(cluster: &Cluster, js: &Js, clients: &[(String, JsClient)]) {
    let connect = Connect::to(&cluster.nodes[1].hub_url()).listening(&["GroupMessage"]);
    let newcomer = js.connect(connect).await;
    newcomer.call("JoinGroup", json!(["before"])).await;
    clients[0]
        .1
        .call("SendToGroup", json!(["before", "welcome"]))
        .await;
    newcomer
        .receives("GroupMessage", json!(["before", "welcome"]))
        .await;
    eventually("it came once", async || {
        (newcomer.received("GroupMessage").len() == 1).then_some(())
    })
    .await;
    newcomer.stop().await;
}

#[tokio::test]
async fn newcomers_during_an_outage_are_turned_away_in_bounded_time() {
    let mut cluster = plan().set("timeouts.disconnect_seconds", 2).start().await;
    let js = Js::start().await;
    cluster.redis().kill();
    readiness_is(&cluster, 503).await;
    for transport in ["WebSockets", "ServerSentEvents", "LongPolling"] {
        for node in &cluster.nodes {
            let refusal = js
                .try_connect(Connect::to(&node.hub_url()).transport(transport))
                .await
                .err();
            assert!(
                refusal.is_some(),
                "nobody can be in groups of a directory that is not there: {transport}"
            );
        }
    }
    cluster.redis().restart().await;
    readiness_is(&cluster, 200).await;
    for transport in ["WebSockets", "ServerSentEvents", "LongPolling"] {
        let client = js
            .connect(Connect::to(&cluster.nodes[0].hub_url()).transport(transport))
            .await;
        assert_eq!(client.call("Echo", json!([transport])).await, transport);
        client.stop().await;
    }
    cluster.is_tidy().await;
}
