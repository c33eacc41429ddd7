//! Clients that lie, break off, ask for too much, or come without permission. None of them may leave anything behind,
//! disturb others, or be told more than the official protocol tells.

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
use hubcast_tests::door::Door;
use hubcast_tests::hub_client::{HubClient, Transport};
use serde_json::{Value, json};

/// The Close message after a client's mistake.
fn mistake() -> Value {
    json!({ "type": 7, "error": "Connection closed with an error.", "allowReconnect": true })
}

/// Two nodes that log all they can, and a client that is not hostile.
struct Target {
    cluster: Cluster,
    door: Arc<Door>,
    bystander: HubClient,
}

impl Target {
    async fn start(plan: fn(Plan) -> Plan) -> Self {
        let cluster = plan(Plan::nodes(2).trace().set("timeouts.disconnect_seconds", 3))
            .start()
            .await;
        let door = cluster.door();
        let bystander = HubClient::connect(&door, Transport::WebSockets).await;
        Self {
            cluster,
            door,
            bystander,
        }
    }

    /// The bystander noticed nothing; nothing is left; nobody panicked or wrote a secret down.
    async fn ends_unharmed(mut self) {
        assert_eq!(self.bystander.result("Echo", json!(["fine"])).await, "fine");
        self.bystander.close().await;
        self.cluster.is_tidy().await;
    }
}
