//! Connection events: one for each connection that entered and one for each that ended, whichever node it was on and whatever
//! happened to it.

use std::collections::{BTreeMap, HashSet};
use std::process::Stdio;
use std::sync::Arc;

use hubcast_tests::built;
use hubcast_tests::cluster::{Cluster, Plan};
use hubcast_tests::entry_point::{EntryPoint, Secrets};
use hubcast_tests::event_source::EventSource;
use hubcast_tests::eventually::{eventually, within};
use hubcast_tests::gateway::{Gateway, Settings};
use hubcast_tests::hub_client::{HubClient, Transport};
use hubcast_tests::jwt::{ACCESS_KEY, token_for};
use hubcast_tests::redis::Redis;
use hubcast_tests::rest::Rest;
use hubcast_tests::resumable::Resumable;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

fn plan(nodes: usize) -> Plan {
    Plan::nodes(nodes)
        .with_short_leases()
        .set("hubs.events", true)
        .set("hubs.resume_window_seconds", 3)
        .set("timeouts.disconnect_seconds", 2)
}

/// All events of the demo hub, read page by page.
async fn events(rest: &Rest) -> Vec<Value> {
    let (mut after, mut all) = ("0".to_owned(), Vec::new());
    loop {
        let page = rest.call("GET", &format!("/:events?after={after}&limit=7")).await;
        assert_eq!(page.status(), 200, "{}", page.text());
        let page = page.json();
        assert_eq!(page["trimmed"], false);
        let events = page["events"].as_array().unwrap();
        if events.is_empty() {
            return all;
        }
        all.extend(events.iter().cloned());
        after = page["next"].as_str().unwrap().to_owned();
    }
}

/// The types and reasons of each connection's events, in their order.
fn by_connection(events: &[Value]) -> BTreeMap<String, Vec<String>> {
    let mut ids = HashSet::new();
    let mut told: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for event in events {
        assert!(ids.insert(event["id"].to_string()), "an id came twice: {event}");
        let reason = event["reason"].as_str();
        let kind = event["type"].as_str().unwrap();
        let kind = reason.map_or(kind.to_owned(), |reason| format!("{kind}: {reason}"));
        let id = event["connectionId"].as_str().unwrap().to_owned();
        told.entry(id).or_default().push(kind);
    }
    told
}

async fn connect(cluster: &Cluster, node: usize, transport: Transport) -> HubClient {
    let entry = cluster.entry_on(node).with_bearer(&token_for("ann"));
    HubClient::connect(&Arc::new(entry), transport).await
}

/// Waits until all events of so many connections are there.
async fn both_of(rest: &Rest, connections: usize) -> Vec<Value> {
    eventually("each connection has both events", async || {
        let events = events(rest).await;
        let told = by_connection(&events);
        (told.len() == connections && told.values().all(|told| told.len() == 2)).then_some(events)
    })
    .await
}

#[tokio::test]
async fn each_connection_has_two_events_whatever_its_transport() {
    let cluster = plan(2).start().await;
    let rest = Rest::on(&cluster.nodes[1]);
    let mut ids = Vec::new();
    for transport in [
        Transport::WebSockets,
        Transport::ServerSentEvents,
        Transport::LongPolling,
    ] {
        let client = connect(&cluster, 0, transport).await;
        ids.push(client.id().to_owned());
        client.close().await;
    }
    let mut aborted = connect(&cluster, 1, Transport::WebSockets).await;
    ids.push(aborted.id().to_owned());
    aborted
        .say(&json!({ "type": 1, "target": "Abort", "arguments": [] }))
        .await;
    drop(
        EventSource::open(cluster.nodes[0].address(), "group=g")
            .await
            .begun()
            .await,
    );
    let events = both_of(&rest, 5).await;
    let told = by_connection(&events);
    for id in &ids[..3] {
        assert_eq!(told[id][0], "connected");
        assert!(told[id][1].starts_with("disconnected: "), "{told:?}");
    }
    assert_eq!(told[&ids[3]], ["connected", "disconnected: server"]);
    let first = &events[0];
    assert_eq!(
        (&first["connectionId"], &first["userId"]),
        (&json!(ids[0]), &json!("ann"))
    );
    assert_eq!(first["data"]["transport"], "WebSockets");
    assert_eq!(first["data"]["protocol"], "json");
    assert_eq!(first["data"]["claims"]["nameid"], "ann");
    assert!(first["time"].as_str().unwrap().ends_with('Z'));
    assert!(!first.to_string().contains("eyJ"), "a token is in it: {first}");
}

/// Stateful clients that move, and others, on a node that is killed: the survivors append what is missing, once.
#[tokio::test]
async fn a_killed_nodes_connections_end_once_with_the_reason() {
    let mut cluster = plan(3).start().await;
    let rest = Rest::on(&cluster.nodes[2]);
    let entry =
        |cluster: &Cluster, node: usize| Arc::new(cluster.entry_on(node).with_bearer(&token_for("bob")));
    let mut moving = Resumable::connect(&entry(&cluster, 0)).await;
    let mut staying = Vec::new();
    for _ in 0..6 {
        staying.push(connect(&cluster, 0, Transport::WebSockets).await);
    }
    let _left = Resumable::connect(&entry(&cluster, 0)).await;
    // It resumes on another node, and comes back: that is no event.
    for node in [1, 0] {
        moving.turn_to(&entry(&cluster, node));
        moving.lose();
        moving.resume().await;
    }
    assert_eq!(events(&rest).await.len(), 8);
    cluster.nodes[0].kill();
    moving.turn_to(&entry(&cluster, 1));
    moving.lose();
    moving.resume().await;
    let told = eventually("the dead node's connections have ended", async || {
        let told = by_connection(&events(&rest).await);
        (told.values().filter(|told| told.len() == 2).count() == 7).then_some(told)
    })
    .await;
    for (id, told) in &told {
        match told.as_slice() {
            [one] => assert_eq!(one, "connected", "{id} goes on"),
            both => assert_eq!(both, ["connected", "disconnected: node died"]),
        }
    }
    moving.lose();
    let events = both_of(&rest, 8).await;
    let last = events.last().unwrap();
    assert!(last["reason"].as_str().unwrap().starts_with("lost: "), "{last}");
    assert_eq!(last["userId"], "bob");
    cluster.logs_are_clean();
}

