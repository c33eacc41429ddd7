//! An accepted WebSocket: a TCP socket that nothing stands before, or any other stream.
//!
//! No buffer is kept while no bytes come: bytes are read into a buffer of the thread, and only an unfinished
//! frame or message stays here, which has to get on ([`Held`]).

use std::cell::RefCell;
use std::future::poll_fn;
use std::io::{self, Read as _};
use std::net::Shutdown;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use hyper_util::server::conn::auto::upgrade::downcast;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::tcp::{Accepted, HttpSocket};
use crate::limits::{CountedConnection, Full, Held, Terms};
use crate::protocol::websocket::{self, BadFrame, Incoming, MessageReader, Messages};
use crate::session::TransportError;

/// Most bytes that are read at once.
const READ_BYTES: usize = 16 * 1024;
/// An unfinished frame stays in an allocation of up to so many bytes that was made for more.
const LEAST_COMPACT_BYTES: usize = 256;

thread_local! {
    static BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; READ_BYTES]);
}

/// Lends the buffer of the thread, which nobody keeps anything in.
pub(crate) fn with_buffer<T>(read: impl FnOnce(&mut [u8]) -> T) -> T {
    BUFFER.with_borrow_mut(|buffer| read(buffer))
}

/// Reads from a socket that others hold, too. As when it is read through `&mut`, a read that leaves room has taken all there
/// was, so that no second one has to find that out.
fn poll_read_tcp(stream: &TcpStream, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
    loop {
        ready!(stream.poll_read_ready(cx))?;
        let room = into.remaining();
        let mut outcome = Ok(0);
        let tried = stream.try_io(Interest::READABLE, || {
            outcome = (&*SockRef::from(stream)).read(into.initialize_unfilled());
            match &outcome {
                Ok(read) if (1..room).contains(read) => Err(io::ErrorKind::WouldBlock.into()),
                Ok(_) => Ok(()),
                Err(error) => Err(error.kind().into()),
            }
        });
        match outcome {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Ok(0) if tried.is_err() => {} // it was not tried
            outcome => {
                into.advance(outcome?);
                return Poll::Ready(Ok(()));
            }
        }
    }
}

/// An accepted WebSocket.
pub(crate) struct WebSocket {
    pub(super) reader: Reader,
    pub(super) writer: Writer,
    /// Its place among the TCP connections.
    _place: Option<CountedConnection>,
}

/// The next thing that comes from a socket, or its end.
#[derive(Debug)]
pub(super) enum Next {
    Incoming(Incoming),
    Bad(BadFrame),
    Lost(TransportError),
}

pub(super) struct Reader {
    source: Source,
    /// Bytes that were read and are not worked off.
    tail: BytesMut,
    frames: MessageReader,
    held: Held,
}

enum Source {
    Tcp(Arc<TcpStream>),
    /// A stream over HTTP/2, or of an application's own server.
    Other(Box<dyn AsyncRead + Send + Unpin>),
}

pub(super) enum Writer {
    Tcp(Arc<TcpStream>),
    Other(Box<dyn AsyncWrite + Send + Unpin>),
}

impl WebSocket {
    /// Takes the stream back from the HTTP library, with the bytes that it has read of it already.
    pub(super) fn new(upgraded: Upgraded, messages: Messages, terms: Arc<Terms>) -> Self {
        let upgraded = match downcast::<TokioIo<HttpSocket>>(upgraded) {
            Ok(parts) => {
                return match parts.io.into_inner().into_accepted() {
                    Some((accepted, unread)) => {
                        let read = [&*parts.read_buf, &*unread].concat();
                        Self::accepted(accepted, &read, messages, terms)
                    }
                    None => Self::other(tokio::io::empty(), messages, terms), // it was there
                };
            }
            Err(upgraded) => upgraded,
        };
        match downcast::<TokioIo<TcpStream>>(upgraded) {
            Ok(parts) => Self::tcp(parts.io.into_inner(), &parts.read_buf, messages, terms),
            Err(upgraded) => Self::other(TokioIo::new(upgraded), messages, terms),
        }
    }

    /// A TCP socket, with the bytes that were read of it already.
    pub(super) fn accepted(accepted: Accepted, read: &[u8], messages: Messages, terms: Arc<Terms>) -> Self {
        let Accepted { stream, place } = accepted;
        Self {
            _place: place,
            ..Self::tcp(stream, read, messages, terms)
        }
    }

    pub(super) fn other<S>(stream: S, messages: Messages, terms: Arc<Terms>) -> Self
    where
        S: AsyncRead + AsyncWrite + Send + 'static,
    {
        let (reading, writing) = tokio::io::split(stream);
        let (source, writer) = (Source::Other(Box::new(reading)), Writer::Other(Box::new(writing)));
        Self::of(source, writer, &[], messages, terms)
    }

    fn tcp(stream: TcpStream, read: &[u8], messages: Messages, terms: Arc<Terms>) -> Self {
        let stream = Arc::new(stream);
        let source = Source::Tcp(Arc::clone(&stream));
        Self::of(source, Writer::Tcp(stream), read, messages, terms)
    }

    fn of(source: Source, writer: Writer, read: &[u8], messages: Messages, terms: Arc<Terms>) -> Self {
        Self {
            reader: Reader {
                source,
                tail: BytesMut::from(read),
                frames: MessageReader::new(messages),
                held: Held::new(terms),
            },
            writer,
            _place: None,
        }
    }

    /// Says that the connection ends, and waits for the client to hear it, no longer than `patience`.
    pub(crate) async fn end(mut self, code: u16, words: &str, patience: Duration) {
        let payload = websocket::close_payload(code, words);
        if self.writer.say_goodbye(Bytes::new(), &payload, patience).await {
            self.reader.await_end(patience).await;
        }
    }
}

