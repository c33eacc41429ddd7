//! Waiting between tries: longer each time, and not in step with other nodes.

use std::time::Duration;

use tokio::time::sleep;
use uuid::Uuid;

const SHORTEST: Duration = Duration::from_millis(50);
const LONGEST: Duration = Duration::from_secs(2);

pub(in crate::redis) struct Backoff {
    next: Duration,
    longest: Duration,
}

impl Backoff {
    pub(in crate::redis) fn new() -> Self {
        Self::between((SHORTEST, LONGEST))
    }

    /// Waits for the first time at the beginning, and for the second one at most.
    pub(in crate::redis) fn between((next, longest): (Duration, Duration)) -> Self {
        Self { next, longest }
    }

    pub(in crate::redis) async fn wait(&mut self) {
        let time = jittered(self.next);
        self.next = (self.next * 2).min(self.longest);
        sleep(time).await;
    }
}

/// Between half of `time` and all of it.
fn jittered(time: Duration) -> Duration {
    let random = Uuid::new_v4().into_bytes()[0];
    time.mul_f64(0.5 + f64::from(random) / 512.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jitter_stays_within_its_bounds() {
        for _ in 0..100 {
            let time = jittered(Duration::from_secs(1));
            assert!(
                (Duration::from_millis(500)..Duration::from_secs(1)).contains(&time),
                "{time:?}"
            );
        }
    }
}
