//! The state of one hub on this node.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{Mutex as AsyncMutex, Notify, RwLock};
use tokio::time::Instant;
use tracing::debug;

use crate::backplane::Statistics;
use crate::position::Epoch;
use crate::redis::directory::ends::Ends;
use crate::redis::directory::events::EventsHere;
use crate::redis::feed::interest::Subject;
use crate::redis::feed::local::LocalConnections;
use crate::redis::feed::queue::PushQueue;
use crate::redis::feed::waiters::Waiters;
use crate::redis::script::hub_scripts::{Extent, HubScripts};
use crate::topic::HubName;

pub(in crate::redis) struct Hub {
    pub(in crate::redis) name: HubName,
    pub(in crate::redis) scripts: HubScripts,
    pub(in crate::redis) local: Mutex<LocalConnections>,
    /// Held for writing while a batch of connections is registered again, and for reading by calls that change
    /// connections.
    pub(in crate::redis) gate: RwLock<()>,
    pub(in crate::redis) waiters: Waiters,
    /// The epoch in which this node opened the hub.
    pub(in crate::redis) first_epoch: Epoch,
    /// Notified when a claim or a departure of this node has ended.
    pub(in crate::redis) claimed: Notify,
    /// Notified when the server may have forgotten the hub.
    pub(in crate::redis) tend: Notify,
    /// Held while this node registers its connections again.
    pub(in crate::redis) renewing: AsyncMutex<()>,
    registered: Mutex<Registered>,
    /// Notified when departures wait for the server.
    pub(in crate::redis) departing: Notify,
    pub(in crate::redis) ends: Mutex<Ends>,
    /// Notified when ends were reported and their records are to be deleted.
    pub(in crate::redis) reports: Notify,
    /// The way of pushes to the lane.
    pub(in crate::redis) pushes: PushQueue,
    repairs: AtomicU64,
    repaired: AtomicU64,
    /// The connection events that this node delivers.
    pub(in crate::redis) events: EventsHere,
    events_dropped: AtomicU64,
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
    pub(in crate::redis) fn new(
        name: HubName,
        scripts: HubScripts,
        extent: &Extent,
        pushes: PushQueue,
    ) -> Arc<Self> {
        Arc::new(Self {
            name,
            scripts,
            local: Mutex::new(LocalConnections::new(extent.epoch.clone())),
            gate: RwLock::new(()),
            waiters: Waiters::new(extent.epoch.clone(), extent.last),
            first_epoch: extent.epoch.clone(),
            claimed: Notify::new(),
            tend: Notify::new(),
            renewing: AsyncMutex::default(),
            registered: Mutex::new(Registered::nothing(&extent.epoch, extent.evicted)),
            departing: Notify::new(),
            ends: Mutex::default(),
            reports: Notify::new(),
            pushes,
            repairs: AtomicU64::new(0),
            repaired: AtomicU64::new(0),
            events: EventsHere::default(),
            events_dropped: AtomicU64::new(0),
        })
    }

    /// The epoch in which all connections of this node are registered.
    pub(in crate::redis) fn registered(&self) -> Epoch {
        self.registered.lock().epoch.clone()
    }

    pub(in crate::redis) fn set_registered(&self, epoch: &Epoch) {
        let mut registered = self.registered.lock();
        (registered.epoch, registered.since) = (epoch.clone(), Instant::now());
    }

    /// The time since all connections of this node were registered in this epoch; `None` where they are not, or where
    /// listed connections that the node does not have were removed already.
    pub(in crate::redis) fn untidied(&self, epoch: &Epoch) -> Option<Duration> {
        let registered = self.registered.lock();
        (registered.epoch == *epoch && registered.tidied != *epoch).then(|| registered.since.elapsed())
    }

    /// Whether the server has deleted keys since all connections were registered, which may have been the directory's.
    /// `false` within `pause` after the last registration.
    pub(in crate::redis) fn has_evicted(&self, evicted: u64, pause: Duration) -> bool {
        let registered = self.registered.lock();
        registered.evicted != evicted && registered.since.elapsed() > pause
    }

    pub(in crate::redis) fn set_evicted(&self, evicted: u64) {
        self.registered.lock().evicted = evicted;
    }

    pub(in crate::redis) fn set_tidied(&self, epoch: &Epoch) {
        self.registered.lock().tidied = epoch.clone();
    }

    /// Records that the lane has read missed entries from the log, and their number.
    pub(in crate::redis) fn note_repair(&self, entries: u64) {
        self.repairs.fetch_add(1, Ordering::Relaxed);
        self.repaired.fetch_add(entries, Ordering::Relaxed);
    }

    /// Counts connection events that were dropped unfinished.
    pub(in crate::redis) fn note_dropped(&self, events: u64) {
        self.events_dropped.fetch_add(events, Ordering::Relaxed);
    }

    /// Adds this hub's counters.
    pub(in crate::redis) fn add_to(&self, statistics: &mut Statistics) {
        statistics.waiting += self.pushes.waiting();
        statistics.repairs += self.repairs.load(Ordering::Relaxed);
        statistics.repaired += self.repaired.load(Ordering::Relaxed);
        statistics.events_dropped += self.events_dropped.load(Ordering::Relaxed);
    }

    /// Takes pushes, inside of the connection's driver. Never waits.
    pub(in crate::redis) fn push(&self, pushes: impl Iterator<Item = Bytes>) {
        if !self.pushes.push(pushes) {
            debug!(hub = %self.name, "lane is full");
        }
    }

    /// The channel of a subject.
    pub(in crate::redis) fn channel(&self, subject: &Subject) -> String {
        match subject {
            Subject::Lane => self.scripts.keys.lane_channel(&self.scripts.node),
            Subject::Topic(topic) => self.scripts.keys.topic_channel(&topic.key()),
        }
    }
}
