//! One group, five kinds of clients, three nodes: all receive the same messages in the same order.

use hubcast_tests::cluster::{Cluster, Plan};
use hubcast_tests::event_source::EventSource;
use hubcast_tests::hub_client::{HubClient, Transport};
use hubcast_tests::messagepack;
use hubcast_tests::rest::Rest;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::{DEMO, JSON, PLAIN, RELIABLE, WebPubSub, at, connect, demo, with_query};

/// The number of messages that each publisher sends.
const EACH: usize = 60;
/// SignalR with JSON and with MessagePack, Web PubSub with and without recovery, REST.
const PUBLISHERS: usize = 5;
const ALL: usize = PUBLISHERS * EACH;

/// Target and arguments of a message.
type Said = (String, Value);

fn said(target: &Value, arguments: &Value) -> Said {
    let target = target.as_str().expect("a target");
    (target.to_owned(), arguments.clone())
}

/// A message to a Web PubSub client, as a call.
fn said_as_data(message: &Value) -> Said {
    assert_eq!(
        (&message["from"], &message["group"]),
        (&json!("group"), &json!("g"))
    );
    match &message["data"] {
        Value::Object(call) => said(&call["target"], &call["arguments"]),
        data => ("message".to_owned(), json!([data])),
    }
}

/// Begins to publish with one client of each kind on each of these nodes in turn.
async fn publish(cluster: &Cluster, nodes: &[usize]) -> Vec<JoinHandle<()>> {
    let node = |index: usize| nodes[index % nodes.len()];
    let mut json = HubClient::connect(&cluster.entry_on(node(0)), Transport::WebSockets).await;
    let mut packed = HubClient::connect_messagepack(&cluster.entry_on(node(1)), Transport::WebSockets).await;
    let mut web = demo(cluster, node(2), JSON).await;
    let mut reliable = demo(cluster, node(0), RELIABLE).await;
    let rest = Rest::on(&cluster.nodes[node(1)]);
    vec![
        tokio::spawn(async move {
            for number in 0..EACH {
                json.result("SendToGroup", json!(["g", format!("json {number}")]))
                    .await;
            }
        }),
        tokio::spawn(async move {
            for number in 0..EACH {
                let arguments = vec!["g".into(), format!("packed {number}").into()];
                let call = messagepack::invocation("1", "SendToGroup", arguments);
                packed.send(messagepack::frame(&call)).await;
                packed.next_messagepack().await.expect("a completion");
            }
        }),
        tokio::spawn(async move {
            for number in 0..EACH {
                web.send("g", &format!("web {number}")).await;
            }
        }),
        // All at once: nothing is waited for in between.
        tokio::spawn(async move {
            let mut asked = Vec::new();
            for number in 0..EACH {
                let data = json!(["reliable", number]);
                let request =
                    json!({ "type": "sendToGroup", "group": "g", "dataType": "json", "data": data });
                asked.push(reliable.ask(request).await);
            }
            for id in asked {
                assert_eq!(reliable.ack(id).await["success"], true);
            }
        }),
        tokio::spawn(async move {
            for number in 0..EACH {
                let body = json!({ "target": "Rest", "arguments": [number, { "a": null }] });
                assert_eq!(rest.send("/groups/g/:send", &body).await.status(), 202);
            }
        }),
    ]
}

/// A client that reads everything, wherever it is.
fn read_json(mut client: HubClient) -> JoinHandle<Vec<Said>> {
    tokio::spawn(async move {
        let mut seen = Vec::new();
        while seen.len() < ALL {
            let call = client.next().await.expect("the connection lives");
            seen.push(said(&call["target"], &call["arguments"]));
        }
        seen
    })
}

fn read_packed(mut client: HubClient) -> JoinHandle<Vec<Said>> {
    tokio::spawn(async move {
        let mut seen = Vec::new();
        while seen.len() < ALL {
            let call = client.next_messagepack().await.expect("the connection lives");
            seen.push(said(
                &messagepack::to_json(&call[3]),
                &messagepack::to_json(&call[4]),
            ));
        }
        seen
    })
}

