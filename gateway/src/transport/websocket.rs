//! WebSocket: one socket for both directions, one task for both halves.

use std::pin::pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{sleep_until, timeout};

use super::socket::{Next, Reader, WebSocket, Writer};
use crate::protocol::ClientProtocol;
use crate::protocol::Transport;
use crate::protocol::websocket::{BadFrame, Incoming, close_code, close_payload};
use crate::session::{
    Begun, CloseReason, Detached, Ended, HttpLink, Inbound, InboxEntry, NotWhole, Received, Session, Taken,
    TransportError, run,
};

/// Most bytes that are taken from the outbox between two flushes, where a task writes.
const MAX_BATCH_BYTES: usize = 64 * 1024;

/// A session that waits for its socket. If the upgrade never comes about, the connection is given up.
pub(crate) struct Reservation {
    session: Option<Arc<Session>>,
    claimed: bool,
    /// Bytes that came in before this node owned the connection.
    early: Detached,
}

impl Reservation {
    /// `claimed`: the directory knows the connection already.
    pub(crate) fn new(session: Arc<Session>, claimed: bool) -> Box<Self> {
        Box::new(Self {
            session: Some(session),
            claimed,
            early: Detached::new(),
        })
    }

    /// `early` came in before this node owned the connection.
    pub(crate) fn begin_with(mut self: Box<Self>, early: Detached) -> Box<Self> {
        self.early = early;
        self
    }

    /// The socket is there: the connection, and whether the directory has yet to know it.
    fn take(&mut self) -> Option<(Arc<Session>, Early, bool)> {
        let session = self.session.take()?;
        session.connection().set_transport(Transport::WebSockets);
        let early = std::mem::take(&mut self.early);
        let early = (!early.is_empty()).then(|| Box::new(early.into_iter()));
        Some((session, early, !self.claimed))
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let Some(session) = self.session.take() else {
            return;
        };
        session.close(CloseReason::TransportLost(TransportError::NotUpgraded));
        let claimed = self.claimed;
        let tasks = session.hub().shared().tasks().clone();
        tasks.spawn(async move { run(&session, &mut Gone, !claimed).await });
    }
}

/// What came in before this node owned a connection. Seldom there is something.
type Early = Option<Box<std::vec::IntoIter<InboxEntry>>>;

/// The inbound side of a socket that never came.
struct Gone;

impl Inbound for Gone {
    async fn receive(&mut self) -> Received {
        Received::Lost(TransportError::NotUpgraded)
    }
}

/// The payload of the client's Close frame, once it has come.
type Goodbye = OnceLock<Box<Bytes>>;

/// Serves an accepted socket until both sides are done.
pub(crate) async fn serve(mut reservation: Box<Reservation>, mut socket: Box<WebSocket>) {
    let taken = reservation.take();
    drop(reservation);
    let Some((session, early, claim)) = taken else {
        return;
    };
    let goodbye = OnceLock::new();
    let is_told = {
        let mut inbound = SocketInbound {
            session: &session,
            early,
            reader: &mut socket.reader,
            was_pinged: false,
            goodbye: &goodbye,
        };
        let writer = &mut socket.writer;
        // Each future is made where it runs: one that is moved takes its room twice.
        let both = pin!(async {
            let writing = async {
                let written = write(&session, writer).await;
                let rest = session.detach();
                if let Err(error) = written {
                    session.transport_ended(error);
                }
                // Also where nothing can be written because the client said goodbye: it is owed an answer.
                written != Err(TransportError::Stalled)
                    && Box::pin(say_goodbye(
                        &session,
                        writer,
                        rest,
                        goodbye.get().map(|payload| &**payload),
                    ))
                    .await
            };
            tokio::join!(writing, run(&session, &mut inbound, claim))
        });
        session.in_turns(both).await.0
    };
    if is_told {
        Box::pin(part(&session, socket, goodbye.get().is_some())).await;
    }
}

