//! WebSockets without a subprotocol: any frame in, JSON out. What a browser, `websocat` or a script needs and no more.
//!
//! # From the client
//!
//! Each frame calls the hub's method `message` with the frame as its only argument: text as a string, other bytes as a byte
//! string ([`Binary`]). What the method returns, unless it is null, comes back as a message.
//!
//! # To the client
//!
//! | frame | when |
//! | --- | --- |
//! | `{"type":"connected","connectionId":"c","userId":"u"}` | first |
//! | `{"type":"message","id":"…","group":"g","fromUserId":"u","target":"name","arguments":[…]}` | a message; `group` where it is for one, `fromUserId` where its sender is known |
//! | `{"type":"place","id":"…"}` | nothing is missing up to here |
//! | `{"type":"reset","reason":"trimmed","id":"…"}` | messages may be missing: `trimmed` from the log, or the log itself is a new one (`epoch`) |
//! | `{"type":"error","error":"…"}` | a frame's method failed |
//! | `{"type":"close","error":"…","allowReconnect":true}` | last, where the server ends the connection |
//!
//! The code of the Close frame after that says what to do: 1000 that the application has ended it, 1012 and 1013 that
//! the client is to come back (the node leaves; it read too slowly or fell silent), 1008 that its token has expired,
//! 1002, 1007 and 1009 that its message breaks the protocol, is not UTF-8 or too large.
//!
//! The `id` of the last frame that had one is a place in the log: a client that connects with it as `lastEventId` in the
//! query, to any node, receives everything since, once and in order.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use bytes::Bytes;

use super::client::{DataType, MESSAGE};
use super::webpubsub::Published;
use super::{Binary, DecodeError, Encoding, HubMessage, Invocation, Outcome, Value, json};

/// Reads one frame. `number` tells it from others.
pub(super) fn decode(frame: &Bytes, number: u64) -> Result<HubMessage, DecodeError> {
    let (argument, data_type) = match str::from_utf8(frame) {
        Ok(text) => {
            let mut out = Vec::with_capacity(text.len().saturating_add(2));
            json::write_string(&mut out, text);
            (Value::from_raw(Encoding::Json, out.into()), DataType::Text)
        }
        Err(_) => {
            let bytes = Value::encode_as(&Binary(frame.to_vec()), Encoding::Json);
            (bytes.map_err(|_| DecodeError::InvalidUtf8)?, DataType::Binary)
        }
    };
    Ok(HubMessage::Invocation(Invocation {
        invocation_id: Some(number.to_string()),
        target: MESSAGE.to_owned(),
        arguments: vec![argument],
        data_type: Some(data_type),
        ..Invocation::default()
    }))
}

/// Writes a message to one client. `None`: there is none of that kind.
pub(super) fn encode(message: &HubMessage) -> Option<Bytes> {
    match message {
        HubMessage::Completion {
            outcome: Outcome::Error(text),
            ..
        } => Some(with_text(br#"{"type":"error","error":"#, text, b"}")),
        HubMessage::Close {
            error,
            allow_reconnect,
        } => Some(close(error.as_deref(), *allow_reconnect)),
        _ => None,
    }
}

fn close(error: Option<&str>, allow_reconnect: bool) -> Bytes {
    let end = format!(r#""allowReconnect":{allow_reconnect}}}"#);
    match error {
        Some(text) => with_text(br#"{"type":"close","error":"#, text, format!(",{end}").as_bytes()),
        None => format!(r#"{{"type":"close",{end}"#).into(),
    }
}

fn with_text(before: &[u8], text: &str, after: &[u8]) -> Bytes {
    let mut out = before.to_vec();
    json::write_string(&mut out, text);
    out.extend_from_slice(after);
    out.into()
}

/// The first frame.
pub(crate) fn connected(connection: &str, user: Option<&str>) -> Bytes {
    let end = user.map_or_else(
        || Bytes::from_static(b"}"),
        |user| with_text(br#","userId":"#, user, b"}"),
    );
    with_text(br#"{"type":"connected","connectionId":"#, connection, &end)
}

/// A place without a message.
pub(crate) fn place(id: &str) -> Bytes {
    with_text(br#"{"type":"place","id":"#, id, b"}")
}

/// Reports that messages may be missing.
pub(crate) fn reset(reason: &str, id: Option<&str>) -> Bytes {
    let end = id.map_or_else(
        || Bytes::from_static(b"}"),
        |id| with_text(br#","id":"#, id, b"}"),
    );
    with_text(br#"{"type":"reset","reason":"#, reason, &end)
}

/// Writes a published message for every receiver.
pub(crate) fn message(published: &Published<'_>, id: &str) -> Bytes {
    let size: usize = published.arguments.iter().map(|value| value.bytes().len()).sum();
    let mut out = Vec::with_capacity(size.saturating_add(160));
    out.extend_from_slice(br#"{"type":"message","id":"#);
    json::write_string(&mut out, id);
    if let Some(group) = published.group {
        out.extend_from_slice(br#","group":"#);
        json::write_string(&mut out, group);
    }
    if !published.from_user.is_empty() {
        out.extend_from_slice(br#","fromUserId":"#);
        json::write_string(&mut out, published.from_user);
    }
    out.extend_from_slice(br#","target":"#);
    json::write_string(&mut out, published.target);
    out.extend_from_slice(br#","arguments":"#);
    json::write_array(&mut out, published.arguments);
    out.push(b'}');
    out.into()
}
