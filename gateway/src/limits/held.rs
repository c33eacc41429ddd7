//! The one account of the memory that peers make this node hold: how many bytes in all, and how long each of them may
//! take.
//!
//! An unfinished message, a body that is being read, or an answer that is not fetched has a [`Held`]. It is charged for
//! every byte that is kept, and it is late when the peer is slower than [`Terms`] allow for. Time during which the node
//! itself does not want to go on (back-pressure) does not count against the peer.
//!
//! A frame on its way to clients is charged once, for as long as one of them has yet to fetch it ([`Budget::charge`]). It is
//! never refused: while the node holds as much as it may, receivers that keep more than their share waiting are let go.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, Sleep, sleep_until};

/// A look at the clock that comes later than this after the deadline was not waited for: the node did not want to go on.
const ABSENCE: Duration = Duration::from_secs(1);

/// Memory that a frame takes beside its bytes: the allocation, its count of references, its places in queues.
const FRAME_BYTES: usize = 128;
/// A receiver with no more than this waiting is no trouble, however many there are.
const LEAST_SHARE: usize = 4 * 1024;

/// Bytes that all peers together make the node hold.
#[derive(Debug)]
pub(crate) struct Budget {
    /// 0 for no bound.
    limit: usize,
    held: AtomicUsize,
}

/// The node holds as much as it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Full;

impl Budget {
    pub(crate) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self {
            limit,
            held: AtomicUsize::new(0),
        })
    }

    /// Bytes that are held now.
    pub(crate) fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    /// Takes so many bytes, or none.
    pub(crate) fn take(&self, bytes: usize) -> Result<(), Full> {
        let before = self.held.fetch_add(bytes, Ordering::Relaxed);
        if self.limit > 0 && before.saturating_add(bytes) > self.limit {
            self.give_back(bytes);
            return Err(Full);
        }
        Ok(())
    }

    pub(crate) fn give_back(&self, bytes: usize) {
        self.held.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Charges a frame until its last clone is dropped.
    pub(crate) fn charge(self: &Arc<Self>, frame: Bytes) -> Bytes {
        if frame.is_empty() {
            return frame;
        }
        self.held
            .fetch_add(frame.len().saturating_add(FRAME_BYTES), Ordering::Relaxed);
        Bytes::from_owner(Charged {
            frame,
            budget: Arc::clone(self),
        })
    }

    /// Returns whether the node holds as much as it may.
    pub(crate) fn is_full(&self) -> bool {
        self.limit > 0 && self.held() >= self.limit
    }

    /// How many bytes may wait for one of so many receivers: as many as its outbox takes, unless the node holds as much as
    /// it may.
    pub(crate) fn share(&self, receivers: impl FnOnce() -> usize) -> usize {
        if !self.is_full() {
            return usize::MAX;
        }
        (self.limit / receivers().max(1)).max(LEAST_SHARE)
    }
}

/// A frame that is charged to the budget.
struct Charged {
    frame: Bytes,
    budget: Arc<Budget>,
}

impl AsRef<[u8]> for Charged {
    fn as_ref(&self) -> &[u8] {
        &self.frame
    }
}

impl Drop for Charged {
    fn drop(&mut self) {
        self.budget
            .give_back(self.frame.len().saturating_add(FRAME_BYTES));
    }
}

/// How slow a peer may be.
#[derive(Debug, Clone)]
pub(crate) struct Terms {
    pub(crate) budget: Arc<Budget>,
    /// Time that it has besides the time for its bytes.
    pub(crate) grace: Duration,
    /// Bytes in a second that it must reach after that; 0: only the grace counts, from one byte to the next.
    pub(crate) least_rate: u64,
}

/// Something unfinished that a peer makes the node hold.
#[derive(Debug)]
pub(crate) struct Held {
    terms: Arc<Terms>,
    /// Charged to the budget.
    bytes: usize,
    /// Set while something is unfinished.
    since: Option<Since>,
    timer: Option<Pin<Box<Sleep>>>,
}

#[derive(Debug, Clone, Copy)]
struct Since {
    begun: Instant,
    /// Bytes that came, also those that are no longer kept.
    passed: u64,
}

impl Held {
    pub(crate) fn new(terms: impl Into<Arc<Terms>>) -> Self {
        Self {
            terms: terms.into(),
            bytes: 0,
            since: None,
            timer: None,
        }
    }

    #[cfg(test)]
    pub(crate) fn budget(&self) -> Arc<Budget> {
        Arc::clone(&self.terms.budget)
    }

    /// Something unfinished begins, if it has not: from now on the peer's time runs.
    pub(crate) fn begin(&mut self) {
        self.since.get_or_insert_with(|| Since {
            begun: Instant::now(),
            passed: 0,
        });
    }

    /// Counts bytes that came or went on.
    pub(crate) fn pass(&mut self, bytes: usize) {
        let least_rate = self.terms.least_rate;
        if let Some(since) = &mut self.since {
            since.passed = since.passed.saturating_add(bytes as u64);
            if least_rate == 0 {
                since.begun = Instant::now();
            }
        }
    }

