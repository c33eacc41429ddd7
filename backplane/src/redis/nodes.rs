//! Signs of life: this node's own, what they tell of the others, and what follows when the server forgot.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwap;
use redis::Value;
use tokio::sync::{Mutex, watch};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tracing::{debug, info, warn};

use super::commands::Repeat;
use super::hub::Hub;
use super::inner::Inner;
use super::link::{decode, items, malformed};
use super::options::RedisOptions;
use super::script::{Invocation, Name};
use super::writer::Patience;
use crate::error::BackplaneError;
use crate::random;
use crate::topic::NodeId;

/// Connections that are registered again in one round trip.
const REGISTRATIONS: usize = 200;

pub(super) struct Nodes {
    state: Mutex<State>,
    /// Others are removing this node's connections.
    barred: AtomicBool,
    living: watch::Sender<Arc<HashSet<NodeId>>>,
    secret: ArcSwap<Arc<[u8]>>,
}

#[derive(Default)]
struct State {
    /// The cluster's epoch in which everything of this node is registered.
    epoch: Option<String>,
    /// From when on other nodes' ended leases mean that they died: after an outage all leases have ended.
    reap_from: Option<Instant>,
    last_beat: Option<Instant>,
    left: bool,
}

/// What a heartbeat is told.
struct Beat {
    epoch: String,
    standing: u8,
    secret: Vec<u8>,
    living: Vec<String>,
    dead: Vec<String>,
}

/// This node's place among the nodes, as `heartbeat.lua` has it.
const NEW: u8 = 0;
const BEING_REMOVED: u8 = 2;

impl Nodes {
    pub(super) fn new(options: &RedisOptions) -> Self {
        let secret = options.cluster_secret.clone().unwrap_or_else(random::secret);
        Self {
            state: Mutex::default(),
            barred: AtomicBool::new(false),
            living: watch::Sender::default(),
            secret: ArcSwap::from_pointee(secret),
        }
    }

    pub(super) fn secret(&self) -> Arc<[u8]> {
        Arc::clone(&self.secret.load())
    }

    pub(super) fn living(&self) -> watch::Receiver<Arc<HashSet<NodeId>>> {
        self.living.subscribe()
    }

    pub(super) fn is_barred(&self) -> bool {
        self.barred.load(Ordering::Acquire)
    }
}

