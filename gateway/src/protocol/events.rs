//! Server-sent events: the format of `EventSource` (WHATWG HTML, section 9.2), which also carries hub messages to
//! SignalR clients over that transport.

use bytes::{Bytes, BytesMut};
use memchr::memchr_iter;
use serde_json::json;

use super::webpubsub::Published;
use super::{HubMessage, json as text};

/// Writes a message to one client. `None`: there is none of that kind.
pub(super) fn encode(message: &HubMessage) -> Option<Bytes> {
    match message {
        HubMessage::Ping => Some(Bytes::from_static(b":\n\n")),
        HubMessage::Close {
            error,
            allow_reconnect,
        } => {
            let data = json!({ "error": error, "allowReconnect": allow_reconnect });
            Some(named_event("close", None, data.to_string().as_bytes()))
        }
        _ => None,
    }
}

/// How long the client is to wait before it comes back, in milliseconds.
pub(crate) fn retry(after: u64) -> Bytes {
    Bytes::from(format!("retry: {after}\n\n"))
}

/// A place without an event: clients remember it all the same.
pub(crate) fn place(id: &str) -> Bytes {
    Bytes::from(format!("id: {id}\n\n"))
}

/// Reports that messages may be missing.
pub(crate) fn reset(reason: &str, id: Option<&str>) -> Bytes {
    let data = json!({ "reason": reason });
    named_event("reset", id, data.to_string().as_bytes())
}

/// A published message: its target, its arguments as a JSON array, and its place.
pub(crate) fn message(published: &Published<'_>, id: &str) -> Bytes {
    let mut arguments = Vec::new();
    text::write_array(&mut arguments, published.arguments);
    named_event(published.target, Some(id), &arguments)
}

/// One event: each line of the payload after `data: `, an empty line at the end. Lines end in CR LF, which old .NET
/// clients insist on. In one piece, because some clients read an event only from one read.
pub(crate) fn event(payload: &[u8]) -> Bytes {
    let mut event = BytesMut::with_capacity(payload.len().saturating_add(16));
    let mut start = 0;
    for end in memchr_iter(b'\n', payload) {
        let line = payload.get(start..end).unwrap_or_default();
        put_line(&mut event, line.strip_suffix(b"\r").unwrap_or(line));
        start = end.saturating_add(1);
    }
    if !payload.is_empty() {
        put_line(&mut event, payload.get(start..).unwrap_or_default());
    }
    event.extend_from_slice(b"\r\n");
    event.freeze()
}

/// One event for a client that holds its own place in the log: a name, where it stands, and one line of data. Line
/// breaks end fields, so in a name they become spaces; in JSON they are only ever white space between values.
pub(crate) fn named_event(name: &str, id: Option<&str>, data: &[u8]) -> Bytes {
    let mut event = BytesMut::with_capacity(name.len().saturating_add(data.len()).saturating_add(64));
    if let Some(id) = id {
        put_field(&mut event, b"id: ", id.as_bytes());
    }
    put_field(&mut event, b"event: ", name.as_bytes());
    put_field(&mut event, b"data: ", data);
    event.extend_from_slice(b"\n");
    event.freeze()
}

fn put_field(event: &mut BytesMut, field: &[u8], value: &[u8]) {
    event.extend_from_slice(field);
    let begin = event.len();
    event.extend_from_slice(value);
    for byte in event.iter_mut().skip(begin) {
        if matches!(byte, b'\r' | b'\n') {
            *byte = b' ';
        }
    }
    event.extend_from_slice(b"\n");
}

fn put_line(event: &mut BytesMut, line: &[u8]) {
    event.extend_from_slice(b"data: ");
    event.extend_from_slice(line);
    event.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(payload: &str) -> String {
        String::from_utf8(event(payload.as_bytes()).to_vec()).unwrap()
    }

    #[test]
    fn nothing_in_a_name_or_in_data_begins_a_field() {
        let event = named_event("a\nid: 1\r\n", Some("x"), b"[1,\r\n2]");
        assert_eq!(event, "id: x\nevent: a id: 1  \ndata: [1,  2]\n\n");
        assert_eq!(named_event("reset", None, b"{}"), "event: reset\ndata: {}\n\n");
    }

    #[test]
    fn events_are_framed_as_the_strictest_client_reads_them() {
        assert_eq!(text("{}\u{1e}"), "data: {}\u{1e}\r\n\r\n");
        assert_eq!(text("a\nb\r\nc"), "data: a\r\ndata: b\r\ndata: c\r\n\r\n");
        assert_eq!(text("a\n"), "data: a\r\ndata: \r\n\r\n");
        assert_eq!(text(""), "\r\n");
    }
}
