//! Calls that append messages to the log, and the options of hubs as arguments.

use bytes::Bytes;
use prost::Message as _;

use crate::backplane::HubOptions;
use crate::redis::script::calls::messages::{Publish, PublishDirect};
use crate::redis::script::invocation::Invocation;
use crate::topic::Topic;
use crate::wire::{self, Envelope};

/// The call that appends an entry to a topic and pushes it.
pub(in crate::redis) fn publish_call(
    options: &HubOptions,
    topic: &Topic,
    entry: &Bytes,
    by_client: bool,
) -> Invocation {
    match topic {
        Topic::Connection(_) => Invocation::of(PublishDirect {
            topic: topic.key(),
            entry: entry.clone(),
        }),
        _ => Invocation::of(Publish {
            topic: topic.key(),
            entry: entry.clone(),
            only_wanted: only_wanted(options, topic, by_client),
        }),
    }
}

/// Returns whether a message is kept only if a connection could come back for it.
pub(in crate::redis) fn only_wanted(options: &HubOptions, topic: &Topic, by_client: bool) -> bool {
    let of_members = matches!(topic, Topic::Group(_) | Topic::User(_));
    of_members && by_client && !options.keeps_unread
}

pub(in crate::redis) fn entry_of(envelope: &Envelope) -> Bytes {
    let entry = wire::Entry {
        body: Some(wire::entry::Body::Message(envelope.clone())),
    };
    entry.encode_to_vec().into()
}

/// The call that appends a gap to a topic: messages of it are lost.
pub(in crate::redis) fn gap_call(options: &HubOptions, topic: &Topic) -> Invocation {
    let gap = wire::Entry {
        body: Some(wire::entry::Body::Gap(wire::Gap {})),
    };
    publish_call(options, topic, &gap.encode_to_vec().into(), true)
}

impl HubOptions {
    /// Most entries that are kept of a topic.
    pub(in crate::redis) fn kept(&self) -> u128 {
        self.retention_messages.max(1) as u128
    }

    /// Most messages that are kept of a topic.
    pub(in crate::redis) fn kept_messages(&self) -> u128 {
        if self.volatile { 0 } else { self.kept() }
    }

    /// The life of a topic's entries, in milliseconds.
    pub(in crate::redis) fn life_ms(&self) -> u128 {
        self.retention.as_millis().max(1)
    }

    /// The time for which a topic's newest offset is remembered, in milliseconds.
    pub(in crate::redis) fn tail_life_ms(&self) -> u128 {
        self.tail_life().as_millis()
    }
}
