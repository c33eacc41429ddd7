//! Calls of the scripts that publish.

use super::keys::HubKeys;
use crate::backplane::HubOptions;
use crate::error::BackplaneError;
use crate::once::{Once, Published};
use crate::position::Offset;
use crate::redis::script::calls::messages::PublishOnce;
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
