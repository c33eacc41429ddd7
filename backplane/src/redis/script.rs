//! The scripts that run in the server, and calls of them: alone, or as operations of a batch.

use bytes::Bytes;
use redis::aio::MultiplexedConnection;
use redis::{Cmd, RedisResult, Script};

use super::run::Run;
use crate::topic::NodeId;

/// Bytes that a key or argument takes beside its text.
const ITEM_BYTES: usize = 16;

/// The name of a script.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Name {
    // Changes of a hub: operations of a batch.
    Publish,
    PublishDirect,
    PublishOnce,
    Answer,
    Settle,
    Note,
    Checkpoint,
    Claim,
    Enter,
    Join,
    Leave,
    Release,
    Remove,
    Register,
    TakeOver,
    Seize,
    Park,
    Restate,
    UserJoin,
    Sweep,
    List,
    Unlist,
    Adopt,
    // Scripts that are called alone.
    Batch,
    MessageBatch,
    Renew,
    Extent,
    Read,
    Newest,
    Tails,
    Heartbeat,
    Reap,
    UserGroups,
    Parked,
    Census,
    Present,
    LookUp,
    Overdue,
    Turns,
}

const LOG: &str = include_str!("scripts/log.lua");
const BATCH: &str = include_str!("scripts/batch.lua");

/// The operations of batches. The first [`MESSAGES`] are frequent and have a script of their own.
const OPERATIONS: [(Name, &str, &str); 23] = [
    (Name::Publish, "publish", include_str!("scripts/publish.lua")),
    (
        Name::PublishDirect,
        "publish_direct",
        include_str!("scripts/publish_direct.lua"),
    ),
    (
        Name::PublishOnce,
        "publish_once",
        include_str!("scripts/publish_once.lua"),
    ),
    (Name::Answer, "answer", include_str!("scripts/answer.lua")),
    (Name::Settle, "settle", include_str!("scripts/settle.lua")),
    (Name::Note, "note", include_str!("scripts/note.lua")),
    (
        Name::Checkpoint,
        "checkpoint",
        include_str!("scripts/checkpoint.lua"),
    ),
    (Name::Claim, "claim", include_str!("scripts/claim.lua")),
    (Name::Enter, "enter", include_str!("scripts/enter.lua")),
    (Name::Join, "join", include_str!("scripts/join.lua")),
    (Name::Leave, "leave", include_str!("scripts/leave.lua")),
    (Name::Release, "release", include_str!("scripts/release.lua")),
    (Name::Remove, "remove", include_str!("scripts/remove.lua")),
    (Name::Register, "register", include_str!("scripts/register.lua")),
    (Name::TakeOver, "take_over", include_str!("scripts/take_over.lua")),
    (Name::Seize, "seize", include_str!("scripts/seize.lua")),
    (Name::Park, "park", include_str!("scripts/park.lua")),
    (Name::Restate, "restate", include_str!("scripts/restate.lua")),
    (Name::UserJoin, "user_join", include_str!("scripts/user_join.lua")),
    (Name::Sweep, "sweep", include_str!("scripts/sweep.lua")),
    (Name::List, "list", include_str!("scripts/list.lua")),
    (Name::Unlist, "unlist", include_str!("scripts/unlist.lua")),
    (Name::Adopt, "adopt", include_str!("scripts/adopt.lua")),
];
/// Number of [`OPERATIONS`] that the script for messages has.
const MESSAGES: usize = 7;

/// Scripts that are called alone.
const SINGLE: [(Name, &str); 14] = [
    (Name::Renew, include_str!("scripts/renew.lua")),
    (Name::Extent, include_str!("scripts/extent.lua")),
    (Name::Read, include_str!("scripts/read.lua")),
    (Name::Newest, include_str!("scripts/newest.lua")),
    (Name::Tails, include_str!("scripts/tails.lua")),
    (Name::Heartbeat, include_str!("scripts/heartbeat.lua")),
    (Name::Reap, include_str!("scripts/reap.lua")),
    (Name::Overdue, include_str!("scripts/overdue.lua")),
    (Name::UserGroups, include_str!("scripts/user_groups.lua")),
    (Name::Parked, include_str!("scripts/parked.lua")),
    (Name::Census, include_str!("scripts/census.lua")),
    (Name::Present, include_str!("scripts/present.lua")),
    (Name::LookUp, include_str!("scripts/lookup.lua")),
    (Name::Turns, include_str!("scripts/turns.lua")),
];

impl Name {
    /// The script's name among the operations of a batch; empty for a script that is called alone.
    fn operation(self) -> &'static str {
        let found = OPERATIONS.iter().find(|(name, ..)| *name == self);
        found.map_or("", |(_, operation, _)| operation)
    }

    /// Whether the script for messages has this operation.
    fn is_message(self) -> bool {
        OPERATIONS.iter().take(MESSAGES).any(|(name, ..)| *name == self)
    }
}

/// The scripts for one run of one server.
pub(super) struct Scripts {
    texts: Vec<(Name, String, String)>,
}

