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
            .map(|topic| publish_call(&self.options, topic, &entry, envelope.by_client));
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
        let call = Invocation::new(Name::PublishOnce, vec![self.keys.once(&once.key)])
            .arg(topic.key())
            .arg(entry)
            .arg(only_wanted(&self.options, topic, envelope.by_client))
            .arg(once.content.clone());
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
        let (life, tail_life) = (self.options.life_ms(), self.options.tail_life_ms());
        let unread = u8::from(self.options.keeps_unread);
        format!("{stream}\n{tail}\n{channel}\n{kept}\n{life}\n{tail_life}\n{unread}")
    }
}

/// The call that appends an entry to a topic and pushes it.
fn publish_call(options: &HubOptions, topic: &Topic, entry: &Bytes, by_client: bool) -> Invocation {
    let name = match topic {
        Topic::Connection(_) => Name::PublishDirect,
        _ => Name::Publish,
    };
    Invocation::new(name, Vec::new())
        .arg(topic.key())
        .arg(entry.clone())
        .arg(only_wanted(options, topic, by_client))
}

/// An argument: `1` where a message is kept only if a connection could come back for it.
fn only_wanted(options: &HubOptions, topic: &Topic, by_client: bool) -> &'static str {
    let of_members = matches!(topic, Topic::Group(_) | Topic::User(_));
    if of_members && by_client && !options.keeps_unread {
        "1"
    } else {
        ""
    }
}

fn entry_of(envelope: &Envelope) -> Bytes {
    let entry = wire::Entry {
        body: Some(wire::entry::Body::Message(envelope.clone())),
    };
    entry.encode_to_vec().into()
}

/// The call that appends a gap to a topic: messages of it are lost.
pub(super) fn gap_call(options: &HubOptions, topic: &Topic) -> Invocation {
    let gap = wire::Entry {
        body: Some(wire::entry::Body::Gap(wire::Gap {})),
    };
    publish_call(options, topic, &gap.encode_to_vec().into(), true)
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
        .number(options.life_ms())
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

    /// The life of a topic's entries, in milliseconds.
    pub(super) fn life_ms(&self) -> u128 {
        self.retention.as_millis().max(1)
    }

    /// The time for which a topic's newest offset is remembered, in milliseconds.
    pub(super) fn tail_life_ms(&self) -> u128 {
        self.tail_life().as_millis()
    }
}
