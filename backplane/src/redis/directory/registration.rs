//! Registers a hub's connections again after the server forgot them: beside the beats, in batches with a pause after
//! each, so that no other call waits long. Each hub has its own task: in a cluster, masters forget one by one.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::try_join_all;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tracing::{debug, info};

use crate::error::BackplaneError;
use crate::position::Epoch;
use crate::redis::directory::removal::{Removal, removed};
use crate::redis::feed::hub::Hub;
use crate::redis::feed::local::Registration;
use crate::redis::inner::Inner;
use crate::redis::script::calls::connections::Register;
use crate::redis::script::hub_scripts::{Extent, HubScripts};
use crate::redis::script::invocation::Invocation;
use crate::redis::script::settings::{EventSettings, PresenceSettings};
use crate::redis::script::writer::Patience;
use crate::redis::server::commands::Repeat;
use crate::redis::server::replies::{decode, items, malformed};
use crate::topic::{ConnectionId, GroupName};
use crate::wire::membership::Change;
use redis::Value;
use uuid::Uuid;

/// Groups that one call names: a few milliseconds where each has a presence message.
const STEP: usize = 60;
/// Groups that the first call for a connection names.
const FIRST: usize = 8;
/// Connections and groups that are registered in one round trip.
const BATCH: usize = 64;
/// Time that a new subscription waits for connections to be registered again.
const PATIENCE: Duration = Duration::from_millis(1_000);
/// Connections that are looked at in one round trip, of those that the server lists for this node.
const PAGE: usize = 200;
/// Connections that are removed in one round trip.
const REMOVALS: usize = 32;

/// One registration under way.
struct Progress {
    queue: VecDeque<ConnectionId>,
    /// Connections that are registered in part, with their remaining groups.
    later: VecDeque<(ConnectionId, Vec<GroupName>)>,
    registered: usize,
    lost: usize,
}

/// One call of a batch.
struct RegistrationStep {
    id: ConnectionId,
    /// The number of the connection's groups, where this is the last call for it.
    last: Option<usize>,
}

impl HubScripts {
    /// The call that registers a connection again, with these of its groups.
    fn register_call(&self, registration: &Registration, groups: &[GroupName]) -> Invocation {
        let id = &registration.id;
        let call = Invocation::of(Register {
            connection: self.keys.connection(id),
            groups: self.keys.groups(id),
            owned: self.keys.node(&self.node),
            tombstone: self.keys.closed(id),
            group_names: self.keys.group_names(),
            parked: self.keys.parked(),
            node: &self.node,
            id,
            user: registration.user.as_ref(),
            entered: registration.entered,
            group_prefix: self.keys.group_prefix(),
            user_prefix: self.keys.user_prefix(),
            presence: self.presence.as_ref(),
            version: registration.version,
            node_prefix: self.keys.node_prefix(),
            reported: registration.event.as_deref(),
            some: groups.iter().collect(),
        });
        call.costing(2 + groups.len())
    }
}

impl Progress {
    /// The calls of the next batch, for the present state of the connections.
    fn next_batch(&mut self, hub: &Hub) -> (Vec<RegistrationStep>, Vec<Invocation>) {
        let local = hub.local.lock();
        let (mut steps, mut calls, mut size) = (Vec::new(), Vec::new(), 0);
        while size < BATCH {
            // All connections come first, so that the directory soon has their owners.
            let (id, wanted) = match self.queue.pop_front() {
                Some(id) => (id, None),
                None => match self.later.pop_front() {
                    Some((id, groups)) => (id, Some(groups)),
                    None => break,
                },
            };
            let Some(registration) = local.registration(&id).filter(|_| local.awaits_registration(&id))
            else {
                continue; // the connection has ended, or another call has registered it
            };
            let (mut groups, most): (Vec<_>, _) = match wanted {
                None => (registration.groups.clone(), FIRST),
                Some(wanted) => {
                    let now: HashSet<_> = registration.groups.iter().collect();
                    let still = wanted.into_iter().filter(|group| now.contains(group));
                    (still.collect(), STEP)
                }
            };
            let rest = groups.split_off(groups.len().min(most));
            size += 1 + groups.len();
            calls.push(hub.scripts.register_call(&registration, &groups));
            steps.push(RegistrationStep {
                last: rest.is_empty().then_some(registration.groups.len()),
                id: id.clone(),
            });
            if !rest.is_empty() {
                self.later.push_front((id, rest));
            }
        }
        (steps, calls)
    }
}

