//! A master as its watch (`watch.rs`) knows it: its run, its replicas and its settings.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout};
use tracing::{info, warn};

use crate::error::BackplaneError;
use crate::redis::server::run::Run;

/// The time limit for the server's answers to the watch.
pub(in crate::redis) const PATIENCE: Duration = Duration::from_secs(1);
/// The only policy for full memory that deletes no keys.
const NO_EVICTION: &str = "noeviction";

/// The watch's knowledge of the master.
pub(in crate::redis) struct Master {
    pub(in crate::redis) known: watch::Sender<KnownRun>,
    /// Notified when a connection leads to another run than the known one.
    pub(in crate::redis) doubt: Notify,
    /// Number of replicas that follow closely; 0 where the server can't be asked.
    replicas: AtomicUsize,
    almost_full: AtomicBool,
    /// The server's settings; `None` before the first look.
    settings: watch::Sender<Option<Settings>>,
    pub(in crate::redis) watching: Watching,
}

/// The settings of the watch.
#[derive(Clone, Copy)]
pub(in crate::redis) struct Watching {
    pub(in crate::redis) interval: Duration,
    /// Number of replicas that must follow closely for messages to be published.
    pub(in crate::redis) min_replicas: usize,
}

#[derive(Clone, PartialEq, Eq)]
pub(in crate::redis) struct Settings {
    /// The policy for full memory; `None` where the server does not return it.
    pub(in crate::redis) policy: Option<String>,
}

pub(in crate::redis) struct KnownRun {
    /// The master's run; `None` before the first look, and where there is no master.
    pub(in crate::redis) run: Option<Run>,
    /// The time at which the connection that showed the run began to be opened.
    pub(in crate::redis) asked: Instant,
}

impl Master {
    pub(in crate::redis) fn new(watching: Watching) -> Self {
        Self {
            known: watch::Sender::new(KnownRun {
                run: None,
                asked: Instant::now(),
            }),
            doubt: Notify::new(),
            replicas: AtomicUsize::new(0),
            almost_full: AtomicBool::new(false),
            settings: watch::Sender::default(),
            watching,
        }
    }

    /// Records the run and replicas that a connection showed, which began to be opened at `asked`.
    pub(in crate::redis) fn learn(&self, run: &Run, replicas: usize, asked: Instant) {
        self.set_replicas(replicas);
        self.known.send_modify(|known| {
            known.run = Some(run.clone());
            known.asked = asked;
        });
    }

    /// Returns whether this run is the master's known run.
    pub(in crate::redis) fn is_known(&self, run: &Run) -> bool {
        self.known.borrow().has(run)
    }

    /// Returns whether the run of a new connection is the master's; the watch looks anew where it knows another one.
    pub(in crate::redis) async fn confirms(&self, run: &Run) -> bool {
        if self.is_known(run) {
            return true;
        }
        let (mut changes, doubted) = (self.known.subscribe(), Instant::now());
        self.doubt.notify_one();
        let decided = changes.wait_for(|known| known.has(run) || known.asked > doubted);
        matches!(timeout(PATIENCE * 2, decided).await, Ok(Ok(known)) if known.has(run))
    }

    /// Resolves when the master is not in this run any more.
    pub(in crate::redis) async fn leaves(&self, run: &Run) {
        let left = |known: &KnownRun| known.run.as_ref().is_none_or(|now| !run.goes_on_as(now));
        let _ = self.known.subscribe().wait_for(left).await; // the sender outlives the call
    }

    /// Resolves when the presently known master is replaced: waiting for a connection to it is of no use then.
    pub(in crate::redis) async fn is_replaced(&self) {
        let run = self.known.borrow().run.clone();
        match run {
            Some(run) => self.leaves(&run).await,
            None => std::future::pending().await,
        }
    }

    /// Refuses messages while too few replicas follow, or while little memory is left.
    pub(in crate::redis) fn check_publishing(&self) -> Result<(), BackplaneError> {
        self.check_replicas()?;
        if self.almost_full.load(Ordering::Acquire) {
            return Err(BackplaneError::Full);
        }
        Ok(())
    }

    pub(in crate::redis) fn set_almost_full(&self, almost_full: bool) {
        if self.almost_full.swap(almost_full, Ordering::AcqRel) != almost_full {
            if almost_full {
                warn!("the Redis master has little memory left (maxmemory): nothing is published");
            } else {
                info!("the Redis master has memory again");
            }
        }
    }

    fn check_replicas(&self) -> Result<(), BackplaneError> {
        let needed = self.watching.min_replicas;
        if needed == 0 {
            return Ok(());
        }
        let online = self.replicas.load(Ordering::Acquire);
        if online < needed {
            return Err(BackplaneError::TooFewReplicas { online, needed });
        }
        Ok(())
    }

    pub(in crate::redis) fn set_replicas(&self, online: usize) {
        let (before, needed) = (
            self.replicas.swap(online, Ordering::AcqRel),
            self.watching.min_replicas,
        );
        if online < needed && before >= needed {
            warn!(
                online,
                needed, "too few replicas follow the Redis master: nothing is published"
            );
        } else if online >= needed && before < needed {
            info!(online, "enough replicas follow the Redis master");
        }
    }

    /// Waits until the server was looked at.
    pub(in crate::redis) async fn inspected(&self) {
        let mut settings = self.settings.subscribe();
        let _ = settings.wait_for(Option::is_some).await; // the sender outlives the call
    }

    /// Warnings for operators, in sentences.
    pub(in crate::redis) fn warnings(&self) -> Vec<String> {
        let Some(settings) = self.settings.borrow().clone() else {
            return Vec::new();
        };
        let refused = self.check_publishing().err().map(|error| error.to_string());
        settings.warning().into_iter().chain(refused).collect()
    }

    pub(in crate::redis) fn set_settings(&self, server: &str, settings: Settings) {
        let warning = settings.warning();
        let changed = self.settings.send_if_modified(|known| {
            let changed = known.as_ref() != Some(&settings);
            *known = Some(settings);
            changed
        });
        if let Some(warning) = warning.filter(|_| changed) {
            warn!(server, "{warning}");
        }
    }
}

impl Settings {
    fn warning(&self) -> Option<String> {
        let policy = self.policy.as_deref().filter(|policy| *policy != NO_EVICTION)?;
        Some(format!(
            "the Redis server has maxmemory-policy {policy}, which deletes messages and sessions that are still \
             needed; set it to {NO_EVICTION}"
        ))
    }
}

impl KnownRun {
    /// Returns whether a connection to this run leads to the known one, which may be the same run under a newer name.
    /// Where the connection's name is the newer one, or one from before a promotion, only another look can decide.
    fn has(&self, run: &Run) -> bool {
        self.run.as_ref().is_some_and(|known| run.goes_on_as(known))
    }
}
