//! Streams of Web PubSub clients to groups: their order, their ends and what is refused; metadata of messages.

use hubcast_tests::cluster::{Cluster, Plan};
use hubcast_tests::hub_client::{HubClient, Transport};
use hubcast_tests::rest::Rest;
use serde_json::{Value, json};

use super::{
    DEMO, JSON, PLAIN, PROTOBUF, RELIABLE, WebPubSub, at, chat, connect, demo, with_chat, with_query,
};

fn begin(id: &str) -> Value {
    json!({ "type": "sendToGroup", "group": "g", "noEcho": true, "stream": { "streamId": id } })
}

fn fragment(id: &str, number: u64, text: &str) -> Value {
    json!({ "type": "streamData", "streamId": id, "streamSequenceId": number, "dataType": "text", "data": text })
}

fn end(id: &str) -> Value {
    json!({ "type": "streamEnd", "streamId": id })
}

fn ack(id: &str, expected: u64) -> Value {
    json!({ "type": "streamAck", "streamId": id, "expectedSequenceId": expected })
}

fn closed(id: &str) -> Value {
    json!({ "type": "streamClosed", "streamId": id })
}

/// Sends a message about a stream, and returns the answer.
async fn answer(client: &mut WebPubSub, message: Value) -> Value {
    client.say(&message).await;
    client.next().await.expect("an answer")
}

async fn begun(client: &mut WebPubSub, id: &str) {
    assert_eq!(answer(client, begin(id)).await, ack(id, 1));
}

/// The name and the text of the error of a stream that is closed.
async fn refusal(client: &mut WebPubSub, message: Value) -> (String, String) {
    let told = answer(client, message).await;
    assert_eq!(told["type"], "streamClosed", "{told}");
    let text = |name: &str| told["error"][name].as_str().expect("text").to_owned();
    (text("name"), text("message"))
}

/// What a receiver is told of a stream: data and `stream`.
async fn part(receiver: &mut WebPubSub) -> (Value, Value) {
    let message = receiver.message().await;
    assert_eq!(message["from"], "group", "{message}");
    (message["data"].clone(), message["stream"].clone())
}

async fn fragments(receiver: &mut WebPubSub, id: &str, texts: &[&str]) {
    for (number, text) in (1_u64..).zip(texts) {
        let stream = json!({ "streamId": id, "streamSequenceId": number });
        assert_eq!(part(receiver).await, (json!(text), stream));
    }
}

async fn ends(receiver: &mut WebPubSub, id: &str, number: u64) {
    let stream = json!({ "streamId": id, "streamSequenceId": number, "endOfStream": true });
    assert_eq!(part(receiver).await, (json!(""), stream));
}

/// The error with which a stream ends for its receivers.
async fn fails(receiver: &mut WebPubSub, id: &str, number: u64) -> Value {
    let (data, mut stream) = part(receiver).await;
    let error = stream["error"].take();
    let expected = json!({ "streamId": id, "streamSequenceId": number, "endOfStream": true, "error": null });
    assert_eq!((data, stream), (json!(""), expected));
    error
}

async fn receiver(cluster: &Cluster, node: usize) -> WebPubSub {
    let mut receiver = demo(cluster, node, RELIABLE).await;
    receiver.join("g").await;
    receiver
}

#[tokio::test]
async fn fragments_are_taken_once_and_in_order() {
    let cluster = Plan::nodes(2).start().await;
    for protocol in [JSON, RELIABLE] {
        let mut receiver = receiver(&cluster, 1).await;
        let mut sender = demo(&cluster, 0, protocol).await;
        begun(&mut sender, "s").await;
        begun(&mut sender, "s").await; // a client that got no answer begins again
        assert_eq!(answer(&mut sender, fragment("s", 1, "a")).await, ack("s", 2));
        assert_eq!(answer(&mut sender, fragment("s", 2, "b")).await, ack("s", 3));
        for number in [1, 2] {
            assert_eq!(
                answer(&mut sender, fragment("s", number, "again")).await,
                ack("s", 3)
            );
        }
        let gap = answer(&mut sender, fragment("s", 4, "d")).await;
        assert_eq!(
            (&gap["type"], &gap["name"], &gap["expectedSequenceId"]),
            (&json!("streamNack"), &json!("InvalidSequenceId"), &json!(3)),
            "{gap}"
        );
        sender
            .say(&json!({ "type": "streamData", "streamId": "s" }))
            .await; // goes to nobody
        assert_eq!(answer(&mut sender, fragment("s", 3, "c")).await, ack("s", 4));
        assert_eq!(answer(&mut sender, end("s")).await, closed("s"));
        fragments(&mut receiver, "s", &["a", "b", "c"]).await;
        ends(&mut receiver, "s", 4).await;
        // Its id may be used again, also for an end with an error.
        begun(&mut sender, "s").await;
        assert_eq!(answer(&mut sender, fragment("s", 1, "e")).await, ack("s", 2));
        let failed = json!({ "type": "streamEnd", "streamId": "s", "error": { "message": "no more", "userErrorCode": "E1" } });
        assert_eq!(answer(&mut sender, failed).await, closed("s"));
        fragments(&mut receiver, "s", &["e"]).await;
        assert_eq!(
            fails(&mut receiver, "s", 2).await,
            json!({ "name": "UserError", "message": "no more", "userErrorCode": "E1" })
        );
    }
    cluster.logs_are_clean();
}

