//! Entries of the log as nodes read them from streams and channels.

use std::sync::Arc;

use bytes::Bytes;
use prost::Message as _;
use redis::Value;

use crate::error::BackplaneError;
use crate::position::Offset;
use crate::redis::server::replies::{decode, items, malformed};
use crate::topic::{ConnectionId, Topic};
use crate::wire::{self, entry::Body, membership::Change};

/// An entry with its topic, its offset and its predecessor.
#[derive(Clone, Debug)]
pub(in crate::redis) struct Stored {
    pub(in crate::redis) topic: Topic,
    pub(in crate::redis) offset: Offset,
    pub(in crate::redis) previous: Offset,
    pub(in crate::redis) entry: Bytes,
}

/// The content of an entry.
pub(in crate::redis) enum Content {
    Message(Arc<wire::Envelope>),
    Membership {
        connection: ConnectionId,
        topics: Vec<Topic>,
        change: Change,
        /// The node that owns the connection.
        owner: String,
        /// The membership was the same before.
        redundant: bool,
    },
    /// Messages of the topic are lost.
    Gap,
}

impl Stored {
    /// Reads the answer of `XRANGE` on a topic's stream.
    pub(in crate::redis) fn read_all(topic: &Topic, answer: Value) -> Result<Vec<Self>, BackplaneError> {
        items(answer)?
            .into_iter()
            .map(|entry| Self::read(topic, entry))
            .collect()
    }

    fn read(topic: &Topic, answer: Value) -> Result<Self, BackplaneError> {
        let Ok([id, fields]) = <[Value; 2]>::try_from(items(answer)?) else {
            return Err(malformed("a stream entry without id and fields"));
        };
        let mut fields = items(fields)?.into_iter().skip(1).step_by(2);
        let (Some(previous), Some(Value::BulkString(entry))) = (fields.next(), fields.next()) else {
            return Err(malformed("a stream entry without its fields"));
        };
        let id: String = decode(id)?;
        let offset = id.split_once('-').and_then(|(offset, _)| offset.parse().ok());
        Ok(Self {
            topic: topic.clone(),
            offset: offset.ok_or_else(|| malformed("a stream entry's id"))?,
            previous: decode(previous)?,
            entry: entry.into(),
        })
    }

    /// The content of the entry; `None` where this version can't read it.
    pub(in crate::redis) fn content(&self) -> Option<Content> {
        match wire::Entry::decode(self.entry.clone()).ok()?.body? {
            Body::Message(envelope) => Some(Content::Message(Arc::new(envelope))),
            Body::Gap(_) => Some(Content::Gap),
            Body::Membership(membership) => Some(Content::Membership {
                connection: ConnectionId::parse(&membership.connection).ok()?,
                topics: membership
                    .topics
                    .iter()
                    .filter_map(|key| Topic::from_key(key))
                    .collect(),
                change: membership.change(),
                owner: membership.owner,
                redundant: membership.redundant,
            }),
        }
    }
}
