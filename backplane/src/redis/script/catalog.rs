//! The scripts that run in the server, and calls of them: alone, or as operations of a batch.

use std::sync::OnceLock;

use bytes::Bytes;
use redis::aio::MultiplexedConnection;
use redis::{Cmd, RedisResult, Script};

use crate::backplane::{AWAITED_PER_SECOND, HubOptions};
use crate::redis::script::headers::Header;
use crate::redis::server::run::Run;
use crate::topic::NodeId;

/// Bytes that a key or argument takes beside its text.
const ITEM_BYTES: usize = 16;
/// About the bytes of a batch beside its operations, and of an operation beside its keys and arguments.
const BATCH_BYTES: usize = 300;
const HEAD_BYTES: usize = 40;

/// The name of a script.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::redis) enum Name {
    // Changes of a hub: operations of a batch.
    Publish,
    PublishDirect,
    PublishOnce,
    Reply,
    Finish,
    Record,
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
    RestateEvents,
    // Scripts that are called alone.
    Batch,
    MessageBatch,
    PublishBatch,
    Renew,
    Extent,
    Read,
    Newest,
    Tails,
    Heartbeat,
    Reap,
    UserGroups,
    Parked,
    ConnectionStatistics,
    Present,
    LookUp,
    Overdue,
    Turns,
    ReadEvents,
    FinishEvents,
    EventsOf,
    ClaimEvents,
    PendingEvents,
    FollowEvents,
}

const LOG: &str = include_str!("lua/log.lua");
const APPEND: &str = include_str!("lua/append.lua");
const READING: &str = include_str!("lua/reading.lua");
const DIRECTORY: &str = include_str!("lua/directory.lua");
const EVENTS: &str = include_str!("lua/events.lua");
const BATCH: &str = include_str!("lua/batch.lua");

/// The operations of batches. The first [`PUBLISHING`] of them, and the first [`MESSAGES`], are frequent and have
/// scripts of their own, which the server runs faster.
const OPERATIONS: [(Name, &str, &str); 24] = [
    (Name::Publish, "publish", include_str!("lua/publish.lua")),
    (
        Name::PublishDirect,
        "publish_direct",
        include_str!("lua/publish_direct.lua"),
    ),
    (
        Name::PublishOnce,
        "publish_once",
        include_str!("lua/publish_once.lua"),
    ),
    (Name::Reply, "reply", include_str!("lua/reply.lua")),
    (Name::Finish, "finish", include_str!("lua/finish.lua")),
    (Name::Record, "record", include_str!("lua/record.lua")),
    (Name::Checkpoint, "checkpoint", include_str!("lua/checkpoint.lua")),
    (Name::Claim, "claim", include_str!("lua/claim.lua")),
    (Name::Enter, "enter", include_str!("lua/enter.lua")),
    (Name::Join, "join", include_str!("lua/join.lua")),
    (Name::Leave, "leave", include_str!("lua/leave.lua")),
    (Name::Release, "release", include_str!("lua/release.lua")),
    (Name::Remove, "remove", include_str!("lua/remove.lua")),
    (Name::Register, "register", include_str!("lua/register.lua")),
    (Name::TakeOver, "take_over", include_str!("lua/take_over.lua")),
    (Name::Seize, "seize", include_str!("lua/seize.lua")),
    (Name::Park, "park", include_str!("lua/park.lua")),
    (Name::Restate, "restate", include_str!("lua/restate.lua")),
    (Name::UserJoin, "user_join", include_str!("lua/user_join.lua")),
    (Name::Sweep, "sweep", include_str!("lua/sweep.lua")),
    (Name::List, "list", include_str!("lua/list.lua")),
    (Name::Unlist, "unlist", include_str!("lua/unlist.lua")),
    (Name::Adopt, "adopt", include_str!("lua/adopt.lua")),
    (
        Name::RestateEvents,
        "restate_events",
        include_str!("lua/restate_events.lua"),
    ),
];
/// Number of [`OPERATIONS`] that only publish: they begin with a write that a server without memory refuses.
const PUBLISHING: usize = 3;
/// Number of [`OPERATIONS`] that the script for messages has.
const MESSAGES: usize = 7;

