//! Counts deliveries: which came, how long they took, and whether each came once and in order.

use std::ops::Range;

use hdrhistogram::Histogram;
use hubcast_tests::stamp::Stamp;

/// The deliveries of one phase.
pub(crate) struct Tally {
    phase: u16,
    pub(crate) deliveries: u64,
    pub(crate) doubled: u64,
    pub(crate) reordered: u64,
    /// Messages of other groups than the receiver's.
    pub(crate) misrouted: u64,
    /// When the last one came.
    pub(crate) last: u64,
    /// Microseconds from when each should have been sent.
    pub(crate) latency: Histogram<u32>,
}

/// The groups of one receiver, with what it has of each.
#[derive(Clone)]
pub(crate) struct Receives {
    first: u32,
    seen: Box<[Seen]>,
}

impl Receives {
    /// Adjacent groups.
    pub(crate) fn new(groups: Range<u32>) -> Self {
        Self {
            first: groups.start,
            seen: groups.map(|_| Seen::default()).collect(),
        }
    }

    pub(crate) fn groups(&self) -> Range<u32> {
        let count = u32::try_from(self.seen.len()).expect("groups are counted in 32 bits");
        self.first..self.first + count
    }

    /// Forgets an earlier phase.
    pub(crate) fn clear(&mut self) {
        self.seen.fill(Seen::default());
    }

    fn group(&mut self, group: u32) -> Option<&mut Seen> {
        self.seen.get_mut(group.checked_sub(self.first)? as usize)
    }
}

/// The messages of this phase that one receiver has of a group, of the last 64 numbers.
#[derive(Default, Clone, Copy)]
struct Seen {
    highest: u32,
    /// Bit `i` stands for the number `highest - i`.
    window: u64,
}

impl Tally {
    pub(crate) fn new(phase: u16) -> Self {
        Self {
            phase,
            deliveries: 0,
            doubled: 0,
            reordered: 0,
            misrouted: 0,
            last: 0,
            latency: micros(),
        }
    }

    /// A message that came at `now` to a receiver. Returns whether it is a new one of this phase.
    pub(crate) fn record(&mut self, receives: &mut Receives, stamp: Stamp, now: u64) -> bool {
        if stamp.phase != self.phase {
            return false;
        }
        let Some(seen) = receives.group(stamp.group) else {
            self.misrouted += 1;
            return false;
        };
        match seen.take(stamp.number) {
            Order::Next => {}
            Order::Late => self.reordered += 1,
            Order::Again => {
                self.doubled += 1;
                return false;
            }
        }
        self.deliveries += 1;
        self.last = now;
        let micros = now.saturating_sub(stamp.due) / 1_000;
        self.latency.saturating_record(micros.max(1));
        true
    }
}

#[derive(PartialEq, Debug)]
enum Order {
    Next,
    Late,
    Again,
}

impl Seen {
    fn take(&mut self, number: u32) -> Order {
        if number > self.highest {
            self.window = self.window.checked_shl(number - self.highest).unwrap_or(0) | 1;
            self.highest = number;
            return Order::Next;
        }
        // A message older than the window counts as late, so that none is counted as lost twice.
        let bit = 1_u64.checked_shl(self.highest - number).unwrap_or(0);
        if self.window & bit != 0 {
            return Order::Again;
        }
        self.window |= bit;
        Order::Late
    }
}

/// A histogram of microseconds, up to two minutes.
pub(crate) fn micros() -> Histogram<u32> {
    Histogram::new_with_bounds(1, 120_000_000, 3).expect("valid bounds")
}

/// Counts the stamps in `bytes`. Returns how many bytes are done with: what follows may be the beginning of a stamp.
pub(super) fn scan(
    receives: &mut Receives,
    bytes: &[u8],
    tally: &mut Tally,
    outstanding: &mut i64,
    time: u64,
) -> usize {
    let mut done = 0;
    while let Some(at) = memchr::memmem::find(&bytes[done..], Stamp::MARK) {
        let Some(stamp) = bytes.get(done + at..done + at + Stamp::BYTES) else {
            return done + at;
        };
        if let Some(stamp) = Stamp::parse(stamp)
            && tally.record(receives, stamp, time)
        {
            *outstanding -= 1;
        }
        done += at + Stamp::BYTES;
    }
    done.max(bytes.len().saturating_sub(Stamp::MARK.len() - 1))
}

#[cfg(test)]
mod tests {
    use hubcast_tests::stamp::Stamp;

    use super::{Receives, Tally};

    #[test]
    fn each_kind_of_wrong_delivery_is_counted() {
        let mut tally = Tally::new(7);
        let mut receives = Receives::new(3..4);
        let mut receive = |tally: &mut Tally, phase, group, number| {
            let stamp = Stamp {
                phase,
                group,
                number,
                due: 1_000,
            };
            tally.record(&mut receives, stamp, 2_001_000)
        };
        for number in [1, 2, 4, 3, 70, 5] {
            assert!(receive(&mut tally, 7, 3, number), "{number}");
        }
        assert!(!receive(&mut tally, 7, 3, 70), "it came before");
        assert!(!receive(&mut tally, 7, 2, 71), "another group's");
        assert!(!receive(&mut tally, 6, 3, 71), "an earlier phase's");
        assert_eq!((tally.deliveries, tally.reordered), (6, 2));
        assert_eq!((tally.doubled, tally.misrouted), (1, 1));
        assert_eq!(tally.latency.max(), 2_000);
    }
}
