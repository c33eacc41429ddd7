//! The same messages in protobuf, by a schema of its own: what a test says and hears is JSON for every subprotocol.

use std::collections::HashMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use prost::{Message, Oneof};
use serde_json::{Value, json};

#[derive(Clone, PartialEq, Message)]
struct Any {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(bytes, tag = "2")]
    value: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct MessageData {
    #[prost(oneof = "Data", tags = "1, 2, 3, 4")]
    data: Option<Data>,
}

#[derive(Clone, PartialEq, Oneof)]
enum Data {
    #[prost(string, tag = "1")]
    Text(String),
    #[prost(bytes, tag = "2")]
    Binary(Vec<u8>),
    #[prost(bytes, tag = "3")]
    Protobuf(Vec<u8>),
    #[prost(string, tag = "4")]
    Json(String),
}

#[derive(Clone, PartialEq, Message)]
struct Upstream {
    #[prost(oneof = "Request", tags = "1, 5, 6, 7, 8, 9")]
    message: Option<Request>,
}

#[derive(Clone, PartialEq, Oneof)]
enum Request {
    #[prost(message, tag = "1")]
    SendToGroup(SendToGroup),
    #[prost(message, tag = "5")]
    Event(Event),
    #[prost(message, tag = "6")]
    Join(Group),
    #[prost(message, tag = "7")]
    Leave(Group),
    #[prost(message, tag = "8")]
    SequenceAck(SequenceAck),
    #[prost(message, tag = "9")]
    Ping(Empty),
}

#[derive(Clone, PartialEq, Message)]
struct SendToGroup {
    #[prost(string, tag = "1")]
    group: String,
    #[prost(uint64, optional, tag = "2")]
    ack_id: Option<u64>,
    #[prost(message, optional, tag = "3")]
    data: Option<MessageData>,
    #[prost(bool, optional, tag = "4")]
    no_echo: Option<bool>,
    #[prost(uint32, optional, tag = "5")]
    ttl_seconds: Option<u32>,
}

#[derive(Clone, PartialEq, Message)]
struct Event {
    #[prost(string, tag = "1")]
    event: String,
    #[prost(message, optional, tag = "2")]
    data: Option<MessageData>,
    #[prost(uint64, optional, tag = "3")]
    ack_id: Option<u64>,
    #[prost(map = "string, string", tag = "4")]
    metadata: HashMap<String, String>,
}

#[derive(Clone, PartialEq, Message)]
struct Group {
    #[prost(string, tag = "1")]
    group: String,
    #[prost(uint64, optional, tag = "2")]
    ack_id: Option<u64>,
}

#[derive(Clone, PartialEq, Message)]
struct SequenceAck {
    #[prost(uint64, tag = "1")]
    sequence_id: u64,
}

#[derive(Clone, PartialEq, Message)]
struct Empty {}

#[derive(Clone, PartialEq, Message)]
struct Downstream {
    #[prost(oneof = "Told", tags = "1, 2, 3, 4")]
    message: Option<Told>,
}

#[derive(Clone, PartialEq, Oneof)]
enum Told {
    #[prost(message, tag = "1")]
    Ack(Ack),
    #[prost(message, tag = "2")]
    Data(DataMessage),
    #[prost(message, tag = "3")]
    System(System),
    #[prost(message, tag = "4")]
    Pong(Empty),
}

#[derive(Clone, PartialEq, Message)]
struct Ack {
    #[prost(uint64, tag = "1")]
    ack_id: u64,
    #[prost(bool, tag = "2")]
    success: bool,
    #[prost(message, optional, tag = "3")]
    error: Option<Failure>,
}

#[derive(Clone, PartialEq, Message)]
struct Failure {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    message: String,
}

#[derive(Clone, PartialEq, Message)]
struct DataMessage {
    #[prost(string, tag = "1")]
    from: String,
    #[prost(string, optional, tag = "2")]
    group: Option<String>,
    #[prost(message, optional, tag = "3")]
    data: Option<MessageData>,
    #[prost(uint64, optional, tag = "4")]
    sequence_id: Option<u64>,
}

#[derive(Clone, PartialEq, Message)]
struct System {
    #[prost(oneof = "SystemEvent", tags = "1, 2")]
    message: Option<SystemEvent>,
}

#[derive(Clone, PartialEq, Oneof)]
enum SystemEvent {
    #[prost(message, tag = "1")]
    Connected(Connected),
    #[prost(message, tag = "2")]
    Disconnected(Disconnected),
}

