//! A change that one task waits for, again and again.

use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use futures_util::task::AtomicWaker;

/// Tells one task that something has changed. Given while nobody waits, it is kept for the next wait.
///
/// Unlike those of `Notify`, a wait takes no room in the task: most tasks wait for several changes all their life.
#[derive(Debug, Default)]
pub(super) struct Signal {
    task: AtomicWaker,
    is_given: AtomicBool,
}

impl Signal {
    pub(super) fn give(&self) {
        self.is_given.store(true, Ordering::Release);
        self.task.wake();
    }

    pub(super) fn poll(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.is_given.swap(false, Ordering::AcqRel) {
            return Poll::Ready(());
        }
        self.task.register(cx.waker());
        // It may have been given between the two.
        if self.is_given.swap(false, Ordering::AcqRel) {
            return Poll::Ready(());
        }
        Poll::Pending
    }

    /// Ends when it was given. For one waiter. Cancel-safe.
    pub(super) fn given(&self) -> impl Future<Output = ()> {
        poll_fn(|cx| self.poll(cx))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn it_is_kept_until_somebody_waits_and_wakes_who_waits() {
        let signal = Arc::new(Signal::default());
        assert!(signal.given().now_or_never().is_none());
        signal.give();
        signal.give();
        assert!(signal.given().now_or_never().is_some());
        assert!(signal.given().now_or_never().is_none(), "once");
        let waiting = tokio::spawn({
            let signal = Arc::clone(&signal);
            async move { signal.given().await }
        });
        tokio::task::yield_now().await;
        signal.give();
        waiting.await.unwrap();
    }
}
