//! Azure Web PubSub's subprotocols, as its official clients speak them. In `json.webpubsub.azure.v1` and
//! `json.reliable.webpubsub.azure.v1` each WebSocket text frame is one JSON object, in `protobuf.webpubsub.azure.v1` and
//! `protobuf.reliable.webpubsub.azure.v1` each binary frame is one message of protobuf: see [below](#in-protobuf).
//!
//! Sources: the client protocol's specification (`protocols/client/client-spec.md` in Azure/azure-webpubsub), its public
//! documentation, the schema of the service's emulator, and the clients `@azure/web-pubsub-client` 1.1,
//! `azure-messaging-webpubsubclient` 1.1 and `Azure.Messaging.WebPubSub.Client` 1.0 with its protobuf protocol.
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
//! | `{"type":"setGroupState","group":"g","state":{"name":"value"},"ackId":5}` | sets the client's state in a group that it is in, in place of an earlier one; without `state` it is cleared |
//! | `{"type":"subscribeGroupState","group":"g","ackId":6}` | the client gets the states of the group's members, and each change from there on |
//! | `{"type":"unsubscribeGroupState","group":"g","ackId":7}` | and gets them no more |
//! | `{"type":"sendToGroup","group":"g","stream":{"streamId":"s","idleTimeoutMs":300000},"noEcho":false}` | begins a stream to the group, see [below](#streams) |
//! | `{"type":"streamData","streamId":"s","streamSequenceId":1,"dataType":"text","data":"…"}` | a fragment of it, numbered from 1 |
//! | `{"type":"streamData","streamId":"s"}` | nothing to say yet, but the stream goes on |
//! | `{"type":"streamEnd","streamId":"s","error":{"message":"…","userErrorCode":"…"}}` | ends it; an error is optional |
//! | `{"type":"sequenceAck","sequenceId":17}` | reliable only: everything up to there has arrived |
//! | `{"type":"ping"}` | answered by `{"type":"pong"}` |
//!
//! `ackId` is a number that the client chooses; without one it gets no ack. `dataType` is `json` (any value; the
//! default), `text` (a string), `binary` or `protobuf` (base64 text), in letters of any case. Data that is absent is
//! null, which is not sent to groups. `ttlSeconds` of a `sendToGroup`, up to 300, is how long connections receive it; 0 is as
//! long as they may. `metadata` of an `event` or `invoke`, `{"name":"value"}`, are the headers of the call
//! ([`Context::invocation_headers`](crate::Context::invocation_headers)), and of a handler's request. Those of a `sendToGroup` are
//! a property of the message; with them `data` may be absent, and is an empty text. A message of another form ends the connection.
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
//! | `{"type":"groupStateSnapshot","group":"g","items":[{"connectionId":"c","userId":"u","state":{"name":"value"},"updatedAt":1790000000000}]}` | the states of a group, after the ack of a `subscribeGroupState`, and again after each recovery; without `userId` the member has no user |
//! | `{"type":"groupStateUpdate","group":"g","items":[…]}` | a state has changed; without `state` it was cleared, or its connection has left the group |
//! | `{"type":"invokeResponse","invocationId":"1","success":true,"dataType":"json","data":…}` | the result of an `invoke`, of the kind that its handler names; failed ones have `success: false` and `error` |
//! | `{"type":"system","event":"disconnected","message":"…"}` | the server ends the connection |
//! | `"metadata":{"name":"value"}` in a message | its sender has given it some |
//! | `"stream":{"streamId":"s","streamSequenceId":1}` in a message for a group | it is a fragment of a stream; the end of one has `"endOfStream":true`, an empty text as data and, if it has one, `"error":{"name":"…","message":"…","userErrorCode":"…"}` |
//! | `{"type":"streamAck","streamId":"s","expectedSequenceId":2}` | all fragments of the client's stream before that number were published; 1: it has begun |
//! | `{"type":"streamNack","streamId":"s","name":"InvalidSequenceId","message":"…","expectedSequenceId":2}` | a fragment was not taken: the one with that number is missing |
//! | `{"type":"streamClosed","streamId":"s","error":{"name":"…","message":"…"}}` | the stream is over; without `error` its client has ended it. Names: `StreamNotFound`, `Forbidden`, `BadRequest`, `InternalServerError`, `IdleTimeout` |
//!
//! A WebSocket Close frame with code 1008 means that the connection is over: the official clients begin a new one. Any other
//! end of a reliable connection's socket, also none, makes them come back with `awps_connection_id` and
//! `awps_reconnection_token` in the query: at once, then each second for 30 seconds.
//!
//! # In protobuf
//!
//! The package is `azure.webpubsub`, in proto3. A client sends an `UpstreamMessage`, which has one of
//!
//! | field | message |
//! | --- | --- |
//! | 1 | `SendToGroupMessage`: `group` 1, `ack_id` 2, `data` 3, `no_echo` 4, `ttl_seconds` 5, `metadata` 6 (a map), `stream` 7 (is refused) |
//! | 5 | `EventMessage`: `event` 1, `data` 2, `ack_id` 3, `metadata` 4 (a map) |
//! | 6, 7 | `JoinGroupMessage`, `LeaveGroupMessage`: `group` 1, `ack_id` 2 |
//! | 8 | `SequenceAckMessage`: `sequence_id` 1 |
//! | 9 | `PingMessage`: empty |
//!
//! and is sent a `DownstreamMessage`, which has one of
//!
//! | field | message |
//! | --- | --- |
//! | 1 | `AckMessage`: `ack_id` 1, `success` 2, `error` 3 (`name` 1, `message` 2) |
//! | 2 | `DataMessage`: `from` 1, `group` 2, `data` 3, `sequence_id` 4, `metadata` 5 (a map); its sender's user is not in the schema |
//! | 3 | `SystemMessage`: `connected_message` 1 (`connection_id` 1, `user_id` 2, `reconnection_token` 3) or `disconnected_message` 2 (`reason` 2) |
//! | 4 | `PongMessage`: empty |
//!
//! `MessageData` is `text_data` 1, `binary_data` 2, `protobuf_data` 3 (a `google.protobuf.Any`) or `json_data` 4 (JSON as
//! text). All mean what they mean in JSON: `protobuf_data` is data of the type `protobuf` for clients with JSON, base64 text of
//! the encoded `Any`. Where such a client sends bytes under that name that are no `Any`, they are `binary_data` here. Unknown
//! fields are ignored, also those of an `Any`. A frame without a message is ignored where it is empty, which the official .NET
//! client sends in place of an `invoke`; one whose message is none of these ends the connection, as does a text frame, with the
//! code 1003. The schema has no `invoke`, nothing about the states of
//! groups, and no more of streams than their beginning.
//!
//! # Streams
//!
//! A stream is many messages to a group, in an order of their own; its id is unique among those that its connection has open. The
//! backplane counts the fragments in the step that publishes them, so none is published twice or out of order, whatever its client
//! repeats on whatever node: one that was taken before is acknowledged again, and only the next one is taken. Receivers of
//! other protocols get fragments as messages, and no end.
//!
//! A client whose reliable connection goes on after a lost socket repeats what was not acknowledged. Its streams go on as well, and
//! messages about one that it has ended are answered as the first time. All other streams end with their connection, with the
//! error `Cancelled`; others for receivers are `UserError`, `IdleTimeout`, `Forbidden` and `InternalServerError`.
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
//! Messages about the states of groups have none: the official clients would not acknowledge them. So they are neither kept nor
//! replayed. A client that comes back gets a new snapshot of each group that it follows, and the changes after that.
//!
//! # Among other clients
//!
//! A message of a Web PubSub client is a call of `message` with the data as its only argument for SignalR clients, and an
//! event `message` for an `EventSource`. Bytes are base64 text, for MessagePack bytes. The other way round, a call of `message`
//! with one argument is a message with that as data, unless it is null: the official .NET client can't bear that. Any other call
//! is one with `{"target":"name","arguments":[…]}` as JSON data. An `invokeResponse` without a result has no `data`.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

