//! The other nodes of the cluster, as sessions and hubs need them.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use hubcast_backplane::{BackplaneError, ConnectionId, GroupName, NodeId, UserId};

use super::HubRuntime;
use super::permits::Permitted;
use super::regroup::Regrouping;
use crate::auth::{Identity, PermissionRequest};
use crate::error::Error;
use crate::protocol::{HubProtocol, Value};
use crate::session::{ClientResultError, Ownership, Session};

/// Requests of a node to the nodes that own a connection.
pub(crate) trait Peers: Send + Sync {
    /// Has the owner request a client result.
    fn ask<'a>(
        &'a self,
        hub: &'a Arc<HubRuntime>,
        owner: &'a NodeId,
        connection: &'a ConnectionId,
        question: Question<'a>,
    ) -> BoxFuture<'a, Result<Result<Value, ClientResultError>, BackplaneError>>;

    /// Has the owner change a membership. A connection that has ended meanwhile is ignored.
    fn change_group<'a>(
        &'a self,
        hub: &'a Arc<HubRuntime>,
        owner: &'a NodeId,
        connection: &'a ConnectionId,
        group: &'a GroupName,
        join: bool,
    ) -> BoxFuture<'a, Result<(), Error>>;

    /// Has the owner give or take a permission, or say whether the connection has it.
    fn permit<'a>(
        &'a self,
        hub: &'a Arc<HubRuntime>,
        owner: &'a NodeId,
        connection: &'a ConnectionId,
        request: &'a PermissionRequest,
    ) -> BoxFuture<'a, Result<Permitted, BackplaneError>>;

    /// Has a node put those of its connections that a filter admits into groups, or take them out.
    fn regroup<'a>(
        &'a self,
        hub: &'a HubRuntime,
        node: &'a NodeId,
        change: &'a Regrouping,
    ) -> BoxFuture<'a, Result<(), Error>>;

    /// The identity of a connection's client; `None` where its owner does not have it any more.
    fn identity<'a>(
        &'a self,
        hub: &'a Arc<HubRuntime>,
        owner: &'a NodeId,
        connection: &'a ConnectionId,
    ) -> BoxFuture<'a, Result<Option<Identity>, BackplaneError>>;

    /// Has the owner take another identity of the same user.
    fn reidentify<'a>(
        &'a self,
        hub: &'a Arc<HubRuntime>,
        owner: &'a NodeId,
        connection: &'a ConnectionId,
        identity: &'a Identity,
    ) -> BoxFuture<'a, Result<Ownership, BackplaneError>>;

    /// Has the owner end a connection.
    fn close<'a>(
        &'a self,
        hub: &'a Arc<HubRuntime>,
        owner: &'a NodeId,
        connection: &'a ConnectionId,
        reason: Option<String>,
    ) -> BoxFuture<'a, Result<Closing, BackplaneError>>;

    /// Has the owner give a stateful session up.
    fn hand_over<'a>(
        &'a self,
        hub: &'a Arc<HubRuntime>,
        owner: &'a NodeId,
        connection: &'a ConnectionId,
        user: Option<&'a UserId>,
    ) -> BoxFuture<'a, Result<HandedOver, BackplaneError>>;

    /// Has a node let at most so many connections of a hub go that have been there for so long. Returns how many will leave.
    fn let_go<'a>(
        &'a self,
        hub: &'a HubRuntime,
        node: &'a NodeId,
        most: u64,
        settled: Duration,
    ) -> BoxFuture<'a, Result<u64, BackplaneError>>;

    /// Hands a client's messages to a node where its earlier calls run.
    fn carry<'a>(
        &'a self,
        session: &'a Session,
        host: &'a NodeId,
        protocol: HubProtocol,
        frames: Bytes,
    ) -> BoxFuture<'a, Result<(), BackplaneError>>;

    /// Waits until the client of a connection of another node has read most of the bytes sent to it.
    fn drained<'a>(&'a self, session: &'a Session, owner: &'a NodeId) -> BoxFuture<'a, Drained>;
}

/// A call of a client's method.
#[derive(Clone, Copy)]
pub(crate) struct Question<'a> {
    pub(crate) target: &'a str,
    pub(crate) arguments: &'a [Value],
    /// The same in the other encoding, where the caller wrote both.
    pub(crate) translated: &'a [Value],
    /// How long the answer is waited for.
    pub(crate) patience: Duration,
}

/// The outcome of asking for the end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Closing {
    /// It ends, or will where it goes on.
    Ends,
    /// It is not there: it has ended, or is on its way to another node.
    NotHere,
}

/// How far a client of another node has read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Drained {
    /// It has read most of the bytes sent to it.
    Yes,
    /// The node does not know.
    Unknown,
}

/// The outcome of requesting a stateful session from another node.
pub(crate) enum HandedOver {
    /// The connection was given up. Its client came back so often without getting any further.
    Given { recoveries: u32 },
    /// The connection has ended for good.
    Ended,
    /// The node does not answer, or does not know it.
    Silent,
}
