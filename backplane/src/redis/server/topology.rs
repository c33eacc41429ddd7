//! The masters, and the slots that each of them serves.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, info};

use crate::error::BackplaneError;
use crate::redis::options::RedisOptions;
use crate::redis::server::backoff::Backoff;
use crate::redis::server::cluster::{Assignment, Cluster};
use crate::redis::server::connector::Connector;
use crate::redis::server::endpoint::{Endpoint, MasterSource};
use crate::redis::server::link::{Link, SharedLink};
use crate::redis::server::location::{Address, Kind};
use crate::redis::server::master::Watching;
use crate::redis::server::pool::Pool;
use crate::redis::server::replies::Trouble;
use crate::redis::server::sentinel::Sentinels;
use crate::redis::server::slots::{self, Slots, slot};

/// Pause between two questions to a cluster for its slots.
const PAUSE: Duration = Duration::from_millis(100);
/// Time that a caller waits for the cluster's answer.
const ANSWER: Duration = Duration::from_millis(300);

/// One master and its connections.
pub(in crate::redis) struct Shard {
    pub(in crate::redis) endpoint: Endpoint,
    pub(in crate::redis) slots: Slots,
    pub(in crate::redis) pool: Arc<Pool>,
}

/// The masters at one time.
pub(in crate::redis) struct Map {
    pub(in crate::redis) shards: Vec<Arc<Shard>>,
    /// For each slot of a cluster its master's place in `shards`; empty where there is one for all.
    by_slot: Vec<Option<u16>>,
}

pub(in crate::redis) struct Topology {
    map: watch::Sender<Arc<Map>>,
    cluster: Option<Cluster>,
    /// Notified when the map may be out of date.
    trouble: Arc<Notify>,
    /// Counts the answers about slots.
    answers: watch::Sender<u64>,
    pools: Mutex<HashMap<Address, Arc<Pool>>>,
    connector: Connector,
    pool_size: usize,
    history_connections: usize,
    watching: Watching,
    tasks: TaskTracker,
    closing: CancellationToken,
}

impl Map {
    /// The master that serves a key or channel; `None` where a cluster lacks one for its slot.
    pub(in crate::redis) fn shard(&self, name: &str) -> Option<&Arc<Shard>> {
        if self.by_slot.is_empty() {
            return self.shards.first();
        }
        let index = (*self.by_slot.get(usize::from(slot(name.as_bytes())))?)?;
        self.shards.get(usize::from(index))
    }

    fn of_shards(shards: Vec<Arc<Shard>>) -> Self {
        let mut by_slot = Vec::new();
        for (index, shard) in (0..).zip(&shards) {
            let Slots::Ranges(ranges) = &shard.slots else {
                continue;
            };
            by_slot.resize(usize::from(slots::COUNT), None);
            for (first, last) in ranges {
                if let Some(slots) = by_slot.get_mut(usize::from(*first)..=usize::from(*last)) {
                    slots.fill(Some(index));
                }
            }
        }
        Self { shards, by_slot }
    }
}

impl Topology {
    /// Finds the masters. A connection to the one that has `home` is opened first, so that settings that can't work
    /// show at once.
    pub(in crate::redis) async fn open(
        options: &RedisOptions,
        home: &str,
        tasks: &TaskTracker,
        closing: CancellationToken,
    ) -> Result<Arc<Self>, BackplaneError> {
        let connector = options.connector()?;
        let location = options.location();
        let cluster = match location.kind {
            Kind::Cluster => Some(Cluster::new(&connector, location.addresses.clone())),
            _ => None,
        };
        let topology = Arc::new(Self {
            map: watch::Sender::new(Arc::new(Map::of_shards(Vec::new()))),
            cluster,
            trouble: Arc::default(),
            answers: watch::Sender::default(),
            pools: Mutex::default(),
            connector,
            pool_size: options.pool_size,
            history_connections: options.history_connections,
            watching: Watching {
                interval: options.heartbeat_interval,
                min_replicas: options.min_replicas,
            },
            tasks: tasks.clone(),
            closing,
        });
        if topology.cluster.is_none() {
            topology.set_master(options);
        }
        let (home, first) = topology.open_first(home, options.connect_wait()).await?;
        let map = topology.current();
        for shard in &map.shards {
            let link = Arc::ptr_eq(&home, shard).then(|| Arc::clone(&first));
            shard.pool.keep(topology.pool_size, link, tasks);
            tasks.spawn(Arc::clone(&shard.pool).run_watch());
        }
        if topology.cluster.is_some() {
            tasks.spawn(Arc::clone(&topology).follow());
        }
        Ok(topology)
    }

