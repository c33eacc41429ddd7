//! Plain `EventSource`s on a cluster of three: every message once and in order, wherever they come back.

mod access;
mod browser;
mod history;
mod resets;
mod streams;

use hubcast_tests::cluster::{Cluster, Plan};
use hubcast_tests::event_source::EventSource;
use hubcast_tests::hub_client::{HubClient, Transport};
use serde_json::{Value, json};

async fn three_nodes() -> Cluster {
    Plan::nodes(3).start().await
}

/// A client of the demo hub on one node.
async fn sender(cluster: &Cluster, node: usize) -> HubClient {
    HubClient::connect(&cluster.entry_on(node), Transport::WebSockets).await
}

async fn send(sender: &mut HubClient, group: &str, text: impl Into<Value>) {
    let text = text.into();
    sender.result("SendToGroup", json!([group, text])).await;
}

async fn send_all(sender: &mut HubClient, group: &str, numbers: std::ops::Range<usize>) {
    for number in numbers {
        send(sender, group, number.to_string()).await;
    }
}

fn texts(numbers: std::ops::Range<usize>) -> Vec<Value> {
    numbers.map(|number| Value::from(number.to_string())).collect()
}

async fn open(cluster: &Cluster, node: usize, query: &str) -> EventSource {
    EventSource::open(cluster.nodes[node].address(), query)
        .await
        .begun()
        .await
}

async fn resume(cluster: &Cluster, node: usize, query: &str, last_id: &str) -> EventSource {
    EventSource::resume(cluster.nodes[node].address(), query, last_id).await
}