impl Inner {
    /// Gives signs of life until closing.
    pub(super) async fn run_heartbeat(self: Arc<Self>) {
        let mut ticks = interval(self.options.heartbeat_interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = self.closing.cancelled() => return,
                _ = ticks.tick() => {}
            }
            let beaten = self.beat().await;
            if let Err(error) = beaten.and(self.read_clock().await) {
                debug!(%error, "heartbeat failed");
            }
        }
    }

    /// One sign of life, and what it leads to: registering again, ending as a fenced node, removing dead nodes.
    pub(super) async fn beat(self: &Arc<Self>) -> Result<(), BackplaneError> {
        let mut state = self.nodes.state.lock().await;
        if state.left {
            return Ok(());
        }
        let outcome = self.beat_once(&mut state).await;
        if outcome.is_err() {
            state.reap_from = None;
        }
        self.standing
            .set_beating(outcome.is_ok() && !self.nodes.is_barred());
        outcome
    }

    async fn beat_once(self: &Arc<Self>, state: &mut State) -> Result<(), BackplaneError> {
        let beat = self.ask().await?;
        if self.options.cluster_secret.is_none() && *self.nodes.secret() != *beat.secret {
            self.nodes.secret.store(Arc::new(beat.secret.into()));
        }
        let living: HashSet<_> = beat
            .living
            .iter()
            .filter_map(|node| NodeId::parse(node).ok())
            .collect();
        self.nodes.living.send_if_modified(|known| {
            let changed = **known != living;
            if changed {
                *known = Arc::new(living);
            }
            changed
        });
        let same_epoch = state.epoch.as_ref() == Some(&beat.epoch);
        if !self.check_fence(beat.standing, same_epoch) {
            return Ok(());
        }
        if !same_epoch {
            if state.epoch.is_some() {
                self.register_again().await?;
            }
            state.epoch = Some(beat.epoch);
        }
        // Hubs of a cluster are tended apart: one whose server is down must not keep this node's next sign of life.
        let tends_hubs = !self.commands.topology().is_cluster();
        if tends_hubs {
            self.finish_unfinished().await;
        }
        let may_reap = self.may_reap(state);
        // Who is not yet told of removed connections must not remove any.
        if self.service().is_some() {
            for dead in beat.dead.into_iter().filter(|_| may_reap) {
                self.tasks.spawn(Arc::clone(self).reap(dead));
            }
            for hub in self.all_hubs().iter().filter(|_| tends_hubs) {
                self.remove_expired(hub).await?;
            }
        }
        Ok(())
    }

    /// Whether ended leases mean dead nodes. Where this node's own heartbeats came late, so may those of others:
    /// then everybody is given the time of a whole lease.
    fn may_reap(&self, state: &mut State) -> bool {
        let now = Instant::now();
        let in_time =
            |last: Instant| now.saturating_duration_since(last) <= self.options.heartbeat_interval * 2;
        if !state.last_beat.is_some_and(in_time) {
            state.reap_from = None;
        }
        state.last_beat = Some(now);
        now >= *state.reap_from.get_or_insert(now + self.options.lease)
    }

    async fn ask(&self) -> Result<Beat, BackplaneError> {
        let keys = vec![
            self.keys.cluster(),
            self.keys.nodes(),
            self.keys.dying(),
            self.keys.secret(),
        ];
        let call = Invocation::new(Name::Heartbeat, keys)
            .arg(self.options.node.to_string())
            .number(self.options.lease.as_millis())
            .number(self.options.orphan_grace.as_millis())
            .arg(self.nodes.secret().to_vec());
        let answer = items(self.commands.script(&call, Repeat::Safe).await?)?;
        let Ok([epoch, standing, secret, living, dead]) = <[Value; 5]>::try_from(answer) else {
            return Err(malformed("a heartbeat of another length"));
        };
        Ok(Beat {
            epoch: decode(epoch)?,
            standing: decode(standing)?,
            secret: decode(secret)?,
            living: decode(living)?,
            dead: decode(dead)?,
        })
    }

    /// Notices that others have removed, or are removing, this node's connections. Returns whether it may go on.
    fn check_fence(&self, standing: u8, same_epoch: bool) -> bool {
        let removing = standing == BEING_REMOVED;
        let was_barred = self.nodes.barred.swap(removing, Ordering::AcqRel);
        // A node that is new in an epoch in which it was registered has been forgotten by those who removed it.
        if !was_barred && (removing || (standing == NEW && same_epoch)) {
            self.fenced();
        }
        !removing
    }

    pub(super) fn fenced(&self) {
        warn!("this node's lease ended and its connections were removed");
        if let Some(service) = self.service() {
            service.fenced();
        }
    }

    /// Tells the server again what this node has, because the server may have forgotten. The servers of a cluster
    /// forget one by one, see [`Inner::run_renewals`].
    async fn register_again(&self) -> Result<(), BackplaneError> {
        let (mut registered, mut refused) = (0, 0);
        for hub in self.all_hubs() {
            self.note_hub(&hub).await?;
            if !self.commands.topology().is_cluster() {
                let counts = self.register_hub(&hub).await?;
                registered += counts.0;
                refused += counts.1;
            }
        }
        info!(
            connections = registered,
            "registered again after the server began a new epoch"
        );
        if refused > 0 {
            self.fenced(); // somebody took them over or removed them while this node was away
        }
        Ok(())
    }

    /// Tells the server again what this node has of a hub: how many connections, and how many were refused.
    pub(super) async fn register_hub(&self, hub: &Hub) -> Result<(u64, u64), BackplaneError> {
        let (mut registered, mut refused) = (0, 0);
        let _gate = hub.gate.write().await;
        self.note_presence(hub).await?;
        let registrations = hub.local.lock().registrations();
        for registrations in registrations.chunks(REGISTRATIONS) {
            let call = |r: &super::local::Registration| {
                hub.scripts
                    .register_call(&r.id, r.user.as_ref(), r.entered, &r.groups)
            };
            let calls = registrations.iter().map(call).collect();
            for answer in hub.scripts.writer.carry_out_all(calls, Patience::Short).await? {
                registered += 1;
                refused += u64::from(!decode::<bool>(answer)?);
            }
        }
        Ok((registered, refused))
    }

    /// Lets the nodes that may have to clean up after this one know of a hub.
    pub(super) async fn note_hub(&self, hub: &Hub) -> Result<(), BackplaneError> {
        let mut command = redis::cmd("SADD");
        command.arg(self.keys.hubs()).arg(hub.name.as_str());
        self.commands.command(&command, Repeat::Safe).await.map(drop)
    }

    /// Lets those of them that don't serve the hub tell of who goes.
    pub(super) async fn note_presence(&self, hub: &Hub) -> Result<(), BackplaneError> {
        if hub.scripts.presence.is_empty() {
            return Ok(());
        }
        let mut command = redis::cmd("HSET");
        let (log, presence) = (hub.scripts.keys.log(), &hub.scripts.presence);
        command.arg(log).arg("presence").arg(presence);
        self.commands.command(&command, Repeat::Safe).await.map(drop)
    }

    /// Tells the server what could not be told before.
    async fn finish_unfinished(&self) {
        for hub in self.all_hubs() {
            if !self.finish_hub(&hub).await {
                return;
            }
        }
    }

    /// Tells the server what could not be told before of one hub; `false` where that still has to wait.
    pub(super) async fn finish_hub(&self, hub: &Hub) -> bool {
        let unfinished: Vec<_> = {
            let local = hub.local.lock();
            local
                .unfinished
                .iter()
                .map(|(id, what)| (id.clone(), what.clone()))
                .collect()
        };
        for (id, what) in unfinished {
            let _gate = hub.gate.write().await;
            if hub.local.lock().contains(&id) {
                continue; // claimed again
            }
            match self.finish_one(hub, &id, &what).await {
                Ok(_) => drop(hub.local.lock().unfinished.remove(&id)),
                Err(error) if error.is_transient() => {
                    debug!(%error, "a removal still has to wait");
                    return false;
                }
                Err(error) => {
                    warn!(%error, "a removal was refused");
                    hub.local.lock().unfinished.remove(&id);
                }
            }
        }
        true
    }

    /// Gives the lease up. What this node still has is left to the others.
    pub(super) async fn leave_cluster(&self) {
        let mut state = self.nodes.state.lock().await;
        self.finish_unfinished().await;
        state.left = true;
        let clean = self.all_hubs().iter().all(|hub| {
            let local = hub.local.lock();
            local.is_empty() && local.unfinished.is_empty()
        });
        let mut command = redis::cmd(if clean { "ZREM" } else { "ZADD" });
        command.arg(self.keys.nodes());
        if !clean {
            command.arg("XX").arg(0);
        }
        command.arg(self.options.node.as_str());
        if let Err(error) = self.commands.command(&command, Repeat::Safe).await {
            debug!(%error, "the lease ends by itself");
        }
    }

    pub(super) async fn list_nodes(&self) -> Result<Vec<NodeId>, BackplaneError> {
        let now = self.read_clock().await?;
        let mut command = redis::cmd("ZRANGEBYSCORE");
        command.arg(self.keys.nodes()).arg(format!("({now}")).arg("+inf");
        let nodes: Vec<String> = decode(self.commands.command(&command, Repeat::Safe).await?)?;
        Ok(nodes.iter().filter_map(|node| NodeId::parse(node).ok()).collect())
    }
}