/// Waits for the client after the last frame was written to it. `has_finished`: it said goodbye itself, or can't be understood.
async fn part(session: &Session, mut socket: Box<WebSocket>, has_finished: bool) {
    let patience = session.hub().options().timeouts.close;
    if has_finished || matches!(session.reason(), Some(CloseReason::BadFrame(_))) {
        socket.writer.shut_down().await;
        socket.reader.await_gone(patience).await;
    } else {
        socket.reader.await_end(patience).await;
    }
}

/// Serves one socket of a connection that outlives its sockets. A newer one takes its place.
pub(crate) async fn serve_resumable(session: Arc<Session>, mut socket: Box<WebSocket>) {
    let Some(link) = session.http() else { return };
    let turn = link.supersede();
    let _turn = link.polling.lock().await; // the older socket has stopped writing
    if link.is_superseded(turn) {
        return;
    }
    let _attached = link.attach();
    session.resume_states();
    session.wait_no_more();
    if link.begin() == Begun::Before {
        if let Err(NotWhole) = session.rewind() {
            session.close(CloseReason::Moved); // it is replayed from the log, for the next socket
        }
        if let Err(Ended) = link.resume().await {
            return;
        }
    }
    let protocol = session.connection().protocol();
    let patience = session.hub().options().timeouts.client_timeout;
    let patience = protocol
        .is_some_and(ClientProtocol::answers_pings)
        .then_some(patience);
    let end = {
        let serving = pin!(async {
            tokio::select! {
                () = link.superseded(turn) => SocketEnd::Superseded,
                end = read_into(&session, link, &mut socket.reader, patience) => end,
                written = write(&session, &mut socket.writer) => match written {
                    Ok(()) => SocketEnd::SessionOver,
                    Err(error) => SocketEnd::Broken(error),
                },
            }
        });
        session.in_turns(serving).await
    };
    let rest = session.detach();
    let goodbye = match end {
        SocketEnd::Superseded => return,
        // A Close frame is a goodbye, and without one the client comes back, if the handshake allowed for it.
        SocketEnd::Closed(payload) => {
            session.close(CloseReason::ByClient);
            Some(payload)
        }
        SocketEnd::Bad(frame) => {
            session.close(CloseReason::BadFrame(frame));
            None
        }
        SocketEnd::Broken(_) if session.is_stateful() => return session.wait_for_client(),
        SocketEnd::Broken(error) => return session.transport_ended(error),
        // Without a Close frame the client comes back by itself.
        SocketEnd::SessionOver if session.has_moved() => return,
        SocketEnd::SessionOver => None,
    };
    Box::pin(async {
        if say_goodbye(&session, &mut socket.writer, rest, goodbye.as_ref()).await {
            part(&session, socket, goodbye.is_some()).await;
        }
    })
    .await;
}

/// The reason why a socket is no longer served.
enum SocketEnd {
    Superseded,
    /// The payload of the client's Close frame.
    Closed(Bytes),
    Bad(BadFrame),
    Broken(TransportError),
    SessionOver,
}

/// `patience`: how long the socket may be silent, where it answers pings.
async fn read_into(
    session: &Session,
    link: &HttpLink,
    reader: &mut Reader,
    patience: Option<Duration>,
) -> SocketEnd {
    loop {
        let next = match patience {
            None => reader.next().await,
            Some(patience) => match timeout(patience, reader.next()).await {
                Ok(next) => next,
                Err(_) => return SocketEnd::Broken(TransportError::Silent),
            },
        };
        let bytes = match next {
            Next::Incoming(Incoming::Data(bytes)) => bytes,
            Next::Incoming(Incoming::Ping(payload)) => {
                session.answer_ping(&payload);
                session.pongs_are_out().await;
                rest(session, payload.len()).await;
                continue;
            }
            Next::Incoming(Incoming::Pong(length)) => {
                rest(session, length).await;
                continue;
            }
            Next::Incoming(Incoming::Close(payload)) => return SocketEnd::Closed(payload),
            Next::Bad(frame) => return SocketEnd::Bad(frame),
            Next::Lost(error) => return SocketEnd::Broken(error),
        };
        if let Err(Ended) = link.receive(bytes).await {
            return std::future::pending().await; // the session is over; its last frames are still being written
        }
    }
}

