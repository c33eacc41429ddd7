//! Times of requests, and their distribution.

use std::time::Duration;

use hdrhistogram::Histogram;
use tokio::time::Instant;

/// Times of requests, in microseconds.
pub(crate) struct Latency(Histogram<u64>);

impl Latency {
    pub(crate) fn new() -> Self {
        Self(Histogram::new(3).expect("three digits"))
    }

    /// Adds the time since `begun`.
    pub(crate) fn add(&mut self, begun: Instant) {
        self.0 += u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
    }

    /// Adds all times of another one.
    pub(crate) fn merge(&mut self, other: &Self) {
        self.0.add(&other.0).expect("the histogram grows");
    }

    pub(crate) fn count(&self) -> u64 {
        self.0.len()
    }

    /// The time that this share of the requests did not exceed.
    pub(crate) fn quantile(&self, share: f64) -> Duration {
        Duration::from_micros(self.0.value_at_quantile(share))
    }

    /// Median and 99th percentile in milliseconds.
    pub(crate) fn render(&self) -> String {
        let ms = |share| self.quantile(share).as_secs_f64() * 1e3;
        format!("p50 {:7.3} ms  p99 {:7.3} ms", ms(0.5), ms(0.99))
    }
}

/// The middle value.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
