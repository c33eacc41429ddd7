//! The scripts that run in the server, and calls of them with their types.

use bytes::Bytes;
use prost::Message as _;
use redis::aio::MultiplexedConnection;
use redis::{Cmd, RedisResult, Script, Value};

use super::commands::{Commands, Repeat};
use super::entry::Stored;
use super::keys::HubKeys;
use super::link::{decode, items, malformed};
use super::run::Run;
use super::writer::{Patience, Writer};
use crate::backplane::{ConnectionRecord, HubOptions};
use crate::error::BackplaneError;
use crate::position::{Epoch, Offset};
use crate::sessions::{State, Version};
use crate::topic::{ConnectionId, GroupName, NodeId, Topic, UserId};
use crate::wire::{self, membership::Change};

/// Topics that one call looks at for entries that are forgotten.
const SWEPT: u128 = 200;
/// Bytes that a key or argument takes beside its own.
const ITEM_BYTES: usize = 16;

/// A script by name.
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
    // Called by themselves.
    Batch,
    MessageBatch,
    Renew,
    Extent,
    Read,
    Window,
    Tails,
    Heartbeat,
    Reap,
    UserGroups,
    Parked,
    Census,
    Present,
    LookUp,
    Overdue,
}

const LOG: &str = include_str!("scripts/log.lua");
const BATCH: &str = include_str!("scripts/batch.lua");

/// The operations of batches: messages and what goes with them first, which have a script of their own, because they are many.
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
/// How many of [`OPERATIONS`] the script for messages has.
const MESSAGES: usize = 7;

/// Scripts that are called by themselves.
const SINGLE: [(Name, &str); 13] = [
    (Name::Renew, include_str!("scripts/renew.lua")),
    (Name::Extent, include_str!("scripts/extent.lua")),
    (Name::Read, include_str!("scripts/read.lua")),
    (Name::Window, include_str!("scripts/window.lua")),
    (Name::Tails, include_str!("scripts/tails.lua")),
    (Name::Heartbeat, include_str!("scripts/heartbeat.lua")),
    (Name::Reap, include_str!("scripts/reap.lua")),
    (Name::Overdue, include_str!("scripts/overdue.lua")),
    (Name::UserGroups, include_str!("scripts/user_groups.lua")),
    (Name::Parked, include_str!("scripts/parked.lua")),
    (Name::Census, include_str!("scripts/census.lua")),
    (Name::Present, include_str!("scripts/present.lua")),
    (Name::LookUp, include_str!("scripts/lookup.lua")),
];

impl Name {
    /// Its name among the operations of a batch; nothing for a script that is called by itself.
    fn operation(self) -> &'static str {
        let found = OPERATIONS.iter().find(|(name, ..)| *name == self);
        found.map_or("", |(_, operation, _)| operation)
    }

    /// Whether the script for messages has it.
    fn is_message(self) -> bool {
        OPERATIONS.iter().take(MESSAGES).any(|(name, ..)| *name == self)
    }
}

/// The scripts as they are called on one run of one server.
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

/// How many bytes of the log are kept; 0: no bound.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct KeptBytes {
    pub(super) topic: u64,
    pub(super) hub: u64,
}

/// A call of a script, before it is known which run of the server will carry it out.
#[derive(Debug)]
pub(super) struct Invocation {
    name: Name,
    keys: Vec<String>,
    arguments: Vec<Bytes>,
    /// About how long the server takes for it, where 1 is the time of a simple change.
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

    /// Says that it takes the server about as long as this many simple changes.
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

    /// One of its keys: all of them live in the same slot.
    pub(super) fn key(&self) -> Option<&str> {
        self.keys.first().map(String::as_str)
    }

    /// The topic that it appends a message to, if it does.
    pub(super) fn topic(&self) -> Option<&str> {
        let place = match self.name {
            Name::Publish | Name::PublishDirect | Name::PublishOnce => 1,
            Name::Answer => 4,
            _ => return None,
        };
        std::str::from_utf8(self.arguments.get(place)?).ok()
    }

