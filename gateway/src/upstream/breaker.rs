//! A circuit breaker: a handler whose calls fail one after the other is left alone for a while.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::sync::futures::Notified;
use tokio::time::{Instant, sleep};

/// Failures in a row after which a handler is not called for a while.
pub(super) const FAILURES: u32 = 10;
/// How long it is left alone, before one call tries whether it works again.
pub(super) const PAUSE: Duration = Duration::from_secs(5);

/// The state for one handler of one hub.
#[derive(Debug, Default)]
pub(super) struct Breaker {
    state: Mutex<BreakerState>,
    /// Notified when it closes.
    closed: Notify,
}

#[derive(Debug, Default)]
struct BreakerState {
    failures: u32,
    /// Since when, while it is open.
    open_since: Option<Instant>,
    /// One call tries whether the handler works again.
    tries: bool,
}

impl BreakerState {
    fn refuses(&self) -> bool {
        self.open_since
            .is_some_and(|since| since.elapsed() < PAUSE || self.tries)
    }

    /// Time after which a call may be let through, if nothing else changes; `None` if one is now.
    fn pause(&self) -> Option<Duration> {
        let rest = PAUSE.saturating_sub(self.open_since?.elapsed());
        match (rest.is_zero(), self.tries) {
            (false, _) => Some(rest),
            (true, true) => Some(PAUSE),
            (true, false) => None,
        }
    }
}

/// The handler is left alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BreakerOpen;

/// The right to one call. Dropped without a verdict it changes nothing.
#[derive(Debug)]
pub(super) struct Pass<'a> {
    breaker: &'a Breaker,
    tries: bool,
}

impl Breaker {
    /// Asks for a call.
    pub(super) fn pass(&self) -> Result<Pass<'_>, BreakerOpen> {
        let mut state = self.state.lock();
        if state.refuses() {
            return Err(BreakerOpen);
        }
        state.tries = state.open_since.is_some();
        Ok(Pass {
            breaker: self,
            tries: state.tries,
        })
    }

    /// Returns whether [`pass`](Self::pass) would fail now.
    pub(super) fn refuses(&self) -> bool {
        self.state.lock().refuses()
    }

    /// Waits until a call would be let through.
    pub(super) async fn lets_through(&self) {
        loop {
            let closed = self.closed.notified();
            let Some(pause) = self.state.lock().pause() else {
                return;
            };
            tokio::select! {
                () = closed => {}
                () = sleep(pause) => {}
            }
        }
    }

    /// Waits until the breaker closes the next time after this call.
    pub(super) fn closes(&self) -> Notified<'_> {
        self.closed.notified()
    }

    /// Returns whether the handler is left alone.
    pub(super) fn is_open(&self) -> bool {
        self.state.lock().open_since.is_some()
    }
}

impl Pass<'_> {
    /// The verdict about the handler. Returns whether it is the one that opened the breaker or closed it.
    pub(super) fn end(self, works: bool) -> bool {
        let mut state = self.breaker.state.lock();
        if works {
            state.failures = 0;
            let closes = state.open_since.take().is_some();
            drop(state);
            if closes {
                self.breaker.closed.notify_waiters();
            }
            return closes;
        }
        state.failures = state.failures.saturating_add(1);
        let opens = state.failures >= FAILURES && state.open_since.is_none();
        if opens || self.tries {
            state.open_since = Some(Instant::now());
        }
        opens
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        if self.tries {
            self.breaker.state.lock().tries = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn failures_in_a_row_open_it_and_one_call_closes_it_again() {
        let breaker = Breaker::default();
        for round in 1..FAILURES {
            assert!(!breaker.pass().unwrap().end(false), "{round}");
        }
        assert!(!breaker.pass().unwrap().end(true));
        for _ in 1..FAILURES {
            breaker.pass().unwrap().end(false);
        }
        drop(breaker.pass().unwrap()); // no verdict
        assert!(!breaker.is_open());
        assert!(breaker.pass().unwrap().end(false));
        assert_eq!(breaker.pass().unwrap_err(), BreakerOpen);
        tokio::time::advance(PAUSE).await;
        let trial = breaker.pass().unwrap();
        assert_eq!(breaker.pass().unwrap_err(), BreakerOpen, "one at a time");
        trial.end(false);
        assert_eq!(breaker.pass().unwrap_err(), BreakerOpen);
        tokio::time::advance(PAUSE).await;
        assert!(!breaker.refuses(), "asking takes nothing");
        drop(breaker.pass().unwrap()); // the caller went away
        assert!(breaker.pass().unwrap().end(true));
        assert!(!breaker.is_open());
    }

    #[tokio::test(start_paused = true)]
    async fn callers_wait_for_the_trial_that_is_due_and_for_the_handler_that_works_again() {
        let breaker = Breaker::default();
        breaker.lets_through().await;
        for _ in 0..FAILURES {
            breaker.pass().unwrap().end(false);
        }
        let opened = Instant::now();
        breaker.lets_through().await;
        assert_eq!(opened.elapsed(), PAUSE);

        let trial = breaker.pass().unwrap();
        let (again, closes) = (breaker.lets_through(), breaker.closes());
        tokio::pin!(again);
        assert!(
            futures_util::poll!(&mut again).is_pending(),
            "one trial at a time"
        );
        trial.end(true);
        again.await;
        closes.await;
        assert_eq!(opened.elapsed(), PAUSE, "nobody waited for longer");
    }
}
