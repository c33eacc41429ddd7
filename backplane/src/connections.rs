//! The connections of one hub that this node owns: how they come, change their groups and end.

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use crate::backplane::{Claim, ConnectionRecord, End};
use crate::error::BackplaneError;
use crate::log::Log;
use crate::position::{Epoch, Offset};
use crate::sessions::Entered;
use crate::topic::{ConnectionId, GroupName};

/// The life of a hub's connections, as the node that owns them leads it. Part of [`HubBackplane`](crate::HubBackplane).
pub trait Connections: Log {
    /// Makes this node the owner of a connection that has no owner and was never closed. Its id was generated just now.
    /// The connection receives nothing until [`Connections::enter`].
    fn claim<'a>(&'a self, connection: &'a ConnectionRecord) -> BoxFuture<'a, Result<Claim, BackplaneError>> {
        async move {
            let epoch = self.epoch();
            self.claim_of(connection, Some(&epoch)).await
        }
        .boxed()
    }

    /// As [`Connections::claim`], where the id was generated in this epoch of the hub's log; `None`: the epoch is not
    /// known.
    ///
    /// # Errors
    /// [`BackplaneError::Unsettled`] where a node may have had the connection in an earlier epoch and did not register
    /// it again yet.
    fn claim_of<'a>(
        &'a self,
        connection: &'a ConnectionRecord,
        epoch: Option<&'a Epoch>,
    ) -> BoxFuture<'a, Result<Claim, BackplaneError>>;

    /// Puts a connection that this node claimed into [`Topic::All`], its [`Topic::User`] and its own
    /// [`Topic::Connection`]; with `claim` it is claimed in the same step. With [`ConnectionRecord::state`] it becomes
    /// resumable. Returns the position after which it receives, once the sink was given the [`Delivery::Joined`].
    ///
    /// [`Topic::All`]: crate::Topic::All
    /// [`Topic::User`]: crate::Topic::User
    /// [`Topic::Connection`]: crate::Topic::Connection
    /// [`Delivery::Joined`]: crate::Delivery::Joined
    fn enter<'a>(
        &'a self,
        connection: &'a ConnectionRecord,
        claim: bool,
    ) -> BoxFuture<'a, Result<Entered, BackplaneError>> {
        self.enter_with(connection, &[], claim)
    }

    /// As [`Connections::enter`], and joins these groups in the same step: all of the connection's topics begin at one
    /// offset.
    fn enter_with<'a>(
        &'a self,
        connection: &'a ConnectionRecord,
        groups: &'a [GroupName],
        claim: bool,
    ) -> BoxFuture<'a, Result<Entered, BackplaneError>>;

    /// Gives an owned connection up, so that another node may claim it: the handshake has not begun yet.
    fn release<'a>(&'a self, connection: &'a ConnectionId) -> BoxFuture<'a, Result<(), BackplaneError>>;

    /// Removes a connection that this node owns from the directory and from every group. Its id stays refused by
    /// [`Connections::claim`]. Returns whether this call removed it: exactly one caller in the cluster gets `true`, and
    /// that caller reports the end to the hub's code, see [`Connections::end_reported`].
    ///
    /// The call waits for as long as the server can't be reached, because only the server's answer is certain. A caller
    /// that stops waiting does not stop the removal.
    fn remove<'a>(
        &'a self,
        connection: &'a ConnectionId,
        end: End,
    ) -> BoxFuture<'a, Result<bool, BackplaneError>>;

    /// Deletes the end record of a connection. The node that removed it, or got
    /// [`NodeService::orphan_removed`](crate::NodeService::orphan_removed), calls this after it has reported the end to
    /// the hub's code. In a hub that [reports ends](crate::HubOptions::reports_ends), another node takes the report over if
    /// this node dies before.
    fn end_reported(&self, connection: &ConnectionId);

    /// Joins a connection that this node owns to a group. Returns the offset after which it receives the group's
    /// messages, once the sink was given the [`Delivery::Joined`](crate::Delivery::Joined). Joining twice changes nothing.
    /// Any node may join a parked connection; no sink is notified of that.
    fn join<'a>(
        &'a self,
        connection: &'a ConnectionId,
        group: &'a GroupName,
    ) -> BoxFuture<'a, Result<Offset, BackplaneError>>;

    /// The reverse of [`Connections::join`]: after the returned offset nothing of the group is received.
    fn leave<'a>(
        &'a self,
        connection: &'a ConnectionId,
        group: &'a GroupName,
    ) -> BoxFuture<'a, Result<Offset, BackplaneError>>;
}
