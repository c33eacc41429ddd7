//! WebSocket: one socket for both directions, one task for both halves.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::ws::close_code;
use bytes::Bytes;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use tokio::time::{sleep_until, timeout};
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::{self, Message, Utf8Bytes};

use super::upgrade::WebSocket;
use crate::protocol::Transport;
use crate::protocol::{ClientProtocol, TransferFormat};
use crate::session::Taken;
use crate::session::{BadFrame, CloseReason, Inbound, Received, Session, run};
use crate::session::{Detached, HttpLink};

/// Most bytes that are taken from the outbox between two flushes.
const MAX_BATCH_BYTES: usize = 64 * 1024;

const STALLED: &str = "a write stalled";
const BROKE: Received = Received::Lost("the socket broke");

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
    let mut writer = Writer {
        session: &session,
        sink,
    };
    let writing = async {
        // Also where nothing can be written because the client said goodbye: it is owed an answer.
        let written = writer.run().await;
        let written = written.inspect_err(|what| session.transport_ended(what));
        written != Err(STALLED) && writer.say_goodbye().await
    };
    let (ended, ()) = tokio::join!(writing, run(&session, &mut inbound, !reservation.claimed));
    if ended {
        // The last frame would be lost in a reset if this side closed the socket first.
        let patience = session.hub().options().timeouts.close;
        let _ = timeout(patience, async {
            while let Some(Ok(_)) = inbound.stream.next().await {}
        })
        .await;
    }
}

/// Serves one socket of a connection that outlives its sockets. A newer one takes its place.
pub(crate) async fn serve_resumable(session: Arc<Session>, socket: WebSocket) {
    let Some(link) = session.http() else { return };
    let superseded = link.supersede();
    let _turn = link.polling.lock().await; // the older socket has stopped writing
    if superseded.is_cancelled() {
        return;
    }
    let _attached = link.attach();
    session.wait_no_more();
    if !link.begin() {
        if !session.rewind() {
            session.close(CloseReason::Moved); // it is replayed from the log, for the next socket
        }
        if !link.resume().await {
            return;
        }
    }
    let (sink, mut stream) = socket.split();
    let mut writer = Writer {
        session: &session,
        sink,
    };
    let protocol = session.connection().protocol();
    let patience = session.hub().options().timeouts.client_timeout;
    let patience = protocol
        .is_some_and(ClientProtocol::answers_pings)
        .then_some(patience);
    let end = tokio::select! {
        () = superseded.cancelled() => SocketEnd::Superseded,
        end = read_into(&session, link, &mut stream, patience) => end,
        written = writer.run() => match written {
            Ok(()) => SocketEnd::SessionOver,
            Err(what) => SocketEnd::Broken(what),
        },
    };
    match end {
        SocketEnd::Superseded => {}
        // A Close frame is a goodbye, and without one the client comes back, if the handshake allowed for it.
        SocketEnd::Closed => {
            session.close(CloseReason::ByClient);
            writer.say_goodbye().await;
        }
        SocketEnd::Bad(frame) => {
            session.close(CloseReason::BadFrame(frame));
            writer.say_goodbye().await;
        }
        SocketEnd::Broken(_) if session.is_stateful() => session.wait_for_client(),
        SocketEnd::Broken(what) => session.transport_ended(what),
        // Without a Close frame the client comes back by itself.
        SocketEnd::SessionOver if session.has_moved() => {}
        SocketEnd::SessionOver => {
            let patience = session.hub().options().timeouts.close;
            if writer.say_goodbye().await {
                let _ = timeout(patience, async { while let Some(Ok(_)) = stream.next().await {} }).await;
            }
        }
    }
}

