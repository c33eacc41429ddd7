//! What a node shows of itself: metrics, traces, and, in the binary, log lines.

pub(crate) mod labels;
pub(crate) mod metrics;
pub(crate) mod trace;

#[cfg(feature = "cli")]
pub(crate) mod log;
