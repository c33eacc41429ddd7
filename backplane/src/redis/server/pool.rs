//! A few connections to one master, which are opened again when they are lost.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use arc_swap::ArcSwapOption;
use deadpool::managed::{self, Manager, Metrics, Object, PoolError, RecycleError, RecycleResult};
use parking_lot::Mutex;
use redis::RedisError;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use crate::redis::server::backoff::Backoff;
use crate::redis::server::endpoint::Endpoint;
use crate::redis::server::link::{Link, SharedLink};
use crate::redis::server::master::{Master, Watching};
use crate::redis::server::replies::Trouble;

/// The reason why there is no new connection to a master.
#[derive(Debug, thiserror::Error)]
pub(in crate::redis) enum LinkError {
    /// The server can't be reached, or refuses the connection.
    #[error(transparent)]
    Server(#[from] RedisError),
    #[error("the master was replaced")]
    Replaced,
    #[error("the server is not the master, or not in the run that is known")]
    NotTheMaster,
    #[error("no connections for history")]
    NoneForHistory,
    #[error("the backplane was closed")]
    Closed,
}

/// Opens connections for large answers, each used by one caller at a time.
pub(in crate::redis) struct Opener(Weak<Pool>);

/// A connection for one caller alone. One that is not given back is closed, so that the server stops sending the
/// answer.
pub(in crate::redis) struct Own(Option<Object<Opener>>);

impl Own {
    pub(in crate::redis) fn link(&self) -> Option<SharedLink> {
        self.0.as_deref().map(Arc::clone)
    }

    /// Returns the connection for the next caller.
    pub(in crate::redis) fn give_back(mut self) {
        self.0 = None;
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        drop(self.0.take().map(Object::take));
    }
}

pub(in crate::redis) struct Pool {
    pub(in crate::redis) endpoint: Endpoint,
    pub(in crate::redis) master: Master,
    links: watch::Sender<Vec<SharedLink>>,
    /// The connection on which the server's pushes come, while it is subscribed.
    subscribed: ArcSwapOption<Link>,
    /// Connections for large answers. Building this pool fails only where it has time-outs, and this one has none.
    own: Option<managed::Pool<Opener>>,
    next: AtomicUsize,
    last_error: Mutex<String>,
    /// Notified when a connection is lost or can't be opened: the server may not be the master any more.
    pub(in crate::redis) trouble: Arc<Notify>,
    pub(in crate::redis) closing: CancellationToken,
}

impl Pool {
    pub(in crate::redis) fn new(
        endpoint: Endpoint,
        watching: Watching,
        trouble: Arc<Notify>,
        closing: CancellationToken,
        own_connections: usize,
    ) -> Arc<Self> {
        Arc::new_cyclic(|pool| Self {
            endpoint,
            master: Master::new(watching),
            links: watch::Sender::new(Vec::new()),
            subscribed: ArcSwapOption::empty(),
            own: managed::Pool::builder(Opener(Weak::clone(pool)))
                .max_size(own_connections.max(1))
                .build()
                .ok(),
            next: AtomicUsize::new(0),
            last_error: Mutex::new("not connected yet".to_owned()),
            trouble,
            closing,
        })
    }

    /// Keeps `size` connections open until closing; `first` is one of them.
    pub(in crate::redis) fn keep(
        self: &Arc<Self>,
        size: usize,
        first: Option<SharedLink>,
        tasks: &TaskTracker,
    ) {
        let rest = size.saturating_sub(usize::from(first.is_some()));
        if let Some(first) = first {
            self.master.learn(&first.run, first.replicas, Instant::now());
            self.links.send_modify(|links| links.push(Arc::clone(&first)));
            tasks.spawn(Arc::clone(self).keep_link(Some(first)));
        }
        for _ in 0..rest {
            tasks.spawn(Arc::clone(self).keep_link(None));
        }
    }

    /// Closes the pool's connections.
    pub(in crate::redis) fn close(&self) {
        self.closing.cancel();
        self.own.iter().for_each(managed::Pool::close);
    }

    /// Waits for a free connection for this caller alone.
    pub(in crate::redis) async fn own(&self) -> Result<Own, LinkError> {
        let own = self.own.as_ref().ok_or(LinkError::NoneForHistory)?;
        own.get()
            .await
            .map(|own| Own(Some(own)))
            .map_err(|error| match error {
                PoolError::Backend(error) => error,
                PoolError::Closed => LinkError::Closed,
                // The pool has neither time-outs nor hooks.
                PoolError::Timeout(_) | PoolError::NoRuntimeSpecified | PoolError::PostCreateHook(_) => {
                    LinkError::NoneForHistory
                }
            })
    }

    /// The next working connection in turn.
    pub(in crate::redis) fn pick(&self) -> Option<SharedLink> {
        let links = self.links.borrow();
        let turn = self.next.fetch_add(1, Ordering::Relaxed) % links.len().max(1);
        let (before, after) = links.split_at(turn);
        after
            .iter()
            .chain(before)
            .find(|link| !link.broken.is_cancelled())
            .cloned()
    }

