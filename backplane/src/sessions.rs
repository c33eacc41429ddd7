//! Connections that outlive their sockets and their nodes: the records that are kept of them, and their take-over.

use bytes::Bytes;
use futures_util::future::BoxFuture;

use crate::backplane::ConnectionRecord;
use crate::error::BackplaneError;
use crate::events::EventRecord;
use crate::history::HistoryPage;
use crate::position::{Offset, Position};
use crate::replay::Replay;
use crate::topic::{ConnectionId, GroupName, NodeId, UserId};
use crate::wire::Envelope;

/// The number of an ownership of a connection, higher with each new owner. A call with an older version is refused: it
/// comes from a node that was paused and has lost the connection since.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub struct Version(pub u64);

/// The records of resumable connections beside their topics. Part of [`HubBackplane`](crate::HubBackplane).
///
/// A connection is resumable when it was entered with [`ConnectionRecord::state`]. Then the messages that it receives
/// follow from the log alone, and the server keeps, beside its groups:
/// * a checkpoint: the last message, and the offset, up to which the client is known to have everything;
/// * the number of the client's messages that were taken;
/// * the calls that were begun and not answered, each with the node that runs it.
///
/// The connection is owned by a node, or **parked**: without an owner, until a node takes it over or its time is up
/// ([`HubOptions::resume_window`](crate::HubOptions::resume_window)). Parked connections keep their memberships.
pub trait Sessions: Send + Sync {
    /// The directory's listing of a connection.
    ///
    /// # Errors
    /// [`BackplaneError::Unsettled`] where there is no listing, but nodes may have yet to register the connection
    /// again.
    fn look_up<'a>(
        &'a self,
        connection: &'a ConnectionId,
    ) -> BoxFuture<'a, Result<Option<Listing>, BackplaneError>>;

    /// Makes this node the owner of a resumable connection that is parked, or whose owner is to be shut out. Where the
    /// version has changed, another node was faster. When this returns, the sink was given the
    /// [`Delivery::Joined`](crate::Delivery::Joined) of all its topics, and the former owner, should it live, is given
    /// [`Delivery::Taken`](crate::Delivery::Taken).
    fn take_over<'a>(
        &'a self,
        connection: &'a ConnectionId,
        version: Version,
    ) -> BoxFuture<'a, Result<TakeOver, BackplaneError>>;

    /// The next page of a replay: about `most_bytes`, or all that is left. [`HistoryPage::Trimmed`] when messages may be
    /// missing.
    fn replay<'a>(
        &'a self,
        replay: &'a mut Replay,
        most_bytes: usize,
    ) -> BoxFuture<'a, Result<HistoryPage, BackplaneError>>;

    /// Records, before they are applied, that `received` of the client's messages were taken, and that this node runs
    /// `call`. `false` when this node no longer owns the connection: then no message may be applied.
    fn record<'a>(
        &'a self,
        connection: &'a ConnectionId,
        version: Version,
        received: u64,
        call: Option<&'a str>,
    ) -> BoxFuture<'a, Result<bool, BackplaneError>>;

    /// As [`record`](Self::record) of a call that the client may repeat under the name `once`, where it got no answer.
    fn record_once<'a>(
        &'a self,
        connection: &'a ConnectionId,
        version: Version,
        call: &'a str,
        once: &'a str,
    ) -> BoxFuture<'a, Result<Recorded, BackplaneError>>;

    /// Replaces the state that the connection was entered with. `false` when this node no longer owns the connection,
    /// or it is not resumable.
    fn restate<'a>(
        &'a self,
        connection: &'a ConnectionId,
        version: Version,
        state: SessionState,
    ) -> BoxFuture<'a, Result<bool, BackplaneError>>;

    /// Replaces the state of a parked connection, on any node. `false` when the connection is not parked in this
    /// version any more, or its state is not `former`: then it is to be looked up again.
    fn restate_parked<'a>(
        &'a self,
        connection: &'a ConnectionId,
        version: Version,
        former: SessionState,
        state: SessionState,
    ) -> BoxFuture<'a, Result<bool, BackplaneError>>;

    /// Appends a message to the connection's own topic for a call that `host` runs; the `last` one ends the call. Works
    /// on any node, also for parked connections. `None` when the call was answered before, or the connection is gone.
    ///
    /// # Errors
    /// [`BackplaneError::Evicted`] where the server has deleted keys and may have lost the record of the call.
    fn reply<'a>(
        &'a self,
        connection: &'a ConnectionId,
        call: RecordedCall<'a>,
        envelope: &'a Envelope,
        last: bool,
    ) -> BoxFuture<'a, Result<Option<Offset>, BackplaneError>>;

    /// Finishes a call without an answer. `false` when it was finished before.
    fn finish<'a>(
        &'a self,
        connection: &'a ConnectionId,
        call: RecordedCall<'a>,
    ) -> BoxFuture<'a, Result<bool, BackplaneError>>;

    /// The newest known position up to which the sink was given all entries for this node. Where a client has all
    /// messages that its session was given by then, this position is a checkpoint. Quiet topics need one now and then:
    /// otherwise the log forgets the offset of the last checkpoint.
    fn handed_on(&self) -> BoxFuture<'_, Result<Position, BackplaneError>>;

    /// Stores checkpoints, in one round trip. A checkpoint is ignored where this node no longer owns the connection, or
    /// where a checkpoint with a higher number is stored already.
    fn checkpoint<'a>(
        &'a self,
        checkpoints: &'a [(ConnectionId, Version, Checkpoint)],
    ) -> BoxFuture<'a, Result<(), BackplaneError>>;

    /// Gives up an owned connection for another node to take it over. `false` when this node did not own it. On a
    /// transient error this node no longer owns the connection, and parks it as soon as the server can be reached.
    fn park<'a>(
        &'a self,
        connection: &'a ConnectionId,
        version: Version,
        checkpoint: Option<&'a Checkpoint>,
    ) -> BoxFuture<'a, Result<bool, BackplaneError>>;
}

