//! What a gateway node asks of the world behind it, and what it is told.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::watch;

use crate::error::BackplaneError;
use crate::history::History;
use crate::once::{Once, Published};
use crate::position::{Epoch, Offset, Position};
use crate::roster::Roster;
use crate::sessions::{Entered, Sessions, State};
use crate::topic::{ConnectionId, GroupName, HubName, NodeId, Topic, UserId};
use crate::turns::{Turns, TurnsWanted};
use crate::wire::Envelope;

/// The log, the topics, the groups and the directory of one cluster, as one node sees them.
///
/// Every message that reaches more than its own caller goes through [`publish`](Backplane::publish) and comes back
/// to the nodes that have receivers, this one included, through their [`HubSink`]: one path, one order.
///
/// Calls wait for a bounded time when the server can't be reached and then fail with
/// [`BackplaneError::Unavailable`]. A dropped call may still be carried out.
pub trait Backplane: Sessions + Roster + History + Send + Sync + 'static {
    /// This process.
    fn node(&self) -> &NodeId;

    /// Whether the server can be reached and this node receives what is published.
    fn status(&self) -> watch::Receiver<Status>;

    /// How the node keeps up with the log.
    fn statistics(&self) -> Statistics;

    /// Warnings for operators, in sentences: settings with which the backplane may lose something.
    fn warnings(&self) -> Vec<String>;

    /// The cluster's time, the same on all nodes but for what a message takes from one to the other. What one node writes
    /// down for another to read is dated by it: the clocks of their machines may differ.
    fn now(&self) -> SystemTime;

    /// The epoch of a hub's log as this node knows it; nothing where the hub is not open. Another one may have begun.
    fn epoch(&self, hub: &HubName) -> Option<Epoch>;

    /// A secret of at least 32 random bytes that all nodes of the cluster share.
    fn cluster_secret(&self) -> Arc<[u8]>;

    /// Begins to serve `hub` on this node. Deliveries of the hub go to `sink`, one after another, in log order.
    /// Opening a hub twice is an error.
    fn open_hub(
        &self,
        hub: HubName,
        options: HubOptions,
        sink: Arc<dyn HubSink>,
    ) -> BoxFuture<'_, Result<(), BackplaneError>>;

    /// Sets who answers other nodes' requests. Called once, before [`Backplane::request`] is of use to others.
    fn set_service(&self, service: Arc<dyn NodeService>);

    /// Appends a message to each of the topics, in order, and pushes it to the nodes with receivers.
    ///
    /// The receipts are in the order of `topics`. A message to a [`Topic::Connection`] that nobody owns is not
    /// appended: its receipt is `None`. Messages to groups and users without connections are appended; who joins
    /// later does not receive them.
    ///
    /// On error, topics before the failing one may have been published to.
    fn publish<'a>(
        &'a self,
        hub: &'a HubName,
        topics: &'a [Topic],
        envelope: &'a Envelope,
    ) -> BoxFuture<'a, Result<Vec<Option<Offset>>, BackplaneError>>;

    /// As [`Backplane::publish`] to one topic, but where a request with this key was published to the hub within its
    /// retention, on whatever node, nothing is published again. To look and to publish is one step. On error it may be
    /// called again with the same request.
    fn publish_once<'a>(
        &'a self,
        hub: &'a HubName,
        topic: &'a Topic,
        envelope: &'a Envelope,
        once: &'a Once,
    ) -> BoxFuture<'a, Result<Published, BackplaneError>>;

    /// Waits until the sink was given everything up to a place that a publish of this node has answered with, for at most as
    /// long as a command may take. It is at once over where a new epoch has begun since.
    ///
    /// # Errors
    /// [`BackplaneError::Timeout`] where the sink did not come so far in time.
    fn passed<'a>(&'a self, hub: &'a HubName, offset: Offset) -> BoxFuture<'a, Result<(), BackplaneError>>;

    /// Makes this node the owner of a connection that nobody owns and that was never closed. Its id was made up just now.
    /// The connection receives nothing until [`Backplane::enter`].
    fn claim<'a>(
        &'a self,
        hub: &'a HubName,
        connection: &'a ConnectionRecord,
    ) -> BoxFuture<'a, Result<Claim, BackplaneError>> {
        async move {
            let epoch = self.epoch(hub);
            self.claim_of(hub, connection, epoch.as_ref()).await
        }
        .boxed()
    }

    /// As [`Backplane::claim`], where the id was made up in this epoch of the hub's log, or in an unknown one.
    ///
    /// # Errors
    /// [`BackplaneError::Unsettled`] where a node may have had the connection in an earlier epoch and did not register it
    /// again yet.
    fn claim_of<'a>(
        &'a self,
        hub: &'a HubName,
        connection: &'a ConnectionRecord,
        epoch: Option<&'a Epoch>,
    ) -> BoxFuture<'a, Result<Claim, BackplaneError>>;

    /// Puts a connection that this node claimed into [`Topic::All`], its [`Topic::User`] and its own
    /// [`Topic::Connection`]; with `claim` it is claimed in the same step. With [`ConnectionRecord::state`] it becomes
    /// resumable. Returns the offset from which on it receives, after the sink was given the [`Delivery::Joined`].
    fn enter<'a>(
        &'a self,
        hub: &'a HubName,
        connection: &'a ConnectionRecord,
        claim: bool,
    ) -> BoxFuture<'a, Result<Entered, BackplaneError>> {
        self.enter_with(hub, connection, &[], claim)
    }

    /// As [`Backplane::enter`], and joins these groups in the same step: what it receives of all its topics begins at one
    /// place.
    fn enter_with<'a>(
        &'a self,
        hub: &'a HubName,
        connection: &'a ConnectionRecord,
        groups: &'a [GroupName],
        claim: bool,
    ) -> BoxFuture<'a, Result<Entered, BackplaneError>>;

    /// Gives an owned connection up, so that another node may claim it: the handshake has not begun yet.
    fn release<'a>(
        &'a self,
        hub: &'a HubName,
        connection: &'a ConnectionId,
    ) -> BoxFuture<'a, Result<(), BackplaneError>>;

    /// Removes a connection that this node owns from the directory and from every group. Its id stays refused by
    /// [`Backplane::claim`]. Returns whether this call removed it: exactly one caller in the cluster is told `true`, and is
    /// the one who tells the hub's code of the end, see [`Backplane::told`].
    ///
    /// It waits for as long as the server can't be reached, because the answer is certain only then; should the caller stop
    /// waiting, the removal is carried out all the same.
    fn remove<'a>(
        &'a self,
        hub: &'a HubName,
        connection: &'a ConnectionId,
        end: End,
    ) -> BoxFuture<'a, Result<bool, BackplaneError>>;

    /// Called by the node that removed a connection, or got [`NodeService::orphan_removed`], after it has told the hub's code of
    /// its end. In a hub that [tells of ends](HubOptions::tells_ends), and until then, a node that dies leaves that to another one.
    fn told(&self, hub: &HubName, connection: &ConnectionId);

    /// Joins a connection that this node owns to a group. Returns the offset from which on it receives the group's
    /// messages, after the sink was given the [`Delivery::Joined`]. Joining twice changes nothing. A parked connection is
    /// joined by any node; no sink hears of it.
    fn join<'a>(
        &'a self,
        hub: &'a HubName,
        connection: &'a ConnectionId,
        group: &'a GroupName,
    ) -> BoxFuture<'a, Result<Offset, BackplaneError>>;

    /// The reverse of [`Backplane::join`]: after the returned offset nothing of the group is received.
    fn leave<'a>(
        &'a self,
        hub: &'a HubName,
        connection: &'a ConnectionId,
        group: &'a GroupName,
    ) -> BoxFuture<'a, Result<Offset, BackplaneError>>;

    /// The place of the hub's newest entry.
    fn position<'a>(&'a self, hub: &'a HubName) -> BoxFuture<'a, Result<Position, BackplaneError>>;

    /// Asks another node's [`NodeService`] and waits for its reply for at most `timeout`. It is asked again while no reply
    /// comes, and serves the request once. When the returned future is dropped, the other node is told that nobody waits
    /// any more.
    ///
    /// # Errors
    /// [`BackplaneError::NodeUnreachable`] when the node is not alive; with [`Unheard::GiveUp`] also when it does not listen
    /// at this moment.
    fn request<'a>(
        &'a self,
        node: &'a NodeId,
        payload: Bytes,
        timeout: Duration,
        unheard: Unheard,
    ) -> BoxFuture<'a, Result<Bytes, BackplaneError>>;

    /// Takes turns to let connections go, after those that this node and others have taken: see [`TurnsWanted`]. Turns that are not
    /// used are lost.
    fn take_turns<'a>(&'a self, wanted: &'a TurnsWanted) -> BoxFuture<'a, Result<Turns, BackplaneError>>;

    /// The nodes that are alive, this one included.
    fn nodes(&self) -> BoxFuture<'_, Result<Vec<NodeId>, BackplaneError>>;

    /// Ends all tasks and gives up the node's lease. Connections must have been removed before.
    fn shutdown(&self) -> BoxFuture<'_, ()>;
}

