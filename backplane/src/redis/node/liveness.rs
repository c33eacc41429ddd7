//! Decides which nodes are alive, as one node sees it: by its own clock, and by whether the others' counts go on.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use tokio::time::Instant;

use crate::topic::NodeId;

/// Beats of this node, in a row and in time, in which another node's count must have stood still for it to be dead.
const OBSERVATIONS: u32 = 4;
/// The count of a node that has left without removing its connections.
pub(in crate::redis) const LEFT: i64 = -1;

/// The counts of all nodes, from the answer to one beat.
pub(in crate::redis) struct Observation {
    /// The times at which the beat was sent and its answer came: the server read the counts in between.
    pub(in crate::redis) sent: Instant,
    pub(in crate::redis) heard: Instant,
    pub(in crate::redis) epoch: String,
    pub(in crate::redis) counts: Vec<(NodeId, i64)>,
}

/// Judges nodes by a series of observations.
pub(in crate::redis) struct Liveness {
    interval: Duration,
    lease: Duration,
    epoch: String,
    /// The time at which the last observation came, unless one has failed since.
    last: Option<Instant>,
    nodes: HashMap<NodeId, BeatHistory>,
}

/// One node's count, and the time for which it has stood still.
struct BeatHistory {
    count: i64,
    since: Instant,
    observations: u32,
    silence: Duration,
    /// The server began another epoch and has had no beat of the node since.
    forgotten: bool,
}

impl BeatHistory {
    fn new(count: i64, since: Instant) -> Self {
        Self {
            count,
            since,
            observations: 0,
            silence: Duration::ZERO,
            forgotten: false,
        }
    }

    /// Records that the count was the same once more.
    fn again(mut self, at: Instant) -> Self {
        self.observations += 1;
        self.silence = at.saturating_duration_since(self.since);
        self
    }

    fn is_silent(&self, time: Duration) -> bool {
        self.count == LEFT || (self.observations >= OBSERVATIONS && self.silence >= time)
    }
}

impl Liveness {
    /// `interval`: time between two observations. `lease`: how long a count may stand still.
    pub(in crate::redis) fn new(interval: Duration, lease: Duration) -> Self {
        Self {
            interval,
            lease,
            epoch: String::new(),
            last: None,
            nodes: HashMap::new(),
        }
    }

    /// Records that an observation failed: the same cause may keep other nodes' beats from the server.
    pub(in crate::redis) fn interrupt(&mut self) {
        self.last = None;
    }

    /// Takes an observation in. One that comes late gives every node the time of a whole lease.
    pub(in crate::redis) fn observe(&mut self, observation: &Observation) {
        let (sent, heard) = (observation.sent, observation.heard);
        let in_time = |last: Instant| heard.saturating_duration_since(last) <= self.interval * 2;
        let regular = self.last.is_some_and(in_time);
        self.last = Some(heard);
        let renewed = self.epoch != observation.epoch;
        self.epoch.clone_from(&observation.epoch);
        let go_on = |seen: Option<BeatHistory>, count: i64| match seen {
            Some(seen) if regular && seen.count == count => seen.again(sent),
            _ => BeatHistory::new(count, heard),
        };
        let mut known = std::mem::take(&mut self.nodes);
        for (node, count) in &observation.counts {
            let seen = known.remove(node).filter(|seen| !seen.forgotten);
            self.nodes.insert(node.clone(), go_on(seen, *count));
        }
        // A node that is not listed has left; but to a server that forgot its nodes they come back one by one.
        for (node, seen) in known.into_iter().filter(|(_, seen)| renewed || seen.forgotten) {
            let count = seen.count;
            let seen = BeatHistory {
                forgotten: true,
                ..go_on(Some(seen), count)
            };
            if !seen.is_silent(self.lease) {
                self.nodes.insert(node, seen);
            }
        }
    }

    /// The nodes that are alive. A node that was seen for the first time counts.
    pub(in crate::redis) fn living(&self) -> HashSet<NodeId> {
        let living = self.nodes.iter().filter(|(_, seen)| !seen.is_silent(self.lease));
        living.map(|(node, _)| node.clone()).collect()
    }

