//! The state that the parts of a [`RedisBackplane`](super::RedisBackplane) share.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use futures_util::future::BoxFuture;
use parking_lot::{Mutex, RwLock};
use tokio::sync::{Mutex as AsyncMutex, Notify, oneshot, watch};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::debug;

use super::keys::Keys;
use super::options::RedisOptions;
use crate::backplane::{NodeService, Status};
use crate::error::BackplaneError;
use crate::redis::feed::hub::Hub;
use crate::redis::feed::interest::Subject;
use crate::redis::node::nodes::Nodes;
use crate::redis::node::rpc::Rpc;
use crate::redis::script::writer::Writer;
use crate::redis::server::backoff::Backoff;
use crate::redis::server::commands::Commands;
use crate::topic::HubName;

/// The longest time that a push usually takes.
const UNPUSHED: Duration = Duration::from_secs(1);

pub(super) struct Inner {
    pub(super) options: RedisOptions,
    pub(super) keys: Keys,
    pub(super) commands: Arc<Commands>,
    pub(super) hubs: RwLock<HashMap<HubName, Arc<Hub>>>,
    /// The writers of hubs, also of those that this node does not serve.
    pub(super) writers: Mutex<HashMap<HubName, Writer>>,
    pub(super) service: ArcSwapOption<Arc<dyn NodeService>>,
    pub(super) nodes: Nodes,
    pub(super) rpc: Rpc,
    pub(super) standing: Standing,
    /// Held while removed connections are taken out of lists: one after the other.
    pub(super) unlisting: AsyncMutex<()>,
    /// Notified when a hub needs a subscription.
    pub(super) wanted: Notify,
    pub(super) tasks: TaskTracker,
    pub(super) closing: CancellationToken,
}

/// The node's [`Status`](crate::Status): connected when both beats and subscriptions work.
pub(super) struct Standing {
    beating: AtomicBool,
    subscribed: AtomicBool,
    status: watch::Sender<Status>,
}

impl Inner {
    pub(super) fn find_hub(&self, hub: &str) -> Option<Arc<Hub>> {
        self.hubs.read().get(hub).cloned()
    }

    pub(super) fn all_hubs(&self) -> Vec<Arc<Hub>> {
        self.hubs.read().values().cloned().collect()
    }

    /// The writer through which this node makes all changes of a hub.
    pub(super) fn writer(&self, hub: &HubName) -> Writer {
        let open = || Writer::open(&self.commands, self.options.node.clone(), &self.keys.hub(hub));
        self.writers
            .lock()
            .entry(hub.clone())
            .or_insert_with(open)
            .clone()
    }

    pub(super) fn service(&self) -> Option<Arc<Arc<dyn NodeService>>> {
        self.service.load_full()
    }

    /// Carries a change out to its end, also when the caller stops waiting: after half of it the server and this node
    /// would disagree.
    ///
    /// It is begun by the call itself: a future that held the change until it is polled would have room for it twice.
    pub(super) fn finish<T, F>(
        self: &Arc<Self>,
        change: F,
    ) -> impl Future<Output = Result<T, BackplaneError>> + use<T, F>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, BackplaneError>> + Send + 'static,
    {
        // Boxed, for it is large, and what is spawned is copied several times.
        let finished = self.tasks.spawn(Box::pin(change));
        async { finished.await.unwrap_or(Err(BackplaneError::Closed)) }
    }

    /// Subscribes to `subjects`, at least for as long as the returned value lives.
    pub(super) async fn interest(
        self: &Arc<Self>,
        hub: &Arc<Hub>,
        subjects: Vec<Subject>,
        deadline: Instant,
    ) -> Result<Interested, BackplaneError> {
        let begun = Instant::now();
        let waits: Vec<_> = {
            let mut local = hub.local.lock();
            subjects
                .iter()
                .filter_map(|subject| local.interests.gain(subject.clone()))
                .collect()
        };
        let interested = Interested {
            hub: Arc::clone(hub),
            subjects,
        };
        if waits.is_empty() {
            return Ok(interested);
        }
        self.wanted.notify_one();
        let patience = begun + self.options.reconnect_wait;
        let deadline = if self.standing.is_subscribed() {
            deadline
        } else {
            deadline.min(patience)
        };
        for wait in waits {
            match self.until(deadline, wait).await? {
                Some(Ok(())) => {}
                _ => {
                    let reason = "the subscription did not become active".to_owned();
                    return Err(BackplaneError::Unavailable {
                        waited: begun.elapsed(),
                        reason,
                    });
                }
            }
        }
        Ok(interested)
    }

