//! A byte stream to messages.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use bytes::Bytes;

use super::{
    HubMessage, HubProtocol, MAX_DEPTH, PackError,
    framing::{FrameBuffer, FrameError},
    json, messagepack,
};

/// Takes the bytes of one connection, cut anywhere, and gives its messages.
///
/// After [`push`](Self::push), call [`next_message`](Self::next_message) until it has no more: limits are
/// checked there. Without unfinished messages the decoder owns no memory.
#[derive(Debug)]
pub struct Decoder {
    protocol: HubProtocol,
    buffer: FrameBuffer,
    failed: bool,
}

impl Decoder {
    /// A decoder at the start of a stream. `max_message_bytes` is the limit of one message with its
    /// separator or length prefix; `usize::MAX` means none.
    pub fn new(protocol: HubProtocol, max_message_bytes: usize) -> Decoder {
        Decoder::with_buffer(protocol, FrameBuffer::new(max_message_bytes))
    }

    pub(super) fn with_buffer(protocol: HubProtocol, buffer: FrameBuffer) -> Decoder {
        Decoder {
            protocol,
            buffer,
            failed: false,
        }
    }

    /// How this decoder reads.
    pub fn protocol(&self) -> HubProtocol {
        self.protocol
    }

    /// Adds bytes that have arrived. After an error they are dropped.
    pub fn push(&mut self, bytes: &[u8]) {
        if !self.failed {
            self.buffer.push(bytes);
        }
    }

    /// The next message; `None` means that it has not arrived whole. Messages of unknown type are skipped.
    ///
    /// The message's values share one allocation that holds nothing but this message.
    ///
    /// # Errors
    ///
    /// The stream breaks a rule of the protocol or the size limit, also with a message that is not whole
    /// yet. The connection has to end: buffered bytes are dropped and there are no more messages.
    pub fn next_message(&mut self) -> Result<Option<HubMessage>, DecodeError> {
        let message = self.decode_next();
        if message.is_err() {
            self.failed = true;
            self.buffer.clear();
        }
        message
    }

    /// How many bytes have arrived that belong to no message yet.
    pub fn buffered_bytes(&self) -> usize {
        self.buffer.len()
    }

    /// The bytes that belong to no message yet.
    pub fn into_remaining(self) -> Bytes {
        self.buffer.into_bytes()
    }

    fn decode_next(&mut self) -> Result<Option<HubMessage>, DecodeError> {
        loop {
            let message = match self.protocol {
                HubProtocol::Json => {
                    let Some(record) = self.buffer.next_record()? else {
                        return Ok(None);
                    };
                    json::decode(&record)?
                }
                HubProtocol::MessagePack => {
                    let Some(body) = self.buffer.next_prefixed()? else {
                        return Ok(None);
                    };
                    messagepack::decode(&body)?
                }
            };
            if message.is_some() {
                return Ok(message);
            }
        }
    }
}

/// How a peer broke the protocol.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// One message with its separator or length prefix is over the limit.
    #[error("The maximum message size of {limit}B was exceeded.")]
    TooLarge {
        /// Bytes allowed.
        limit: usize,
    },
    /// The length prefix has more than five bytes or says 2 GiB or more.
    #[error("Messages over 2GB in size are not supported.")]
    InvalidLength,
    /// A JSON message is not UTF-8.
    #[error("Error reading JSON: invalid UTF-8.")]
    InvalidUtf8,
    /// A JSON message is no JSON object.
    #[error("Error reading JSON.")]
    Json(#[from] serde_json::Error),
    /// A message is not well formed MessagePack, or has an item of another type than the protocol says.
    #[error("Error reading MessagePack: {0}.")]
    MessagePack(PackError),
    /// A message is not well formed protobuf, or has a field of another type than the schema says.
    #[error("Error reading protobuf: {0}")]
    Protobuf(#[source] prost::DecodeError),
    /// The limit is [`MAX_DEPTH`].
    #[error("The maximum depth of {MAX_DEPTH} levels was exceeded.")]
    TooDeep,
    /// A property that this type of message must have; an empty invocation id counts as none.
    #[error("Missing required property '{property}'.")]
    Missing {
        /// The property's name in JSON.
        property: &'static str,
    },
    /// A JSON property of another type than the protocol says.
    #[error("Expected '{property}' to be {expected}.")]
    WrongType {
        /// The property's name.
        property: &'static str,
        /// The type that it has to have.
        expected: &'static str,
    },
    /// A completion can't have both.
    #[error("The 'error' and 'result' properties are mutually exclusive.")]
    ResultAndError,
    /// A type of message that the protocol does not have.
    #[error("Messages of the type '{kind}' are not supported.")]
    UnknownMessage {
        /// The type, as the client wrote it.
        kind: String,
    },
    /// A MessagePack completion is neither an error nor void nor a result.
    #[error("Invalid invocation result kind {kind}.")]
    UnknownResultKind {
        /// The kind that was found instead.
        kind: u64,
    },
}

impl From<PackError> for DecodeError {
    fn from(error: PackError) -> DecodeError {
        match error {
            PackError::TooDeep => DecodeError::TooDeep,
            error => DecodeError::MessagePack(error),
        }
    }
}

impl From<FrameError> for DecodeError {
    fn from(error: FrameError) -> DecodeError {
        match error {
            FrameError::TooLarge { limit } => DecodeError::TooLarge { limit },
            FrameError::InvalidLength => DecodeError::InvalidLength,
        }
    }
}