mod group_states;
mod json;
mod metadata;
mod protobuf;
mod schema;
mod stream;

use std::collections::BTreeMap;

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use bytes::Bytes;
use prost::Message as _;
use serde_json::value::RawValue;

pub(crate) use group_states::StatesMessage;

use super::client::{ClientMessage, DataType, MESSAGE, Request, RequestWish};
use super::{Binary, DecodeError, EncodeError, Headers, HubMessage, Outcome, Value};

pub(crate) use stream::{EndError, Fragment, FragmentError, StreamRequest};

/// A subprotocol of Azure Web PubSub.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum WebPubSubProtocol {
    /// `json.webpubsub.azure.v1`.
    Json,
    /// `json.reliable.webpubsub.azure.v1`: with acknowledged messages, so that a lost socket is replaced, on any node, and
    /// nothing is missed.
    ReliableJson,
    /// `protobuf.webpubsub.azure.v1`.
    Protobuf,
    /// `protobuf.reliable.webpubsub.azure.v1`.
    ReliableProtobuf,
}

/// The two ways in which messages are written.
#[derive(Clone, Copy)]
enum Format {
    Json,
    Protobuf,
}

impl WebPubSubProtocol {
    /// Every subprotocol.
    pub const ALL: [Self; 4] = [
        Self::Json,
        Self::ReliableJson,
        Self::Protobuf,
        Self::ReliableProtobuf,
    ];