#[derive(Clone, PartialEq, Message)]
struct Connected {
    #[prost(string, tag = "1")]
    connection_id: String,
    #[prost(string, tag = "2")]
    user_id: String,
    #[prost(string, optional, tag = "3")]
    reconnection_token: Option<String>,
}

#[derive(Clone, PartialEq, Message)]
struct Disconnected {
    #[prost(string, tag = "2")]
    reason: String,
}

/// A request in protobuf.
pub(super) fn write(request: &Value) -> Vec<u8> {
    let text = |name: &str| request[name].as_str().unwrap_or_default().to_owned();
    let ack_id = request["ackId"].as_u64();
    let group = || Group {
        group: text("group"),
        ack_id,
    };
    let message = match request["type"].as_str().unwrap_or_default() {
        "joinGroup" => Request::Join(group()),
        "leaveGroup" => Request::Leave(group()),
        "sendToGroup" => Request::SendToGroup(SendToGroup {
            group: text("group"),
            ack_id,
            data: data_of(request),
            no_echo: request["noEcho"].as_bool(),
            ttl_seconds: request["ttlSeconds"]
                .as_u64()
                .and_then(|seconds| seconds.try_into().ok()),
        }),
        "event" => Request::Event(Event {
            event: text("event"),
            data: data_of(request),
            ack_id,
            metadata: serde_json::from_value(request["metadata"].clone()).unwrap_or_default(),
        }),
        "sequenceAck" => Request::SequenceAck(SequenceAck {
            sequence_id: request["sequenceId"].as_u64().expect("a number"),
        }),
        "ping" => Request::Ping(Empty {}),
        other => panic!("protobuf has no {other}"),
    };
    let message = Some(message);
    Upstream { message }.encode_to_vec()
}

fn data_of(request: &Value) -> Option<MessageData> {
    let data = request.get("data")?;
    let text = || data.as_str().expect("text").to_owned();
    let bytes = || BASE64.decode(text()).expect("base64");
    let data = match request["dataType"].as_str() {
        Some("text") => Data::Text(text()),
        Some("binary") => Data::Binary(bytes()),
        Some("protobuf") => Data::Protobuf(bytes()),
        _ => Data::Json(data.to_string()),
    };
    Some(MessageData { data: Some(data) })
}

/// A server's message in JSON.
pub(super) fn read(frame: &[u8]) -> Value {
    let message = Downstream::decode(frame).unwrap_or_else(|error| panic!("{error}: {frame:x?}"));
    match message.message.expect("it has a message") {
        Told::Pong(Empty {}) => json!({ "type": "pong" }),
        Told::Ack(ack) => {
            let mut told = json!({ "type": "ack", "ackId": ack.ack_id, "success": ack.success });
            if let Some(error) = ack.error {
                told["error"] = json!({ "name": error.name, "message": error.message });
            }
            told
        }
        Told::System(system) => match system.message.expect("it has an event") {
            SystemEvent::Connected(connected) => {
                let mut told = json!({
                    "type": "system", "event": "connected", "connectionId": connected.connection_id,
                });
                if !connected.user_id.is_empty() {
                    told["userId"] = json!(connected.user_id);
                }
                if let Some(token) = connected.reconnection_token {
                    told["reconnectionToken"] = json!(token);
                }
                told
            }
            SystemEvent::Disconnected(disconnected) => {
                json!({ "type": "system", "event": "disconnected", "message": disconnected.reason })
            }
        },
        Told::Data(message) => {
            let mut told = json!({ "type": "message", "from": message.from });
            if let Some(group) = message.group {
                told["group"] = json!(group);
            }
            let data = message.data.and_then(|data| data.data);
            let (kind, data) = match data.expect("no client can read a message without data") {
                Data::Text(text) => ("text", json!(text)),
                Data::Json(text) => ("json", serde_json::from_str(&text).expect("JSON")),
                Data::Binary(bytes) => ("binary", json!(BASE64.encode(bytes))),
                Data::Protobuf(any) => {
                    Any::decode(&*any).expect("no client can read another message");
                    ("protobuf", json!(BASE64.encode(any)))
                }
            };
            (told["dataType"], told["data"]) = (json!(kind), data);
            if let Some(id) = message.sequence_id {
                told["sequenceId"] = json!(id);
            }
            told
        }
    }
}
