//! The REST data plane, called on a node that owns none of the connections.

mod access;
mod bodies;
mod document;
mod dotnet;
mod extras;
mod filters;
mod management;
mod membership;
mod presence;
mod sdks;
mod sends;
mod webpubsub;

use std::sync::Arc;

use hubcast_tests::cluster::{Cluster, Plan};
use hubcast_tests::eventually::within;
use hubcast_tests::hub_client::{HubClient, Transport};
use hubcast_tests::jwt::token_for;
use hubcast_tests::messagepack;
use hubcast_tests::rest::Rest;
use serde_json::{Value, json};

/// The message after which a client has received what came before.
const END: &str = "End";

/// A client, whatever its protocol.
struct Receiver {
    client: HubClient,
    binary: bool,
}

impl Receiver {
    async fn connect(cluster: &Cluster, node: usize, user: &str, binary: bool) -> Self {
        let entry = Arc::new(cluster.entry_on(node).with_bearer(&token_for(user)));
        let client = if binary {
            HubClient::connect_messagepack(&entry, Transport::WebSockets).await
        } else {
            HubClient::connect(&entry, Transport::WebSockets).await
        };
        Self { client, binary }
    }

    fn id(&self) -> &str {
        self.client.id()
    }

    /// The next message: its type, target and arguments, or the error of a Close message. `None` at the end.
    async fn next(&mut self) -> Option<(u64, Value, Value)> {
        let message = if self.binary {
            let message = self.client.next_messagepack().await?;
            messagepack::to_json(&message)
        } else {
            let message = self.client.next().await?;
            let kind = message["type"].as_u64().expect("a type");
            let whole = if kind == 7 { "error" } else { "target" };
            return Some((kind, message[whole].clone(), message["arguments"].clone()));
        };
        let kind = message[0].as_u64().expect("a type");
        let (first, second) = if kind == 7 { (1, 9) } else { (3, 4) };
        Some((kind, message[first].clone(), message[second].clone()))
    }

    /// Targets and arguments of what comes before the end mark.
    async fn received(&mut self) -> Vec<(String, Value)> {
        let mut received = Vec::new();
        let waiting = async {
            loop {
                let (kind, target, arguments) = self.next().await.expect("the connection lives");
                if target == END {
                    return;
                }
                assert_eq!(kind, 1, "{target} {arguments}");
                received.push((target.as_str().expect("a target").to_owned(), arguments));
            }
        };
        within("the end mark", waiting).await;
        received
    }

    /// The error that the client is sent when the connection is closed.
    async fn closed(&mut self) -> Value {
        let waiting = async {
            let mut said = Value::Null;
            while let Some((kind, error, _)) = self.next().await {
                assert_eq!(kind, 7);
                said = error;
            }
            said
        };
        within("the connection ends", waiting).await
    }
}

/// Two clients on two nodes, and a back end that calls a third.
struct World {
    cluster: Cluster,
    /// User `ann`, JSON, on the first node.
    ann: Receiver,
    /// User `bob`, MessagePack, on the second node.
    bob: Receiver,
    rest: Rest,
}

impl World {
    async fn start() -> Self {
        Self::with(|plan| plan).await
    }

    async fn with(plan: fn(Plan) -> Plan) -> Self {
        let cluster = plan(Plan::nodes(3)).start().await;
        let ann = Receiver::connect(&cluster, 0, "ann", false).await;
        let bob = Receiver::connect(&cluster, 1, "bob", true).await;
        let rest = Rest::on(&cluster.nodes[2]);
        let mut world = Self {
            cluster,
            ann,
            bob,
            rest,
        };
        world.cluster.has_connections(2).await;
        world
    }

    /// The messages that each client has received up to now.
    async fn received(&mut self) -> [Vec<(String, Value)>; 2] {
        let response = self.rest.send("/:send", &json!({ "target": END })).await;
        assert_eq!(response.status(), 202, "{}", response.text());
        [self.ann.received().await, self.bob.received().await]
    }

    /// The status of a request, whose body is empty.
    async fn status(&self, method: &str, path: &str) -> u16 {
        let response = self.rest.call(method, path).await;
        if response.status() < 300 {
            assert_eq!(response.text(), "", "{method} {path}");
        }
        response.status()
    }

    async fn ends(mut self) {
        for client in [self.ann, self.bob] {
            drop(client);
        }
        self.cluster.is_tidy().await;
    }
}

/// A message with one argument.
fn say(text: &str) -> Value {
    json!({ "target": "Say", "arguments": [text] })
}

fn said(text: &str) -> (String, Value) {
    ("Say".to_owned(), json!([text]))
}

fn nothing() -> Vec<(String, Value)> {
    Vec::new()
}