/// Reads as much as there is on this socket, or all. What came before is not counted again.
async fn read_reliable(client: &mut WebPubSub, seen: &mut Vec<Said>, until: usize) {
    while seen.len() < until
        && let Some(message) = client.next().await
    {
        let id = message["sequenceId"].as_u64().unwrap_or_default();
        if id > client.last {
            client.last = id;
            seen.push(said_as_data(&message));
            if seen.len().is_multiple_of(20) {
                client
                    .say(&json!({ "type": "sequenceAck", "sequenceId": id }))
                    .await;
            }
        }
    }
}

async fn read_events(source: &mut EventSource, seen: &mut Vec<Said>, until: usize) {
    while seen.len() < until
        && let Some(event) = source.next().await
    {
        seen.push((event.name, event.data));
    }
}

/// The id of the last message goes to `last`.
async fn read_plain(client: &mut WebPubSub, seen: &mut Vec<Said>, last: &mut String, until: usize) {
    while seen.len() < until
        && let Some(message) = client.next().await
    {
        if let Some(id) = message["id"].as_str() {
            id.clone_into(last);
        }
        if message["type"] == "message" {
            seen.push(said(&message["target"], &message["arguments"]));
        }
    }
}

/// Clients that read, and have begun to.
struct Receivers {
    json: HubClient,
    packed: HubClient,
    reliable: WebPubSub,
    events: EventSource,
    plain: WebPubSub,
    /// The place of the plain socket.
    last: String,
}

impl Receivers {
    /// SignalR's on these nodes, Web PubSub's, the event stream's, the plain socket's.
    async fn gather(cluster: &Cluster, nodes: [usize; 5]) -> Self {
        let mut json = HubClient::connect(&cluster.entry_on(nodes[0]), Transport::WebSockets).await;
        json.result("JoinGroup", json!(["g"])).await;
        let mut packed =
            HubClient::connect_messagepack(&cluster.entry_on(nodes[1]), Transport::WebSockets).await;
        let join = messagepack::invocation("1", "JoinGroup", vec!["g".into()]);
        packed.send(messagepack::frame(&join)).await;
        packed.next_messagepack().await.expect("it has joined");
        let mut reliable = demo(cluster, nodes[2], RELIABLE).await;
        reliable.join("g").await;
        let events = EventSource::open(at(cluster, nodes[3]), "group=g")
            .await
            .begun()
            .await;
        let mut plain = connect(cluster, nodes[4], &with_query(DEMO, "group=g"), PLAIN).await;
        let place = plain.next().await.expect("a place");
        let last = place["id"].as_str().expect("an id").to_owned();
        Self {
            json,
            packed,
            reliable,
            events,
            plain,
            last,
        }
    }
}

/// Checks that nothing is missing, nothing came twice, and each publisher's messages are in their order.
fn is_whole(seen: &[Said]) {
    assert_eq!(seen.len(), ALL);
    let numbers = |pick: fn(&Said) -> Option<String>| seen.iter().filter_map(pick).collect::<Vec<_>>();
    let expected: Vec<_> = (0..EACH).map(|number| number.to_string()).collect();
    let of_text = |index: usize, begins: &'static str| {
        let texts = seen.iter().filter_map(move |said| said.1[index].as_str());
        texts
            .filter_map(|text| text.strip_prefix(begins))
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    assert_eq!(of_text(1, "json "), expected);
    assert_eq!(of_text(1, "packed "), expected);
    assert_eq!(of_text(0, "web "), expected);
    assert_eq!(
        numbers(|said| (said.0 == "Rest").then(|| said.1[0].to_string())),
        expected
    );
    assert_eq!(
        numbers(|said| (said.1[0][0] == "reliable").then(|| said.1[0][1].to_string())),
        expected
    );
}