/// The reason why a socket is no longer served.
enum SocketEnd {
    Superseded,
    Closed,
    Bad(BadFrame),
    Broken(&'static str),
    SessionOver,
}

/// `patience`: how long the socket may be silent, where it answers pings.
async fn read_into(
    session: &Session,
    link: &HttpLink,
    stream: &mut SplitStream<WebSocket>,
    patience: Option<Duration>,
) -> SocketEnd {
    loop {
        let next = match patience {
            None => stream.next().await,
            Some(patience) => match timeout(patience, stream.next()).await {
                Ok(next) => next,
                Err(_) => return SocketEnd::Broken("the client fell silent"),
            },
        };
        let bytes = match next {
            Some(Ok(Message::Text(text))) => text.into(),
            Some(Ok(Message::Binary(bytes))) => bytes,
            Some(Ok(Message::Ping(payload) | Message::Pong(payload))) => {
                session.measure(true, control_bytes(&payload));
                if let Some(due) = session.pace_resumes() {
                    sleep_until(due).await;
                }
                continue;
            }
            Some(Ok(Message::Frame(_))) => continue, // only ever sent
            Some(Ok(Message::Close(_))) => return SocketEnd::Closed,
            Some(Err(error)) => {
                return bad_frame(&error).map_or(SocketEnd::Broken("the socket broke"), SocketEnd::Bad);
            }
            None => return SocketEnd::Broken("the socket broke"),
        };
        if !link.receive(bytes).await {
            return std::future::pending().await; // the session is over; its last frames are still being written
        }
    }
}

/// The weight of a control frame in bytes, with its header.
fn control_bytes(payload: &[u8]) -> usize {
    payload.len() + 6
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
                // A Ping is answered by the library.
                Some(Ok(Message::Ping(payload) | Message::Pong(payload))) => {
                    return Received::Alive {
                        bytes: control_bytes(&payload),
                    };
                }
                Some(Ok(Message::Frame(_))) => {} // only ever sent
                Some(Ok(Message::Close(_))) => return Received::Closed,
                Some(Err(error)) => return bad_frame(&error).map_or(BROKE, Received::Bad),
                None => return BROKE,
            }
        }
    }
}

struct Writer<'a> {
    session: &'a Arc<Session>,
    sink: SplitSink<WebSocket, Message>,
}

impl Writer<'_> {
    /// Writes the frames of the outbox, batch by batch, until it ends.
    async fn run(&mut self) -> Result<(), &'static str> {
        let mut frames = Vec::new();
        while self.session.take_frames(&mut frames, MAX_BATCH_BYTES).await == Taken::Some {
            self.write(&mut frames).await?;
            if frames.capacity() > 64 {
                frames = Vec::new();
            }
        }
        Ok(())
    }

    /// Says that this side ends the socket, or answers the client that said so first. `false` where it could not be written.
    async fn say_goodbye(&mut self) -> bool {
        let protocol = self.session.connection().protocol();
        let reason = self.session.reason();
        let (code, words) = reason.map_or((close_code::NORMAL, String::new()), |reason| {
            reason.close_frame(protocol)
        });
        let frame = Message::Close(Some(CloseFrame {
            code: code.into(),
            reason: words.into(),
        }));
        let patience = self.session.hub().options().timeouts.close;
        let saying = async {
            match self.sink.send(frame).await {
                Ok(()) => Ok(()),
                // Refused, where the client's Close came first: the library has the answer to that ready.
                Err(_) => self.sink.flush().await,
            }
        };
        matches!(timeout(patience, saying).await, Ok(Ok(())))
    }

    async fn write(&mut self, frames: &mut Vec<Bytes>) -> Result<(), &'static str> {
        let text = match self.session.connection().protocol() {
            Some(protocol) => protocol.transfer_format() == TransferFormat::Text,
            None => true,
        };
        let patience = self.session.hub().options().timeouts.send;
        let sending = async {
            for frame in frames.drain(..) {
                self.sink
                    .feed(message(frame, text)?)
                    .await
                    .map_err(|_| "the socket broke")?;
            }
            self.sink.flush().await.map_err(|_| "the socket broke")
        };
        timeout(patience, sending).await.unwrap_or(Err(STALLED))
    }
}

/// The client's error in its input, if it made one; else the socket broke.
fn bad_frame(error: &tungstenite::Error) -> Option<BadFrame> {
    let (code, what) = match error {
        tungstenite::Error::Utf8(_) => (close_code::INVALID, "A text is not UTF-8."),
        tungstenite::Error::Capacity(_) => (close_code::SIZE, "A frame is too large."),
        tungstenite::Error::Protocol(
            ProtocolError::ResetWithoutClosingHandshake
            | ProtocolError::SendAfterClosing
            | ProtocolError::ReceivedAfterClosing,
        ) => return None,
        tungstenite::Error::Protocol(_) => (close_code::PROTOCOL, "A frame breaks the WebSocket protocol."),
        _ => return None,
    };
    Some(BadFrame { code, what })
}

fn message(frame: Bytes, text: bool) -> Result<Message, &'static str> {
    if frame.is_empty() {
        return Ok(Message::Ping(frame)); // a sign of life, for those whose protocol has none
    }
    if !text {
        return Ok(Message::Binary(frame));
    }
    Utf8Bytes::try_from(frame)
        .map(Message::Text)
        .map_err(|_| "a text frame was not UTF-8")
}
