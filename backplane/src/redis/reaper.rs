//! Removes what dead nodes left, once.

use std::sync::Arc;

use tracing::{debug, info};
use uuid::Uuid;

use super::commands::Repeat;
use super::directory::removed;
use super::hub::Hub;
use super::inner::Inner;
use super::link::decode;
use super::script::{HubScripts, Invocation, Name};
use super::writer::Patience;
use crate::backplane::{ConnectionRecord, HubOptions};
use crate::error::BackplaneError;
use crate::topic::{ConnectionId, HubName, NodeId, Topic};

/// Connections that are removed in one round trip.
const REMOVALS: usize = 200;
/// Leases after which another node takes over the removal from one that does not finish it.
const PATIENCE: u32 = 6;

impl HubScripts {
    /// Removes a connection of `owner`, or a parked one whose time is up; `name` tells this removal from others when it
    /// is repeated, which then `tells` the same.
    pub(super) fn remove_call(
        &self,
        owner: Option<&NodeId>,
        id: &ConnectionId,
        tombstone_ms: u128,
        name: &str,
        tells: bool,
    ) -> Invocation {
        let topic = Topic::Connection(id.clone()).key();
        let keys = vec![
            self.keys.connection(id),
            self.keys.groups(id),
            self.keys.node(owner.unwrap_or(&self.node)),
            self.keys.closed(id),
            self.keys.stream(&topic),
            self.keys.tail(&topic),
            self.keys.calls(id),
            self.keys.parked(),
            self.keys.group_names(),
        ];
        Invocation::new(Name::Remove, keys)
            .arg(owner.map(ToString::to_string).unwrap_or_default())
            .arg(id.to_string())
            .number(tombstone_ms)
            .arg(name.to_owned())
            .arg(self.keys.group_prefix())
            .arg(self.keys.user_prefix())
            .arg(if tells { "1" } else { "0" })
            .arg(self.presence.clone())
    }
}

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

    /// The scripts of a dead node's hub, which this one need not serve.
    async fn scripts_of(&self, hub: &HubName, dead: &NodeId) -> Result<HubScripts, BackplaneError> {
        let keys = self.keys.hub(hub);
        if let Some(known) = self.find_hub(hub.as_str()) {
            let options = known.scripts.options.clone();
            return Ok(HubScripts::new(keys, dead.clone(), options, self.writer(hub)));
        }
        let mut command = redis::cmd("HGET");
        command.arg(keys.log()).arg("presence");
        let presence: Option<String> = decode(self.commands.command(&command, Repeat::Safe).await?)?;
        Ok(HubScripts {
            presence: presence.unwrap_or_default(),
            ..HubScripts::new(keys, dead.clone(), HubOptions::default(), self.writer(hub))
        })
    }

    /// Parks a dead node's resumable connections and removes the others.
    async fn reap_hub(&self, hub: &HubName, dead: &NodeId) -> Result<usize, BackplaneError> {
        let scripts = self.scripts_of(hub, dead).await?;
        let mut command = redis::cmd("SMEMBERS");
        command.arg(scripts.keys.node(dead));
        let ids: Vec<String> = decode(self.commands.command(&command, Repeat::Safe).await?)?;
        let ids: Vec<_> = ids.iter().filter_map(|id| ConnectionId::parse(id).ok()).collect();
        let name = Uuid::new_v4().simple().to_string();
        let mut count = 0;
        for ids in ids.chunks(REMOVALS) {
            let park = |id| scripts.park_call(dead, id, None, None);
            let calls = ids.iter().map(park).collect();
            let parked = scripts.writer.carry_out_all(calls, Patience::Short).await?;
            let mut others = Vec::new();
            for (id, parked) in ids.iter().zip(parked) {
                if !decode::<bool>(parked)? {
                    others.push(id.clone());
                }
            }
            count += ids.len() - others.len();
            count += self
                .remove_orphans(&scripts, hub, Some(dead), &others, &name)
                .await?;
        }
        Ok(count)
    }

    /// Removes parked connections of a hub whose time is up.
    pub(super) async fn remove_expired(&self, hub: &Hub) -> Result<(), BackplaneError> {
        let call = Invocation::new(Name::Expired, vec![hub.scripts.keys.parked()]).number(REMOVALS as u128);
        let ids: Vec<String> = decode(self.commands.script(&call, Repeat::Safe).await?)?;
        if ids.is_empty() {
            return Ok(());
        }
        let ids: Vec<_> = ids.iter().filter_map(|id| ConnectionId::parse(id).ok()).collect();
        let name = Uuid::new_v4().simple().to_string();
        let removed = self
            .remove_orphans(&hub.scripts, &hub.name, None, &ids, &name)
            .await?;
        debug!(hub = %hub.name, removed, "parked connections were not resumed in time");
        Ok(())
    }

    /// Removes connections that nobody runs, and tells this node's service of those that it removed.
    async fn remove_orphans(
        &self,
        scripts: &HubScripts,
        hub: &HubName,
        owner: Option<&NodeId>,
        ids: &[ConnectionId],
        name: &str,
    ) -> Result<usize, BackplaneError> {
        if ids.is_empty() {
            return Ok(0);
        }
        let tombstone = self.options.orphan_tombstone.as_millis();
        let remove = |id| scripts.remove_call(owner, id, tombstone, name, true);
        let calls = ids.iter().map(remove).collect();
        let mut count = 0;
        for (id, answer) in ids
            .iter()
            .zip(scripts.writer.carry_out_all(calls, Patience::Short).await?)
        {
            let Some((user, state)) = removed(answer)? else {
                continue;
            };
            count += 1;
            if let Some(service) = self.service() {
                let id = id.clone();
                service.orphan_removed(hub, ConnectionRecord { id, user, state });
            }
        }
        Ok(count)
    }
}
