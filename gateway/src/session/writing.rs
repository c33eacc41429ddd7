//! A session whose client has a socket of its own: whoever pushes writes, see [`ByteQueue::attach`](super::ByteQueue).

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::ready;

use bytes::Bytes;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{Session, TransportError, Writing};

/// A client that takes less than this within `timeouts.send` is stuck.
const MOST_STUCK_BYTES: usize = 64 * 1024;

impl Session {
    /// Writes the outbox to a socket until it ends. Afterwards, also where this is dropped before,
    /// [`detach`](Self::detach) is to be called.
    pub(crate) async fn write_to(&self, stream: &Arc<TcpStream>) -> Result<(), TransportError> {
        self.outbox.attach(Arc::clone(stream));
        loop {
            match self.outbox.writing() {
                Writing::Idle => self.outbox.changed().await,
                Writing::Over => return Ok(()),
                Writing::Broken => return Err(TransportError::Broke),
                Writing::Stuck => Box::pin(self.go_on_writing(stream)).await?,
            }
        }
    }

    /// The client has sent a Close frame: it is sent nothing more but the answer to that.
    pub(crate) fn hears_no_more(&self) {
        self.discard_past();
        self.outbox.cut_off();
    }

    /// Ends what [`write_to`](Self::write_to) began. Returns the rest of a frame of which the socket took a part.
    pub(crate) fn detach(&self) -> Bytes {
        let (sent, rest) = self.outbox.detach();
        self.count_sent(sent);
        rest
    }

    async fn go_on_writing(&self, stream: &TcpStream) -> Result<(), TransportError> {
        let patience = self.hub.options().timeouts.send;
        let mut taken = 0_usize;
        let going_on = poll_fn(|cx| {
            while self.outbox.writing() == Writing::Stuck && taken < MOST_STUCK_BYTES {
                ready!(stream.poll_write_ready(cx))?;
                taken = taken.saturating_add(self.outbox.go_on_writing());
            }
            io::Result::Ok(()).into()
        });
        match timeout(patience, going_on).await {
            Ok(gone_on) => gone_on.map_err(|_| TransportError::Broke),
            Err(_) => Err(TransportError::Stalled),
        }
    }

    /// Runs a connection's task. What it pushes in one turn is written at the end of that, all at once.
    pub(crate) async fn in_turns<T>(&self, mut task: Pin<&mut impl Future<Output = T>>) -> T {
        poll_fn(|cx| {
            self.outbox.begin_turn();
            let polled = task.as_mut().poll(cx);
            self.count_sent(self.outbox.end_turn());
            polled
        })
        .await
    }
}
