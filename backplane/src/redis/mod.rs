//! The backplane of a cluster of nodes: Redis or Valkey, 6.2 or newer, is the sequencer, the log and the directory. It
//! may be one server, a master that sentinels watch, or a Redis Cluster (7.0 or newer), whose masters share the hubs.
//!
//! When the server loses data, the nodes register their connections again. Clients of a node stay connected while the
//! server can't be reached; calls fail after a bounded time.

mod directory;
mod feed;
mod hub;
mod inner;
mod keys;
mod node;
mod options;
mod publish;
mod script;
mod server;

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use parking_lot::{Mutex, RwLock};
use tokio::sync::{Mutex as AsyncMutex, Notify, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::feed::hub::Hub;
use self::feed::interest::Subject;
use self::feed::lane::Lane;
use self::feed::queue::PushQueue;
use self::hub::RedisHub;
use self::inner::{Inner, Standing};
use self::keys::Keys;
use self::node::nodes::Nodes;
use self::node::rpc::Rpc;
pub use self::options::RedisOptions;
use self::script::hub_scripts::HubScripts;
use self::server::commands::Commands;
use crate::backplane::{Backplane, HubOptions, HubSink, NodeService, Statistics, Status, Unheard};
use crate::error::BackplaneError;
use crate::hub::HubBackplane;
use crate::topic::{HubName, NodeId};
use crate::turns::{Turns, TurnsWanted};

/// The [`Backplane`] of a node of a cluster.
pub struct RedisBackplane {
    inner: Arc<Inner>,
}

impl RedisBackplane {
    /// Connects to the server and becomes a node of the cluster.
    ///
    /// # Errors
    /// [`BackplaneError::Config`] when the settings can't work (wrong password, too old a server),
    /// [`BackplaneError::Unavailable`] when the server was not reached within the command timeout.
    pub async fn connect(options: RedisOptions) -> Result<Self, BackplaneError> {
        options.check()?;
        let (tasks, closing) = (TaskTracker::new(), CancellationToken::new());
        let commands = Commands::open(&options, &tasks, closing.clone()).await?;
        let inner = Arc::new(Inner {
            keys: Keys::new(&options.prefix),
            commands,
            hubs: RwLock::default(),
            writers: Mutex::default(),
            service: ArcSwapOption::empty(),
            nodes: Nodes::new(&options),
            rpc: Rpc::new(options.served_requests),
            standing: Standing::new(),
            unlisting: AsyncMutex::default(),
            wanted: Notify::new(),
            options,
            tasks,
            closing,
        });
        let backplane = Self { inner };
        if let Err(error) = backplane.begin().await {
            backplane.end().await;
            return Err(error);
        }
        Ok(backplane)
    }

    /// Connects to the servers without becoming a node, and returns advice for operators, in sentences.
    ///
    /// # Errors
    /// As [`RedisBackplane::connect`].
    pub async fn inspect(options: RedisOptions) -> Result<Vec<String>, BackplaneError> {
        options.check()?;
        let (tasks, closing) = (TaskTracker::new(), CancellationToken::new());
        let inspected = match Commands::open(&options, &tasks, closing.clone()).await {
            Ok(commands) => commands.topology().inspect(options.command_timeout).await,
            Err(error) => Err(error),
        };
        closing.cancel();
        tasks.close();
        tasks.wait().await;
        inspected
    }

    async fn begin(&self) -> Result<(), BackplaneError> {
        let inner = &self.inner;
        match inner.beat().await {
            Err(error) if !error.is_transient() => return Err(error), // settings that can't work show at once
            _ => {}
        }
        inner.tasks.spawn(Arc::clone(inner).run_heartbeat());
        inner.tasks.spawn(Arc::clone(inner).run_introductions());
        inner.tasks.spawn(Arc::clone(inner).run_reaper());
        inner.tasks.spawn(Arc::clone(inner).run_subscriber());
        let bound = inner.commands.bound();
        if inner.standing.connected(bound).await {
            return Ok(());
        }
        let reason = "the node could not subscribe to its channel".to_owned();
        Err(BackplaneError::Unavailable {
            waited: bound,
            reason,
        })
    }

    async fn end(&self) {
        self.inner.closing.cancel();
        self.inner.tasks.close();
        self.inner.tasks.wait().await;
    }

    async fn open(
        &self,
        name: HubName,
        options: HubOptions,
        sink: Arc<dyn HubSink>,
    ) -> Result<RedisHub, BackplaneError> {
        let inner = &self.inner;
        let (keys, node) = (inner.keys.hub(&name), inner.options.node.clone());
        let writer = inner.writer(&name);
        writer.serve(&options);
        let scripts = HubScripts::new(keys, node, options, writer);
        let extent = scripts.extent(&inner.commands).await?;
        let pushes = PushQueue::new(inner.options.lane_capacity, inner.options.delivery_interval);
        let hub = Hub::new(name.clone(), scripts, &extent, pushes);
        inner.note_hub(&hub).await?;
        inner.note_options(&hub).await?;
        {
            let mut hubs = inner.hubs.write();
            if hubs.contains_key(&name) {
                return Err(BackplaneError::Config {
                    what: format!("hub {name} was opened twice"),
                });
            }
            hubs.insert(name.clone(), Arc::clone(&hub));
        }
        let beginning = async {
            let interested = inner
                .interest(&hub, vec![Subject::Lane], inner.deadline())
                .await?;
            inner.note_registered(&hub, extent.epoch.as_str()).await?;
            interested.keep();
            Ok(())
        };
        if let Err(error) = beginning.await {
            inner.hubs.write().remove(&name); // it may be opened again
            return Err(error);
        }
        let lane = Lane::new(Arc::clone(inner), Arc::clone(&hub), sink, &extent);
        inner.tasks.spawn(lane.run());
        let tasks = &inner.tasks;
        tasks.spawn(Arc::clone(inner).tend_log(Arc::clone(&hub)));
        tasks.spawn(Arc::clone(inner).run_registration(Arc::clone(&hub)));
        tasks.spawn(Arc::clone(inner).run_departures(Arc::clone(&hub)));
        tasks.spawn(Arc::clone(inner).run_reports(Arc::clone(&hub)));
        tasks.spawn(Arc::clone(inner).run_housekeeping(Arc::clone(&hub)));
        Ok(RedisHub {
            inner: Arc::clone(inner),
            hub,
        })
    }
}

impl Backplane for RedisBackplane {
    fn node(&self) -> &NodeId {
        &self.inner.options.node
    }

    fn status(&self) -> watch::Receiver<Status> {
        self.inner.standing.watch()
    }

    fn statistics(&self) -> Statistics {
        let mut statistics = Statistics::default();
        self.inner
            .all_hubs()
            .iter()
            .for_each(|hub| hub.add_to(&mut statistics));
        statistics
    }

    fn warnings(&self) -> Vec<String> {
        self.inner.commands.topology().warnings()
    }

    fn now(&self) -> SystemTime {
        let millis = self.inner.commands.clock().now();
        millis.map_or_else(SystemTime::now, |millis| {
            UNIX_EPOCH + Duration::from_millis(millis)
        })
    }

    fn cluster_secret(&self) -> Arc<[u8]> {
        self.inner.nodes.secret()
    }

    fn open_hub(
        &self,
        name: HubName,
        options: HubOptions,
        sink: Arc<dyn HubSink>,
    ) -> BoxFuture<'_, Result<Arc<dyn HubBackplane>, BackplaneError>> {
        async move { Ok(Arc::new(self.open(name, options, sink).await?) as Arc<_>) }.boxed()
    }

    fn set_service(&self, service: Arc<dyn NodeService>) {
        self.inner.service.store(Some(Arc::new(service)));
    }

    fn request<'a>(
        &'a self,
        node: &'a NodeId,
        payload: Bytes,
        timeout: Duration,
        unheard: Unheard,
    ) -> BoxFuture<'a, Result<Bytes, BackplaneError>> {
        self.inner.request(node, payload, timeout, unheard).boxed()
    }

    fn take_turns<'a>(&'a self, wanted: &'a TurnsWanted) -> BoxFuture<'a, Result<Turns, BackplaneError>> {
        self.inner.take_turns(wanted).boxed()
    }

    fn nodes(&self) -> BoxFuture<'_, Result<Vec<NodeId>, BackplaneError>> {
        self.inner.list_nodes().boxed()
    }

    fn shutdown(&self) -> BoxFuture<'_, ()> {
        async move {
            self.inner.answered_all().await;
            self.inner.leave_cluster().await;
            self.end().await;
        }
        .boxed()
    }
}

impl Drop for RedisBackplane {
    fn drop(&mut self) {
        self.inner.closing.cancel(); // the tasks end also where `shutdown` was not called
    }
}