#[tokio::test]
async fn what_can_not_be_done_with_a_stream_is_refused_and_the_connection_goes_on() {
    let cluster = with_chat(Plan::nodes(2))
        .set("limits.streams_per_connection", 2)
        .start()
        .await;
    let roles = ["hubcast.send.g", "hubcast.join.g"];
    let mut receiver = chat(&cluster, 1, RELIABLE, "ana", &roles).await;
    receiver.join("g").await;
    let mut sender = chat(&cluster, 0, JSON, "bob", &roles).await;
    for message in [
        fragment("s", 1, "x"),
        json!({ "type": "streamData", "streamId": "s" }),
        end("s"),
    ] {
        assert_eq!(refusal(&mut sender, message).await.0, "StreamNotFound");
    }
    let beginning = |id: &str, more: Value| {
        let mut begin = begin(id);
        begin
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        begin
    };
    for (more, name, text) in [
        (json!({ "group": "other" }), "Forbidden", "hubcast.send.other"),
        (json!({ "data": "x" }), "BadRequest", "streamData"),
        (json!({ "stream": { "streamId": "" } }), "BadRequest", "streamId"),
        (
            json!({ "stream": { "streamId": "s".repeat(257) } }),
            "BadRequest",
            "streamId",
        ),
        (
            json!({ "stream": { "streamId": "s", "idleTimeoutMs": 0 } }),
            "BadRequest",
            "idleTimeoutMs",
        ),
        (
            json!({ "stream": { "streamId": "s", "idleTimeoutMs": 86_400_001 } }),
            "BadRequest",
            "idleTimeoutMs",
        ),
    ] {
        let told = refusal(&mut sender, beginning("s", more.clone())).await;
        assert!(told.0 == name && told.1.contains(text), "{more}: {told:?}");
    }
    begun(&mut sender, "s").await;
    begun(&mut sender, "t").await;
    let (name, text) = refusal(&mut sender, begin("u")).await;
    assert!(
        name == "BadRequest" && text.contains("limits.streams_per_connection"),
        "{text}"
    );
    assert_eq!(answer(&mut sender, fragment("s", 1, "a")).await, ack("s", 2));
    let (name, text) = refusal(&mut sender, begin("s")).await;
    assert!(name == "BadRequest" && text.contains("\"s\""), "{text}");
    // The stream itself goes on, until it is sent what .NET clients can't read.
    assert_eq!(answer(&mut sender, fragment("s", 2, "b")).await, ack("s", 3));
    let null = json!({ "type": "streamData", "streamId": "s", "streamSequenceId": 3, "dataType": "json", "data": null });
    assert_eq!(refusal(&mut sender, null).await.0, "BadRequest");
    fragments(&mut receiver, "s", &["a", "b"]).await;
    assert_eq!(fails(&mut receiver, "s", 3).await["name"], "Cancelled");
    begun(&mut sender, "u").await;
    sender.send("g", "goes on").await;
    assert_eq!(receiver.message().await["data"], "goes on");
    // One that asks for an ack gets both.
    let ack = sender.answer(beginning("v", json!({ "group": "other" }))).await;
    assert_eq!(ack["error"]["name"], "Forbidden");
    assert_eq!(sender.next().await.unwrap()["type"], "streamClosed");
    // Protobuf has no messages about streams.
    let mut binary = chat(&cluster, 0, PROTOBUF, "bob", &roles).await;
    binary.send("g", "of protobuf").await;
    assert_eq!(receiver.message().await["data"], "of protobuf");
}

