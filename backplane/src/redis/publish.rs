//! Calls of the scripts that publish.

use std::time::Duration;

use redis::Value;

use super::keys::HubKeys;
use crate::backplane::HubOptions;
use crate::error::BackplaneError;
use crate::numbered::{Counted, Numbered};
use crate::once::{Once, Published};
use crate::position::Offset;
use crate::redis::script::calls::messages::{Count, PublishNumbered, PublishOnce};
use crate::redis::script::entries::{entry_of, only_wanted, publish_call};
use crate::redis::script::hub_scripts::HubScripts;
use crate::redis::script::invocation::Invocation;
use crate::redis::script::settings::{EventSettings, PresenceSettings};
use crate::redis::script::writer::{Patience, Writer};
use crate::redis::server::replies::{decode, malformed};
use crate::topic::{NodeId, Topic};
use crate::wire::Envelope;

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
        let call = Invocation::of(PublishOnce {
            request: self.keys.once(&once.key),
            topic: topic.key(),
            entry: entry_of(envelope),
            only_wanted: only_wanted(&self.options, topic, envelope.by_client),
            content: once.content.clone(),
        });
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

    /// Reads how far a sender's numbered messages are.
    pub(super) async fn count(
        &self,
        key: &str,
        life: Duration,
        begins: bool,
    ) -> Result<Counted, BackplaneError> {
        let call = Invocation::of(Count {
            counted: self.keys.counted(key),
            begins,
            life: life.as_millis().max(1),
        });
        counted(self.writer.carry_out(call, Patience::Long).await?)
    }

    /// Publishes a message to a topic that is no connection's, if it is the next one of its count.
    pub(super) async fn publish_numbered(
        &self,
        topic: &Topic,
        envelope: &Envelope,
        numbered: Numbered<'_>,
    ) -> Result<Counted, BackplaneError> {
        let call = Invocation::of(PublishNumbered {
            counted: self.keys.counted(numbered.key),
            topic: topic.key(),
            entry: entry_of(envelope),
            only_wanted: only_wanted(&self.options, topic, envelope.by_client),
            number: numbered.number,
            next_number: numbered.number.saturating_add(1),
            last: numbered.last.unwrap_or_default(),
            life: numbered.life.as_millis().max(1),
        });
        match self.writer.carry_out(call, Patience::Long).await? {
            Value::Array(published) => match published.into_iter().next() {
                Some(offset) => Ok(Counted::Now(decode(offset)?)),
                None => Err(malformed("publish_numbered answered an empty array")),
            },
            known => counted(known),
        }
    }

    pub(super) fn new(keys: HubKeys, node: NodeId, options: HubOptions, writer: Writer) -> Self {
        Self {
            presence: PresenceSettings::of(&options),
            events: EventSettings::of(&options, &keys),
            keys,
            node,
            options,
            writer,
        }
    }
}

/// Reads a count.
fn counted(known: Value) -> Result<Counted, BackplaneError> {
    let Some(known) = decode::<Option<String>>(known)? else {
        return Ok(Counted::Unknown);
    };
    let number = |text: &str| {
        text.parse()
            .map_err(|_| malformed(&format!("a count is stored as {known}")))
    };
    Ok(match known.split_once(' ') {
        Some((last, text)) => Counted::Over {
            number: number(last)?,
            last: text.to_owned(),
        },
        None => Counted::Expects(number(&known)?),
    })
}
