//! The outgoing messages of a session: its outbox, from the handshake response to the last message.

use std::future::poll_fn;
use std::task::Poll;

use bytes::Bytes;
use hubcast_backplane::UserId;
use tokio::time::Instant;

use super::reader::Reader;
use super::{
    Appended, Carriage, CloseReason, Ended, Frames, NotWhole, PushError, STATEFUL_VERSION, Sent, Session,
    Taken, TransportError,
};
use crate::auth::TokenSigner;
use crate::protocol::{
    ClientProtocol, HubMessage, Transport, encode_for, handshake_response_error, handshake_response_ok,
    webpubsub::WebPubSubProtocol, websocket,
};
use crate::telemetry::labels::LimitLabel;

/// The outcome of delivering a message to a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Delivered {
    /// Its outbox has it.
    Yes(Appended),
    /// It is not for its client, or came too late.
    No,
}

impl Session {
    /// Answers the handshake. Of a stateful session, numbered messages are held back until the client was heard once
    /// more: the official JavaScript client begins to count only some time after the answer.
    pub(super) fn open(&self) {
        if let Some(greeting) = self.greeting() {
            self.outbox.open(self.carry(greeting));
        } else if self.is_stateful() {
            self.outbox.open_one(self.carry(handshake_response_ok()));
        } else {
            self.outbox.open(self.carry(handshake_response_ok()));
        }
    }

    /// Returns whether a handshake of this version makes the session stateful: it must be one that outlives its
    /// sockets.
    pub(super) fn becomes_stateful(&self, version: i32) -> bool {
        self.outlives_sockets() && version >= STATEFUL_VERSION
    }

    pub(super) fn speaks_hub_protocol(&self) -> bool {
        matches!(self.connection.protocol(), None | Some(ClientProtocol::Hub(_)))
    }

    /// The first message to a Web PubSub client, on each of its sockets.
    fn greeting(&self) -> Option<Bytes> {
        let protocol = self.connection.protocol()?.web_pubsub()?;
        let (id, user) = (self.id().as_str(), self.connection.user().map(UserId::as_str));
        let token = (protocol.is_reliable() && self.outlives_sockets()).then(|| {
            let secret = self.hub.shared().backplane().cluster_secret();
            TokenSigner::new(&secret).recovery(self.hub.name(), self.id())
        });
        Some(protocol.connected(id, user, token.as_deref()))
    }

    /// Numbers the messages that are sent from now on.
    pub(super) fn keep(&self) {
        self.outbox.keep();
    }

    /// Answers the handshake with an error.
    pub(super) fn refuse(&self, text: &str) {
        let refusal = if self.speaks_hub_protocol() {
            Some(self.carry(handshake_response_error(text)))
        } else {
            self.encode(&HubMessage::Close {
                error: Some(text.to_owned()),
                allow_reconnect: true,
            })
        };
        match refusal {
            Some(refusal) => self.outbox.open(refusal),
            None => self.outbox.release(),
        }
    }

    /// Ends the outbox, with a last message if there is one. A node without room keeps nothing else.
    pub(super) fn close_outbox(&self, last: Option<Bytes>) {
        if self.reason() == Some(&CloseReason::NoRoom) {
            self.discard_past();
            self.outbox.drop_waiting();
        }
        self.end_past();
        match last {
            Some(frame) => self.outbox.close_with(self.carry(frame)),
            None => self.outbox.close(),
        }
    }

    /// How the transport wraps hub messages.
    pub(super) fn carriage(&self) -> Carriage {
        match self.connection.transport() {
            Some(Transport::ServerSentEvents) if self.speaks_hub_protocol() => Carriage::Event,
            Some(Transport::WebSockets) => Carriage::Socket,
            _ => Carriage::Plain,
        }
    }

    /// Wraps a frame as the client's transport carries it: once a binary protocol was chosen, all of them are binary, also the
    /// answer to the handshake.
    pub(super) fn carry(&self, frame: Bytes) -> Bytes {
        self.carriage().carry(frame, self.connection.protocol())
    }

    /// Sends the messages that were held back.
    pub(super) fn release(&self) {
        self.outbox.release();
    }

    /// A new socket took the place of a lost one: everything that the client may lack is sent again, after the number
    /// of the first, unless that is only in the log.
    pub(crate) fn rewind(&self) -> Result<(), NotWhole> {
        self.outbox
            .rewind(|sequence_id| self.encode(&HubMessage::Sequence { sequence_id }))
    }

    /// Returns whether the messages that the client may lack are here, and not only in the log.
    pub(crate) fn can_rewind(&self) -> bool {
        self.outbox.can_rewind()
    }

