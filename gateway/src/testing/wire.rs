//! The link of a test client, in place of a socket.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::client::{Called, Closed};
use super::error::{ClientRefusal, TestError};
use crate::protocol::websocket;
use crate::protocol::{Decoder, HubMessage, HubProtocol, Invocation, Outcome, Value, encode};
use crate::session::Taken;
use crate::session::{CloseReason, Received, Session};

/// How long a client waits for the server, unless its patience was set.
const PATIENCE: Duration = Duration::from_secs(30);

/// The client's code for a client result. The error is the text that the client answers with.
pub(super) type ResultSource = Box<dyn FnMut(&[Value]) -> Result<Value, String> + Send>;

/// The items and the end that came for a call.
#[derive(Default)]
pub(super) struct Begun {
    pub(super) items: VecDeque<Value>,
    pub(super) end: Option<Outcome>,
}

/// Both ends of a connection, seen by its client.
pub(super) struct Wire {
    pub(super) session: Arc<Session>,
    pub(super) to_session: mpsc::Sender<Received>,
    pub(super) protocol: HubProtocol,
    decoder: Decoder,
    /// Messages that wait for room in `to_session`.
    unsent: VecDeque<Received>,
    pub(super) received: VecDeque<Called>,
    pub(super) calls: HashMap<String, Begun>,
    /// `None`: never answered.
    pub(super) answers: HashMap<String, Option<ResultSource>>,
    pub(super) patience: Duration,
    /// Pings that came.
    pub(super) pings: usize,
    /// The server's Close message.
    goodbye: Option<(Option<String>, bool)>,
    pub(super) end: Option<Closed>,
}

impl Wire {
    /// Makes the handshake with a session that runs.
    pub(super) async fn open(
        session: Arc<Session>,
        to_session: mpsc::Sender<Received>,
        protocol: HubProtocol,
    ) -> Self {
        let mut wire = Self::new(session, to_session, protocol);
        let handshake = format!("{{\"protocol\":\"{protocol}\",\"version\":1}}\x1e");
        let _ = wire.to_session.send(Received::Data(handshake.into())).await; // the end shows when reading
        // The answer is no message: it has no type.
        if wire.session.take_frames(&mut Vec::new(), 0).await == Taken::End {
            wire.ended();
        }
        wire
    }

    /// The end of a client that the server does not let in.
    pub(super) fn refused(
        session: Arc<Session>,
        to_session: mpsc::Sender<Received>,
        protocol: HubProtocol,
        refusal: &ClientRefusal,
    ) -> Self {
        let mut wire = Self::new(session, to_session, protocol);
        wire.end = Some(Closed {
            error: Some(refusal.to_string()),
            allow_reconnect: false,
            reason: None,
        });
        wire
    }

    fn new(session: Arc<Session>, to_session: mpsc::Sender<Received>, protocol: HubProtocol) -> Self {
        Self {
            session,
            to_session,
            protocol,
            decoder: Decoder::new(protocol, usize::MAX),
            unsent: VecDeque::new(),
            received: VecDeque::new(),
            calls: HashMap::new(),
            answers: HashMap::new(),
            patience: PATIENCE,
            pings: 0,
            goodbye: None,
            end: None,
        }
    }

    /// The time when the wait that begins now is over.
    pub(super) fn until(&self) -> Instant {
        Instant::now() + self.patience
    }

    pub(super) async fn write_message(&mut self, message: &HubMessage) -> Result<(), TestError> {
        let frame = encode(self.protocol, message)?;
        self.write(Received::Data(frame)).await
    }

    pub(super) async fn write(&mut self, what: Received) -> Result<(), TestError> {
        if let Some(end) = &self.end {
            return Err(TestError::Closed(end.clone()));
        }
        let until = self.until();
        self.unsent.push_back(what);
        while !self.unsent.is_empty() {
            self.exchange(until).await?;
        }
        Ok(())
    }

    /// Sends or reads something, whatever is possible first. Cancel-safe.
    pub(super) async fn exchange(&mut self, until: Instant) -> Result<(), TestError> {
        if let Some(end) = &self.end {
            return Err(TestError::Closed(end.clone()));
        }
        let mut frames = Vec::new();
        let taken = tokio::select! {
            biased;
            room = self.to_session.reserve(), if !self.unsent.is_empty() => {
                match (room, self.unsent.pop_front()) {
                    (Ok(room), Some(next)) => room.send(next),
                    _ => self.unsent.clear(), // the session reads no more
                }
                return Ok(());
            }
            taken = self.session.take_frames(&mut frames, usize::MAX) => taken,
            () = sleep_until(until) => return Err(TestError::TimedOut(self.patience)),
        };
        let payloads = frames.iter().map(websocket::payload_of);
        payloads.for_each(|payload| self.decoder.push(&payload));
        while let Some(message) = self.decoder.next_message()? {
            self.take(message);
        }
        if taken == Taken::End {
            self.ended();
        }
        Ok(())
    }

    fn take(&mut self, message: HubMessage) {
        match message {
            HubMessage::Invocation(invocation) => self.called(invocation),
            HubMessage::StreamItem {
                invocation_id, item, ..
            } => {
                if let Some(begun) = self.calls.get_mut(&invocation_id) {
                    begun.items.push_back(item);
                }
            }
            HubMessage::Completion {
                invocation_id,
                outcome,
                ..
            } => {
                if let Some(begun) = self.calls.get_mut(&invocation_id) {
                    begun.end = Some(outcome);
                }
            }
            HubMessage::Close {
                error,
                allow_reconnect,
            } => self.goodbye = Some((error, allow_reconnect)),
            HubMessage::Ping => self.pings = self.pings.wrapping_add(1),
            _ => {}
        }
    }

    fn called(&mut self, invocation: Invocation) {
        let Invocation {
            invocation_id,
            target,
            arguments,
            ..
        } = invocation;
        let Some(invocation_id) = invocation_id else {
            return self.received.push_back(Called { target, arguments });
        };
        let outcome = match self.answers.get_mut(&target) {
            Some(Some(answer)) => answer(&arguments).map_or_else(Outcome::Error, Outcome::Result),
            Some(None) => return,
            None => Outcome::Error("Client didn't provide a result.".to_owned()),
        };
        let answer = HubMessage::Completion {
            headers: Vec::new(),
            invocation_id,
            outcome,
        };
        if let Ok(frame) = encode(self.protocol, &answer) {
            self.unsent.push_back(Received::Data(frame));
        }
    }

    fn ended(&mut self) {
        let reason = self.session.reason();
        let (error, allow_reconnect) = self.goodbye.take().unwrap_or_else(|| match reason {
            Some(CloseReason::Handshake { detail }) => (Some(detail.clone()), false),
            _ => (None, true), // a connection that just breaks
        });
        self.end = Some(Closed {
            error,
            allow_reconnect,
            reason: reason.and_then(CloseReason::disconnected),
        });
    }
}
