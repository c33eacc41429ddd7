//! Visits to all connections, spread over an interval.

/// Visits every connection once in an interval, a few at a time.
pub(super) struct Rota {
    interval: u64,
    next: u64,
    position: usize,
}

impl Rota {
    const STEPS: u64 = 100;

    pub(super) fn new(interval: u64) -> Self {
        Self {
            interval,
            next: 0,
            position: 0,
        }
    }

    /// The connections whose turn it is, of `count`.
    pub(super) fn due(&mut self, time: u64, count: usize) -> Vec<usize> {
        if time < self.next || count == 0 {
            return Vec::new();
        }
        self.next = time + self.interval / Self::STEPS;
        let first = self.position;
        let visited = count.div_ceil(Self::STEPS as usize);
        self.position = (first + visited) % count;
        (first..first + visited).map(|index| index % count).collect()
    }
}
