//! How fast a client is read: `limits.messages_per_second` and `limits.bytes_per_second`.

use tokio::time::Instant;

use crate::limits::Bucket;
use crate::options::Limits;
use crate::telemetry::labels::LimitLabel;

/// The amount that a client may still send in this second. A client over it is not read until the rest is due.
pub(super) struct Pace {
    messages: Option<Bucket>,
    bytes: Option<Bucket>,
}

impl Pace {
    /// `None` without a bound: then nothing is measured.
    pub(super) fn new(limits: &Limits) -> Option<Self> {
        let messages = Bucket::new(limits.messages_per_second);
        let bytes = Bucket::new(limits.bytes_per_second);
        (messages.is_some() || bytes.is_some()).then_some(Self { messages, bytes })
    }

    /// Takes a message that was read. The limit that it reaches, if there is one: later messages have to wait.
    pub(super) fn take(&mut self, counts: bool, bytes: usize) -> Option<LimitLabel> {
        let now = Instant::now();
        let mut reached = None;
        if let Some(bucket) = &mut self.bytes {
            bucket.take(bytes, now);
            reached = (!bucket.has_one(now)).then_some(LimitLabel::BytesPerSecond);
        }
        if let Some(bucket) = self.messages.as_mut().filter(|_| counts) {
            bucket.take(1, now);
            reached = reached.or((!bucket.has_one(now)).then_some(LimitLabel::MessagesPerSecond));
        }
        reached
    }

    /// The time when the client is read again; `None` if it is read now.
    pub(super) fn resumes(&self) -> Option<Instant> {
        let now = Instant::now();
        let held = |bucket: &&Bucket| !bucket.has_one(now);
        let buckets = [self.messages.as_ref(), self.bytes.as_ref()];
        let held = buckets.into_iter().flatten().filter(held);
        held.map(Bucket::next_at).max()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::{advance, sleep_until};

    use super::*;

    fn pace(messages_per_second: usize, bytes_per_second: usize) -> Pace {
        let limits = Limits {
            messages_per_second,
            bytes_per_second,
            ..Limits::default()
        };
        Pace::new(&limits).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn without_limits_nothing_is_measured() {
        let limits = Limits {
            messages_per_second: 0,
            bytes_per_second: 0,
            ..Limits::default()
        };
        assert!(Pace::new(&limits).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_second_s_worth_comes_at_once_and_the_rest_in_its_time() {
        let mut pace = pace(4, 0);
        let begun = Instant::now();
        for n in 1..=20 {
            let reached = pace.take(true, 1_000_000);
            assert_eq!(reached, (n >= 4).then_some(LimitLabel::MessagesPerSecond));
            if let Some(due) = pace.resumes() {
                sleep_until(due).await;
                assert_eq!(pace.resumes(), None);
            }
        }
        let took = begun.elapsed();
        assert!(
            took.abs_diff(Duration::from_millis(17 * 250)) < Duration::from_millis(30),
            "{took:?}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn pings_of_the_protocol_are_no_messages_but_have_bytes() {
        let mut pace = pace(1, 100);
        for _ in 0..9 {
            assert_eq!(pace.take(false, 11), None);
        }
        assert_eq!(pace.take(false, 11), Some(LimitLabel::BytesPerSecond));
        let due = pace.resumes().unwrap();
        assert!(due - Instant::now() <= Duration::from_millis(110));
        advance(Duration::from_secs(1)).await;
        assert_eq!(pace.take(true, 50), Some(LimitLabel::MessagesPerSecond));
    }

    #[tokio::test(start_paused = true)]
    async fn one_large_message_is_taken_whole_and_paid_back() {
        let mut pace = pace(0, 100);
        assert_eq!(pace.take(true, 300), Some(LimitLabel::BytesPerSecond));
        let wait = pace.resumes().unwrap() - Instant::now();
        assert!(
            (Duration::from_secs(2)..Duration::from_millis(2_020)).contains(&wait),
            "{wait:?}"
        );
    }
}
