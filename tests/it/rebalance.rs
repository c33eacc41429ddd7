//! Connections that leave nodes with many of them for nodes with few.

use hubcast_tests::cluster::{Cluster, Plan};
use hubcast_tests::eventually::eventually_equals;
use hubcast_tests::hub_client::{HubClient, Transport};
use hubcast_tests::rest::Rest;
use hubcast_tests::resumable::Resumable;
use serde_json::{Value, json};
use tokio::task::JoinSet;

/// Has the last node rebalance; returns how many leave each of the nodes.
async fn rebalance(cluster: &Cluster, query: &str) -> (Value, Vec<u64>) {
    let rest = Rest::on(&cluster.nodes[2]);
    let path = format!("/api/hubs/demo/:rebalance{query}");
    let answer = rest.fetch(&rest.request("POST", &path)).await;
    assert_eq!(answer.status(), 200, "{answer:?}");
    let told = answer.json();
    let nodes = told["nodes"].as_array().unwrap();
    let leaving = nodes.iter().map(|node| node["leaving"].as_u64().unwrap());
    let leaving = leaving.collect();
    (told, leaving)
}

#[tokio::test]
async fn a_node_with_many_connections_lets_those_above_the_mean_go() {
    // Slow enough to see that it goes on.
    let plan = Plan::nodes(3).set("drain.rate_per_second", 8);
    let cluster = plan.start().await;
    let full = cluster.entry_on(0);
    let (mut stateful, mut plain) = (Vec::new(), JoinSet::new());
    for _ in 0..30 {
        stateful.push(Resumable::connect(&full).await);
        let mut client = HubClient::connect(&full, Transport::WebSockets).await;
        plain.spawn(async move { client.rest().await });
    }
    let mut few = Vec::new();
    for _ in 0..3 {
        few.push(HubClient::connect(&cluster.entry_on(1), Transport::WebSockets).await);
    }
    // They have just come.
    let (told, leaving) = rebalance(&cluster, "").await;
    assert_eq!((&told["connections"], &told["mean"]), (&json!(63), &json!(21)));
    assert_eq!(leaving, [0, 0, 0]);

    assert_eq!(rebalance(&cluster, "?settled=0").await.1, [39, 0, 0]);
    assert_eq!(
        rebalance(&cluster, "?settled=0").await.1,
        [0, 0, 0],
        "not while others leave"
    );
    let full = &cluster.nodes[0];
    eventually_equals("the mean is left", &21.0, async || {
        full.metrics().await.sum("hubcast_connections")
    })
    .await;
    let closed = full.metrics().await;
    let of = |reason: &str| closed.sum_where("hubcast_connections_closed_total", &[("reason", reason)]);
    let (ordinary, moved) = (of("rebalanced"), of("moved"));
    assert_eq!(ordinary + moved, 39.0);
    for _ in 0..ordinary as usize {
        let told = plain.join_next().await.unwrap().unwrap();
        assert_eq!(told, [json!({ "type": 7, "allowReconnect": true })]);
    }
    // A client that is promised exactness misses nothing.
    let news = json!({ "target": "News", "arguments": [1] });
    let rest = Rest::on(&cluster.nodes[1]);
    assert_eq!(rest.send("/:send", &news).await.status(), 202);
    let elsewhere = cluster.entry_on(2);
    let mut gone = 0;
    for client in &mut stateful {
        loop {
            match client.next().await {
                Some(message) if message["target"] == "News" => break,
                Some(_) => {}
                None => {
                    gone += 1;
                    client.turn_to(&elsewhere);
                    client.resume().await;
                }
            }
        }
    }
    assert_eq!(f64::from(gone), moved);
    let (_, leaving) = rebalance(&cluster, "?settled=0").await;
    assert_eq!(leaving, [0, 0, 0], "small differences are left alone");
    cluster.logs_are_clean();
}

#[tokio::test]
async fn rebalancing_is_for_back_ends() {
    let cluster = Plan::one_node().start().await;
    let rest = Rest::on(&cluster.nodes[0]);
    let path = "/api/hubs/demo/:rebalance";
    let stranger = hubcast_tests::http::Request::post(path, "");
    assert_eq!(rest.fetch(&stranger).await.status(), 401);
    let answer = rest
        .fetch(&rest.request("POST", &format!("{path}?settled=x")))
        .await;
    assert_eq!(answer.status(), 400, "{answer:?}");
}
