//! Server-sent events: one response that carries every message to the client.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::{self, Stream};
use memchr::memchr_iter;

use crate::queue::Taken;
use crate::session::Session;

/// Most bytes that are taken from the outbox at once.
const MAX_BATCH_BYTES: usize = 64 * 1024;

/// The body of the response. Ends with the session; dropped before, it ends the session.
pub(crate) fn stream(session: Arc<Session>) -> impl Stream<Item = Result<Bytes, Infallible>> + Send {
    if let Some(link) = session.http() {
        link.begin();
        link.set_attached(); // for good: without its response the session ends
    }
    // The comment opens Firefox's EventSource before there is an event.
    let pending = VecDeque::from([Bytes::from_static(b":\r\n")]);
    let body = Body {
        session,
        pending,
        frames: Vec::new(),
    };
    stream::unfold(body, |mut body| async move {
        body.next().await.map(|chunk| (Ok(chunk), body))
    })
}

struct Body {
    session: Arc<Session>,
    pending: VecDeque<Bytes>,
    frames: Vec<Bytes>,
}

impl Body {
    async fn next(&mut self) -> Option<Bytes> {
        if self.pending.is_empty() {
            if self.session.take_frames(&mut self.frames, MAX_BATCH_BYTES).await == Taken::End {
                self.fetched();
                return None;
            }
            for frame in self.frames.drain(..) {
                push_event(&mut self.pending, &frame);
            }
        }
        self.pending.pop_front()
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
/// clients insist on. The payload itself is shared, not copied.
fn push_event(to: &mut VecDeque<Bytes>, payload: &Bytes) {
    const DATA: Bytes = Bytes::from_static(b"data: ");
    const LINE_END: Bytes = Bytes::from_static(b"\r\n");
    const EVENT_END: Bytes = Bytes::from_static(b"\r\n\r\n");
    let mut start = 0;
    for end in memchr_iter(b'\n', payload) {
        let line = payload.slice(start..end);
        let line = if line.ends_with(b"\r") {
            line.slice(..line.len() - 1)
        } else {
            line
        };
        to.extend([DATA, line, LINE_END]);
        start = end + 1;
    }
    if payload.is_empty() {
        to.push_back(LINE_END);
    } else {
        to.extend([DATA, payload.slice(start..), EVENT_END]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(payload: &'static str) -> String {
        let mut chunks = VecDeque::new();
        push_event(&mut chunks, &Bytes::from_static(payload.as_bytes()));
        chunks
            .iter()
            .map(|chunk| String::from_utf8(chunk.to_vec()).unwrap())
            .collect()
    }

    #[test]
    fn events_are_framed_as_the_strictest_client_reads_them() {
        assert_eq!(event("{}\u{1e}"), "data: {}\u{1e}\r\n\r\n");
        assert_eq!(event("a\nb\r\nc"), "data: a\r\ndata: b\r\ndata: c\r\n\r\n");
        assert_eq!(event("a\n"), "data: a\r\ndata: \r\n\r\n");
        assert_eq!(event(""), "\r\n");
    }
}