/// Charges the client for a control frame, and waits where it sends too fast.
async fn rest(session: &Session, payload: usize) {
    session.measure(true, control_bytes(payload));
    if let Some(due) = session.pace_resumes() {
        sleep_until(due).await;
    }
}

/// The weight of a control frame in bytes, with its header.
fn control_bytes(payload: usize) -> usize {
    payload.saturating_add(6)
}

struct SocketInbound<'a> {
    session: &'a Session,
    early: Early,
    reader: &'a mut Reader,
    /// A Ping was answered: nothing is read before the answer is out.
    was_pinged: bool,
    /// Where the payload of the client's Close frame goes.
    goodbye: &'a Goodbye,
}

impl Inbound for SocketInbound<'_> {
    async fn receive(&mut self) -> Received {
        if let Some(early) = &mut self.early {
            if let Some(entry) = early.next() {
                return entry.into();
            }
            self.early = None;
        }
        if self.was_pinged {
            self.session.pongs_are_out().await;
            self.was_pinged = false;
        }
        match self.reader.next().await {
            // Text and binary frames are both just bytes: a MessagePack client sends its handshake as text.
            Next::Incoming(Incoming::Data(bytes)) => Received::Data(bytes),
            Next::Incoming(Incoming::Ping(payload)) => {
                self.session.answer_ping(&payload);
                self.was_pinged = true;
                Received::Alive {
                    bytes: control_bytes(payload.len()),
                }
            }
            Next::Incoming(Incoming::Pong(length)) => Received::Alive {
                bytes: control_bytes(length),
            },
            Next::Incoming(Incoming::Close(payload)) => {
                let _ = self.goodbye.set(Box::new(payload)); // nothing is read after the first one
                self.session.hears_no_more();
                Received::Closed
            }
            Next::Bad(frame) => Received::Bad(frame),
            Next::Lost(error) => Received::Lost(error),
        }
    }
}

/// Writes what is for the client until there is nothing more.
async fn write(session: &Session, writer: &mut Writer) -> Result<(), TransportError> {
    if matches!(writer, Writer::Tcp(_)) && session.has_past() {
        Box::pin(write_by_task(session, writer, true)).await?;
    }
    match writer {
        Writer::Tcp(stream) => session.write_to(stream).await,
        Writer::Other(_) => Box::pin(write_by_task(session, writer, false)).await,
    }
}

/// Writes batch by batch. `past`: only what comes before the outbox.
async fn write_by_task(session: &Session, writer: &mut Writer, past: bool) -> Result<(), TransportError> {
    let patience = session.hub().options().timeouts.send;
    let mut frames = Vec::new();
    loop {
        let taken = match past {
            true => session.take_past(&mut frames, MAX_BATCH_BYTES).await,
            false => session.take_frames(&mut frames, MAX_BATCH_BYTES).await,
        };
        if taken == Taken::End {
            return Ok(());
        }
        writer.write(&mut frames, patience).await?;
        if frames.capacity() > 64 {
            frames = Vec::new();
        }
    }
}

/// Says that this side ends the socket, or answers the client that said so first. `false` where it could not be written.
async fn say_goodbye(session: &Session, writer: &mut Writer, rest: Bytes, answered: Option<&Bytes>) -> bool {
    let patience = session.hub().options().timeouts.close;
    if let Some(payload) = answered {
        return writer.say_goodbye(rest, payload, patience).await;
    }
    let protocol = session.connection().protocol();
    let (code, words) = session
        .reason()
        .map_or((close_code::NORMAL, String::new()), |reason| {
            reason.close_frame(protocol)
        });
    let payload = close_payload(code, &words);
    writer.say_goodbye(rest, &payload, patience).await
}

#[cfg(test)]
#[path = "websocket_tests.rs"]
mod tests;