    /// Adds a message of the log to the outbox; one that is full ends the session. A session that was
    /// closed takes only what its calls had sent before: messages after the offset of its end are not for its client.
    pub(crate) fn deliver(&self, frames: &Frames<'_>, place: u64) -> Delivered {
        if let Some(reason) = self.reason()
            && (!reason.lets_follow() || place > self.connection.sent())
        {
            return Delivered::No;
        }
        let Some(frame) = self
            .connection
            .protocol()
            .and_then(|protocol| frames.get(protocol, self.carriage()))
        else {
            return Delivered::No;
        };
        if let Err(Ended) = self.keep_to_share() {
            return Delivered::No;
        }
        match frames.states_of() {
            Some(group) => self.deliver_state(group, frame, place),
            None => self.append(frame, Some(place)),
        }
    }

    /// Adds a frame to the outbox, numbered where it has a place.
    pub(super) fn append(&self, frame: Bytes, place: Option<u64>) -> Delivered {
        let appended = match (self.reader(), place) {
            (Some(reader), Some(place)) => reader.append(&self.outbox, frame, place),
            (_, place) => self.outbox.append(frame, place),
        };
        match appended {
            Ok(appended) => Delivered::Yes(appended),
            Err(PushError::Full { queued }) => {
                self.fall_behind(queued);
                Delivered::No
            }
            Err(PushError::Closed) => Delivered::No,
        }
    }

    /// Writes what was delivered, where the client has a socket of its own.
    pub(crate) fn flush(&self) -> Sent {
        self.outbox.flush()
    }

    /// Counts what was written to the client.
    pub(crate) fn count_sent(&self, sent: Sent) {
        if let Some(protocol) = self.connection.protocol() {
            sent.count(self.hub.shared().metrics(), protocol);
        }
    }

    /// Ends the session where more than the client's share waits for it.
    pub(super) fn keep_to_share(&self) -> Result<(), Ended> {
        let share = self.share();
        if share == usize::MAX || self.outbox.queued_bytes() <= share {
            return Ok(());
        }
        if self.is_stateful() {
            let metrics = self.hub.shared().metrics();
            metrics.limited.get(LimitLabel::HeldBytes).inc();
            self.close(CloseReason::Moved); // the log keeps the messages that its client lacks
        } else {
            self.close(CloseReason::NoRoom);
            self.outbox.drop_waiting(); // at once: the next client need not go as well
        }
        Err(Ended)
    }

    /// Pushes one message to this client alone. In a stateful session only messages without a number.
    pub(crate) fn push(&self, message: &HubMessage) {
        if let Some(frame) = self.encode(message) {
            self.push_frame(frame);
        }
    }

    /// Pushes a message that Web PubSub's protocols have to this client alone, if it speaks one of them.
    pub(super) fn answer_message(&self, write: impl FnOnce(WebPubSubProtocol) -> Bytes) {
        if let Some(protocol) = self.connection.protocol().and_then(ClientProtocol::web_pubsub) {
            self.push_bare(write(protocol));
        }
    }

    /// Pushes a message of the client's protocol to this client alone.
    pub(super) fn push_bare(&self, message: Bytes) {
        self.push_frame(self.carry(message));
    }

    /// Pushes a frame that is in no log. An outbox that is full ends the session, one that was closed takes nothing.
    pub(super) fn push_frame(&self, frame: Bytes) {
        if self.keep_to_share().is_ok()
            && let Err(PushError::Full { queued }) = self.outbox.try_push(frame)
        {
            self.fall_behind(queued);
        }
    }

    /// The client reads too slowly, or not at all. The log keeps the messages that a stateful one lacks.
    pub(super) fn fall_behind(&self, queued: usize) {
        if self.is_stateful() {
            let metrics = self.hub.shared().metrics();
            metrics.slow_consumers.inc();
            metrics.limited.get(LimitLabel::OutboxBytes).inc();
            self.close(CloseReason::Moved);
        } else {
            self.close(CloseReason::SlowConsumer { queued });
        }
    }

    /// Pushes one message to this client alone, waiting until the client has read the messages before it.
    pub(crate) async fn push_waiting(&self, message: &HubMessage) -> Result<(), Ended> {
        self.outbox.at_most(self.high_water()).await;
        let Some(frame) = self.encode(message) else {
            return Ok(());
        };
        self.outbox.push(frame).await.map_err(|_| Ended)
    }

