//! The schema `azure.webpubsub` of the clients' messages, as far as it is used here: fields that are not are skipped, and
//! take no memory.
//!
//! Texts are bytes here where they are copied on anyway, so that a message is not copied twice. Whoever reads them checks them.
#![allow(
    missing_docs,
    reason = "named as in the schema, which the module's parent describes"
)]

use bytes::Bytes;
use prost::{DecodeError, Message, Oneof, decode_length_delimiter};

/// `google.protobuf.Any`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Any {
    #[prost(string, tag = "1")]
    pub(super) type_url: String,
    #[prost(bytes = "bytes", tag = "2")]
    pub(super) value: Bytes,
}

impl Any {
    /// The encoded `Any` without fields that it does not have: these may nest deeper than clients read.
    pub(super) fn checked(encoded: Bytes) -> Result<Bytes, DecodeError> {
        let any = Self::decode(encoded.clone())?;
        if has_only(&encoded, &[0x0A, 0x12]) {
            Ok(encoded)
        } else {
            Ok(any.encode_to_vec().into())
        }
    }
}

/// Returns whether each field has one of these keys, which are a field's number and the type of its value, and a length.
fn has_only(mut encoded: &[u8], keys: &[usize]) -> bool {
    while !encoded.is_empty() {
        let key = decode_length_delimiter(&mut encoded);
        let length = decode_length_delimiter(&mut encoded);
        let (Ok(key), Ok(length)) = (key, length) else {
            return false;
        };
        match encoded.split_at_checked(length) {
            Some((_, rest)) if keys.contains(&key) => encoded = rest,
            _ => return false,
        }
    }
    true
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct MessageData {
    #[prost(oneof = "Data", tags = "1, 2, 3, 4")]
    pub(super) data: Option<Data>,
}

#[derive(Clone, PartialEq, Oneof)]
pub(super) enum Data {
    /// Text.
    #[prost(bytes = "bytes", tag = "1")]
    Text(Bytes),
    #[prost(bytes = "bytes", tag = "2")]
    Binary(Bytes),
    /// An encoded [`Any`], as it came.
    #[prost(bytes = "bytes", tag = "3")]
    Protobuf(Bytes),
    /// Text.
    #[prost(bytes = "bytes", tag = "4")]
    Json(Bytes),
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct UpstreamMessage {
    #[prost(oneof = "Upstream", tags = "1, 5, 6, 7, 8, 9")]
    pub(super) message: Option<Upstream>,
}

#[derive(Clone, PartialEq, Oneof)]
pub(super) enum Upstream {
    #[prost(message, tag = "1")]
    SendToGroup(SendToGroup),
    #[prost(message, tag = "5")]
    Event(Event),
    #[prost(message, tag = "6")]
    JoinGroup(Group),
    #[prost(message, tag = "7")]
    LeaveGroup(Group),
    #[prost(message, tag = "8")]
    SequenceAck(SequenceAck),
    #[prost(message, tag = "9")]
    Ping(Empty),
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct SendToGroup {
    #[prost(string, tag = "1")]
    pub(super) group: String,
    #[prost(uint64, optional, tag = "2")]
    pub(super) ack_id: Option<u64>,
    #[prost(message, optional, tag = "3")]
    pub(super) data: Option<MessageData>,
    #[prost(bool, optional, tag = "4")]
    pub(super) no_echo: Option<bool>,
    #[prost(uint32, optional, tag = "5")]
    pub(super) ttl_seconds: Option<u32>,
    /// Each an encoded [`Entry`].
    #[prost(bytes = "bytes", repeated, tag = "6")]
    pub(super) metadata: Vec<Bytes>,
    /// There where it begins a stream.
    #[prost(bytes = "bytes", optional, tag = "7")]
    pub(super) stream: Option<Bytes>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Event {
    #[prost(string, tag = "1")]
    pub(super) event: String,
    #[prost(message, optional, tag = "2")]
    pub(super) data: Option<MessageData>,
    #[prost(uint64, optional, tag = "3")]
    pub(super) ack_id: Option<u64>,
    /// Each an encoded [`Entry`].
    #[prost(bytes = "bytes", repeated, tag = "4")]
    pub(super) metadata: Vec<Bytes>,
}

/// An entry of a map.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Entry {
    #[prost(string, tag = "1")]
    pub(super) key: String,
    #[prost(string, tag = "2")]
    pub(super) value: String,
}

/// `JoinGroupMessage` and `LeaveGroupMessage`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Group {
    #[prost(string, tag = "1")]
    pub(super) group: String,
    #[prost(uint64, optional, tag = "2")]
    pub(super) ack_id: Option<u64>,
}

#[derive(Clone, Copy, PartialEq, Message)]
pub(super) struct SequenceAck {
    #[prost(uint64, tag = "1")]
    pub(super) sequence_id: u64,
}

#[derive(Clone, Copy, PartialEq, Message)]
pub(super) struct Empty {}

#[derive(Clone, PartialEq, Message)]
pub(super) struct DownstreamMessage {
    #[prost(oneof = "Downstream", tags = "1, 2, 3, 4")]
    pub(super) message: Option<Downstream>,
}

#[derive(Clone, PartialEq, Oneof)]
pub(super) enum Downstream {
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
pub(super) struct Ack {
    #[prost(uint64, tag = "1")]
    pub(super) ack_id: u64,
    #[prost(bool, tag = "2")]
    pub(super) success: bool,
    #[prost(message, optional, tag = "3")]
    pub(super) error: Option<Error>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Error {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(string, tag = "2")]
    pub(super) message: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct DataMessage {
    #[prost(string, tag = "1")]
    pub(super) from: String,
    #[prost(string, optional, tag = "2")]
    pub(super) group: Option<String>,
    #[prost(message, optional, tag = "3")]
    pub(super) data: Option<MessageData>,
    #[prost(uint64, optional, tag = "4")]
    pub(super) sequence_id: Option<u64>,
    /// Each an encoded [`Entry`].
    #[prost(bytes = "bytes", repeated, tag = "5")]
    pub(super) metadata: Vec<Bytes>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct System {
    #[prost(oneof = "SystemEvent", tags = "1, 2")]
    pub(super) message: Option<SystemEvent>,
}

#[derive(Clone, PartialEq, Oneof)]
pub(super) enum SystemEvent {
    #[prost(message, tag = "1")]
    Connected(Connected),
    #[prost(message, tag = "2")]
    Disconnected(Disconnected),
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Connected {
    #[prost(string, tag = "1")]
    pub(super) connection_id: String,
    #[prost(string, tag = "2")]
    pub(super) user_id: String,
    #[prost(string, optional, tag = "3")]
    pub(super) reconnection_token: Option<String>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Disconnected {
    #[prost(string, tag = "2")]
    pub(super) reason: String,
}
