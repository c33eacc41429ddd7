//! A circuit breaker: a handler whose calls fail one after the other is left alone for a while.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// Failures in a row after which a handler is not called for a while.
pub(super) const FAILURES: u32 = 10;
/// How long it is left alone, before one call tries whether it works again.
const PAUSE: Duration = Duration::from_secs(5);

/// The state for one handler of one hub.
#[derive(Debug, Default)]
pub(super) struct Breaker {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    failures: u32,
    /// Since when, while it is open.
    open_since: Option<Instant>,
    /// One call tries whether the handler works again.
    tries: bool,
}

impl State {
    fn refuses(&self) -> bool {
        self.open_since
            .is_some_and(|since| since.elapsed() < PAUSE || self.tries)
    }
}

/// The handler is left alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Open;

/// The right to one call. Dropped without a verdict it changes nothing.
#[derive(Debug)]
pub(super) struct Pass<'a> {
    breaker: &'a Breaker,
    tries: bool,
}

impl Breaker {
    /// Asks for a call.
    pub(super) fn pass(&self) -> Result<Pass<'_>, Open> {
        let mut state = self.state.lock();
        if state.refuses() {
            return Err(Open);
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
            return state.open_since.take().is_some();
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
        assert_eq!(breaker.pass().unwrap_err(), Open);
        tokio::time::advance(PAUSE).await;
        let trial = breaker.pass().unwrap();
        assert_eq!(breaker.pass().unwrap_err(), Open, "one at a time");
        trial.end(false);
        assert_eq!(breaker.pass().unwrap_err(), Open);
        tokio::time::advance(PAUSE).await;
        assert!(!breaker.refuses(), "asking takes nothing");
        drop(breaker.pass().unwrap()); // the caller went away
        assert!(breaker.pass().unwrap().end(true));
        assert!(!breaker.is_open());
    }
}