    pub(in crate::redis) fn current(&self) -> Arc<Map> {
        Arc::clone(&self.map.borrow())
    }

    /// A receiver that is notified of masters that come and go, and of slots that move.
    pub(in crate::redis) fn changes(&self) -> watch::Receiver<Arc<Map>> {
        self.map.subscribe()
    }

    /// Warnings for operators about the masters, in sentences.
    pub(in crate::redis) fn warnings(&self) -> Vec<String> {
        let map = self.current();
        let warnings = map.shards.iter().map(|shard| shard.pool.master.warnings());
        let warnings: BTreeSet<_> = warnings.flatten().collect(); // most masters cause the same warnings
        warnings.into_iter().collect()
    }

    /// As [`warnings`](Self::warnings), once each master was looked at, for at most `bound`.
    pub(in crate::redis) async fn inspect(&self, bound: Duration) -> Result<Vec<String>, BackplaneError> {
        let (begun, map) = (Instant::now(), self.current());
        for shard in &map.shards {
            if timeout_at(begun + bound, shard.pool.master.inspected())
                .await
                .is_err()
            {
                return Err(BackplaneError::Unavailable {
                    waited: begun.elapsed(),
                    reason: shard.pool.last_error(),
                });
            }
        }
        Ok(self.warnings())
    }

    pub(in crate::redis) fn is_cluster(&self) -> bool {
        self.cluster.is_some()
    }

    /// Makes the node ask the cluster again.
    pub(in crate::redis) fn doubt(&self) {
        self.trouble.notify_one();
    }

    /// Makes the node ask the cluster again, and waits for the answer for a bounded time.
    pub(in crate::redis) async fn ask_again(&self) {
        let mut answers = self.answers.subscribe();
        self.doubt();
        let _ = timeout(ANSWER, answers.changed()).await; // either way the caller tries again
    }

    fn set_master(&self, options: &RedisOptions) {
        let location = options.location();
        let place = match (&location.kind, location.addresses.first()) {
            (Kind::Sentinel { master }, _) => MasterSource::Sentinels(Arc::new(Sentinels::new(
                &self.connector,
                &options.sentinel_login(),
                location.addresses.clone(),
                master.clone(),
            ))),
            (_, Some(address)) => MasterSource::Server(address.clone()),
            (_, None) => return,
        };
        let endpoint = Endpoint {
            connector: self.connector.clone(),
            place,
            sharded: false,
        };
        let pool = Pool::new(
            endpoint.clone(),
            self.watching,
            Arc::clone(&self.trouble),
            self.closing.child_token(),
            self.history_connections,
        );
        let shard = Shard {
            endpoint,
            slots: Slots::All,
            pool,
        };
        self.map
            .send_replace(Arc::new(Map::of_shards(vec![Arc::new(shard)])));
    }

    /// Finds the masters and opens a first connection, to the one that has `home`.
    async fn open_first(
        &self,
        home: &str,
        bound: Duration,
    ) -> Result<(Arc<Shard>, SharedLink), BackplaneError> {
        let begun = Instant::now();
        let mut backoff = Backoff::new();
        loop {
            let reason = match self.try_first(home).await {
                Ok(first) => return Ok(first),
                Err(Trouble::Final(error)) => return Err(error),
                Err(trouble) => trouble.reason(),
            };
            if begun.elapsed() >= bound {
                return Err(BackplaneError::Unavailable {
                    waited: begun.elapsed(),
                    reason,
                });
            }
            backoff.wait().await;
        }
    }

