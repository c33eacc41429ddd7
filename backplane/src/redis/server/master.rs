//! Watches one master on a connection of its own: its role, its run, its replicas and its memory.
//!
//! The watch alone decides which run the pool's connections must lead to. Connections that were made at another time,
//! or to a server that was replaced and does not know it, disagree only until the watch has looked anew.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::join;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::error::BackplaneError;
use crate::redis::server::backoff::Backoff;
use crate::redis::server::connector::within;
use crate::redis::server::endpoint::{Endpoint, Opened};
use crate::redis::server::info::{ServerInfo, eviction_policy, server_info};
use crate::redis::server::link::{Trouble, notice_end};
use crate::redis::server::pool::Pool;
use crate::redis::server::run::Run;

/// The time limit for the server's answers to the watch.
const PATIENCE: Duration = Duration::from_secs(1);
/// Number of looks at the server for each time that its settings are read.
const SETTINGS: u32 = 10;
/// The only policy for full memory that deletes no keys.
const NO_EVICTION: &str = "noeviction";

/// The watch's knowledge of the master.
pub(in crate::redis) struct Master {
    known: watch::Sender<Known>,
    /// Notified when a connection leads to another run than the known one.
    doubt: Notify,
    /// Number of replicas that follow closely; 0 where the server can't be asked.
    replicas: AtomicUsize,
    almost_full: AtomicBool,
    /// The server's settings; `None` before the first look.
    settings: watch::Sender<Option<Settings>>,
    watching: Watching,
}

/// The settings of the watch.
#[derive(Clone, Copy)]
pub(in crate::redis) struct Watching {
    pub(in crate::redis) interval: Duration,
    /// Number of replicas that must follow closely for messages to be published.
    pub(in crate::redis) min_replicas: usize,
}

#[derive(Clone, PartialEq, Eq)]
struct Settings {
    /// The policy for full memory; `None` where the server does not return it.
    policy: Option<String>,
}

struct Known {
    /// The master's run; `None` before the first look, and where there is no master.
    run: Option<Run>,
    /// The time at which the connection that showed the run began to be opened.
    asked: Instant,
}

/// The reason why a connection of the watch is closed.
enum Ended {
    Closing,
    /// Another connection may lead to another server.
    Doubted,
    Lost(String),
}

impl Master {
    pub(in crate::redis) fn new(watching: Watching) -> Self {
        Self {
            known: watch::Sender::new(Known {
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

    /// Whether this run is the master's known run.
    pub(in crate::redis) fn is_known(&self, run: &Run) -> bool {
        self.known.borrow().has(run)
    }

    /// Whether the run of a new connection is the master's; the watch looks anew where it knows another one.
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
        let left = |known: &Known| known.run.as_ref().is_none_or(|now| !run.goes_on_as(now));
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

    fn set_almost_full(&self, almost_full: bool) {
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

    fn set_replicas(&self, online: usize) {
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

    fn set_settings(&self, server: &str, settings: Settings) {
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

impl Known {
    /// Whether a connection to this run leads to the known one, which may be the same run under a newer name. Where the
    /// connection's name is the newer one, or one from before a promotion, only another look can decide.
    fn has(&self, run: &Run) -> bool {
        self.run.as_ref().is_some_and(|known| run.goes_on_as(known))
    }
}

impl Pool {
    /// Watches the master until closing.
    pub(in crate::redis) async fn run_watch(self: Arc<Self>) {
        let endpoint = self
            .endpoint
            .bounded(PATIENCE.min(self.endpoint.connector.bound()));
        let mut backoff = Backoff::new();
        loop {
            let asked = Instant::now();
            let opened = tokio::select! {
                () = self.closing.cancelled() => return,
                opened = endpoint.connect(notice_end) => opened,
            };
            let reason = match opened {
                Ok(opened) => {
                    backoff = Backoff::new();
                    self.follow(&opened.info.run, opened.info.replicas, asked);
                    match self.watch(&endpoint, opened).await {
                        Ended::Closing => return,
                        Ended::Doubted => continue,
                        Ended::Lost(reason) => reason,
                    }
                }
                Err(error) => Trouble::of(&error).reason(),
            };
            debug!(%reason, "backplane server can't be watched");
            self.master.set_replicas(0);
            self.note_error(reason);
            self.trouble.notify_one();
            tokio::select! {
                () = self.closing.cancelled() => return,
                () = self.master.doubt.notified() => {} // a connection has found a server
                () = backoff.wait() => {}
            }
        }
    }

    /// Looks at the master in each interval, as long as it is the same.
    async fn watch(&self, endpoint: &Endpoint, mut opened: Opened<CancellationToken>) -> Ended {
        let mut ticks = interval(self.master.watching.interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut settings = interval(self.master.watching.interval * SETTINGS);
        settings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let ended = opened.listener.clone();
        loop {
            let looking = async {
                tokio::select! {
                    _ = ticks.tick() => self.look(endpoint, &mut opened).await,
                    _ = settings.tick() => self.read_settings(endpoint, &mut opened).await,
                }
            };
            let looked = tokio::select! {
                () = self.closing.cancelled() => return Ended::Closing,
                () = self.master.doubt.notified() => return Ended::Doubted,
                () = ended.cancelled() => return Ended::Lost("the server closed the connection".to_owned()),
                looked = looking => looked,
            };
            if let Err(ended) = looked {
                return ended;
            }
        }
    }

    async fn look(&self, endpoint: &Endpoint, opened: &mut Opened<CancellationToken>) -> Result<(), Ended> {
        let asking = within(
            endpoint.connector.bound(),
            server_info(&mut opened.connection, endpoint.sharded),
        );
        let (left, info) = join(endpoint.has_left(&opened.address), asking).await;
        if left {
            self.leave(&opened.address.to_string(), "the sentinels name another master");
            return Err(Ended::Doubted);
        }
        let ServerInfo {
            run,
            is_master,
            replicas,
            almost_full,
        } = info.map_err(|error| Ended::Lost(Trouble::of(&error).reason()))?;
        if !is_master {
            self.leave(&opened.address.to_string(), "it is a replica now");
            return Err(Ended::Lost("the server is a replica".to_owned()));
        }
        if !opened.info.run.goes_on_as(&run) {
            return Err(Ended::Doubted);
        }
        self.master.set_replicas(replicas);
        self.master.set_almost_full(almost_full);
        Ok(())
    }

    async fn read_settings(
        &self,
        endpoint: &Endpoint,
        opened: &mut Opened<CancellationToken>,
    ) -> Result<(), Ended> {
        let asking = within(
            endpoint.connector.bound(),
            eviction_policy(&mut opened.connection),
        );
        let policy = asking
            .await
            .map_err(|error| Ended::Lost(Trouble::of(&error).reason()))?;
        self.master
            .set_settings(&opened.address.to_string(), Settings { policy });
        Ok(())
    }

    /// Closes connections to other runs than this one, which the watch has found to be the master's.
    fn follow(&self, run: &Run, replicas: usize, asked: Instant) {
        let known = self.master.is_known(run);
        self.master.learn(run, replicas, asked);
        if !known {
            info!(run = run.id, promotion = run.mark, "following a Redis master");
        }
        self.give_up(|link| !link.run.goes_on_as(run));
    }

    /// Closes all connections: the server is not the master any more, though it may not know yet, and messages that it
    /// took would reach no client.
    fn leave(&self, server: &str, reason: &str) {
        warn!(server, reason, "gave up a Redis master");
        self.master.known.send_modify(|known| known.run = None);
        self.give_up(|_| true);
    }
}
