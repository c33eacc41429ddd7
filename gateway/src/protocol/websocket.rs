//! The server side of RFC 6455: frames out, and a client's bytes, cut anywhere, to messages.
//!
//! No compression is agreed on, so that no reserved bit may be set. A reader holds no bytes but those of an unfinished
//! message of [`Messages::Units`] or [`Messages::BinaryUnits`]; a stream's payload goes on as it comes, whatever frames it is in.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

mod reader;
mod utf8;

use bytes::{BufMut as _, Bytes, BytesMut};

pub use reader::{Incoming, MessageReader};

const FIN: u8 = 0x80;
const RESERVED: u8 = 0x70;
const OPCODE: u8 = 0x0F;
const MASKED: u8 = 0x80;

const CONTINUATION: u8 = 0x0;
const TEXT: u8 = 0x1;
const BINARY: u8 = 0x2;
const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;
const PONG: u8 = 0xA;

/// Most bytes in the payload of a control frame (section 5.5).
const MOST_CONTROL_BYTES: usize = 125;

/// Codes of Close frames, by section 7.4.1 and the registry that it begins.
pub mod close_code {
    /// The purpose of the connection is fulfilled.
    pub const NORMAL: u16 = 1_000;
    /// The peer breaks the protocol.
    pub const PROTOCOL: u16 = 1_002;
    /// Data is of a type that is not served here: a text where messages are binary.
    pub const UNSUPPORTED: u16 = 1_003;
    /// Data is not what its type says: a text that is not UTF-8.
    pub const INVALID: u16 = 1_007;
}

/// A Ping without a payload, as a whole frame.
pub const PING_FRAME: Bytes = Bytes::from_static(&[FIN | PING, 0]);

/// The meaning of a WebSocket message for whoever reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Messages {
    /// Some bytes of a stream, cut anywhere.
    Stream,
    /// One message, of at most so many bytes. A longer one is given out with one byte more than that, and the rest of
    /// it is dropped: its reader sees that it is too long.
    Units {
        /// The bound, in bytes.
        limit: usize,
    },
    /// The same for a protocol whose messages are binary: a text is refused, with the code 1003.
    BinaryUnits {
        /// The bound, in bytes.
        limit: usize,
    },
}

impl Messages {
    /// The bound of a unit; `None` for a stream.
    fn limit(self) -> Option<usize> {
        match self {
            Self::Stream => None,
            Self::Units { limit } | Self::BinaryUnits { limit } => Some(limit),
        }
    }
}

/// A client's error in its frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadFrame {
    /// The code of the Close frame, by section 7.4.1.
    pub code: u16,
    /// The mistake in words, for the log.
    pub what: &'static str,
}

impl BadFrame {
    const fn of_protocol(what: &'static str) -> Self {
        Self {
            code: close_code::PROTOCOL,
            what,
        }
    }

    const fn of_type() -> Self {
        Self {
            code: close_code::UNSUPPORTED,
            what: "A text came. The messages of this subprotocol are binary.",
        }
    }

    const fn of_text() -> Self {
        Self {
            code: close_code::INVALID,
            what: "A text is not UTF-8.",
        }
    }
}

/// One message as a whole frame, text or binary.
#[must_use]
pub fn message_frame(payload: &[u8], is_text: bool) -> Bytes {
    frame(if is_text { TEXT } else { BINARY }, payload)
}

/// The answer to a Ping. A payload of more bytes than a control frame may have is cut.
#[must_use]
pub fn pong_frame(payload: &[u8]) -> Bytes {
    control_frame(PONG, payload)
}

/// A Close frame with this payload: nothing, or a code and words, which are cut to what a control frame may have.
#[must_use]
pub fn close_frame(payload: &[u8]) -> Bytes {
    control_frame(CLOSE, payload)
}

/// The payload of a Close frame.
#[must_use]
pub fn close_payload(code: u16, words: &str) -> Vec<u8> {
    let mut payload = code.to_be_bytes().to_vec();
    payload.extend_from_slice(words.as_bytes());
    payload
}

fn control_frame(opcode: u8, payload: &[u8]) -> Bytes {
    frame(opcode, payload.get(..MOST_CONTROL_BYTES).unwrap_or(payload))
}

fn frame(opcode: u8, payload: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(payload.len().saturating_add(10));
    frame.put_u8(FIN | opcode);
    match (u8::try_from(payload.len()), u16::try_from(payload.len())) {
        (Ok(short @ 0..=125), _) => frame.put_u8(short),
        (_, Ok(length)) => {
            frame.put_u8(126);
            frame.put_u16(length);
        }
        _ => {
            frame.put_u8(127);
            frame.put_u64(payload.len() as u64);
        }
    }
    frame.extend_from_slice(payload);
    frame.freeze()
}

/// A frame as a client sends it; the first byte is given.
#[cfg(test)]
#[allow(clippy::indexing_slicing)]
pub(crate) fn client_frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [0x37, 0xFA, 0x21, 0x3D];
    let server = frame(0, payload);
    let header = server.len().saturating_sub(payload.len());
    let mut client = server.slice(..header).to_vec();
    client[0] = first;
    client[1] |= MASKED;
    client.extend_from_slice(&mask);
    let masked = payload.iter().zip(mask.iter().cycle());
    client.extend(masked.map(|(byte, mask)| byte ^ mask));
    client
}

/// The payload of one whole frame of a server.
#[cfg(any(test, feature = "testing"))]
pub(crate) fn payload_of(frame: &Bytes) -> Bytes {
    let header = match frame.get(1) {
        Some(127) => 10,
        Some(126) => 4,
        _ => 2,
    };
    frame.slice(frame.len().min(header)..)
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, clippy::arithmetic_side_effects)]
mod tests;
