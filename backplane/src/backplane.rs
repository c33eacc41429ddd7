//! The interface between a gateway node and the backplane: the node's calls, and the deliveries that it receives.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::sync::watch;

use crate::error::{BackplaneError, ServiceError};
use crate::events::{EventOptions, EventRecord};
use crate::hub::HubBackplane;
use crate::position::{Epoch, Offset};
use crate::sessions::SessionState;
use crate::topic::{ConnectionId, HubName, NodeId, Topic, UserId};
use crate::turns::{Turns, TurnsWanted};
use crate::wire::Envelope;

/// One cluster, as one node sees it.
///
/// Everything that concerns one hub is done by its [`HubBackplane`], which [`open_hub`](Backplane::open_hub) returns.
///
/// Calls wait for a bounded time when the server can't be reached and then fail with
/// [`BackplaneError::Unavailable`]. A dropped call may still be carried out.
pub trait Backplane: Send + Sync + 'static {
    /// This process.
    fn node(&self) -> &NodeId;

    /// Returns whether the server can be reached and this node receives what is published.
    fn status(&self) -> watch::Receiver<Status>;

    /// Counters that show how the node keeps up with the logs of its hubs.
    fn statistics(&self) -> Statistics;

    /// Warnings for operators, in sentences: settings with which the backplane may lose something.
    fn warnings(&self) -> Vec<String>;

    /// The cluster's time, the same on all nodes but for the time that a message takes between them. Dates that one
    /// node stores and another one reads are of this clock: the clocks of their machines may differ.
    fn now(&self) -> SystemTime;

    /// A secret of at least 32 random bytes that all nodes of the cluster share.
    fn cluster_secret(&self) -> Arc<[u8]>;

    /// Begins to serve a hub on this node, until the shutdown. Deliveries of the hub go to `sink`, one after another, in
    /// log order, the first ones perhaps before this call returns. Opening a hub twice is an error.
    fn open_hub(
        &self,
        name: HubName,
        options: HubOptions,
        sink: Arc<dyn HubSink>,
    ) -> BoxFuture<'_, Result<Arc<dyn HubBackplane>, BackplaneError>>;

    /// Sets the service that answers other nodes' requests. Call it once: until then no request of another node is
    /// served.
    fn set_service(&self, service: Arc<dyn NodeService>);

    /// Sends a request to another node's [`NodeService`] and waits for the reply for at most `timeout`. The request is
    /// repeated while no reply comes, and served once. When the returned future is dropped, the other node is notified
    /// that the request is cancelled.
    ///
    /// # Errors
    /// [`BackplaneError::NodeUnreachable`] when the node is not alive; with [`Unheard::GiveUp`] also when it is not
    /// subscribed to its channel at this moment.
    fn request<'a>(
        &'a self,
        node: &'a NodeId,
        payload: Bytes,
        timeout: Duration,
        unheard: Unheard,
    ) -> BoxFuture<'a, Result<Bytes, BackplaneError>>;

    /// Takes turns to let connections go, after the turns that this node and others have taken: see [`TurnsWanted`].
    /// Turns that are not used are lost.
    fn take_turns<'a>(&'a self, wanted: &'a TurnsWanted) -> BoxFuture<'a, Result<Turns, BackplaneError>>;

    /// The nodes that are alive, this one included.
    fn nodes(&self) -> BoxFuture<'_, Result<Vec<NodeId>, BackplaneError>>;

    /// Ends all tasks and gives up the node's lease. Connections must have been removed before.
    fn shutdown(&self) -> BoxFuture<'_, ()>;
}

/// A topic's newest offset is remembered for at least this long.
const LEAST_TAIL_LIFE: Duration = Duration::from_secs(15);

/// Most topics of a hub per second whose last member leaves and whose messages are kept from then on. Topics beyond
/// that are not kept: a member that comes back gets a gap.
pub(crate) const AWAITED_PER_SECOND: u32 = 2_000;

