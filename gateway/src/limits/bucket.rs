//! A token bucket that is one point in time: no task fills it.

use std::time::Duration;

use tokio::time::Instant;

const SECOND: Duration = Duration::from_secs(1);

/// Gives out so much a second, and at once no more than one second's worth. What is taken beyond that is owed: nothing
/// more is given until it is paid back.
#[derive(Debug, Clone)]
pub(crate) struct Bucket {
    rate: u64,
    /// The time when it will be full again.
    full_at: Instant,
}

impl Bucket {
    /// A full one. `None` for a rate of 0, which stands for no bound.
    pub(crate) fn new(rate: usize) -> Option<Self> {
        let rate = u64::try_from(rate).unwrap_or(u64::MAX);
        (rate > 0).then(|| Self {
            rate,
            full_at: Instant::now(),
        })
    }

    /// Returns whether one is left.
    pub(crate) fn has_one(&self, now: Instant) -> bool {
        self.full_at.saturating_duration_since(now) <= self.all_but_one()
    }

    /// The time when one is left.
    pub(crate) fn next_at(&self) -> Instant {
        self.full_at
            .checked_sub(self.all_but_one())
            .unwrap_or(self.full_at)
    }

    /// Takes so many, also more than are left.
    pub(crate) fn take(&mut self, amount: usize, now: Instant) {
        let from = self.full_at.max(now);
        self.full_at = from.checked_add(self.time_for(amount)).unwrap_or(from);
    }

    /// Takes one if there is one.
    pub(crate) fn try_take(&mut self, now: Instant) -> bool {
        let has_one = self.has_one(now);
        if has_one {
            self.take(1, now);
        }
        has_one
    }

    /// Puts one back that was not needed.
    pub(crate) fn give_back(&mut self) {
        self.full_at = self.full_at.checked_sub(self.time_for(1)).unwrap_or(self.full_at);
    }

    fn all_but_one(&self) -> Duration {
        SECOND.saturating_sub(self.time_for(1))
    }

    /// The time in which so many come in.
    fn time_for(&self, amount: usize) -> Duration {
        let amount = u64::try_from(amount).unwrap_or(u64::MAX);
        let nanos = u128::from(amount) * SECOND.as_nanos() / u128::from(self.rate);
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    fn bucket(rate: usize) -> Bucket {
        Bucket::new(rate).unwrap()
    }

    fn taken_at_once(bucket: &mut Bucket) -> usize {
        let now = Instant::now();
        std::iter::repeat_with(|| bucket.try_take(now))
            .take_while(|taken| *taken)
            .count()
    }

    #[tokio::test(start_paused = true)]
    async fn at_once_there_is_one_seconds_worth_and_then_one_after_the_other() {
        for rate in [1, 2, 3, 7, 10, 999] {
            let mut bucket = bucket(rate);
            assert_eq!(taken_at_once(&mut bucket), rate);
            let next = bucket.next_at();
            advance(next - Instant::now()).await;
            assert_eq!(taken_at_once(&mut bucket), 1, "of {rate}");
            advance(SECOND / 2).await;
            assert!(taken_at_once(&mut bucket).abs_diff(rate / 2) <= 1, "of {rate}");
            advance(10 * SECOND).await;
            assert_eq!(taken_at_once(&mut bucket), rate, "it never holds more");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_owed_is_paid_back_first() {
        let mut bucket = bucket(100);
        bucket.take(350, Instant::now());
        advance(Duration::from_millis(2_500)).await;
        assert!(!bucket.has_one(Instant::now()));
        advance(Duration::from_millis(10)).await;
        assert_eq!(taken_at_once(&mut bucket), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn over_ten_seconds_the_rate_holds() {
        let mut bucket = bucket(30);
        let mut taken = 0;
        for _ in 0..1_000 {
            taken += taken_at_once(&mut bucket);
            advance(Duration::from_millis(10)).await;
        }
        assert!((329..=330).contains(&taken), "{taken}");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_given_back_can_be_taken_again() {
        let mut bucket = bucket(5);
        assert_eq!(taken_at_once(&mut bucket), 5);
        bucket.give_back();
        assert_eq!(taken_at_once(&mut bucket), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn no_number_is_too_large() {
        let mut bucket = bucket(1);
        bucket.take(usize::MAX, Instant::now());
        bucket.take(usize::MAX, Instant::now());
        assert!(Bucket::new(0).is_none());
        let mut wide = Bucket::new(usize::MAX).unwrap();
        wide.take(usize::MAX / 2, Instant::now());
        assert!(wide.has_one(Instant::now()));
    }
}
