//! Who is connected: what is known of groups, users and connections without asking a node.

use std::time::Duration;

use futures_util::future::BoxFuture;

use crate::backplane::{ConnectionRecord, End};
use crate::error::BackplaneError;
use crate::topic::{ConnectionId, GroupName, HubName, NodeId, UserId};

/// How long a user stays in a group that it was put into without a time.
pub const USER_GROUP_TTL: Duration = Duration::from_secs(365 * 24 * 3_600);

/// Questions about the connections of a hub, all over the cluster. Part of [`Backplane`](crate::Backplane).
///
/// Each costs the same however many connections there are. Parked connections count like others. Connections of a node
/// that died count until they are removed, soon after its lease.
pub trait Roster: Send + Sync {
    /// How many connections a group or a user has.
    fn count<'a>(&'a self, hub: &'a HubName, of: Members<'a>) -> BoxFuture<'a, Result<u64, BackplaneError>>;

    /// Whether a connection is one of a group's or a user's.
    fn contains<'a>(
        &'a self,
        hub: &'a HubName,
        of: Members<'a>,
        connection: &'a ConnectionId,
    ) -> BoxFuture<'a, Result<bool, BackplaneError>>;

    /// The first `limit` connections of a group or a user with ids after `after`, in the order of their ids: read in
    /// pages, the list has everybody who is in it all the time, and nobody twice.
    fn page<'a>(
        &'a self,
        hub: &'a HubName,
        of: Members<'a>,
        after: Option<&'a ConnectionId>,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<ConnectionId>, BackplaneError>>;

    /// As [`Roster::page`] of a group, with the connections' users. The work is that of the page, not of the group.
    fn present<'a>(
        &'a self,
        hub: &'a HubName,
        group: &'a GroupName,
        after: Option<&'a ConnectionId>,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<Present>, BackplaneError>>;

    /// The groups of a connection but reserved ones, in order; none where it does not exist.
    fn groups<'a>(
        &'a self,
        hub: &'a HubName,
        connection: &'a ConnectionId,
    ) -> BoxFuture<'a, Result<Vec<GroupName>, BackplaneError>>;

    /// How many connections and groups there are.
    fn census<'a>(&'a self, hub: &'a HubName) -> BoxFuture<'a, Result<Census, BackplaneError>>;

    /// Notes that connections of a user that come within `ttl`, or [`USER_GROUP_TTL`], are to join a group:
    /// [`Entered::groups`](crate::Entered::groups) names it. Present ones are left as they are. A user has at most
    /// `most` groups: one more takes the place of the one whose time ends first.
    fn join_user<'a>(
        &'a self,
        hub: &'a HubName,
        user: &'a UserId,
        group: &'a GroupName,
        ttl: Option<Duration>,
        most: usize,
    ) -> BoxFuture<'a, Result<(), BackplaneError>>;

    /// The reverse of [`Roster::join_user`], for one group or all. Present connections are left as they are.
    fn leave_user<'a>(
        &'a self,
        hub: &'a HubName,
        user: &'a UserId,
        group: Option<&'a GroupName>,
    ) -> BoxFuture<'a, Result<(), BackplaneError>>;

    /// The groups that a user's connections are to join, in order.
    fn user_groups<'a>(
        &'a self,
        hub: &'a HubName,
        user: &'a UserId,
    ) -> BoxFuture<'a, Result<Vec<GroupName>, BackplaneError>>;

    /// Whether a user's connections are to join a group.
    fn is_user_in<'a>(
        &'a self,
        hub: &'a HubName,
        user: &'a UserId,
        group: &'a GroupName,
    ) -> BoxFuture<'a, Result<bool, BackplaneError>>;

    /// Some parked connections of a group or a user, or of the hub. Whoever is
    /// parked all the time while the list is read is on it, perhaps twice.
    fn parked<'a>(
        &'a self,
        hub: &'a HubName,
        of: Option<Members<'a>>,
        from: ParkedCursor,
    ) -> BoxFuture<'a, Result<Parked, BackplaneError>>;

    /// Removes a connection that is parked at this moment, before its time is up. `None` where it is not parked. Exactly one
    /// caller in the cluster is given the connection, and is the one who tells of its end, as with
    /// [`Backplane::remove`](crate::Backplane::remove); no node's service is told.
    fn remove_parked<'a>(
        &'a self,
        hub: &'a HubName,
        connection: &'a ConnectionId,
        end: End,
    ) -> BoxFuture<'a, Result<Option<ConnectionRecord>, BackplaneError>>;
}

/// Connections that are counted and listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Members<'a> {
    /// Those that joined a group.
    Group(&'a GroupName),
    /// Those of a user.
    User(&'a UserId),
}

/// How many connections and groups a hub has.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Census {
    /// Connections by the node that owns them: nodes that are alive, or whose connections are not removed yet.
    pub nodes: Vec<(NodeId, u64)>,
    /// Connections that nobody owns.
    pub parked: u64,
    /// Groups that have a connection, but reserved ones.
    pub groups: u64,
}

/// A connection that is in a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Present {
    /// Its id.
    pub connection: ConnectionId,
    /// Whose it is.
    pub user: Option<UserId>,
}

/// A part of a list of parked connections.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Parked {
    /// Their ids, in no order.
    pub connections: Vec<ConnectionId>,
    /// Where to go on, if there may be more.
    pub next: Option<ParkedCursor>,
}

/// A place in a list of parked connections: at first the default.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct ParkedCursor(pub(crate) u64);
