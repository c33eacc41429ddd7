//! Plain WebSockets and Web PubSub clients: what they can do, and how they come back.

mod bad;
mod frames;
mod group_states;
mod official;
mod official_states;
mod opening;
mod order;
mod plain;
mod protobuf;
mod raw;
mod receivers;
mod recovery;
mod refused;
mod streams;
mod wire;

use std::net::SocketAddr;

use hubcast_tests::cluster::{Cluster, Plan};
use hubcast_tests::jwt::{ACCESS_KEY, now, token_with};
use hubcast_tests::webpubsub::{
    JSON, PLAIN, PROTOBUF, RELIABLE, RELIABLE_PROTOBUF, SUBPROTOCOLS, WebPubSub, with_query,
};
use serde_json::{Value, json};

/// The demo hub, where all clients may join and send.
const DEMO: &str = "/client/hubs/demo";
/// A hub of the configuration, where clients may do what their roles permit.
const CHAT: &str = "/client/hubs/chat";

fn with_chat(plan: Plan) -> Plan {
    plan.set("hubs.names", "chat").set("auth.allow_anonymous", false)
}

fn at(cluster: &Cluster, node: usize) -> SocketAddr {
    cluster.nodes[node].address()
}

/// A token for `user` that also says `more`.
fn token(cluster: &Cluster, user: &str, more: &Value) -> String {
    let mut claims = json!({ "sub": user, "exp": now() + 3_600 });
    let more = more.as_object().expect("claims").clone();
    claims.as_object_mut().expect("claims").extend(more);
    let token = token_with(&claims, ACCESS_KEY);
    cluster.secrets.add(&token);
    token
}

async fn connect(cluster: &Cluster, node: usize, target: &str, protocol: &str) -> WebPubSub {
    let client = WebPubSub::connect(at(cluster, node), target, protocol).await;
    if let Some(token) = client.connected["reconnectionToken"].as_str() {
        cluster.secrets.add(token);
    }
    client
}

/// A client of the demo hub.
async fn demo(cluster: &Cluster, node: usize, protocol: &str) -> WebPubSub {
    connect(cluster, node, DEMO, protocol).await
}

/// A user of the hub `chat` with these roles.
async fn chat(cluster: &Cluster, node: usize, protocol: &str, user: &str, roles: &[&str]) -> WebPubSub {
    let token = token(cluster, user, &json!({ "role": roles }));
    let target = with_query(CHAT, &format!("access_token={token}"));
    connect(cluster, node, &target, protocol).await
}

fn texts(numbers: std::ops::Range<usize>) -> Vec<Value> {
    numbers.map(|number| Value::from(number.to_string())).collect()
}

async fn send_all(sender: &mut WebPubSub, group: &str, numbers: std::ops::Range<usize>) {
    for number in numbers {
        sender.send(group, &number.to_string()).await;
    }
}
