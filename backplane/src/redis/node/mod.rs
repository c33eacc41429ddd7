//! The nodes of the cluster: their beats, dead nodes, and requests between nodes.

pub(in crate::redis) mod beat;
pub(in crate::redis) mod clock;
pub(in crate::redis) mod liveness;
pub(in crate::redis) mod nodes;
pub(in crate::redis) mod reaper;
pub(in crate::redis) mod rpc;
pub(in crate::redis) mod serving;
pub(in crate::redis) mod tend;
pub(in crate::redis) mod turns;