    /// The name of the WebSocket subprotocol.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Json => "json.webpubsub.azure.v1",
            Self::ReliableJson => "json.reliable.webpubsub.azure.v1",
            Self::Protobuf => "protobuf.webpubsub.azure.v1",
            Self::ReliableProtobuf => "protobuf.reliable.webpubsub.azure.v1",
        }
    }

    /// The subprotocol of that name.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.name() == name)
    }

    /// Returns whether messages are acknowledged, and connections outlive their sockets.
    #[must_use]
    pub fn is_reliable(self) -> bool {
        matches!(self, Self::ReliableJson | Self::ReliableProtobuf)
    }

    /// Returns whether its frames are binary.
    #[must_use]
    pub fn is_binary(self) -> bool {
        matches!(self.format(), Format::Protobuf)
    }

    fn format(self) -> Format {
        match self {
            Self::Json | Self::ReliableJson => Format::Json,
            Self::Protobuf | Self::ReliableProtobuf => Format::Protobuf,
        }
    }

    /// Reads one frame.
    pub(super) fn decode(self, frame: &Bytes) -> Result<ClientMessage, DecodeError> {
        match self.format() {
            Format::Json => json::decode(frame),
            Format::Protobuf => protobuf::decode(frame),
        }
    }

    /// Writes a message to one client. `None`: there is none of that kind.
    pub(super) fn encode(self, message: &HubMessage) -> Result<Option<Bytes>, EncodeError> {
        match message {
            HubMessage::Completion {
                invocation_id,
                outcome,
                ..
            } => self.completion(invocation_id, outcome),
            HubMessage::Close { error, .. } => {
                let reason = error.as_deref().unwrap_or("The connection was closed.");
                Ok(Some(match self.format() {
                    Format::Json => json::disconnected(reason),
                    Format::Protobuf => protobuf::disconnected(reason),
                }))
            }
            _ => Ok(None),
        }
    }

    fn completion(self, id: &str, outcome: &Outcome) -> Result<Option<Bytes>, EncodeError> {
        if let Some(ack_id) = event_ack_id(id) {
            let refused = match outcome {
                Outcome::Error(text) => Err((RefusedAs::InternalServerError, text.as_str())),
                Outcome::Void | Outcome::Result(_) => Ok(()),
            };
            return Ok(Some(self.ack(ack_id, refused)));
        }
        match (self.format(), id.strip_prefix(BY_INVOKE)) {
            (Format::Json, Some(id)) => json::invoke_response(id, outcome).map(Some),
            (Format::Protobuf, Some(_)) | (_, None) => Ok(None),
        }
    }

    /// Writes the ack of a request. The clients expect name and text of an error.
    pub(crate) fn ack(self, ack_id: u64, outcome: Result<(), (RefusedAs, &str)>) -> Bytes {
        match self.format() {
            Format::Json => json::ack(ack_id, outcome),
            Format::Protobuf => protobuf::ack(ack_id, outcome),
        }
    }

    /// Returns whether its clients have streams to groups, and are told of their ends.
    pub(crate) fn has_streams(self) -> bool {
        matches!(self.format(), Format::Json)
    }

    /// Writes that all fragments of a stream before the number `expected` were taken.
    pub(crate) fn stream_ack(id: &str, expected: u64) -> Bytes {
        stream::ack(id, expected)
    }

    /// Writes that a fragment of a stream was not taken because the one with the number `expected` is missing.
    pub(crate) fn stream_nack(id: &str, text: &str, expected: u64) -> Bytes {
        stream::nack(id, text, expected)
    }

    /// Writes that a stream of the client is over; the error has a name and a text.
    pub(crate) fn stream_closed(id: &str, error: Option<(&str, &str)>) -> Bytes {
        stream::closed(id, error)
    }

    /// Writes the answer to a ping.
    pub(crate) fn pong(self) -> Bytes {
        match self.format() {
            Format::Json => json::pong(),
            Format::Protobuf => protobuf::pong(),
        }
    }

    /// Writes the first message on a socket.
    pub(crate) fn connected(self, connection: &str, user: Option<&str>, token: Option<&str>) -> Bytes {
        match self.format() {
            Format::Json => json::connected(connection, user, token),
            Format::Protobuf => protobuf::connected(connection, user, token),
        }
    }

    /// Writes a published message for every receiver; its offset is the sequence id of reliable connections.
    pub(crate) fn message(self, published: &Published<'_>, offset: u64) -> Bytes {
        let sequence_id = self.is_reliable().then_some(offset);
        match self.format() {
            Format::Json => json::message(published, sequence_id),
            Format::Protobuf => protobuf::message(published, sequence_id),
        }
    }
}

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
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Forbidden => "Forbidden",
            Self::BadRequest => "BadRequest",
            Self::InternalServerError => "InternalServerError",
            Self::Duplicate => "Duplicate",
        }
    }
}

