//! Server-sent events: one response that carries every message to the client.

use std::convert::Infallible;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures_util::stream::{self, Stream};
use memchr::memchr_iter;

use crate::queue::Taken;
use crate::session::Session;

/// Most bytes that are taken from the outbox at once.
const MAX_BATCH_BYTES: usize = 64 * 1024;

/// The body of the response. Ends with the session; dropped before, it ends the session.
pub(crate) fn stream(session: Arc<Session>) -> impl Stream<Item = Result<Bytes, Infallible>> + Send {
    if let Some(link) = session.http() {
        link.set_attached(); // for good: without its response the session ends
        link.begin();
    }
    // The comment opens Firefox's EventSource before there is an event.
    let pending = vec![Bytes::from_static(b":\r\n")];
    let body = Body { session, pending };
    stream::unfold(body, |mut body| async move {
        body.next().await.map(|chunk| (Ok(chunk), body))
    })
}

struct Body {
    session: Arc<Session>,
    /// Events that were taken from the outbox, the next one last.
    pending: Vec<Bytes>,
}

impl Body {
    async fn next(&mut self) -> Option<Bytes> {
        if self.pending.is_empty() {
            if self.session.take_frames(&mut self.pending, MAX_BATCH_BYTES).await == Taken::End {
                self.fetched();
                return None;
            }
            self.pending.reverse();
        }
        self.pending.pop()
    }
}

impl Body {
    /// The client needs nothing more of this session.
    fn fetched(&self) {
        if let Some(link) = self.session.http() {
            link.drained();
        }
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        self.fetched();
        self.session.transport_ended("the event stream was closed"); // without effect when the session ended first
    }
}

/// One event: each line of the payload behind `data: `, an empty line at the end. Lines end in CR LF, which old .NET
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

/// One event for whoever holds its own place in the log: a name, where it stands, and one line of data. Line breaks end
/// fields, so in a name they become spaces; in JSON they are only ever white space between values.
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