    /// The nodes that have been silent for a lease and `grace`, with the count that each had all the time.
    pub(in crate::redis) fn dead(&self, grace: Duration) -> HashMap<NodeId, i64> {
        let silent = |seen: &BeatHistory| !seen.forgotten && seen.is_silent(self.lease + grace);
        let dead = self.nodes.iter().filter(|(_, seen)| silent(seen));
        dead.map(|(node, seen)| (node.clone(), seen.count)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_millis(1_000);
    const LEASE: Duration = Duration::from_millis(5_000);

    struct Watch {
        liveness: Liveness,
        at: Instant,
        epoch: &'static str,
    }

    impl Watch {
        fn new() -> Self {
            Self {
                liveness: Liveness::new(INTERVAL, LEASE),
                at: Instant::now(),
                epoch: "e",
            }
        }

        /// Observes after `time`, with an answer that takes a moment.
        fn after(&mut self, time: Duration, counts: &[(&str, i64)]) {
            self.at += time;
            let node = |(node, count): &(&str, i64)| (NodeId::parse(*node).unwrap(), *count);
            self.liveness.observe(&Observation {
                sent: self.at,
                heard: self.at + Duration::from_millis(5),
                epoch: self.epoch.to_owned(),
                counts: counts.iter().map(node).collect(),
            });
        }

        fn living(&self) -> Vec<String> {
            let mut living: Vec<_> = self.liveness.living().iter().map(ToString::to_string).collect();
            living.sort();
            living
        }

        fn dead(&self, grace: Duration) -> Vec<(String, i64)> {
            let dead = self.liveness.dead(grace).into_iter();
            dead.map(|(node, count)| (node.to_string(), count)).collect()
        }
    }

    #[test]
    fn a_node_is_dead_when_its_count_stood_still_for_a_lease() {
        let mut watch = Watch::new();
        for beat in 0..6 {
            watch.after(INTERVAL, &[("a", beat), ("b", 7)]);
            assert_eq!(watch.living(), ["a", "b"], "beat {beat}");
        }
        // The first observation came 5 ms after it was sent: only now is it certain.
        watch.after(INTERVAL, &[("a", 6), ("b", 7)]);
        assert_eq!(watch.living(), ["a"]);
        assert_eq!(watch.dead(Duration::ZERO), [("b".to_owned(), 7)]);
        assert!(watch.dead(Duration::from_secs(2)).is_empty());
        watch.after(INTERVAL, &[("a", 7), ("b", 8)]);
        assert_eq!(watch.living(), ["a", "b"], "its count goes on");
    }

    #[test]
    fn a_late_or_failed_observation_gives_everybody_a_whole_lease() {
        for fails in [false, true] {
            let mut watch = Watch::new();
            for _ in 0..5 {
                watch.after(INTERVAL, &[("b", 7)]);
            }
            if fails {
                watch.liveness.interrupt();
                watch.after(INTERVAL, &[("b", 7)]);
            } else {
                watch.after(INTERVAL * 3, &[("b", 7)]);
            }
            for beat in 0..5 {
                watch.after(INTERVAL, &[("b", 7)]);
                assert_eq!(watch.living(), ["b"], "beat {beat}");
            }
            watch.after(INTERVAL, &[("b", 7)]);
            assert!(watch.living().is_empty());
        }
    }

    #[test]
    fn a_short_lease_still_takes_several_observations() {
        let mut watch = Watch::new();
        watch.liveness = Liveness::new(INTERVAL, INTERVAL * 2);
        for _ in 0..4 {
            watch.after(INTERVAL, &[("b", 7)]);
            assert_eq!(watch.living(), ["b"]);
        }
        watch.after(INTERVAL, &[("b", 7)]);
        assert!(watch.living().is_empty());
    }

    #[test]
    fn who_left_is_gone_at_once() {
        let mut watch = Watch::new();
        watch.after(INTERVAL, &[("a", 1), ("b", 1)]);
        watch.after(INTERVAL, &[("a", LEFT)]);
        assert!(watch.living().is_empty());
        assert_eq!(watch.dead(Duration::from_secs(9)), [("a".to_owned(), LEFT)]);
    }

    #[test]
    fn a_server_that_forgot_its_nodes_has_killed_nobody() {
        let mut watch = Watch::new();
        watch.after(INTERVAL, &[("a", 1), ("b", 1), ("c", 1)]);
        watch.epoch = "f";
        for count in 1..5 {
            watch.after(INTERVAL, &[("a", count)]);
            assert_eq!(watch.living(), ["a", "b", "c"]);
        }
        watch.after(INTERVAL, &[("a", 6), ("b", 1)]);
        watch.after(INTERVAL, &[("a", 7), ("b", 2)]);
        assert_eq!(watch.living(), ["a", "b"], "the other one did not come back");
        assert!(watch.dead(Duration::ZERO).is_empty());
        watch.after(INTERVAL, &[("a", 8)]);
        assert_eq!(watch.living(), ["a"], "it has left since");
    }
}
