//! Many receivers: in one order everywhere, and at no more cost than needed.

use std::sync::Arc;

use hubcast_tests::cluster::{Cluster, Plan};
use hubcast_tests::entry_point::EntryPoint;
use hubcast_tests::hub_client::{HubClient, Transport};
use hubcast_tests::messagepack;
use serde_json::{Value, json};

#[tokio::test]
async fn all_members_see_all_messages_in_one_order() {
    let cluster = Plan::nodes(3).start().await;
    let mut members = Vec::new();
    for node in 0..3 {
        for transport in Transport::ALL {
            let mut member = HubClient::connect(&cluster.entry_on(node), transport).await;
            member.result("JoinGroup", json!(["g"])).await;
            members.push(member);
        }
    }
    // Three publishers at once, on all nodes, each to the group and to all clients, without waiting for answers.
    const EACH: u32 = 100;
    let publish = async |entry: Arc<EntryPoint>| {
        let mut publisher = HubClient::connect(&entry, Transport::WebSockets).await;
        for i in 0..EACH {
            for (target, to) in [("SendToGroup", "g"), ("SendMessage", "all")] {
                let text = format!("{} {i}", publisher.id());
                publisher
                    .say(&json!({ "type": 1, "target": target, "arguments": [to, text] }))
                    .await;
            }
        }
        publisher
    };
    let reading = members.into_iter().map(|mut member| {
        tokio::spawn(async move {
            let mut seen = Vec::new();
            while seen.len() < 3 * 2 * EACH as usize {
                let message = member.next().await.expect("it goes on");
                seen.push((message["target"].clone(), message["arguments"].clone()));
            }
            seen
        })
    });
    let reading: Vec<_> = reading.collect();
    let publishers = tokio::join!(
        publish(cluster.entry_on(0)),
        publish(cluster.entry_on(1)),
        publish(cluster.entry_on(2))
    );
    let mut orders: Vec<Vec<(Value, Value)>> = Vec::new();
    for member in reading {
        orders.push(member.await.unwrap());
    }
    for order in &orders {
        assert!(*order == orders[0], "two members saw different orders");
    }
    for publisher in [publishers.0, publishers.1, publishers.2] {
        let of_publisher = orders[0]
            .iter()
            .map(|(target, arguments)| (target, arguments[1].as_str().unwrap()));
        let own: Vec<_> = of_publisher
            .filter(|(_, text)| text.starts_with(publisher.id()))
            .collect();
        assert_eq!(
            own.len(),
            2 * EACH as usize,
            "nothing is lost, nothing comes twice"
        );
        for (i, pair) in own.chunks(2).enumerate() {
            let text = format!("{} {i}", publisher.id());
            assert_eq!(
                pair[0],
                (&json!("GroupMessage"), text.as_str()),
                "in the order in which they were sent"
            );
            assert_eq!(
                pair[1],
                (&json!("ReceiveMessage"), text.as_str()),
                "in the order in which they were sent"
            );
        }
    }
}

#[tokio::test]
async fn a_message_is_encoded_once_for_each_protocol_and_node() {
    let cluster = Plan::nodes(2).start().await;
    let mut json_clients = Vec::new();
    let mut packed_clients = Vec::new();
    for _ in 0..5 {
        json_clients.push(HubClient::connect(&cluster.entry_on(0), Transport::WebSockets).await);
        packed_clients
            .push(HubClient::connect_messagepack(&cluster.entry_on(0), Transport::WebSockets).await);
        json_clients.push(HubClient::connect(&cluster.entry_on(1), Transport::WebSockets).await);
    }
    let before = figures(&cluster).await;
    for i in 0..10 {
        json_clients[1]
            .say(&json!({ "type": 1, "target": "SendMessage", "arguments": ["u", i.to_string()] }))
            .await;
    }
    for i in 0..10 {
        for client in &mut json_clients {
            assert_eq!(client.expect("ReceiveMessage").await, json!(["u", i.to_string()]));
        }
        for client in &mut packed_clients {
            let message = client.next_messagepack().await.expect("a message");
            let arguments = messagepack::Value::Array(vec!["u".into(), i.to_string().into()]);
            assert_eq!((&message[3], &message[4]), (&"ReceiveMessage".into(), &arguments));
        }
    }
    let after = figures(&cluster).await;
    let grown: Vec<_> = after
        .iter()
        .zip(before)
        .map(|(after, before)| after - before)
        .collect();
    let expected = [
        ("json on node 0", 10.0),
        ("messagepack on node 0", 10.0),
        ("deliveries on node 0", 100.0),
    ];
    assert_eq!(grown[..3], expected.map(|(_, count)| count), "{expected:?}");
    let expected = [
        ("json on node 1", 10.0),
        ("messagepack on node 1", 0.0),
        ("deliveries on node 1", 50.0),
    ];
    assert_eq!(grown[3..], expected.map(|(_, count)| count), "{expected:?}");
}

/// Encodings in both protocols and deliveries of each node.
async fn figures(cluster: &Cluster) -> Vec<f64> {
    let mut figures = Vec::new();
    for node in &cluster.nodes {
        let metrics = node.metrics().await;
        for protocol in ["json", "messagepack"] {
            figures.push(metrics.sum_where("hubcast_encodes_total", &[("protocol", protocol)]));
        }
        figures.push(metrics.sum("hubcast_deliveries_total"));
    }
    figures
}

#[tokio::test]
async fn a_node_without_receivers_is_not_bothered() {
    let mut cluster = Plan::nodes(3).start().await;
    let mut member = HubClient::connect(&cluster.entry_on(0), Transport::WebSockets).await;
    let mut sender = HubClient::connect(&cluster.entry_on(1), Transport::WebSockets).await;
    let _bystander = HubClient::connect(&cluster.entry_on(2), Transport::WebSockets).await;
    let before = subscriptions(&mut cluster).await;
    member.result("JoinGroup", json!(["g"])).await;
    let mut after = subscriptions(&mut cluster).await;
    after.retain(|channel| !before.contains(channel));
    assert_eq!(after.len(), 1, "one channel for the group: {after:?}");
    assert_eq!(after[0].1, 1, "to which only the member's node listens");
    sender.result("SendToGroup", json!(["g", "hello"])).await;
    assert_eq!(member.expect("GroupMessage").await, json!(["g", "hello"]));
    member.result("LeaveGroup", json!(["g"])).await;
}

/// The channels of Redis that have subscribers, and how many.
async fn subscriptions(cluster: &mut Cluster) -> Vec<(String, u64)> {
    let mut connection = cluster.redis().connection().await;
    let channels = redis::cmd("PUBSUB")
        .arg("CHANNELS")
        .query_async(&mut connection)
        .await;
    let channels: Vec<String> = channels.expect("Redis answers");
    let mut subscriptions = Vec::new();
    for channel in channels {
        let count = redis::cmd("PUBSUB")
            .arg("NUMSUB")
            .arg(&channel)
            .query_async(&mut connection)
            .await;
        subscriptions.push(count.expect("Redis answers"));
    }
    subscriptions
}