/// Scripts that are called alone: name, the files before it, text.
const SINGLE: [(Name, &[&str], &str); 20] = [
    (Name::Renew, &[LOG], include_str!("lua/renew.lua")),
    (Name::Extent, &[LOG, READING], include_str!("lua/extent.lua")),
    (Name::Read, &[LOG, READING], include_str!("lua/read.lua")),
    (Name::Newest, &[LOG], include_str!("lua/newest.lua")),
    (Name::Tails, &[LOG, READING], include_str!("lua/tails.lua")),
    (Name::Heartbeat, &[LOG], include_str!("lua/heartbeat.lua")),
    (Name::Reap, &[LOG], include_str!("lua/reap.lua")),
    (Name::Overdue, &[LOG], include_str!("lua/overdue.lua")),
    (Name::UserGroups, &[LOG], include_str!("lua/user_groups.lua")),
    (Name::Parked, &[], include_str!("lua/parked.lua")),
    (
        Name::ConnectionStatistics,
        &[],
        include_str!("lua/connection_statistics.lua"),
    ),
    (Name::Present, &[], include_str!("lua/present.lua")),
    (Name::LookUp, &[LOG, READING], include_str!("lua/lookup.lua")),
    (Name::Turns, &[], include_str!("lua/turns.lua")),
    (Name::ReadEvents, &[], include_str!("lua/read_events.lua")),
    (Name::FinishEvents, &[], include_str!("lua/finish_events.lua")),
    (Name::EventsOf, &[], include_str!("lua/events_of.lua")),
    (Name::ClaimEvents, &[], include_str!("lua/claim_events.lua")),
    (
        Name::PendingEvents,
        &[LOG],
        include_str!("lua/pending_events.lua"),
    ),
    (Name::FollowEvents, &[], include_str!("lua/follow_events.lua")),
];

/// All scripts but the batches, with their texts.
pub(in crate::redis) fn scripts() -> impl Iterator<Item = (Name, &'static str)> {
    let operations = OPERATIONS.iter().map(|(name, _, text)| (*name, *text));
    operations.chain(SINGLE.iter().map(|(name, _, text)| (*name, *text)))
}

impl Name {
    /// The script's name among the operations of a batch; empty for a script that is called alone.
    fn operation(self) -> &'static str {
        let found = OPERATIONS.iter().find(|(name, ..)| *name == self);
        found.map_or("", |(_, operation, _)| operation)
    }

    /// The place among the [`OPERATIONS`].
    fn place(self) -> usize {
        let place = OPERATIONS.iter().position(|(name, ..)| *name == self);
        place.unwrap_or(OPERATIONS.len())
    }
}

/// The scripts for one run of one server.
pub(in crate::redis) struct Scripts {
    texts: Vec<(Name, String, String)>,
}

impl Scripts {
    pub(in crate::redis) fn for_run(run: &Run, publish: &str) -> Self {
        let Run { id, mark } = run;
        let prelude = format!(
            "local RUN_ID = '{id}'\nlocal MARK = '{mark}'\nlocal PUBLISH = '{publish}'\n\
                 local AWAITED = {AWAITED_PER_SECOND}\nlocal DELIVERY = 'hubcast'\n"
        );
        let batch = |count: usize| {
            let mut text = [LOG, APPEND].concat();
            if count > MESSAGES {
                text.extend([READING, DIRECTORY, EVENTS]);
            }
            let mixed = count > PUBLISHING;
            text.push_str(&format!("local MIXED = {mixed}\nlocal operations = {{}}\n"));
            for (_, operation, body) in OPERATIONS.iter().take(count) {
                text.push_str(&format!(
                    "operations.{operation} = function(KEYS, ARGV)\n{body}\nend\n"
                ));
            }
            text.push_str(BATCH);
            text
        };
        let batches = [
            (Name::PublishBatch, batch(PUBLISHING)),
            (Name::MessageBatch, batch(MESSAGES)),
            (Name::Batch, batch(OPERATIONS.len())),
        ];
        let singles = SINGLE
            .iter()
            .map(|(name, parts, text)| (*name, parts.concat() + text));
        let texts = singles.chain(batches).map(|(name, text)| {
            let text = format!("{prelude}{text}");
            let hash = Script::new(&text).get_hash().to_owned();
            (name, text, hash)
        });
        Self {
            texts: texts.collect(),
        }
    }

