//! Presence of groups: each change is reported once and in order, on any node, whatever happens to nodes.

use std::sync::Arc;

use hubcast_tests::cluster::{Cluster, Plan};
use hubcast_tests::event_source::EventSource;
use hubcast_tests::eventually::within;
use hubcast_tests::http::Request;
use hubcast_tests::hub_client::{HubClient, Transport};
use hubcast_tests::jwt::{ACCESS_KEY, now, token_with};
use hubcast_tests::resumable::Resumable;
use serde_json::{Value, json};

/// Clients whose tokens may do everything: nodes notice soon that another one is gone.
fn plan() -> Plan {
    Plan::nodes(3)
        .with_short_leases()
        .set("hubs.names", "chat")
        .set("hubs.presence", true)
}

fn token(user: &str, roles: &[&str]) -> String {
    token_with(
        &json!({ "nameid": user, "exp": now() + 3_600, "role": roles }),
        ACCESS_KEY,
    )
}

/// A client of the hub `chat` on a node.
async fn client(cluster: &Cluster, node: usize, user: &str) -> HubClient {
    let token = token(user, &["hubcast.join", "hubcast.watch"]);
    let entry = cluster.entry_on(node).at("/hubs/chat").with_bearer(&token);
    HubClient::connect(&Arc::new(entry), Transport::WebSockets).await
}

async fn member(cluster: &Cluster, node: usize, user: &str) -> (HubClient, Value) {
    let mut client = client(cluster, node, user).await;
    client.result("JoinGroup", json!(["tea"])).await;
    let joins = change("join", client.id(), user);
    (client, joins)
}

fn change(event: &str, connection: &str, user: &str) -> Value {
    json!({ "event": event, "group": "tea", "connectionId": connection, "userId": user })
}

/// The same change the other way round.
fn leaves(joins: &Value) -> Value {
    let mut leaves = joins.clone();
    leaves["event"] = "leave".into();
    leaves
}

/// Reads `chat` without a library.
async fn reader(cluster: &Cluster, node: usize, query: &str, last_id: &str) -> EventSource {
    let request = Request::get(&format!("/sse/chat?{query}")).header("Accept", "text/event-stream");
    let request = if last_id.is_empty() {
        request
    } else {
        request.header("Last-Event-ID", last_id)
    };
    let (head, source) = EventSource::start(cluster.nodes[node].address(), &request).await;
    assert_eq!(head.status, 200);
    source
}

/// The next changes that are reported to a reader.
async fn read(reader: &mut EventSource, count: usize) -> Vec<Value> {
    let mut told = Vec::new();
    for _ in 0..count {
        let event = within("a presence event", reader.event()).await;
        assert_eq!(event.name, "presence", "{event:?}");
        assert_eq!(event.data.as_array().map(Vec::len), Some(1), "{event:?}");
        told.push(event.data[0].clone());
    }
    told
}

/// The next changes that are reported to a client.
async fn heard(watcher: &mut HubClient, count: usize) -> Vec<Value> {
    let mut told = Vec::new();
    for _ in 0..count {
        told.push(watcher.expect("presence").await[0].clone());
    }
    told
}

/// The connections of the group, in the order of their ids, as a client lists them page by page.
async fn listed(client: &mut HubClient) -> Vec<Value> {
    let (mut members, mut after) = (Vec::new(), Value::Null);
    loop {
        let page = client.result("GetPresence", json!(["tea", after, 2])).await;
        members.extend(page["members"].as_array().expect("members").clone());
        after = page["next"].clone();
        if after.is_null() {
            assert_eq!(page["count"], members.len());
            return members;
        }
    }
}

fn sorted(mut changes: Vec<Value>) -> Vec<Value> {
    changes.sort_by_key(|change| change["connectionId"].to_string());
    changes
}

#[tokio::test]
async fn members_of_a_killed_node_leave_once() {
    let mut cluster = plan().start().await;
    let mut watcher = client(&cluster, 0, "watcher").await;
    watcher.result("WatchGroup", json!(["tea"])).await;
    let mut source = reader(&cluster, 1, "presence=tea", "").await.begun().await;
    let begun = source.last_id.clone();
    let (mut stay, mut die) = (Vec::new(), Vec::new());
    let mut joins = Vec::new();
    for number in 0..12 {
        let node = number % 3;
        let (client, joined) = member(&cluster, node, &format!("u\"{number}ü")).await;
        joins.push(joined.clone());
        if node == 2 {
            die.push((client, joined));
        } else {
            stay.push((client, joined));
        }
    }
    assert_eq!(heard(&mut watcher, 12).await, joins);
    assert_eq!(read(&mut source, 12).await, joins);
    let before = source.last_id.clone();

    cluster.nodes[2].kill();
    let expected = sorted(die.iter().map(|(_, joined)| leaves(joined)).collect());
    let told = heard(&mut watcher, die.len()).await;
    assert_eq!(sorted(told.clone()), expected);
    assert_eq!(read(&mut source, die.len()).await, told, "in the same order");
    let (_late, late) = member(&cluster, 1, "late").await;
    let rest = [told.clone(), vec![late.clone()]].concat();
    let only = vec![late.clone()];
    assert_eq!(heard(&mut watcher, 1).await, only, "nothing twice");
    assert_eq!(read(&mut source, 1).await, only);

    let present = stay.iter().map(|(_, joined)| joined).chain([&late]);
    let present =
        present.map(|joined| json!({ "connectionId": joined["connectionId"], "userId": joined["userId"] }));
    assert_eq!(listed(&mut watcher).await, sorted(present.collect()));

    // A reader that comes back, to another node, gets exactly the changes that it missed.
    let mut again = reader(&cluster, 0, "presence=tea", &before).await;
    assert_eq!(read(&mut again, rest.len()).await, rest);
    let mut again = reader(&cluster, 0, "presence=tea", &begun).await;
    let all = [joins, rest].concat();
    assert_eq!(read(&mut again, all.len()).await, all);
    let mut newest = reader(&cluster, 1, "presence=tea&rewind=1", "").await;
    assert_eq!(read(&mut newest, 1).await, [late]);
}