impl Reader {
    /// The next thing that comes. Cancel-safe.
    pub(super) async fn next(&mut self) -> Next {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Next> {
        loop {
            match self.frames.next(&mut self.tail) {
                Ok(Some(incoming)) => {
                    if !self.frames.is_unfinished() {
                        self.held.end();
                    }
                    return Poll::Ready(match self.keep() {
                        Ok(()) => Next::Incoming(incoming),
                        Err(full) => Next::Lost(full),
                    });
                }
                Ok(None) => self.compact(),
                Err(bad) => return Poll::Ready(Next::Bad(bad)),
            }
            if self.frames.is_unfinished() || !self.tail.is_empty() {
                self.held.begin();
            } else {
                self.held.rest();
            }
            if let Err(full) = self.keep() {
                return Poll::Ready(Next::Lost(full));
            }
            match self.poll_read(cx) {
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Next::Lost(TransportError::Broke)),
                Poll::Ready(Ok(read)) => self.held.pass(read),
                Poll::Pending => {
                    ready!(self.held.poll_late(cx));
                    return Poll::Ready(Next::Lost(TransportError::Unfinished));
                }
            }
        }
    }

    /// Charges the client for what is kept of its messages.
    fn keep(&mut self) -> Result<(), TransportError> {
        let kept = self.frames.held_bytes().saturating_add(self.tail.len());
        let kept = self.held.keep(kept);
        kept.map_err(|Full| TransportError::NoRoom)
    }

    #[cfg(test)]
    fn held_budget(&self) -> Arc<crate::limits::Budget> {
        self.held.budget()
    }

    fn compact(&mut self) {
        if self.tail.is_empty() {
            self.tail = BytesMut::new();
        } else if self.tail.capacity() > LEAST_COMPACT_BYTES && self.tail.len() < self.tail.capacity() / 2 {
            self.tail = BytesMut::from(&*self.tail);
        }
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let Self { source, tail, .. } = self;
        with_buffer(|buffer| {
            let mut buffer = ReadBuf::new(buffer);
            match source {
                Source::Tcp(stream) => ready!(poll_read_tcp(stream, cx, &mut buffer))?,
                Source::Other(stream) => ready!(Pin::new(stream).poll_read(cx, &mut buffer))?,
            }
            tail.extend_from_slice(buffer.filled());
            Poll::Ready(Ok(buffer.filled().len()))
        })
    }

    /// Waits until the client has said its goodbye, or is gone, no longer than `patience`. What else it sends is dropped.
    pub(super) async fn await_end(&mut self, patience: Duration) {
        let waiting = async {
            loop {
                match self.next().await {
                    Next::Incoming(Incoming::Close(_)) | Next::Lost(_) => return,
                    Next::Incoming(_) => {}
                    Next::Bad(_) => return self.read_to_end().await,
                }
            }
        };
        let _ = timeout(patience, waiting).await;
    }

    /// After the last frame has come, or one that can't be read: waits until the client is gone, no longer than `patience`.
    /// If this side closed the socket first, the last frame that was written could be lost in a reset.
    pub(super) async fn await_gone(&mut self, patience: Duration) {
        let _ = timeout(patience, self.read_to_end()).await;
    }

    async fn read_to_end(&mut self) {
        poll_fn(|cx| {
            loop {
                self.tail.clear();
                if let Ok(0) | Err(_) = ready!(self.poll_read(cx)) {
                    return Poll::Ready(());
                }
            }
        })
        .await;
    }
}

impl Writer {
    /// Writes frames, in no more than `patience`.
    pub(super) async fn write(
        &mut self,
        frames: &mut Vec<Bytes>,
        patience: Duration,
    ) -> Result<(), TransportError> {
        let bytes = join(frames);
        match timeout(patience, self.write_all(&bytes)).await {
            Ok(written) => written.map_err(|_| TransportError::Broke),
            Err(_) => Err(TransportError::Stalled),
        }
    }

    async fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Other(stream) => {
                stream.write_all(bytes).await?;
                stream.flush().await
            }
            Self::Tcp(stream) => {
                let mut rest = bytes;
                while !rest.is_empty() {
                    stream.writable().await?;
                    match stream.try_write(rest) {
                        Ok(written) => rest = rest.get(written..).unwrap_or_default(),
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                        Err(error) => return Err(error),
                    }
                }
                Ok(())
            }
        }
    }

    /// Writes a Close frame after the rest of an unfinished frame. `false` where it could not be written.
    pub(super) async fn say_goodbye(&mut self, rest: Bytes, payload: &[u8], patience: Duration) -> bool {
        let mut frames = vec![rest, websocket::close_frame(payload)];
        self.write(&mut frames, patience).await.is_ok()
    }

    /// Says that nothing more will be written.
    pub(super) async fn shut_down(&mut self) {
        match self {
            Self::Tcp(stream) => drop(SockRef::from(&**stream).shutdown(Shutdown::Write)),
            Self::Other(stream) => drop(stream.shutdown().await),
        }
    }
}

fn join(frames: &mut Vec<Bytes>) -> Bytes {
    if frames.len() == 1 {
        return frames.pop().unwrap_or_default();
    }
    let mut bytes = BytesMut::with_capacity(frames.iter().map(Bytes::len).sum());
    frames.drain(..).for_each(|frame| bytes.extend_from_slice(&frame));
    bytes.freeze()
}

#[cfg(test)]
#[path = "socket_tests.rs"]
mod tests;
