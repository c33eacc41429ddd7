//! Bursts: a queue may take chunks over its bound while its consumer goes on taking them.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::limits::Budget;

/// A queue whose consumer goes on may hold so many times its bound.
const BURST: usize = 4;

/// The policy for pushing a queue over its bound.
#[derive(Debug)]
pub(crate) struct BurstPolicy {
    /// How long the consumer may take nothing while more than half of the bound waits.
    pub(crate) patience: Duration,
    /// The budget of the node's memory for all its clients: while that is full, there are no bursts.
    pub(crate) budget: Arc<Budget>,
}

/// The time since which a consumer has taken nothing, while more than half of the bound waits.
#[derive(Debug, Default)]
pub(super) struct Stall(Option<Instant>);

impl Stall {
    /// Returns whether a queue may hold so many bytes over its bound.
    pub(super) fn allows(&self, policy: &BurstPolicy, limit_bytes: usize, over: usize) -> bool {
        let goes_on = self.0.is_none_or(|since| since.elapsed() < policy.patience);
        goes_on && over <= limit_bytes.saturating_mul(BURST - 1) && !policy.budget.is_full()
    }

    /// More than half of the bound waits.
    pub(super) fn begin(&mut self) {
        self.0.get_or_insert_with(Instant::now);
    }

    /// The consumer has taken something. `waits`: more than half of the bound still does.
    pub(super) fn goes_on(&mut self, waits: bool) {
        self.0 = waits.then(Instant::now);
    }
}
