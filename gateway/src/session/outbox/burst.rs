//! When a queue takes chunks over its bound: a burst is no fault of a consumer that gets on with what is before it.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::limits::Budget;

/// A queue whose consumer gets on may hold so many times its bound.
const BURST: usize = 4;

/// What a consumer must do for its queue to be pushed over the bound.
#[derive(Debug)]
pub(crate) struct Leniency {
    /// How long it may take nothing while more than half of the bound waits.
    pub(crate) patience: Duration,
    /// What all queues of the node hold over their bounds.
    pub(crate) budget: Arc<Budget>,
}

/// What a queue holds over its bound.
#[derive(Debug, Default)]
pub(super) struct Excess {
    /// Bytes that the budget was charged for.
    charged: usize,
    /// While more than half of the bound waits: since when the consumer has taken nothing.
    still_since: Option<Instant>,
}

impl Excess {
    /// Whether so many bytes over the bound are borne: not after a time in which the consumer took nothing, nor where all
    /// queues together hold too much. Charges for them.
    pub(super) fn bears(&mut self, leniency: &Leniency, limit_bytes: usize, over: usize) -> bool {
        let gets_on = self
            .still_since
            .is_none_or(|since| since.elapsed() < leniency.patience);
        if !gets_on || over > limit_bytes.saturating_mul(BURST - 1) {
            return false;
        }
        let more = over.saturating_sub(self.charged);
        let charged = leniency.budget.take(more).is_ok();
        if charged {
            self.charged = self.charged.saturating_add(more);
        }
        charged
    }

    /// More than half of the bound waits.
    pub(super) fn begin(&mut self) {
        self.still_since.get_or_insert_with(Instant::now);
    }

    /// The consumer has taken something. `waits`: more than half of the bound still does.
    pub(super) fn gets_on(&mut self, leniency: &Leniency, waits: bool, over: usize) {
        self.still_since = waits.then(Instant::now);
        if let Some(less) = self.charged.checked_sub(over) {
            leniency.budget.give_back(less);
            self.charged = over;
        }
    }

    /// Nothing waits any more.
    pub(super) fn end(&mut self, leniency: &Leniency) {
        leniency.budget.give_back(std::mem::take(&mut self.charged));
    }
}
