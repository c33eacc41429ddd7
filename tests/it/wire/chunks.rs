//! The cuts in the bytes of a conversation make no difference, in any protocol, on any transport.

use std::collections::BTreeMap;

use bytes::BytesMut;
use hubcast_tests::cluster::Cluster;
use hubcast_tests::hub_client::{HubClient, JSON_HANDSHAKE, MESSAGEPACK_HANDSHAKE, Transport};
use hubcast_tests::messagepack::{self, Value as Pack};
use serde_json::{Value, json};

proves_on_one_node_and_on_two! { |plan| plan;
    json_may_come_in_one_piece_or_in_single_bytes,
    messagepack_may_come_in_one_piece_or_in_single_bytes,
    json_may_be_cut_anywhere,
    messagepack_may_be_cut_anywhere,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Protocol {
    Json,
    MessagePack,
}

impl Protocol {
    fn transports(self) -> &'static [Transport] {
        match self {
            Self::Json => &Transport::ALL,
            Self::MessagePack => &[Transport::WebSockets, Transport::LongPolling],
        }
    }

    /// All that a client says, from its handshake on.
    fn conversation(self) -> Vec<u8> {
        let mut bytes = match self {
            Self::Json => JSON_HANDSHAKE,
            Self::MessagePack => MESSAGEPACK_HANDSHAKE,
        }
        .as_bytes()
        .to_vec();
        for message in said() {
            match self {
                Self::Json => bytes.extend_from_slice(format!("{message}\u{1e}").as_bytes()),
                Self::MessagePack => bytes.extend_from_slice(&messagepack::frame(&packed(&message))),
            }
        }
        bytes
    }
}

/// Messages of every type that a client may send, but for Close.
fn said() -> Vec<Value> {
    let call = |id: &str, target: &str, arguments: Value| json!({ "type": 1, "invocationId": id, "target": target, "arguments": arguments });
    let mut upload = call("5", "Sum", json!([]));
    upload["streamIds"] = json!(["6"]);
    vec![
        json!({ "type": 6 }),
        call("0", "Echo", json!([strange()])),
        json!({ "type": 1, "target": "Echo", "arguments": ["unanswered"] }),
        call("1", "JoinGroup", json!(["chunks"])),
        call("2", "Nothing", json!([])),
        json!({ "type": 42 }),
        call("3", "SendToGroup", json!(["chunks", "ä€😀"])),
        json!({ "type": 4, "invocationId": "4", "target": "Counter", "arguments": [3, 0] }),
        upload,
        json!({ "type": 2, "invocationId": "6", "item": 1.5 }),
        json!({ "type": 2, "invocationId": "6", "item": 2 }),
        json!({ "type": 3, "invocationId": "6" }),
        json!({ "type": 5, "invocationId": "unknown" }),
        call("7", "Echo", json!([7])),
    ]
}

/// Arguments that are easily cut in a wrong place.
fn strange() -> Value {
    json!({ "ä€😀": ["\u{1e}", "\\", "\"", -1.5, [], {}, null, true], "": "x".repeat(130) })
}

/// All that is answered, by what belongs together: within that, the order is fixed.
fn answers() -> BTreeMap<String, Vec<Value>> {
    let result = |id: &str, result: Value| json!({ "type": 3, "invocationId": id, "result": result });
    let item = |item: u32| json!({ "type": 2, "invocationId": "4", "item": item });
    let unknown =
        "Failed to invoke 'Nothing' due to an error on the server. HubException: Method does not exist.";
    let messages = [
        result("0", strange()),
        result("1", Value::Null),
        json!({ "type": 3, "invocationId": "2", "error": unknown }),
        result("3", Value::Null),
        json!({ "type": 1, "target": "GroupMessage", "arguments": ["chunks", "ä€😀"] }),
        item(0),
        item(1),
        item(2),
        json!({ "type": 3, "invocationId": "4" }),
        result("5", json!(3.5)),
        result("7", json!(7)),
    ];
    by_subject(messages.to_vec())
}

fn by_subject(messages: Vec<Value>) -> BTreeMap<String, Vec<Value>> {
    let mut subjects = BTreeMap::<_, Vec<_>>::new();
    for message in messages {
        let subject = message["invocationId"].as_str().unwrap_or("sent").to_owned();
        subjects.entry(subject).or_default().push(message);
    }
    subjects
}

