//! Counts deliveries, from many tasks at once.

use std::collections::HashSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use hdrhistogram::Histogram;
use tokio::time::Instant;

const SHARDS: usize = 16;

/// The messages that all receivers have seen.
pub(crate) struct Tally {
    shards: Vec<Mutex<Shard>>,
    delivered: AtomicU64,
    counts: AtomicBool,
}

struct Shard {
    received: Vec<Received>,
    totals: Totals,
    last: Instant,
}

/// The numbers of its group that one connection has seen.
#[derive(Default)]
struct Received {
    next: u32,
    missing: HashSet<u32>,
}

/// Sums over all connections, of messages that count.
#[derive(Clone)]
pub(crate) struct Totals {
    pub(crate) deliveries: u64,
    pub(crate) duplicated: u64,
    pub(crate) reordered: u64,
    /// The latency of messages since the time when they should have been sent, in microseconds.
    pub(crate) latency: Histogram<u64>,
}

impl Totals {
    fn new() -> Self {
        Self {
            deliveries: 0,
            duplicated: 0,
            reordered: 0,
            latency: micros(),
        }
    }
}

/// A histogram of microseconds, up to two minutes.
pub(crate) fn micros() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 120_000_000, 3).expect("valid bounds")
}

impl Tally {
    pub(crate) fn new(conns: u32) -> Self {
        let per_shard = (conns as usize).div_ceil(SHARDS);
        let shard = || Shard {
            received: std::iter::repeat_with(Received::default)
                .take(per_shard)
                .collect(),
            totals: Totals::new(),
            last: Instant::now(),
        };
        let shards = std::iter::repeat_with(|| Mutex::new(shard()))
            .take(SHARDS)
            .collect();
        Self {
            shards,
            delivered: AtomicU64::new(0),
            counts: AtomicBool::new(false),
        }
    }

    /// Begins a phase whose messages count, or don't.
    pub(crate) fn begin(&self, counts: bool) {
        self.counts.store(counts, Ordering::Relaxed);
    }

    /// One delivery: the `number`-th message of its group came to connection `index`.
    pub(crate) fn record(&self, index: u32, number: u32, latency_micros: u64) {
        self.delivered.fetch_add(1, Ordering::Relaxed);
        let index = index as usize;
        let mut shard = self.shards[index % SHARDS].lock().unwrap();
        let received = &mut shard.received[index / SHARDS];
        let (mut duplicated, mut reordered) = (0, 0);
        if number >= received.next {
            received.missing.extend(received.next..number);
            received.next = number + 1;
        } else if received.missing.remove(&number) {
            reordered = 1;
        } else {
            duplicated = 1;
        }
        if self.counts.load(Ordering::Relaxed) {
            shard.last = Instant::now();
            let totals = &mut shard.totals;
            totals.deliveries += 1;
            totals.duplicated += duplicated;
            totals.reordered += reordered;
            totals.latency.saturating_record(latency_micros);
        }
    }

    /// All deliveries so far.
    pub(crate) fn delivered(&self) -> u64 {
        self.delivered.load(Ordering::Relaxed)
    }

    /// The time when the last message came that counts.
    pub(crate) fn last_delivery(&self) -> Instant {
        self.shards
            .iter()
            .map(|shard| shard.lock().unwrap().last)
            .max()
            .unwrap()
    }

    /// Sums over all connections.
    pub(crate) fn totals(&self) -> Totals {
        let mut sum = Totals::new();
        for shard in &self.shards {
            let shard = shard.lock().unwrap();
            sum.deliveries += shard.totals.deliveries;
            sum.duplicated += shard.totals.duplicated;
            sum.reordered += shard.totals.reordered;
            sum.latency.add(&shard.totals.latency).unwrap();
        }
        sum
    }
}
