//! Questions of a back end about connections whose node has died, and its actions on them.

use std::sync::Arc;

use hubcast_tests::cluster::{Cluster, Plan};
use hubcast_tests::eventually::eventually_equals;
use hubcast_tests::hub_client::{HubClient, Transport};
use hubcast_tests::jwt::token_for;
use hubcast_tests::rest::Rest;
use hubcast_tests::resumable::Resumable;
use serde_json::{Value, json};

/// Two nodes, the second of which is to die, and a back end that calls the first.
async fn cluster() -> (Cluster, Rest) {
    let cluster = Plan::nodes(2)
        .with_short_leases()
        .set("hubs.resume_window_seconds", 20)
        .start()
        .await;
    let rest = Rest::on(&cluster.nodes[0]);
    (cluster, rest)
}

async fn ann(cluster: &Cluster, node: usize) -> HubClient {
    let entry = cluster.entry_on(node).with_bearer(&token_for("ann"));
    HubClient::connect(&Arc::new(entry), Transport::WebSockets).await
}

/// Connections, those that no node has, and groups.
async fn counted(rest: &Rest) -> [Value; 3] {
    let answer = rest
        .fetch(&rest.request("GET", "/api/hubs/demo/:statistics"))
        .await;
    assert_eq!(answer.status(), 200, "{}", answer.text());
    ["connections", "parked", "groups"].map(|name| answer.json()[name].clone())
}

#[tokio::test]
async fn a_dead_nodes_connections_are_there_no_longer_than_its_lease() {
    let (mut cluster, rest) = cluster().await;
    let mut dies = ann(&cluster, 1).await;
    dies.result("JoinGroup", json!(["g"])).await;
    assert_eq!(rest.call("PUT", "/users/ann/groups/h").await.status(), 200);
    assert_eq!(counted(&rest).await, [1, 0, 2]);
    let paths = [
        "/groups/g".to_owned(),
        "/groups/h".to_owned(),
        "/users/ann".to_owned(),
        format!("/connections/{}", dies.id()),
    ];
    let found = async || {
        let mut found = Vec::new();
        for path in &paths {
            found.push(rest.call("HEAD", path).await.status());
        }
        found
    };
    assert_eq!(found().await, [200; 4]);
    cluster.nodes[1].kill();
    eventually_equals("nobody is there", &vec![404; 4], found).await;
    assert_eq!(counted(&rest).await, [0, 0, 0]);
    // The user is in its group all the same, and each later connection joins it.
    assert_eq!(rest.call("HEAD", "/users/ann/groups/h").await.status(), 200);
    let mut comes = ann(&cluster, 0).await;
    assert_eq!(rest.call("HEAD", "/groups/h").await.status(), 200);
    let message = json!({ "target": "Hello", "arguments": [] });
    assert_eq!(rest.send("/groups/h/:send", &message).await.status(), 202);
    comes.expect("Hello").await;
    assert_eq!(rest.call("DELETE", "/users/ann/groups").await.status(), 204);
    assert_eq!(counted(&rest).await, [1, 0, 0]);
}

#[tokio::test]
async fn a_resumable_connection_of_a_dead_node_is_there_until_it_is_closed() {
    let (mut cluster, rest) = cluster().await;
    let mut clients = Vec::new();
    for _ in 0..3 {
        let mut client = Resumable::connect(&cluster.entry_on(1)).await;
        client.invoke("j", "JoinGroup", json!(["g"])).await;
        client.result("j").await;
        client.invoke("i", "WhoAmI", json!([])).await;
        let id = client.result("i").await["connectionId"].clone();
        clients.push((client, id.as_str().expect("an id").to_owned()));
    }
    cluster.nodes[1].kill();
    let parked = [3, 3, 1].map(Value::from);
    eventually_equals("nobody has them", &parked, async || counted(&rest).await).await;
    let (first, second) = (&clients[0].1, &clients[1].1);
    let path = format!("/connections/{first}");
    assert_eq!(rest.call("HEAD", &path).await.status(), 200);
    assert_eq!(rest.call("DELETE", &path).await.status(), 204);
    assert_eq!(rest.call("HEAD", &path).await.status(), 404);
    let path = format!("/groups/g/:closeConnections?excluded={second}");
    assert_eq!(rest.send(&path, &Value::Null).await.status(), 204);
    assert_eq!(counted(&rest).await, [1, 1, 1]);
    let entry = cluster.entry_on(0);
    for (index, (client, _)) in clients.iter_mut().enumerate() {
        client.turn_to(&entry);
        client.lose();
        if index == 1 {
            client.resume().await;
        } else {
            assert!(client.replace().await.is_err(), "it has ended");
        }
    }
    assert_eq!(counted(&rest).await, [1, 0, 1]);
}
