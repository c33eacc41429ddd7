//! Random schedules of events around resumable connections, against a model in which connections do not move.
//!
//! In all schedules, also with lost answers of the server, a client has in the end exactly the messages of its topics,
//! in order, once; the directory has the living connections; and ends are reported once. Where nodes see different
//! masters for a while, losses are reported (`split`). `HUBCAST_MODEL_SEED` runs the schedule of one seed,
//! `HUBCAST_MODEL_SCHEDULES` sets the number of schedules.
#![allow(clippy::panic, clippy::unwrap_used)]

mod check;
mod client;
mod schedule;
#[cfg(feature = "redis")]
mod split;
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

/// The source of a schedule's nodes.
trait Cluster: Send + Sync + 'static {
    /// The number of nodes at a time.
    fn size(&self) -> usize;

    /// A node that replaces a dead one, with a name of its own.
    fn node(&self, name: String) -> BoxFuture<'_, Arc<dyn Backplane>>;

    /// Returns whether nodes can die; else their connections are only taken from them.
    fn mortal(&self) -> bool;

    /// Loses the answer to a script that the node calls, after so many others, where answers can be lost.
    fn lose_answer(&self, node: &NodeId, after: usize);
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

    fn lose_answer(&self, _node: &NodeId, _after: usize) {}
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

/// Runs one seed's schedule.
async fn run(seed: u64, cluster: Arc<dyn Cluster>) {
    let schedule = Schedule::of(seed, cluster.size());
    let steps = schedule.steps.clone();
    let running = async { World::new(cluster).await.run(schedule).await };
    reporting(seed, steps, running).await;
}

/// Prints the seed of a schedule that fails.
async fn reporting(seed: u64, steps: Vec<impl std::fmt::Debug>, running: impl Future<Output = ()>) {
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
    use std::collections::HashMap;
    use std::time::Duration;

    use futures_util::StreamExt;
    use hubcast_backplane::redis::RedisBackplane;
    use parking_lot::Mutex;

    use super::*;
    use crate::split::{self, Split};
    use crate::support::RedisServer;
    use crate::support::way::Way;

    /// Schedules that run at a time, on one server.
    const AT_ONCE: usize = 4;

    /// Schedules that run at a time, each on servers of its own.
    const SPLITS_AT_ONCE: usize = 3;

    struct Nodes {
        server: Arc<RedisServer>,
        seed: u64,
        ways: Mutex<HashMap<NodeId, Way>>,
    }

    impl Cluster for Nodes {
        fn size(&self) -> usize {
            2 + usize::from(!self.seed.is_multiple_of(3))
        }

        fn node(&self, name: String) -> BoxFuture<'_, Arc<dyn Backplane>> {
            async move {
                let way = Way::to(self.server.port()).await;
                let mut options = way.options(&name);
                options.prefix = format!("schedule-{}", self.seed);
                options.lease = Duration::from_secs(1);
                // Pushes without room in the lane make it catch up from the log.
                options.lane_capacity = if self.seed.is_multiple_of(2) { 1_000 } else { 3 };
                self.ways.lock().insert(options.node.clone(), way);
                let node: Arc<dyn Backplane> = Arc::new(RedisBackplane::connect(options).await.unwrap());
                node
            }
            .boxed()
        }

        fn mortal(&self) -> bool {
            true
        }

        fn lose_answer(&self, node: &NodeId, after: usize) {
            self.ways.lock()[node].lose_after(after);
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_cluster_loses_nothing_with_lost_answers_and_dead_nodes() {
        let server = Arc::new(RedisServer::start().await);
        let schedules = seeds(60).into_iter().map(|seed| {
            let nodes = Nodes {
                server: Arc::clone(&server),
                seed,
                ways: Mutex::default(),
            };
            run(seed, Arc::new(nodes))
        });
        let running = futures_util::stream::iter(schedules).buffer_unordered(AT_ONCE);
        running.collect::<()>().await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn nodes_that_see_different_masters_agree_in_the_end_and_tell_what_is_lost() {
        let schedules = seeds(30).into_iter().map(|seed| {
            let steps = split::steps(seed);
            let running = {
                let steps = steps.clone();
                async move { Split::new().await.run(steps).await }
            };
            reporting(seed, steps, running)
        });
        let running = futures_util::stream::iter(schedules).buffer_unordered(SPLITS_AT_ONCE);
        running.collect::<()>().await;
    }
}
