//! At which pace connections leave their nodes, all nodes together.
//!
//! Each connection that a node lets go takes a turn, and turns are apart by what the rate says, whichever nodes have them. So a
//! roll-out that drains several nodes at once costs the others no more connections a second than one node that drains. A node that
//! has to be done by a deadline says how many turns a second it needs for that; where all nodes together need more than the rate,
//! turns are as close as they need.

use std::time::Duration;

/// What a node asks for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TurnsWanted {
    /// So many turns, at least one.
    pub count: u32,
    /// Most turns of all nodes in a second, at least one.
    pub rate: u32,
    /// Turns in a second without which this node misses its deadline; 0 where it has none.
    pub need: f64,
}

/// The turns that a node has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turns {
    /// Time until the first.
    pub wait: Duration,
    /// Time between two.
    pub apart: Duration,
}

impl TurnsWanted {
    /// How far apart turns are where all nodes need this many in a second.
    #[must_use]
    pub fn apart(&self, needed: f64) -> Duration {
        let rate = needed.max(f64::from(self.rate.max(1)));
        Duration::from_secs_f64(1.0 / rate)
    }
}
