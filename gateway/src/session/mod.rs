//! A connection's state on the node that owns it, the same for all transports.

mod asks;
mod close;
mod end;
mod follow;
mod frames;
mod guests;
mod handshake;
mod invocations;
mod link;
mod membership;
mod outbox;
mod pace;
mod parked;
mod reader;
mod record;
mod replaying;
mod requests;
mod restore;
mod run;
mod sequence;
mod stateful;
mod uploads;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use hubcast_backplane::{ConnectionId, ConnectionRecord, GroupName, Topic, UserId};
use parking_lot::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::auth::TokenSigner;
use crate::hub::{Connection, Context, Disconnected, HubError, HubRuntime};
use crate::limits::Seat;
use crate::protocol::Transport;
use crate::protocol::{
    ClientProtocol, HubMessage, encode_for, handshake_response_error, handshake_response_ok, webpubsub,
};
use crate::telemetry::labels::LimitLabel;
use asks::Asks;
use pace::Pace;
use parked::ParkedPlace;
use reader::Reader;
use stateful::Stateful;

pub(crate) use asks::AskError;
pub(crate) use close::{BadFrame, CloseReason};
pub(crate) use frames::{Carriage, Frames};
pub(crate) use guests::read_carried;
pub(crate) use invocations::Slots;
pub(crate) use link::{
    Detached, HttpLink, Posting, break_off, receive_part, run_over_http, run_reader, run_restored_over_http,
};
pub(crate) use outbox::{BurstPolicy, ByteQueue, PushError, Taken};
pub(crate) use parked::Parked;
pub(crate) use reader::{Begin, Reading};
pub(crate) use restore::{Claimant, Restored, connection_of, restore};
pub(crate) use run::{Inbound, Past, Received, run, run_restored};

/// The version of both hub protocols from which on stateful reconnect works.
const STATEFUL_VERSION: i32 = 2;

/// A connection on this node.
///
/// One task runs it (see [`run`]). Others reach it through this handle: they push to its outbox, or close it.
pub(crate) struct Session {
    hub: Arc<HubRuntime>,
    connection: Arc<Connection>,
    outbox: ByteQueue,
    /// Ends when the session does.
    closing: CancellationToken,
    /// Nothing of it can be fetched any more; it is only about to leave the directory.
    over: AtomicBool,
    reason: OnceLock<CloseReason>,
    /// When it came to this node.
    begun: Instant,
    /// What it receives; `None` once it was taken out of the registry.
    topics: Mutex<Option<Vec<Topic>>>,
    groups: Mutex<Vec<GroupName>>,
    /// What it takes of limits for several connections; `None` where nothing is counted.
    seat: Mutex<Option<Box<Seat>>>,
    /// Set while its client is away and may come back.
    parked: Mutex<Option<Box<ParkedPlace>>>,
    /// How fast its client is read, if that is bounded.
    pace: Option<Mutex<Pace>>,
    asks: Asks,
    stateful: OnceLock<Stateful>,
    /// The requests of a connection that is not one socket.
    http: Option<Box<HttpLink>>,
    /// It came back, and has not got any further since.
    came_back: AtomicBool,
    /// What comes before the outbox, for one that speaks no hub protocol and holds its own place in the log.
    reader: Option<Box<Reader>>,
}

impl Session {
    /// A session that is one socket.
    pub(crate) fn new(hub: Arc<HubRuntime>, connection: Connection) -> Arc<Self> {
        Self::with_link(hub, connection, None, None)
    }

    /// A session that is many requests.
    pub(crate) fn over_http(hub: Arc<HubRuntime>, connection: Connection) -> Arc<Self> {
        let inbox_bytes = hub.options().limits.inbox_bytes;
        let link = HttpLink::new(inbox_bytes);
        Self::with_link(hub, connection, Some(Box::new(link)), None)
    }

