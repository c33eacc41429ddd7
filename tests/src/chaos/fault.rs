//! The faults, and what each of them may do to whom.

use std::time::Duration;

use super::kinds::ClientKind;

/// Something that goes wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fault {
    /// A node is killed; after a while it is started again.
    Kill { node: usize, down: Duration },
    /// A node is drained, and started again when it has left.
    Drain { node: usize },
    /// A node doesn't run for a while, with its sockets open.
    Pause { node: usize, stopped: Duration },
    /// So many clients of a hundred lose their sockets.
    CutClients { percent: u64 },
    /// All clients of a node lose their sockets.
    CutNode { node: usize },
    /// A node's wall clock is ahead of the machine's by so many seconds from now on.
    NodeClock { node: usize, ahead: i64 },
    /// Redis is killed and started again after a while.
    Redis { keeps_data: bool, down: Duration },
    /// Redis doesn't run for a while, with its sockets open.
    RedisPause { stopped: Duration },
    /// A replica begins to follow, the first one or another.
    Attach,
    /// The only replica is gone for longer than the master keeps a backlog for it.
    Detach,
    /// A replica becomes the master under the same address, while the master lives.
    Promote,
    /// Redis comes back with the data of an earlier moment.
    Restore { age: Duration },
    /// Redis gives keys up to save memory.
    Evict { policy: &'static str, bytes: u64 },
    /// Redis refuses for a while what takes memory.
    Fill { full: Duration },
    /// The wall clock of Redis is ahead of the machine's by so many seconds from now on.
    RedisClock { ahead: i64 },
    /// Redis cuts its clients of a type.
    CutLinks { pushes: bool },
    /// Redis forgets its scripts.
    ForgetScripts,
    /// Redis forgets its data while it lives.
    Flush,
    /// A replica is made the master as planned.
    Switch,
    /// The master is killed, and comes back when another one has taken its place.
    KillMaster,
    /// The master does not run until another one has taken its place.
    PauseMaster,
    /// Commands and pushes of a node are late.
    Delay { node: usize, most: Duration },
    /// The answers to some of a node's scripts are lost, and their links cut.
    Swallow {
        node: usize,
        key: &'static str,
        times: u64,
    },
    /// Links of a node are cut where a script would have passed.
    CutScripts { node: usize, times: u64 },
    /// Pushes to a node end in their midst, with their links.
    Truncate { node: usize, times: u64 },
    /// A node's link to Redis is held for a while; then its links are cut, or everything passes that waited.
    Hold { node: usize, held: Duration, cut: bool },
}

/// The faults that are counted together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// Before the first fault.
    None,
    Kill,
    Drain,
    Pause,
    CutClients,
    CutNode,
    NodeClock,
    RedisKept,
    RedisEmptied,
    RedisPause,
    Attach,
    Detach,
    Promote,
    Restore,
    Evict,
    Fill,
    RedisClock,
    CutCommands,
    CutPushes,
    ForgetScripts,
    Flush,
    Switch,
    KillMaster,
    PauseMaster,
    Delay,
    Swallow,
    CutScripts,
    Truncate,
    HoldBriefly,
    HoldLong,
}

/// A node that was away for longer than this may rightly be taken for dead: its lease is 5 s, and its last sign of life may
/// be a second old.
const NEARLY_A_LEASE: Duration = Duration::from_millis(3_500);

impl Kind {
    pub(crate) const ALL: [Self; 30] = [
        Self::None,
        Self::Kill,
        Self::Drain,
        Self::Pause,
        Self::CutClients,
        Self::CutNode,
        Self::NodeClock,
        Self::RedisKept,
        Self::RedisEmptied,
        Self::RedisPause,
        Self::Attach,
        Self::Detach,
        Self::Promote,
        Self::Restore,
        Self::Evict,
        Self::Fill,
        Self::RedisClock,
        Self::CutCommands,
        Self::CutPushes,
        Self::ForgetScripts,
        Self::Flush,
        Self::Switch,
        Self::KillMaster,
        Self::PauseMaster,
        Self::Delay,
        Self::Swallow,
        Self::CutScripts,
        Self::Truncate,
        Self::HoldBriefly,
        Self::HoldLong,
    ];