/// A topic's newest offset is remembered for so long at least.
const LEAST_TAIL_LIFE: Duration = Duration::from_secs(15);

/// Topics of a hub in a second whose last member leaves, and for which is kept what they have from then on. Others may come and
/// go as fast as they like: their members are told that something is missing.
pub(crate) const AWAITED_PER_SECOND: u32 = 2_000;

/// How a hub's log is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HubOptions {
    /// Most entries kept of one topic (`retention.messages`). The server may keep up to 100 more.
    pub retention_messages: usize,
    /// How long an entry is kept (`retention.seconds`). The server may keep it for an eighth longer.
    pub retention: Duration,
    /// About how many bytes are kept of one topic; 0: no bound.
    pub retention_topic_bytes: u64,
    /// About how many bytes are kept of the hub, the oldest entries going first; 0: no bound.
    pub retention_bytes: u64,
    /// How long a parked connection waits for a node to take it over.
    pub resume_window: Duration,
    /// Whether messages are pushed and not kept: what a node misses is lost, and nothing can be resumed or read. Reading
    /// from anywhere but the end says [`Page::Trimmed`](crate::Page::Trimmed).
    pub volatile: bool,
    /// Whether messages that clients cause (`Envelope::by_client`) are kept also for users and groups that nobody could come
    /// back for: no connection receives it, nor did lately.
    pub keeps_unread: bool,
    /// Whether it is told who joins groups and leaves them: see [`presence`](crate::presence). All nodes of a hub are to
    /// say the same.
    pub presence: bool,
    /// Whether code of the hub is told of connections that end: who tells is noted with each removal. All nodes of a hub are
    /// to say the same.
    pub tells_ends: bool,
}

