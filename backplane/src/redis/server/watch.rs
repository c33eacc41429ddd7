//! Watches one master on a connection of its own: its role, its run, its replicas and its memory.
//!
//! The watch alone decides which run the pool's connections must lead to. Connections that were made at another time,
//! or to a server that was replaced and does not know it, disagree only until the watch has looked anew.

use std::sync::Arc;

use futures_util::future::join;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::redis::server::backoff::Backoff;
use crate::redis::server::connector::within;
use crate::redis::server::endpoint::{Endpoint, Opened};
use crate::redis::server::info::{ServerInfo, eviction_policy, server_info};
use crate::redis::server::link::notice_end;
use crate::redis::server::master::{PATIENCE, Settings};
use crate::redis::server::pool::Pool;
use crate::redis::server::replies::Trouble;
use crate::redis::server::run::Run;

/// Number of looks at the server for each time that its settings are read.
const SETTINGS: u32 = 10;

/// The reason why a connection of the watch is closed.
enum WatchEnd {
    Closing,
    /// Another connection may lead to another server.
    Doubted,
    Lost(String),
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
                        WatchEnd::Closing => return,
                        WatchEnd::Doubted => continue,
                        WatchEnd::Lost(reason) => reason,
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
    async fn watch(&self, endpoint: &Endpoint, mut opened: Opened<CancellationToken>) -> WatchEnd {
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
                () = self.closing.cancelled() => return WatchEnd::Closing,
                () = self.master.doubt.notified() => return WatchEnd::Doubted,
                () = ended.cancelled() => return WatchEnd::Lost("the server closed the connection".to_owned()),
                looked = looking => looked,
            };
            if let Err(ended) = looked {
                return ended;
            }
        }
    }

    async fn look(
        &self,
        endpoint: &Endpoint,
        opened: &mut Opened<CancellationToken>,
    ) -> Result<(), WatchEnd> {
        let asking = within(
            endpoint.connector.bound(),
            server_info(&mut opened.connection, endpoint.sharded),
        );
        let (left, info) = join(endpoint.has_left(&opened.address), asking).await;
        if left {
            self.leave(&opened.address.to_string(), "the sentinels name another master");
            return Err(WatchEnd::Doubted);
        }
        let ServerInfo {
            run,
            is_master,
            replicas,
            almost_full,
        } = info.map_err(|error| WatchEnd::Lost(Trouble::of(&error).reason()))?;
        if !is_master {
            self.leave(&opened.address.to_string(), "it is a replica now");
            return Err(WatchEnd::Lost("the server is a replica".to_owned()));
        }
        if !opened.info.run.goes_on_as(&run) {
            return Err(WatchEnd::Doubted);
        }
        self.master.set_replicas(replicas);
        self.master.set_almost_full(almost_full);
        Ok(())
    }

    async fn read_settings(
        &self,
        endpoint: &Endpoint,
        opened: &mut Opened<CancellationToken>,
    ) -> Result<(), WatchEnd> {
        let asking = within(
            endpoint.connector.bound(),
            eviction_policy(&mut opened.connection),
        );
        let policy = asking
            .await
            .map_err(|error| WatchEnd::Lost(Trouble::of(&error).reason()))?;
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