    /// The row's title in the table, and the name on the command line.
    pub(crate) fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::None => ("(before any fault)", "none"),
            Self::Kill => ("node killed", "kill"),
            Self::Drain => ("node drained", "drain"),
            Self::Pause => ("node paused", "pause"),
            Self::CutClients => ("some clients cut", "cut-clients"),
            Self::CutNode => ("all clients of a node cut", "cut-node"),
            Self::NodeClock => ("node's clock steps", "node-clock"),
            Self::RedisKept => ("Redis killed, data kept", "redis-kill"),
            Self::RedisEmptied => ("Redis killed, data lost", "redis-empty"),
            Self::RedisPause => ("Redis paused", "redis-pause"),
            Self::Attach => ("replica attached", "attach"),
            Self::Detach => ("replica gone for good", "detach"),
            Self::Promote => ("failover by hand", "promote"),
            Self::Restore => ("older snapshot restored", "restore"),
            Self::Evict => ("keys evicted", "evict"),
            Self::Fill => ("Redis full", "fill"),
            Self::RedisClock => ("Redis' clock steps", "redis-clock"),
            Self::CutCommands => ("CLIENT KILL TYPE normal", "cut-commands"),
            Self::CutPushes => ("CLIENT KILL TYPE pubsub", "cut-pushes"),
            Self::ForgetScripts => ("SCRIPT FLUSH", "forget-scripts"),
            Self::Flush => ("FLUSHALL", "flush"),
            Self::Switch => ("planned failover", "switch"),
            Self::KillMaster => ("master killed", "kill-master"),
            Self::PauseMaster => ("master paused", "pause-master"),
            Self::Delay => ("link slow", "delay"),
            Self::Swallow => ("answers lost", "swallow"),
            Self::CutScripts => ("links cut", "cut-scripts"),
            Self::Truncate => ("pushes truncated", "truncate"),
            Self::HoldBriefly => ("node cut off, briefly", "hold"),
            Self::HoldLong => ("node cut off, too long", "hold-long"),
        }
    }

    /// Returns whether Redis may have forgotten something: exactness ends, and clients that were promised it are
    /// notified.
    pub(crate) fn forgets(self) -> bool {
        matches!(
            self,
            Self::RedisKept
                | Self::RedisEmptied
                | Self::Promote
                | Self::Restore
                | Self::Evict
                | Self::Flush
                | Self::Switch
                | Self::KillMaster
                | Self::PauseMaster
        )
    }

    /// Returns whether a client of this kind may have to start anew because of it.
    pub(crate) fn justifies_reset_of(self, client: ClientKind) -> bool {
        if client.is_resumable() {
            return self.forgets();
        }
        matches!(
            self,
            Self::Kill | Self::Drain | Self::Pause | Self::CutClients | Self::CutNode | Self::HoldLong
        )
    }
}

impl Fault {
    pub(crate) fn kind(&self) -> Kind {
        match self {
            Self::Kill { .. } => Kind::Kill,
            Self::Drain { .. } => Kind::Drain,
            Self::Pause { .. } => Kind::Pause,
            Self::CutClients { .. } => Kind::CutClients,
            Self::CutNode { .. } => Kind::CutNode,
            Self::NodeClock { .. } => Kind::NodeClock,
            Self::Redis { keeps_data: true, .. } => Kind::RedisKept,
            Self::Redis { .. } => Kind::RedisEmptied,
            Self::RedisPause { .. } => Kind::RedisPause,
            Self::Attach => Kind::Attach,
            Self::Detach => Kind::Detach,
            Self::Promote => Kind::Promote,
            Self::Restore { .. } => Kind::Restore,
            Self::Evict { .. } => Kind::Evict,
            Self::Fill { .. } => Kind::Fill,
            Self::RedisClock { .. } => Kind::RedisClock,
            Self::CutLinks { pushes: false } => Kind::CutCommands,
            Self::CutLinks { .. } => Kind::CutPushes,
            Self::ForgetScripts => Kind::ForgetScripts,
            Self::Flush => Kind::Flush,
            Self::Switch => Kind::Switch,
            Self::KillMaster => Kind::KillMaster,
            Self::PauseMaster => Kind::PauseMaster,
            Self::Delay { .. } => Kind::Delay,
            Self::Swallow { .. } => Kind::Swallow,
            Self::CutScripts { .. } => Kind::CutScripts,
            Self::Truncate { .. } => Kind::Truncate,
            Self::Hold { held, .. } if *held > NEARLY_A_LEASE => Kind::HoldLong,
            Self::Hold { .. } => Kind::HoldBriefly,
        }
    }

    /// The node that it hurts, if it is one.
    pub(crate) fn node(&self) -> Option<usize> {
        match self {
            Self::Kill { node, .. }
            | Self::Drain { node }
            | Self::Pause { node, .. }
            | Self::CutNode { node }
            | Self::NodeClock { node, .. }
            | Self::Delay { node, .. }
            | Self::Swallow { node, .. }
            | Self::CutScripts { node, .. }
            | Self::Truncate { node, .. }
            | Self::Hold { node, .. } => Some(*node),
            _ => None,
        }
    }

    /// Chooses the node that it hurts, if it hurts one.
    pub(crate) fn hurts(&mut self, chosen: usize) {
        match self {
            Self::Kill { node, .. }
            | Self::Drain { node }
            | Self::Pause { node, .. }
            | Self::CutNode { node }
            | Self::NodeClock { node, .. }
            | Self::Delay { node, .. }
            | Self::Swallow { node, .. }
            | Self::CutScripts { node, .. }
            | Self::Truncate { node, .. }
            | Self::Hold { node, .. } => *node = chosen,
            _ => {}
        }
    }

    /// Returns whether others may rightly take a node for dead because of it.
    pub(crate) fn may_shut_out(&self, node: usize) -> bool {
        let away = match self {
            Self::Pause { stopped, .. } => *stopped,
            Self::Hold { held, .. } => *held,
            _ => return false,
        };
        self.node() == Some(node) && away > NEARLY_A_LEASE
    }
}