    /// As the transport carries it; `None` also where the client's protocol has no such message.
    pub(super) fn encode(&self, message: &HubMessage) -> Option<Bytes> {
        let Some(frame) = self.encode_bare(message) else {
            let is_ping = matches!(message, HubMessage::Ping) && self.carriage() == Carriage::Socket;
            return is_ping.then_some(websocket::PING_FRAME); // the protocol has none, but the WebSocket has
        };
        let frame = self.carry(frame);
        Some(match message {
            HubMessage::Ping => frame, // all clients have the same one
            _ => self.hub.shared().budget().charge(frame),
        })
    }

    /// `None` also where the client's protocol has no such message.
    pub(super) fn encode_bare(&self, message: &HubMessage) -> Option<Bytes> {
        let protocol = self.connection.protocol()?;
        if protocol.is_reliable() && matches!(message, HubMessage::Sequence { .. }) {
            return self.greeting();
        }
        encode_for(protocol, message)
            .inspect_err(
                |error| tracing::error!(connection_id = %self.id(), %error, "a message can't be encoded"),
            )
            .ok()
            .flatten()
    }

    /// Queued bytes above which this client is asked to wait: no more of its messages are read.
    pub(super) fn high_water(&self) -> usize {
        (self.hub.options().limits.outbox_bytes / 4).min(self.share())
    }

    /// Bytes that may wait for this client while the node holds as much as it may for all of them.
    pub(super) fn share(&self) -> usize {
        let budget = self.hub.shared().budget();
        budget.share(|| self.hub.registry().len())
    }

    /// Moves frames, whole hub messages in order, to `into`: at least one, up to about `max_bytes`.
    pub(crate) async fn take_frames(&self, into: &mut Vec<Bytes>, max_bytes: usize) -> Taken {
        let past = self.take_past(into, max_bytes).await;
        if past != Taken::End {
            return past;
        }
        let already = into.len();
        let taken = self.outbox.take(into, max_bytes).await;
        if taken == Taken::Some {
            let new = into.iter().skip(already);
            self.count_sent(Sent {
                chunks: new.len() as u64,
                bytes: new.map(Bytes::len).sum::<usize>() as u64,
            });
        }
        taken
    }

    /// Answers a Ping of the client's WebSocket.
    pub(crate) fn answer_ping(&self, payload: &[u8]) {
        let frame = websocket::pong_frame(payload);
        let past = self.reader().and_then(Reader::past);
        if past.is_none_or(|past| past.add_pong(&frame).is_err()) {
            let _ = self.outbox.add_pong(&frame); // refused when nothing more is written
        }
    }

    /// Waits until the answers to the client's Pings are written: until then it is not read.
    pub(crate) async fn pongs_are_out(&self) {
        Box::pin(async {
            if let Some(past) = self.reader().and_then(Reader::past) {
                past.pongs_are_out().await;
            }
            self.outbox.pongs_are_out().await;
        })
        .await;
    }

    /// Puts frames that a poll took, and did not bring to the client, before all others. Where a later one has taken
    /// more, order would be lost: the session ends.
    pub(crate) fn give_back(&self, frames: Bytes, taking: u64) {
        match self.http() {
            Some(link) if link.is_last_taking(taking) => self.outbox.put_back(frames),
            _ => self.close(CloseReason::LogLost("the answer to a poll was lost")),
        }
    }

    /// The transport is gone: nothing will be written any more.
    pub(crate) fn transport_ended(&self, error: TransportError) {
        self.discard_outbox();
        self.close(CloseReason::TransportLost(error));
    }

    /// The time when its client counts as lost, if no request is attached until then; `None` while one is, and for a
    /// session that is one socket.
    pub(super) fn lost_at(&self) -> Option<Instant> {
        let idle_since = self.http()?.idle_since()?;
        let options = self.hub.options();
        let patience = if self.is_stateful() {
            options.hubs.resume_window
        } else {
            options.timeouts.disconnect
        };
        idle_since.checked_add(patience)
    }

    /// Ends when a request was attached or detached. For the task that runs the session.
    pub(super) fn requests_change(&self) -> impl Future<Output = ()> {
        poll_fn(|cx| match self.http() {
            Some(link) => link.poll_changed(cx),
            None => Poll::Pending,
        })
    }

    #[cfg(test)]
    pub(crate) fn open_for_test(&self) {
        self.outbox.open(crate::protocol::handshake_response_ok());
    }

    /// Forgets the frames that the client has not fetched.
    pub(crate) fn discard_outbox(&self) {
        self.discard_past();
        self.outbox.discard();
    }

    /// Bytes that wait for the client.
    pub(crate) fn queued_bytes(&self) -> usize {
        let past = self.reader().and_then(Reader::past);
        let past = past.map_or(0, |past| past.queued_bytes());
        self.outbox.queued_bytes().saturating_add(past)
    }
}
