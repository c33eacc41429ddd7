//! Azure Web PubSub's JSON subprotocols, `json.webpubsub.azure.v1` and `json.reliable.webpubsub.azure.v1`, as its official
//! clients for JavaScript and Python speak them. Each WebSocket text frame is one JSON object.
//!
//! Sources: the client protocol's specification (`protocols/client/client-spec.md` in Azure/azure-webpubsub), its public
//! documentation, and the clients `@azure/web-pubsub-client` 1.0 and `azure-messaging-webpubsubclient` 1.1.
//!
//! # From the client
//!
//! | message | here |
//! | --- | --- |
//! | `{"type":"joinGroup","group":"g","ackId":1}` | joins, if the client's roles permit it |
//! | `{"type":"leaveGroup","group":"g","ackId":2}` | leaves, under the same permission |
//! | `{"type":"sendToGroup","group":"g","ackId":3,"noEcho":false,"dataType":"json","data":…}` | a message to the group, see below |
//! | `{"type":"event","event":"name","ackId":4,"dataType":"text","data":"…"}` | calls the hub's method of that name with the data as its argument; its result, unless it is null, comes back as a message |
//! | `{"type":"invoke","invocationId":"1","target":"event","event":"name","dataType":"json","data":…}` | the same, answered by an `invokeResponse` |
//! | `{"type":"cancelInvocation","invocationId":"1"}` | the client no longer waits for that |
//! | `{"type":"sequenceAck","sequenceId":17}` | reliable only: everything up to there has arrived |
//! | `{"type":"ping"}` | answered by `{"type":"pong"}` |
//!
//! `ackId` is a number that the client chooses; without one it gets no ack. `dataType` is `json` (any value; the
//! default), `text` (a string), `binary` or `protobuf` (base64 text), in letters of any case. Data that is absent is
//! null, which is not sent to groups. A message of another form ends the connection.
//!
//! # To the client
//!
//! | message | when |
//! | --- | --- |
//! | `{"type":"system","event":"connected","userId":"u","connectionId":"c","reconnectionToken":"t"}` | first, and first again on each new socket of a reliable connection; the token is for those only |
//! | `{"type":"ack","ackId":3,"success":true}` | a request was done |
//! | `{"type":"ack","ackId":3,"success":false,"error":{"name":"Forbidden","message":"…"}}` | it was not. Names: `Forbidden`, `BadRequest`, `InternalServerError`, and `Duplicate` where a connection repeats the `ackId` of a `sendToGroup` or, of a reliable connection, an `event` that was done, on whatever node |
//! | `{"type":"message","from":"group","group":"g","fromUserId":"u","dataType":"json","data":…,"sequenceId":17}` | a message for a group |
//! | `{"type":"message","from":"server","dataType":"json","data":…,"sequenceId":18}` | a message for the user, the connection or all |
//! | `{"type":"invokeResponse","invocationId":"1","success":true,"dataType":"json","data":…}` | the result of an `invoke`; failed ones have `success: false` and `error` |
//! | `{"type":"system","event":"disconnected","message":"…"}` | the server ends the connection |
//!
//! A WebSocket Close frame with code 1008 means that the connection is over: the official clients begin a new one. Any other
//! end of a reliable connection's socket, also none, makes them come back with `awps_connection_id` and
//! `awps_reconnection_token` in the query: at once, then each second for 30 seconds.
//!
//! # Sequence ids
//!
//! The protocol asks for numbers that grow with each message of a connection. Here they are the messages' offsets in the
//! hub's log: they are the same for all receivers, so a message is written once for all of them, they need not be kept
//! for each client, and a client's last `sequenceAck` says exactly from where on the log is replayed, on whatever node.
//!
//! Messages that a client has not acknowledged are kept for it in the log as long as the hub keeps messages. Joining
//! and leaving may be repeated without harm. An event with an `ackId` is called once: its answer comes with the
//! replayed messages, or says that its node has died.
//!
//! # Among other clients
//!
//! A message of a Web PubSub client is a call of `message` with the data as its only argument for SignalR clients, and an
//! event `message` for an `EventSource`. Bytes are base64 text, for MessagePack bytes. The other way round, a call of `message`
//! with one argument is a message with that as data, unless it is null: the official .NET client can't bear that. Any other call
//! is one with `{"target":"name","arguments":[…]}` as JSON data. An `invokeResponse` without a result has no `data`.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use bytes::Bytes;

