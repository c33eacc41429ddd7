//! Nodes: their beats, their ends, and the turns in which connections leave them.

use bytes::Bytes;

use crate::redis::script::declaration::{Part, Scope};
use crate::redis::script::declared::script;
use crate::topic::NodeId;

script! {
    /// A node's beat.
    Heartbeat<'a> = "heartbeat", Scope::Alone(&[Part::Log]);
    keys { cluster, beats, dying, secret }
    arguments { node: &'a NodeId, own_secret: Bytes }
}

script! {
    /// Lets one node remove a dead node's connections.
    Reap<'a> = "reap", Scope::Alone(&[Part::Log]);
    keys { cluster, beats, dying }
    arguments { dead: &'a NodeId, count: Option<i64>, reaper: &'a NodeId, unfinished: Option<&'a str> }
}

script! {
    /// Takes turns to let connections go, after the turns that are taken already.
    TakeTurns<'a> = "turns", Scope::Alone(&[]);
    keys { turns }
    arguments { node: &'a NodeId, count: u64, rate: u64, need: String }
}
