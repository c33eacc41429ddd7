//! Removes, exactly once, the connections of dead nodes and parked connections whose time is up.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use redis::Value;
use tokio::time::Instant;
use tracing::{debug, info};
use uuid::Uuid;

use crate::backplane::{ConnectionRecord, HubOptions};
use crate::error::BackplaneError;
use crate::events::{EventRecord, NODE_DIED};
use crate::redis::directory::removal::{Removal, removed};
use crate::redis::feed::hub::Hub;
use crate::redis::inner::Inner;
use crate::redis::node::beat::Beat;
use crate::redis::script::calls::connections::Overdue;
use crate::redis::script::calls::nodes::Reap;
use crate::redis::script::hub_scripts::HubScripts;
use crate::redis::script::invocation::Invocation;
use crate::redis::script::settings::{EventSettings, PresenceSettings};
use crate::redis::script::writer::Patience;
use crate::redis::server::commands::Repeat;
use crate::redis::server::replies::{decode, items, malformed};
use crate::topic::{ConnectionId, HubName, NodeId};

/// Connections that are parked or removed in one round trip.
const BATCH: usize = 32;

/// A node whose connections are to be removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::redis) struct Lost {
    node: NodeId,
    /// The count at which the node has stood still; `None` where it is not listed any more.
    count: Option<i64>,
    /// The entry of the node that removes the connections: this one, or one that can't go on.
    taken: Option<String>,
    /// True if the connections were removed and reported before: the server went back to an earlier state.
    again: bool,
}

/// A hub whose connections are removed. This node need not serve it.
struct Reaped<'a> {
    scripts: &'a HubScripts,
    /// The hub on this node, where it serves it and reports ends to its code.
    served: Option<&'a Hub>,
}

/// Connections without a living node.
struct Orphaned<'a> {
    /// The dead node that owned the connections; `None` for parked ones.
    owner: Option<&'a NodeId>,
    /// The name of the removal.
    name: &'a str,
    /// True if the connections were removed and reported before.
    again: bool,
}

/// The nodes whose connections `node` may remove, where `dead` have stood still.
pub(in crate::redis) fn lost(
    node: &NodeId,
    beat: &Beat,
    dead: HashMap<NodeId, i64>,
    living: &HashSet<NodeId>,
    gone: &HashMap<NodeId, i64>,
) -> Vec<Lost> {
    let epoch = beat.observation.epoch.as_str();
    let listed: HashSet<_> = beat.observation.counts.iter().map(|(node, _)| node).collect();
    let mut lost: HashMap<NodeId, Lost> = HashMap::new();
    for (id, entry) in &beat.dying {
        let (Ok(id), Some((since, reaper))) = (NodeId::parse(id), entry.split_once(' ')) else {
            continue;
        };
        let goes_on = since == epoch && reaper != node.as_str();
        let goes_on = goes_on && NodeId::parse(reaper).is_ok_and(|reaper| living.contains(&reaper));
        // The entry of a node that is listed again, in an earlier state of the server, counts when that is dead, too.
        if goes_on || (listed.contains(&id) && !dead.contains_key(&id)) {
            continue;
        }
        let entry = Lost {
            node: id.clone(),
            count: None,
            taken: Some(entry.clone()),
            again: gone.contains_key(&id),
        };
        lost.insert(id, entry);
    }
    for (id, count) in dead {
        let entry = lost.entry(id.clone()).or_insert(Lost {
            again: gone.contains_key(&id),
            node: id,
            count: None,
            taken: None,
        });
        entry.count = Some(count);
    }
    lost.remove(node);
    lost.into_values().collect()
}

impl Inner {
    /// Removes dead nodes' connections until closing, one node after the other.
    pub(in crate::redis) async fn run_reaper(self: Arc<Self>) {
        let mut lost = self.nodes.lost();
        loop {
            let next = async {
                lost.changed().await.ok()?;
                let nodes = lost.borrow_and_update().clone();
                // A node that has no service yet to notify of removed connections must not remove any.
                if self.service().is_some() && !self.nodes.is_barred() {
                    for node in &nodes {
                        self.reap(node).await;
                    }
                }
                Some(())
            };
            tokio::select! {
                () = self.closing.cancelled() => return,
                next = next => if next.is_none() { return },
            }
        }
    }

    /// Removes a dead node's connections, unless another node does.
    async fn reap(&self, lost: &Lost) {
        let begun = Instant::now();
        match self.try_reap(lost).await {
            Ok(None) => {}
            Ok(Some(connections)) => {
                self.nodes
                    .note_gone([(lost.node.clone(), lost.count.unwrap_or(i64::MIN))]);
                info!(
                    node = %lost.node,
                    connections,
                    took_ms = begun.elapsed().as_millis() as u64,
                    "dead node removed"
                );
            }
            Err(error) => debug!(node = %lost.node, %error, "dead node could not be removed yet"),
        }
    }