use super::client::{ClientMessage, Data, DataType, GroupSend, MESSAGE, Request, RequestWish};
use super::json::{self, Property, properties};
use super::{Binary, DecodeError, EncodeError, Encoding, HubMessage, Invocation, Outcome, Value};

const NAMES: [&str; 10] = [
    "type",
    "group",
    "ackId",
    "noEcho",
    "dataType",
    "data",
    "event",
    "sequenceId",
    "invocationId",
    "target",
];

/// Calls of methods have ids of their own: their first letter shows the client's kind of request.
const BY_EVENT: char = 'a';
const BY_INVOKE: char = 'i';

/// Returns whether the client wants a call's result, and no message besides.
pub(crate) fn is_invoke(invocation_id: &str) -> bool {
    invocation_id.starts_with(BY_INVOKE)
}

/// The `ackId` of a call that is an event.
pub(crate) fn event_ack_id(invocation_id: &str) -> Option<u64> {
    invocation_id.strip_prefix(BY_EVENT)?.parse().ok()
}

/// Reads one frame.
pub(super) fn decode(frame: &Bytes) -> Result<ClientMessage, DecodeError> {
    let text = json::checked_text(frame)?;
    let [
        kind,
        group,
        ack_id,
        no_echo,
        data_type,
        data,
        event,
        sequence_id,
        invocation_id,
        target,
    ] = properties(text, NAMES)?;
    let ack_id = || ack_id.optional("an integer that is not negative");
    let request = |wish| {
        Ok(ClientMessage::Request(Request {
            ack_id: ack_id()?,
            wish,
        }))
    };
    let group = || group.required::<String>("a string");
    let data = |default| read_data(frame, data_type, data, default);
    let call = |invocation_id, default| {
        let data = data(default)?;
        Ok(ClientMessage::Hub(HubMessage::Invocation(Invocation {
            invocation_id,
            target: event.required("a string")?,
            data_type: data.as_ref().map(|data| data.kind),
            arguments: data.map(|data| data.json).into_iter().collect(),
            ..Invocation::default()
        })))
    };
    let kind: String = kind.required("a string")?;
    match kind.as_str() {
        "joinGroup" => request(RequestWish::Join(group()?)),
        "leaveGroup" => request(RequestWish::Leave(group()?)),
        "sendToGroup" => request(RequestWish::Send(GroupSend {
            group: group()?,
            no_echo: no_echo.optional("a boolean")?.unwrap_or_default(),
            data: data(true)?.ok_or(DecodeError::Missing { property: "data" })?,
        })),
        "event" => call(ack_id()?.map(|id: u64| format!("{BY_EVENT}{id}")), true),
        "invoke" => {
            let kind: Option<String> = target.optional("a string")?;
            if kind.is_some_and(|kind| kind != "event") {
                return Err(DecodeError::WrongType {
                    property: "target",
                    expected: "\"event\"",
                });
            }
            let id: String = invocation_id.required("a string")?;
            call(Some(format!("{BY_INVOKE}{id}")), false)
        }
        "cancelInvocation" => {
            let id: String = invocation_id.required("a string")?;
            Ok(ClientMessage::Hub(HubMessage::CancelInvocation {
                headers: Vec::new(),
                invocation_id: format!("{BY_INVOKE}{id}"),
            }))
        }
        "sequenceAck" => Ok(ClientMessage::Hub(HubMessage::Ack {
            sequence_id: sequence_id.required("an integer that is not negative")?,
        })),
        "ping" => Ok(ClientMessage::Hub(HubMessage::Ping)),
        kind => Err(DecodeError::UnknownMessage {
            kind: kind.chars().take(64).collect(),
        }),
    }
}