    /// About how many bytes it sends.
    pub(super) fn weight(&self) -> usize {
        let arguments = self.arguments.iter().map(|argument| argument.len() + ITEM_BYTES);
        let keys = self.keys.iter().map(|key| key.len() + ITEM_BYTES);
        arguments.sum::<usize>() + keys.sum::<usize>()
    }

    /// Of a script that is called by itself.
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

    /// The call of a batch, as `batch.lua` has it: operations with their deadlines in the server's time, in milliseconds.
    pub(super) fn batch<'a>(
        scripts: &Scripts,
        (log, record): (&str, &str),
        node: &NodeId,
        number: u64,
        kept: KeptBytes,
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
            .arg(log)
            .arg(record);
        for (operation, _) in operations.clone() {
            command.arg(&operation.keys);
        }
        command
            .arg(node.as_str())
            .arg(number)
            .arg(kept.topic)
            .arg(kept.hub);
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

/// A place that a script gave out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) epoch: Epoch,
    pub(super) offset: Offset,
}

/// How far a hub's log reaches.
#[derive(Clone, Debug)]
pub(super) struct Extent {
    pub(super) epoch: Epoch,
    /// Offsets up to this one belong to older epochs.
    pub(super) start: Offset,
    pub(super) last: Offset,
    /// No topic without a tail has an entry above this.
    pub(super) forgotten: Offset,
}

/// What one topic's log holds.
pub(super) struct TopicRead {
    pub(super) epoch: Epoch,
    pub(super) last: Offset,
    pub(super) forgotten: Offset,
    pub(super) tail: Option<Offset>,
    pub(super) entries: Vec<Stored>,
}

/// The scripts of one hub, as one node calls them.
pub(super) struct HubScripts {
    pub(super) keys: HubKeys,
    pub(super) node: NodeId,
    pub(super) options: HubOptions,
    pub(super) writer: Writer,
    /// What `announce` takes: nothing where the hub does not tell of who comes and goes.
    pub(super) presence: String,
}

impl HubScripts {
    /// A claim of a connection whose id was made up in `epoch`.
    pub(super) fn claim_call(&self, id: &ConnectionId, user: Option<&UserId>, epoch: &str) -> Invocation {
        let keys = vec![
            self.keys.log(),
            self.keys.connection(id),
            self.keys.node(&self.node),
            self.keys.closed(id),
        ];
        self.own(Name::Claim, keys, id)
            .arg(user_text(user))
            .arg(epoch.to_owned())
    }

    /// Where the connection begins to receive, as a member of `joined` too, and its user's groups; nothing where this node
    /// does not own it. It is listed in `first` of them.
    pub(super) async fn enter(
        &self,
        connection: &ConnectionRecord,
        joined: &[GroupName],
        first: &[GroupName],
        claim: bool,
    ) -> Result<Option<(Place, Version, Vec<GroupName>)>, BackplaneError> {
        let (id, user) = (&connection.id, connection.user.as_ref());
        let topic = Topic::Connection(id.clone());
        let mut keys = self.log_keys(&topic.key());
        let user_name = user.map_or("", UserId::as_str);
        let of_user = format!("{}{user_name}", self.keys.user_prefix());
        keys.extend([
            self.keys.connection(id),
            self.keys.node(&self.node),
            self.keys.closed(id),
            of_user,
            self.keys.user_groups(user_name),
            self.keys.groups(id),
            self.keys.group_names(),
        ]);
        let topics: Vec<_> = std::iter::once(Topic::All)
            .chain(user.cloned().map(Topic::User))
            .chain(joined.iter().cloned().map(Topic::Group))
            .chain([topic])
            .collect();
        let call = self
            .own(Name::Enter, keys, id)
            .arg(user_text(user))
            .arg(if claim { "1" } else { "0" })
            .arg(connection.state.as_ref().map(marked).unwrap_or_default());
        let call = self
            .membership_arguments(call, id, Change::Joined, &topics)
            .arg(self.keys.group_prefix())
            .arg(self.presence.clone());
        let call = call.costing(1 + first.len());
        let call = first.iter().fold(call, |call, group| call.arg(group.to_string()));
        let entered: Option<(String, Offset, u64, Vec<String>)> =
            decode(self.writer.carry_out(call, Patience::Short).await?)?;
        Ok(entered.map(|(epoch, offset, version, groups)| {
            (place(&epoch, offset), Version(version), group_names(&groups))
        }))
    }

