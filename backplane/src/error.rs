//! The one error type of this crate.

use std::time::Duration;

use crate::events::MAX_EVENT_RECORD_BYTES;
use crate::topic::{ConnectionId, NodeId};

/// The reason why a call of the backplane failed. Nothing was changed unless the variant says otherwise.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BackplaneError {
    /// The server can't be reached; reconnecting goes on in the background. The call may be repeated.
    #[error("the backplane is unreachable (waited {waited:?}): {reason}")]
    Unavailable {
        /// The time that the call waited.
        waited: Duration,
        /// The last error of the connection.
        reason: String,
    },
    /// No answer came within the time limit. The call may or may not have been carried out.
    #[error("the backplane did not answer within {waited:?}")]
    Timeout {
        /// The time that the call waited.
        waited: Duration,
    },
    /// The server has no memory left for messages or new connections. Nothing was changed; the call works again when
    /// enough of the log was forgotten.
    #[error(
        "the Redis server has no memory left (maxmemory): nothing is published until older messages are forgotten"
    )]
    Full,
    /// Fewer replicas follow the server than publishing requires. Nothing was published.
    #[error(
        "{online} replicas follow the Redis master, fewer than backplane.min_replicas ({needed}): nothing \
         is published until there are more"
    )]
    TooFewReplicas {
        /// Number of replicas that follow closely.
        online: usize,
        /// Number of replicas that are required.
        needed: usize,
    },
    /// The directory does not have the connection, and can't yet say that it does not exist: the server has lost its
    /// data, and the nodes are registering their connections again.
    #[error("connections are being registered again")]
    Unsettled,
    /// The server may have deleted the keys that the call needs, to make room for others. Nothing was changed.
    #[error(
        "the Redis server deletes keys to make room (maxmemory-policy; set it to noeviction), and a call's with them"
    )]
    Evicted,
    /// The data that a connection's events are to carry is over its bound. Nothing was changed.
    #[error(
        "the data of a connection's events has {bytes} bytes, over the limit of {MAX_EVENT_RECORD_BYTES}"
    )]
    EventTooLarge {
        /// The size of the payload, or of the state.
        bytes: usize,
    },
    /// The hub has no connection events.
    #[error("hub {hub:?} has no connection events (hubs.events)")]
    NoEvents {
        /// The hub's name.
        hub: String,
    },
    /// The connection is not owned by this node, or not any more.
    #[error("connection {connection} is not owned by this node")]
    NotOwner {
        /// The connection.
        connection: ConnectionId,
    },
    /// The node is not alive, or is not subscribed to its channel.
    #[error("node {node} does not listen")]
    NodeUnreachable {
        /// The node.
        node: NodeId,
    },
    /// The other node refused the request or failed to serve it.
    #[error("node {node} answered: {reason}")]
    NodeFailed {
        /// The node.
        node: NodeId,
        /// The node's error message.
        reason: String,
    },
    /// The server's answer has a form that this version does not understand.
    #[error("unexpected answer from the backplane: {what}")]
    Malformed {
        /// The part of the answer that is wrong.
        what: String,
    },
    /// The settings can't work.
    #[error("backplane settings: {what}")]
    Config {
        /// The setting that is wrong, and the remedy.
        what: String,
    },
    /// The server refused a command.
    #[error("the backplane refused a command: {reason}")]
    Refused {
        /// The server's error message, without the command's arguments.
        reason: String,
    },
    /// The backplane was shut down.
    #[error("the backplane was shut down")]
    Closed,
}

/// The reason why a node did not serve another node's request. The node that asked gets its text, in
/// [`BackplaneError::NodeFailed`].
pub type ServiceError = Box<dyn std::error::Error + Send + Sync>;

impl BackplaneError {
    /// Returns whether the same call may succeed a little later.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(
            self,
            Self::Unavailable { .. }
                | Self::Timeout { .. }
                | Self::NodeUnreachable { .. }
                | Self::Full
                | Self::TooFewReplicas { .. }
                | Self::Unsettled
        )
    }
}

/// An error of settings that can't work.
#[cfg(feature = "redis")]
pub(crate) fn config(what: String) -> BackplaneError {
    BackplaneError::Config { what }
}
