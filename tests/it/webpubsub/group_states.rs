//! The states of groups: what clients say of themselves, and who gets it, on whatever node.

use hubcast_tests::cluster::{Cluster, Plan};
use hubcast_tests::eventually::eventually;
use hubcast_tests::webpubsub::{SUBPROTOCOLS, WebPubSub};
use serde_json::{Value, json};

use super::{CHAT, JSON, RELIABLE, at, chat, connect, demo, token, with_chat, with_query};

fn set(group: &str, state: impl Into<Value>) -> Value {
    json!({ "type": "setGroupState", "group": group, "state": state.into() })
}

fn clear(group: &str) -> Value {
    json!({ "type": "setGroupState", "group": group })
}

fn subscribe(group: &str) -> Value {
    json!({ "type": "subscribeGroupState", "group": group })
}

fn unsubscribe(group: &str) -> Value {
    json!({ "type": "unsubscribeGroupState", "group": group })
}

/// A message without the times of its items, which must be there, with its items in the order of their connections.
fn untimed(mut message: Value) -> Value {
    let items = message["items"].as_array_mut().expect("items");
    for item in items.iter_mut() {
        let item = item.as_object_mut().expect("an item");
        let time = item.remove("updatedAt").expect("a time");
        assert!(time.as_u64().expect("a number") > 1_700_000_000_000, "{time}");
    }
    items.sort_by_key(|item| item["connectionId"].to_string());
    message
}

fn snapshot(group: &str, mut items: Vec<Value>) -> Value {
    items.sort_by_key(|item| item["connectionId"].to_string());
    json!({ "type": "groupStateSnapshot", "group": group, "items": items })
}

fn update(group: &str, item: impl Into<Value>) -> Value {
    json!({ "type": "groupStateUpdate", "group": group, "items": [item.into()] })
}

fn item(client: &WebPubSub, state: impl Into<Value>) -> Value {
    json!({ "connectionId": client.id(), "state": state.into() })
}

fn cleared(client: &WebPubSub) -> Value {
    json!({ "connectionId": client.id() })
}

/// The next message about states, without times.
async fn next(client: &mut WebPubSub) -> Value {
    untimed(client.states().await)
}

/// A member of the group `g`, with this state.
async fn member(cluster: &Cluster, node: usize, protocol: &str, state: Value) -> WebPubSub {
    let mut member = demo(cluster, node, protocol).await;
    member.join("g").await;
    member.done(set("g", state)).await;
    member
}

#[tokio::test]
async fn states_reach_subscribers_on_any_node_and_end_with_the_membership() {
    for plan in [Plan::one_node(), Plan::nodes(2)] {
        let mut cluster = plan.start().await;
        let last = cluster.nodes.len() - 1;
        for protocol in [JSON, RELIABLE] {
            let mut ann = member(&cluster, 0, protocol, json!({ "at": "1" })).await;
            let mut bob = member(&cluster, last, protocol, json!({})).await;
            let mut watcher = demo(&cluster, last, protocol).await;
            watcher.done(subscribe("g")).await;
            let items = vec![item(&ann, json!({ "at": "1" })), item(&bob, json!({}))];
            assert_eq!(next(&mut watcher).await, snapshot("g", items));
            ann.done(set("g", json!({ "at": "2", "é\u{1}\"": "ü" }))).await;
            bob.done(clear("g")).await;
            bob.done(clear("g")).await; // nothing to clear is nothing to announce
            bob.done(set("g", json!({ "at": "3" }))).await;
            ann.leave("g").await;
            let refused = ann.refusal(set("g", json!({ "at": "4" }))).await;
            assert_eq!(refused.0, "BadRequest");
            assert!(
                refused.1.contains("not in the group") && refused.1.contains("join it first"),
                "{}",
                refused.1
            );
            ann.join("g").await;
            bob.socket()
                .send(hubcast_tests::websocket::Message::Close(None))
                .await;
            for expected in [
                item(&ann, json!({ "at": "2", "é\u{1}\"": "ü" })),
                cleared(&bob),
                item(&bob, json!({ "at": "3" })),
                cleared(&ann),
                cleared(&bob),
            ] {
                assert_eq!(next(&mut watcher).await, update("g", expected));
            }
            // A message of the group is for its members; states are no messages.
            ann.send("g", "hi").await;
            assert_eq!(ann.message().await["data"], "hi");
            watcher.done(unsubscribe("g")).await;
            ann.done(set("g", json!({ "at": "5" }))).await;
            watcher.done(subscribe("g")).await;
            let items = vec![item(&ann, json!({ "at": "5" }))];
            assert_eq!(next(&mut watcher).await, snapshot("g", items.clone()));
            // Subscribing once more brings another snapshot.
            watcher.done(subscribe("g")).await;
            assert_eq!(next(&mut watcher).await, snapshot("g", items));
            assert_eq!(watcher.states_so_far().await, [Value::Null; 0]);
            assert_eq!(watcher.kept(), 0, "nothing else came");
            for client in [&mut ann, &mut watcher] {
                client
                    .socket()
                    .send(hubcast_tests::websocket::Message::Close(None))
                    .await;
            }
        }
        cluster.is_tidy().await;
        cluster.logs_are_clean();
    }
}

