//! Resumable connections: parked, taken over.

use bytes::Bytes;

use crate::redis::script::declaration::{BatchScript, Scope};
use crate::redis::script::declared::script;
use crate::sessions::{Checkpoint, SessionState, Version};
use crate::topic::{ConnectionId, NodeId};

script! {
    /// Makes a node the owner of a resumable connection, and logs the offset from which on that node gets its entries.
    TakeOverConnection<'a> = "take_over", Scope::Operation(BatchScript::All);
    keys { connection, owned, calls, parked }
    arguments {
        node: &'a NodeId,
        id: &'a ConnectionId,
        version: Version,
        changes: u64,
        node_prefix: String,
        lane_prefix: String,
        channel: String,
        topic: String,
        entry: Bytes,
        kept: u128,
        former: &'a str,
    }
}

script! {
    /// Makes a node the owner of a resumable connection before it takes it over.
    Seize<'a> = "seize", Scope::Operation(BatchScript::All);
    keys { connection, owned, parked }
    arguments { node: &'a NodeId, id: &'a ConnectionId, version: Version, node_prefix: String }
}

script! {
    /// Parks a resumable connection: it has no owner until a node takes it over.
    Park<'a> = "park", Scope::Operation(BatchScript::All);
    keys { connection, owned, parked }
    arguments {
        owner: &'a NodeId,
        version: Option<Version>,
        id: &'a ConnectionId,
        wait: u128,
        checkpoint: Option<&'a Checkpoint>,
        reason: &'a str,
    }
}

script! {
    /// Replaces the state of a resumable connection.
    Restate<'a> = "restate", Scope::Operation(BatchScript::All);
    keys { connection }
    arguments { owner: Option<&'a NodeId>, version: Version, state: SessionState, former: Option<Bytes> }
}

script! {
    /// Lists some parked connections.
    ListParked = "parked", Scope::Alone(&[]);
    keys { parked, members: Option<String> }
    arguments { cursor: u64, count: u64 }
}