    /// Where the connection becomes, or ceases to be, a member; nothing where this node does not own it. With `parked`:
    /// where nobody does.
    pub(super) async fn change_group(
        &self,
        id: &ConnectionId,
        group: &GroupName,
        change: Change,
        parked: bool,
    ) -> Result<Option<Place>, BackplaneError> {
        let name = if change == Change::Joined {
            Name::Join
        } else {
            Name::Leave
        };
        let mut keys = self.log_keys(&Topic::Connection(id.clone()).key());
        let of_group = format!("{}{group}", self.keys.group_prefix());
        keys.extend([
            self.keys.connection(id),
            self.keys.groups(id),
            of_group,
            self.keys.group_names(),
        ]);
        let owner = if parked { "" } else { self.node.as_str() };
        let topic = Topic::Group(group.clone());
        let call = Invocation::new(name, keys)
            .arg(owner.to_owned())
            .arg(id.to_string())
            .arg(group.to_string())
            .arg(self.membership(id, change, std::slice::from_ref(&topic), true));
        let call = self
            .membership_arguments(call, id, change, &[topic])
            .arg(self.presence.clone());
        let changed: Option<(String, Offset)> = decode(self.writer.carry_out(call, Patience::Long).await?)?;
        Ok(changed.map(|(epoch, offset)| place(&epoch, offset)))
    }

    pub(super) async fn extent(&self, commands: &Commands) -> Result<Extent, BackplaneError> {
        let call = Invocation::new(Name::Extent, vec![self.keys.log()]).number(self.tail_life_ms());
        let (epoch, start, last, forgotten): (String, _, _, _) =
            decode(commands.script(&call, Repeat::Safe).await?)?;
        Ok(Extent {
            epoch: Epoch::new(&epoch),
            start,
            last,
            forgotten,
        })
    }

    /// The newest offset of each topic, as far as it is known, and the offset above which no other topic has an entry.
    pub(super) async fn tails(
        &self,
        commands: &Commands,
        topics: &[Topic],
    ) -> Result<(Offset, Vec<Option<Offset>>), BackplaneError> {
        let tails = topics.iter().map(|topic| self.keys.tail(&topic.key()));
        let keys = std::iter::once(self.keys.log()).chain(tails).collect();
        let call = Invocation::new(Name::Tails, keys).number(self.tail_life_ms());
        let mut answer = items(commands.script(&call, Repeat::Safe).await?)?.into_iter();
        let forgotten = decode(answer.next().unwrap_or(Value::Nil))?;
        let tails: Vec<Option<Offset>> = answer.map(decode).collect::<Result<_, _>>()?;
        if tails.len() == topics.len() {
            Ok((forgotten, tails))
        } else {
            Err(malformed("another number of tails"))
        }
    }

    /// Forgets what is too old or too much. Returns how many slices of the log wait to be swept.
    pub(super) async fn sweep(&self) -> Result<u64, BackplaneError> {
        let call = Invocation::new(Name::Sweep, vec![self.keys.log()])
            .number(self.options.retention.as_millis().max(1))
            .number(SWEPT);
        decode(self.writer.carry_out(call, Patience::Short).await?)
    }

    /// Reads up to `limit` entries of a topic that come after `after`.
    pub(super) async fn read(
        &self,
        commands: &Commands,
        topic: &Topic,
        after: Offset,
        limit: usize,
    ) -> Result<TopicRead, BackplaneError> {
        let key = topic.key();
        let keys = vec![self.keys.log(), self.keys.tail(&key), self.keys.stream(&key)];
        let call = Invocation::new(Name::Read, keys)
            .number(u128::from(after) + 1)
            .number(limit as u128)
            .number(self.tail_life_ms());
        let answer = items(commands.script(&call, Repeat::Safe).await?)?;
        let Ok([epoch, last, forgotten, tail, entries]) = <[Value; 5]>::try_from(answer) else {
            return Err(malformed("a read of another length"));
        };
        Ok(TopicRead {
            epoch: Epoch::new(&decode::<String>(epoch)?),
            last: decode(last)?,
            forgotten: decode(forgotten)?,
            tail: Some(decode(tail)?).filter(|tail| *tail > 0),
            entries: Stored::read_all(topic, entries)?,
        })
    }

