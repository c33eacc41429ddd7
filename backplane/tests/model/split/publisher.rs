//! Publishes from one node until that is acknowledged.

use std::sync::Arc;

use hubcast_backplane::conformance::envelope;
use hubcast_backplane::{BackplaneError, HubBackplane, Topic};

use super::is_passing;
use super::record::{Clock, Sent};

/// Publishes from one node.
pub(super) struct Publisher {
    pub(super) by: usize,
    pub(super) clock: Clock,
    pub(super) hub: Arc<dyn HubBackplane>,
    pub(super) drifts: bool,
}

impl Publisher {
    /// Publishes until that is acknowledged: a message that failed may have come all the same, so each try has a name
    /// of its own. `None` where the connection that it is for does not exist.
    pub(super) async fn publish(&self, topic: &Topic, name: &str) -> Option<Sent> {
        for attempt in 0..100 {
            match self.try_to(topic, format!("{name}.{attempt}")).await {
                Ok(sent) => return sent,
                Err(error) if is_passing(&error) => {}
                Err(error) => panic!("{name} can't be published: {error:?}"),
            }
        }
        panic!("{name} can't be published");
    }

    async fn try_to(&self, topic: &Topic, target: String) -> Result<Option<Sent>, BackplaneError> {
        let (begun, before) = (self.clock.now(), self.hub.position().await?.epoch);
        let (topics, message) = (std::slice::from_ref(topic), envelope(&target));
        let receipts = self.hub.publish(topics, &message).await?;
        let (acked, after) = (self.clock.now(), self.hub.position().await?.epoch);
        Ok(receipts[0].map(|_| Sent {
            by: self.by,
            topic: topic.clone(),
            target,
            begun,
            acked,
            epoch: (before == after && !self.drifts).then_some(after),
        }))
    }
}