/// The retention and the features of one hub.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HubOptions {
    /// Most entries kept of one topic (`retention.messages`). The server may keep up to 100 more.
    pub retention_messages: usize,
    /// The time for which an entry is kept (`retention.seconds`). The server may keep it for an eighth longer.
    pub retention: Duration,
    /// About how many bytes are kept of one topic; 0: no bound.
    pub retention_topic_bytes: u64,
    /// About how many bytes are kept of the hub, the oldest entries going first; 0: no bound.
    pub retention_bytes: u64,
    /// The time for which a parked connection waits for a node to take it over.
    pub resume_window: Duration,
    /// True if messages are pushed and not kept: what a node misses is lost, and nothing can be resumed or read.
    /// Reading from anywhere but the end says [`HistoryPage::Trimmed`](crate::HistoryPage::Trimmed).
    pub volatile: bool,
    /// True if messages that clients cause (`Envelope::by_client`) are kept also for users and groups that have no
    /// connection now and had none lately.
    pub keeps_unread: bool,
    /// True if joins and leaves are announced to the watchers of a group: see [`presence`](crate::presence). All
    /// nodes of a hub must have the same value.
    pub presence: bool,
    /// True if ends of connections are reported to the hub's code: each removal then writes an end record that names
    /// the reporting node. All nodes of a hub must have the same value.
    pub reports_ends: bool,
    /// The hub's [connection events](crate::Events); `None`: it has none. All nodes of a hub must have the same value.
    pub events: Option<EventOptions>,
}

impl HubOptions {
    /// The time for which a topic's newest offset is remembered after its last entry: a reader that stays away for
    /// longer gets a gap.
    pub(crate) fn tail_life(&self) -> Duration {
        self.retention.saturating_mul(4).max(LEAST_TAIL_LIFE)
    }
}

impl Default for HubOptions {
    fn default() -> Self {
        Self {
            retention_messages: 10_000,
            retention: Duration::from_secs(150),
            retention_topic_bytes: 16 << 20,
            retention_bytes: 256 << 20,
            resume_window: Duration::from_secs(120),
            volatile: false,
            keeps_unread: false,
            presence: false,
            reports_ends: false,
            events: None,
        }
    }
}

/// The course of a request to a node that counts as alive but is not subscribed to its channel: its subscription was
/// lost, or it has just died.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unheard {
    /// The request is repeated until the node is subscribed again, the node is dead or the time is up.
    Wait,
    /// The request fails at once with [`BackplaneError::NodeUnreachable`].
    GiveUp,
}

/// Receives one hub's deliveries on one node.
pub trait HubSink: Send + Sync + 'static {
    /// Takes deliveries in log order. Never called by two tasks at once for one hub. It must not block, because the caller
    /// may be the task that reads a connection to the server, and must not call back.
    fn deliver(&self, deliveries: &[Delivery]);
}

/// One entry of a hub's log, as far as it concerns this node.
#[derive(Clone, Debug)]
pub enum Delivery {
    /// A message for the local connections of a topic.
    Message(Message),
    /// A local connection receives these topics after this offset.
    Joined {
        /// The connection.
        connection: ConnectionId,
        /// The topics that the connection begins to receive.
        topics: Vec<Topic>,
        /// The offset of the change.
        offset: Offset,
    },
    /// From here on a local connection no longer receives these topics.
    Left {
        /// The connection.
        connection: ConnectionId,
        /// The topics that the connection ceases to receive.
        topics: Vec<Topic>,
        /// The offset of the change.
        offset: Offset,
    },
    /// Another node has taken a local connection over: this node must send nothing more to the client.
    Taken {
        /// The connection.
        connection: ConnectionId,
        /// The offset of the change.
        offset: Offset,
    },
    /// Messages between the deliveries before and after this one may be missing, and the log can't prove the contrary.
    Gap(Gap),
}