#[tokio::test]
async fn a_follower_gets_events_as_they_come_and_goes_on_where_it_was() {
    let cluster = plan(2).start().await;
    let url = format!("http://{}", cluster.nodes[1].address());
    let follow = |args: &[&str]| {
        let mut command = Command::from(built::gateway_command());
        command
            .args(["events", "--hub", "demo", "--follow"])
            .args(args)
            .env("HUBCAST_URL", &url)
            .env("HUBCAST_ACCESS_KEY", ACCESS_KEY)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        (child, lines)
    };
    let (mut child, mut lines) = follow(&["--after", "0", "--json"]);
    let first = connect(&cluster, 0, Transport::WebSockets).await;
    let line = within("an event", lines.next_line()).await.unwrap().unwrap();
    let event: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(
        (&event["type"], &event["connectionId"]),
        (&json!("connected"), &json!(first.id()))
    );
    child.kill().await.unwrap();
    let id = first.id().to_owned();
    first.close().await;
    // Another follower begins after what the first one has read.
    let place = event["place"].as_str().unwrap();
    let (_child, mut lines) = follow(&["--after", place]);
    let line = within("an event", lines.next_line()).await.unwrap().unwrap();
    let words: Vec<_> = line.split("  ").collect();
    assert_eq!(
        (words[2], words[3], words[4]),
        ("disconnected", id.as_str(), "ann"),
        "{line}"
    );
    let second = connect(&cluster, 1, Transport::WebSockets).await;
    let line = within("an event", lines.next_line()).await.unwrap().unwrap();
    assert!(line.contains(second.id()) && line.contains("connected"), "{line}");
}

#[tokio::test]
async fn a_hub_without_events_and_a_wrong_place_are_refused_with_the_reason() {
    let cluster = Plan::one_node().start().await;
    let silent = Rest::on(&cluster.nodes[0]).call("GET", "/:events").await;
    assert_eq!(silent.status(), 404);
    assert!(silent.text().contains("hubs.events"), "{}", silent.text());
    let cluster = Plan::one_node()
        .set("hubs.events", true)
        .set("hubs.events_most", 3)
        .start()
        .await;
    let rest = Rest::on(&cluster.nodes[0]);
    for query in [
        "after=x",
        "after=1-2-3",
        "limit=0",
        "limit=1001",
        "wait=26",
        "wait=-1",
    ] {
        let refused = rest.call("GET", &format!("/:events?{query}")).await;
        assert_eq!(refused.status(), 400, "{query}: {}", refused.text());
    }
    let end = rest.call("GET", "/:events").await.json();
    assert_eq!((&end["events"], &end["trimmed"]), (&json!([]), &json!(false)));
    for _ in 0..3 {
        connect(&cluster, 0, Transport::WebSockets).await.close().await;
    }
    // The memory of one node keeps three; a reader from the beginning learns that it missed some.
    let page = eventually("the stream is bounded", async || {
        let page = rest.call("GET", "/:events?after=0").await.json();
        (page["trimmed"] == true && page["events"].as_array().unwrap().len() == 3).then_some(page)
    });
    page.await;
}

/// The hub code of survivors hears once of each connection of a killed node, with the reason: of ordinary ones after the lease,
/// of a stateful one after its resume window.
#[tokio::test]
async fn hub_code_hears_once_of_the_end_of_a_killed_nodes_connections() {
    let redis = Redis::start().await;
    let directory = tempfile::tempdir().unwrap();
    let record = directory.path().join("record");
    let settings = Settings::default()
        .redis(&redis.url())
        .recording(&record)
        .set("hubs.resume_window_seconds", 2);
    let mut nodes = Vec::new();
    for node in 0..3 {
        nodes.push(Gateway::start(settings.clone().set("node_id", format!("node-{node}"))).await);
    }
    let entry = Arc::new(EntryPoint::new(&[nodes[0].address()], &Secrets::default()));
    let mut ids = Vec::new();
    let mut clients = Vec::new();
    for _ in 0..5 {
        let client = HubClient::connect(&entry, Transport::WebSockets).await;
        ids.push(client.id().to_owned());
        clients.push(client);
    }
    let _stateful = Resumable::connect(&entry).await;
    let lines = |begins: char| {
        let text = std::fs::read_to_string(&record).unwrap_or_default();
        let lines = text
            .lines()
            .filter(|line| line.starts_with(begins))
            .map(str::to_owned);
        lines.collect::<Vec<_>>()
    };
    eventually("all have begun", async || (lines('+').len() == 6).then_some(())).await;
    nodes[0].kill();
    eventually("all have ended", async || (lines('-').len() >= 6).then_some(())).await;
    let ended = lines('-');
    assert_eq!(ended.len(), 6, "{ended:?}");
    for id in &ids {
        let told: Vec<_> = ended.iter().filter(|line| line.contains(id.as_str())).collect();
        assert_eq!(told.len(), 1, "{ended:?}");
        assert!(
            told[0].contains("the node died") && !told[0].contains("(node-0)"),
            "{ended:?}"
        );
    }
}
