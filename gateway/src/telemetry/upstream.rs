//! Metrics of handlers of the application. Their only label besides outcomes is the handler's name: there are as many as the
//! configuration has.

use std::sync::Arc;
use std::time::Duration;

use prometheus_client::metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram};
use prometheus_client::registry::Registry;

use super::metrics::BUCKETS;

/// The name of a handler, as a label. There are as many as the configuration has.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct UpstreamLabels(Vec<(&'static str, String)>);

impl UpstreamLabels {
    pub(crate) fn of(handler: &str) -> Self {
        Self(vec![("handler", handler.to_owned())])
    }

    fn with(&self, name: &'static str, value: &str) -> Vec<(&'static str, String)> {
        let own = self.0.iter().cloned();
        own.chain([(name, value.to_owned())]).collect()
    }
}

type Names = Vec<(&'static str, String)>;
type Handlers<M> = Family<Names, M>;

/// Requests to handlers of the application.
#[derive(Debug, Default)]
pub(crate) struct UpstreamMetrics {
    requests: Handlers<Counter>,
    seconds: HandlerSeconds,
    open: Handlers<Gauge>,
    waiting: Handlers<Gauge>,
    lost: Handlers<Counter>,
}

#[derive(Debug)]
struct HandlerSeconds(Family<Names, Histogram, fn() -> Histogram>);

impl Default for HandlerSeconds {
    fn default() -> Self {
        Self(Family::new_with_constructor(|| Histogram::new(BUCKETS)))
    }
}

/// One more in a gauge, as long as this is kept.
#[derive(Debug)]
pub(crate) struct InGauge(Gauge);

impl InGauge {
    fn of(gauge: Gauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for InGauge {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl UpstreamMetrics {
    pub(super) fn new(registry: &mut Registry) -> Arc<Self> {
        let own = Self::default();
        let seconds = own.seconds.0.clone();
        registry.register(
            "upstream_requests",
            "Requests to handlers that ended",
            own.requests.clone(),
        );
        registry.register("upstream_seconds", "Time from a request to its answer", seconds);
        registry.register(
            "upstream_open",
            "Hubs for which a handler is left alone after failures",
            own.open.clone(),
        );
        registry.register(
            "upstream_waiting",
            "Calls that wait for a handler",
            own.waiting.clone(),
        );
        registry.register(
            "upstream_events_lost",
            "Events that a handler was never told",
            own.lost.clone(),
        );
        Arc::new(own)
    }

    /// A request that has ended.
    pub(crate) fn request(&self, handler: &UpstreamLabels, outcome: &str, took: Duration) {
        self.requests
            .get_or_create(&handler.with("outcome", outcome))
            .inc();
        self.seconds
            .0
            .get_or_create(&handler.0)
            .observe(took.as_secs_f64());
    }

    /// Counts a hub for which the handler is left alone.
    pub(crate) fn opens(&self, handler: &UpstreamLabels) -> InGauge {
        InGauge::of(self.open.get_or_create_owned(&handler.0))
    }

    /// Counts a call that waits.
    pub(crate) fn waits(&self, handler: &UpstreamLabels) -> InGauge {
        InGauge::of(self.waiting.get_or_create_owned(&handler.0))
    }

    /// An event that the handler was never told.
    pub(crate) fn lost(&self, handler: &UpstreamLabels) -> Counter {
        self.lost.get_or_create_owned(&handler.0)
    }
}