/// The client's own change comes before the ack of it, and a snapshot after that of its request.
#[tokio::test]
async fn acks_have_their_place() {
    let cluster = Plan::nodes(2).start().await;
    for protocol in [JSON, RELIABLE] {
        let mut client = demo(&cluster, 0, protocol).await;
        client.join("g").await;
        let ack = client.ask(subscribe("g")).await;
        assert_eq!(client.next().await.expect("an ack")["ackId"], ack);
        let message = client.next().await.expect("a snapshot");
        assert_eq!(
            message,
            json!({ "type": "groupStateSnapshot", "group": "g", "items": [] })
        );
        for at in 0..20 {
            let state = json!({ "at": at.to_string() });
            let ack = client.ask(set("g", state.clone())).await;
            let change = client.next().await.expect("a change");
            assert_eq!(untimed(change), update("g", item(&client, state)));
            assert_eq!(client.next().await.expect("an ack")["ackId"], ack);
        }
        // A repeated request is not carried out again, on whatever node.
        let repeated = json!({ "type": "setGroupState", "group": "g", "state": {}, "ackId": 3 });
        client.say(&repeated).await;
        assert_eq!(client.ack(3).await["error"]["name"], "Duplicate");
        assert_eq!(client.states_so_far().await, [Value::Null; 0]);
        client.leave("g").await;
    }
}

#[tokio::test]
async fn what_is_bad_is_refused_with_the_reason() {
    let cluster = Plan::nodes(2)
        .set("limits.groups_per_connection", 3)
        .start()
        .await;
    let mut client = member(&cluster, 0, RELIABLE, json!({ "a": "b" })).await;
    let many: serde_json::Map<_, _> = (0..65).map(|n| (n.to_string(), json!(""))).collect();
    for (request, words) in [
        (set("g", json!({ "a": "x".repeat(8_200) })), "limit of 8192 bytes"),
        (set("g", Value::Object(many)), "limit of 64 keys"),
        (set("other", json!({})), "not in the group"),
        (clear("other"), "not in the group"),
        (set("", json!({})), "group name"),
        (subscribe(""), "group name"),
        (unsubscribe(""), "group name"),
        (subscribe(&"x".repeat(1_025)), "over the limit of 1024"),
    ] {
        let (name, text) = client.refusal(request.clone()).await;
        assert_eq!(name, "BadRequest", "{request}");
        assert!(text.contains(words), "{text}");
    }
    // A subscription counts as a group.
    for group in ["g", "h"] {
        client.done(subscribe(group)).await;
    }
    let (name, text) = client.refusal(subscribe("i")).await;
    assert_eq!(name, "BadRequest");
    assert!(
        text.contains("groups_per_connection") || text.contains('3'),
        "{text}"
    );
    client.done(unsubscribe("h")).await;
    client.done(unsubscribe("h")).await;
    client.done(subscribe("i")).await;
    let items = vec![item(&client, json!({ "a": "b" }))];
    let seen: Vec<_> = client.states_so_far().await.into_iter().map(untimed).collect();
    let expected = [snapshot("g", items), snapshot("h", vec![]), snapshot("i", vec![])];
    assert_eq!(seen, expected, "what was refused has changed nothing");
    // A state of another form ends the connection, as any message of another form.
    for state in [json!(1), json!([]), json!({ "a": 1 }), json!({ "a": null })] {
        let mut client = demo(&cluster, 1, JSON).await;
        client.say(&set("g", state.clone())).await;
        let (messages, _) = client.rest().await;
        let reason = messages.last().expect("a reason")["message"].to_string();
        assert!(
            reason.contains("state") && reason.contains("an object of strings"),
            "{state}: {reason}"
        );
    }
    cluster.logs_are_clean();
}

