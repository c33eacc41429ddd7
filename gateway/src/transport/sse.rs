//! Server-sent events: one response that carries every message to the client.

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::{self, Stream};

use crate::session::{Session, Taken, TransportError};

/// Most bytes that are taken from the outbox at once.
const MAX_BATCH_BYTES: usize = 64 * 1024;

/// The body of the response. Ends with the session; dropped before, it ends the session.
pub(crate) fn stream(session: Arc<Session>) -> impl Stream<Item = Result<Bytes, Infallible>> + Send {
    session.begin_stream();
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
                self.session.fetched_all();
                return None;
            }
            self.pending.reverse();
        }
        self.pending.pop()
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        self.session.fetched_all();
        self.session.transport_ended(TransportError::StreamClosed); // without effect when the session ended first
    }
}