    /// A session of a client that holds its own place in the log: one response, or one socket.
    pub(crate) fn reader(hub: Arc<HubRuntime>, connection: Connection, reading: Reading) -> Arc<Self> {
        let limits = &hub.options().limits;
        let reader = Reader::new(limits.outbox_bytes, reading);
        let socket = connection.transport() == Some(Transport::WebSockets);
        let link = (!socket).then(|| Box::new(HttpLink::new(limits.inbox_bytes)));
        Self::with_link(hub, connection, link, Some(Box::new(reader)))
    }

    fn with_link(
        hub: Arc<HubRuntime>,
        connection: Connection,
        http: Option<Box<HttpLink>>,
        reader: Option<Box<Reader>>,
    ) -> Arc<Self> {
        let outbox = ByteQueue::held(hub.options().limits.outbox_bytes, hub.bursts());
        let pace = Pace::new(&hub.options().limits).map(Mutex::new);
        Arc::new(Self {
            hub,
            connection: Arc::new(connection),
            outbox,
            closing: CancellationToken::new(),
            over: AtomicBool::new(false),
            reason: OnceLock::new(),
            begun: Instant::now(),
            topics: Mutex::new(Some(Vec::new())),
            groups: Mutex::default(),
            seat: Mutex::default(),
            parked: Mutex::default(),
            pace,
            asks: Asks::default(),
            stateful: OnceLock::new(),
            came_back: AtomicBool::new(false),
            http,
            reader,
        })
    }

    pub(crate) fn id(&self) -> &ConnectionId {
        self.connection.id()
    }

    pub(crate) fn hub(&self) -> &Arc<HubRuntime> {
        &self.hub
    }

    pub(crate) fn connection(&self) -> &Arc<Connection> {
        &self.connection
    }

    pub(crate) fn http(&self) -> Option<&HttpLink> {
        self.http.as_deref()
    }

    pub(crate) fn record(&self) -> ConnectionRecord {
        ConnectionRecord {
            id: self.id().clone(),
            user: self.connection.user().cloned(),
            state: None,
        }
    }

    pub(crate) fn context(&self) -> Context {
        Context::new(
            Arc::clone(&self.hub),
            Arc::clone(&self.connection),
            self.gone().clone(),
        )
    }

    /// The hub's hook for new connections has failed.
    fn hook_failed(&self, error: &HubError) -> CloseReason {
        tracing::error!(hub = %self.hub.name(), connection_id = %self.id(), %error, "on_connected failed");
        let detail = error.client_suffix(self.hub.options().hubs.detailed_errors);
        CloseReason::ConnectFailed {
            detail: detail.map(|text| text.trim_start().to_owned()),
        }
    }

    /// Whether it has been here for so long, and its client is.
    pub(crate) fn has_settled(&self, time: Duration) -> bool {
        self.begun.elapsed() >= time && !self.closing.is_cancelled() && self.parked.lock().is_none()
    }

    /// Asks the session to end. The first reason counts.
    pub(crate) fn close(&self, reason: CloseReason) {
        let _ = self.reason.set(reason);
        self.closing.cancel(); // first: who becomes stateful meanwhile looks at it
        if !self.has_moved() {
            self.gone().cancel();
        }
    }

    /// Asks the session to leave this node: a stateful one goes on elsewhere, others end for this reason.
    pub(crate) fn leave(&self, reason: CloseReason) {
        self.close(if self.is_stateful() {
            CloseReason::Moved
        } else {
            reason
        });
    }

    /// Ends once the session was asked to end.
    pub(crate) fn closing(&self) -> &CancellationToken {
        &self.closing
    }

    /// Its client has a new socket.
    pub(crate) fn comes_back(&self) {
        self.came_back.store(true, Ordering::Release);
    }

    /// Its client has read something new, or said something.
    pub(super) fn gets_further(&self) {
        if self.came_back.load(Ordering::Acquire) && self.came_back.swap(false, Ordering::AcqRel) {
            self.hub.recoveries().progress(self.id());
        }
    }

