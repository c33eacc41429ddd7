//! The official client by every transport, in every protocol, on one node and on three behind a balancer without sticky
//! sessions.

mod calls;
mod ends;
mod order;
mod reconnects;
mod sends;

use hubcast_tests::cluster::{Cluster, Plan};
use hubcast_tests::js::{Connect, Js, JsClient};

/// The parties of a combination's tests: a running deployment, and clients of one kind.
struct Party {
    cluster: Cluster,
    js: Js,
    transport: &'static str,
    protocol: &'static str,
}

const TARGETS: [&str; 4] = ["ReceiveMessage", "GroupMessage", "UserMessage", "DirectMessage"];

impl Party {
    async fn start(plan: Plan, transport: &'static str, protocol: &'static str) -> Self {
        let (cluster, js) = tokio::join!(plan.start(), Js::start());
        Self {
            cluster,
            js,
            transport,
            protocol,
        }
    }

    /// How this combination's clients connect.
    fn client(&self) -> Connect {
        let connect = Connect::to(&self.cluster.hub_url())
            .transport(self.transport)
            .protocol(self.protocol);
        connect.listening(&TARGETS)
    }

    async fn connect(&self) -> JsClient {
        self.js.connect(self.client()).await
    }

    /// The index of the node that owns a client's connection.
    async fn node_of(&self, client: &JsClient) -> usize {
        let me = client.who_am_i().await;
        let name = me["node"].as_str().unwrap_or_default();
        let is_named = |index: &usize| name.starts_with(&format!("node-{index}"));
        (0..self.cluster.nodes.len())
            .find(is_named)
            .unwrap_or_else(|| panic!("no node of this cluster: {me}"))
    }
}

macro_rules! combination {
    ($name:ident: $transport:literal, $protocol:literal, $plan:expr $(, $more:item)*) => {
        mod $name {
            use super::*;

            async fn party() -> Party {
                Party::start($plan.set("timeouts.disconnect_seconds", 3), $transport, $protocol).await
            }

            #[tokio::test]
            async fn values_come_back_as_they_were_sent() {
                calls::values_come_back_as_they_were_sent(&party().await).await;
            }

            #[tokio::test]
            async fn a_stream_gives_its_items_until_it_ends_or_is_cancelled() {
                calls::a_stream_gives_its_items_until_it_ends_or_is_cancelled(&mut party().await).await;
            }

            #[tokio::test]
            async fn messages_reach_exactly_whom_they_are_for() {
                sends::messages_reach_exactly_whom_they_are_for(&party().await).await;
            }

            #[tokio::test]
            async fn clients_that_stop_or_vanish_are_forgotten() {
                ends::clients_that_stop_or_vanish_are_forgotten(party().await).await;
            }

            #[tokio::test]
            async fn what_a_call_sends_comes_before_its_result() {
                order::what_a_call_sends_comes_before_its_result(&party().await).await;
            }

            #[tokio::test]
            async fn what_was_sent_before_an_abort_arrives() {
                order::what_was_sent_before_an_abort_arrives(&party().await).await;
            }

            $($more)*
        }
    };
}

macro_rules! combinations {
    ($($one:ident, $three:ident: $transport:literal, $protocol:literal;)+) => {$(
        combination!($one: $transport, $protocol, Plan::one_node());
        combination!(
            $three: $transport, $protocol, Plan::nodes(3).balanced().with_short_leases(),
            #[tokio::test]
            async fn clients_of_a_killed_node_go_on_elsewhere() {
                reconnects::clients_of_a_killed_node_go_on_elsewhere(party().await).await;
            }
        );
    )+};
}

combinations! {
    websockets_json_on_one_node, websockets_json_on_three_nodes: "WebSockets", "json";
    websockets_messagepack_on_one_node, websockets_messagepack_on_three_nodes: "WebSockets", "messagepack";
    events_json_on_one_node, events_json_on_three_nodes: "ServerSentEvents", "json";
    polling_json_on_one_node, polling_json_on_three_nodes: "LongPolling", "json";
    polling_messagepack_on_one_node, polling_messagepack_on_three_nodes: "LongPolling", "messagepack";
}

#[tokio::test]
async fn server_sent_events_cannot_carry_messagepack() {
    let party = Party::start(Plan::one_node(), "ServerSentEvents", "messagepack").await;
    let refusal = party
        .js
        .try_connect(party.client())
        .await
        .err()
        .expect("it can't connect");
    assert!(
        refusal.contains("'ServerSentEvents' does not support Binary"),
        "{refusal}"
    );
}

#[tokio::test]
async fn a_client_that_skips_negotiation_is_served() {
    let party = Party::start(Plan::nodes(3).balanced(), "WebSockets", "json").await;
    let client = party.js.connect(party.client().skip_negotiation()).await;
    assert_eq!(client.call("Echo", serde_json::json!(["direct"])).await, "direct");
}

#[tokio::test]
async fn a_client_without_wishes_gets_a_websocket() {
    let party = Party::start(Plan::one_node(), "", "json").await;
    let client = party.js.connect(Connect::to(&party.cluster.hub_url())).await;
    assert_eq!(client.who_am_i().await["transport"], "WebSockets");
}

#[tokio::test]
async fn clients_of_all_transports_and_protocols_talk_to_each_other() {
    let mut party = Party::start(Plan::nodes(3).balanced(), "WebSockets", "json").await;
    let mut clients = Vec::new();
    for (transport, protocol) in [
        ("WebSockets", "json"),
        ("WebSockets", "messagepack"),
        ("ServerSentEvents", "json"),
        ("LongPolling", "json"),
        ("LongPolling", "messagepack"),
    ] {
        (party.transport, party.protocol) = (transport, protocol);
        let client = party.connect().await;
        client.call("JoinGroup", serde_json::json!(["everyone"])).await;
        clients.push(client);
    }
    for (i, sender) in clients.iter().enumerate() {
        let text = format!("from {i}: ä€😀");
        sender
            .call("SendToGroup", serde_json::json!(["everyone", text]))
            .await;
        for receiver in &clients {
            receiver
                .receives("GroupMessage", serde_json::json!(["everyone", text]))
                .await;
        }
    }
    party.cluster.has_connections(5).await;
}

#[tokio::test]
async fn many_calls_at_once_are_answered_each_by_its_own_result() {
    let party = Party::start(Plan::nodes(3).balanced(), "WebSockets", "json").await;
    let mut clients = Vec::new();
    for transport in ["WebSockets", "ServerSentEvents", "LongPolling"] {
        clients.push(party.js.connect(party.client().transport(transport)).await);
    }
    for client in &clients {
        let calls = (0..200).map(|i| client.invoke("Echo", serde_json::json!([i])));
        let results = futures_util::future::join_all(calls).await;
        for (i, result) in results.into_iter().enumerate() {
            assert_eq!(result, Ok(serde_json::json!(i)));
        }
    }
}