impl Inner {
    /// Looks for new epochs of a hub until closing, also where the server forgot without losing a connection.
    pub(in crate::redis) async fn run_registration(self: Arc<Self>, hub: Arc<Hub>) {
        let mut ticks = interval(self.options.heartbeat_interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let round = async {
                tokio::select! {
                    _ = ticks.tick() => {}
                    () = hub.tend.notified() => {}
                }
                self.renew(&hub).await
            };
            tokio::select! {
                () = self.closing.cancelled() => return,
                outcome = round => if let Err(error) = outcome {
                    debug!(hub = %hub.name, %error, "a hub can't be registered yet");
                },
            }
        }
    }

    /// Registers the hubs of a server that may have forgotten them. Where that takes long it goes on in the background.
    pub(in crate::redis) async fn renew_soon(&self, hubs: &[Arc<Hub>]) -> Result<(), BackplaneError> {
        let renewing = try_join_all(hubs.iter().map(|hub| self.renew(hub)));
        match timeout(PATIENCE, renewing).await {
            Ok(outcome) => outcome.map(drop),
            Err(_) => {
                hubs.iter().for_each(|hub| hub.tend.notify_one());
                Ok(())
            }
        }
    }

    /// Registers this node's connections again where the log of a hub is in another epoch. The future may be dropped
    /// half-way; the next call goes on from there.
    async fn renew(&self, hub: &Hub) -> Result<(), BackplaneError> {
        let _turn = hub.renewing.lock().await;
        let Extent { epoch, evicted, .. } = hub.scripts.extent(&self.commands).await?;
        if self.nodes.is_barred() {
            return Ok(());
        }
        if hub.registered() != epoch || hub.has_evicted(evicted, self.options.lease) {
            self.register_all(hub, &epoch).await?;
            hub.set_evicted(evicted);
        }
        self.tidy_up(hub, &epoch).await
    }

    async fn register_all(&self, hub: &Hub, epoch: &Epoch) -> Result<(), BackplaneError> {
        let begun = Instant::now();
        hub.pushes.request_catch_up(); // the lane must see the epoch also where nothing is published
        self.note_options(hub).await?;
        let queue = {
            let _gate = hub.gate.write().await; // no claim is under way
            hub.local
                .lock()
                .begin_registration(epoch, hub.registered() == *epoch)
        };
        let all = queue.len();
        let mut progress = Progress {
            queue: queue.into(),
            later: VecDeque::new(),
            registered: 0,
            lost: 0,
        };
        let mut reported = Instant::now();
        while self.register_some(hub, &mut progress).await? {
            if reported.elapsed() > Duration::from_secs(1) {
                reported = Instant::now();
                let registered = progress.registered;
                info!(hub = %hub.name, registered, of = all, "registering this node's connections again");
            }
        }
        self.note_registered(hub, epoch.as_str()).await?;
        hub.set_registered(epoch);
        info!(
            hub = %hub.name,
            connections = progress.registered,
            lost = progress.lost,
            took_ms = begun.elapsed().as_millis() as u64,
            "registered in the hub's new epoch"
        );
        Ok(())
    }

    /// Removes connections that the server lists for this node and the node does not have, because the server went back
    /// to an earlier state. Does nothing until every node has registered: until then, another node may have taken such
    /// a connection over.
    async fn tidy_up(&self, hub: &Hub, epoch: &Epoch) -> Result<(), BackplaneError> {
        let Some(age) = hub.untidied(epoch) else {
            return Ok(());
        };
        if age < self.options.settled(false) && !self.is_settled(hub, epoch.as_str(), age).await? {
            return Ok(()); // the next round looks again
        }
        let removed = self.remove_unknown(hub).await?;
        hub.set_tidied(epoch);
        if removed > 0 {
            info!(hub = %hub.name, removed, "removed connections that had ended before Redis went back to an older state");
        }
        Ok(())
    }