impl HubOptions {
    /// How long a topic's newest offset is remembered after its last entry: a reader that stays away for longer can't be told
    /// that it missed nothing.
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
            tells_ends: false,
        }
    }
}

/// How a request goes on where nobody listens on the channel of a node that counts as alive: its subscription was lost, or it
/// has just died.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unheard {
    /// The request is repeated until somebody does.
    Wait,
    /// It fails at once.
    GiveUp,
}

/// Receives one hub's deliveries on one node.
pub trait HubSink: Send + Sync + 'static {
    /// Takes deliveries in log order. Called by one task per hub; must not block and must not call back.
    fn deliver(&self, deliveries: &[Delivery]);
}

/// One entry of a hub's log, as far as it concerns this node.
#[derive(Clone, Debug)]
pub enum Delivery {
    /// A message for the local connections of a topic.
    Message(Message),
    /// From here on a local connection receives these topics.
    Joined {
        /// The connection.
        connection: ConnectionId,
        /// What it receives from now on.
        topics: Vec<Topic>,
        /// The place of the change.
        offset: Offset,
    },
    /// From here on a local connection no longer receives these topics.
    Left {
        /// The connection.
        connection: ConnectionId,
        /// What it received until now.
        topics: Vec<Topic>,
        /// The place of the change.
        offset: Offset,
    },
    /// Another node has taken a local connection over: it must fall silent here.
    Taken {
        /// The connection.
        connection: ConnectionId,
        /// The place of the change.
        offset: Offset,
    },
    /// The log can't vouch for what came between the deliveries before and after this one.
    Gap(Gap),
}

