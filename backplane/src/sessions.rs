//! Connections that outlive their sockets and their nodes: what is written down of them, and how another node goes on.

use bytes::Bytes;
use futures_util::future::BoxFuture;

use crate::backplane::ConnectionRecord;
use crate::error::BackplaneError;
use crate::history::Page;
use crate::position::{Offset, Position};
use crate::replay::Replay;
use crate::topic::{ConnectionId, GroupName, HubName, NodeId, UserId};
use crate::wire::Envelope;

/// Which ownership of a connection somebody speaks for. A node that was paused speaks for an older one, and is refused.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub struct Version(pub u64);

/// What is known of resumable connections beyond their topics. Part of [`Backplane`](crate::Backplane).
///
/// A connection is resumable when it was entered with [`ConnectionRecord::state`]. Then what it receives is a function of
/// the log, and the server keeps, beside its groups:
/// * a checkpoint: up to which of its messages, and up to which offset, the client is known to have everything;
/// * how many of the client's messages were taken;
/// * the calls that were begun and not answered, each with the node that runs it.
///
/// It is owned by a node, or **parked**: without an owner, until a node takes it over or its time is up
/// ([`HubOptions::resume_window`](crate::HubOptions::resume_window)). Parked connections keep their memberships.
pub trait Sessions: Send + Sync {
    /// What the directory has of a connection.
    ///
    /// # Errors
    /// [`BackplaneError::Unsettled`] where it has nothing and can't be trusted yet.
    fn look_up<'a>(
        &'a self,
        hub: &'a HubName,
        connection: &'a ConnectionId,
    ) -> BoxFuture<'a, Result<Option<Listing>, BackplaneError>>;

    /// Makes this node the owner of a resumable connection that is parked, or whose owner is to be shut out. Where its
    /// version is another by now, somebody was faster. When this returns, the sink was given the
    /// [`Delivery::Joined`](crate::Delivery::Joined) of all its topics, and the former owner, should it live, is given
    /// [`Delivery::Taken`](crate::Delivery::Taken).
    fn take_over<'a>(
        &'a self,
        hub: &'a HubName,
        connection: &'a ConnectionId,
        version: Version,
    ) -> BoxFuture<'a, Result<TakeOver, BackplaneError>>;

    /// The next page of a replay: about so many bytes, or all that is left. [`Page::Trimmed`] when something may be missing.
    fn replay<'a>(
        &'a self,
        hub: &'a HubName,
        replay: &'a mut Replay,
        most_bytes: usize,
    ) -> BoxFuture<'a, Result<Page, BackplaneError>>;

    /// Notes, before they are applied, that this many of the client's messages were taken, and that this node runs a call.
    /// `false` when this node no longer owns the connection: nothing may be applied.
    fn note<'a>(
        &'a self,
        hub: &'a HubName,
        connection: &'a ConnectionId,
        version: Version,
        received: u64,
        call: Option<&'a str>,
    ) -> BoxFuture<'a, Result<bool, BackplaneError>>;

    /// As [`note`](Self::note) of a call that the client may ask for again under the name `once`, where it heard no answer.
    fn note_once<'a>(
        &'a self,
        hub: &'a HubName,
        connection: &'a ConnectionId,
        version: Version,
        call: &'a str,
        once: &'a str,
    ) -> BoxFuture<'a, Result<Noted, BackplaneError>>;

    /// Takes another state in place of the one that the connection was entered with. `false` when this node no longer owns
    /// it, or it can't be taken over.
    fn restate<'a>(
        &'a self,
        hub: &'a HubName,
        connection: &'a ConnectionId,
        version: Version,
        state: State,
    ) -> BoxFuture<'a, Result<bool, BackplaneError>>;

    /// Appends a message to the connection's own topic for a call that `host` runs; the `last` one ends the call. Works
    /// on any node, also for parked connections. Nothing when the call was answered before, or the connection is gone.
    ///
    /// # Errors
    /// [`BackplaneError::Evicted`] where that can't be told, because the server has deleted keys.
    fn answer<'a>(
        &'a self,
        hub: &'a HubName,
        connection: &'a ConnectionId,
        call: Call<'a>,
        envelope: &'a Envelope,
        last: bool,
    ) -> BoxFuture<'a, Result<Option<Offset>, BackplaneError>>;

    /// Ends a call that is not answered. `false` when it was ended before.
    fn settle<'a>(
        &'a self,
        hub: &'a HubName,
        connection: &'a ConnectionId,
        call: Call<'a>,
    ) -> BoxFuture<'a, Result<bool, BackplaneError>>;

    /// A place up to which the sink was given everything that there is for this node, as new as can be told. Where a client
    /// has all that its session was given by then, this is a checkpoint: without one now and then, the log of a quiet
    /// topic ends before anything was acknowledged.
    fn handed_on<'a>(&'a self, hub: &'a HubName) -> BoxFuture<'a, Result<Position, BackplaneError>>;

    /// Writes checkpoints down, in one round trip. Those of connections that this node no longer owns are ignored, and
    /// those with a lower number than what is written down already.
    fn checkpoint<'a>(
        &'a self,
        hub: &'a HubName,
        checkpoints: &'a [(ConnectionId, Version, Checkpoint)],
    ) -> BoxFuture<'a, Result<(), BackplaneError>>;

    /// Gives up an owned connection for another node to take it over. `false` when this node did not own it. On a
    /// transient error the connection is this node's no longer, and is given up as soon as the server can be told.
    fn park<'a>(
        &'a self,
        hub: &'a HubName,
        connection: &'a ConnectionId,
        version: Version,
        checkpoint: Option<&'a Checkpoint>,
    ) -> BoxFuture<'a, Result<bool, BackplaneError>>;
}

