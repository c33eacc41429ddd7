//! The one error type of this crate.

use std::time::Duration;

use crate::topic::{ConnectionId, NodeId};

/// Why the backplane could not do what was asked. Nothing was changed unless the variant says otherwise.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BackplaneError {
    /// The server can't be reached; reconnecting goes on in the background. The operation may be tried again.
    #[error("the backplane is unreachable (waited {waited:?}): {reason}")]
    Unavailable {
        /// How long the call waited.
        waited: Duration,
        /// What the connection said last.
        reason: String,
    },
    /// No answer within the bound. The operation may or may not have been carried out.
    #[error("the backplane did not answer within {waited:?}")]
    Timeout {
        /// How long the call waited.
        waited: Duration,
    },
    /// The server has no memory left for what is published, or for newcomers. Nothing was changed; it works again when the log
    /// has forgotten enough.
    #[error(
        "the Redis server has no memory left (maxmemory): nothing is published until older messages are forgotten"
    )]
    Full,
    /// Fewer replicas follow the server than publishing is to wait for. Nothing was published.
    #[error(
        "{online} replicas follow the Redis master, fewer than backplane.min_replicas ({needed}): nothing \
         is published until there are more"
    )]
    TooFewReplicas {
        /// Replicas that follow closely.
        online: usize,
        /// How many there must be.
        needed: usize,
    },
    /// The directory does not know the connection, and does not know yet whether there is one: the server has forgotten what
    /// it had, and nodes are telling it their connections again.
    #[error("connections are being registered again")]
    Unsettled,
    /// The server may have deleted what is needed to make room for something else. Nothing was changed.
    #[error(
        "the Redis server deletes keys to make room (maxmemory-policy; set it to noeviction), and a call's with them"
    )]
    Evicted,
    /// The hub was not opened on this node.
    #[error("hub {hub:?} is not open on this node")]
    HubNotOpen {
        /// The hub's name.
        hub: String,
    },
    /// The connection is not owned by this node, or not any more.
    #[error("connection {connection} is not owned by this node")]
    NotOwner {
        /// The connection.
        connection: ConnectionId,
    },
    /// No such node listens.
    #[error("node {node} does not listen")]
    NodeUnreachable {
        /// The node.
        node: NodeId,
    },
    /// The other node refused or failed.
    #[error("node {node} answered: {reason}")]
    NodeFailed {
        /// The node.
        node: NodeId,
        /// Its words.
        reason: String,
    },
    /// What the server said is not what this version understands.
    #[error("unexpected answer from the backplane: {what}")]
    Malformed {
        /// What was wrong.
        what: String,
    },
    /// The settings can't work.
    #[error("backplane settings: {what}")]
    Config {
        /// What is wrong and what to do.
        what: String,
    },
    /// The server refused a command.
    #[error("the backplane refused a command: {reason}")]
    Refused {
        /// The server's words, without the command's arguments.
        reason: String,
    },
    /// The backplane was shut down.
    #[error("the backplane was shut down")]
    Closed,
}

impl BackplaneError {
    /// Whether the same call may work a little later.
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
