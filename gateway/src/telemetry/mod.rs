//! Metrics and traces of a node.

pub(crate) mod labels;
pub(crate) mod metrics;
pub(crate) mod trace;
