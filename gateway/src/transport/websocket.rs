//! WebSocket: one socket for both directions, one task for both halves.

use std::sync::Arc;

use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket, WebSocketUpgrade, close_code};
use bytes::Bytes;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use tokio::time::timeout;

use super::link::Detached;
use crate::hub::Transport;
use crate::options::Limits;
use crate::protocol::TransferFormat;
use crate::queue::Taken;
use crate::session::{CloseReason, Inbound, Received, Session, run};

/// Read buffer of a socket. The library fills it with zeros at each read, so that a larger one costs time and memory
/// with every connection.
const READ_BUFFER_BYTES: usize = 2 * 1024;
/// Written in one system call, if that much waits.
const WRITE_BUFFER_BYTES: usize = 16 * 1024;
/// Most bytes that are taken from the outbox between two flushes.
const MAX_BATCH_BYTES: usize = 64 * 1024;

/// Sets the bounds of a socket before it is accepted.
pub(crate) fn upgrade_limits<F>(upgrade: WebSocketUpgrade<F>, limits: &Limits) -> WebSocketUpgrade<F> {
    // A frame may hold several hub messages; the message limit itself is the decoder's, which answers with Close.
    let frame_bytes = limits.http_body_bytes.max(limits.message_bytes.saturating_mul(2));
    upgrade
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(WRITE_BUFFER_BYTES)
        .max_message_size(frame_bytes)
        .max_frame_size(frame_bytes)
}

/// A session that waits for its socket. If the upgrade never comes about, the connection is given up.
pub(crate) struct Reservation {
    session: Option<Arc<Session>>,
    claimed: bool,
}

impl Reservation {
    /// `claimed`: the directory knows the connection already.
    pub(crate) fn new(session: Arc<Session>, claimed: bool) -> Self {
        Self {
            session: Some(session),
            claimed,
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let Some(session) = self.session.take() else {
            return;
        };
        session.close(CloseReason::TransportLost("the upgrade failed"));
        let claimed = self.claimed;
        let tasks = session.hub().shared().tasks().clone();
        tasks.spawn(async move { run(&session, &mut Gone, !claimed).await });
    }
}

/// The inbound side of a socket that never came.
struct Gone;

impl Inbound for Gone {
    async fn receive(&mut self) -> Received {
        Received::Lost("the upgrade failed")
    }
}

/// Serves an accepted socket until both sides are done. `early` came in before this node owned the connection.
pub(crate) async fn serve(mut reservation: Reservation, early: Detached, socket: WebSocket) {
    let Some(session) = reservation.session.take() else {
        return;
    };
    session.connection().set_transport(Transport::WebSockets);
    let (sink, stream) = socket.split();
    let mut inbound = SocketInbound {
        early: early.into_iter(),
        stream,
    };
    let writer = Writer {
        session: &session,
        sink,
    };
    let (ended, ()) = tokio::join!(writer.run(), run(&session, &mut inbound, !reservation.claimed));
    if ended.is_ok() {
        // What was written last would be lost in a reset if this side closed the socket first.
        let patience = session.hub().shared().options().timeouts.close;
        let _ = timeout(patience, async {
            while let Some(Ok(_)) = inbound.stream.next().await {}
        })
        .await;
    }
}

struct SocketInbound {
    early: std::vec::IntoIter<Bytes>,
    stream: SplitStream<WebSocket>,
}

impl Inbound for SocketInbound {
    async fn receive(&mut self) -> Received {
        if let Some(chunk) = self.early.next() {
            return Received::Data(chunk);
        }
        loop {
            match self.stream.next().await {
                // Text and binary frames are both just bytes: a MessagePack client sends its handshake as text.
                Some(Ok(Message::Text(text))) => return Received::Data(text.into()),
                Some(Ok(Message::Binary(bytes))) => return Received::Data(bytes),
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {} // answered by the library
                Some(Ok(Message::Close(_))) => return Received::Closed,
                Some(Err(_)) | None => return Received::Lost("the socket broke"),
            }
        }
    }
}

struct Writer<'a> {
    session: &'a Arc<Session>,
    sink: SplitSink<WebSocket, Message>,
}

/// The socket can't be written to any more.
struct Broken;

impl Writer<'_> {
    /// Writes what the outbox holds, batch by batch, until it ends; then the Close frame.
    async fn run(mut self) -> Result<(), Broken> {
        let mut frames = Vec::new();
        while self.session.take_frames(&mut frames, MAX_BATCH_BYTES).await == Taken::Some {
            if let Err(what) = self.write(&mut frames).await {
                self.session.transport_ended(what);
                return Err(Broken);
            }
            if frames.capacity() > 64 {
                frames = Vec::new();
            }
        }
        self.say_goodbye().await
    }

    async fn say_goodbye(&mut self) -> Result<(), Broken> {
        let failed = matches!(
            self.session.reason(),
            Some(CloseReason::ConnectFailed { .. } | CloseReason::Protocol { .. })
        );
        let code = if failed {
            close_code::ERROR
        } else {
            close_code::NORMAL
        };
        let frame = Message::Close(Some(CloseFrame {
            code,
            reason: Utf8Bytes::from_static(""),
        }));
        let patience = self.session.hub().shared().options().timeouts.close;
        match timeout(patience, self.sink.send(frame)).await {
            Ok(Ok(())) => Ok(()),
            _ => Err(Broken),
        }
    }

    async fn write(&mut self, frames: &mut Vec<Bytes>) -> Result<(), &'static str> {
        let text = match self.session.connection().protocol() {
            Some(protocol) => protocol.transfer_format() == TransferFormat::Text,
            None => true,
        };
        let patience = self.session.hub().shared().options().timeouts.send;
        let sending = async {
            for frame in frames.drain(..) {
                self.sink
                    .feed(message(frame, text)?)
                    .await
                    .map_err(|_| "the socket broke")?;
            }
            self.sink.flush().await.map_err(|_| "the socket broke")
        };
        timeout(patience, sending).await.unwrap_or(Err("a write stalled"))
    }
}

fn message(frame: Bytes, text: bool) -> Result<Message, &'static str> {
    if !text {
        return Ok(Message::Binary(frame));
    }
    Utf8Bytes::try_from(frame)
        .map(Message::Text)
        .map_err(|_| "a text frame was not UTF-8")
}