/// A message with its place.
#[derive(Clone, Debug)]
pub struct Message {
    /// Whom it is for.
    pub topic: Topic,
    /// Its place in the hub's log.
    pub offset: Offset,
    /// What it says.
    pub envelope: Arc<Envelope>,
}

/// Why messages may be missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Gap {
    /// Another life of the log began; what the old one had last is unknown. Concerns every topic.
    NewEpoch(Epoch),
    /// The log no longer reaches back far enough. Concerns one topic.
    Trimmed(Topic),
}

/// A connection as the directory knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionRecord {
    /// Its public id.
    pub id: ConnectionId,
    /// Whose it is.
    pub user: Option<UserId>,
    /// What another node needs to go on with it; `None` for one that ends with its node.
    pub state: Option<State>,
}

/// How a connection is removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    /// How long its id stays refused.
    pub tombstone: Duration,
    /// The reason that the hub's code is told, as the gateway encodes it; `None` where it never heard of the connection.
    pub tells: Option<Bytes>,
}

impl End {
    /// The end of a connection that nobody is told of.
    #[must_use]
    pub fn untold(tombstone: Duration) -> Self {
        Self {
            tombstone,
            tells: None,
        }
    }
}

/// The outcome of [`Backplane::claim`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claim {
    /// This node owns the connection now.
    Claimed,
    /// Another node does (or this one already).
    Owned(NodeId),
    /// The connection was closed; it must not come back.
    Closed,
}

/// How the node stands with its server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Commands work and deliveries arrive.
    Connected,
    /// The server can't be reached; the node tries on.
    Disconnected,
}

/// How a node keeps up with the logs of its hubs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Entries that have arrived and wait for their sink.
    pub waiting: usize,
    /// How often entries had to be read from the log because pushes were missed.
    pub repairs: u64,
    /// How many entries were handed on that were read from the log.
    pub repaired: u64,
}

/// Answers other nodes and hears of their end.
pub trait NodeService: Send + Sync + 'static {
    /// Serves a request of another node. The future is dropped when the asking node stops waiting.
    fn serve(&self, payload: Bytes) -> BoxFuture<'static, Result<Bytes, String>>;

    /// Nobody took the reply to a request, and nobody will. Returns whether that undoes the request, because what was taken
    /// for the reply could be put back: then the request may be served anew.
    fn undelivered(&self, reply: Bytes) -> bool {
        let _ = reply;
        false
    }

    /// A connection has ended that no node runs, and it is for this node, and no other, to tell the hub's code: it was removed
    /// by this node, because its node died or nobody took it over in time, or whoever removed it died before it told.
    /// `tells` is what [`End::tells`] said, and nothing where no node did. [`Backplane::told`] is to follow.
    fn orphan_removed(&self, hub: &HubName, connection: ConnectionRecord, tells: Bytes);

    /// The server, which had forgotten a connection of this node, knows it as another node's, or as closed: it must end here,
    /// or go on there.
    fn connection_lost(&self, hub: &HubName, connection: &ConnectionId);

    /// Others took this node for dead and have removed its connections: every local connection must end, because its
    /// memberships are gone.
    fn fenced(&self);
}
