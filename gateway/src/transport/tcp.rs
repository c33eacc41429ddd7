//! The TCP socket that HTTP is served on, until a WebSocket or an event stream takes it over.

use std::io;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::limits::{CountedConnection, Held, Terms};

/// An accepted connection, with its place among the TCP connections.
#[derive(Debug)]
pub(crate) struct Accepted {
    pub(crate) stream: TcpStream,
    pub(crate) place: Option<CountedConnection>,
}

impl Accepted {
    /// Ends when the peer has ended the connection. What it sends stays where it is, and ends nothing.
    pub(crate) fn poll_gone(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut byte = [0];
        match ready!(self.stream.poll_peek(cx, &mut ReadBuf::new(&mut byte))) {
            Ok(0) | Err(_) => Poll::Ready(()),
            Ok(_) => Poll::Pending,
        }
    }
}

/// The socket. Writing fails when it made no progress for too long.
pub(crate) struct HttpSocket {
    /// `None` once it was taken out.
    accepted: Option<Accepted>,
    terms: Terms,
    /// Set once the kernel took no more.
    stuck: Option<Box<Held>>,
    /// Bytes that were read before, and are read again.
    unread: Bytes,
    /// `None` where the HTTP library has no part in it.
    exit: Option<Arc<Exit>>,
}

/// The way of a socket out of the HTTP library, which keeps buffers for each connection.
#[derive(Debug, Default)]
pub(crate) struct Exit {
    /// The kernel takes no more of what is written.
    is_stuck: AtomicBool,
    /// Given back by the HTTP library.
    accepted: Mutex<Option<Accepted>>,
}

impl Exit {
    /// Returns whether the kernel has all that the HTTP library has written so far.
    pub(crate) fn is_free(&self) -> bool {
        !self.is_stuck.load(Ordering::Relaxed)
    }

    /// The socket, once the HTTP library has dropped it.
    pub(crate) fn take(&self) -> Option<Accepted> {
        self.accepted.lock().take()
    }
}

fn taken_out() -> io::Error {
    io::ErrorKind::NotConnected.into()
}

impl HttpSocket {
    pub(crate) fn new(accepted: Accepted, terms: Terms, exit: Option<Arc<Exit>>) -> Self {
        let terms = Terms {
            least_rate: 0, // the kernel takes large enough pieces at once
            ..terms
        };
        Self {
            accepted: Some(accepted),
            terms,
            stuck: None,
            unread: Bytes::new(),
            exit,
        }
    }

    /// The same socket, of which some bytes were read before.
    pub(crate) fn after(mut self, unread: Bytes) -> Self {
        self.unread = unread;
        self
    }

    /// Takes the socket out, with its place among the connections, and the bytes that were read before and not again.
    pub(super) fn into_accepted(mut self) -> Option<(Accepted, Bytes)> {
        let unread = mem::take(&mut self.unread);
        self.accepted.take().map(|accepted| (accepted, unread))
    }

    /// As [`Accepted::poll_gone`].
    pub(crate) fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &self.accepted {
            Some(accepted) => accepted.poll_gone(cx),
            None => Poll::Ready(()),
        }
    }

    fn stream(&mut self) -> io::Result<Pin<&mut TcpStream>> {
        let accepted = self.accepted.as_mut().ok_or_else(taken_out)?;
        Ok(Pin::new(&mut accepted.stream))
    }

    fn note(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Some(exit) = &self.exit {
            exit.is_stuck.store(written.is_pending(), Ordering::Relaxed);
        }
        match &written {
            Poll::Pending => {
                let held = || Box::new(Held::new(self.terms.clone()));
                let stuck = self.stuck.get_or_insert_with(held);
                stuck.begin();
                if stuck.poll_late(cx).is_ready() {
                    return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
                }
            }
            Poll::Ready(_) => self.stuck = None,
        }
        written
    }
}

impl Drop for HttpSocket {
    fn drop(&mut self) {
        if let (Some(exit), Some(accepted)) = (&self.exit, self.accepted.take()) {
            *exit.accepted.lock() = Some(accepted);
        }
    }
}

impl AsyncRead for HttpSocket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.unread.is_empty() {
            let some = this.unread.len().min(buffer.remaining());
            buffer.put_slice(&this.unread.split_to(some));
            return Poll::Ready(Ok(()));
        }
        this.stream()?.poll_read(cx, buffer)
    }
}

impl AsyncWrite for HttpSocket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = this.stream()?.poll_write(cx, bytes);
        this.note(cx, written)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = this.stream()?.poll_write_vectored(cx, bytes);
        this.note(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        true // as a TCP socket does
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().stream()?.poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().stream()?.poll_shutdown(cx)
    }
}