    /// Registers one batch. Returns whether there is more to do.
    async fn register_some(&self, hub: &Hub, progress: &mut Progress) -> Result<bool, BackplaneError> {
        let begun = Instant::now();
        let (steps, answers) = {
            let _gate = hub.gate.write().await;
            let (steps, calls) = progress.next_batch(hub);
            if steps.is_empty() {
                return Ok(false);
            }
            let answers = hub.scripts.writer.carry_out_all(calls, Patience::Short).await?;
            let answers = self.registered(hub, &steps, answers)?;
            (steps, answers)
        };
        for (step, answer) in steps.iter().zip(answers) {
            match answer {
                StepOutcome::Registered => progress.registered += usize::from(step.last.is_some()),
                StepOutcome::Others => {
                    progress.registered += 1;
                    self.leave_unknown_groups(hub, &step.id).await?;
                }
                StepOutcome::Refused => {
                    progress.lost += 1;
                    continue;
                }
            }
            if step.last.is_some() {
                let registering = self.register_states(hub, &step.id).await;
                registering.inspect_err(|_| hub.local.lock().await_registration(&step.id))?;
            }
        }
        self.rest(begun).await;
        Ok(true)
    }

    /// Registers one connection at once, because a call is about to change it.
    pub(in crate::redis) async fn register_now(
        &self,
        hub: &Hub,
        id: &ConnectionId,
    ) -> Result<(), BackplaneError> {
        let mut progress = Progress {
            queue: VecDeque::from([id.clone()]),
            later: VecDeque::new(),
            registered: 0,
            lost: 0,
        };
        while self.register_some(hub, &mut progress).await? {}
        Ok(())
    }

    /// Applies answers. Connections that the server refuses, because another node took them over or removed them, are
    /// given up.
    fn registered(
        &self,
        hub: &Hub,
        steps: &[RegistrationStep],
        answers: Vec<Value>,
    ) -> Result<Vec<StepOutcome>, BackplaneError> {
        let apply = |(step, groups): (&RegistrationStep, Value)| {
            let groups: i64 = decode(groups)?;
            if groups < 0 {
                if hub.local.lock().lose(&step.id)
                    && let Some(service) = self.service()
                {
                    service.connection_lost(&hub.name, &step.id);
                }
                return Ok(StepOutcome::Refused);
            }
            let Some(known) = step.last else {
                return Ok(StepOutcome::Registered);
            };
            hub.local.lock().end_registration(&step.id);
            let others = usize::try_from(groups).is_ok_and(|groups| groups > known);
            Ok(if others {
                StepOutcome::Others
            } else {
                StepOutcome::Registered
            })
        };
        steps.iter().zip(answers).map(apply).collect()
    }

    /// Takes a connection of this node out of groups that the server lists and this node does not: the server forgot
    /// that the connection left them.
    async fn leave_unknown_groups(&self, hub: &Hub, id: &ConnectionId) -> Result<(), BackplaneError> {
        let mut command = redis::cmd("SMEMBERS");
        command.arg(hub.scripts.keys.groups(id));
        let listed: Vec<String> = decode(self.commands.command(&command, Repeat::Safe).await?)?;
        for group in listed
            .iter()
            .filter_map(|group| GroupName::from_stored(group).ok())
        {
            let _gate = hub.gate.write().await;
            if hub.local.lock().is_member(id, &group) {
                continue;
            }
            hub.scripts.change_group(id, &group, Change::Left, false).await?;
        }
        Ok(())
    }

