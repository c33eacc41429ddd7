//! Which faults come in which order: a pure function of the seed.

use std::time::Duration;

use crate::random::Random;

/// Something that goes wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fault {
    /// A node is killed; after a while it is started again.
    Kill { node: usize, down: Duration },
    /// A node is asked to leave, and started again when it has left.
    Drain { node: usize },
    /// A node doesn't run for a while, with its sockets open.
    Pause { node: usize, stopped: Duration },
    /// Redis is killed and started again after a while.
    Redis { keeps_data: bool, down: Duration },
    /// So many clients of a hundred lose their sockets.
    CutClients { percent: u64 },
    /// All clients of a node lose their sockets.
    CutNode { node: usize },
}

/// What is counted together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// Before the first fault.
    None,
    Kill,
    Drain,
    Pause,
    RedisKept,
    RedisEmptied,
    CutClients,
    CutNode,
}

impl Kind {
    pub(crate) const ALL: [Self; 8] = [
        Self::None,
        Self::Kill,
        Self::Drain,
        Self::Pause,
        Self::RedisKept,
        Self::RedisEmptied,
        Self::CutClients,
        Self::CutNode,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::None => "(before any fault)",
            Self::Kill => "node killed",
            Self::Drain => "node drained",
            Self::Pause => "node paused",
            Self::RedisKept => "Redis killed, data kept",
            Self::RedisEmptied => "Redis killed, data lost",
            Self::CutClients => "some clients cut",
            Self::CutNode => "all clients of a node cut",
        }
    }
}

impl Fault {
    pub(crate) fn kind(&self) -> Kind {
        match self {
            Self::Kill { .. } => Kind::Kill,
            Self::Drain { .. } => Kind::Drain,
            Self::Pause { .. } => Kind::Pause,
            Self::Redis { keeps_data: true, .. } => Kind::RedisKept,
            Self::Redis {
                keeps_data: false, ..
            } => Kind::RedisEmptied,
            Self::CutClients { .. } => Kind::CutClients,
            Self::CutNode { .. } => Kind::CutNode,
        }
    }
}

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
    choose_nodes(&mut faults, counts.nodes, &mut random);
    faults
}

/// Never the same node twice in a row: nobody is left on a node that was just hurt.
fn choose_nodes(faults: &mut [Fault], nodes: usize, random: &mut Random) {
    let mut last = random.below(nodes);
    let chosen = faults.iter_mut().filter_map(|fault| match fault {
        Fault::Kill { node, .. }
        | Fault::Drain { node }
        | Fault::Pause { node, .. }
        | Fault::CutNode { node } => Some(node),
        Fault::Redis { .. } | Fault::CutClients { .. } => None,
    });
    for node in chosen {
        last = match nodes {
            1 => 0,
            _ => (last + 1 + random.below(nodes - 1)) % nodes,
        };
        *node = last;
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
            Kind::ALL.map(count),
            [0, 20, 19, 18, 9, 8, 8, 8],
            "of {}",
            faults.len()
        );
    }

    #[test]
    fn no_node_is_hurt_twice_in_a_row() {
        let node = |fault: &Fault| match fault {
            Fault::Kill { node, .. }
            | Fault::Drain { node }
            | Fault::Pause { node, .. }
            | Fault::CutNode { node } => Some(*node),
            Fault::Redis { .. } | Fault::CutClients { .. } => None,
        };
        let nodes: Vec<_> = schedule(5, COUNTS).iter().filter_map(node).collect();
        assert!(nodes.windows(2).all(|pair| pair[0] != pair[1]), "{nodes:?}");
        let alone = Counts { nodes: 1, ..COUNTS };
        assert!(schedule(5, alone).iter().filter_map(node).all(|node| node == 0));
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
}