#[tokio::test]
async fn a_member_that_moves_stays_until_its_time_is_up() {
    let mut cluster = plan().set("hubs.resume_window_seconds", 6).start().await;
    let mut watcher = client(&cluster, 0, "watcher").await;
    watcher.result("WatchGroup", json!(["tea"])).await;
    let entry = |cluster: &Cluster, node: usize| {
        let token = token("ann", &["hubcast.join"]);
        Arc::new(cluster.entry_on(node).at("/hubs/chat").with_bearer(&token))
    };
    let mut moving = Resumable::connect(&entry(&cluster, 2)).await;
    moving.invoke("j", "JoinGroup", json!(["tea"])).await;
    moving.result("j").await;
    let joined = heard(&mut watcher, 1).await.remove(0);
    assert_eq!(
        joined,
        change("join", joined["connectionId"].as_str().unwrap(), "ann")
    );
    // The client loses its socket, and then its node.
    for node in [1, 2, 0] {
        moving.turn_to(&entry(&cluster, node));
        moving.lose();
        moving.resume().await;
        if node == 2 {
            cluster.nodes[2].kill();
        }
    }
    let (_other, other) = member(&cluster, 1, "other").await;
    assert_eq!(heard(&mut watcher, 1).await, [other], "it was there all the time");
    moving.lose();
    assert_eq!(heard(&mut watcher, 1).await, [leaves(&joined)]);
    assert_eq!(listed(&mut watcher).await.len(), 1);
}

#[tokio::test]
async fn a_watcher_that_moves_misses_nothing() {
    let cluster = plan().start().await;
    let token = token("eve", &["hubcast.watch"]);
    let entry = |node: usize| Arc::new(cluster.entry_on(node).at("/hubs/chat").with_bearer(&token));
    let mut watcher = Resumable::connect(&entry(0)).await;
    watcher.invoke("w", "WatchGroup", json!(["tea"])).await;
    watcher.result("w").await;
    watcher.acknowledge(1).await;
    watcher.lose();
    let (first, one) = member(&cluster, 1, "one").await;
    watcher.turn_to(&entry(2));
    watcher.resume().await;
    first.close().await;
    let (_second, two) = member(&cluster, 0, "two").await;
    let mut told = Vec::new();
    while told.len() < 3 {
        let message = watcher.numbered().await;
        if message["type"] == 1 {
            assert_eq!(message["target"], "presence");
            told.push(message["arguments"][0].clone());
        }
    }
    assert_eq!(told, [one.clone(), leaves(&one), two]);
}

#[tokio::test]
async fn a_reader_is_refused_what_it_may_not_watch() {
    let cluster = Plan::nodes(1)
        .set("hubs.names", "chat")
        .set("hubs.presence", true)
        .set("limits.groups_per_connection", 2)
        .start()
        .await;
    let node = cluster.nodes[0].address();
    let ask = async |query: &str, roles: Option<&[&str]>| {
        let request = Request::get(&format!("/sse/chat?{query}"));
        let token = roles.map(|roles| token("ann", roles));
        EventSource::refusal(node, &request.bearer(token.as_deref())).await
    };
    let (status, text) = ask("presence=tea", Some(&["hubcast.join", "hubcast.watch.te"])).await;
    assert_eq!(status, 403);
    assert_eq!(
        text,
        "You may not watch the group \"tea\": see the roles hubcast.watch"
    );
    for query in ["presence=", "presence=a&group=a&presence=b"] {
        let (status, text) = ask(query, None).await;
        assert_eq!(status, 400, "{query}: {text}");
    }
    let silent = Plan::one_node().start().await;
    let request = Request::get("/sse/demo?presence=tea");
    let (status, text) = EventSource::refusal(silent.nodes[0].address(), &request).await;
    assert_eq!(status, 400);
    assert!(text.contains("(hubs.presence)"), "{text}");
}

#[tokio::test]
async fn nobody_forges_who_comes_and_goes() {
    let cluster = plan().start().await;
    let token = token("liar", &["hubcast.join", "hubcast.watch", "hubcast.send"]);
    let entry = cluster.entry_on(0).at("/hubs/chat").with_bearer(&token);
    let mut liar = HubClient::connect(&Arc::new(entry), Transport::WebSockets).await;
    liar.result("JoinGroup", json!(["tea"])).await;
    let mut watcher = client(&cluster, 1, "watcher").await;
    watcher.result("WatchGroup", json!(["tea"])).await;
    let forged = json!({ "event": "leave", "group": "tea", "connectionId": liar.id(), "userId": "liar" });
    for (method, to) in [
        ("SendToGroup", Some("tea")),
        ("SendToUser", Some("watcher")),
        ("SendToAll", None),
    ] {
        let mut arguments: Vec<Value> = to.into_iter().map(Value::from).collect();
        arguments.extend([json!("presence"), forged.clone()]);
        let refusal = liar.call(method, Value::Array(arguments)).await;
        assert!(refusal["error"].is_string(), "{method}: {refusal}");
    }
    let (_second, joins) = member(&cluster, 2, "second").await;
    assert_eq!(heard(&mut watcher, 1).await, [joins], "and of nothing else");
}
