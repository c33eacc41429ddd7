//! Removes what dead nodes left, once.

use std::sync::Arc;

use tracing::{debug, info};
use uuid::Uuid;

use super::commands::Repeat;
use super::directory::removed;
use super::inner::Inner;
use super::link::decode;
use super::script::{HubScripts, Invocation, Name};
use crate::backplane::{ConnectionRecord, HubOptions};
use crate::error::BackplaneError;
use crate::topic::{ConnectionId, HubName, NodeId};

/// Connections that are removed in one round trip.
const REMOVALS: usize = 200;
/// Leases after which another node takes over the removal from one that does not finish it.
const PATIENCE: u32 = 6;

impl Inner {
    /// Removes a dead node's connections, unless another node does.
    pub(super) async fn reap(self: Arc<Self>, dead: String) {
        let Ok(dead) = NodeId::parse(dead) else { return };
        match self.try_reap(&dead).await {
            Ok(None) => {}
            Ok(Some(connections)) => info!(node = %dead, connections, "dead node removed"),
            Err(error) => debug!(node = %dead, %error, "dead node could not be removed yet"),
        }
    }

    async fn try_reap(&self, dead: &NodeId) -> Result<Option<usize>, BackplaneError> {
        let call = Invocation::new(Name::Reap, vec![self.keys.nodes(), self.keys.dying()])
            .arg(dead.to_string())
            .number(self.options.orphan_grace.as_millis())
            .number((self.options.lease * PATIENCE).as_millis());
        // Where the answer is lost, the next one to come finishes what this call began.
        if !decode::<bool>(self.commands.script(&call, Repeat::Never).await?)? {
            return Ok(None);
        }
        let mut command = redis::cmd("SMEMBERS");
        command.arg(self.keys.hubs());
        let hubs: Vec<String> = decode(self.commands.command(&command, Repeat::Safe).await?)?;
        let mut connections = 0;
        for hub in hubs.iter().filter_map(|hub| HubName::parse(hub).ok()) {
            connections += self.reap_hub(&hub, dead).await?;
        }
        let mut command = redis::cmd("ZREM");
        command.arg(self.keys.dying()).arg(dead.as_str());
        self.commands.command(&command, Repeat::Safe).await?;
        Ok(Some(connections))
    }

    async fn reap_hub(&self, hub: &HubName, dead: &NodeId) -> Result<usize, BackplaneError> {
        let scripts = HubScripts {
            keys: self.keys.hub(hub),
            node: dead.clone(),
            options: HubOptions::default(),
        };
        let mut command = redis::cmd("SMEMBERS");
        command.arg(scripts.keys.node(dead));
        let ids: Vec<String> = decode(self.commands.command(&command, Repeat::Safe).await?)?;
        let ids: Vec<_> = ids.iter().filter_map(|id| ConnectionId::parse(id).ok()).collect();
        let tombstone = self.options.orphan_tombstone.as_millis();
        let name = Uuid::new_v4().simple().to_string();
        let mut count = 0;
        for ids in ids.chunks(REMOVALS) {
            let calls: Vec<_> = ids
                .iter()
                .map(|id| scripts.remove_call(dead, id, tombstone, &name))
                .collect();
            let answers = self.commands.scripts(&calls, Repeat::Safe).await?;
            for (id, answer) in ids.iter().zip(answers) {
                let Some(user) = removed(answer)? else { continue };
                count += 1;
                if let Some(service) = self.service() {
                    service.orphan_removed(hub, ConnectionRecord { id: id.clone(), user });
                }
            }
        }
        Ok(count)
    }
}
