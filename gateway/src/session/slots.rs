//! The slots of a connection's plain methods: how many may run at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicIsize, Ordering};
use std::task::{Context, Poll};

use super::signal::Signal;

/// The slots of a connection's plain methods.
#[derive(Debug)]
pub(crate) struct Slots {
    all: isize,
    /// Below zero after a method came back from a wait and found its slot taken.
    free: AtomicIsize,
    changed: Signal,
}

impl Slots {
    pub(super) fn new(slots: usize) -> Self {
        let all = isize::try_from(slots).unwrap_or(isize::MAX);
        Self {
            all,
            free: AtomicIsize::new(all),
            changed: Signal::default(),
        }
    }

    /// Returns whether another method may begin.
    pub(super) fn has_free(&self) -> bool {
        self.free.load(Ordering::Acquire) > 0
    }

    /// Returns whether a method runs.
    pub(super) fn are_used(&self) -> bool {
        self.free.load(Ordering::Acquire) < self.all
    }

    /// Ready when a slot was lent. For one waiter.
    pub(super) fn poll_changed(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.changed.poll(cx)
    }

    /// Frees the caller's slot while it waits for its client: the client's answer must be read.
    pub(crate) fn lend(self: &Arc<Self>) -> Lent {
        self.give_back();
        self.changed.give();
        Lent(Arc::clone(self))
    }

    /// Frees a slot. The task that reads the client calls this, so it need not be woken.
    pub(super) fn give_back(&self) {
        self.free.fetch_add(1, Ordering::AcqRel);
    }

    /// Taken without a check: a call that comes back from a wait goes on at once, even if that makes one too many.
    pub(super) fn take(&self) {
        self.free.fetch_sub(1, Ordering::AcqRel);
    }
}

/// A slot that others may use until this is dropped.
#[derive(Debug)]
pub(crate) struct Lent(Arc<Slots>);

impl Drop for Lent {
    fn drop(&mut self) {
        self.0.take();
    }
}
