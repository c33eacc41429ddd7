//! A few connections to one master, that come back by themselves.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use super::backoff::Backoff;
use super::endpoint::Endpoint;
use super::link::{Link, SharedLink, Trouble};

pub(super) struct Pool {
    endpoint: Endpoint,
    links: watch::Sender<Vec<SharedLink>>,
    next: AtomicUsize,
    last_error: Mutex<String>,
    /// Told when a connection is lost or can't be made: the server may not be the master any more.
    trouble: Arc<Notify>,
    closing: CancellationToken,
}

impl Pool {
    pub(super) fn new(endpoint: Endpoint, trouble: Arc<Notify>, closing: CancellationToken) -> Arc<Self> {
        Arc::new(Self {
            endpoint,
            links: watch::Sender::new(Vec::new()),
            next: AtomicUsize::new(0),
            last_error: Mutex::new("not connected yet".to_owned()),
            trouble,
            closing,
        })
    }

    /// Keeps `size` connections open until closing; `first` is one of them.
    pub(super) fn keep(self: &Arc<Self>, size: usize, first: Option<SharedLink>, tasks: &TaskTracker) {
        let rest = size.saturating_sub(usize::from(first.is_some()));
        if let Some(first) = first {
            self.links.send_modify(|links| links.push(Arc::clone(&first)));
            tasks.spawn(Arc::clone(self).keep_link(Some(first)));
        }
        for _ in 0..rest {
            tasks.spawn(Arc::clone(self).keep_link(None));
        }
    }

    /// Closes its connections.
    pub(super) fn close(&self) {
        self.closing.cancel();
    }

    /// The next connection in turn that works.
    pub(super) fn pick(&self) -> Option<SharedLink> {
        let links = self.links.borrow();
        let turn = self.next.fetch_add(1, Ordering::Relaxed) % links.len().max(1);
        let (before, after) = links.split_at(turn);
        after
            .iter()
            .chain(before)
            .find(|link| !link.broken.is_cancelled())
            .cloned()
    }

    /// Tells of connections that come and go.
    pub(super) fn changes(&self) -> watch::Receiver<Vec<SharedLink>> {
        self.links.subscribe()
    }

    pub(super) fn last_error(&self) -> String {
        self.last_error.lock().clone()
    }

    pub(super) fn note_error(&self, reason: String) {
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
                opened = Link::open(&self.endpoint) => opened,
            };
            match opened {
                Ok(open) => {
                    backoff = Backoff::new();
                    let open = Arc::new(open);
                    self.leave_others(&open);
                    self.links.send_modify(|links| links.push(Arc::clone(&open)));
                    link = Some(open);
                    continue;
                }
                Err(error) => {
                    if let Trouble::Final(error) = Trouble::of(&error) {
                        warn!(%error, "backplane server refuses this node");
                    }
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

    /// Gives up connections to another run than the newest one leads to: that server is no longer the master, though it may
    /// not know yet, and what it took would reach nobody.
    fn leave_others(&self, newest: &Link) {
        let links = self.links.borrow();
        let others = links.iter().filter(|link| link.run != newest.run);
        others.for_each(|link| link.broken.cancel());
    }

    fn forget(&self, gone: &SharedLink) {
        self.links
            .send_modify(|links| links.retain(|link| !Arc::ptr_eq(link, gone)));
    }
}
