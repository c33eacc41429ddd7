//! The backplane of a single node, in its own process, with the semantics of a cluster.

mod connections;
mod directory;
mod events;
mod group_states;
mod history;
mod hub;
mod lane;
mod log;
mod publish;
mod sessions;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;
use tokio::time::{Instant, interval, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::warn;
use uuid::Uuid;

use self::hub::MemoryHub;
use self::lane::run_lane;
use crate::backplane::{Backplane, HubOptions, HubSink, NodeService, Statistics, Status, Unheard};
use crate::error::BackplaneError;
use crate::events::EVENTS_DROPPED;
use crate::hub::HubBackplane;
use crate::position::Epoch;
use crate::random;
use crate::topic::{HubName, NodeId};
use crate::turns::{Turns, TurnsWanted};

/// Longest time between two sweeps, which drop expired entries and tombstones.
const SWEEP_INTERVAL: Duration = Duration::from_secs(5);
/// Shortest time between two sweeps.
const SHORTEST_SWEEP_INTERVAL: Duration = Duration::from_millis(50);

/// The time for which the id of a connection that was not taken over in time stays refused.
const TOMBSTONE: Duration = Duration::from_secs(120);

type Service = ArcSwapOption<Arc<dyn NodeService>>;

/// The [`Backplane`] of a node that is alone: everything is in memory, and ends with the process.
pub struct MemoryBackplane {
    node: NodeId,
    epoch: Epoch,
    secret: Arc<[u8]>,
    status: watch::Sender<Status>,
    hubs: RwLock<HashMap<HubName, Arc<MemoryHub>>>,
    service: Arc<Service>,
    /// The time of the next free turn to let a connection go.
    next_turn: Mutex<Option<Instant>>,
    tasks: TaskTracker,
    closing: CancellationToken,
}

impl MemoryBackplane {
    /// A backplane of which `node` is the only node.
    #[must_use]
    pub fn new(node: NodeId) -> Self {
        Self {
            node,
            epoch: Epoch::new(&Uuid::new_v4().simple().to_string()),
            secret: random::secret(),
            status: watch::Sender::new(Status::Connected),
            hubs: RwLock::default(),
            service: Arc::default(),
            next_turn: Mutex::default(),
            tasks: TaskTracker::new(),
            closing: CancellationToken::new(),
        }
    }

    fn open(
        &self,
        name: HubName,
        options: HubOptions,
        sink: Arc<dyn HubSink>,
    ) -> Result<Arc<MemoryHub>, BackplaneError> {
        if self.closing.is_cancelled() {
            return Err(BackplaneError::Closed);
        }
        let mut hubs = self.hubs.write();
        if hubs.contains_key(&name) {
            return Err(BackplaneError::Config {
                what: format!("hub {name} was opened twice"),
            });
        }
        let period =
            (options.retention.min(options.resume_window) / 4).clamp(SHORTEST_SWEEP_INTERVAL, SWEEP_INTERVAL);
        let (hub, items) = MemoryHub::new(name.clone(), self.node.clone(), self.epoch.clone(), options);
        let hub = Arc::new(hub);
        self.tasks.spawn(run_lane(sink, items, self.closing.clone()));
        let sweeps = Sweeps {
            hub: Arc::clone(&hub),
            service: Arc::clone(&self.service),
        };
        self.tasks.spawn(sweeps.run(period, self.closing.clone()));
        hubs.insert(name, Arc::clone(&hub));
        Ok(hub)
    }

    async fn ask(&self, node: &NodeId, payload: Bytes, bound: Duration) -> Result<Bytes, BackplaneError> {
        let service = self.service.load_full().filter(|_| *node == self.node);
        let Some(service) = service else {
            return Err(BackplaneError::NodeUnreachable { node: node.clone() });
        };
        match timeout(bound, service.serve(payload)).await {
            Err(_) => Err(BackplaneError::Timeout { waited: bound }),
            Ok(Err(error)) => Err(BackplaneError::NodeFailed {
                node: node.clone(),
                reason: error.to_string(),
            }),
            Ok(Ok(reply)) => Ok(reply),
        }
    }
}

impl Backplane for MemoryBackplane {
    fn node(&self) -> &NodeId {
        &self.node
    }

    fn status(&self) -> watch::Receiver<Status> {
        self.status.subscribe()
    }

    fn statistics(&self) -> Statistics {
        let hubs = self.hubs.read();
        Statistics {
            waiting: hubs.values().map(|hub| hub.waiting()).sum(),
            events_dropped: hubs.values().map(|hub| hub.events_dropped()).sum(),
            ..Statistics::default()
        }
    }

    fn warnings(&self) -> Vec<String> {
        Vec::new()
    }

    fn now(&self) -> SystemTime {
        SystemTime::now()
    }

    fn cluster_secret(&self) -> Arc<[u8]> {
        Arc::clone(&self.secret)
    }

    fn open_hub(
        &self,
        name: HubName,
        options: HubOptions,
        sink: Arc<dyn HubSink>,
    ) -> BoxFuture<'_, Result<Arc<dyn HubBackplane>, BackplaneError>> {
        async move { Ok(self.open(name, options, sink)? as Arc<_>) }.boxed()
    }

    fn set_service(&self, service: Arc<dyn NodeService>) {
        self.service.store(Some(Arc::new(service)));
    }

    fn request<'a>(
        &'a self,
        node: &'a NodeId,
        payload: Bytes,
        timeout: Duration,
        _unheard: Unheard,
    ) -> BoxFuture<'a, Result<Bytes, BackplaneError>> {
        self.ask(node, payload, timeout).boxed()
    }

    fn take_turns<'a>(&'a self, wanted: &'a TurnsWanted) -> BoxFuture<'a, Result<Turns, BackplaneError>> {
        async move {
            let (mut next, now) = (self.next_turn.lock(), Instant::now());
            let (first, apart) = (next.map_or(now, |next| next.max(now)), wanted.apart(wanted.need));
            *next = Some(first + apart * wanted.count);
            Ok(Turns {
                wait: first - now,
                apart,
            })
        }
        .boxed()
    }

    fn nodes(&self) -> BoxFuture<'_, Result<Vec<NodeId>, BackplaneError>> {
        async move { Ok(vec![self.node.clone()]) }.boxed()
    }

    fn shutdown(&self) -> BoxFuture<'_, ()> {
        async move {
            self.closing.cancel();
            self.tasks.close();
            self.tasks.wait().await;
        }
        .boxed()
    }
}

/// The periodic sweeps of one hub.
struct Sweeps {
    hub: Arc<MemoryHub>,
    service: Arc<Service>,
}

impl Sweeps {
    async fn run(self, period: Duration, closing: CancellationToken) {
        let mut ticks = interval(period);
        let mut dropped = 0;
        loop {
            tokio::select! {
                () = closing.cancelled() => return,
                _ = ticks.tick() => {}
            }
            self.hub.sweep();
            let now_dropped = self.hub.events_dropped();
            if now_dropped > dropped {
                warn!(hub = %self.hub.name, events = now_dropped - dropped, "{EVENTS_DROPPED}");
                dropped = now_dropped;
            }
            // A node that has no service yet to notify of removed connections must not remove any.
            let Some(service) = self.service.load_full() else {
                continue;
            };
            for connection in self.hub.remove_expired(TOMBSTONE).await {
                service.orphan_removed(&self.hub.name, connection, Bytes::new());
            }
        }
    }
}