    pub(in crate::redis) async fn load(&self, connection: &mut MultiplexedConnection) -> RedisResult<()> {
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
pub(in crate::redis) struct BatchHead<'a> {
    /// The key of the hub's log.
    pub(in crate::redis) log: &'a str,
    pub(in crate::redis) node: &'a NodeId,
    pub(in crate::redis) number: u64,
    /// The log's epoch; empty where the node does not know it yet.
    pub(in crate::redis) epoch: &'a str,
    /// The options of the hub, where the node serves it.
    pub(in crate::redis) options: Option<&'a HubOptions>,
}

/// A call of a script that any run of the server can carry out.
#[derive(Debug)]
pub(in crate::redis) struct Invocation {
    name: Name,
    keys: Vec<String>,
    arguments: Vec<Bytes>,
    /// About the time that the server takes, where 1 is the time of a simple change.
    cost: usize,
}

impl Invocation {
    pub(in crate::redis) fn new(name: Name, keys: Vec<String>) -> Self {
        Self {
            name,
            keys,
            arguments: Vec::new(),
            cost: 1,
        }
    }

    /// Sets the cost: about as long as this many simple changes.
    pub(in crate::redis) fn costing(mut self, cost: usize) -> Self {
        self.cost = cost;
        self
    }

    pub(in crate::redis) fn cost(&self) -> usize {
        self.cost
    }

    pub(in crate::redis) fn arg(mut self, argument: impl Into<Bytes>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    pub(in crate::redis) fn number(self, number: u128) -> Self {
        self.arg(number.to_string())
    }

    /// The first key of the call: all of its keys live in the same slot.
    pub(in crate::redis) fn key(&self) -> Option<&str> {
        self.keys.first().map(String::as_str)
    }

    /// The topic that the call appends a message to, if it does.
    pub(in crate::redis) fn topic(&self) -> Option<&str> {
        let place = match self.name {
            Name::Publish | Name::PublishDirect | Name::PublishOnce => 0,
            Name::Reply => 4,
            _ => return None,
        };
        std::str::from_utf8(self.arguments.get(place)?).ok()
    }

    /// About the number of bytes that the call sends.
    pub(in crate::redis) fn weight(&self) -> usize {
        let arguments = self.arguments.iter().map(|argument| argument.len() + ITEM_BYTES);
        let keys = self.keys.iter().map(|key| key.len() + ITEM_BYTES);
        arguments.sum::<usize>() + keys.sum::<usize>()
    }

    /// Whether the call has no more keys and arguments than the script's comment numbers.
    fn fits(&self) -> bool {
        static HEADERS: OnceLock<Vec<(Name, Header)>> = OnceLock::new();
        let headers =
            HEADERS.get_or_init(|| scripts().map(|(name, text)| (name, Header::read(text))).collect());
        let header = headers.iter().find(|(name, _)| *name == self.name);
        header.is_some_and(|(_, header)| header.fits(self.keys.len(), self.arguments.len()))
    }

    /// The command of a script that is called alone.
    pub(in crate::redis) fn command(&self, scripts: &Scripts) -> Cmd {
        debug_assert!(self.fits(), "{self:?}");
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
    pub(in crate::redis) fn batch<'a>(
        scripts: &Scripts,
        head: &BatchHead<'_>,
        operations: impl Iterator<Item = (&'a Self, u64)> + Clone,
    ) -> Cmd {
        let places = operations.clone().map(|(operation, _)| operation.name.place());
        let script = match places.max() {
            Some(last) if last < PUBLISHING => Name::PublishBatch,
            Some(last) if last < MESSAGES => Name::MessageBatch,
            _ => Name::Batch,
        };
        let (mut keys, mut arguments, mut bytes) = (0, 0, 0);
        for (operation, _) in operations.clone() {
            debug_assert!(operation.fits(), "{operation:?}");
            keys += operation.keys.len();
            arguments += operation.arguments.len() + 4;
            bytes += operation.weight() + HEAD_BYTES;
        }
        let mut command = Cmd::with_capacity(keys + arguments + 12, bytes + BATCH_BYTES);
        command
            .arg("EVALSHA")
            .arg(scripts.hash(script))
            .arg(keys + 1)
            .arg(head.log);
        for (operation, _) in operations.clone() {
            command.arg(&operation.keys);
        }
        command.arg(head.node.as_str()).arg(head.number).arg(head.epoch);
        match head.options {
            Some(options) => command
                .arg(options.retention_topic_bytes)
                .arg(options.retention_bytes)
                .arg(options.kept_messages())
                .arg(options.life_ms())
                .arg(options.tail_life_ms()),
            None => command.arg(0).arg(0).arg(0).arg(0).arg(0), // nothing is published
        };
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
