//! The steps of a schedule in which nodes see different masters, derived from a seed.

use crate::schedule::{Change, Source, To};

pub(crate) const NODES: usize = 3;
const STEPS: u64 = 70;

/// A step of the schedule. A step that is impossible in the present state is left out.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    Publish {
        on: usize,
        to: To,
    },
    /// Messages that are published while the next steps go on.
    Burst {
        on: usize,
        to: To,
        count: usize,
    },
    /// The owner changes a connection's groups.
    Change {
        connection: usize,
        change: Change,
    },
    /// A node takes a connection over from the owner that its server names.
    TakeOver {
        connection: usize,
        on: usize,
    },
    /// The owner takes a message of the client.
    Note {
        connection: usize,
    },
    /// The owner ends a connection.
    End {
        connection: usize,
    },
    /// The master that a node is led to carries a script out, after so many others, and the answer is lost.
    LoseAnswer {
        on: usize,
        after: usize,
    },
    /// The replica becomes the master. Only some nodes are led there; for the others the former one goes on. `whole`:
    /// the replica has all data of the former master.
    Promote {
        early: [bool; NODES],
        whole: bool,
    },
    /// A node that is late is led to the master; without `cut`, its open connections to the former one go on until they
    /// end.
    Lead {
        on: usize,
        cut: bool,
    },
}

pub(crate) fn steps(seed: u64) -> Vec<Step> {
    let mut source = Source::of(seed, NODES);
    let count = STEPS / 2 + source.below(STEPS);
    (0..count).map(|_| step(&mut source)).collect()
}

fn step(source: &mut Source) -> Step {
    let (on, connection) = (source.index(NODES), source.connection());
    match source.below(32) {
        0..=9 => Step::Publish { on, to: source.to() },
        10 | 11 => Step::Burst {
            on,
            to: source.to(),
            count: 1 + source.index(10),
        },
        12..=14 => Step::Change {
            connection,
            change: source.change(),
        },
        15..=18 => Step::TakeOver { connection, on },
        19 | 20 => Step::Note { connection },
        21 => Step::End { connection },
        22..=24 => Step::LoseAnswer {
            on,
            after: source.index(6),
        },
        25..=27 => Step::Promote {
            early: std::array::from_fn(|_| source.one_in(2)),
            whole: !source.one_in(3),
        },
        _ => Step::Lead {
            on,
            cut: !source.one_in(3),
        },
    }
}