    async fn try_reap(&self, lost: &Lost) -> Result<Option<usize>, BackplaneError> {
        let call = Invocation::of(Reap {
            cluster: self.keys.cluster(),
            beats: self.keys.beats(),
            dying: self.keys.dying(),
            dead: &lost.node,
            count: lost.count,
            reaper: &self.options.node,
            unfinished: lost.taken.as_deref(),
        });
        if !decode::<bool>(self.commands.script(&call, Repeat::Safe).await?)? {
            return Ok(None);
        }
        let mut command = redis::cmd("SMEMBERS");
        command.arg(self.keys.hubs());
        let hubs: Vec<String> = decode(self.commands.command(&command, Repeat::Safe).await?)?;
        let mut connections = 0;
        for hub in hubs.iter().filter_map(|hub| HubName::parse(hub).ok()) {
            connections += self.reap_hub(&hub, lost).await?;
            self.forget_registered(&self.keys.hub(&hub), &lost.node).await?;
        }
        let mut command = redis::cmd("HDEL");
        command.arg(self.keys.dying()).arg(lost.node.as_str());
        self.commands.command(&command, Repeat::Safe).await?;
        Ok(Some(connections))
    }

    /// The scripts for a hub of a dead node.
    async fn scripts_of(
        &self,
        hub: &HubName,
        served: Option<&Hub>,
        dead: &NodeId,
    ) -> Result<HubScripts, BackplaneError> {
        let keys = self.keys.hub(hub);
        if let Some(served) = served {
            let options = served.scripts.options.clone();
            return Ok(HubScripts::new(keys, dead.clone(), options, self.writer(hub)));
        }
        let mut command = redis::cmd("HMGET");
        command.arg(keys.log()).arg(&["presence", "ends", "events"]);
        let (presence, ends, events): (Option<String>, Option<u8>, Option<String>) =
            decode(self.commands.command(&command, Repeat::Safe).await?)?;
        let options = HubOptions {
            reports_ends: ends == Some(1),
            ..HubOptions::default()
        };
        Ok(HubScripts {
            presence: PresenceSettings::read(&presence.unwrap_or_default())?,
            events: EventSettings::read(&events.unwrap_or_default())?,
            ..HubScripts::new(keys, dead.clone(), options, self.writer(hub))
        })
    }

    /// Parks a dead node's resumable connections and removes the others, until none is listed.
    async fn reap_hub(&self, name: &HubName, lost: &Lost) -> Result<usize, BackplaneError> {
        let (dead, again) = (&lost.node, lost.again);
        let served = self.find_hub(name.as_str());
        let scripts = self.scripts_of(name, served.as_deref(), dead).await?;
        let hub = Reaped {
            scripts: &scripts,
            served: served.as_deref().filter(|_| !again),
        };
        let removal = Uuid::new_v4().simple().to_string();
        let orphaned = Orphaned {
            owner: Some(dead),
            name: &removal,
            again,
        };
        let (mut count, mut cursor) = (0, 0_u64);
        let mut reported = Instant::now();
        loop {
            let mut command = redis::cmd("SSCAN");
            command.arg(scripts.keys.node(dead));
            command.arg(cursor).arg("COUNT").arg(BATCH);
            let answer = items(self.commands.command(&command, Repeat::Safe).await?)?;
            let Ok([next, ids]) = <[Value; 2]>::try_from(answer) else {
                return Err(malformed("a page of connections of another length"));
            };
            let ids: HashSet<String> = decode(ids)?; // a page may name a connection twice
            let ids: Vec<_> = ids.iter().filter_map(|id| ConnectionId::parse(id).ok()).collect();
            for ids in ids.chunks(BATCH) {
                count += self.reap_some(&hub, &orphaned, ids).await?;
            }
            if reported.elapsed().as_secs() >= 1 {
                reported = Instant::now();
                info!(node = %dead, hub = %name, connections = count, "removing a dead node");
            }
            cursor = decode(next)?;
            if cursor == 0 {
                return Ok(count);
            }
        }
    }

    async fn reap_some(
        &self,
        hub: &Reaped<'_>,
        orphaned: &Orphaned<'_>,
        ids: &[ConnectionId],
    ) -> Result<usize, BackplaneError> {
        let begun = Instant::now();
        let dead = orphaned.owner.filter(|_| !orphaned.again);
        let Some(dead) = dead else {
            return self.remove_orphans(hub, orphaned, ids).await;
        };
        let park = |id| hub.scripts.park_call(dead, id, None, None, NODE_DIED);
        let calls = ids.iter().map(park).collect();
        let parked = hub.scripts.writer.carry_out_all(calls, Patience::Short).await?;
        let mut others = Vec::new();
        for (id, parked) in ids.iter().zip(parked) {
            if !decode::<bool>(parked)? {
                others.push(id.clone());
            }
        }
        self.rest(begun).await;
        let removed = self.remove_orphans(hub, orphaned, &others).await?;
        Ok(ids.len() - others.len() + removed)
    }

