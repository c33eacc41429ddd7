//! Clients that lie, break off, request too much, or come without permission. None of them may leave a trace,
//! disturb others, or get more information than the official protocol gives.

mod access;
mod handshakes;
mod held;
mod invocations;
mod limits;
mod malformed;
mod noise;
mod secrets;
mod slow;
mod tcp;
mod tokens;

use std::sync::Arc;

use hubcast_tests::cluster::{Cluster, Plan};
use hubcast_tests::entry_point::EntryPoint;
use hubcast_tests::hub_client::{HubClient, Transport};
use serde_json::{Value, json};

/// The Close message after a client's mistake.
fn mistake() -> Value {
    json!({ "type": 7, "error": "Connection closed with an error.", "allowReconnect": true })
}

/// Two nodes that log all they can, and a client that is not hostile.
struct Target {
    cluster: Cluster,
    entry: Arc<EntryPoint>,
    bystander: HubClient,
}

impl Target {
    async fn start(plan: fn(Plan) -> Plan) -> Self {
        let cluster = plan(Plan::nodes(2).trace().set("timeouts.disconnect_seconds", 3))
            .start()
            .await;
        let entry = cluster.entry();
        let bystander = HubClient::connect(&entry, Transport::WebSockets).await;
        Self {
            cluster,
            entry,
            bystander,
        }
    }

    /// The bystander noticed nothing; nothing is left; no node panicked or logged a secret.
    async fn ends_unharmed(mut self) {
        assert_eq!(self.bystander.result("Echo", json!(["fine"])).await, "fine");
        self.bystander.close().await;
        self.cluster.is_tidy().await;
    }
}
