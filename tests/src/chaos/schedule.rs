//! The order of faults: a pure function of the seed.

use std::time::Duration;

use super::fault::{Fault, Kind};
use crate::random::Random;

/// How many of each.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Counts {
    pub(crate) nodes: usize,
    pub(crate) kills: u32,
    pub(crate) drains: u32,
    pub(crate) pauses: u32,
    pub(crate) redis_restarts: u32,
    pub(crate) cuts: u32,
}

/// All faults, in their order.
pub(crate) fn schedule(seed: u64, counts: Counts) -> Vec<Fault> {
    let mut random = Random::new(seed);
    let mut faults = Vec::new();
    // Nodes are chosen last.
    let node = 0;
    for _ in 0..counts.kills {
        let down = millis(&mut random, 0, 3_000);
        faults.push(Fault::Kill { node, down });
    }
    for _ in 0..counts.drains {
        faults.push(Fault::Drain { node });
    }
    for _ in 0..counts.pauses {
        let stopped = millis(&mut random, 500, 12_000);
        faults.push(Fault::Pause { node, stopped });
    }
    for i in 0..counts.redis_restarts {
        let (keeps_data, down) = (i % 2 == 0, millis(&mut random, 0, 3_000));
        faults.push(Fault::Redis { keeps_data, down });
    }
    for i in 0..counts.cuts {
        let percent = random.between(5, 50);
        faults.push(match i % 2 {
            0 => Fault::CutClients { percent },
            _ => Fault::CutNode { node },
        });
    }
    random.shuffle(&mut faults);
    let mut nodes = Nodes::new(counts.nodes, &mut random);
    faults
        .iter_mut()
        .for_each(|fault| nodes.choose(fault, &mut random));
    faults
}

/// Chooses nodes: never the same one twice in a row, so that no client is left on a node that was just hurt.
#[derive(Debug)]
struct Nodes {
    count: usize,
    last: usize,
}

impl Nodes {
    fn new(count: usize, random: &mut Random) -> Self {
        let last = random.below(count);
        Self { count, last }
    }

    fn choose(&mut self, fault: &mut Fault, random: &mut Random) {
        if fault.node().is_none() {
            return;
        }
        self.last = match self.count {
            1 => 0,
            count => (self.last + 1 + random.below(count - 1)) % count,
        };
        fault.hurts(self.last);
    }
}

/// Faults without an end. Each kind comes once, then each comes again in another order.
#[derive(Debug)]
pub(crate) struct Endless {
    kinds: Vec<Kind>,
    deck: Vec<Kind>,
    nodes: Nodes,
    random: Random,
}

impl Endless {
    pub(crate) fn new(seed: u64, kinds: Vec<Kind>, nodes: usize) -> Self {
        let mut random = Random::new(seed);
        Self {
            kinds,
            deck: Vec::new(),
            nodes: Nodes::new(nodes, &mut random),
            random,
        }
    }
}

impl Iterator for Endless {
    type Item = Fault;

    fn next(&mut self) -> Option<Fault> {
        if self.deck.is_empty() {
            self.deck.clone_from(&self.kinds);
            self.random.shuffle(&mut self.deck);
        }
        let mut fault = fault(self.deck.pop()?, &mut self.random)?;
        self.nodes.choose(&mut fault, &mut self.random);
        Some(fault)
    }
}

/// Parts of the keys of scripts whose answers are swallowed: everything, connections' beginnings and ends, messages, signs
/// of life.
const SWALLOWED: [&str; 5] = ["", ":connection:", ":closed:", ":stream:", "{*}"];
/// Policies of managed services.
const POLICIES: [&str; 3] = ["volatile-lru", "volatile-ttl", "allkeys-lru"];

