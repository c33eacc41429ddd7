//! Calls of the scripts that publish.

use bytes::Bytes;
use prost::Message as _;

use super::hub_scripts::HubScripts;
use super::keys::HubKeys;
use super::link::{decode, malformed};
use super::script::{Invocation, Name};
use super::writer::{Patience, Writer};
use crate::backplane::HubOptions;
use crate::error::BackplaneError;
use crate::once::{Once, Published};
use crate::position::Offset;
use crate::topic::{NodeId, Topic};
use crate::wire;

impl HubScripts {
    /// Publishes to each topic; nothing for a connection that nobody owns.
    pub(super) async fn publish(
        &self,
        topics: &[Topic],
        entry: &Bytes,
    ) -> Result<Vec<Option<Offset>>, BackplaneError> {
        let calls = topics.iter().map(|topic| self.publish_call(topic, entry));
        let answers = self.writer.carry_out_all(calls.collect(), Patience::Long).await?;
        answers.into_iter().map(decode).collect()
    }

    /// Appends to each topic that messages of it are lost.
    pub(super) async fn publish_gaps(&self, topics: &[Topic]) -> Result<(), BackplaneError> {
        let gap = wire::Entry {
            body: Some(wire::entry::Body::Gap(wire::Gap {})),
        };
        let entry = gap.encode_to_vec().into();
        self.publish(topics, &entry).await.map(drop)
    }

    /// Publishes to a topic, unless a request of that name has done so.
    pub(super) async fn publish_once(
        &self,
        topic: &Topic,
        entry: Bytes,
        once: &Once,
    ) -> Result<Published, BackplaneError> {
        let key = topic.key();
        let mut keys = self.log_keys(&key);
        keys.push(self.keys.once(&once.key));
        let channel = if let Topic::Connection(id) = topic {
            keys.push(self.keys.connection(id));
            self.keys.lane_prefix()
        } else {
            self.keys.topic_channel(&key)
        };
        let kept = self.kept_messages();
        let call = Invocation::new(Name::PublishOnce, keys).arg(channel).arg(key);
        let call = self
            .entry_arguments(call, entry, kept)
            .arg(once.content.clone())
            .number(self.options.retention.as_millis().max(1));
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

    fn publish_call(&self, topic: &Topic, entry: &Bytes) -> Invocation {
        let key = topic.key();
        let mut keys = self.log_keys(&key);
        let call = if let Topic::Connection(id) = topic {
            keys.push(self.keys.connection(id));
            Invocation::new(Name::PublishDirect, keys).arg(self.keys.lane_prefix())
        } else {
            Invocation::new(Name::Publish, keys).arg(self.keys.topic_channel(&key))
        };
        let kept = self.kept_messages();
        self.entry_arguments(call.arg(key), entry.clone(), kept)
    }

    /// As [`HubScripts::kept`] of messages, which a volatile hub does not keep.
    fn kept_messages(&self) -> u128 {
        if self.options.volatile { 0 } else { self.kept() }
    }

    pub(super) fn new(keys: HubKeys, node: NodeId, options: HubOptions, writer: Writer) -> Self {
        let mut scripts = Self {
            keys,
            node,
            options,
            writer,
            presence: String::new(),
        };
        if scripts.options.presence {
            scripts.presence = scripts.presence_argument();
        }
        scripts
    }

    fn presence_argument(&self) -> String {
        let keys = &self.keys;
        let (stream, tail) = (keys.stream(""), keys.tail(""));
        let (channel, kept) = (keys.topic_channel(""), self.kept_messages());
        let (life, tail_life) = (self.options.retention.as_millis().max(1), self.tail_life_ms());
        format!("{stream}\n{tail}\n{channel}\n{kept}\n{life}\n{tail_life}")
    }
}
