//! Messages to all, groups, users and single connections.

use hubcast_tests::jwt::token_for;
use serde_json::{Value, json};

use super::{Party, TARGETS};

pub(super) async fn messages_reach_exactly_whom_they_are_for(party: &Party) {
    let as_user = async |user: &str| party.js.connect(party.client().token(&token_for(user))).await;
    let alice = as_user("alice").await;
    let mut alice_again = as_user("alice").await;
    while party.cluster.nodes.len() > 1 && party.node_of(&alice).await == party.node_of(&alice_again).await {
        alice_again.stop().await; // with several nodes, messages have to travel
        alice_again = as_user("alice").await;
    }
    let bob = as_user("bob").await;
    let nobody = party.connect().await;
    let clients = [&alice, &alice_again, &bob, &nobody];
    assert_eq!(alice.who_am_i().await["userId"], "alice");
    assert_eq!(nobody.who_am_i().await["userId"], Value::Null);

    for member in [&alice, &bob, &nobody] {
        member.call("JoinGroup", json!(["red"])).await;
    }
    alice_again.call("JoinGroup", json!(["blue: ä€ 😀"])).await;
    alice.call("JoinGroup", json!(["red"])).await; // twice is once

    bob.call("SendToGroup", json!(["red", "from a member"])).await;
    alice_again
        .call("SendToGroup", json!(["red", "from outside"]))
        .await;
    bob.call("SendToOthersInGroup", json!(["red", "not to me"])).await;
    bob.call("SendToGroup", json!(["blue: ä€ 😀", "any name"])).await;
    bob.call("SendToGroup", json!(["RED", "another group"])).await;
    nobody.call("LeaveGroup", json!(["red"])).await;
    nobody.call("LeaveGroup", json!(["never joined"])).await;
    bob.call("SendToGroup", json!(["red", "after one left"])).await;

    bob.call("SendToUser", json!(["alice", "to both"])).await;
    bob.call("SendToUser", json!(["Alice", "to nobody"])).await;
    nobody.call("SendToUser", json!(["bob", "to one"])).await;

    alice
        .call("SendToConnection", json!([nobody.id().await, "direct"]))
        .await;
    nobody
        .call("SendToConnection", json!([nobody.id().await, "to myself"]))
        .await;
    alice
        .call("SendToConnection", json!(["no such connection", "lost"]))
        .await;

    alice.call("SendMessage", json!(["alice", "to all"])).await;
    nobody.call("SendMessage", json!(["nobody", "the end"])).await;

    // The last message comes after everything that was sent before it. So what is there now is all there will be.
    let red = |texts: &[&str]| texts.iter().map(|text| json!(["red", text])).collect::<Vec<_>>();
    let to_all = vec![json!(["alice", "to all"]), json!(["nobody", "the end"])];
    let none = Vec::new;
    let blue = vec![json!(["blue: ä€ 😀", "any name"])];
    let to_red = ["from a member", "from outside", "not to me", "after one left"];
    let expected = [
        [to_all.clone(), red(&to_red), vec![json!(["to both"])], none()],
        [to_all.clone(), blue, vec![json!(["to both"])], none()],
        [
            to_all.clone(),
            red(&["from a member", "from outside", "after one left"]),
            vec![json!(["to one"])],
            none(),
        ],
        [
            to_all.clone(),
            red(&to_red[..3]),
            none(),
            vec![json!(["direct"]), json!(["to myself"])],
        ],
    ];
    for (client, expected) in clients.iter().zip(expected) {
        client
            .receives("ReceiveMessage", json!(["nobody", "the end"]))
            .await;
        for (target, messages) in TARGETS.iter().zip(expected) {
            assert_eq!(
                client.received(target),
                messages,
                "{target} of {:?}",
                client.who_am_i().await["userId"]
            );
        }
    }
}