/// A fault of a kind, in all but its node.
fn fault(kind: Kind, random: &mut Random) -> Option<Fault> {
    let node = 0;
    let mut time = |low, high| millis(random, low, high);
    Some(match kind {
        Kind::None => return None,
        Kind::Kill => Fault::Kill {
            node,
            down: time(0, 3_000),
        },
        Kind::Drain => Fault::Drain { node },
        Kind::Pause => Fault::Pause {
            node,
            stopped: time(500, 12_000),
        },
        Kind::CutClients => Fault::CutClients {
            percent: random.between(5, 50),
        },
        Kind::CutNode => Fault::CutNode { node },
        Kind::NodeClock => Fault::NodeClock {
            node,
            ahead: step(random),
        },
        Kind::RedisKept => Fault::Redis {
            keeps_data: true,
            down: time(0, 3_000),
        },
        Kind::RedisEmptied => Fault::Redis {
            keeps_data: false,
            down: time(0, 3_000),
        },
        Kind::RedisPause => Fault::RedisPause {
            stopped: time(200, 8_000),
        },
        Kind::Attach => Fault::Attach,
        Kind::Detach => Fault::Detach,
        Kind::Promote => Fault::Promote,
        Kind::Restore => Fault::Restore {
            age: time(200, 3_000),
        },
        Kind::Evict => Fault::Evict {
            policy: POLICIES[random.below(POLICIES.len())],
            bytes: random.between(20_000, 1_000_000),
        },
        Kind::Fill => Fault::Fill {
            full: time(500, 3_000),
        },
        Kind::RedisClock => Fault::RedisClock { ahead: step(random) },
        Kind::CutCommands => Fault::CutLinks { pushes: false },
        Kind::CutPushes => Fault::CutLinks { pushes: true },
        Kind::ForgetScripts => Fault::ForgetScripts,
        Kind::Flush => Fault::Flush,
        Kind::Switch => Fault::Switch,
        Kind::KillMaster => Fault::KillMaster,
        Kind::PauseMaster => Fault::PauseMaster,
        Kind::Delay => Fault::Delay {
            node,
            most: time(20, 300),
        },
        Kind::Swallow => Fault::Swallow {
            node,
            key: SWALLOWED[random.below(SWALLOWED.len())],
            times: random.between(1, 5),
        },
        Kind::CutScripts => Fault::CutScripts {
            node,
            times: random.between(1, 5),
        },
        Kind::Truncate => Fault::Truncate {
            node,
            times: random.between(1, 3),
        },
        Kind::HoldBriefly => Fault::Hold {
            node,
            held: time(200, 3_000),
            cut: random.between(0, 1) == 1,
        },
        Kind::HoldLong => Fault::Hold {
            node,
            held: time(7_000, 10_000),
            cut: random.between(0, 1) == 1,
        },
    })
}

/// The time to which a clock steps: up to a quarter of a minute from the machine's, ahead or back.
fn step(random: &mut Random) -> i64 {
    let seconds = i64::try_from(random.between(2, 15)).unwrap_or(2);
    if random.between(0, 1) == 0 {
        seconds
    } else {
        -seconds
    }
}

fn millis(random: &mut Random, low: u64, high: u64) -> Duration {
    Duration::from_millis(random.between(low, high))
}

#[cfg(test)]
mod tests {
    use super::*;

    const COUNTS: Counts = Counts {
        nodes: 3,
        kills: 20,
        drains: 19,
        pauses: 18,
        redis_restarts: 17,
        cuts: 16,
    };

    #[test]
    fn a_seed_gives_one_schedule() {
        assert_eq!(schedule(7, COUNTS), schedule(7, COUNTS));
        assert_ne!(schedule(7, COUNTS), schedule(8, COUNTS));
    }

    #[test]
    fn there_are_as_many_as_were_asked_for() {
        let faults = schedule(0, COUNTS);
        let count = |kind: Kind| faults.iter().filter(|fault| fault.kind() == kind).count();
        assert_eq!(
            [
                Kind::Kill,
                Kind::Drain,
                Kind::Pause,
                Kind::RedisKept,
                Kind::RedisEmptied,
                Kind::CutClients,
                Kind::CutNode
            ]
            .map(count),
            [20, 19, 18, 9, 8, 8, 8],
            "of {}",
            faults.len()
        );
    }

    #[test]
    fn no_node_is_hurt_twice_in_a_row() {
        let nodes: Vec<_> = schedule(5, COUNTS).iter().filter_map(Fault::node).collect();
        assert!(nodes.windows(2).all(|pair| pair[0] != pair[1]), "{nodes:?}");
        let alone = Counts { nodes: 1, ..COUNTS };
        assert!(
            schedule(5, alone)
                .iter()
                .filter_map(Fault::node)
                .all(|node| node == 0)
        );
    }

    #[test]
    fn every_node_is_hurt_and_pauses_keep_to_their_bounds() {
        let faults = schedule(3, COUNTS);
        for wanted in 0..3 {
            assert!(
                faults
                    .iter()
                    .any(|fault| matches!(fault, Fault::Kill { node, .. } if *node == wanted))
            );
        }
        for fault in faults {
            match fault {
                Fault::Pause { stopped, node } => {
                    assert!(node < 3);
                    assert!((500..=12_000).contains(&stopped.as_millis()), "{stopped:?}");
                }
                Fault::CutClients { percent } => assert!((5..=50).contains(&percent)),
                _ => {}
            }
        }
    }

    #[test]
    fn each_kind_comes_once_before_any_comes_again() {
        let kinds = Kind::ALL[1..].to_vec();
        let faults = || Endless::new(9, kinds.clone(), 3).take(2 * kinds.len());
        assert!(faults().eq(faults()), "a seed gives one schedule");
        let mut first: Vec<_> = faults().take(kinds.len()).map(|fault| fault.kind()).collect();
        first.sort();
        assert_eq!(first, kinds);
        assert!(faults().all(|fault| fault.node().is_none_or(|node| node < 3)));
    }
}