    /// Removes connections that the server lists for this node and the node does not have: they have ended, and that
    /// was reported. Returns their number.
    async fn remove_unknown(&self, hub: &Hub) -> Result<usize, BackplaneError> {
        let (mut cursor, mut count) = (0_u64, 0);
        loop {
            let mut command = redis::cmd("SSCAN");
            command.arg(hub.scripts.keys.node(&self.options.node));
            command.arg(cursor).arg("COUNT").arg(PAGE);
            let answer = items(self.commands.command(&command, Repeat::Safe).await?)?;
            let Ok([next, found]) = <[Value; 2]>::try_from(answer) else {
                return Err(malformed("a page of connections of another length"));
            };
            let found: Vec<String> = decode(found)?;
            let found: Vec<_> = found
                .iter()
                .filter_map(|id| ConnectionId::parse(id).ok())
                .collect();
            for ids in found.chunks(REMOVALS) {
                let begun = Instant::now();
                let left = self.remove_if_unknown(hub, ids.to_vec(), &mut count).await?;
                self.rest(begun).await;
                if !left.is_empty() {
                    self.unlist(&hub.scripts, left).await;
                }
            }
            cursor = decode(next)?;
            if cursor == 0 {
                return Ok(count);
            }
        }
    }

    /// Removes connections that this node does not have. Returns those that are still listed in groups.
    async fn remove_if_unknown(
        &self,
        hub: &Hub,
        mut ids: Vec<ConnectionId>,
        count: &mut usize,
    ) -> Result<Vec<ConnectionId>, BackplaneError> {
        let _gate = hub.gate.write().await; // no claim is under way
        {
            let local = hub.local.lock();
            ids.retain(|id| !local.contains(id) && !local.departures.contains(id));
        }
        if ids.is_empty() {
            return Ok(ids);
        }
        let name = Uuid::new_v4().simple().to_string();
        let removal = Removal {
            owner: Some(&self.options.node),
            name: &name,
            tombstone: self.options.orphan_tombstone,
            reason: "server",
            ..Removal::default()
        };
        let calls = ids
            .iter()
            .map(|id| hub.scripts.remove_call(id, &removal))
            .collect();
        let answers = hub.scripts.writer.carry_out_all(calls, Patience::Short).await?;
        let mut left = Vec::new();
        for (id, answer) in ids.into_iter().zip(answers) {
            if let Some(gone) = removed(answer)? {
                *count += 1;
                if gone.left > 0 {
                    left.push(id);
                }
            }
        }
        Ok(left)
    }

    /// Registers a hub for the nodes that may have to clean up after this one.
    pub(in crate::redis) async fn note_hub(&self, hub: &Hub) -> Result<(), BackplaneError> {
        let mut command = redis::cmd("SADD");
        command.arg(self.keys.hubs()).arg(hub.name.as_str());
        self.commands.command(&command, Repeat::Safe).await.map(drop)
    }

    /// Stores the hub's options that matter at the end of connections, for nodes that clean up and don't serve the hub.
    pub(in crate::redis) async fn note_options(&self, hub: &Hub) -> Result<(), BackplaneError> {
        let mut command = redis::cmd("HSET");
        let HubScripts {
            keys,
            presence,
            events,
            ..
        } = &hub.scripts;
        let presence = presence.as_ref().map(|presence| presence.stored(keys));
        let events = events.as_ref().map(EventSettings::stored);
        command.arg(keys.log());
        command.arg("presence").arg(presence.unwrap_or_default());
        let states = PresenceSettings::of_own(&hub.scripts.options);
        command.arg("states").arg(states.stored(keys));
        command.arg("events").arg(events.unwrap_or_default());
        command
            .arg("ends")
            .arg(u8::from(hub.scripts.options.reports_ends));
        command
            .arg("tails")
            .arg(hub.scripts.options.tail_life_ms() as u64);
        self.commands.command(&command, Repeat::Safe).await.map(drop)
    }

    /// Sends departures and deletions of end records that still wait; `false` where some are left.
    pub(in crate::redis) async fn finish_hub(self: &Arc<Self>, hub: &Arc<Hub>) -> bool {
        let reported = self.report_departures(hub).await.is_ok() && self.forget_reported(hub).await.is_ok();
        let local = hub.local.lock();
        reported && local.is_empty() && local.departures.is_empty() && hub.ends.lock().is_empty()
    }
}

/// The outcome of a step.
enum StepOutcome {
    Registered,
    /// The server lists more groups.
    Others,
    Refused,
}