    /// The connection for batches of changes: the one on which the pushes of their messages come too. So the server
    /// answers and pushes with one write, and this node reads both at once. Without it, the next one in turn.
    pub(in crate::redis) fn pick_for_batch(&self) -> Option<SharedLink> {
        let subscribed = self.subscribed.load_full();
        subscribed
            .filter(|link| !link.broken.is_cancelled())
            .or_else(|| self.pick())
    }

    /// Sends batches by a connection that is subscribed, until its end.
    pub(in crate::redis) fn share(&self, link: &SharedLink) {
        self.subscribed.store(Some(Arc::clone(link)));
        self.give_up_unknown(link);
    }

    /// Sends nothing more by a connection that is no longer subscribed. Batches without an answer are sent again.
    pub(in crate::redis) fn unshare(&self, link: &SharedLink) {
        let shared = self.subscribed.load();
        if shared.as_ref().is_some_and(|shared| Arc::ptr_eq(shared, link)) {
            self.subscribed.compare_and_swap(&*shared, None);
        }
        link.broken.cancel();
    }

    /// A receiver that is notified of connections that are opened and lost.
    pub(in crate::redis) fn changes(&self) -> watch::Receiver<Vec<SharedLink>> {
        self.links.subscribe()
    }

    pub(in crate::redis) fn last_error(&self) -> String {
        self.last_error.lock().clone()
    }

    pub(in crate::redis) fn note_error(&self, reason: String) {
        *self.last_error.lock() = reason;
    }

    /// Keeps one connection open until closing.
    async fn keep_link(self: Arc<Self>, mut link: Option<SharedLink>) {
        let mut backoff = Backoff::new();
        loop {
            if let Some(open) = link.take() {
                tokio::select! {
                    () = self.closing.cancelled() => return self.forget(&open),
                    () = open.broken.cancelled() => self.forget(&open),
                }
                debug!("backplane command connection lost");
                self.trouble.notify_one();
                tokio::select! {
                    () = self.closing.cancelled() => return,
                    () = backoff.wait() => {}
                }
            }
            let opened = tokio::select! {
                () = self.closing.cancelled() => return,
                opened = self.open_link() => opened,
            };
            match opened {
                Ok(open) => {
                    backoff = Backoff::new();
                    link = Some(open);
                    continue;
                }
                Err(error) => {
                    self.note_error(error.to_string());
                    self.trouble.notify_one();
                }
            }
            tokio::select! {
                () = self.closing.cancelled() => return,
                () = backoff.wait() => {}
            }
        }
    }

    /// Opens a connection to the master that the watch knows.
    async fn open(&self) -> Result<SharedLink, LinkError> {
        let opened = tokio::select! {
            opened = Link::open(&self.endpoint) => opened,
            () = self.master.is_replaced() => return Err(LinkError::Replaced),
        };
        let open = match opened {
            Ok(open) => Arc::new(open),
            Err(error) => {
                if let Trouble::Final(error) = Trouble::of(&error) {
                    warn!(%error, "the Redis server refuses this node's connections");
                }
                return Err(error.into());
            }
        };
        if !self.master.confirms(&open.run).await {
            return Err(LinkError::NotTheMaster);
        }
        Ok(open)
    }

    /// Opens a connection that all callers share.
    async fn open_link(&self) -> Result<SharedLink, LinkError> {
        let open = self.open().await?;
        self.links.send_modify(|links| links.push(Arc::clone(&open)));
        self.give_up_unknown(&open);
        Ok(open)
    }

    /// Closes a connection that was just added, where the watch learned of another run before it could be closed with the
    /// others.
    fn give_up_unknown(&self, link: &Link) {
        if !self.master.is_known(&link.run) {
            link.broken.cancel();
        }
    }

    /// Closes some of the connections.
    pub(in crate::redis) fn give_up(&self, which: impl Fn(&Link) -> bool) {
        let links = self.links.borrow();
        let subscribed = self.subscribed.load_full();
        let given_up = links.iter().chain(&subscribed).filter(|link| which(link));
        given_up.for_each(|link| link.broken.cancel());
    }

    fn forget(&self, gone: &SharedLink) {
        self.links
            .send_modify(|links| links.retain(|link| !Arc::ptr_eq(link, gone)));
    }
}

impl Manager for Opener {
    type Type = SharedLink;
    type Error = LinkError;

    async fn create(&self) -> Result<SharedLink, LinkError> {
        let pool = self.0.upgrade().ok_or(LinkError::Closed)?;
        Box::pin(pool.open()).await
    }

    async fn recycle(&self, link: &mut SharedLink, _: &Metrics) -> RecycleResult<LinkError> {
        let is_known = |pool: Arc<Pool>| pool.master.is_known(&link.run);
        if link.broken.is_cancelled() || !self.0.upgrade().is_some_and(is_known) {
            return Err(RecycleError::message("it leads to no master any more"));
        }
        Ok(())
    }
}
