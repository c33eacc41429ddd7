//! Connections that come back again and again without getting any further: a client that can't read its messages drops
//! its socket, comes back at once, and is sent the same. Each time it is let in later, in the end not any more. The
//! count goes along to its next node.

use std::collections::HashMap;
use std::time::Duration;

use hubcast_backplane::ConnectionId;
use parking_lot::Mutex;
use tokio::time::Instant;

/// Times that a connection may come back at once.
const AT_ONCE: u32 = 3;
/// Times that it may come back at all.
const MOST: u32 = 12;
/// The first wait; each further one is twice as long.
const FIRST_WAIT: Duration = Duration::from_millis(50);
/// The longest wait.
const LONGEST_WAIT: Duration = Duration::from_secs(3);
/// The count of a connection begins anew after it stayed away, or kept its socket, for this long.
const FORGOTTEN: Duration = Duration::from_secs(15);
/// Most connections that are kept in mind.
const KEPT: usize = 16_384;

#[derive(Default)]
pub(crate) struct Recoveries {
    seen: Mutex<HashMap<ConnectionId, RecoveryCount>>,
}

struct RecoveryCount {
    times: u32,
    last: Instant,
}

impl Recoveries {
    /// Counts that a connection comes back to this node. Returns how long it is to wait; `None` where it is to begin
    /// anew.
    pub(crate) fn arrive(&self, id: &ConnectionId) -> Option<Duration> {
        let now = Instant::now();
        let mut seen = self.seen.lock();
        if seen.len() >= KEPT {
            seen.retain(|_, seen| now < seen.last + FORGOTTEN);
            if seen.len() >= KEPT {
                return Some(Duration::ZERO);
            }
        }
        let known = seen
            .entry(id.clone())
            .or_insert(RecoveryCount { times: 0, last: now });
        if now >= known.last + FORGOTTEN {
            known.times = 0;
        }
        known.times = known.times.saturating_add(1);
        let Some(late) = known.times.checked_sub(AT_ONCE).filter(|late| *late > 0) else {
            known.last = now;
            return Some(Duration::ZERO);
        };
        if known.times > MOST {
            seen.remove(id);
            return None;
        }
        let wait = FIRST_WAIT.saturating_mul(1 << late.min(16)).min(LONGEST_WAIT);
        known.last = now + wait;
        Some(wait)
    }

    /// Forgets a connection that goes to another node. How often it came back without getting any further.
    pub(crate) fn hand_over(&self, id: &ConnectionId) -> u32 {
        let now = Instant::now();
        let seen = self.seen.lock().remove(id);
        seen.filter(|seen| now < seen.last + FORGOTTEN)
            .map_or(0, |seen| seen.times)
    }

    /// Goes on counting where the node counted that a connection comes from.
    pub(crate) fn take_over(&self, id: &ConnectionId, times: u32) {
        let mut seen = self.seen.lock();
        if times == 0 {
            seen.remove(id);
        } else if seen.len() < KEPT || seen.contains_key(id) {
            let last = Instant::now();
            seen.insert(id.clone(), RecoveryCount { times, last });
        }
    }

    /// Records that a connection that came back has got further.
    pub(crate) fn progress(&self, id: &ConnectionId) {
        self.seen.lock().remove(id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_was_counted_goes_along_to_other_nodes() {
        let nodes = [
            Recoveries::default(),
            Recoveries::default(),
            Recoveries::default(),
        ];
        let id = ConnectionId::parse("a").unwrap();
        let mut times = 0;
        for place in 0.. {
            let [node, next] = [place, place + 1].map(|place| &nodes[place % nodes.len()]);
            let Some(wait) = node.arrive(&id) else { break };
            tokio::time::advance(wait).await;
            times += 1;
            next.take_over(&id, node.hand_over(&id));
        }
        assert_eq!(times, MOST);
        let (one, two) = (&nodes[0], &nodes[1]);
        for _ in 0..=AT_ONCE {
            one.arrive(&id);
        }
        two.take_over(&id, one.hand_over(&id));
        two.progress(&id);
        one.take_over(&id, two.hand_over(&id));
        assert_eq!(
            one.arrive(&id),
            Some(Duration::ZERO),
            "it has got further meanwhile"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn who_gets_no_further_waits_longer_and_is_ended_at_last() {
        let recoveries = Recoveries::default();
        let (loops, other) = (
            ConnectionId::parse("a").unwrap(),
            ConnectionId::parse("b").unwrap(),
        );
        let mut waits = Vec::new();
        while let Some(wait) = recoveries.arrive(&loops) {
            tokio::time::advance(wait).await;
            waits.push(wait.as_millis());
            assert_eq!(recoveries.arrive(&other), Some(Duration::ZERO));
            recoveries.progress(&other);
        }
        assert_eq!(
            waits,
            [0, 0, 0, 100, 200, 400, 800, 1_600, 3_000, 3_000, 3_000, 3_000]
        );
        for _ in 0..100 {
            assert_eq!(
                recoveries.arrive(&loops),
                Some(Duration::ZERO),
                "it begins to count anew"
            );
            tokio::time::advance(FORGOTTEN).await;
        }
    }
}
