//! Metrics of a node, and the trace context of its spans.

pub(crate) mod labels;
pub(crate) mod metrics;
pub(crate) mod pending;
pub mod trace;
pub(crate) mod upstream;