/// What became of a call that is noted once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Noted {
    /// It was noted by this call, and may run.
    Now,
    /// It was noted before, on whatever node, and has ended since, unless `running`.
    Before {
        /// Its answer is still to come.
        running: bool,
    },
    /// This node no longer owns the connection: nothing may be applied.
    NotOwner,
}

/// What the directory has of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing {
    /// Who owns it; nobody where it is parked.
    pub owner: Option<NodeId>,
    /// Its present ownership.
    pub version: Version,
    /// Whose it is.
    pub user: Option<UserId>,
    /// What it was entered with; `None` where it can't be taken over.
    pub state: Option<State>,
}

/// A call that a client made and that was not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call<'a> {
    /// Its name, as it was given to [`Sessions::note`].
    pub id: &'a str,
    /// The node that runs it.
    pub host: &'a NodeId,
}

/// A place up to which a client has everything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// The number of the last message that it has, from 1; 0 for none.
    pub sequence: u64,
    /// The place of that message.
    pub position: Position,
}

/// The outcome of [`Sessions::take_over`].
#[derive(Clone, Debug)]
pub enum TakeOver {
    /// This node owns the connection now.
    Taken(Box<Taken>),
    /// It changed hands meanwhile.
    Changed,
    /// It does not exist, or can't be taken over.
    Gone,
}

/// A connection that was taken over.
#[derive(Clone, Debug)]
pub struct Taken {
    /// What it was entered with.
    pub record: ConnectionRecord,
    /// The present ownership.
    pub version: Version,
    /// What comes after this place comes to the sink.
    pub position: Position,
    /// The groups that it is in at that place.
    pub groups: Vec<GroupName>,
    /// The last checkpoint that was written down.
    pub checkpoint: Checkpoint,
    /// How many of the client's messages were taken.
    pub received: u64,
    /// Calls that were not answered, with the nodes that run them or did.
    pub calls: Vec<(String, NodeId)>,
}

/// What a node needs to know of a connection that it enters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entered {
    /// From where on it receives.
    pub position: Position,
    /// Its ownership.
    pub version: Version,
    /// The groups that its user's connections are to join: see [`Roster::join_user`](crate::Roster::join_user). It has not
    /// joined them.
    pub groups: Vec<GroupName>,
}

/// State that only the gateway understands, and another node goes on from.
pub type State = Bytes;