#[tokio::test]
async fn a_silent_stream_ends() {
    let cluster = Plan::nodes(2).start().await;
    let mut receiver = receiver(&cluster, 1).await;
    for protocol in [JSON, RELIABLE] {
        let mut sender = demo(&cluster, 0, protocol).await;
        let mut short = begin("s");
        short["stream"]["idleTimeoutMs"] = json!(200);
        begun(&mut sender, "long").await;
        assert_eq!(answer(&mut sender, short).await, ack("s", 1));
        assert_eq!(answer(&mut sender, fragment("s", 1, "a")).await, ack("s", 2));
        let told = sender.next().await.expect("an end");
        assert_eq!(
            (&told["type"], &told["streamId"], &told["error"]["name"]),
            (&json!("streamClosed"), &json!("s"), &json!("IdleTimeout")),
            "{told}"
        );
        fragments(&mut receiver, "s", &["a"]).await;
        assert_eq!(fails(&mut receiver, "s", 2).await["name"], "IdleTimeout");
        let after = if protocol == JSON {
            "StreamNotFound"
        } else {
            "IdleTimeout"
        };
        assert_eq!(refusal(&mut sender, fragment("s", 2, "b")).await.0, after);
        // The other one goes on, until its connection ends.
        assert_eq!(
            answer(&mut sender, fragment("long", 1, "a")).await,
            ack("long", 2)
        );
        fragments(&mut receiver, "long", &["a"]).await;
        if protocol == JSON {
            sender.lose();
            assert_eq!(fails(&mut receiver, "long", 2).await["name"], "Cancelled");
        } else {
            assert_eq!(answer(&mut sender, end("long")).await, closed("long"));
            ends(&mut receiver, "long", 2).await;
        }
    }
    cluster.logs_are_clean();
}

#[tokio::test]
async fn a_stream_ends_with_the_permission_of_its_sender() {
    let plan = with_chat(Plan::nodes(3)).set("hubs.rest_api", "webpubsub");
    let cluster = plan.start().await;
    let rest = Rest::on(&cluster.nodes[2]);
    let mut receiver = chat(&cluster, 1, RELIABLE, "ana", &["hubcast.join.g"]).await;
    receiver.join("g").await;
    let mut sender = chat(&cluster, 0, RELIABLE, "bob", &["hubcast.send.g"]).await;
    begun(&mut sender, "s").await;
    assert_eq!(answer(&mut sender, fragment("s", 1, "a")).await, ack("s", 2));
    let path = format!(
        "/api/hubs/chat/permissions/sendToGroup/connections/{}?targetName=g&api-version=2024-12-01",
        sender.id()
    );
    let taken = rest.fetch(&rest.request("DELETE", &path)).await;
    assert_eq!(taken.status(), 204, "{}", taken.text());
    assert_eq!(refusal(&mut sender, fragment("s", 2, "b")).await.0, "Forbidden");
    fragments(&mut receiver, "s", &["a"]).await;
    assert_eq!(fails(&mut receiver, "s", 2).await["name"], "Forbidden");
}

/// A client that lost its socket repeats what it got no answer to, on a node that it was not on.
#[tokio::test]
async fn a_stream_goes_on_where_its_client_comes_back() {
    let mut cluster = Plan::nodes(3).with_short_leases().start().await;
    let mut receiver = receiver(&cluster, 2).await;
    let mut sender = demo(&cluster, 0, RELIABLE).await;
    begun(&mut sender, "s").await;
    begun(&mut sender, "ended").await;
    for (number, text) in [(1, "a"), (2, "b")] {
        assert_eq!(
            answer(&mut sender, fragment("s", number, text)).await,
            ack("s", number + 1)
        );
    }
    assert_eq!(answer(&mut sender, end("ended")).await, closed("ended"));
    // Handed over, then killed; and on the same node.
    for (number, node, kill) in [(3, 1, false), (4, 0, true), (5, 0, false)] {
        if kill {
            cluster.nodes[1].kill();
        }
        sender.come_back(at(&cluster, node)).await;
        for repeated in [1, 2] {
            assert_eq!(
                answer(&mut sender, fragment("s", repeated, "again")).await,
                ack("s", number)
            );
        }
        assert_eq!(
            answer(&mut sender, fragment("s", number, "more")).await,
            ack("s", number + 1)
        );
        assert_eq!(answer(&mut sender, end("ended")).await, closed("ended"));
    }
    for _ in 0..2 {
        assert_eq!(
            answer(&mut sender, end("s")).await,
            closed("s"),
            "also the second time"
        );
        sender.come_back(at(&cluster, 2)).await;
    }
    let mut seen = Vec::new();
    for _ in 0..7 {
        let (data, stream) = part(&mut receiver).await;
        seen.push((
            data,
            stream["streamId"].clone(),
            stream["streamSequenceId"].clone(),
        ));
    }
    let of = |text: &str, id: &str, number: u64| (json!(text), json!(id), json!(number));
    assert_eq!(
        seen,
        [
            of("a", "s", 1),
            of("b", "s", 2),
            of("", "ended", 1),
            of("more", "s", 3),
            of("more", "s", 4),
            of("more", "s", 5),
            of("", "s", 6),
        ]
    );
    assert_eq!(receiver.kept(), 0);
}

