//! Keeps this node subscribed: one connection to each master, so that a hub's pushes come on one.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use crate::redis::feed::subscription::{End, Subscription};
use crate::redis::inner::Inner;
use crate::redis::server::backoff::Backoff;
use crate::redis::server::topology::{Map, Shard};

/// One round of subscriptions: they end together when the masters or their slots change, so that never two of them care
/// for the same hub.
pub(in crate::redis) struct Round {
    /// Number of subscriptions that are open; `all` is the number of all of them.
    open: Mutex<usize>,
    all: usize,
    pub(in crate::redis) over: CancellationToken,
}

impl Inner {
    /// Keeps this node subscribed until closing.
    pub(in crate::redis) async fn run_subscriber(self: Arc<Self>) {
        let mut maps = self.commands.topology().changes();
        while !self.closing.is_cancelled() {
            let map = Arc::clone(&maps.borrow_and_update());
            let round = Arc::new(Round {
                open: Mutex::new(0),
                all: map.shards.len(),
                over: self.closing.child_token(),
            });
            let (tasks, wanted) = self.begin_round(&map, &round);
            loop {
                tokio::select! {
                    () = self.closing.cancelled() => break,
                    changed = maps.changed() => match changed {
                        Ok(()) => break,
                        Err(_) => return, // the servers are not asked for any more
                    },
                    () = self.wanted.notified() => wanted.iter().for_each(|wanted| wanted.notify_one()),
                }
            }
            round.over.cancel();
            tasks.close();
            tasks.wait().await;
        }
    }

    /// Begins a subscription with each master. Returns the notifier of each, for hubs that need a channel.
    fn begin_round(self: &Arc<Self>, map: &Map, round: &Arc<Round>) -> (TaskTracker, Vec<Arc<Notify>>) {
        let tasks = TaskTracker::new();
        let begin = |shard: &Arc<Shard>| {
            let wanted = Arc::new(Notify::new());
            let keeping =
                Arc::clone(self).keep_subscription(Arc::clone(shard), Arc::clone(round), Arc::clone(&wanted));
            tasks.spawn(keeping);
            wanted
        };
        let wanted = map.shards.iter().map(begin).collect();
        (tasks, wanted)
    }

    /// Keeps a subscription with one master until the round is over.
    async fn keep_subscription(self: Arc<Self>, shard: Arc<Shard>, round: Arc<Round>, wanted: Arc<Notify>) {
        let mut backoff = Backoff::new();
        let mut lost_at = None;
        loop {
            let end = match self.open_subscription(&shard, &round).await {
                Err(end) => end,
                Ok(subscription) => {
                    backoff = Backoff::new();
                    self.count_subscription(&round, true);
                    if let Some(lost_at) = lost_at.take() {
                        let outage = Instant::now().saturating_duration_since(lost_at);
                        info!(
                            server = %subscription.address,
                            outage_ms = outage.as_millis() as u64,
                            "backplane connection restored"
                        );
                    }
                    let end = self.serve_subscription(&subscription, &round, &wanted).await;
                    subscription.end();
                    self.count_subscription(&round, false);
                    end
                }
            };
            if matches!(end, End::Over) || round.over.is_cancelled() {
                return;
            }
            self.commands.topology().doubt();
            if lost_at.is_none() {
                lost_at = Some(Instant::now());
                warn!(reason = %end, "backplane connection lost");
            }
            tokio::select! {
                () = round.over.cancelled() => return,
                () = backoff.wait() => {}
            }
        }
    }

    /// Counts a subscription that opened or ended. The node is subscribed while all subscriptions are open.
    fn count_subscription(&self, round: &Round, opened: bool) {
        let mut open = round.open.lock();
        *open = if opened { *open + 1 } else { open.saturating_sub(1) };
        self.standing.set_subscribed(*open == round.all);
    }

    /// Opens a subscription; `None` where the round ends before.
    async fn open_subscription(
        self: &Arc<Self>,
        shard: &Arc<Shard>,
        round: &Round,
    ) -> Result<Subscription, End> {
        tokio::select! {
            () = round.over.cancelled() => Err(End::Over),
            opened = Subscription::open(self, shard) => opened,
        }
    }
}
