//! The server's time, as this node estimates it without asking: no decision of the cluster depends on the clocks of
//! nodes.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// Estimates the server's time from answers that contain it.
pub(in crate::redis) struct Clock {
    /// The instant at which this clock was made; others are counted from it.
    base: Instant,
    estimate: Mutex<Option<Estimate>>,
}

/// The server's time as one answer gave it.
#[derive(Clone, Copy)]
struct Estimate {
    /// Milliseconds of the server's time at `base`.
    offset: i64,
    /// The time of the round trip: the estimate is wrong by half of it at most.
    round_trip: Duration,
}

impl Clock {
    pub(in crate::redis) fn new() -> Self {
        Self {
            base: Instant::now(),
            estimate: Mutex::new(None),
        }
    }

    /// Records the server's time, in milliseconds, of an answer between two instants. An answer that took long changes
    /// nothing unless it shows that the server's clock has moved.
    pub(in crate::redis) fn observe(&self, sent: Instant, received: Instant, server_ms: u64) {
        let round_trip = received.saturating_duration_since(sent);
        let middle = sent.saturating_duration_since(self.base) + round_trip / 2;
        let new = Estimate {
            offset: millis(server_ms).saturating_sub(millis(middle.as_millis())),
            round_trip,
        };
        let mut estimate = self.estimate.lock();
        let keeps = |known: &Estimate| {
            let apart = known.offset.abs_diff(new.offset);
            let blur = (round_trip + known.round_trip).as_millis() / 2 + 1;
            u128::from(apart) <= blur && known.round_trip * 2 < round_trip
        };
        if !estimate.as_ref().is_some_and(keeps) {
            *estimate = Some(new);
        }
    }

    /// The server's time now, in milliseconds since 1970; `None` before the first answer.
    pub(in crate::redis) fn now(&self) -> Option<u64> {
        let estimate = (*self.estimate.lock())?;
        let since = millis(self.base.elapsed().as_millis());
        u64::try_from(estimate.offset.saturating_add(since)).ok()
    }

    /// The server's time when `left` has passed. Without an estimate there is no deadline.
    pub(in crate::redis) fn deadline(&self, left: Duration) -> u64 {
        let left = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
        self.now().map_or(NEVER, |now| now.saturating_add(left))
    }
}

/// Later than any time of a server, and exact as a number of Lua.
const NEVER: u64 = 1 << 52;

fn millis(count: impl TryInto<i64>) -> i64 {
    count.try_into().unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_server_is_believed_and_slow_answers_are_not() {
        let clock = Clock::new();
        assert_eq!(clock.now(), None);
        let at = |ms| clock.base + Duration::from_millis(ms);
        clock.observe(at(0), at(2), 1_000_001);
        assert_eq!(clock.now(), Some(1_000_000));
        clock.observe(at(10), at(110), 1_000_015); // within what the round trip leaves open
        assert_eq!(clock.now(), Some(1_000_000));
        clock.observe(at(120), at(122), 1_010_121); // the clock was set
        assert_eq!(clock.now(), Some(1_010_000));
        tokio::time::advance(Duration::from_millis(500)).await;
        assert_eq!(clock.deadline(Duration::from_secs(1)), 1_011_500);
    }
}