    /// Does some work at each notification, repeated until it succeeds, until closing.
    pub(super) async fn whenever<'a>(
        &self,
        news: &Notify,
        failed: &'static str,
        work: impl Fn() -> BoxFuture<'a, Result<(), BackplaneError>> + Send,
    ) {
        let working = async {
            loop {
                news.notified().await;
                let mut backoff = Backoff::new();
                while let Err(error) = work().await {
                    debug!(%error, failed);
                    backoff.wait().await;
                }
            }
        };
        tokio::select! {
            () = self.closing.cancelled() => {}
            () = working => {}
        }
    }

    /// Waits for a future, until the deadline (`None`) or closing (an error).
    pub(super) async fn until<T>(
        &self,
        deadline: Instant,
        wait: impl Future<Output = T>,
    ) -> Result<Option<T>, BackplaneError> {
        tokio::select! {
            () = self.closing.cancelled() => Err(BackplaneError::Closed),
            outcome = timeout_at(deadline, wait) => Ok(outcome.ok()),
        }
    }

    /// Waits for the lane to reach a place; `false` when its epoch ended before.
    pub(super) async fn reached(
        &self,
        place: oneshot::Receiver<()>,
        begun: Instant,
        deadline: Instant,
    ) -> Result<bool, BackplaneError> {
        match self.until(deadline, place).await? {
            Some(outcome) => Ok(outcome.is_ok()),
            None => Err(BackplaneError::Timeout {
                waited: begun.elapsed(),
            }),
        }
    }

    /// Waits for the lane to reach an offset of its epoch. Where it does not by itself, because this node has no
    /// receiver of that entry any more, the lane catches up.
    pub(super) async fn passed(
        &self,
        hub: &Hub,
        mut place: oneshot::Receiver<()>,
    ) -> Result<(), BackplaneError> {
        let begun = Instant::now();
        let deadline = self.deadline();
        if self.until(begun + UNPUSHED, &mut place).await?.is_none() {
            hub.pushes.request_catch_up();
            self.reached(place, begun, deadline).await?;
        }
        Ok(())
    }

    /// The deadline of a call that begins now.
    pub(super) fn deadline(&self) -> Instant {
        Instant::now() + self.commands.bound()
    }
}

/// Keeps topics subscribed to while a connection is about to receive them.
pub(super) struct Interested {
    hub: Arc<Hub>,
    subjects: Vec<Subject>,
}

impl Interested {
    /// Keeps the topics subscribed to for good.
    pub(super) fn keep(mut self) {
        self.subjects.clear();
    }
}

impl Drop for Interested {
    fn drop(&mut self) {
        let mut local = self.hub.local.lock();
        self.subjects
            .iter()
            .for_each(|subject| local.interests.lose(subject));
    }
}

impl Standing {
    pub(super) fn new() -> Self {
        Self {
            beating: AtomicBool::new(false),
            subscribed: AtomicBool::new(false),
            status: watch::Sender::new(Status::Disconnected),
        }
    }

    pub(super) fn watch(&self) -> watch::Receiver<Status> {
        self.status.subscribe()
    }

    pub(super) fn set_beating(&self, beating: bool) {
        self.beating.store(beating, Ordering::Release);
        self.update();
    }

    pub(super) fn set_subscribed(&self, subscribed: bool) {
        self.subscribed.store(subscribed, Ordering::Release);
        self.update();
    }

    fn is_subscribed(&self) -> bool {
        self.subscribed.load(Ordering::Acquire)
    }

    /// Waits until the node is connected.
    pub(super) async fn connected(&self, bound: Duration) -> bool {
        let mut status = self.status.subscribe();
        let connected = status.wait_for(|status| *status == Status::Connected);
        matches!(timeout_at(Instant::now() + bound, connected).await, Ok(Ok(_)))
    }

    fn update(&self) {
        self.status.send_if_modified(|status| {
            // Read inside the closure: of two concurrent updates, the last one sees both changes.
            let well = self.beating.load(Ordering::Acquire) && self.subscribed.load(Ordering::Acquire);
            let next = if well {
                Status::Connected
            } else {
                Status::Disconnected
            };
            std::mem::replace(status, next) != next
        });
    }
}
