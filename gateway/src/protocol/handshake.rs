//! The first message pair of a connection: JSON in one record, whatever protocol is to follow.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use bytes::Bytes;

use super::{
    DecodeError, Decoder, HubProtocol, TransferFormat,
    framing::{FrameBuffer, FrameError, RECORD_SEPARATOR},
    json,
};

/// The highest version of both protocols. Version 2 adds stateful reconnect; every lower number is accepted.
pub const MAX_PROTOCOL_VERSION: i32 = 2;

/// The client's request of a protocol.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HandshakeRequest {
    /// Name of the hub protocol, as the client wrote it.
    pub protocol: String,
    /// Version of that protocol.
    pub version: i32,
}

/// Takes the bytes of a new connection until its handshake is whole, then becomes the [`Decoder`] of what
/// follows it.
#[derive(Debug)]
pub struct HandshakeReader {
    buffer: FrameBuffer,
}

impl HandshakeReader {
    /// `max_message_bytes` is the limit of the handshake with its separator and, later, of every message.
    pub fn new(max_message_bytes: usize) -> HandshakeReader {
        HandshakeReader {
            buffer: FrameBuffer::new(max_message_bytes),
        }
    }

    /// Adds bytes that have arrived. Bytes after the handshake are kept for the decoder.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.push(bytes);
    }

    /// The handshake; `None` means that it has not arrived whole. To be called after every
    /// [`push`](Self::push) until it is there, and then not again.
    ///
    /// # Errors
    ///
    /// [`HandshakeError::TooLarge`], also before it is whole, or [`HandshakeError::Malformed`].
    pub fn next_request(&mut self) -> Result<Option<HandshakeRequest>, HandshakeError> {
        match self.buffer.next_record() {
            Ok(None) => Ok(None),
            Ok(Some(record)) => parse(&record).map(Some).map_err(HandshakeError::Malformed),
            Err(FrameError::TooLarge { limit }) => Err(HandshakeError::TooLarge { limit }),
            Err(FrameError::InvalidLength) => Err(HandshakeError::Malformed(DecodeError::InvalidLength)),
        }
    }

    /// How many bytes have arrived that were not taken as the handshake.
    pub fn buffered_bytes(&self) -> usize {
        self.buffer.len()
    }

    /// The decoder of the bytes after the handshake, those that have arrived already included.
    pub fn into_decoder(self, protocol: HubProtocol) -> Decoder {
        Decoder::with_buffer(protocol, self.buffer)
    }
}

/// Chooses the protocol and its version, or says why not.
///
/// # Errors
///
/// An unknown protocol, a version that is too high, or a binary protocol on a transport that carries only
/// text: checked in the order of the reference server.
pub fn select(
    request: &HandshakeRequest,
    transport_supports_binary: bool,
) -> Result<(HubProtocol, i32), HandshakeError> {
    let version = request.version;
    let Some(protocol) = HubProtocol::parse(&request.protocol) else {
        return Err(HandshakeError::UnsupportedProtocol {
            protocol: request.protocol.clone(),
        });
    };
    if version > MAX_PROTOCOL_VERSION {
        return Err(HandshakeError::UnsupportedVersion {
            protocol: request.protocol.clone(),
            version,
        });
    }
    if protocol.transfer_format() == TransferFormat::Binary && !transport_supports_binary {
        return Err(HandshakeError::UnsupportedTransferFormat { protocol });
    }
    Ok((protocol, version))
}

/// The response to a handshake that is accepted, with its separator.
pub fn handshake_response_ok() -> Bytes {
    Bytes::from_static(b"{}\x1e")
}

/// The response to a handshake that is refused, with its separator. `error` is the text of a
/// [`HandshakeError`], with or without details.
pub fn handshake_response_error(error: &str) -> Bytes {
    let mut out = b"{\"error\":".to_vec();
    json::write_string(&mut out, error);
    out.extend_from_slice(&[b'}', RECORD_SEPARATOR]);
    out.into()
}

/// The reason why the handshake failed. The text is the reference server's for the client; what it says only
/// with detailed errors is the [source](std::error::Error::source).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HandshakeError {
    /// No such protocol.
    #[error("The protocol '{protocol}' is not supported.")]
    UnsupportedProtocol {
        /// The protocol's name, as the client wrote it.
        protocol: String,
    },
    /// Newer than [`MAX_PROTOCOL_VERSION`].
    #[error("The server does not support version {version} of the '{protocol}' protocol.")]
    UnsupportedVersion {
        /// The protocol's name, as the client wrote it.
        protocol: String,
        /// The version, as the client wrote it.
        version: i32,
    },
    /// The transport can't carry this protocol's messages.
    #[error(
        "Cannot use the '{protocol}' protocol on the current transport. \
         The transport does not support '{}' transfer format.",
        protocol.transfer_format()
    )]
    UnsupportedTransferFormat {
        /// The protocol.
        protocol: HubProtocol,
    },
    /// The handshake with its separator is larger than a message may be.
    #[error("Handshake was canceled.")]
    TooLarge {
        /// Bytes allowed.
        limit: usize,
    },
    /// There was no whole handshake in time. The session decides that, nothing in this module does.
    #[error("Handshake was canceled.")]
    TimedOut,
    /// The first record is no handshake.
    #[error("An unexpected error occurred during connection handshake.")]
    Malformed(#[source] DecodeError),
}

fn parse(record: &[u8]) -> Result<HandshakeRequest, DecodeError> {
    let text = json::checked_text(record)?;
    let [protocol, version] = json::properties(text, ["protocol", "version"])?;
    Ok(HandshakeRequest {
        protocol: protocol.required("a string")?,
        version: version.required("an integer")?,
    })
}
