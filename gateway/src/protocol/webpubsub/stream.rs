//! Streams of messages to groups: each is many messages of one sender, in an order of their own.
//!
//! Source: section 3.6 of the client protocol's specification.

use bytes::Bytes;
use serde::Deserialize;

use crate::protocol::client::Data;
use crate::protocol::json;

/// The rules of a beginning, for the error that a client gets.
pub(super) const BEGINNING: &str =
    "an object with a text as streamId and, if it has one, an integer as idleTimeoutMs";
/// The rules of the error that a client ends a stream with.
pub(super) const END_ERROR: &str = "an object with texts, if it has them, as message and userErrorCode";

/// A client's message about a stream.
#[derive(Debug, PartialEq)]
pub(crate) enum StreamRequest {
    /// Begins a stream.
    Begin {
        id: String,
        group: String,
        /// The sender does not receive it.
        no_echo: bool,
        /// How long it may be silent, in milliseconds.
        idle_timeout: Option<u64>,
        /// It came with data, which a beginning must not have.
        has_data: bool,
    },
    /// A fragment.
    Data { id: String, number: u64, data: Data },
    /// The sender has nothing to say yet.
    KeepAlive { id: String },
    /// Ends it.
    End { id: String, error: Option<EndError> },
}

impl StreamRequest {
    pub(crate) fn id(&self) -> &str {
        match self {
            Self::Begin { id, .. }
            | Self::Data { id, .. }
            | Self::KeepAlive { id }
            | Self::End { id, .. } => id,
        }
    }
}

/// The error that a client ends its stream with.
#[derive(Debug, Default, PartialEq, Deserialize)]
pub(crate) struct EndError {
    pub(crate) message: Option<String>,
    #[serde(rename = "userErrorCode")]
    pub(crate) code: Option<String>,
}

/// The beginning of a stream, as it stands in the message.
#[derive(Deserialize)]
pub(super) struct Beginning {
    #[serde(rename = "streamId")]
    pub(super) id: String,
    #[serde(rename = "idleTimeoutMs")]
    pub(super) idle_timeout: Option<u64>,
}

/// The place of a published message in a stream.
pub(crate) struct Fragment<'a> {
    pub(crate) stream: &'a str,
    /// Its number within the stream, from 1.
    pub(crate) number: u64,
    /// It is not data, but the end.
    pub(crate) ends: bool,
    /// The error that the stream ends with.
    pub(crate) error: Option<FragmentError<'a>>,
}

/// The error that a stream ends with, for its receivers.
pub(crate) struct FragmentError<'a> {
    pub(crate) name: &'a str,
    pub(crate) message: Option<&'a str>,
    /// The code that its sender gave it.
    pub(crate) code: Option<&'a str>,
}

fn write_texts(out: &mut Vec<u8>, texts: &[(&str, Option<&str>)]) {
    for (name, text) in texts {
        if let Some(text) = text {
            out.extend_from_slice(format!(r#","{name}":"#).as_bytes());
            json::write_string(out, text);
        }
    }
}

impl Fragment<'_> {
    /// Writes it as a property of a message.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(br#","stream":{"streamId":"#);
        json::write_string(out, self.stream);
        out.extend_from_slice(format!(r#","streamSequenceId":{}"#, self.number).as_bytes());
        if self.ends {
            out.extend_from_slice(br#","endOfStream":true"#);
        }
        if let Some(error) = &self.error {
            out.extend_from_slice(br#","error":{"name":"#);
            json::write_string(out, error.name);
            write_texts(out, &[("message", error.message), ("userErrorCode", error.code)]);
            out.push(b'}');
        }
        out.push(b'}');
    }
}

/// Begins a message about a stream of the client.
fn about(kind: &str, id: &str) -> Vec<u8> {
    let mut out = format!(r#"{{"type":"{kind}","streamId":"#).into_bytes();
    json::write_string(&mut out, id);
    out
}

/// Writes that all fragments before the number `expected` were taken.
pub(super) fn ack(id: &str, expected: u64) -> Bytes {
    let mut out = about("streamAck", id);
    out.extend_from_slice(format!(r#","expectedSequenceId":{expected}}}"#).as_bytes());
    out.into()
}

/// Writes that a fragment was not taken because the one with the number `expected` is missing.
pub(super) fn nack(id: &str, text: &str, expected: u64) -> Bytes {
    let mut out = about("streamNack", id);
    out.extend_from_slice(br#","name":"InvalidSequenceId""#);
    write_texts(&mut out, &[("message", Some(text))]);
    out.extend_from_slice(format!(r#","expectedSequenceId":{expected}}}"#).as_bytes());
    out.into()
}

/// Writes that a stream is over; the error has a name and a text.
pub(super) fn closed(id: &str, error: Option<(&str, &str)>) -> Bytes {
    let mut out = about("streamClosed", id);
    if let Some((name, text)) = error {
        out.extend_from_slice(br#","error":{"name":"#);
        json::write_string(&mut out, name);
        write_texts(&mut out, &[("message", Some(text))]);
        out.push(b'}');
    }
    out.push(b'}');
    out.into()
}
