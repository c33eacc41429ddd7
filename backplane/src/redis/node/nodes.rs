//! Beats: this node's own, the liveness of the others that their answers show, and leaving.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex as SyncMutex;
use tokio::sync::{Mutex, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tracing::{debug, warn};

use crate::error::BackplaneError;
use crate::random;
use crate::redis::inner::Inner;
use crate::redis::node::beat::{Beat, BeatLink};
use crate::redis::node::liveness::{LEFT, Liveness, Observation};
use crate::redis::node::reaper::{Lost, lost};
use crate::redis::options::RedisOptions;
use crate::redis::script::calls::nodes::Heartbeat;
use crate::redis::script::invocation::Invocation;
use crate::redis::server::backoff::Backoff;
use crate::redis::server::commands::Repeat;
use crate::redis::server::replies::decode;
use crate::topic::NodeId;

/// Number of answered beats in a row without a node after which that node is not alive.
pub(in crate::redis) const ABSENCES: u64 = 2;

/// Most nodes that are remembered after they left.
const MOST_GONE: usize = 10_000;

pub(in crate::redis) struct Nodes {
    state: Mutex<NodesState>,
    /// True if other nodes are removing this node's connections.
    barred: AtomicBool,
    living: watch::Sender<Arc<HashSet<NodeId>>>,
    /// Nodes that are listed and not alive.
    silent: ArcSwap<HashSet<NodeId>>,
    /// The cluster's epoch.
    epoch: watch::Sender<Option<String>>,
    /// Nodes whose connections were removed, with their last counts.
    gone: SyncMutex<HashMap<NodeId, i64>>,
    /// Nodes whose connections are to be removed, as far as this node knows.
    lost: watch::Sender<Vec<Lost>>,
    /// Number of beats that were answered; `sent` is the time at which the last of them was sent.
    beats: watch::Sender<u64>,
    sent: ArcSwap<Option<Instant>>,
    secret: ArcSwap<Arc<[u8]>>,
}

struct NodesState {
    link: BeatLink,
    liveness: Liveness,
    /// Nodes that are listed, also dead ones, and their counts.
    listed: HashMap<NodeId, i64>,
    /// This node's count in the last answer, and the number of tries to raise it since.
    count: Option<i64>,
    tries: i64,
    left: bool,
}

impl Nodes {
    pub(in crate::redis) fn new(options: &RedisOptions) -> Self {
        let secret = options.cluster_secret.clone().unwrap_or_else(random::secret);
        let state = NodesState {
            link: BeatLink::default(),
            liveness: Liveness::new(options.heartbeat_interval, options.lease),
            listed: HashMap::new(),
            count: None,
            tries: 0,
            left: false,
        };
        Self {
            state: Mutex::new(state),
            barred: AtomicBool::new(false),
            living: watch::Sender::default(),
            silent: ArcSwap::default(),
            epoch: watch::Sender::default(),
            gone: SyncMutex::default(),
            lost: watch::Sender::default(),
            beats: watch::Sender::default(),
            sent: ArcSwap::default(),
            secret: ArcSwap::from_pointee(secret),
        }
    }

    pub(in crate::redis) fn secret(&self) -> Arc<[u8]> {
        Arc::clone(&self.secret.load())
    }

    pub(in crate::redis) fn living(&self) -> watch::Receiver<Arc<HashSet<NodeId>>> {
        self.living.subscribe()
    }

    pub(in crate::redis) fn epoch(&self) -> watch::Receiver<Option<String>> {
        self.epoch.subscribe()
    }

    pub(in crate::redis) fn lost(&self) -> watch::Receiver<Vec<Lost>> {
        self.lost.subscribe()
    }

    /// The number of beats that were answered. Each answer shows which nodes are alive.
    pub(in crate::redis) fn beats(&self) -> watch::Receiver<u64> {
        self.beats.subscribe()
    }

    /// Resolves when a node is not alive, as far as this one can see: [`ABSENCES`] answered beats in a row did not name
    /// it. One is not enough: the node may have just started, or be about to register with a server that forgot it.
    pub(in crate::redis) async fn missing(&self, node: &NodeId) {
        let (mut living, mut beats) = (self.living(), self.beats());
        let counting = async {
            loop {
                living.wait_for(|living| !living.contains(node)).await?;
                let long_enough = beats.borrow().saturating_add(ABSENCES);
                tokio::select! {
                    biased;
                    back = living.wait_for(|living| living.contains(node)) => drop(back?),
                    missing = beats.wait_for(|beats| *beats >= long_enough) => return missing.map(drop),
                }
            }
        };
        if counting.await.is_err() {
            std::future::pending::<()>().await; // this node ends: there will be no more beats
        }
    }

    /// Resolves when a node is alive.
    pub(in crate::redis) async fn alive(&self, node: &NodeId) {
        let mut living = self.living();
        if living.wait_for(|living| living.contains(node)).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Returns whether no other node can have taken this one for dead, because a beat was sent within `time`.
    pub(in crate::redis) fn is_fresh(&self, time: Duration) -> bool {
        self.sent.load().is_some_and(|sent| sent.elapsed() < time)
    }

    pub(in crate::redis) fn is_barred(&self) -> bool {
        self.barred.load(Ordering::Acquire)
    }

    /// Records nodes whose connections were removed, with their last counts.
    pub(in crate::redis) fn note_gone(&self, nodes: impl IntoIterator<Item = (NodeId, i64)>) {
        let mut gone = self.gone.lock();
        if gone.len() > MOST_GONE {
            gone.clear();
        }
        gone.extend(nodes);
    }

    /// Updates the listed nodes. A node that is not listed any more in the same epoch was removed; in another epoch,
    /// the server may have forgotten it. A node whose count has gone on since was only taken for dead.
    fn note_listed(&self, state: &mut NodesState, beat: &Beat, same_epoch: bool) {
        let mut listed: HashMap<_, _> = beat.observation.counts.iter().cloned().collect();
        for (node, count) in &listed {
            let mut gone = self.gone.lock();
            if gone.get(node).is_some_and(|gone| gone < count) {
                gone.remove(node);
            }
        }
        for node in beat.dying.keys() {
            if let Ok(node) = NodeId::parse(node) {
                let known = state.listed.get(&node).copied();
                listed.entry(node).or_insert(known.unwrap_or(i64::MIN));
            }
        }
        if same_epoch {
            let removed = state
                .listed
                .iter()
                .filter(|(node, _)| !listed.contains_key(*node));
            self.note_gone(removed.map(|(node, count)| (node.clone(), *count)));
        }
        state.listed = listed;
    }

    fn report_living(&self, liveness: &Liveness, beat: &Beat) {
        let living = liveness.living();
        let listed = beat.observation.counts.iter().map(|(node, _)| node);
        let silent = listed.filter(|node| !living.contains(*node)).cloned().collect();
        self.silent.store(Arc::new(silent));
        self.living.send_if_modified(|known| {
            let changed = **known != living;
            if changed {
                *known = Arc::new(living);
            }
            changed
        });
    }
}

impl Inner {
    /// Sends beats until closing.
    pub(in crate::redis) async fn run_heartbeat(self: Arc<Self>) {
        let mut ticks = interval(self.options.heartbeat_interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut backoff = Backoff::new();
        loop {
            let beat = async {
                ticks.tick().await;
                while let Err(error) = self.beat().await {
                    debug!(%error, "heartbeat failed");
                    // Nodes that reconnect to their server long after others would be dead to those.
                    let _ = timeout(self.options.heartbeat_interval, backoff.wait()).await;
                }
            };
            tokio::select! {
                () = self.closing.cancelled() => return,
                () = beat => backoff = Backoff::new(),
            }
        }
    }

    /// Sends one beat. Other tasks act on its answer, beside it.
    pub(in crate::redis) async fn beat(&self) -> Result<(), BackplaneError> {
        let mut state = self.nodes.state.lock().await;
        if state.left {
            return Ok(());
        }
        let outcome = self.beat_once(&mut state).await;
        if outcome.is_err() {
            state.liveness.interrupt();
        }
        self.standing
            .set_beating(outcome.is_ok() && !self.nodes.is_barred());
        outcome
    }

    async fn beat_once(&self, state: &mut NodesState) -> Result<(), BackplaneError> {
        let call = Invocation::of(Heartbeat {
            cluster: self.keys.cluster(),
            beats: self.keys.beats(),
            dying: self.keys.dying(),
            secret: self.keys.secret(),
            node: &self.options.node,
            own_secret: self.nodes.secret().to_vec().into(),
        });
        let bound = (self.options.lease / 2).min(self.commands.bound());
        let (tries, beat) = state.link.call(&self.commands, &call, bound).await;
        state.tries += i64::from(tries);
        let beat = beat?;
        let Observation { sent, heard, .. } = beat.observation;
        self.commands.clock().observe(sent, heard, beat.time);
        if let Some(secret) = &beat.secret
            && self.options.cluster_secret.is_none()
        {
            self.nodes.secret.store(Arc::new(secret.as_slice().into()));
        }
        let same_epoch = self.nodes.epoch.borrow().as_ref() == Some(&beat.observation.epoch);
        state.liveness.observe(&beat.observation);
        self.nodes.report_living(&state.liveness, &beat);
        self.nodes
            .beats
            .send_modify(|beats| *beats = beats.wrapping_add(1));
        self.check_fence(state, &beat, same_epoch);
        if !self.nodes.is_fresh(self.options.lease / 2) {
            self.all_hubs().iter().for_each(|hub| hub.events.doubt());
        }
        self.nodes.sent.store(Arc::new(Some(sent)));
        if !same_epoch {
            self.nodes
                .epoch
                .send_replace(Some(beat.observation.epoch.clone()));
            self.all_hubs().iter().for_each(|hub| hub.tend.notify_one());
        }
        self.nodes.note_listed(state, &beat, same_epoch);
        let dead = state.liveness.dead(self.options.orphan_grace);
        let lost = lost(
            &self.options.node,
            &beat,
            dead,
            &state.liveness.living(),
            &self.nodes.gone.lock(),
        );
        self.nodes.lost.send_replace(lost);
        Ok(())
    }

    /// Notices that other nodes have removed, or are removing, this node's connections.
    fn check_fence(&self, state: &mut NodesState, beat: &Beat, same_epoch: bool) {
        let removing = beat.count.is_none();
        // Each try raises the count by one at most. A count that begins anew shows that other nodes removed this one.
        let forgotten = match (state.count, beat.count) {
            (Some(known), Some(count)) => count <= known || count > known + state.tries,
            _ => false,
        };
        if let Some(count) = beat.count {
            (state.count, state.tries) = (Some(count), 0);
        }
        let was_barred = self.nodes.barred.swap(removing, Ordering::AcqRel);
        if !was_barred && (removing || (forgotten && same_epoch)) {
            warn!("the other nodes took this one for dead and removed its connections");
            for hub in self.all_hubs() {
                hub.local.lock().be_shut_out();
            }
            if let Some(service) = self.service() {
                service.fenced();
            }
        }
    }

    /// Registers this node's hubs in each epoch of the cluster, for the nodes that may have to clean up after it.
    pub(in crate::redis) async fn run_introductions(self: Arc<Self>) {
        let mut epoch = self.nodes.epoch();
        let mut backoff = Backoff::new();
        loop {
            let introduced = async {
                for hub in self.all_hubs() {
                    self.note_hub(&hub).await?;
                }
                Ok::<_, BackplaneError>(())
            };
            let next = async {
                match introduced.await {
                    Ok(()) => epoch.changed().await.is_ok(),
                    Err(error) => {
                        debug!(%error, "this node's hubs could not be named");
                        backoff.wait().await;
                        true
                    }
                }
            };
            tokio::select! {
                () = self.closing.cancelled() => return,
                goes_on = next => if !goes_on { return },
            }
        }
    }

    /// Leaves the cluster. Connections that this node still has are left to the others.
    pub(in crate::redis) async fn leave_cluster(self: &Arc<Self>) {
        let mut clean = true;
        for hub in self.all_hubs() {
            clean &= self.finish_hub(&hub).await;
            let forgotten = self.forget_registered(&hub.scripts.keys, &self.options.node);
            if let Err(error) = forgotten.await {
                debug!(%error, "the hub goes on listing this node");
            }
        }
        let mut state = self.nodes.state.lock().await;
        state.left = true;
        let mut command = redis::cmd(if clean { "HDEL" } else { "HSET" });
        command.arg(self.keys.beats()).arg(self.options.node.as_str());
        if !clean {
            command.arg(LEFT);
        }
        if let Err(error) = self.commands.command(&command, Repeat::Safe).await {
            debug!(%error, "the others will take this node for dead");
        }
    }

    /// The nodes that are listed, without those that are known not to be alive.
    pub(in crate::redis) async fn list_nodes(&self) -> Result<Vec<NodeId>, BackplaneError> {
        let mut command = redis::cmd("HKEYS");
        command.arg(self.keys.beats());
        let nodes: Vec<String> = decode(self.commands.command(&command, Repeat::Safe).await?)?;
        let nodes = nodes.into_iter().filter_map(|node| NodeId::parse(node).ok());
        let silent = self.nodes.silent.load();
        Ok(nodes.filter(|node| !silent.contains(node)).collect())
    }
}
