//! The SignalR hub protocol, and those for clients that do not speak it, as pure code: bytes in, messages out, and back.
//!
//! This module reads no socket and no clock. All code that parses a peer's bytes returns an error
//! instead of panicking, and allocates in proportion to the bytes that have arrived, not to an announced length.
//!
//! * [`HandshakeReader`] takes the first record of a connection and becomes a [`Decoder`].
//! * [`Decoder`] turns a byte stream, cut anywhere, into [`HubMessage`]s.
//! * [`encode`] and [`encode_invocation`] write one whole framed message.
//! * [`ClientProtocol`] names a client's protocol; [`webpubsub`] and [`plain`] describe those that are not the hub
//!   protocol.
//! * [`Value`] is one argument, item or result that stays encoded until code reads it.

mod binary;
mod client;
mod decoder;
mod encoder;
pub(crate) mod events;
mod fields;
mod framing;
mod handshake;
mod json;
mod message;
mod messagepack;
mod pack;
pub mod plain;
mod readable;
mod timestamp;
#[cfg(feature = "chrono")]
mod timestamp_chrono;
#[cfg(feature = "time")]
mod timestamp_time;
mod transcode;
mod transport;
mod value;
pub mod webpubsub;
#[doc(hidden)] // for the fuzz targets
pub mod websocket;

use std::fmt;

pub use self::{
    binary::Binary,
    client::{ClientProtocol, DataType},
    decoder::{DecodeError, Decoder},
    encoder::{EncodeError, encode, encode_invocation, encode_invocation_with_array},
    framing::RECORD_SEPARATOR,
    handshake::{
        HandshakeError, HandshakeReader, HandshakeRequest, MAX_PROTOCOL_VERSION, handshake_response_error,
        handshake_response_ok, select,
    },
    message::{Headers, HubMessage, Invocation, Outcome},
    pack::PackError,
    timestamp::{Timestamp, TimestampError},
    transcode::TranscodeError,
    value::{DecodeValueError, EncodeValueError, Value},
};

pub(crate) use self::client::{
    ClientDecoder, ClientMessage, Data, GroupSend, GroupStateWish, MESSAGE, Request, RequestWish, encode_for,
};
pub use self::transport::Transport;

/// How deep arrays and objects may nest, in levels. For a message its own object or array counts too, so
/// one argument may use 62 of them. Both protocols share the limit: a value that one client may send, every other
/// client can be sent. The reference server has it for JSON.
pub const MAX_DEPTH: usize = 64;

/// How the messages of one connection are written; the client chooses it in its handshake.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum HubProtocol {
    /// JSON objects, each followed by the record separator.
    Json,
    /// MessagePack arrays, each after its length.
    MessagePack,
}

impl HubProtocol {
    /// Every protocol; `ALL[p.index()] == p`.
    pub const ALL: [HubProtocol; HubProtocol::COUNT] = [HubProtocol::Json, HubProtocol::MessagePack];

    /// How many protocols there are: the length of an array with one place for each.
    pub const COUNT: usize = 2;

    /// The protocol's place in an array of [`COUNT`](Self::COUNT) items.
    pub fn index(self) -> usize {
        match self {
            HubProtocol::Json => 0,
            HubProtocol::MessagePack => 1,
        }
    }

    /// The name used in handshakes.
    pub fn name(self) -> &'static str {
        match self {
            HubProtocol::Json => "json",
            HubProtocol::MessagePack => "messagepack",
        }
    }

    /// The protocol of that name; case does not matter.
    pub fn parse(name: &str) -> Option<HubProtocol> {
        HubProtocol::ALL
            .into_iter()
            .find(|protocol| protocol.name().eq_ignore_ascii_case(name))
    }

    /// The format that a transport must carry for this protocol.
    pub fn transfer_format(self) -> TransferFormat {
        match self {
            HubProtocol::Json => TransferFormat::Text,
            HubProtocol::MessagePack => TransferFormat::Binary,
        }
    }

    /// How values inside this protocol's messages are written.
    pub fn encoding(self) -> Encoding {
        match self {
            HubProtocol::Json => Encoding::Json,
            HubProtocol::MessagePack => Encoding::MessagePack,
        }
    }
}

impl fmt::Display for HubProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The format that a transport carries. Server-sent events carry text only.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum TransferFormat {
    /// UTF-8 text.
    Text,
    /// Any bytes.
    Binary,
}

impl TransferFormat {
    /// The name used in negotiate responses and handshake errors.
    pub fn name(self) -> &'static str {
        match self {
            TransferFormat::Text => "Text",
            TransferFormat::Binary => "Binary",
        }
    }
}

impl fmt::Display for TransferFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How one [`Value`] is written.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Encoding {
    /// JSON text (RFC 8259).
    Json,
    /// MessagePack.
    MessagePack,
}

#[cfg(test)]
mod tests;
