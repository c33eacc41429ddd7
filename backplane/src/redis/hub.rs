//! The state of one hub on this node.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{Mutex as AsyncMutex, Notify, RwLock, mpsc};
use tokio::time::Instant;
use tracing::debug;

use super::ends::Ends;
use super::hub_scripts::{Extent, HubScripts};
use super::interest::Subject;
use super::local::Local;
use super::waiters::Waiters;
use crate::backplane::Statistics;
use crate::position::Epoch;
use crate::topic::HubName;

/// State bit: the lane needs to catch up from the log.
const BEHIND: u8 = 1;
/// State bit: pushes are paused, because some channels are not subscribed to yet.
const DEAF: u8 = 2;

pub(super) struct Hub {
    pub(super) name: HubName,
    pub(super) scripts: HubScripts,
    pub(super) local: Mutex<Local>,
    /// Held for writing while a batch of connections is registered again, and for reading by calls that change
    /// connections.
    pub(super) gate: RwLock<()>,
    pub(super) waiters: Waiters,
    /// The epoch in which this node opened the hub.
    pub(super) first_epoch: Epoch,
    /// Notified when a claim or a departure of this node has ended.
    pub(super) claimed: Notify,
    /// Notified when the server may have forgotten the hub.
    pub(super) tend: Notify,
    /// Held while this node registers its connections again.
    pub(super) renewing: AsyncMutex<()>,
    registered: Mutex<Registered>,
    /// Notified when departures wait for the server.
    pub(super) departing: Notify,
    pub(super) ends: Mutex<Ends>,
    /// Notified when ends were reported and their records are to be deleted.
    pub(super) tellings: Notify,
    queue: mpsc::Sender<Bytes>,
    /// The bits [`BEHIND`] and [`DEAF`].
    state: AtomicU8,
    woken: Notify,
    repairs: AtomicU64,
    repaired: AtomicU64,
}

/// The state of registering this node's connections again after the server may have forgotten them.
struct Registered {
    /// The epoch in which all connections of this node are registered.
    epoch: Epoch,
    since: Instant,
    /// The epoch in which all connections that the server lists for this node, and it does not have, were removed.
    tidied: Epoch,
    /// Number of keys that the server had deleted by then to make room.
    evicted: u64,
}

impl Registered {
    /// The state of a node that opens the hub in this epoch and has no connections yet.
    fn nothing(epoch: &Epoch, evicted: u64) -> Self {
        Self {
            epoch: epoch.clone(),
            since: Instant::now(),
            tidied: epoch.clone(),
            evicted,
        }
    }
}

impl Hub {
    /// The hub, and the receiver of its pushes.
    pub(super) fn new(
        name: HubName,
        scripts: HubScripts,
        extent: &Extent,
        capacity: usize,
    ) -> (Arc<Self>, mpsc::Receiver<Bytes>) {
        let (queue, pushes) = mpsc::channel(capacity);
        let hub = Self {
            name,
            scripts,
            local: Mutex::new(Local::new(extent.epoch.clone())),
            gate: RwLock::new(()),
            waiters: Waiters::new(extent.epoch.clone(), extent.last),
            first_epoch: extent.epoch.clone(),
            claimed: Notify::new(),
            tend: Notify::new(),
            renewing: AsyncMutex::default(),
            registered: Mutex::new(Registered::nothing(&extent.epoch, extent.evicted)),
            departing: Notify::new(),
            ends: Mutex::default(),
            tellings: Notify::new(),
            queue,
            state: AtomicU8::new(0),
            woken: Notify::new(),
            repairs: AtomicU64::new(0),
            repaired: AtomicU64::new(0),
        };
        (Arc::new(hub), pushes)
    }

    /// The epoch in which all connections of this node are registered.
    pub(super) fn registered(&self) -> Epoch {
        self.registered.lock().epoch.clone()
    }

    pub(super) fn set_registered(&self, epoch: &Epoch) {
        let mut registered = self.registered.lock();
        (registered.epoch, registered.since) = (epoch.clone(), Instant::now());
    }

    /// The time since all connections of this node were registered in this epoch; `None` where they are not, or where
    /// listed connections that the node does not have were removed already.
    pub(super) fn untidied(&self, epoch: &Epoch) -> Option<Duration> {
        let registered = self.registered.lock();
        (registered.epoch == *epoch && registered.tidied != *epoch).then(|| registered.since.elapsed())
    }

    /// Whether the server has deleted keys since all connections were registered, which may have been the directory's.
    /// `false` within `pause` after the last registration.
    pub(super) fn has_evicted(&self, evicted: u64, pause: Duration) -> bool {
        let registered = self.registered.lock();
        registered.evicted != evicted && registered.since.elapsed() > pause
    }

    pub(super) fn set_evicted(&self, evicted: u64) {
        self.registered.lock().evicted = evicted;
    }

    pub(super) fn set_tidied(&self, epoch: &Epoch) {
        self.registered.lock().tidied = epoch.clone();
    }

    /// Records that the lane has read missed entries from the log, and their number.
    pub(super) fn note_repair(&self, entries: u64) {
        self.repairs.fetch_add(1, Ordering::Relaxed);
        self.repaired.fetch_add(entries, Ordering::Relaxed);
    }

    /// Adds this hub's counters.
    pub(super) fn add_to(&self, statistics: &mut Statistics) {
        statistics.waiting += self.queue.max_capacity() - self.queue.capacity();
        statistics.repairs += self.repairs.load(Ordering::Relaxed);
        statistics.repaired += self.repaired.load(Ordering::Relaxed);
    }

    /// Takes a push. Never waits: a push for which the queue has no room is read from the log.
    pub(super) fn push(&self, payload: Bytes) {
        if let Err(mpsc::error::TrySendError::Full(_)) = self.queue.try_send(payload)
            && self.state.fetch_or(BEHIND, Ordering::AcqRel) & BEHIND == 0
        {
            debug!(hub = %self.name, "lane is full");
            self.woken.notify_one();
        }
    }

    /// Makes the lane catch up from the log.
    pub(super) fn set_behind(&self) {
        self.state.fetch_or(BEHIND, Ordering::AcqRel);
        self.woken.notify_one();
    }

    /// Pauses pushes until [`hear`](Self::hear): some channels are subscribed to sooner than others, and a push on one
    /// of them would let the lane pass entries that were missed on the others.
    pub(super) fn deafen(&self) {
        self.state.fetch_or(DEAF, Ordering::AcqRel);
    }

    /// Ends the pause, because all channels are subscribed to: the lane catches up, and pushes count again. This is one
    /// step, so that no push comes in between.
    pub(super) fn hear(&self) {
        self.state.store(BEHIND, Ordering::Release);
        self.woken.notify_one();
    }

    /// Returns whether the lane needs to catch up, and whether pushes are paused and must be dropped. The lane calls
    /// this and then catches up.
    pub(super) fn take_behind(&self) -> (bool, bool) {
        let state = self.state.fetch_and(!BEHIND, Ordering::AcqRel);
        (state & BEHIND != 0, state & DEAF != 0)
    }

    pub(super) async fn woken(&self) {
        self.woken.notified().await;
    }

    /// The channel of a subject.
    pub(super) fn channel(&self, subject: &Subject) -> String {
        match subject {
            Subject::Lane => self.scripts.keys.lane_channel(&self.scripts.node),
            Subject::Topic(topic) => self.scripts.keys.topic_channel(&topic.key()),
        }
    }
}