    /// Removes parked connections of a hub whose time is up.
    pub(in crate::redis) async fn remove_expired(&self, hub: &Hub) -> Result<(), BackplaneError> {
        let reaped = Reaped {
            scripts: &hub.scripts,
            served: Some(hub),
        };
        let removal = Uuid::new_v4().simple().to_string();
        let parked = Orphaned {
            owner: None,
            name: &removal,
            again: false,
        };
        loop {
            let ids = self.overdue(hub.scripts.keys.parked()).await?;
            let removed = self.remove_orphans(&reaped, &parked, &ids).await?;
            if removed > 0 {
                debug!(hub = %hub.name, removed, "parked connections were not resumed in time");
            }
            if ids.len() < BATCH || removed == 0 {
                return Ok(());
            }
        }
    }

    /// Finishes removals that their node has left unfinished.
    pub(in crate::redis) async fn unlist_overdue(&self, hub: &Hub) -> Result<(), BackplaneError> {
        let ids = self.overdue(hub.scripts.keys.leaving()).await?;
        if !ids.is_empty() {
            self.unlist(&hub.scripts, ids).await;
        }
        Ok(())
    }

    async fn overdue(&self, key: String) -> Result<Vec<ConnectionId>, BackplaneError> {
        let call = Invocation::of(Overdue {
            waiting: key,
            most: BATCH,
        });
        let ids: Vec<String> = decode(self.commands.script(&call, Repeat::Safe).await?)?;
        Ok(ids.iter().filter_map(|id| ConnectionId::parse(id).ok()).collect())
    }

    /// Removes connections without a living node, and reports them to this node's service, if it serves the hub.
    async fn remove_orphans(
        &self,
        hub: &Reaped<'_>,
        orphaned: &Orphaned<'_>,
        ids: &[ConnectionId],
    ) -> Result<usize, BackplaneError> {
        if ids.is_empty() {
            return Ok(0);
        }
        let begun = Instant::now();
        let nothing = Bytes::new();
        let removal = Removal {
            owner: orphaned.owner,
            name: orphaned.name,
            // No tombstone for a connection that may have moved since: its owner is yet to register it.
            tombstone: if orphaned.again {
                Duration::ZERO
            } else {
                self.options.orphan_tombstone
            },
            reporter: hub.served.map(|_| &self.options.node),
            report: (!orphaned.again).then_some(&nothing),
            reason: if orphaned.owner.is_some() { NODE_DIED } else { "" },
            ..Removal::default()
        };
        let calls = ids.iter().map(|id| hub.scripts.remove_call(id, &removal));
        let noted = hub.served.filter(|hub| hub.scripts.options.reports_ends);
        if let Some(hub) = noted {
            ids.iter().for_each(|id| hub.ends.lock().begin(id.clone()));
        }
        let outcome = hub
            .scripts
            .writer
            .carry_out_all(calls.collect(), Patience::Short)
            .await;
        let removed = outcome.and_then(|answers| {
            let answers = answers.into_iter().map(removed);
            answers.collect::<Result<Vec<_>, _>>()
        });
        let (mut count, mut left) = (0, Vec::new());
        let mut orphans = Vec::new();
        for (id, gone) in ids.iter().zip(removed.as_ref().map_or(&[][..], Vec::as_slice)) {
            let Some(gone) = gone else { continue };
            count += 1;
            if gone.left > 0 {
                left.push(id.clone());
            }
            orphans.push(ConnectionRecord {
                id: id.clone(),
                user: gone.user.clone(),
                state: gone.state.clone(),
                event: EventRecord::default(),
            });
        }
        if let Some(hub) = noted {
            let reported: HashSet<_> = orphans.iter().map(|orphan| &orphan.id).collect();
            let others = ids.iter().filter(|id| !reported.contains(id));
            others.for_each(|id| hub.ends.lock().abandon(id));
        }
        removed?;
        self.rest(begun).await;
        if !left.is_empty() {
            self.unlist(hub.scripts, left).await;
        }
        if let Some(served) = hub.served {
            served.events.news.notify_waiters();
            self.report_orphans(served, orphans).await;
        }
        Ok(count)
    }

    async fn report_orphans(&self, hub: &Hub, orphans: Vec<ConnectionRecord>) {
        for connection in orphans {
            if self.is_reporter(hub, &connection.id).await
                && let Some(service) = self.service()
            {
                service.orphan_removed(&hub.name, connection, Bytes::new());
            }
        }
    }
}