/// The streams of a client that does not come back end when its time is up, though its node has died.
#[tokio::test]
async fn streams_of_a_dead_node_end() {
    let plan = Plan::nodes(2)
        .with_short_leases()
        .set("hubs.resume_window_seconds", 1);
    let mut cluster = plan.start().await;
    let mut receiver = receiver(&cluster, 1).await;
    let mut sender = demo(&cluster, 0, RELIABLE).await;
    begun(&mut sender, "s").await;
    assert_eq!(answer(&mut sender, fragment("s", 1, "a")).await, ack("s", 2));
    cluster.nodes[0].kill();
    fragments(&mut receiver, "s", &["a"]).await;
    assert_eq!(fails(&mut receiver, "s", 2).await["name"], "Cancelled");
}

/// Clients of other protocols get fragments as messages, and no end.
#[tokio::test]
async fn everybody_in_the_group_gets_the_fragments() {
    let cluster = Plan::nodes(2).start().await;
    let mut signalr = HubClient::connect(&cluster.entry_on(1), Transport::WebSockets).await;
    signalr.result("JoinGroup", json!(["g"])).await;
    let mut plain = connect(&cluster, 1, &with_query(DEMO, "group=g"), PLAIN).await;
    assert_eq!(plain.next().await.expect("a place")["type"], "place");
    let mut binary = demo(&cluster, 1, PROTOBUF).await;
    binary.join("g").await;
    let mut sender = demo(&cluster, 0, JSON).await;
    sender.join("g").await;
    let mut echoed = begin("s");
    echoed["noEcho"] = json!(false);
    assert_eq!(answer(&mut sender, echoed).await, ack("s", 1));
    sender.say(&fragment("s", 1, "a")).await;
    fragments(&mut sender, "s", &["a"]).await;
    sender.say(&end("s")).await;
    ends(&mut sender, "s", 2).await; // before it is told that the stream is over
    assert_eq!(sender.next().await, Some(ack("s", 2)));
    assert_eq!(sender.next().await, Some(closed("s")));
    sender.send("g", "after").await;
    for text in ["a", "after"] {
        assert_eq!(
            signalr.next().await.expect("a call"),
            json!({ "type": 1, "target": "message", "arguments": [text] })
        );
        assert_eq!(plain.next().await.expect("a message")["arguments"], json!([text]));
        assert_eq!(binary.message().await["data"], text);
    }
}

#[tokio::test]
async fn metadata_of_messages_reach_web_pubsub_clients() {
    let plan = Plan::nodes(2).set("hubs.rest_api", "webpubsub");
    let cluster = plan.start().await;
    let mut receiver = receiver(&cluster, 1).await;
    let mut signalr = HubClient::connect(&cluster.entry_on(1), Transport::WebSockets).await;
    signalr.result("JoinGroup", json!(["g"])).await;
    let mut sender = demo(&cluster, 0, JSON).await;
    let metadata = json!({ "Trace": "1", "b": "x y" });
    sender
        .done(json!({ "type": "sendToGroup", "group": "g", "dataType": "json", "data": [1], "metadata": metadata }))
        .await;
    sender
        .done(json!({ "type": "sendToGroup", "group": "g", "metadata": metadata }))
        .await;
    for (data, kind) in [(json!([1]), "json"), (json!(""), "text")] {
        let message = receiver.message().await;
        assert_eq!(
            (&message["data"], &message["dataType"], &message["metadata"]),
            (&data, &json!(kind), &metadata),
            "{message}"
        );
        assert_eq!(
            signalr.next().await.expect("a call"),
            json!({ "type": 1, "target": "message", "arguments": [data] })
        );
    }
    let rest = Rest::on(&cluster.nodes[0]);
    let request = rest
        .request("POST", "/api/hubs/demo/groups/g/:send?api-version=2024-12-01")
        .header("Content-Type", "text/plain")
        .header("X-WebPubSub-Metadata-Kind", "note")
        .body("from a back end");
    let sent = rest.fetch(&request).await;
    assert_eq!(sent.status(), 202, "{}", sent.text());
    let message = receiver.message().await;
    assert_eq!(message["data"], "from a back end");
    assert_eq!(message["metadata"], json!({ "kind": "note" }));
}
