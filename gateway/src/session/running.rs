//! The futures of a connection's invocations that run.

use std::task::{Context, Poll};

use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};

/// Futures that are polled by one task. The usual case is a single one: it is polled as it is. A `FuturesUnordered` of one
/// wakes its own task whenever that one waits, so that others get their turn: a task that wakes itself is run once more,
/// and another thread is woken for it.
pub(super) struct Running<T> {
    alone: Option<BoxFuture<'static, T>>,
    /// `None` as long as there was never more than one.
    others: Option<FuturesUnordered<BoxFuture<'static, T>>>,
}

impl<T> Default for Running<T> {
    fn default() -> Self {
        Self {
            alone: None,
            others: None,
        }
    }
}

impl<T> Running<T> {
    pub(super) fn push(&mut self, future: BoxFuture<'static, T>) {
        match &self.alone {
            None => self.alone = Some(future),
            Some(_) => self.others.get_or_insert_default().push(future),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.alone.is_none() && self.others.as_ref().is_none_or(FuturesUnordered::is_empty)
    }

    /// The output of one that has ended.
    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<T> {
        if let Some(alone) = &mut self.alone
            && let Poll::Ready(output) = alone.poll_unpin(cx)
        {
            self.alone = None;
            return Poll::Ready(output);
        }
        if let Some(others) = &mut self.others
            && let Poll::Ready(Some(output)) = others.poll_next_unpin(cx)
        {
            return Poll::Ready(output);
        }
        Poll::Pending
    }

    /// Runs all of them to their ends.
    pub(super) async fn finish(mut self) {
        while !self.is_empty() {
            std::future::poll_fn(|cx| self.poll_next(cx)).await;
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::future::poll_fn;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Wake, Waker};

    use tokio::sync::oneshot;

    use super::*;

    /// Counts how often a task is woken.
    #[derive(Default)]
    pub(in crate::session) struct Wakes(AtomicUsize);

    impl Wakes {
        pub(in crate::session) fn count(&self) -> usize {
            self.0.load(Ordering::Relaxed)
        }
    }

    impl Wake for Wakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn one_that_waits_wakes_nobody() {
        let wakes = Arc::new(Wakes::default());
        let waker = Waker::from(Arc::clone(&wakes));
        let mut cx = Context::from_waker(&waker);
        let mut running = Running::default();
        let (send, receive) = oneshot::channel();
        running.push(receive.boxed());
        assert!(running.poll_next(&mut cx).is_pending());
        assert_eq!(wakes.count(), 0);
        send.send(7).unwrap();
        assert_eq!(wakes.count(), 1);
        assert_eq!(running.poll_next(&mut cx), Poll::Ready(Ok(7)));
        assert!(running.is_empty());
        assert!(running.poll_next(&mut cx).is_pending());
    }

    #[tokio::test]
    async fn each_of_several_ends() {
        let mut running = Running::default();
        let (senders, receivers): (Vec<_>, Vec<_>) = (0..5).map(|_| oneshot::channel()).unzip();
        receivers
            .into_iter()
            .for_each(|receive| running.push(receive.boxed()));
        let mut ended = Vec::new();
        for (number, send) in senders.into_iter().enumerate().rev() {
            send.send(number).unwrap();
            ended.push(poll_fn(|cx| running.poll_next(cx)).await.unwrap());
            let (more, receive) = oneshot::channel();
            more.send(number + 10).unwrap();
            running.push(receive.boxed());
        }
        while !running.is_empty() {
            ended.push(poll_fn(|cx| running.poll_next(cx)).await.unwrap());
        }
        ended.sort_unstable();
        assert_eq!(ended, [0, 1, 2, 3, 4, 10, 11, 12, 13, 14]);
    }
}
