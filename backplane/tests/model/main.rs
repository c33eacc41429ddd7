//! Random schedules of what may happen to resumable connections, against a model that knows nothing of moving.
//!
//! Whatever happens, a client has in the end exactly the messages of its topics, in order, once. `HUBCAST_MODEL_SEED` runs
//! the schedule of one seed, `HUBCAST_MODEL_SCHEDULES` another number of them.
#![allow(clippy::panic, clippy::unwrap_used)]

mod client;
mod schedule;
#[path = "../support/mod.rs"]
mod support;
mod world;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use hubcast_backplane::memory::MemoryBackplane;
use hubcast_backplane::{Backplane, NodeId};

use crate::schedule::Schedule;
use crate::world::World;

/// Where the nodes of a schedule come from.
trait Cluster: Send + Sync + 'static {
    /// How many nodes there are at a time.
    fn size(&self) -> usize;

    /// A node in place of one that is no more, with a name of its own.
    fn node(&self, name: String) -> BoxFuture<'_, Arc<dyn Backplane>>;

    /// Whether nodes can die; else their connections are only taken from them.
    fn mortal(&self) -> bool;
}

struct Memory;

impl Cluster for Memory {
    fn size(&self) -> usize {
        1
    }

    fn node(&self, name: String) -> BoxFuture<'_, Arc<dyn Backplane>> {
        let node: Arc<dyn Backplane> = Arc::new(MemoryBackplane::new(NodeId::parse(name).unwrap()));
        async move { node }.boxed()
    }

    fn mortal(&self) -> bool {
        false
    }
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is no number")))
}

/// The seeds to run.
fn seeds(default: u64) -> Vec<u64> {
    match number("HUBCAST_MODEL_SEED") {
        Some(seed) => vec![seed],
        None => (0..number("HUBCAST_MODEL_SCHEDULES").unwrap_or(default)).collect(),
    }
}

/// Runs one seed's schedule, and tells which it was where it fails.
async fn run(seed: u64, cluster: Arc<dyn Cluster>) {
    let schedule = Schedule::of(seed, cluster.size());
    let steps = schedule.steps.clone();
    let running = async { World::new(cluster).await.run(schedule).await };
    if let Err(failed) = AssertUnwindSafe(running).catch_unwind().await {
        eprintln!("HUBCAST_MODEL_SEED={seed}");
        for (number, step) in steps.iter().enumerate() {
            eprintln!("{number:4} {step:?}");
        }
        std::panic::resume_unwind(failed);
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_that_is_alone_loses_nothing() {
    for seed in seeds(150) {
        run(seed, Arc::new(Memory)).await;
    }
}

#[cfg(feature = "redis")]
mod redis_server {
    use hubcast_backplane::redis::RedisBackplane;

    use super::*;
    use crate::support::RedisServer;

    struct Nodes {
        server: Arc<RedisServer>,
        size: usize,
        /// Pushes that may wait: where there is no room, the log is read.
        lane_capacity: usize,
    }

    impl Cluster for Nodes {
        fn size(&self) -> usize {
            self.size
        }

        fn node(&self, name: String) -> BoxFuture<'_, Arc<dyn Backplane>> {
            async move {
                let mut options = self.server.options(&name);
                options.lane_capacity = self.lane_capacity;
                let node: Arc<dyn Backplane> = Arc::new(RedisBackplane::connect(options).await.unwrap());
                node
            }
            .boxed()
        }

        fn mortal(&self) -> bool {
            true
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_cluster_loses_nothing() {
        let server = Arc::new(RedisServer::start().await);
        for seed in seeds(60) {
            let nodes = Nodes {
                server: Arc::clone(&server),
                size: 2 + usize::from(seed % 3 != 0),
                lane_capacity: if seed % 2 == 0 { 1_000 } else { 3 },
            };
            run(seed, Arc::new(nodes)).await;
        }
    }
}