#[tokio::test]
async fn roles_decide_who_sets_and_who_subscribes() {
    let cluster = with_chat(Plan::nodes(2)).start().await;
    let roles = json!({ "role": ["webpubsub.joinLeaveGroup.a", "webpubsub.sendToGroup.b"], "webpubsub.group": ["a", "b"] });
    let token = token(&cluster, "ann", &roles);
    let target = with_query(CHAT, &format!("access_token={token}"));
    let mut client = connect(&cluster, 1, &target, JSON).await;
    client.done(subscribe("a")).await;
    client.done(set("b", json!({ "k": "v" }))).await;
    for (request, role) in [
        (set("a", json!({})), "hubcast.send.a"),
        (clear("a"), "hubcast.send.a"),
        (subscribe("b"), "hubcast.join.b"),
    ] {
        let (name, text) = client.refusal(request).await;
        assert_eq!(name, "Forbidden");
        assert!(text.contains(role), "{text}");
    }
    let mut other = chat(&cluster, 0, JSON, "bob", &["webpubsub.joinLeaveGroup"]).await;
    other.done(subscribe("b")).await;
    let shown = json!({ "connectionId": client.id(), "userId": "ann", "state": { "k": "v" } });
    assert_eq!(next(&mut other).await, snapshot("b", vec![shown]));
}

/// Only subscribers get anything: other clients of the group may be unable to read it. Protobuf has no such messages.
#[tokio::test]
async fn who_has_not_subscribed_gets_nothing() {
    let cluster = Plan::nodes(2).start().await;
    let mut clients = Vec::new();
    for (number, protocol) in SUBPROTOCOLS.into_iter().enumerate() {
        let mut client = demo(&cluster, number % 2, protocol).await;
        client.join("g").await;
        clients.push(client);
    }
    let mut ann = member(&cluster, 0, JSON, json!({ "a": "b" })).await;
    ann.leave("g").await;
    ann.join("g").await;
    ann.send("g", "end").await;
    for client in &mut clients {
        assert_eq!(client.message().await["data"], "end");
        assert_eq!(client.kept(), 0, "nothing else came");
    }
}

/// The fate of the node on which a subscriber is, and where it comes back.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    TakesItBack,
    LosesIt,
    IsDrained,
    IsKilled,
}

