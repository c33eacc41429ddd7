//! The steps of a schedule, derived from a seed.

/// Connections of a schedule. The first two are one user's.
pub(crate) const CONNECTIONS: usize = 3;
pub(crate) const USERS: usize = 2;
pub(crate) const GROUPS: usize = 3;
const STEPS: u64 = 60;

/// The receivers of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum To {
    All,
    User(usize),
    Group(usize),
    Connection(usize),
}

/// A join or a leave.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Change {
    pub(crate) group: usize,
    pub(crate) join: bool,
}

/// A step of the schedule. A step that is impossible in the present state is left out.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// One message, which one connection may be left out of.
    Publish {
        on: usize,
        to: To,
        except: Option<usize>,
    },
    /// Messages that are published while the next steps go on.
    Burst { on: usize, to: To, count: usize },
    /// A change of groups: by the owner, or by `on` where the connection is parked.
    Change {
        connection: usize,
        on: usize,
        change: Change,
    },
    /// The client receives at most so many messages.
    Receive { connection: usize, most: usize },
    /// The owner stores a checkpoint of the client's messages without the last `behind`.
    Checkpoint { connection: usize, behind: usize },
    /// The owner takes a message of the client, which may be a call.
    Note { connection: usize, call: bool },
    /// A call is answered on any node.
    Answer {
        connection: usize,
        on: usize,
        last: bool,
    },
    /// The owner parks the connection, with a checkpoint or without.
    Park {
        connection: usize,
        behind: Option<usize>,
    },
    /// The client comes to a node, which takes the connection over; its groups may change meanwhile.
    TakeOver {
        connection: usize,
        on: usize,
        meanwhile: Vec<Change>,
    },
    /// A node dies. Its connections wait until they are taken over.
    Crash { node: usize },
    /// A connection ends, by its owner or, where it is parked, by `on` and another node at once. The node that ended it
    /// reports that, or dies before. Another connection comes in its place.
    End {
        connection: usize,
        on: usize,
        dies: bool,
    },
    /// The server carries a script of a node out, after so many others, and the answer is lost.
    LoseAnswer { on: usize, after: usize },
}

pub(crate) struct Schedule {
    pub(crate) steps: Vec<Step>,
}

impl Schedule {
    pub(crate) fn of(seed: u64, nodes: usize) -> Self {
        let mut source = Source::of(seed, nodes);
        let count = STEPS / 2 + source.below(STEPS);
        Self {
            steps: (0..count).map(|_| source.step()).collect(),
        }
    }
}

/// Numbers that look random (splitmix64).
pub(crate) struct Source {
    state: u64,
    nodes: usize,
}

impl Source {
    pub(crate) fn of(seed: u64, nodes: usize) -> Self {
        Self {
            state: seed.wrapping_mul(0x2545_f491_4f6c_dd1d) ^ 0x9e37_79b9_7f4a_7c15,
            nodes,
        }
    }

    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    pub(crate) fn index(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    pub(crate) fn one_in(&mut self, bound: u64) -> bool {
        self.below(bound) == 0
    }

    pub(crate) fn connection(&mut self) -> usize {
        self.index(CONNECTIONS)
    }

    pub(crate) fn to(&mut self) -> To {
        match self.below(8) {
            0 | 1 => To::All,
            2 => To::User(self.index(USERS)),
            3..=5 => To::Group(self.index(GROUPS)),
            _ => To::Connection(self.index(CONNECTIONS)),
        }
    }

    pub(crate) fn change(&mut self) -> Change {
        Change {
            group: self.index(GROUPS),
            join: !self.one_in(2),
        }
    }

    fn changes(&mut self) -> Vec<Change> {
        let count = if self.one_in(3) { 1 + self.index(8) } else { 0 };
        (0..count).map(|_| self.change()).collect()
    }

    fn step(&mut self) -> Step {
        let (on, connection) = (self.index(self.nodes), self.index(CONNECTIONS));
        match self.below(34) {
            0..=6 => Step::Publish {
                on,
                to: self.to(),
                except: self.one_in(5).then_some(connection),
            },
            7 | 8 => Step::Burst {
                on,
                to: self.to(),
                count: 1 + self.index(20),
            },
            9..=12 => Step::Change {
                connection,
                on,
                change: self.change(),
            },
            13 | 14 => Step::Receive {
                connection,
                most: 1 + self.index(30),
            },
            15 | 16 => Step::Checkpoint {
                connection,
                behind: self.index(3),
            },
            17 => Step::Note {
                connection,
                call: !self.one_in(3),
            },
            18 => Step::Answer {
                connection,
                on,
                last: self.one_in(2),
            },
            19 | 20 => Step::Park {
                connection,
                behind: self.one_in(2).then(|| self.index(3)),
            },
            21..=24 => Step::TakeOver {
                connection,
                on,
                meanwhile: self.changes(),
            },
            25 => Step::Crash { node: on },
            26 => Step::End {
                connection,
                on,
                dies: self.one_in(4),
            },
            _ => Step::LoseAnswer {
                on,
                after: self.index(6),
            },
        }
    }
}