#[tokio::test]
async fn five_kinds_of_clients_on_three_nodes_see_one_order() {
    let mut cluster = Plan::nodes(3).start().await;
    let mut all = Receivers::gather(&cluster, [0, 1, 2, 0, 1]).await;
    let publishing = publish(&cluster, &[0, 1, 2]).await;
    let (json, packed) = (read_json(all.json), read_packed(all.packed));
    let (mut reliable, mut events, mut plain) = (Vec::new(), Vec::new(), Vec::new());
    tokio::join!(
        read_reliable(&mut all.reliable, &mut reliable, ALL),
        read_events(&mut all.events, &mut events, ALL),
        read_plain(&mut all.plain, &mut plain, &mut all.last, ALL),
    );
    let json = json.await.expect("it reads");
    is_whole(&json);
    assert_eq!(packed.await.expect("it reads"), json, "MessagePack");
    assert_eq!(reliable, json, "Web PubSub");
    assert_eq!(events, json, "EventSource");
    assert_eq!(plain, json, "a plain WebSocket");
    for publisher in publishing {
        publisher.await.expect("it publishes");
    }
    drop((all.reliable, all.events, all.plain));
    cluster.logs_are_clean();
    assert!(cluster.sum("hubcast_log_gaps_total").await == 0.0);
}

/// Two nodes are killed while all publish; their clients come back elsewhere, twice.
#[tokio::test]
async fn killed_nodes_change_nothing_about_the_order() {
    let mut cluster = Plan::nodes(3).start().await;
    let mut all = Receivers::gather(&cluster, [2, 2, 0, 1, 0]).await;
    let publishing = publish(&cluster, &[2]).await;
    let (json, packed) = (read_json(all.json), read_packed(all.packed));
    let (mut reliable, mut events, mut plain) = (Vec::new(), Vec::new(), Vec::new());

    let some = ALL / 6;
    read_reliable(&mut all.reliable, &mut reliable, some).await;
    read_plain(&mut all.plain, &mut plain, &mut all.last, some).await;
    cluster.nodes[0].kill();
    read_reliable(&mut all.reliable, &mut reliable, ALL).await;
    read_plain(&mut all.plain, &mut plain, &mut all.last, ALL).await;
    assert!(
        reliable.len() < ALL && plain.len() < ALL,
        "it was killed in between"
    );
    all.reliable.come_back(at(&cluster, 1)).await;
    let again = |last: &str| with_query(DEMO, &format!("group=g&lastEventId={last}"));
    all.plain = connect(&cluster, 1, &again(&all.last), PLAIN).await;

    read_reliable(&mut all.reliable, &mut reliable, 2 * some).await;
    read_events(&mut all.events, &mut events, 2 * some).await;
    read_plain(&mut all.plain, &mut plain, &mut all.last, 2 * some).await;
    cluster.nodes[1].kill();
    read_reliable(&mut all.reliable, &mut reliable, ALL).await;
    read_events(&mut all.events, &mut events, ALL).await;
    read_plain(&mut all.plain, &mut plain, &mut all.last, ALL).await;
    all.reliable.come_back(at(&cluster, 2)).await;
    all.events = EventSource::resume(at(&cluster, 2), "group=g", &all.events.last_id).await;
    all.plain = connect(&cluster, 2, &again(&all.last), PLAIN).await;

    read_reliable(&mut all.reliable, &mut reliable, ALL).await;
    read_events(&mut all.events, &mut events, ALL).await;
    read_plain(&mut all.plain, &mut plain, &mut all.last, ALL).await;
    let json = json.await.expect("it reads");
    is_whole(&json);
    assert_eq!(packed.await.expect("it reads"), json, "MessagePack");
    assert_eq!(reliable, json, "Web PubSub");
    assert_eq!(events, json, "EventSource");
    assert_eq!(plain, json, "a plain WebSocket");
    for publisher in publishing {
        publisher.await.expect("it publishes");
    }
    cluster.logs_are_clean();
}