/// A client that comes back is told all as it is by then, and goes on from there; what was for it meanwhile is not sent
/// besides.
async fn comes_back(fate: Fate) {
    let mut cluster = Plan::nodes(3).start().await;
    let mut watcher = demo(&cluster, 0, RELIABLE).await;
    watcher.join("m").await;
    let mut ann = member(&cluster, 2, JSON, json!({ "at": "0" })).await;
    let bob = member(&cluster, 2, JSON, json!({ "at": "bob" })).await;
    watcher.done(subscribe("g")).await;
    let items =
        |ann: &WebPubSub, at: &str| vec![item(ann, json!({ "at": at })), item(&bob, json!({ "at": "bob" }))];
    assert_eq!(next(&mut watcher).await, snapshot("g", items(&ann, "0")));
    ann.done(set("g", json!({ "at": "1" }))).await;
    assert_eq!(
        next(&mut watcher).await,
        update("g", item(&ann, json!({ "at": "1" })))
    );
    ann.send("m", "before").await;
    assert_eq!(watcher.fresh().await["data"], "before");
    match fate {
        Fate::TakesItBack | Fate::LosesIt => watcher.lose(),
        Fate::IsDrained => {
            cluster.nodes[0].terminate();
            watcher.rest().await;
            assert_eq!(cluster.nodes[0].exit().await.code(), Some(0));
        }
        Fate::IsKilled => cluster.nodes[0].kill(),
    }
    for at in 2..10 {
        ann.done(set("g", json!({ "at": at.to_string() }))).await;
    }
    ann.send("m", "meanwhile").await;
    let node = usize::from(fate != Fate::TakesItBack);
    watcher.come_back(at(&cluster, node)).await;
    cluster.secrets.add(watcher.token());
    let mut seen = Vec::new();
    while seen.last() != Some(&snapshot("g", items(&ann, "9"))) {
        seen.push(next(&mut watcher).await);
    }
    if fate != Fate::TakesItBack {
        assert_eq!(seen.len(), 1, "{fate:?}: the snapshot comes first: {seen:?}");
    } // else its node may have sent some before it noticed that the socket is lost
    assert_eq!(watcher.fresh().await["data"], "meanwhile", "{fate:?}");
    for at in 10..20 {
        let state = json!({ "at": at.to_string() });
        ann.done(set("g", state.clone())).await;
        assert_eq!(
            next(&mut watcher).await,
            update("g", item(&ann, state)),
            "{fate:?}"
        );
    }
    assert_eq!(watcher.states_so_far().await, [Value::Null; 0]);
}

#[tokio::test]
async fn a_subscriber_that_comes_back_to_its_node_gets_a_snapshot() {
    comes_back(Fate::TakesItBack).await;
}

#[tokio::test]
async fn a_subscriber_that_comes_back_to_another_node_gets_a_snapshot() {
    comes_back(Fate::LosesIt).await;
}

#[tokio::test]
async fn a_subscriber_of_a_drained_node_gets_a_snapshot() {
    comes_back(Fate::IsDrained).await;
}

#[tokio::test]
async fn a_subscriber_of_a_killed_node_gets_a_snapshot() {
    comes_back(Fate::IsKilled).await;
}

/// The states of a killed node's members end with them, once; that of one that goes on elsewhere goes on with it.
#[tokio::test]
async fn a_killed_nodes_members_lose_their_states_unless_they_go_on() {
    let mut cluster = Plan::nodes(3).with_short_leases().start().await;
    let mut watcher = demo(&cluster, 1, JSON).await;
    watcher.done(subscribe("g")).await;
    assert_eq!(next(&mut watcher).await, snapshot("g", vec![]));
    let gone = member(&cluster, 0, JSON, json!({ "who": "gone" })).await;
    let mut moved = member(&cluster, 0, RELIABLE, json!({ "who": "moved" })).await;
    for (client, who) in [(&gone, "gone"), (&moved, "moved")] {
        assert_eq!(
            next(&mut watcher).await,
            update("g", item(client, json!({ "who": who })))
        );
    }
    cluster.nodes[0].kill();
    moved.come_back(at(&cluster, 2)).await;
    cluster.secrets.add(moved.token());
    assert_eq!(next(&mut watcher).await, update("g", cleared(&gone)));
    let mut late = demo(&cluster, 2, JSON).await;
    late.done(subscribe("g")).await;
    let items = vec![item(&moved, json!({ "who": "moved" }))];
    assert_eq!(next(&mut late).await, snapshot("g", items));
    moved.done(set("g", json!({ "who": "still here" }))).await;
    let change = update("g", item(&moved, json!({ "who": "still here" })));
    assert_eq!(next(&mut watcher).await, change);
    assert_eq!(watcher.states_so_far().await, [Value::Null; 0]);
}