/// The data of a message. `default`: where neither data nor its type are there, it is null.
fn read_data(
    frame: &Bytes,
    kind: Property<'_>,
    data: Property<'_>,
    default: bool,
) -> Result<Option<Data>, DecodeError> {
    let named: Option<String> = kind.optional("a string")?;
    // The .NET client begins it with a capital.
    let kind = match named.as_deref().map(str::to_ascii_lowercase).as_deref() {
        None | Some("json") => DataType::Json,
        Some("text") => DataType::Text,
        Some("binary") => DataType::Binary,
        Some("protobuf") => DataType::Protobuf,
        Some(_) => {
            return Err(DecodeError::WrongType {
                property: "dataType",
                expected: "json, text, binary or protobuf",
            });
        }
    };
    let json = match (data.value(frame), kind) {
        (Some(json), _) => json,
        (None, DataType::Json) if default || named.is_some() => Value::null(Encoding::Json),
        (None, DataType::Json) => return Ok(None),
        (None, _) => return Err(DecodeError::Missing { property: "data" }),
    };
    let packed = match kind {
        DataType::Json => None,
        DataType::Text => {
            data.required::<String>("a string")?;
            None
        }
        DataType::Binary | DataType::Protobuf => Some(bytes_of(data)?),
    };
    Ok(Some(Data { kind, json, packed }))
}

fn bytes_of(data: Property<'_>) -> Result<Value, DecodeError> {
    let no_base64 = DecodeError::WrongType {
        property: "data",
        expected: "base64 text",
    };
    let text: String = data.required("base64 text")?;
    let Ok(bytes) = BASE64.decode(text.as_bytes()) else {
        return Err(no_base64);
    };
    Value::encode_as(&Binary(bytes), Encoding::MessagePack).map_err(|_| no_base64)
}

/// Writes a message to one client. `None`: there is none of that kind.
pub(super) fn encode(message: &HubMessage) -> Result<Option<Bytes>, EncodeError> {
    Ok(match message {
        HubMessage::Completion {
            invocation_id,
            outcome,
            ..
        } => completion(invocation_id, outcome)?,
        HubMessage::Close { error, .. } => Some(disconnected(error.as_deref())),
        _ => None,
    })
}

