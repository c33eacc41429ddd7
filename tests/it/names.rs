//! Groups and users with any names, as ASP.NET Core takes them: clients, back ends, readers and the command line call them by
//! their whole name, whichever node they are on and whatever happens to it.

use std::fmt::Write as _;
use std::sync::Arc;

use hubcast_tests::cluster::{Cluster, Plan};
use hubcast_tests::event_source::EventSource;
use hubcast_tests::eventually::{eventually, within};
use hubcast_tests::hub_client::{HubClient, Transport};
use hubcast_tests::js::{Connect, Js};
use hubcast_tests::jwt::token_for;
use hubcast_tests::rest::{Rest, latest};
use hubcast_tests::resumable::Resumable;
use hubcast_tests::webpubsub::{JSON, RELIABLE, WebPubSub};
use serde_json::{Value, json};

/// Names with what separates or escapes something on the way.
const NAMES: [&str; 8] = [
    "a\nb",
    "\r\nFORGED=1 a line of a log",
    "\0",
    "\u{1}tea",
    "\u{2}0a\u{1b}[31m\u{85}",
    "\"\\\u{8}</script>",
    "{a}:b %0A/?#&=+",
    "ü漢🙂 ",
];

/// A name in a path or a query.
fn encoded(name: &str) -> String {
    name.bytes().fold(String::new(), |mut text, byte| {
        write!(text, "%{byte:02X}").unwrap();
        text
    })
}

fn plan(nodes: usize) -> Plan {
    Plan::nodes(nodes)
        .with_short_leases()
        .set("hubs.presence", true)
        .set("hubs.resume_window_seconds", 3)
}

async fn client(cluster: &Cluster, node: usize, user: &str) -> HubClient {
    let entry = cluster.entry_on(node).with_bearer(&token_for(user));
    HubClient::connect(&Arc::new(entry), Transport::WebSockets).await
}

/// No name has begun a line of a log.
fn logs_are_not_forged(cluster: &Cluster) {
    for node in &cluster.nodes {
        let forged = node
            .log()
            .lines()
            .find(|line| line.starts_with("FORGED"))
            .map(str::to_owned);
        assert_eq!(forged, None);
    }
    cluster.logs_are_clean();
}

#[tokio::test]
async fn the_official_client_and_back_ends_use_any_name() {
    let mut cluster = plan(2).start().await;
    let js = Js::start().await;
    let rest = Rest::on(&cluster.nodes[1]);
    for name in NAMES {
        let options = Connect::to(&cluster.nodes[0].hub_url()).token(&token_for(name));
        let client = js
            .connect(options.listening(&["GroupMessage", "UserMessage", "Say"]))
            .await;
        let (path, id) = (encoded(name), client.id().await);
        client.call("JoinGroup", json!([name])).await;
        client.call("SendToGroup", json!([name, "1"])).await;
        client.receives("GroupMessage", json!([name, "1"])).await;
        client.call("SendToUser", json!([name, "2"])).await;
        client.receives("UserMessage", json!(["2"])).await;
        for (number, to) in [format!("/groups/{path}/:send"), format!("/users/{path}/:send")]
            .iter()
            .enumerate()
        {
            let said = rest
                .send(to, &json!({ "target": "Say", "arguments": [number] }))
                .await;
            assert_eq!(said.status(), 202, "{name:?}: {}", said.text());
            client.receives("Say", json!([number])).await;
        }
        for (method, target, status) in [
            ("HEAD", format!("/groups/{path}"), 200),
            ("HEAD", format!("/users/{path}"), 200),
            ("PUT", format!("/users/{path}/groups/{path}"), 200),
            ("HEAD", format!("/users/{path}/groups/{path}"), 200),
            ("DELETE", format!("/users/{path}/groups/{path}"), 204),
            ("HEAD", format!("/groups/{path}"), 404),
            ("PUT", format!("/groups/{path}/connections/{id}"), 200),
        ] {
            assert_eq!(
                rest.call(method, &target).await.status(),
                status,
                "{name:?}: {method} {target}"
            );
        }
        let listing = rest.request("GET", &latest(&format!("/groups/{path}/connections")));
        let page = rest.fetch(&listing).await.json();
        assert_eq!(
            page["value"],
            json!([{ "connectionId": id, "userId": name }]),
            "{name:?}"
        );
        assert_eq!(client.who_am_i().await["userId"], name);
        client.call("LeaveGroup", json!([name])).await;
        assert_eq!(
            rest.call("HEAD", &format!("/groups/{path}")).await.status(),
            404,
            "{name:?}"
        );
        client.stop().await;
    }
    for names in ["x".repeat(1_025), "\n".repeat(1_025)] {
        let refused = rest
            .send(
                &format!("/groups/{}/:send", encoded(&names)),
                &json!({ "target": "Say" }),
            )
            .await;
        assert_eq!(refused.status(), 400, "{}", refused.text());
    }
    let longest = encoded(&"\n".repeat(1_024));
    assert_eq!(
        rest.send(&format!("/groups/{longest}/:send"), &json!({ "target": "Say" }))
            .await
            .status(),
        202
    );
    logs_are_not_forged(&cluster);
    cluster.is_tidy().await;
}

