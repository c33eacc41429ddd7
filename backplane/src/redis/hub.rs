//! One hub as this node serves it.

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

/// The lane has to read the log.
const BEHIND: u8 = 1;
/// Pushes are incomplete.
const DEAF: u8 = 2;

pub(super) struct Hub {
    pub(super) name: HubName,
    pub(super) scripts: HubScripts,
    pub(super) local: Mutex<Local>,
    /// Held for writing while a part of what the server forgot is told again, and for reading by what changes that.
    pub(super) gate: RwLock<()>,
    pub(super) waiters: Waiters,
    /// The epoch in which this node came.
    pub(super) first_epoch: Epoch,
    /// A claim or a departure of this node has ended.
    pub(super) claimed: Notify,
    /// The server may have forgotten the hub.
    pub(super) tend: Notify,
    /// Held while it is told again.
    pub(super) renewing: AsyncMutex<()>,
    registered: Mutex<Registered>,
    /// Connections have departed.
    pub(super) departing: Notify,
    pub(super) ends: Mutex<Ends>,
    /// Ends were told.
    pub(super) tellings: Notify,
    queue: mpsc::Sender<Bytes>,
    /// [`BEHIND`] and [`DEAF`].
    state: AtomicU8,
    woken: Notify,
    repairs: AtomicU64,
    repaired: AtomicU64,
}

/// How far the server was told what it may have forgotten.
struct Registered {
    /// The epoch in which everything of this node is registered.
    epoch: Epoch,
    since: Instant,
    /// The epoch in which the server lists nothing for this node that it does not have.
    tidied: Epoch,
    /// Keys that the server had deleted by then to make room.
    evicted: u64,
}

impl Registered {
    /// Of a node that comes in this epoch and has nothing yet.
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
    /// The hub and what is pushed to it.
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

    /// The epoch in which everything of this node is registered.
    pub(super) fn registered(&self) -> Epoch {
        self.registered.lock().epoch.clone()
    }

    pub(super) fn set_registered(&self, epoch: &Epoch) {
        let mut registered = self.registered.lock();
        (registered.epoch, registered.since) = (epoch.clone(), Instant::now());
    }

    /// How long ago everything of this node was registered in an epoch, where connections that the node does not have
    /// are still to be removed.
    pub(super) fn untidied(&self, epoch: &Epoch) -> Option<Duration> {
        let registered = self.registered.lock();
        (registered.epoch == *epoch && registered.tidied != *epoch).then(|| registered.since.elapsed())
    }

    /// Whether the server has deleted keys since everything was registered, which may be the directory's. Where it goes
    /// on doing so, that is not looked at all the time.
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

    /// Notes that the lane read the log, and handed on what it had missed.
    pub(super) fn note_repair(&self, entries: u64) {
        self.repairs.fetch_add(1, Ordering::Relaxed);
        self.repaired.fetch_add(entries, Ordering::Relaxed);
    }

    /// Adds how this hub keeps up.
    pub(super) fn add_to(&self, statistics: &mut Statistics) {
        statistics.waiting += self.queue.max_capacity() - self.queue.capacity();
        statistics.repairs += self.repairs.load(Ordering::Relaxed);
        statistics.repaired += self.repaired.load(Ordering::Relaxed);
    }

    /// Takes a push. Never waits: what finds no room is read from the log.
    pub(super) fn push(&self, payload: Bytes) {
        if let Err(mpsc::error::TrySendError::Full(_)) = self.queue.try_send(payload)
            && self.state.fetch_or(BEHIND, Ordering::AcqRel) & BEHIND == 0
        {
            debug!(hub = %self.name, "lane is full");
            self.woken.notify_one();
        }
    }

    /// Makes the lane read the log from where it is.
    pub(super) fn set_behind(&self) {
        self.state.fetch_or(BEHIND, Ordering::AcqRel);
        self.woken.notify_one();
    }

    /// Pushes don't count until [`hear`](Self::hear): some channels are subscribed to sooner than others, and a push on
    /// one of them would let the lane pass what was missed on the others.
    pub(super) fn deafen(&self) {
        self.state.fetch_or(DEAF, Ordering::AcqRel);
    }

    /// All channels are subscribed to: the lane reads what it missed, and pushes count again. One step, so that no push
    /// comes in between.
    pub(super) fn hear(&self) {
        self.state.store(BEHIND, Ordering::Release);
        self.woken.notify_one();
    }

    /// Whether the lane has to read the log, and whether the pushes that it has so far are to be dropped; asked by the
    /// lane, which then does.
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