/// A message with its topic and its offset.
#[derive(Clone, Debug)]
pub struct Message {
    /// The topic that the message was published to.
    pub topic: Topic,
    /// The offset of the message in the hub's log.
    pub offset: Offset,
    /// The content of the message.
    pub envelope: Arc<Envelope>,
}

/// The reason why messages may be missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Gap {
    /// A new epoch of the log began; the last messages of the old one are unknown. Concerns every topic.
    NewEpoch(Epoch),
    /// The log no longer reaches back far enough. Concerns one topic.
    Trimmed(Topic),
}

/// A connection as the directory knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionRecord {
    /// Its public id.
    pub id: ConnectionId,
    /// The connection's user, if it has one.
    pub user: Option<UserId>,
    /// The state that another node needs to take the connection over; `None` for a connection that ends with its node.
    pub state: Option<SessionState>,
    /// The data that the hub's connection events carry of it. Only records that the gateway passes, and those of
    /// [`Taken`](crate::Taken), have it.
    pub event: EventRecord,
}

/// The way in which a connection is removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    /// The time for which [`Connections::claim`](crate::Connections::claim) refuses the connection's id.
    pub tombstone: Duration,
    /// The reason that is reported to the hub's code, as the gateway encodes it; `None`: the end is not reported.
    pub report: Option<Bytes>,
    /// The reason in the connection's `disconnected` event, in words.
    pub reason: String,
}

impl End {
    /// The end of a connection that is not reported to the hub's code.
    #[must_use]
    pub fn unreported(tombstone: Duration) -> Self {
        Self {
            tombstone,
            report: None,
            reason: "server".to_owned(),
        }
    }
}

/// The outcome of [`Connections::claim`](crate::Connections::claim).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claim {
    /// This node owns the connection now.
    Claimed,
    /// This node owns the connection, which may be the caller's own node.
    Owned(NodeId),
    /// The connection was closed; it must not come back.
    Closed,
}

/// The state of the node's connections to its server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Commands work and deliveries arrive.
    Connected,
    /// The server can't be reached; the node goes on trying.
    Disconnected,
}

/// Counters that show how a node keeps up with the logs of its hubs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Entries that have arrived and wait for their sink.
    pub waiting: usize,
    /// Number of times that entries had to be read from the log because pushes were missed.
    pub repairs: u64,
    /// Number of entries that were read from the log for that reason and delivered.
    pub repaired: u64,
    /// Number of unfinished [connection events](crate::Events) that the bounds of their streams dropped, as far as this
    /// node noticed it.
    pub events_dropped: u64,
}

/// Serves other nodes' requests, and is notified of connections that end without this node's doing.
pub trait NodeService: Send + Sync + 'static {
    /// Serves a request of another node. The future is dropped when the asking node stops waiting.
    ///
    /// # Errors
    /// The node can't serve the request; the asking node gets the error's text.
    fn serve(&self, payload: Bytes) -> BoxFuture<'static, Result<Bytes, ServiceError>>;

    /// The reply to a request did not reach the asking node and never will. Returns whether the request is undone,
    /// because the things that were taken for the reply could be put back: then the request may be served anew.
    fn undelivered(&self, reply: Bytes) -> bool {
        let _ = reply;
        false
    }

    /// A connection without a node has ended, and this node alone must report that to the hub's code: this node removed
    /// it, because its node died or no node took it over in time, or the node that removed it died before the report.
    /// `report` is the value of [`End::report`], empty where no node gave one. Call
    /// [`Connections::end_reported`](crate::Connections::end_reported) afterwards.
    fn orphan_removed(&self, hub: &HubName, connection: ConnectionRecord, report: Bytes);

    /// The server, which had forgotten a connection of this node, has it as another node's or as closed: the connection
    /// must end on this node.
    fn connection_lost(&self, hub: &HubName, connection: &ConnectionId);

    /// Other nodes took this node for dead and have removed its connections: every local connection must end, because
    /// its memberships are gone.
    fn fenced(&self);
}
