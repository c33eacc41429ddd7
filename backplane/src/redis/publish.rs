//! Calls of the scripts that publish.

use bytes::Bytes;
use prost::Message as _;

use super::keys::HubKeys;
use crate::backplane::HubOptions;
use crate::error::BackplaneError;
use crate::once::{Once, Published};
use crate::position::Offset;
use crate::redis::script::catalog::{Invocation, Name};
use crate::redis::script::hub_scripts::HubScripts;
use crate::redis::script::writer::{Patience, Writer};
use crate::redis::server::link::{decode, malformed};
use crate::topic::{NodeId, Topic};
use crate::wire::{self, Envelope};

impl HubScripts {
    /// Publishes to each topic. Returns the offsets; `None` for a connection that does not exist.
    pub(super) async fn publish(
        &self,
        topics: &[Topic],
        envelope: &Envelope,
    ) -> Result<Vec<Option<Offset>>, BackplaneError> {
        let entry = entry_of(envelope);
        let calls = topics
            .iter()
            .map(|topic| publish_call(&self.keys, &self.options, topic, &entry, envelope.by_client));
        let answers = self.writer.carry_out_all(calls.collect(), Patience::Long).await?;
        answers.into_iter().map(decode).collect()
    }

    /// Publishes to a topic, unless a request with the same key has done so.
    pub(super) async fn publish_once(
        &self,
        topic: &Topic,
        envelope: &Envelope,
        once: &Once,
    ) -> Result<Published, BackplaneError> {
        let entry = entry_of(envelope);
        let key = topic.key();
        let mut keys = self.log_keys(&key);
        keys.push(self.keys.once(&once.key));
        let channel = if let Topic::Connection(id) = topic {
            keys.push(self.keys.connection(id));
            self.keys.lane_prefix()
        } else {
            self.keys.topic_channel(&key)
        };
        let call = Invocation::new(Name::PublishOnce, keys).arg(channel).arg(key);
        let call = entry_arguments(&self.options, call, entry, self.options.kept_messages())
            .arg(once.content.clone())
            .number(self.options.retention.as_millis().max(1))
            .arg(members(&self.keys, &self.options, topic, envelope.by_client));
        match decode::<i64>(self.writer.carry_out(call, Patience::Long).await?)? {
            0 => Ok(Published::Before),
            -1 => Ok(Published::Differs),
            -2 => Ok(Published::Now(None)),
            other => match Offset::try_from(other) {
                Ok(offset) => Ok(Published::Now(Some(offset))),
                Err(_) => Err(malformed(&format!("publish_once answered {other}"))),
            },
        }
    }

    pub(super) fn new(keys: HubKeys, node: NodeId, options: HubOptions, writer: Writer) -> Self {
        let mut scripts = Self {
            keys,
            node,
            options,
            writer,
            presence: String::new(),
            events: String::new(),
        };
        if scripts.options.presence {
            scripts.presence = scripts.presence_argument();
        }
        if let Some(events) = &scripts.options.events {
            let (stream, deliver) = (scripts.keys.events(), u8::from(events.deliver));
            scripts.events = format!("{stream}\n{}\n{deliver}", events.most.max(1));
        }
        scripts
    }

    fn presence_argument(&self) -> String {
        let keys = &self.keys;
        let (stream, tail) = (keys.stream(""), keys.tail(""));
        let (channel, kept) = (keys.topic_channel(""), self.options.kept_messages());
        let (life, tail_life) = (
            self.options.retention.as_millis().max(1),
            self.options.tail_life_ms(),
        );
        let unread = u8::from(self.options.keeps_unread);
        format!("{stream}\n{tail}\n{channel}\n{kept}\n{life}\n{tail_life}\n{unread}")
    }
}

/// The call that appends an entry to a topic and pushes it.
fn publish_call(
    keys: &HubKeys,
    options: &HubOptions,
    topic: &Topic,
    entry: &Bytes,
    by_client: bool,
) -> Invocation {
    let key = topic.key();
    let mut names = keys.of_log(&key);
    let call = if let Topic::Connection(id) = topic {
        names.push(keys.connection(id));
        Invocation::new(Name::PublishDirect, names).arg(keys.lane_prefix())
    } else {
        Invocation::new(Name::Publish, names).arg(keys.topic_channel(&key))
    };
    entry_arguments(options, call.arg(key), entry.clone(), options.kept_messages())
        .arg(members(keys, options, topic, by_client))
}

/// The key of a topic's members, where messages are kept only if a connection could come back for them.
fn members(keys: &HubKeys, options: &HubOptions, topic: &Topic, by_client: bool) -> String {
    if !by_client || options.keeps_unread {
        return String::new();
    }
    match topic {
        Topic::Group(group) => format!("{}{}", keys.group_prefix(), group.stored()),
        Topic::User(user) => format!("{}{}", keys.user_prefix(), user.stored()),
        Topic::All | Topic::Connection(_) => String::new(),
    }
}

fn entry_of(envelope: &Envelope) -> Bytes {
    let entry = wire::Entry {
        body: Some(wire::entry::Body::Message(envelope.clone())),
    };
    entry.encode_to_vec().into()
}

/// The call that appends a gap to a topic: messages of it are lost.
pub(super) fn gap_call(keys: &HubKeys, options: &HubOptions, topic: &Topic) -> Invocation {
    let gap = wire::Entry {
        body: Some(wire::entry::Body::Gap(wire::Gap {})),
    };
    publish_call(keys, options, topic, &gap.encode_to_vec().into(), true)
}

/// The arguments of a log entry, which end most calls.
pub(super) fn entry_arguments(
    options: &HubOptions,
    call: Invocation,
    entry: Bytes,
    kept: u128,
) -> Invocation {
    call.arg(entry)
        .number(kept)
        .number(options.retention.as_millis().max(1))
        .number(options.tail_life_ms())
}

impl HubOptions {
    /// Most entries that are kept of a topic.
    pub(super) fn kept(&self) -> u128 {
        self.retention_messages.max(1) as u128
    }

    /// Most messages that are kept of a topic.
    pub(super) fn kept_messages(&self) -> u128 {
        if self.volatile { 0 } else { self.kept() }
    }

    /// The time for which a topic's newest offset is remembered, in milliseconds.
    pub(super) fn tail_life_ms(&self) -> u128 {
        self.tail_life().as_millis()
    }
}
