//! Typed calls of a hub's scripts.

use bytes::Bytes;
use prost::Message as _;
use redis::Value;

use crate::backplane::{ConnectionRecord, HubOptions};
use crate::error::BackplaneError;
use crate::position::{Epoch, Offset};
use crate::redis::feed::entry::Stored;
use crate::redis::keys::HubKeys;
use crate::redis::script::catalog::{Invocation, Name};
use crate::redis::script::entries::entry_arguments;
use crate::redis::script::writer::{Patience, Writer};
use crate::redis::server::commands::{Commands, Repeat};
use crate::redis::server::replies::{decode, items, malformed};
use crate::sessions::{State, Version};
use crate::topic::{ConnectionId, GroupName, NodeId, Topic, UserId};
use crate::wire::{self, membership::Change};

/// Topics that one call sweeps.
const SWEPT: u128 = 200;

/// An offset and its epoch, as a script returned them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::redis) struct Place {
    pub(in crate::redis) epoch: Epoch,
    pub(in crate::redis) offset: Offset,
}

/// The first and last offsets of a hub's log.
#[derive(Clone, Debug)]
pub(in crate::redis) struct Extent {
    pub(in crate::redis) epoch: Epoch,
    /// Offsets up to this one belong to older epochs.
    pub(in crate::redis) start: Offset,
    pub(in crate::redis) last: Offset,
    /// No topic without a tail has an entry above this offset.
    pub(in crate::redis) forgotten: Offset,
    /// Number of keys that the server has deleted to make room since it was started.
    pub(in crate::redis) evicted: u64,
}

/// A part of the log: entries of several topics.
pub(in crate::redis) struct TopicsRead {
    pub(in crate::redis) epoch: Epoch,
    pub(in crate::redis) last: Offset,
    pub(in crate::redis) forgotten: Offset,
    /// The offset up to which the entries of these topics are complete.
    pub(in crate::redis) reached: Offset,
    pub(in crate::redis) topics: Vec<TopicRead>,
}

/// One topic's entries in this part.
pub(in crate::redis) struct TopicRead {
    pub(in crate::redis) tail: Option<Offset>,
    /// The predecessor that the topic's first entry names, also where that comes after `reached`.
    pub(in crate::redis) first: Option<Offset>,
    pub(in crate::redis) entries: Vec<Stored>,
}

/// The scripts of one hub, as one node calls them.
pub(in crate::redis) struct HubScripts {
    pub(in crate::redis) keys: HubKeys,
    pub(in crate::redis) node: NodeId,
    pub(in crate::redis) options: HubOptions,
    pub(in crate::redis) writer: Writer,
    /// The presence argument of `announce`: empty where the hub has no presence messages.
    pub(in crate::redis) presence: String,
    /// The events argument of `append_event`: empty where the hub has no connection events.
    pub(in crate::redis) events: String,
}

/// A connection that has entered, as the server has it.
pub(in crate::redis) struct EnteredThere {
    /// The place where it begins to receive.
    pub(in crate::redis) place: Place,
    pub(in crate::redis) version: Version,
    /// The groups that its user's connections are to join.
    pub(in crate::redis) groups: Vec<GroupName>,
    /// The part that the ids of its events share, where the hub has connection events.
    pub(in crate::redis) event_base: Option<String>,
}