/// Many members change at once while subscribers come: whoever applies snapshot and changes has what is so in the end.
#[tokio::test]
async fn a_snapshot_and_the_changes_after_it_are_all_there_is() {
    let cluster = Plan::nodes(3).start().await;
    let mut members = Vec::new();
    for number in 0..6 {
        members.push(member(&cluster, number % 3, JSON, json!({ "n": "0" })).await);
    }
    let busy = members.into_iter().map(|mut member| {
        tokio::spawn(async move {
            for n in 1..=150 {
                member.done(set("g", json!({ "n": n.to_string() }))).await;
            }
            member
        })
    });
    let busy: Vec<_> = busy.collect();
    let mut watchers = Vec::new();
    for number in 0..9 {
        let mut watcher = demo(&cluster, number % 3, if number < 5 { JSON } else { RELIABLE }).await;
        watcher.done(subscribe("g")).await;
        watchers.push(watcher);
    }
    let mut members = Vec::new();
    for member in busy {
        members.push(member.await.expect("it goes on"));
    }
    for watcher in &mut watchers {
        let first = watcher.states().await;
        assert_eq!(first["type"], "groupStateSnapshot");
        let mut known: std::collections::BTreeMap<String, u64> = Default::default();
        let number = |item: &Value| -> (String, u64) {
            let n = item["state"]["n"].as_str().and_then(|n| n.parse().ok());
            (item["connectionId"].to_string(), n.expect("a number"))
        };
        for item in first["items"].as_array().expect("items") {
            let (id, n) = number(item);
            assert!(known.insert(id, n).is_none(), "one item of each member");
        }
        assert_eq!(known.len(), members.len());
        while known.values().any(|n| *n < 150) {
            let change = watcher.states().await;
            assert_eq!(change["type"], "groupStateUpdate");
            let (id, n) = number(&change["items"][0]);
            let before = known.insert(id, n);
            assert_eq!(before, Some(n - 1), "each change comes once, in order");
        }
        assert_eq!(watcher.states_so_far().await, [Value::Null; 0]);
    }
}

/// A server that forgets everything: members' states are there again, and subscribers that stay get a snapshot.
#[tokio::test]
async fn states_outlive_a_redis_that_forgets() {
    let mut cluster = Plan::nodes(2).start().await;
    let mut ann = member(&cluster, 0, JSON, json!({ "a": "b" })).await;
    let mut watcher = demo(&cluster, 1, JSON).await;
    watcher.done(subscribe("g")).await;
    let known = snapshot("g", vec![item(&ann, json!({ "a": "b" }))]);
    assert_eq!(next(&mut watcher).await, known);
    let flushed = cluster.redis().command::<()>(&["FLUSHALL"]).await;
    flushed.expect("the server forgets");
    ann.send("elsewhere", "the log goes on").await;
    // The snapshot may be read before the owner has registered: then the change follows it.
    eventually("the state is shown again", async || {
        let shown = next(&mut watcher).await;
        let is_change = shown == update("g", item(&ann, json!({ "a": "b" })));
        (is_change || shown == known).then_some(())
    })
    .await;
    ann.done(set("g", json!({ "a": "c" }))).await;
    // Either comes, as the node may read another snapshot when it comes to the new log.
    let state = item(&ann, json!({ "a": "c" }));
    let expected = [update("g", state.clone()), snapshot("g", vec![state])];
    while !expected.contains(&next(&mut watcher).await) {}
}
