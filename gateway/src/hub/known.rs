//! Connections of other nodes that this one has passed requests on for. A token that is young says nothing about whether its
//! connection exists; while the directory can't answer, this list does.

use std::collections::HashMap;
use std::time::Duration;

use hubcast_backplane::ConnectionId;
use parking_lot::Mutex;
use tokio::time::Instant;

/// Most connections that are kept in mind.
const MOST: usize = 65_536;
/// Time between two looks for those whose time is over.
const SWEEP: Duration = Duration::from_secs(1);

#[derive(Default)]
pub(crate) struct Known {
    remembered: Mutex<Remembered>,
}

#[derive(Default)]
struct Remembered {
    /// The time until which each is kept in mind: later its token says enough.
    until: HashMap<ConnectionId, Instant>,
    swept: Option<Instant>,
}

impl Known {
    /// Records that a connection exists.
    pub(crate) fn note(&self, id: &ConnectionId, life: Duration) {
        let now = Instant::now();
        let mut remembered = self.remembered.lock();
        if remembered.swept.is_none_or(|swept| now >= swept + SWEEP) {
            remembered.swept = Some(now);
            remembered.until.retain(|_, until| *until > now);
        }
        if remembered.until.len() < MOST {
            remembered.until.insert(id.clone(), now + life);
        }
    }

    pub(crate) fn contains(&self, id: &ConnectionId) -> bool {
        let remembered = self.remembered.lock();
        remembered
            .until
            .get(id)
            .is_some_and(|until| *until > Instant::now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn connections_are_kept_in_mind_for_their_time() {
        let known = Known::default();
        let id = |number: usize| ConnectionId::parse(format!("c{number}")).unwrap();
        for number in 0..MOST + 10 {
            known.note(&id(number), Duration::from_secs(15));
        }
        assert!(known.contains(&id(0)) && known.contains(&id(MOST - 1)));
        assert!(!known.contains(&id(MOST)), "there is a bound");
        tokio::time::advance(Duration::from_secs(15)).await;
        assert!(!known.contains(&id(0)));
        known.note(&id(MOST), Duration::from_secs(15));
        assert!(known.contains(&id(MOST)), "there is room again");
    }
}