impl Scripts {
    pub(super) fn for_run(run: &Run, publish: &str) -> Self {
        let Run { id, mark } = run;
        let prelude =
            format!("local RUN_ID = '{id}'\nlocal MARK = '{mark}'\nlocal PUBLISH = '{publish}'\n{LOG}\n");
        let batch = |count: usize| {
            let mut text = String::from("local operations = {}\n");
            for (_, operation, body) in OPERATIONS.iter().take(count) {
                text.push_str(&format!(
                    "operations.{operation} = function(KEYS, ARGV)\n{body}\nend\n"
                ));
            }
            text.push_str(BATCH);
            text
        };
        let batches = [
            (Name::MessageBatch, batch(MESSAGES)),
            (Name::Batch, batch(OPERATIONS.len())),
        ];
        let singles = SINGLE.iter().map(|(name, text)| (*name, (*text).to_owned()));
        let texts = singles.chain(batches).map(|(name, text)| {
            let text = format!("{prelude}{text}");
            let hash = Script::new(&text).get_hash().to_owned();
            (name, text, hash)
        });
        Self {
            texts: texts.collect(),
        }
    }

    pub(super) async fn load(&self, connection: &mut MultiplexedConnection) -> RedisResult<()> {
        let mut pipeline = redis::pipe();
        for (_, text, _) in &self.texts {
            pipeline.cmd("SCRIPT").arg("LOAD").arg(text).ignore();
        }
        pipeline.exec_async(connection).await
    }

    fn hash(&self, name: Name) -> &str {
        let found = self.texts.iter().find(|(known, ..)| *known == name);
        found.map_or("", |(.., hash)| hash)
    }
}

/// The arguments of a batch beside its operations.
pub(super) struct BatchHead<'a> {
    /// The key of the hub's log.
    pub(super) log: &'a str,
    /// The key of the record of the node's last batch.
    pub(super) record: &'a str,
    pub(super) node: &'a NodeId,
    pub(super) number: u64,
    /// Most bytes that are kept of a topic, and of the hub; 0: no bound.
    pub(super) kept: (u64, u64),
    /// The log's epoch; empty where the node does not know it yet.
    pub(super) epoch: &'a str,
}

/// A call of a script that any run of the server can carry out.
#[derive(Debug)]
pub(super) struct Invocation {
    name: Name,
    keys: Vec<String>,
    arguments: Vec<Bytes>,
    /// About the time that the server takes, where 1 is the time of a simple change.
    cost: usize,
}

impl Invocation {
    pub(super) fn new(name: Name, keys: Vec<String>) -> Self {
        Self {
            name,
            keys,
            arguments: Vec::new(),
            cost: 1,
        }
    }

    /// Sets the cost: about as long as this many simple changes.
    pub(super) fn costing(mut self, cost: usize) -> Self {
        self.cost = cost;
        self
    }

    pub(super) fn cost(&self) -> usize {
        self.cost
    }

    pub(super) fn arg(mut self, argument: impl Into<Bytes>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    pub(super) fn number(self, number: u128) -> Self {
        self.arg(number.to_string())
    }

    /// The first key of the call: all of its keys live in the same slot.
    pub(super) fn key(&self) -> Option<&str> {
        self.keys.first().map(String::as_str)
    }

    /// The topic that the call appends a message to, if it does.
    pub(super) fn topic(&self) -> Option<&str> {
        let place = match self.name {
            Name::Publish | Name::PublishDirect | Name::PublishOnce => 1,
            Name::Answer => 4,
            _ => return None,
        };
        std::str::from_utf8(self.arguments.get(place)?).ok()
    }

    /// About the number of bytes that the call sends.
    pub(super) fn weight(&self) -> usize {
        let arguments = self.arguments.iter().map(|argument| argument.len() + ITEM_BYTES);
        let keys = self.keys.iter().map(|key| key.len() + ITEM_BYTES);
        arguments.sum::<usize>() + keys.sum::<usize>()
    }

    /// The command of a script that is called alone.
    pub(super) fn command(&self, scripts: &Scripts) -> Cmd {
        let mut command = redis::cmd("EVALSHA");
        command
            .arg(scripts.hash(self.name))
            .arg(self.keys.len())
            .arg(&self.keys);
        for argument in &self.arguments {
            command.arg(argument.as_ref());
        }
        command
    }

    /// The call of a batch, as `batch.lua` takes it: operations with their deadlines in the server's time, in
    /// milliseconds.
    pub(super) fn batch<'a>(
        scripts: &Scripts,
        head: &BatchHead<'_>,
        operations: impl Iterator<Item = (&'a Self, u64)> + Clone,
    ) -> Cmd {
        let messages = operations
            .clone()
            .all(|(operation, _)| operation.name.is_message());
        let script = if messages { Name::MessageBatch } else { Name::Batch };
        let keys: usize = operations
            .clone()
            .map(|(operation, _)| operation.keys.len())
            .sum();
        let mut command = redis::cmd("EVALSHA");
        command
            .arg(scripts.hash(script))
            .arg(keys + 2)
            .arg(head.log)
            .arg(head.record);
        for (operation, _) in operations.clone() {
            command.arg(&operation.keys);
        }
        command
            .arg(head.node.as_str())
            .arg(head.number)
            .arg(head.kept.0)
            .arg(head.kept.1)
            .arg(head.epoch);
        for (operation, deadline) in operations {
            command
                .arg(operation.name.operation())
                .arg(deadline)
                .arg(operation.keys.len())
                .arg(operation.arguments.len());
            for argument in &operation.arguments {
                command.arg(argument.as_ref());
            }
        }
        command
    }
}
