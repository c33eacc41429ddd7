//! Queries about groups, users and their connections that the server answers without asking a node.

use std::time::Duration;

use futures_util::future::BoxFuture;

use crate::backplane::{ConnectionRecord, End};
use crate::error::BackplaneError;
use crate::topic::{ConnectionId, GroupName, NodeId, UserId};

/// The time that a user stays in a group where [`Directory::join_user`] names none: one year.
pub const USER_GROUP_TTL: Duration = Duration::from_secs(365 * 24 * 3_600);

/// Queries about the connections of a hub in the whole cluster. Part of [`HubBackplane`](crate::HubBackplane).
///
/// A query costs the same however many connections there are. Parked connections count like others. Connections of a
/// node that died count until they are removed, soon after the end of its lease.
pub trait Directory: Send + Sync {
    /// The number of connections of a group or a user.
    fn count<'a>(&'a self, of: Members<'a>) -> BoxFuture<'a, Result<u64, BackplaneError>>;

    /// Returns whether a connection belongs to a group or a user.
    fn contains<'a>(
        &'a self,
        of: Members<'a>,
        connection: &'a ConnectionId,
    ) -> BoxFuture<'a, Result<bool, BackplaneError>>;

    /// The first `limit` connections of a group or a user with ids after `after`, in the order of their ids: read in
    /// pages, the list has every connection that is a member all the time, and none twice.
    fn page<'a>(
        &'a self,
        of: Members<'a>,
        after: Option<&'a ConnectionId>,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<ConnectionId>, BackplaneError>>;

    /// As [`Directory::page`] of a group, with the connections' users. The cost grows with the page, not with the group.
    fn present<'a>(
        &'a self,
        group: &'a GroupName,
        after: Option<&'a ConnectionId>,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<Present>, BackplaneError>>;

    /// The groups of a connection without reserved ones, in order; empty where the connection does not exist.
    fn groups<'a>(
        &'a self,
        connection: &'a ConnectionId,
    ) -> BoxFuture<'a, Result<Vec<GroupName>, BackplaneError>>;

    /// The numbers of connections and groups of a hub.
    fn connection_statistics(&self) -> BoxFuture<'_, Result<ConnectionStatistics, BackplaneError>>;

    /// Records that connections of a user that enter within `ttl`, or [`USER_GROUP_TTL`], are to join a group:
    /// [`Entered::groups`](crate::Entered::groups) names it. Present connections are left as they are. A user has at
    /// most `most` groups: one more replaces the group whose time ends first.
    fn join_user<'a>(
        &'a self,
        user: &'a UserId,
        group: &'a GroupName,
        ttl: Option<Duration>,
        most: usize,
    ) -> BoxFuture<'a, Result<(), BackplaneError>>;

    /// The reverse of [`Directory::join_user`], for one group or all. Present connections are left as they are.
    fn leave_user<'a>(
        &'a self,
        user: &'a UserId,
        group: Option<&'a GroupName>,
    ) -> BoxFuture<'a, Result<(), BackplaneError>>;

    /// The groups that a user's connections are to join, in order.
    fn user_groups<'a>(&'a self, user: &'a UserId) -> BoxFuture<'a, Result<Vec<GroupName>, BackplaneError>>;

    /// Returns whether a user's connections are to join a group.
    fn is_user_in<'a>(
        &'a self,
        user: &'a UserId,
        group: &'a GroupName,
    ) -> BoxFuture<'a, Result<bool, BackplaneError>>;

    /// Some parked connections of a group or a user, or of the hub. A connection that is parked for the whole time in
    /// which the list is read is on it, perhaps twice.
    fn parked<'a>(
        &'a self,
        of: Option<Members<'a>>,
        from: ParkedCursor,
    ) -> BoxFuture<'a, Result<Parked, BackplaneError>>;

    /// Removes a connection that is parked at this moment, before its time is up. `None` where it is not parked.
    /// Exactly one caller in the cluster is given the connection, and that caller reports its end, as with
    /// [`Connections::remove`](crate::Connections::remove); no node's service is notified.
    fn remove_parked<'a>(
        &'a self,
        connection: &'a ConnectionId,
        end: End,
    ) -> BoxFuture<'a, Result<Option<ConnectionRecord>, BackplaneError>>;
}

/// A set of connections that can be counted and listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Members<'a> {
    /// The connections that joined a group.
    Group(&'a GroupName),
    /// The connections of a user.
    User(&'a UserId),
}

/// The numbers of connections and groups of a hub.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct ConnectionStatistics {
    /// Number of connections by the node that owns them: nodes that are alive, or whose connections are not removed
    /// yet.
    pub nodes: Vec<(NodeId, u64)>,
    /// Number of parked connections.
    pub parked: u64,
    /// Number of groups that have a connection, without reserved ones.
    pub groups: u64,
}

/// A connection that is in a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Present {
    /// Its id.
    pub connection: ConnectionId,
    /// The connection's user, if it has one.
    pub user: Option<UserId>,
}

/// A part of a list of parked connections.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Parked {
    /// Their ids, in no order.
    pub connections: Vec<ConnectionId>,
    /// The cursor of the next part; `None` at the end of the list.
    pub next: Option<ParkedCursor>,
}

/// A cursor in a list of parked connections; the default is its beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct ParkedCursor(pub(crate) u64);