    /// Sets how many bytes are kept now.
    pub(crate) fn keep(&mut self, bytes: usize) -> Result<(), Full> {
        match bytes.checked_sub(self.bytes) {
            Some(0) => {}
            Some(more) => self.terms.budget.take(more)?,
            None => self.terms.budget.give_back(self.bytes - bytes),
        }
        self.bytes = bytes;
        Ok(())
    }

    /// Ends the charge: nothing is unfinished.
    pub(crate) fn end(&mut self) {
        self.since = None;
        if self.bytes > 0 {
            self.terms.budget.give_back(std::mem::take(&mut self.bytes));
        }
    }

    /// The time when the peer is late, if it does nothing more.
    pub(crate) fn late_at(&self) -> Option<Instant> {
        let since = self.since?;
        let paid = match self.terms.least_rate {
            0 => Duration::ZERO,
            rate => Duration::from_secs_f64(since.passed as f64 / rate as f64),
        };
        since.begun.checked_add(self.terms.grace.saturating_add(paid))
    }

    /// Returns whether the peer is late now. Call it only while the peer is waited for.
    pub(crate) fn is_late(&mut self) -> bool {
        let now = Instant::now();
        match self.late_at() {
            None => false,
            Some(due) if due > now => false,
            Some(due) if due + ABSENCE > now => true,
            Some(_) => {
                self.since = Some(Since {
                    begun: now,
                    passed: 0,
                });
                false
            }
        }
    }

    /// Ends when the peer is late. To be polled while the peer is waited for.
    pub(crate) fn poll_late(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            if self.is_late() {
                return Poll::Ready(());
            }
            let Some(due) = self.late_at() else {
                return Poll::Pending;
            };
            let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(due)));
            // An earlier alarm is let ring: pushing it back at every byte would cost.
            if timer.deadline() > due || timer.is_elapsed() {
                timer.as_mut().reset(due);
            }
            ready!(timer.as_mut().poll(cx));
        }
    }

    /// Forgets its timer, which only what waits often needs.
    pub(crate) fn rest(&mut self) {
        self.timer = None;
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.end();
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::time::{advance, timeout};

    use super::*;

    fn terms(limit: usize, least_rate: u64) -> Terms {
        Terms {
            budget: Budget::new(limit),
            grace: Duration::from_secs(10),
            least_rate,
        }
    }

    async fn late_after(held: &mut Held) -> Duration {
        let begun = Instant::now();
        let waiting = timeout(Duration::from_secs(3_600), poll_fn(|cx| held.poll_late(cx)));
        waiting.await.unwrap();
        begun.elapsed()
    }

    #[test]
    fn what_is_held_is_given_back() {
        let terms = terms(100, 0);
        let mut one = Held::new(terms.clone());
        let mut two = Held::new(terms.clone());
        assert_eq!(one.keep(60), Ok(()));
        assert_eq!(two.keep(50), Err(Full));
        assert_eq!(two.keep(40), Ok(()));
        assert_eq!(one.keep(61), Err(Full));
        assert_eq!(one.keep(20), Ok(()));
        assert_eq!(terms.budget.held(), 60);
        drop(two);
        one.end();
        assert_eq!(terms.budget.held(), 0);
    }

    #[test]
    fn a_frame_is_charged_once_until_nobody_has_it() {
        let terms = terms(10_000, 0);
        let frame = terms.budget.charge(Bytes::from(vec![b'x'; 9_000]));
        let clones = [frame.clone(), frame.slice(10..20)];
        assert_eq!(frame, vec![b'x'; 9_000]);
        assert_eq!(terms.budget.held(), 9_000 + FRAME_BYTES);
        assert_eq!(terms.budget.share(|| 2), usize::MAX);
        assert_eq!(Held::new(terms.clone()).keep(5_000), Err(Full));
        let more = terms.budget.charge(Bytes::from(vec![b'y'; 5_000]));
        assert_eq!(terms.budget.share(|| 2), 5_000);
        assert_eq!(terms.budget.share(|| 1_000), LEAST_SHARE);
        drop((frame, more));
        assert_eq!(terms.budget.held(), 9_000 + FRAME_BYTES);
        drop(clones);
        assert_eq!(terms.budget.held(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_has_the_grace_and_the_time_of_its_bytes() {
        let mut held = Held::new(terms(0, 1_000));
        held.begin();
        held.pass(5_000);
        assert_eq!(late_after(&mut held).await.as_secs(), 15);
        held.end();
        held.begin();
        assert_eq!(late_after(&mut held).await.as_secs(), 10);
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_is_late_while_nothing_is_unfinished_or_the_node_is_not_waiting() {
        let mut held = Held::new(terms(0, 1_000));
        advance(Duration::from_secs(60)).await;
        assert!(!held.is_late());
        held.begin();
        advance(Duration::from_secs(60)).await;
        assert!(!held.is_late(), "nobody looked meanwhile");
        assert_eq!(late_after(&mut held).await.as_secs(), 10);
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_rate_each_byte_begins_anew() {
        let mut held = Held::new(terms(0, 0));
        held.begin();
        for _ in 0..10 {
            advance(Duration::from_secs(9)).await;
            held.pass(1);
            assert!(!held.is_late());
        }
        assert_eq!(late_after(&mut held).await.as_secs(), 10);
    }
}
