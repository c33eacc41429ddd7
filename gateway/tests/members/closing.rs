//! Connections are ended from anywhere, once, and get the reason.

use std::time::Duration;

use hubcast::hub::Disconnected;
use hubcast::testing::TestClient;
use serde_json::json;
use tokio::time::{sleep, timeout};

use crate::nodes::{BOUND, Cluster, Resumable, eventually};

async fn is_told(client: &mut TestClient, reason: Option<&str>) {
    let closed = client.closed().await;
    assert_eq!((closed.error.as_deref(), closed.allow_reconnect), (reason, false));
    assert_eq!(closed.reason, Some(Disconnected::ByServer));
}

#[tokio::test]
async fn a_connection_is_closed_from_any_node() {
    let cluster = Cluster::start(2).await;
    for (from, reason) in [(0, Some("Be polite.")), (1, Some("")), (0, None), (1, None)] {
        let mut client = cluster.nodes[0].tester.connect_as("ann").await;
        let id = client.id().to_owned();
        let connection = cluster.hub(from).of_connection(&id);
        assert!(connection.close(reason).await.unwrap());
        is_told(&mut client, reason).await;
        assert_eq!(
            cluster.end_of(&id).await,
            (Disconnected::ByServer, "node-0".to_owned())
        );
        eventually("it is gone", async || !connection.exists().await.unwrap()).await;
        assert!(!connection.close(reason).await.unwrap(), "there is none any more");
    }
}

#[tokio::test]
async fn connections_of_groups_and_users_are_closed_behind_what_was_sent_to_them() {
    let cluster = Cluster::start(2).await;
    let (mut ends, mut spared, mut others) = (Vec::new(), Vec::new(), Vec::new());
    for node in cluster.nodes.iter().chain(&cluster.nodes) {
        ends.push(node.tester.connect_as("ann").await);
        spared.push(node.tester.connect_as("ann").await);
        others.push(node.tester.connect_as("bob").await);
    }
    let except: Vec<_> = spared.iter().map(|client| client.id().to_owned()).collect();
    for client in ends.iter().take(2).chain(&spared) {
        cluster.hub(1).groups().add(client.id(), "g").await.unwrap();
    }
    let hub = cluster.hub(0);
    hub.clients().group("g").send("Last", ()).await.unwrap();
    hub.in_group("g")
        .close_all(Some("The end."), except.clone())
        .await
        .unwrap();
    for client in ends.iter_mut().take(2) {
        assert_eq!(client.receive().await.unwrap().target, "Last");
        is_told(client, Some("The end.")).await;
    }
    hub.of_user("ann").close_all(None, except.clone()).await.unwrap();
    for client in ends.iter_mut().skip(2) {
        is_told(client, None).await;
    }
    for client in spared.iter_mut().chain(&mut others) {
        assert_eq!(client.invoke::<u8>("Echo", (7,)).await, Ok(7));
    }
    hub.close_all(Some("Everybody."), except).await.unwrap();
    for client in &mut others {
        is_told(client, Some("Everybody.")).await;
    }
    eventually("only the spared ones are left", async || {
        hub.connection_statistics().await.unwrap().connections == spared.len() as u64
    })
    .await;
    assert_eq!(hub.of_user("ann").count().await.unwrap(), spared.len() as u64);
}

#[tokio::test]
async fn a_connection_that_nobody_has_is_closed_at_once() {
    let mut cluster = Cluster::start(2).await;
    let mut clients = Vec::new();
    for _ in 0..4 {
        let mut client = Resumable::connect(&cluster.nodes[0]).await;
        client.call("Join", json!(["g"])).await;
        clients.push(client);
    }
    clients.iter_mut().for_each(Resumable::lose);
    let left = cluster.nodes.remove(0);
    left.gateway.shutdown(Duration::from_secs(5)).await;
    let hub = cluster.hub(0);
    assert_eq!(hub.connection_statistics().await.unwrap().parked, 4);
    let one = hub.of_connection(&clients[0].id);
    assert!(one.close(Some("Gone.")).await.unwrap());
    assert!(!one.exists().await.unwrap() && !one.close(None).await.unwrap());
    hub.in_group("g")
        .close_all(None, [clients[1].id.clone()])
        .await
        .unwrap();
    assert_eq!(
        hub.in_group("g").connections(None, 10).await.unwrap().connections,
        [clients[1].id.clone()]
    );
    for (index, client) in clients.iter_mut().enumerate() {
        let back = client.open(&cluster.nodes[0]).await;
        if index == 1 {
            assert_eq!(
                (back, client.next().await.unwrap()["type"].as_u64()),
                (Ok(()), Some(9))
            );
            continue;
        }
        assert!(back.is_err());
        assert_eq!(
            cluster.end_of(&client.id).await,
            (Disconnected::ByServer, "node-1".to_owned())
        );
    }
    hub.close_all(None, [""; 0]).await.unwrap();
    assert_eq!(clients[1].closed().await, json!({ "type": 7 }));
}

#[tokio::test]
async fn a_connection_without_a_socket_is_closed_where_it_was() {
    let cluster = Cluster::start(2).await;
    let mut client = Resumable::connect(&cluster.nodes[0]).await;
    client.lose();
    let connection = cluster.hub(1).of_connection(&client.id);
    assert!(connection.close(Some("Gone.")).await.unwrap());
    assert_eq!(
        cluster.end_of(&client.id).await,
        (Disconnected::ByServer, "node-0".to_owned())
    );
    eventually("it is gone", async || !connection.exists().await.unwrap()).await;
    for node in &cluster.nodes {
        assert!(client.open(node).await.is_err());
    }
}

#[tokio::test]
async fn a_call_aborts_its_connection_wherever_it_went() {
    let cluster = Cluster::start(2).await;
    let mut client = Resumable::connect(&cluster.nodes[0]).await;
    client
        .say(&json!({ "type": 1, "target": "AbortLater", "arguments": [] }))
        .await;
    client.call("Echo", json!([1])).await; // the call before it runs
    client.open(&cluster.nodes[1]).await.unwrap();
    assert_eq!(client.next().await.unwrap()["type"], 9);
    cluster.gate.add_permits(1);
    assert_eq!(client.closed().await, json!({ "type": 7 }));
    assert_eq!(
        cluster.end_of(&client.id).await,
        (Disconnected::ByServer, "node-1".to_owned())
    );
}

/// A connection moves to and fro while it is closed: wherever it is, it ends, and the hub's hook runs once.
#[tokio::test]
async fn a_connection_that_moves_is_closed() {
    let cluster = Cluster::start(2).await;
    for round in 0..12_u64 {
        let mut client = Resumable::connect(&cluster.nodes[0]).await;
        let id = client.id.clone();
        let hub = cluster.hub(usize::try_from(round % 2).unwrap());
        let closing = async {
            sleep(Duration::from_millis(round)).await;
            if round % 3 == 0 {
                hub.close_all(Some("Gone."), [""; 0]).await.unwrap();
            } else {
                assert!(hub.of_connection(&id).close(Some("Gone.")).await.unwrap());
            }
        };
        let moving = async {
            for node in cluster.nodes.iter().rev().cycle() {
                if client.open(node).await.is_err() {
                    return;
                }
                sleep(Duration::from_millis(2)).await;
            }
        };
        let both = async { tokio::join!(closing, moving) };
        timeout(BOUND, both)
            .await
            .expect("it moves no more once it is closed");
        assert_eq!(
            cluster.end_of(&id).await.0,
            Disconnected::ByServer,
            "round {round}"
        );
        assert!(!hub.of_connection(&id).exists().await.unwrap());
    }
}
