//! Typed calls of a hub's scripts.

use bytes::Bytes;
use prost::Message as _;
use redis::Value;

use crate::backplane::{ConnectionRecord, HubOptions};
use crate::error::BackplaneError;
use crate::position::{Epoch, Offset};
use crate::redis::feed::entry::Stored;
use crate::redis::keys::HubKeys;
use crate::redis::script::arguments::Marked;
use crate::redis::script::calls::connections::Enter;
use crate::redis::script::calls::groups::{Join, Leave};
use crate::redis::script::calls::log::{Read, ReadExtent, ReadTails, Sweep};
use crate::redis::script::invocation::Invocation;
use crate::redis::script::settings::{EventSettings, PresenceSettings};
use crate::redis::script::writer::{Patience, Writer};
use crate::redis::server::commands::{Commands, Repeat};
use crate::redis::server::replies::{decode, items, malformed};
use crate::sessions::Version;
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
    /// `None` where the hub has no presence messages.
    pub(in crate::redis) presence: Option<PresenceSettings>,
    /// `None` where the hub has no connection events.
    pub(in crate::redis) events: Option<EventSettings>,
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
        let topics: Vec<_> = std::iter::once(Topic::All)
            .chain(user.cloned().map(Topic::User))
            .chain(joined.iter().cloned().map(Topic::Group))
            .chain([topic.clone()])
            .collect();
        let user_name = user.map_or("", UserId::stored);
        let call = Invocation::of(Enter {
            connection: self.keys.connection(id),
            owned: self.keys.node(&self.node),
            tombstone: self.keys.closed(id),
            user_connections: self.keys.user(user_name),
            user_groups: self.keys.user_groups(user_name),
            groups: self.keys.groups(id),
            group_names: self.keys.group_names(),
            node: &self.node,
            id,
            user,
            claim,
            state: connection.state.as_ref().map(Marked),
            channel: self.keys.lane_channel(&self.node),
            topic: topic.key(),
            entry: self.membership(id, Change::Joined, &topics, false),
            kept: self.options.kept(),
            group_prefix: self.keys.group_prefix(),
            presence: self.presence.as_ref(),
            events: self.events.as_ref(),
            payload: connection.event.payload.clone(),
            event_state: connection.event.state.clone(),
            first: first.iter().collect(),
        });
        let call = call.costing(1 + first.len());
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
        let topic = Topic::Group(group.clone());
        let topics = std::slice::from_ref(&topic);
        let join = Join {
            connection: self.keys.connection(id),
            groups: self.keys.groups(id),
            group_names: self.keys.group_names(),
            owner: (!parked).then_some(&self.node),
            id,
            group,
            unchanged: self.membership(id, change, topics, true),
            channel: self.keys.lane_channel(&self.node),
            topic: Topic::Connection(id.clone()).key(),
            changed: self.membership(id, change, topics, false),
            kept: self.options.kept(),
            group_prefix: self.keys.group_prefix(),
            presence: self.presence.as_ref(),
        };
        let call = match change {
            Change::Joined => Invocation::of(join),
            Change::Left | Change::Taken => Invocation::of(Leave(join)),
        };
        let changed: Option<(String, Offset)> = decode(self.writer.carry_out(call, Patience::Long).await?)?;
        Ok(changed.map(|(epoch, offset)| place(&epoch, offset)))
    }

    pub(in crate::redis) async fn extent(&self, commands: &Commands) -> Result<Extent, BackplaneError> {
        let call = Invocation::of(ReadExtent {
            log: self.keys.log(),
            tail_life: self.options.tail_life_ms(),
        });
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
        let call = Invocation::of(ReadTails {
            log: self.keys.log(),
            tails: tails.collect(),
            tail_life: self.options.tail_life_ms(),
        });
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
        let events = self.options.events.as_ref();
        let call = Invocation::of(Sweep {
            most: SWEPT,
            events: events.map(|_| self.keys.events()),
            events_life: events.map(|events| events.life.as_millis().max(1)),
        });
        decode(self.writer.carry_out(call, Patience::Short).await?)
    }

    /// A call that reads topics, each after the offset beside it, up to `upto`: about `share` bytes of each.
    pub(in crate::redis) fn read_call(
        &self,
        topics: &[(Topic, Offset)],
        upto: Offset,
        share: usize,
    ) -> Invocation {
        let keys_of = |(topic, _): &(Topic, Offset)| {
            let key = topic.key();
            [self.keys.tail(&key), self.keys.stream(&key)]
        };
        let upto = if upto == Offset::MAX {
            "+".to_owned()
        } else {
            upto.to_string()
        };
        Invocation::of(Read {
            log: self.keys.log(),
            topics: topics.iter().map(keys_of).collect(),
            upto,
            most_bytes: share,
            tail_life: self.options.tail_life_ms(),
            after: topics.iter().map(|(_, after)| *after).collect(),
        })
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

    /// The log entry that connections receive other topics from now on; `redundant`: nothing changes.
    pub(in crate::redis) fn membership(
        &self,
        id: &ConnectionId,
        change: Change,
        topics: &[Topic],
        redundant: bool,
    ) -> Bytes {
        let membership = wire::Membership {
            connection: id.as_str().to_owned(),
            change: change.into(),
            topics: topics.iter().map(Topic::key).collect(),
            owner: self.node.as_str().to_owned(),
            redundant,
        };
        let entry = wire::Entry {
            body: Some(wire::entry::Body::Membership(membership)),
        };
        entry.encode_to_vec().into()
    }
}

/// Reads group names from the server, and leaves reserved ones out.
pub(in crate::redis) fn group_names(names: &[String]) -> Vec<GroupName> {
    let groups = names.iter().filter_map(|name| GroupName::from_stored(name).ok());
    groups.filter(|group| !group.is_reserved()).collect()
}

pub(in crate::redis) fn place(epoch: &str, offset: Offset) -> Place {
    Place {
        epoch: Epoch::new(epoch),
        offset,
    }
}
