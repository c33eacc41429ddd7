//! A connection's state on the node that owns it, the same for all transports.

mod asks;
mod close;
mod handshake;
mod invocations;
mod run;
mod sequence;
mod uploads;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use hubcast_backplane::{ConnectionId, ConnectionRecord, GroupName, Topic};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::fanout::{Carriage, Frames};
use crate::hub::{Connection, Context, HubRuntime, Transport};
use crate::protocol::{HubMessage, encode, handshake_response_error, handshake_response_ok};
use crate::queue::{ByteQueue, PushError, Taken};
use crate::transport::HttpLink;
use asks::Asks;

pub(crate) use asks::AskError;
pub(crate) use close::CloseReason;
pub(crate) use invocations::Slots;
pub(crate) use run::{Inbound, Received, run};

/// The version of both hub protocols from which on stateful reconnect works.
const STATEFUL_VERSION: i32 = 2;

/// A connection on this node.
///
/// One task runs it (see [`run`]). Others reach it through this handle: they push to its outbox, or close it.
pub(crate) struct Session {
    hub: Arc<HubRuntime>,
    connection: Arc<Connection>,
    outbox: ByteQueue,
    /// Ends when the connection does.
    closing: CancellationToken,
    reason: OnceLock<CloseReason>,
    /// What it receives; `None` once it was taken out of the registry.
    topics: Mutex<Option<Vec<Topic>>>,
    groups: Mutex<Vec<GroupName>>,
    asks: Asks,
    /// Whether the client numbers its messages and resumes after a lost socket.
    stateful: AtomicBool,
    /// The requests of a connection that is not one socket.
    http: Option<Box<HttpLink>>,
}

impl Session {
    /// A session that is one socket.
    pub(crate) fn new(hub: Arc<HubRuntime>, connection: Connection) -> Arc<Self> {
        Self::with_link(hub, connection, None)
    }

    /// A session that is many requests.
    pub(crate) fn over_http(hub: Arc<HubRuntime>, connection: Connection) -> Arc<Self> {
        let inbox_bytes = hub.options().limits.inbox_bytes;
        Self::with_link(hub, connection, Some(Box::new(HttpLink::new(inbox_bytes))))
    }

