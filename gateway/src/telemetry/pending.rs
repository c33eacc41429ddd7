//! Metrics of the connection events that wait for code of a hub or its handler. There is a label for each hub that delivers.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use hubcast_backplane::PendingEvents;
use prometheus_client::metrics::{family::Family, gauge::Gauge};
use prometheus_client::registry::Registry;

type ByHub<M> = Family<[(&'static str, String); 1], M>;
type Seconds = Gauge<f64, AtomicU64>;

/// The events of all hubs that wait, on all nodes.
#[derive(Debug, Default)]
pub(crate) struct PendingMetrics {
    count: ByHub<Gauge>,
    oldest: ByHub<Seconds>,
}

/// The waiting events of one hub.
#[derive(Debug)]
pub(crate) struct HubPending {
    count: Gauge,
    oldest: Seconds,
}

impl PendingMetrics {
    pub(super) fn new(registry: &mut Registry) -> Arc<Self> {
        let own = Self::default();
        registry.register(
            "connection_events_pending",
            "Connection events of the hub that are not delivered yet, on all nodes",
            own.count.clone(),
        );
        registry.register(
            "connection_events_pending_seconds",
            "Age of the oldest connection event of the hub that is not delivered yet",
            own.oldest.clone(),
        );
        Arc::new(own)
    }

    pub(crate) fn of(&self, hub: &str) -> HubPending {
        let label = [("hub", hub.to_owned())];
        HubPending {
            count: self.count.get_or_create_owned(&label),
            oldest: self.oldest.get_or_create_owned(&label),
        }
    }
}

impl HubPending {
    pub(crate) fn set(&self, pending: &PendingEvents) {
        self.count.set(i64::try_from(pending.count).unwrap_or(i64::MAX));
        self.oldest.set(pending.oldest.unwrap_or_default().as_secs_f64());
    }
}