/// The outcome of [`Sessions::record_once`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recorded {
    /// The call was recorded now, and may run.
    Now,
    /// The call was recorded before, on this or another node, and has ended since, unless `running`.
    Before {
        /// True if its answer is still to come.
        running: bool,
    },
    /// This node no longer owns the connection: the call may not run.
    NotOwner,
}

/// The directory's listing of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing {
    /// The node that owns the connection; `None` where it is parked.
    pub owner: Option<NodeId>,
    /// The version of its present ownership.
    pub version: Version,
    /// The connection's user, if it has one.
    pub user: Option<UserId>,
    /// The state that it was entered with, or that replaced it; `None` where the connection is not resumable.
    pub state: Option<SessionState>,
}

impl Listing {
    /// The record of the listed connection, without the data of its events.
    #[must_use]
    pub fn to_record(&self, id: ConnectionId) -> ConnectionRecord {
        ConnectionRecord {
            id,
            user: self.user.clone(),
            state: self.state.clone(),
            event: EventRecord::default(),
        }
    }
}

/// A call that a client made and that was not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordedCall<'a> {
    /// The id of the call, as it was given to [`Sessions::record`].
    pub id: &'a str,
    /// The node that runs it.
    pub host: &'a NodeId,
}

/// A position up to which a client has all messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// The number of the last message that the client has, from 1; 0 for none.
    pub sequence: u64,
    /// The position of that message.
    pub position: Position,
}

/// The outcome of [`Sessions::take_over`].
#[derive(Clone, Debug)]
pub enum TakeOver {
    /// This node owns the connection now.
    Taken(Box<Taken>),
    /// The connection has another version: it changed its owner meanwhile.
    Changed,
    /// The connection does not exist, or is not resumable.
    Gone,
}

/// A connection that was taken over.
#[derive(Clone, Debug)]
pub struct Taken {
    /// The record that the connection was entered with.
    pub record: ConnectionRecord,
    /// The version of the present ownership.
    pub version: Version,
    /// The position after which its messages come to the sink.
    pub position: Position,
    /// The groups that the connection is in at that position.
    pub groups: Vec<GroupName>,
    /// The last checkpoint that was stored.
    pub checkpoint: Checkpoint,
    /// The number of the client's messages that were taken.
    pub received: u64,
    /// The calls that were not answered, with the nodes that run or ran them.
    pub calls: Vec<(String, NodeId)>,
}

/// The outcome of [`Connections::enter`](crate::Connections::enter).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entered {
    /// The position after which the connection receives its topics.
    pub position: Position,
    /// The version of its ownership.
    pub version: Version,
    /// The groups that its user's connections are to join: see [`Directory::join_user`](crate::Directory::join_user). The
    /// connection has not joined them.
    pub groups: Vec<GroupName>,
}

/// The state of a resumable connection, encoded by the gateway, with which another node takes the connection over.
pub type SessionState = Bytes;