#[tokio::test]
async fn readers_and_web_pubsub_clients_use_any_name() {
    let cluster = plan(2).start().await;
    let (first, second) = (cluster.nodes[0].address(), cluster.nodes[1].address());
    let rest = Rest::on(&cluster.nodes[1]);
    for name in NAMES {
        let query = format!("group={0}&presence={0}", encoded(name));
        let mut reader = EventSource::open(first, &query).await;
        let watched = reader.begun().await;
        reader = watched;
        let mut member = client(&cluster, 1, name).await;
        member.result("JoinGroup", json!([name])).await;
        let told = within("a presence event", reader.event()).await;
        let joined = json!([{ "event": "join", "group": name, "connectionId": member.id(), "userId": name }]);
        assert_eq!((told.name.as_str(), told.data), ("presence", joined), "{name:?}");
        member.result("SendToGroup", json!([name, "1"])).await;
        let told = within("a message", reader.event()).await;
        assert_eq!(told.data, json!([name, "1"]), "{name:?}");
        // The reader loses its stream, and goes on where it was on the other node.
        let last = reader.last_id.clone();
        drop(reader);
        member.result("SendToGroup", json!([name, "2"])).await;
        let mut reader = EventSource::resume(second, &query, &last).await;
        let missed = loop {
            let told = within("what it missed", reader.event()).await;
            if told.name != "presence" {
                break told; // its own leave and join come, too
            }
        };
        assert_eq!(missed.data, json!([name, "2"]), "{name:?}");
        for protocol in [JSON, RELIABLE] {
            let mut pubsub = WebPubSub::connect(first, "/client/hubs/demo", protocol).await;
            pubsub.join(name).await;
            let path = format!("/groups/{}/:send", encoded(name));
            let said = rest
                .send(&path, &json!({ "target": "Say", "arguments": [7] }))
                .await;
            assert_eq!(said.status(), 202);
            let message = within("a group's message", pubsub.message()).await;
            assert_eq!(message["group"], name, "{message}");
            pubsub.leave(name).await;
        }
        drop(member);
    }
    logs_are_not_forged(&cluster);
}

#[tokio::test]
async fn any_name_survives_a_move_and_the_death_of_its_node() {
    let mut cluster = plan(2).start().await;
    let rest = Rest::on(&cluster.nodes[1]);
    for name in NAMES {
        let entry = |node: usize| Arc::new(cluster.entry_on(node).with_bearer(&token_for(name)));
        let mut moving = Resumable::connect(&entry(0)).await;
        moving.invoke("j", "JoinGroup", json!([name])).await;
        moving.result("j").await;
        moving.lose();
        let said = json!({ "target": "Say", "arguments": [name] });
        assert_eq!(
            rest.send(&format!("/groups/{}/:send", encoded(name)), &said)
                .await
                .status(),
            202
        );
        moving.turn_to(&entry(1));
        moving.resume().await;
        let replayed = loop {
            let message = moving.numbered().await;
            if message["target"] == "Say" {
                break message["arguments"].clone();
            }
        };
        assert_eq!(replayed, json!([name]));
    }
    // Others are on the node that dies: a watcher on the other one is told of each leave by its name.
    let mut watcher = EventSource::open(cluster.nodes[1].address(), &presence_of_all())
        .await
        .begun()
        .await;
    let mut dying = Vec::new();
    for name in NAMES {
        let mut member = client(&cluster, 0, name).await;
        member.result("JoinGroup", json!([name])).await;
        dying.push(member);
    }
    cluster.nodes[0].kill();
    let mut left = Vec::new();
    while left.len() < NAMES.len() {
        let told = within("a presence event", watcher.event()).await.data[0].clone();
        if told["event"] == "leave" && dying.iter().any(|member| told["connectionId"] == member.id()) {
            assert_eq!(told["group"], told["userId"]);
            left.push(told["group"].clone());
        }
    }
    left.sort_by_key(Value::to_string);
    let mut names: Vec<Value> = NAMES.into_iter().map(Value::from).collect();
    names.sort_by_key(Value::to_string);
    assert_eq!(left, names);
    for name in NAMES {
        let path = format!("/groups/{}", encoded(name));
        eventually("the group has nobody", async || {
            (rest.call("HEAD", &path).await.status() == 404).then_some(())
        })
        .await;
    }
    logs_are_not_forged(&cluster);
}

fn presence_of_all() -> String {
    let watched: Vec<_> = NAMES
        .iter()
        .map(|name| format!("presence={}", encoded(name)))
        .collect();
    watched.join("&")
}
