//! The pace at which connections leave the nodes that drain, shared by all nodes.
//!
//! Each connection that a node lets go takes a turn, and the rate sets the time between turns, whichever nodes have
//! them. So a roll-out that drains several nodes at once costs the others no more connections a second than one node
//! that drains. A node with a deadline says how many turns a second it needs to meet it; where all nodes together need
//! more than the rate, the turns are as close as needed.

use std::time::Duration;

/// A node's request for turns.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TurnsWanted {
    /// Number of turns, at least 1.
    pub count: u32,
    /// Most turns per second of all nodes together, at least 1.
    pub rate: u32,
    /// Turns per second that this node needs to meet its deadline; 0 where it has none.
    pub need: f64,
}

/// The turns that a node was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turns {
    /// Time until the first turn.
    pub wait: Duration,
    /// Time between two turns.
    pub apart: Duration,
}

impl TurnsWanted {
    /// The time between two turns where all nodes together need `needed` turns per second.
    #[must_use]
    pub fn apart(&self, needed: f64) -> Duration {
        let rate = needed.max(f64::from(self.rate.max(1)));
        Duration::from_secs_f64(1.0 / rate)
    }
}
