//! The receivers and the publisher of a run, and the outcomes of its parts.

use std::net::SocketAddr;

use hdrhistogram::Histogram;

use super::tally::Tally;
use super::{Publishes, Speaks};

/// The receivers and the publisher of one run.
#[derive(Clone, Debug)]
pub(crate) struct Cast {
    /// Receivers take them in turn; the publisher the first one.
    pub(crate) nodes: Vec<SocketAddr>,
    pub(crate) speaks: Speaks,
    pub(crate) publishes: Publishes,
    pub(crate) connections: u32,
    /// Receivers are spread over them; each group has members on all nodes.
    pub(crate) groups: u32,
    /// Bytes of text in each message.
    pub(crate) payload: usize,
    /// Connections that are opened at the same time.
    pub(crate) window: u32,
    /// Receivers that read nothing once they are connected. What they would get does not count.
    pub(crate) stalled: u32,
}

impl Cast {
    /// Returns whether the receiver of this number stalls: they are spread evenly.
    pub(super) fn stalls(&self, number: u32) -> bool {
        let before = |number: u32| u64::from(number) * u64::from(self.stalled) / u64::from(self.connections);
        before(number + 1) > before(number)
    }
}

/// How fast messages come.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Pace {
    /// So many in a second, at fixed times, whether or not earlier ones have arrived.
    Rate(f64),
    /// As fast as possible with so many on their way.
    Window(u32),
    /// So many, each after the one before has arrived everywhere, however long that takes.
    Count(u32),
}

/// The cost in time of connecting.
pub(crate) struct Connected {
    pub(crate) open: u32,
    pub(crate) failed: u32,
    pub(crate) seconds: f64,
    /// Microseconds for each connection, joining included.
    pub(crate) latency: Histogram<u32>,
}

/// The outcome of a phase.
pub(crate) struct Phase {
    pub(crate) messages: u64,
    pub(crate) expected: u64,
    /// From the first message to the last delivery.
    pub(crate) seconds: f64,
    pub(crate) tally: Tally,
}

impl Phase {
    pub(crate) fn lost(&self) -> u64 {
        self.expected.saturating_sub(self.tally.deliveries)
    }

    /// Messages that were lost, doubled or out of order.
    pub(crate) fn faults(&self) -> u64 {
        self.lost() + self.tally.doubled + self.tally.reordered + self.tally.misrouted
    }
}