    fn with_link(hub: Arc<HubRuntime>, connection: Connection, http: Option<Box<HttpLink>>) -> Arc<Self> {
        let outbox = ByteQueue::held(hub.options().limits.outbox_bytes);
        Arc::new(Self {
            hub,
            connection: Arc::new(connection),
            outbox,
            closing: CancellationToken::new(),
            reason: OnceLock::new(),
            topics: Mutex::new(Some(Vec::new())),
            groups: Mutex::default(),
            asks: Asks::default(),
            stateful: AtomicBool::new(false),
            http,
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
        }
    }

    pub(crate) fn context(&self) -> Context {
        Context::new(
            Arc::clone(&self.hub),
            Arc::clone(&self.connection),
            self.closing.clone(),
        )
    }

    /// Asks the session to end. The first reason counts.
    pub(crate) fn close(&self, reason: CloseReason) {
        let _ = self.reason.set(reason);
        self.closing.cancel();
    }

    /// Ends once the session was asked to end.
    pub(crate) fn closing(&self) -> &CancellationToken {
        &self.closing
    }

    pub(crate) fn reason(&self) -> Option<&CloseReason> {
        self.reason.get()
    }

    /// Whether the connection outlives its socket.
    pub(crate) fn is_stateful(&self) -> bool {
        self.stateful.load(Ordering::Acquire)
    }

    // --- outgoing ---

    /// Answers the handshake. With version 2, on a connection that negotiate agreed on it for, the session becomes
    /// stateful. Then numbered messages are held back until the client was heard once more: the official JavaScript
    /// client begins to count only some time after the answer.
    fn open(&self, version: i32) {
        let agreed = self.http.is_some() && self.connection.transport() == Some(Transport::WebSockets);
        if agreed && version >= STATEFUL_VERSION {
            self.stateful.store(true, Ordering::Release);
            self.outbox.open_resendable(handshake_response_ok());
        } else {
            self.outbox.open(self.carriage().carry(handshake_response_ok()));
        }
    }

    /// Answers the handshake with an error.
    fn refuse(&self, text: &str) {
        self.outbox
            .open(self.carriage().carry(handshake_response_error(text)));
    }

    /// Ends the outbox, with a last message if there is one.
    fn close_outbox(&self, last: Option<Bytes>) {
        match last {
            Some(frame) => self.outbox.close_with(self.carriage().carry(frame)),
            None => self.outbox.close(),
        }
    }

    /// How the transport wraps hub messages.
    fn carriage(&self) -> Carriage {
        match self.connection.transport() {
            Some(Transport::ServerSentEvents) => Carriage::Event,
            _ => Carriage::Plain,
        }
    }

    /// Sends what was held back.
    fn release(&self) {
        self.outbox.release();
    }

    /// The client has received numbered messages up to this one.
    fn acknowledge(&self, sequence_id: u64) {
        self.outbox.acknowledge(sequence_id);
    }

    /// A new socket took the place of a lost one: everything that the client may lack is sent again, behind the number
    /// of the first.
    pub(crate) fn rewind(&self) {
        self.outbox
            .rewind(|sequence_id| self.encode(&HubMessage::Sequence { sequence_id }));
    }

    /// Pushes a fanned-out message. Returns whether the outbox took it; one that is full closes the session.
    pub(crate) fn deliver(&self, frames: &Frames<'_>) -> bool {
        let Some(frame) = self
            .connection
            .protocol()
            .and_then(|protocol| frames.get(protocol, self.carriage()))
        else {
            return false;
        };
        match self.outbox.try_push(frame) {
            Ok(()) => true,
            Err(PushError::Closed) => false,
            Err(PushError::Full { queued }) => {
                self.close(CloseReason::SlowConsumer { queued });
                false
            }
        }
    }

    /// Pushes one message to this client alone.
    pub(crate) fn push(&self, message: &HubMessage) {
        let Some(frame) = self.encode(message) else { return };
        let pushed = if message.is_counted() {
            self.outbox.try_push(frame)
        } else {
            self.outbox.try_push_unnumbered(frame)
        };
        if let Err(PushError::Full { queued }) = pushed {
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

    fn encode(&self, message: &HubMessage) -> Option<Bytes> {
        let protocol = self.connection.protocol()?;
        encode(protocol, message)
            .inspect_err(
                |error| tracing::error!(connection_id = %self.id(), %error, "a message can't be encoded"),
            )
            .ok()
            .map(|frame| self.carriage().carry(frame))
    }

    /// Queued bytes above which this client is asked to wait: no more of its messages are read.
    fn high_water(&self) -> usize {
        self.hub.options().limits.outbox_bytes / 4
    }

    /// Moves frames, whole hub messages in order, to `into`: at least one, up to about `max_bytes`.
    pub(crate) async fn take_frames(&self, into: &mut Vec<Bytes>, max_bytes: usize) -> Taken {
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

    /// Puts frames that did not reach the client before everything else.
    pub(crate) fn put_back(&self, frames: Bytes) {
        self.outbox.put_back(frames);
    }

    /// The transport is gone: nothing will be written any more.
    pub(crate) fn transport_ended(&self, what: &'static str) {
        self.outbox.discard();
        self.close(CloseReason::TransportLost(what));
    }

    /// Ends when no request has been attached for too long; never for a session that is one socket.
    pub(crate) async fn lost(&self) {
        match &self.http {
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
        self.outbox.discard();
    }

    /// Bytes that wait for the client.
    pub(crate) fn queued_bytes(&self) -> usize {
        self.outbox.queued_bytes()
    }

    // --- membership, kept by the registry and the hub ---

    /// Notes a topic. `false` when it is noted already or the session has left the registry.
    pub(crate) fn note_topic(&self, topic: &Topic) -> bool {
        match &mut *self.topics.lock() {
            Some(topics) if !topics.contains(topic) => {
                topics.push(topic.clone());
                true
            }
            _ => false,
        }
    }

    /// Forgets a topic. `false` when it was not noted.
    pub(crate) fn forget_topic(&self, topic: &Topic) -> bool {
        let mut topics = self.topics.lock();
        let Some(topics) = topics.as_mut() else {
            return false;
        };
        let Some(index) = topics.iter().position(|noted| noted == topic) else {
            return false;
        };
        topics.swap_remove(index);
        true
    }

    /// Takes all topics, for good.
    pub(crate) fn take_topics(&self) -> Vec<Topic> {
        self.topics.lock().take().unwrap_or_default()
    }

    /// Whether [`take_topics`](Self::take_topics) was called.
    pub(crate) fn has_left(&self) -> bool {
        self.topics.lock().is_none()
    }

    /// The groups that the connection joined or is joining.
    pub(crate) fn groups(&self) -> Vec<GroupName> {
        self.groups.lock().clone()
    }

    /// Notes a group. `false` when the connection is in `limit` groups already.
    pub(crate) fn note_group(&self, group: &GroupName, limit: usize) -> bool {
        let mut groups = self.groups.lock();
        if groups.contains(group) {
            return true;
        }
        if groups.len() >= limit {
            return false;
        }
        groups.push(group.clone());
        true
    }

    pub(crate) fn forget_group(&self, group: &GroupName) {
        self.groups.lock().retain(|noted| noted != group);
    }
}
