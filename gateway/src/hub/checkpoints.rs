//! Gathers how far clients are, and writes it down in batches.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

use super::HubRuntime;
use crate::session::Session;

/// How long checkpoints are gathered. After a crash the client is sent again the messages that it acknowledged within
/// this time.
const GATHER: Duration = Duration::from_secs(1);
/// Sessions that receive nothing have their checkpoint moved this many times while the log keeps an entry.
const ADVANCES: u32 = 4;
/// The least interval between two of these moves.
const LEAST_ADVANCE: Duration = Duration::from_millis(250);

/// Sessions of one hub with a checkpoint to write.
#[derive(Default)]
pub(crate) struct Checkpoints {
    waiting: Mutex<DueSessions>,
    /// How many stateful sessions there are.
    stateful: AtomicUsize,
    /// The last of them has gone.
    deserted: Notify,
}

#[derive(Default)]
struct DueSessions {
    sessions: Vec<Weak<Session>>,
    /// The time when the first of them came.
    since: Option<Instant>,
}

impl Checkpoints {
    /// Has a session's checkpoint written soon. The first one of a batch starts the task that writes it.
    pub(crate) fn add(&self, hub: &Arc<HubRuntime>, session: &Arc<Session>) {
        let first = {
            let mut waiting = self.waiting.lock();
            waiting.sessions.push(Arc::downgrade(session));
            let first = waiting.since.is_none();
            waiting.since.get_or_insert_with(Instant::now);
            first
        };
        if first {
            let hub = Arc::clone(hub);
            hub.shared().tasks().clone().spawn(async move {
                tokio::select! {
                    () = sleep(GATHER) => {}
                    () = hub.shared().stopping().cancelled() => {}
                }
                hub.checkpoints().write(&hub).await;
            });
        }
    }

    /// How long the oldest checkpoint has waited.
    pub(crate) fn age(&self) -> Duration {
        self.waiting
            .lock()
            .since
            .map_or(Duration::ZERO, |since| since.elapsed())
    }

    async fn write(&self, hub: &HubRuntime) {
        let waiting = std::mem::take(&mut *self.waiting.lock());
        let checkpoint = |session: &Weak<Session>| {
            let session = session.upgrade()?;
            let (version, checkpoint) = session.take_checkpoint()?;
            Some((session.id().clone(), version, checkpoint))
        };
        let checkpoints: Vec<_> = waiting.sessions.iter().filter_map(checkpoint).collect();
        if checkpoints.is_empty() {
            return;
        }
        let written = checkpoints.len() as u64;
        match hub.backplane().checkpoint(&checkpoints).await {
            Ok(()) => drop(hub.shared().metrics().checkpoints.inc_by(written)),
            Err(error) => tracing::debug!(hub = %hub.name(), %error, "checkpoints could not be written"),
        }
    }

    /// One more stateful session. While there are some, a task moves the checkpoints of those that receive no messages:
    /// the log of a quiet topic ends, and with it the proof that there was nothing.
    pub(crate) fn arrive(&self, hub: &Arc<HubRuntime>) {
        if self.stateful.fetch_add(1, Ordering::AcqRel) > 0 {
            return;
        }
        let hub = Arc::clone(hub);
        hub.shared().tasks().clone().spawn(async move {
            let period = (hub.options().hubs.retention / ADVANCES).max(LEAST_ADVANCE);
            loop {
                tokio::select! {
                    () = sleep(period) => {}
                    () = hub.checkpoints().deserted.notified() => return,
                    () = hub.shared().stopping().cancelled() => return,
                }
                hub.checkpoints().advance(&hub).await;
            }
        });
    }

    /// One less.
    pub(crate) fn depart(&self) {
        if self.stateful.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.deserted.notify_one();
        }
    }

    async fn advance(&self, hub: &HubRuntime) {
        let mut sessions = hub.registry().all();
        sessions.retain(|session| session.is_stateful());
        match hub.backplane().handed_on().await {
            Ok(position) => sessions.iter().for_each(|session| session.advance(&position)),
            Err(error) => {
                tracing::debug!(hub = %hub.name(), %error, "checkpoints of quiet sessions could not be moved");
            }
        }
    }
}
