//! The nine messages of the hub protocol, independent of how they are written.

use std::slice;

use super::{DataType, Value};

/// Opaque string pairs that types 1 to 5 may carry. The gateway passes them on and never requires one.
/// Names are unique in decoded messages: of two equal ones the last is kept.
pub type Headers = Vec<(String, String)>;

/// One message between a client and the gateway, in either direction.
///
/// Any value of this type can be encoded, also a message that only the other side would send.
#[derive(Clone, PartialEq, Debug)]
pub enum HubMessage {
    /// Type 1: call `target`. Without an invocation id the caller wants no completion.
    Invocation(Invocation),
    /// Type 2: one item of a stream, either way.
    StreamItem {
        /// See [`Headers`].
        headers: Headers,
        /// The id of the stream; never empty in decoded messages.
        invocation_id: String,
        /// The item.
        item: Value,
    },
    /// Type 3: the single end of an invocation or a stream.
    Completion {
        /// See [`Headers`].
        headers: Headers,
        /// The invocation or stream that ends; never empty in decoded messages.
        invocation_id: String,
        /// How it ended.
        outcome: Outcome,
    },
    /// Type 4: call `target` and stream its results. Decoded ones always have an invocation id.
    StreamInvocation(Invocation),
    /// Type 5: the caller no longer wants the results of this invocation.
    CancelInvocation {
        /// See [`Headers`].
        headers: Headers,
        /// The invocation to end; never empty in decoded messages.
        invocation_id: String,
    },
    /// Type 6: a sign of life.
    Ping,
    /// Type 7: the sender is about to close the connection.
    Close {
        /// The error, if the connection ends with one.
        error: Option<String>,
        /// True if the client may reconnect by itself.
        allow_reconnect: bool,
    },
    /// Type 8: every counted message up to this one has arrived.
    Ack {
        /// Number of the last counted message received.
        sequence_id: u64,
    },
    /// Type 9: the first message after a reconnect.
    Sequence {
        /// Number of the oldest message that was not acknowledged yet.
        sequence_id: u64,
    },
}

impl HubMessage {
    /// The number that says on the wire which message this is.
    pub fn type_id(&self) -> u8 {
        match self {
            HubMessage::Invocation(_) => 1,
            HubMessage::StreamItem { .. } => 2,
            HubMessage::Completion { .. } => 3,
            HubMessage::StreamInvocation(_) => 4,
            HubMessage::CancelInvocation { .. } => 5,
            HubMessage::Ping => 6,
            HubMessage::Close { .. } => 7,
            HubMessage::Ack { .. } => 8,
            HubMessage::Sequence { .. } => 9,
        }
    }

    /// Returns whether stateful reconnect numbers this message: types 1 to 5 are counted, the rest is not.
    pub fn is_counted(&self) -> bool {
        self.type_id() <= 5
    }

    /// All values in the message that have an encoding of their own.
    pub fn values(&self) -> &[Value] {
        match self {
            HubMessage::Invocation(call) | HubMessage::StreamInvocation(call) => &call.arguments,
            HubMessage::StreamItem { item: value, .. }
            | HubMessage::Completion {
                outcome: Outcome::Result(value),
                ..
            } => slice::from_ref(value),
            _ => &[],
        }
    }

    pub(super) fn values_mut(&mut self) -> &mut [Value] {
        match self {
            HubMessage::Invocation(call) | HubMessage::StreamInvocation(call) => &mut call.arguments,
            HubMessage::StreamItem { item: value, .. }
            | HubMessage::Completion {
                outcome: Outcome::Result(value),
                ..
            } => slice::from_mut(value),
            _ => &mut [],
        }
    }
}

/// The content of messages of types 1 and 4.
#[derive(Clone, PartialEq, Default, Debug)]
pub struct Invocation {
    /// See [`Headers`].
    pub headers: Headers,
    /// Chosen by the caller. `None`, not an empty string, means that the caller wants no completion.
    pub invocation_id: Option<String>,
    /// The name of the method.
    pub target: String,
    /// The arguments without the streams.
    pub arguments: Vec<Value>,
    /// Ids of the streams that the caller will upload, in the order of the method's parameters.
    pub stream_ids: Vec<String>,
    /// The kind of the one argument, from clients that name it. No hub protocol does.
    pub data_type: Option<DataType>,
}

/// How an invocation or a stream ended.
#[derive(Clone, PartialEq, Debug)]
pub enum Outcome {
    /// No value: the end of a stream, or of a call without result.
    Void,
    /// The result, which may be null.
    Result(Value),
    /// The text of the error.
    Error(String),
}