fn completion(id: &str, outcome: &Outcome) -> Result<Option<Bytes>, EncodeError> {
    if let Some(ack_id) = event_ack_id(id) {
        let refused = match outcome {
            Outcome::Error(text) => Err((RefusedAs::InternalServerError, text.as_str())),
            Outcome::Void | Outcome::Result(_) => Ok(()),
        };
        return Ok(Some(ack(ack_id, refused)));
    }
    let Some(id) = id.strip_prefix(BY_INVOKE) else {
        return Ok(None);
    };
    let mut out = br#"{"type":"invokeResponse","invocationId":"#.to_vec();
    json::write_string(&mut out, id);
    match outcome {
        Outcome::Error(text) => {
            out.extend_from_slice(br#","success":false,"error":"#);
            write_error(&mut out, RefusedAs::InternalServerError, text);
        }
        Outcome::Void => out.extend_from_slice(br#","success":true"#),
        Outcome::Result(value) if value.is_null() => out.extend_from_slice(br#","success":true"#),
        Outcome::Result(value) => {
            let kind: &[u8] = if value.is_bytes() { b"binary" } else { b"json" };
            out.extend_from_slice(br#","success":true,"dataType":""#);
            out.extend_from_slice(kind);
            out.extend_from_slice(br#"","data":"#);
            out.extend_from_slice(value.transcode(Encoding::Json)?.bytes());
        }
    }
    out.push(b'}');
    Ok(Some(out.into()))
}

/// The reason why a request was not done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RefusedAs {
    Forbidden,
    BadRequest,
    InternalServerError,
    /// The request was done before. The clients take that for success.
    Duplicate,
}

impl RefusedAs {
    fn name(self) -> &'static str {
        match self {
            Self::Forbidden => "Forbidden",
            Self::BadRequest => "BadRequest",
            Self::InternalServerError => "InternalServerError",
            Self::Duplicate => "Duplicate",
        }
    }
}

/// The text of an answer with the name [`RefusedAs::Duplicate`].
pub(crate) fn duplicate(ack_id: u64) -> String {
    format!("Message with ack-id: {ack_id} has been processed")
}

/// Writes the ack of a request. The clients expect name and text of an error.
pub(crate) fn ack(ack_id: u64, outcome: Result<(), (RefusedAs, &str)>) -> Bytes {
    let mut out = format!(r#"{{"type":"ack","ackId":{ack_id},"success":{}"#, outcome.is_ok()).into_bytes();
    if let Err((name, text)) = outcome {
        out.extend_from_slice(br#","error":"#);
        write_error(&mut out, name, text);
    }
    out.push(b'}');
    out.into()
}

fn write_error(out: &mut Vec<u8>, name: RefusedAs, text: &str) {
    out.extend_from_slice(format!(r#"{{"name":"{}","message":"#, name.name()).as_bytes());
    json::write_string(out, text);
    out.push(b'}');
}

pub(crate) fn pong() -> Bytes {
    Bytes::from_static(br#"{"type":"pong"}"#)
}

/// The first message on a socket.
pub(crate) fn connected(connection: &str, user: Option<&str>, reconnection_token: Option<&str>) -> Bytes {
    let mut out = br#"{"type":"system","event":"connected""#.to_vec();
    let fields = [
        ("userId", user),
        ("connectionId", Some(connection)),
        ("reconnectionToken", reconnection_token),
    ];
    for (name, value) in fields {
        if let Some(value) = value {
            out.extend_from_slice(format!(r#","{name}":"#).as_bytes());
            json::write_string(&mut out, value);
        }
    }
    out.push(b'}');
    out.into()
}

fn disconnected(error: Option<&str>) -> Bytes {
    let mut out = br#"{"type":"system","event":"disconnected","message":"#.to_vec();
    json::write_string(&mut out, error.unwrap_or("The connection was closed."));
    out.push(b'}');
    out.into()
}

/// A published message, for clients without a hub protocol.
pub(crate) struct Published<'a> {
    /// The group that it is for; `None` where it is for a user, a connection or all.
    pub(crate) group: Option<&'a str>,
    /// The user who sent it; empty where there is none.
    pub(crate) from_user: &'a str,
    pub(crate) data_type: DataType,
    pub(crate) target: &'a str,
    /// The arguments in JSON.
    pub(crate) arguments: &'a [Value],
}

/// Writes a published message for every receiver; the sequence id for reliable connections only.
pub(crate) fn message(published: &Published<'_>, sequence_id: Option<u64>) -> Bytes {
    let size: usize = published.arguments.iter().map(|value| value.bytes().len()).sum();
    let mut out = Vec::with_capacity(size.saturating_add(160));
    match published.group {
        Some(group) => {
            out.extend_from_slice(br#"{"type":"message","from":"group","group":"#);
            json::write_string(&mut out, group);
        }
        None => out.extend_from_slice(br#"{"type":"message","from":"server""#),
    }
    if !published.from_user.is_empty() {
        out.extend_from_slice(br#","fromUserId":"#);
        json::write_string(&mut out, published.from_user);
    }
    let kind: &[u8] = match published.data_type {
        DataType::Json => br#","dataType":"json","data":"#,
        DataType::Text => br#","dataType":"text","data":"#,
        DataType::Binary => br#","dataType":"binary","data":"#,
        DataType::Protobuf => br#","dataType":"protobuf","data":"#,
    };
    out.extend_from_slice(kind);
    match published.arguments {
        [data] if published.target == MESSAGE && !data.is_null() => out.extend_from_slice(data.bytes()),
        arguments => {
            out.extend_from_slice(br#"{"target":"#);
            json::write_string(&mut out, published.target);
            out.extend_from_slice(br#","arguments":"#);
            json::write_array(&mut out, arguments);
            out.push(b'}');
        }
    }
    if let Some(id) = sequence_id {
        out.extend_from_slice(format!(r#","sequenceId":{id}"#).as_bytes());
    }
    out.push(b'}');
    out.into()
}

#[cfg(test)]
#[path = "tests/webpubsub.rs"]
mod tests;