impl HubScripts {
    /// A claim of a connection whose id was generated in `epoch`.
    pub(in crate::redis) fn claim_call(
        &self,
        id: &ConnectionId,
        user: Option<&UserId>,
        epoch: &str,
    ) -> Invocation {
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

    /// Enters a connection that joins the groups `joined` and is listed in `first` of them. `None` where this node
    /// does not own it.
    pub(in crate::redis) async fn enter(
        &self,
        connection: &ConnectionRecord,
        joined: &[GroupName],
        first: &[GroupName],
        claim: bool,
    ) -> Result<Option<EnteredThere>, BackplaneError> {
        let (id, user) = (&connection.id, connection.user.as_ref());
        let topic = Topic::Connection(id.clone());
        let mut keys = self.log_keys(&topic.key());
        let user_name = user.map_or("", UserId::stored);
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
            .arg(self.presence.clone())
            .arg(self.events.clone())
            .arg(connection.event.payload.clone())
            .arg(connection.event.state.clone());
        let call = call.costing(1 + first.len());
        let call = first
            .iter()
            .fold(call, |call, group| call.arg(group.stored().to_owned()));
        let answer = self.writer.carry_out(call, Patience::Short).await?;
        if answer == Value::Nil {
            return Ok(None);
        }
        let (epoch, offset, version, groups, event_base): (String, _, _, Vec<String>, _) = decode(answer)?;
        Ok(Some(EnteredThere {
            place: place(&epoch, offset),
            version: Version(version),
            groups: group_names(&groups),
            event_base,
        }))
    }

    /// Changes a membership. Returns its place in the log; `None` where this node does not own the connection or, with
    /// `parked`, the connection is not parked.
    pub(in crate::redis) async fn change_group(
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
        let of_group = format!("{}{}", self.keys.group_prefix(), group.stored());
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
            .arg(group.stored().to_owned())
            .arg(self.membership(id, change, std::slice::from_ref(&topic), true));
        let call = self
            .membership_arguments(call, id, change, &[topic])
            .arg(self.presence.clone());
        let changed: Option<(String, Offset)> = decode(self.writer.carry_out(call, Patience::Long).await?)?;
        Ok(changed.map(|(epoch, offset)| place(&epoch, offset)))
    }

    pub(in crate::redis) async fn extent(&self, commands: &Commands) -> Result<Extent, BackplaneError> {
        let call = Invocation::new(Name::Extent, vec![self.keys.log()]).number(self.options.tail_life_ms());
        let (epoch, start, last, forgotten, evicted): (String, _, _, _, _) =
            decode(commands.script(&call, Repeat::Safe).await?)?;
        Ok(Extent {
            epoch: Epoch::new(&epoch),
            start,
            last,
            forgotten,
            evicted,
        })
    }

    /// The newest offset of each topic, as far as it is known, and the offset above which no other topic has an entry.
    pub(in crate::redis) async fn tails(
        &self,
        commands: &Commands,
        topics: &[Topic],
    ) -> Result<(Offset, Vec<Option<Offset>>), BackplaneError> {
        let tails = topics.iter().map(|topic| self.keys.tail(&topic.key()));
        let keys = std::iter::once(self.keys.log()).chain(tails).collect();
        let call = Invocation::new(Name::Tails, keys).number(self.options.tail_life_ms());
        let mut answer = items(commands.script(&call, Repeat::Safe).await?)?.into_iter();
        let forgotten = decode(answer.next().unwrap_or(Value::Nil))?;
        let tails: Vec<Option<Offset>> = answer.map(decode).collect::<Result<_, _>>()?;
        if tails.len() == topics.len() {
            Ok((forgotten, tails))
        } else {
            Err(malformed("another number of tails"))
        }
    }

    /// Forgets slices and events that are too old or too much. Returns how many slices of the log wait to be swept, and
    /// how many events were dropped unfinished.
    pub(in crate::redis) async fn sweep(&self) -> Result<(u64, u64), BackplaneError> {
        let call = Invocation::new(Name::Sweep, vec![self.keys.log()])
            .number(self.options.life_ms())
            .number(SWEPT)
            .number(self.options.tail_life_ms());
        let call = match &self.options.events {
            Some(events) => call
                .arg(self.keys.events())
                .number(events.life.as_millis().max(1)),
            None => call.arg("").arg(""),
        };
        decode(self.writer.carry_out(call, Patience::Short).await?)
    }

    /// A call that reads topics, each after the offset beside it, up to `upto`: about `share` bytes of each.
    pub(in crate::redis) fn read_call(
        &self,
        topics: &[(Topic, Offset)],
        upto: Offset,
        share: usize,
    ) -> Invocation {
        let keys = topics.iter().flat_map(|(topic, _)| {
            let key = topic.key();
            [self.keys.tail(&key), self.keys.stream(&key)]
        });
        let keys = std::iter::once(self.keys.log()).chain(keys).collect();
        let upto = if upto == Offset::MAX {
            "+".to_owned()
        } else {
            upto.to_string()
        };
        let call = Invocation::new(Name::Read, keys)
            .arg(upto)
            .number(share as u128)
            .number(self.options.tail_life_ms());
        topics
            .iter()
            .fold(call, |call, (_, after)| call.number((*after).into()))
    }

    /// Reads the answer to [`read_call`](Self::read_call).
    pub(in crate::redis) fn read(
        &self,
        topics: &[(Topic, Offset)],
        answer: Value,
    ) -> Result<TopicsRead, BackplaneError> {
        let mut answer = items(answer)?.into_iter();
        let mut next = || answer.next().ok_or_else(|| malformed("a read of another length"));
        let mut read = TopicsRead {
            epoch: Epoch::new(&decode::<String>(next()?)?),
            last: decode(next()?)?,
            forgotten: decode(next()?)?,
            reached: decode(next()?)?,
            topics: Vec::with_capacity(topics.len()),
        };
        for (topic, _) in topics {
            read.topics.push(TopicRead {
                tail: Some(decode(next()?)?).filter(|tail| *tail > 0),
                first: decode(next()?)?,
                entries: Stored::read_all(topic, next()?)?,
            });
        }
        Ok(read)
    }

    pub(in crate::redis) fn own(&self, name: Name, keys: Vec<String>, id: &ConnectionId) -> Invocation {
        Invocation::new(name, keys)
            .arg(self.node.to_string())
            .arg(id.to_string())
    }

    pub(in crate::redis) fn log_keys(&self, topic: &str) -> Vec<String> {
        self.keys.of_log(topic)
    }

    pub(in crate::redis) fn membership_arguments(
        &self,
        call: Invocation,
        id: &ConnectionId,
        change: Change,
        topics: &[Topic],
    ) -> Invocation {
        let call = call
            .arg(self.keys.lane_channel(&self.node))
            .arg(Topic::Connection(id.clone()).key());
        let entry = self.membership(id, change, topics, false);
        entry_arguments(&self.options, call, entry, self.options.kept())
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
}

/// A state as an argument, with a mark: an empty state differs from none.
fn marked(state: &State) -> Bytes {
    [b"s", state.as_ref()].concat().into()
}

/// Reads group names from the server, and leaves reserved ones out.
pub(in crate::redis) fn group_names(names: &[String]) -> Vec<GroupName> {
    let groups = names.iter().filter_map(|name| GroupName::from_stored(name).ok());
    groups.filter(|group| !group.is_reserved()).collect()
}

pub(in crate::redis) fn user_text(user: Option<&UserId>) -> String {
    user.map(|user| user.stored().to_owned()).unwrap_or_default()
}

/// A version as an argument; empty where the node does not know it.
pub(in crate::redis) fn version_text(version: Option<Version>) -> String {
    version.map(|version| version.0.to_string()).unwrap_or_default()
}

pub(in crate::redis) fn place(epoch: &str, offset: Offset) -> Place {
    Place {
        epoch: Epoch::new(epoch),
        offset,
    }
}
