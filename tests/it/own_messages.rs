//! The messages of a client's own calls come before the results of these calls, whatever its protocol.

use hubcast_tests::cluster::{Cluster, Plan};
use hubcast_tests::hub_client::{HubClient, Transport};
use hubcast_tests::rest::Rest;
use hubcast_tests::webpubsub::{JSON, RELIABLE, WebPubSub, to_group};
use serde_json::json;

const ROUNDS: usize = 100;

fn plans() -> [Plan; 3] {
    [Plan::one_node(), Plan::nodes(1), Plan::nodes(3)]
}

/// A socket of the demo hub on a node.
async fn connect(cluster: &Cluster, node: usize, protocol: &str) -> WebPubSub {
    WebPubSub::connect(cluster.nodes[node].address(), "/client/hubs/demo", protocol).await
}

#[tokio::test]
async fn a_question_does_not_overtake_messages_of_earlier_calls() {
    for plan in plans() {
        let mut cluster = plan.start().await;
        for transport in Transport::ALL {
            let mut client = HubClient::connect(&cluster.entry(), transport).await;
            let id = client.id().to_owned();
            let mut order = Vec::new();
            for round in 0..ROUNDS {
                let send =
                    json!({ "type": 1, "target": "SendToConnection", "arguments": [id, round.to_string()] });
                let ask = json!({ "type": 1, "invocationId": round.to_string(), "target": "AskCaller", "arguments": [] });
                client.send(format!("{send}\u{1e}{ask}\u{1e}")).await;
                let mut kinds = Vec::new();
                loop {
                    let message = client.next().await.expect("it goes on");
                    match message["target"].as_str() {
                        Some("GetAnswer") => {
                            let id = &message["invocationId"];
                            client
                                .say(&json!({ "type": 3, "invocationId": id, "result": 7 }))
                                .await;
                            kinds.push('?');
                        }
                        Some(_) => kinds.push('m'),
                        None => {
                            assert_eq!((&message["type"], &message["result"]), (&json!(3), &json!(7)));
                            break;
                        }
                    }
                }
                order.push(String::from_iter(kinds));
            }
            let right = order.iter().filter(|kinds| *kinds == "m?").count();
            assert_eq!(
                right, ROUNDS,
                "{transport:?}: the message comes before the question"
            );
        }
        cluster.is_tidy().await;
    }
}

#[tokio::test]
async fn a_question_to_another_does_not_overtake_what_its_call_has_sent() {
    let cluster = Plan::nodes(3).start().await;
    let mut asked = HubClient::connect(&cluster.entry_on(1), Transport::WebSockets).await;
    asked.result("JoinGroup", json!(["g"])).await;
    let mut caller = HubClient::connect(&cluster.entry_on(0), Transport::WebSockets).await;
    for round in 0..ROUNDS {
        let send = json!({ "type": 1, "target": "SendToGroup", "arguments": ["g", round.to_string()] });
        let ask =
            json!({ "type": 1, "invocationId": "a", "target": "AskConnection", "arguments": [asked.id()] });
        caller.send(format!("{send}\u{1e}{ask}\u{1e}")).await;
        let first = asked.next().await.expect("it goes on");
        assert_eq!(first["target"], "GroupMessage", "round {round}");
        let question = asked.next().await.expect("it goes on");
        let id = &question["invocationId"];
        asked
            .say(&json!({ "type": 3, "invocationId": id, "result": round }))
            .await;
        assert_eq!(caller.next().await.expect("it is answered")["result"], round);
    }
}

#[tokio::test]
async fn what_is_sent_before_a_connection_is_ended_by_rest_arrives() {
    let cluster = Plan::nodes(2).start().await;
    let rest = Rest::on(&cluster.nodes[1]);
    for transport in Transport::ALL {
        for round in 0..20 {
            let mut client = HubClient::connect(&cluster.entry_on(0), transport).await;
            let at = format!("/connections/{}", client.id());
            let sent = rest
                .send(
                    &format!("{at}/:send"),
                    &json!({ "target": "T", "arguments": [round] }),
                )
                .await;
            let ended = rest.call("DELETE", &at).await;
            assert_eq!((sent.status() / 100, ended.status() / 100), (2, 2));
            let last = client.rest().await;
            assert_eq!(
                last.first().map(|message| &message["target"]),
                Some(&json!("T")),
                "{last:?}"
            );
        }
    }
}

#[tokio::test]
async fn an_ack_does_not_overtake_what_it_acknowledges() {
    for plan in plans() {
        let cluster = plan.start().await;
        for protocol in [JSON, RELIABLE] {
            let mut client = connect(&cluster, 0, protocol).await;
            client.join("g").await;
            let mut first = 0;
            for round in 0..ROUNDS {
                // One without an ack: what comes next waits for it, too.
                client.say(&to_group("g", "quiet")).await;
                client.send("g", &round.to_string()).await;
                first += usize::from(client.kept() == 2 * (round + 1));
            }
            assert_eq!(first, ROUNDS, "{protocol}: both messages come before the ack");
        }
    }
}