    /// Whether requests find nothing of it any more.
    pub(crate) fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }

    fn be_over(&self) {
        self.over.store(true, Ordering::Release);
    }

    /// Whether the connection goes on on another node, or will.
    pub(crate) fn has_moved(&self) -> bool {
        self.reason() == Some(&CloseReason::Moved)
    }

    pub(crate) fn reason(&self) -> Option<&CloseReason> {
        self.reason.get()
    }

    // --- incoming ---

    /// Takes what the client sent from its rates. `counts`: it is a message, or as much trouble as one.
    pub(crate) fn measure(&self, counts: bool, bytes: usize) {
        let reached = self
            .pace
            .as_ref()
            .and_then(|pace| pace.lock().take(counts, bytes));
        if let Some(limit) = reached {
            self.hub.shared().metrics().limited.get(limit).inc();
        }
    }

    /// When a client is read again that sends too fast.
    pub(crate) fn pace_resumes(&self) -> Option<Instant> {
        self.pace.as_ref()?.lock().resumes()
    }

    // --- outgoing ---

    /// Answers the handshake. Of a stateful session, numbered messages are held back until the client was heard once
    /// more: the official JavaScript client begins to count only some time after the answer.
    fn open(&self) {
        if !self.speaks_hub_protocol() {
            self.outbox.open(self.greeting());
        } else if self.is_stateful() {
            self.outbox.open_one(handshake_response_ok());
        } else {
            self.outbox.open(self.carriage().carry(handshake_response_ok()));
        }
    }

    /// Whether a handshake of this version makes the session stateful: it must be one that outlives its sockets.
    fn becomes_stateful(&self, version: i32) -> bool {
        let agreed = self.http.is_some() && self.connection.transport() == Some(Transport::WebSockets);
        agreed && version >= STATEFUL_VERSION
    }

    fn speaks_hub_protocol(&self) -> bool {
        matches!(self.connection.protocol(), None | Some(ClientProtocol::Hub(_)))
    }

    /// What a Web PubSub client is told first, on each of its sockets.
    fn greeting(&self) -> Bytes {
        let (id, user) = (self.id().as_str(), self.connection.user().map(UserId::as_str));
        let reliable = self.connection.protocol() == Some(ClientProtocol::ReliableWebPubSub);
        let token = (reliable && self.http.is_some()).then(|| {
            let secret = self.hub.shared().backplane().cluster_secret();
            TokenSigner::new(&secret).recovery(self.hub.name(), self.id())
        });
        webpubsub::connected(id, user, token.as_deref())
    }

    /// Numbers what is sent from now on.
    fn keep(&self) {
        self.outbox.keep();
    }

    /// Answers the handshake with an error.
    fn refuse(&self, text: &str) {
        let refusal = if self.speaks_hub_protocol() {
            Some(self.carriage().carry(handshake_response_error(text)))
        } else {
            self.encode(&HubMessage::Close {
                error: Some(text.to_owned()),
                allow_reconnect: true,
            })
        };
        self.outbox.open(refusal.unwrap_or_default());
    }

    /// Ends the outbox, with a last message if there is one. A node without room keeps nothing else.
    fn close_outbox(&self, last: Option<Bytes>) {
        if self.reason() == Some(&CloseReason::NoRoom) {
            self.discard_past();
            self.outbox.drop_waiting();
        }
        self.end_past();
        match last {
            Some(frame) => self.outbox.close_with(self.carriage().carry(frame)),
            None => self.outbox.close(),
        }
    }

    /// How the transport wraps hub messages.
    fn carriage(&self) -> Carriage {
        match self.connection.transport() {
            Some(Transport::ServerSentEvents) if self.speaks_hub_protocol() => Carriage::Event,
            _ => Carriage::Plain,
        }
    }

    /// Sends what was held back.
    fn release(&self) {
        self.outbox.release();
    }

    /// A new socket took the place of a lost one: everything that the client may lack is sent again, behind the number
    /// of the first. `false` when that is only in the log.
    pub(crate) fn rewind(&self) -> bool {
        self.outbox
            .rewind(|sequence_id| self.encode(&HubMessage::Sequence { sequence_id }))
    }

    /// Whether what the client may lack is here, and not only in the log.
    pub(crate) fn can_rewind(&self) -> bool {
        self.outbox.can_rewind()
    }

    /// Pushes a message of the log. Returns whether the outbox took it; one that is full ends the session. A session that was
    /// asked to end takes only what its calls had sent before: what comes after the place of its end is not for its client.
    pub(crate) fn deliver(&self, frames: &Frames<'_>, place: u64) -> bool {
        if let Some(reason) = self.reason()
            && (!reason.lets_follow() || place > self.connection.sent())
        {
            return false;
        }
        let Some(frame) = self
            .connection
            .protocol()
            .and_then(|protocol| frames.get(protocol, self.carriage()))
        else {
            return false;
        };
        if !self.has_room() {
            return false;
        }
        let pushed = match &self.reader {
            Some(reader) => reader.push(&self.outbox, frame, place),
            None => self.outbox.try_push_numbered(frame, place),
        };
        self.was_pushed(pushed)
    }

    /// Whether no more than its share waits for this client. Otherwise the session ends.
    fn has_room(&self) -> bool {
        let share = self.share();
        if share == usize::MAX || self.outbox.queued_bytes() <= share {
            return true;
        }
        if self.is_stateful() {
            let metrics = self.hub.shared().metrics();
            metrics.limited.get(LimitLabel::HeldBytes).inc();
            self.close(CloseReason::Moved); // the log keeps what its client lacks
        } else {
            self.close(CloseReason::NoRoom);
            self.outbox.drop_waiting(); // at once: the next client need not go as well
        }
        false
    }

    /// Whether the outbox took something; one that is full ends the session.
    fn was_pushed(&self, pushed: Result<(), PushError>) -> bool {
        if let Err(PushError::Full { queued }) = pushed {
            self.fall_behind(queued);
        }
        pushed.is_ok()
    }

    /// Pushes one message to this client alone. In a stateful session only messages without a number.
    pub(crate) fn push(&self, message: &HubMessage) {
        if let Some(frame) = self.encode(message) {
            self.push_frame(frame);
        }
    }

    /// Pushes what stands in no log. Returns whether the outbox took it.
    fn push_frame(&self, frame: Bytes) -> bool {
        self.has_room() && self.was_pushed(self.outbox.try_push(frame))
    }

    /// The client reads too slowly, or not at all. The log keeps what a stateful one lacks.
    fn fall_behind(&self, queued: usize) {
        if self.is_stateful() {
            let metrics = self.hub.shared().metrics();
            metrics.slow_consumers.inc();
            metrics.limited.get(LimitLabel::OutboxBytes).inc();
            self.close(CloseReason::Moved);
        } else {
            self.close(CloseReason::SlowConsumer { queued });
        }
    }

    /// Pushes one message to this client alone, waiting until the client has read what is before it. `false` when the
    /// connection has ended.
    pub(crate) async fn push_waiting(&self, message: &HubMessage) -> bool {
        self.outbox.at_most(self.high_water()).await;
        let Some(frame) = self.encode(message) else {
            return true;
        };
        self.outbox.push(frame).await.is_ok()
    }

    /// As the transport carries it; `None` also for what the client's protocol has no message for.
    fn encode(&self, message: &HubMessage) -> Option<Bytes> {
        let frame = self.carriage().carry(self.encode_bare(message)?);
        Some(match message {
            HubMessage::Ping => frame, // all clients have the same one
            _ => self.hub.shared().budget().charge(frame),
        })
    }

    /// `None` also for what the client's protocol has no message for.
    fn encode_bare(&self, message: &HubMessage) -> Option<Bytes> {
        let protocol = self.connection.protocol()?;
        if let (ClientProtocol::ReliableWebPubSub, HubMessage::Sequence { .. }) = (protocol, message) {
            return Some(self.greeting());
        }
        encode_for(protocol, message)
            .inspect_err(
                |error| tracing::error!(connection_id = %self.id(), %error, "a message can't be encoded"),
            )
            .ok()
            .flatten()
    }

    /// Queued bytes above which this client is asked to wait: no more of its messages are read.
    fn high_water(&self) -> usize {
        (self.hub.options().limits.outbox_bytes / 4).min(self.share())
    }

    /// Bytes that may wait for this client while the node holds as much as it may for all of them.
    fn share(&self) -> usize {
        let budget = self.hub.shared().budget();
        budget.share(|| self.hub.registry().len())
    }

    /// Moves frames, whole hub messages in order, to `into`: at least one, up to about `max_bytes`.
    pub(crate) async fn take_frames(&self, into: &mut Vec<Bytes>, max_bytes: usize) -> Taken {
        if self.take_past(into, max_bytes).await == Taken::Some {
            return Taken::Some;
        }
        let already = into.len();
        let taken = self.outbox.take(into, max_bytes).await;
        if let (Taken::Some, Some(protocol)) = (taken, self.connection.protocol()) {
            let metrics = self.hub.shared().metrics();
            let new = into.iter().skip(already);
            metrics.messages_sent.get(protocol).inc_by(new.len() as u64);
            metrics
                .sent_bytes
                .inc_by(new.map(Bytes::len).sum::<usize>() as u64);
        }
        taken
    }

    /// Puts what a poll took, and did not bring to the client, before everything else. Where a later one has taken more,
    /// order would be lost: the session ends.
    pub(crate) fn give_back(&self, frames: Bytes, taking: u64) {
        match &self.http {
            Some(link) if link.is_last_taking(taking) => self.outbox.put_back(frames),
            _ => self.close(CloseReason::LogLost("the answer to a poll was lost")),
        }
    }

    /// The transport is gone: nothing will be written any more.
    pub(crate) fn transport_ended(&self, what: &'static str) {
        self.discard_outbox();
        self.close(CloseReason::TransportLost(what));
    }

    /// Ends when no request has been attached for too long; never for a session that is one socket.
    pub(crate) async fn lost(&self) {
        match &self.http {
            Some(link) if self.is_stateful() => link.lost(self.hub.options().hubs.resume_window).await,
            Some(link) => link.lost(self.hub.options().timeouts.disconnect).await,
            None => std::future::pending().await,
        }
    }

    #[cfg(test)]
    pub(crate) fn open_for_test(&self) {
        self.outbox.open(crate::protocol::handshake_response_ok());
    }

    /// Forgets what the client has not fetched.
    pub(crate) fn discard_outbox(&self) {
        self.discard_past();
        self.outbox.discard();
    }

    /// Bytes that wait for the client.
    pub(crate) fn queued_bytes(&self) -> usize {
        let past = self
            .reader
            .as_ref()
            .map_or(0, |reader| reader.past.queued_bytes());
        self.outbox.queued_bytes().saturating_add(past)
    }
}

impl Session {
    /// Leaves the directory, then tells hub code, if that heard of the connection: whoever removes it tells. It takes as long
    /// as the backplane can't be reached.
    async fn leave_cluster(&self, reason: Option<Disconnected>) {
        let (hub, backplane) = (&self.hub, self.hub.shared().backplane());
        let removed = backplane.remove(hub.name(), self.id(), hub.end(reason.as_ref()));
        match (removed.await, reason) {
            (Ok(true), Some(reason)) => hub.ended(self.context(), reason).await,
            // Others gave it up while this node stood still. Its client is told that it is over: nobody may go on with it.
            (Ok(false), Some(reason)) if self.is_stateful() => {
                if let Err(error) = hub.remove_parked(self.id(), reason).await {
                    tracing::warn!(connection_id = %self.id(), %error, "a connection that nobody owns could not be removed");
                }
            }
            (Ok(_), _) => {}
            (Err(error), _) => {
                tracing::warn!(connection_id = %self.id(), %error, "a connection could not be removed from the directory");
            }
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if self.is_stateful() {
            self.hub.checkpoints().depart();
        }
    }
}