/// A message as MessagePack has it.
fn packed(message: &Value) -> Pack {
    let field = |name: &str| messagepack::from_json(&message[name]);
    let headers = || Pack::Map(Vec::new());
    let list = |name: &str| match &message[name] {
        Value::Null => Pack::Array(Vec::new()),
        list => messagepack::from_json(list),
    };
    let kind = field("type");
    let items = match message["type"].as_u64() {
        Some(1 | 4) => vec![
            kind,
            headers(),
            field("invocationId"),
            field("target"),
            list("arguments"),
            list("streamIds"),
        ],
        Some(2) => vec![kind, headers(), field("invocationId"), field("item")],
        Some(3) => vec![kind, headers(), field("invocationId"), 2.into()],
        Some(5) => vec![kind, headers(), field("invocationId")],
        _ => vec![kind],
    };
    Pack::Array(items)
}

/// A message of the server as JSON has it.
fn unpacked(message: &Pack) -> Value {
    let field = |index: usize| messagepack::to_json(&message[index]);
    match message[0].as_u64() {
        Some(1) => json!({ "type": 1, "target": field(3), "arguments": field(4) }),
        Some(2) => json!({ "type": 2, "invocationId": field(2), "item": field(3) }),
        Some(3) => match message[3].as_u64() {
            Some(1) => json!({ "type": 3, "invocationId": field(2), "error": field(4) }),
            Some(2) => json!({ "type": 3, "invocationId": field(2) }),
            _ => json!({ "type": 3, "invocationId": field(2), "result": field(4) }),
        },
        _ => json!({ "type": field(0) }),
    }
}

/// Has the conversation in these pieces.
async fn converse(cluster: &Cluster, protocol: Protocol, transport: Transport, pieces: &[&[u8]]) {
    let entry = cluster.entry();
    let mut client = HubClient::open(&entry, transport).await;
    for piece in pieces {
        assert_eq!(client.send(piece).await, 200);
    }
    let expected = answers();
    let (mut received, mut buffer) = (Vec::new(), BytesMut::new());
    let mut is_begun = false;
    while received.len() < expected.values().map(Vec::len).sum::<usize>() {
        let bytes = client.receive_any().await.unwrap_or_else(|| {
            panic!(
                "{protocol:?} by {transport:?} in {} pieces ended: {received:?}",
                pieces.len()
            )
        });
        buffer.extend_from_slice(&bytes);
        if !is_begun {
            assert!(
                buffer.starts_with(b"{}\x1e"),
                "the handshake's answer: {buffer:?}"
            );
            let _answer = buffer.split_to(3);
            is_begun = true;
        }
        take(protocol, &mut buffer, &mut received);
        assert!(buffer.is_empty(), "messages are never split: {buffer:?}");
    }
    let what = format!("{protocol:?} by {transport:?} in {} pieces", pieces.len());
    assert_eq!(by_subject(received), expected, "{what}");
}

/// Moves the messages at the front that are no Pings.
fn take(protocol: Protocol, buffer: &mut BytesMut, into: &mut Vec<Value>) {
    let mut messages = Vec::new();
    match protocol {
        Protocol::Json => {
            while let Some(end) = buffer.iter().position(|byte| *byte == 0x1E) {
                let message = buffer.split_to(end + 1);
                messages.push(serde_json::from_slice(&message[..end]).expect("messages are JSON"));
            }
        }
        Protocol::MessagePack => {
            while let Some(message) = messagepack::take(buffer) {
                messages.push(unpacked(&message));
            }
        }
    }
    messages.retain(|message: &Value| message["type"] != 6);
    into.append(&mut messages);
}

async fn in_one_piece_and_in_single_bytes(cluster: &Cluster, protocol: Protocol) {
    let conversation = protocol.conversation();
    for transport in protocol.transports() {
        converse(cluster, protocol, *transport, &[&conversation]).await;
        let bytes: Vec<_> = conversation.chunks(1).collect();
        converse(cluster, protocol, *transport, &bytes).await;
    }
}

async fn in_two_pieces(cluster: &Cluster, protocol: Protocol) {
    let conversation = protocol.conversation();
    for transport in protocol.transports() {
        let step = match transport {
            Transport::WebSockets => 1,
            _ => 11, // each takes several requests
        };
        for cut in (1..conversation.len()).step_by(step) {
            let (one, other) = conversation.split_at(cut);
            converse(cluster, protocol, *transport, &[one, other]).await;
        }
    }
}

async fn json_may_come_in_one_piece_or_in_single_bytes(cluster: &mut Cluster) {
    in_one_piece_and_in_single_bytes(cluster, Protocol::Json).await;
}

async fn messagepack_may_come_in_one_piece_or_in_single_bytes(cluster: &mut Cluster) {
    in_one_piece_and_in_single_bytes(cluster, Protocol::MessagePack).await;
}

async fn json_may_be_cut_anywhere(cluster: &mut Cluster) {
    in_two_pieces(cluster, Protocol::Json).await;
}

async fn messagepack_may_be_cut_anywhere(cluster: &mut Cluster) {
    in_two_pieces(cluster, Protocol::MessagePack).await;
}