    /// Reads what `topics` have from `from` to `to`, in the order of offsets, with the epoch that it is of.
    pub(super) async fn window(
        &self,
        commands: &Commands,
        topics: &[Topic],
        from: Offset,
        to: Offset,
    ) -> Result<(Epoch, Vec<Stored>), BackplaneError> {
        let streams = topics.iter().map(|topic| self.keys.stream(&topic.key()));
        let keys = std::iter::once(self.keys.log()).chain(streams).collect();
        let call = Invocation::new(Name::Window, keys)
            .number(from.into())
            .number(to.into());
        let mut answer = items(commands.script(&call, Repeat::Safe).await?)?.into_iter();
        let epoch: String = decode(answer.next().unwrap_or(Value::Nil))?;
        let mut entries = Vec::new();
        for (topic, found) in topics.iter().zip(answer) {
            entries.append(&mut Stored::read_all(topic, found)?);
        }
        entries.sort_by_key(|entry| entry.offset);
        Ok((Epoch::new(&epoch), entries))
    }

    pub(super) fn own(&self, name: Name, keys: Vec<String>, id: &ConnectionId) -> Invocation {
        Invocation::new(name, keys)
            .arg(self.node.to_string())
            .arg(id.to_string())
    }

    pub(super) fn log_keys(&self, topic: &str) -> Vec<String> {
        vec![self.keys.log(), self.keys.stream(topic), self.keys.tail(topic)]
    }

    pub(super) fn membership_arguments(
        &self,
        call: Invocation,
        id: &ConnectionId,
        change: Change,
        topics: &[Topic],
    ) -> Invocation {
        let call = call
            .arg(self.keys.lane_channel(&self.node))
            .arg(Topic::Connection(id.clone()).key());
        self.entry_arguments(call, self.membership(id, change, topics, false), self.kept())
    }

    fn membership(&self, id: &ConnectionId, change: Change, topics: &[Topic], redundant: bool) -> Bytes {
        let membership = wire::Membership {
            connection: id.to_string(),
            change: change.into(),
            topics: topics.iter().map(Topic::key).collect(),
            owner: self.node.to_string(),
            redundant,
        };
        let entry = wire::Entry {
            body: Some(wire::entry::Body::Membership(membership)),
        };
        entry.encode_to_vec().into()
    }

    /// Most entries that are kept of a topic.
    pub(super) fn kept(&self) -> u128 {
        self.options.retention_messages.max(1) as u128
    }

    pub(super) fn entry_arguments(&self, call: Invocation, entry: Bytes, kept: u128) -> Invocation {
        call.arg(entry)
            .number(kept)
            .number(self.options.retention.as_millis().max(1))
            .number(self.tail_life_ms())
    }

    /// A topic's newest offset is remembered for an hour at least, so that late readers are refused for a reason.
    pub(super) fn tail_life_ms(&self) -> u128 {
        (self.options.retention.as_millis() * 4).max(3_600_000)
    }
}

/// A state as an argument: it may be empty, and no state is something else.
fn marked(state: &State) -> Bytes {
    [b"s", state.as_ref()].concat().into()
}

/// Groups as the server names them, without reserved ones.
pub(super) fn group_names(names: &[String]) -> Vec<GroupName> {
    names
        .iter()
        .filter_map(|name| GroupName::parse(name).ok())
        .collect()
}

pub(super) fn user_text(user: Option<&UserId>) -> String {
    user.map(ToString::to_string).unwrap_or_default()
}

pub(super) fn place(epoch: &str, offset: Offset) -> Place {
    Place {
        epoch: Epoch::new(epoch),
        offset,
    }
}