/// Checks entries of metadata; the error is the rules that they break.
pub(crate) fn metadata(entries: impl Iterator<Item = (String, String)>) -> Result<Headers, &'static str> {
    let mut metadata = metadata::Metadata::default();
    for (name, value) in entries {
        if !metadata.add(&name, &value) {
            return Err(metadata::RULES);
        }
    }
    Ok(metadata.into_entries())
}

/// The text of an answer with the name [`RefusedAs::Duplicate`].
pub(crate) fn duplicate(ack_id: u64) -> String {
    format!("Message with ack-id: {ack_id} has been processed")
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
    /// The arguments in MessagePack, where their sender wrote them so, too.
    pub(crate) packed: &'a [Value],
    /// Texts with names beside the data.
    pub(crate) metadata: &'a [(&'a str, &'a str)],
    /// Its place in a stream, if it is of one.
    pub(crate) fragment: Option<Fragment<'a>>,
}

impl Published<'_> {
    /// The data and its kind. Without data, which is any call but one of [`MESSAGE`], the whole call is JSON.
    fn data(&self) -> (Option<&Value>, DataType) {
        match self.arguments {
            [data] if self.target == MESSAGE && !data.is_null() => (Some(data), self.data_type),
            _ => (None, DataType::Json),
        }
    }

    /// The data of a message that is bytes. `None`: it is none, whatever its kind says.
    fn bytes(&self) -> Option<Bytes> {
        if let [packed] = self.packed
            && let Some(bytes) = packed.byte_string()
        {
            return Some(bytes);
        }
        let text: String = self.data().0?.decode().ok()?;
        BASE64.decode(text).ok().map(Bytes::from)
    }

    /// Writes the whole call as JSON.
    fn write_call(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(br#"{"target":"#);
        super::json::write_string(out, self.target);
        out.extend_from_slice(br#","arguments":"#);
        super::json::write_array(out, self.arguments);
        out.push(b'}');
    }
}

/// Bytes as clients of the hub protocol get them in MessagePack.
fn byte_string(bytes: &[u8]) -> Option<Value> {
    Value::encode_as(&Binary(bytes.to_vec()), super::Encoding::MessagePack).ok()
}

/// Reads a client's frame. Where it is a message to a group, its data must be there for receivers of every subprotocol.
///
/// # Panics
///
/// It is not, or not the same.
#[doc(hidden)] // for the fuzz target
#[allow(clippy::panic, clippy::expect_used, reason = "a check")]
pub fn check_frame(protocol: WebPubSubProtocol, frame: &Bytes) {
    let Ok(ClientMessage::Request(Request {
        wish: RequestWish::Send(send),
        ..
    })) = protocol.decode(frame)
    else {
        return;
    };
    if send.data.json.check_readable().is_err() {
        return; // it is refused where it is published
    }
    let packed = Vec::from_iter(send.data.packed);
    let entries = send.metadata.iter();
    let metadata: Vec<_> = entries
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    let published = Published {
        group: Some(&send.group),
        from_user: "",
        data_type: send.data.kind,
        target: MESSAGE,
        arguments: std::slice::from_ref(&send.data.json),
        packed: &packed,
        metadata: &metadata,
        fragment: None,
    };
    let text = json::message(&published, Some(1));
    // The data as it is written: JSON has numbers that no type here has.
    let text: BTreeMap<&str, &RawValue> = serde_json::from_slice(&text).expect("it is JSON");
    let expected = text.get("data").expect("it has data").get();
    let expected_text = || serde_json::from_str::<String>(expected).ok();
    let bytes = protobuf::message(&published, Some(1));
    let reported = schema::DownstreamMessage::decode(bytes).expect("it is protobuf");
    let Some(schema::Downstream::Data(reported)) = reported.message else {
        panic!("a message to a group became {reported:?}")
    };
    let reported = reported.data.and_then(|data| data.data).expect("it has data");
    let same = match &reported {
        schema::Data::Text(text) => expected_text().is_some_and(|expected| expected.as_bytes() == text),
        schema::Data::Json(json) if send.data.json.is_null() => json.ends_with(b"[null]}"),
        schema::Data::Json(json) => {
            send.data.json.bytes() == json && expected.as_bytes() == json.trim_ascii()
        }
        schema::Data::Binary(bytes) => expected_text() == Some(BASE64.encode(bytes)),
        schema::Data::Protobuf(_) => expected_text().is_some(), // without the fields that an Any does not have
    };
    assert!(same, "{expected} became {reported:?}");
}

#[cfg(test)]
#[path = "tests/webpubsub_group_states.rs"]
mod group_states_tests;
#[cfg(test)]
#[path = "tests/webpubsub_metadata.rs"]
mod metadata_tests;
#[cfg(test)]
#[path = "tests/webpubsub_properties.rs"]
mod property_tests;
#[cfg(test)]
#[path = "tests/webpubsub_protobuf.rs"]
mod protobuf_tests;
#[cfg(test)]
#[path = "tests/webpubsub_streams.rs"]
mod stream_tests;
#[cfg(test)]
#[path = "tests/webpubsub.rs"]
mod tests;