    async fn try_first(&self, home: &str) -> Result<(Arc<Shard>, SharedLink), Trouble> {
        if self.is_cluster() {
            self.apply(self.ask().await?);
        }
        let shard = self.current().shard(home).cloned();
        let shard = shard.ok_or_else(|| Trouble::Wait("the cluster lacks a master".to_owned()))?;
        match Link::open(&shard.endpoint).await {
            Ok(link) => Ok((shard, Arc::new(link))),
            Err(error) => Err(Trouble::of(&error)),
        }
    }

    async fn ask(&self) -> Result<Assignment, Trouble> {
        let Some(cluster) = &self.cluster else {
            return Ok(Assignment::new());
        };
        let known: Vec<_> = self.pools.lock().keys().cloned().collect();
        cluster
            .ask(known.into_iter())
            .await
            .map_err(|error| Trouble::of(&error))
    }

    /// Asks the cluster whenever the map may be out of date, until closing.
    async fn follow(self: Arc<Self>) {
        loop {
            tokio::select! {
                () = self.closing.cancelled() => return,
                () = self.trouble.notified() => {}
            }
            let answer = tokio::select! {
                () = self.closing.cancelled() => return,
                answer = self.ask() => answer,
            };
            match answer {
                // A server that has just been reset knows nothing of the others.
                Ok(assignment) if assignment.is_empty() => {}
                Ok(assignment) => {
                    for (pool, size) in self.apply(assignment) {
                        pool.keep(size, None, &self.tasks);
                        self.tasks.spawn(pool.run_watch());
                    }
                }
                Err(trouble) => debug!(
                    reason = trouble.reason(),
                    "the cluster can't be asked for its slots"
                ),
            }
            self.answers.send_modify(|count| *count += 1);
            tokio::select! {
                () = self.closing.cancelled() => return,
                () = sleep(PAUSE) => {}
            }
        }
    }

    /// Replaces the map by an assignment. Returns the pools that are new, which have no connections yet.
    fn apply(&self, assignment: Assignment) -> Vec<(Arc<Pool>, usize)> {
        let mut pools = self.pools.lock();
        let mut new = Vec::new();
        let mut shards = Vec::new();
        pools.retain(|address, pool| {
            let stays = assignment.contains_key(address);
            if !stays {
                pool.close();
            }
            stays
        });
        for (address, ranges) in assignment {
            let endpoint = Endpoint {
                connector: self.connector.clone(),
                place: MasterSource::Server(address.clone()),
                sharded: true,
            };
            let pool = pools.entry(address).or_insert_with(|| {
                let closing = self.closing.child_token();
                let trouble = Arc::clone(&self.trouble);
                let own = self.history_connections;
                let pool = Pool::new(endpoint.clone(), self.watching, trouble, closing, own);
                new.push((Arc::clone(&pool), self.pool_size));
                pool
            });
            shards.push(Arc::new(Shard {
                endpoint,
                slots: Slots::Ranges(ranges),
                pool: Arc::clone(pool),
            }));
        }
        self.map.send_if_modified(|map| {
            let same =
                |(a, b): (&Arc<Shard>, &Arc<Shard>)| Arc::ptr_eq(&a.pool, &b.pool) && a.slots == b.slots;
            let changed = map.shards.len() != shards.len() || !map.shards.iter().zip(&shards).all(same);
            if changed {
                info!(
                    masters = shards.len(),
                    "read the Redis Cluster's masters and slots"
                );
                *map = Arc::new(Map::of_shards(std::mem::take(&mut shards)));
            }
            changed
        });
        new
    }
}
