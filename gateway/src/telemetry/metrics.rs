//! Metrics in Prometheus' text form.
//!
//! Every gateway has its own registry, so several in one process stay apart. All children of labelled metrics
//! exist from the start: counting is an index and an atomic addition, and a dashboard sees zeros instead of
//! nothing.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use prometheus_client::{
    encoding::text,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram, info::Info},
    registry::{Metric, Registry},
};

use super::labels::{
    CloseLabel, ForwardLabel, InvocationLabel, Label, LimitLabel, RejectLabel, ResumeKind, ResumeOutcome,
};
use super::pending::PendingMetrics;
use super::upstream::UpstreamMetrics;
use crate::protocol::ClientProtocol;
use crate::protocol::Transport;

/// The content type of [`Metrics::encode`].
pub(crate) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The metrics of one gateway.
pub(crate) struct Metrics {
    registry: Registry,
    connections: Vec<ByLabel<ClientProtocol, Gauge>>,

    /// Hub messages from clients.
    pub(crate) messages_received: ByLabel<ClientProtocol>,
    /// Hub messages handed to clients' sockets.
    pub(crate) messages_sent: ByLabel<ClientProtocol>,
    /// Bytes of hub messages from clients.
    pub(crate) received_bytes: Counter,
    /// Bytes of hub messages handed to clients' sockets.
    pub(crate) sent_bytes: Counter,
    /// Messages of the log handed to local connections: one for each message and receiver.
    pub(crate) deliveries: Counter,
    /// Messages of the log that had a local receiver.
    pub(crate) fanout_messages: Counter,
    /// Encodings of messages of the log: at most one for each message and protocol.
    pub(crate) encodes: ByLabel<ClientProtocol>,

    /// Messages that were published to the log.
    pub(crate) published: Counter,
    /// Publications that failed.
    pub(crate) publish_errors: Counter,
    /// Time of one publication, in seconds.
    pub(crate) publish_seconds: Histogram,
    /// The backplane's reachability: 1 or 0.
    pub(crate) backplane_up: Gauge,
    /// Warnings for operators about the backplane. Set before [`encode`](Self::encode).
    pub(crate) backplane_warnings: Gauge,
    /// Times that the log could not prove that nothing is missing.
    pub(crate) log_gaps: Counter,

    resumes: Vec<ByLabel<ResumeOutcome>>,
    /// Messages of the log that were sent, or kept to be sent, again by a node that took a session over.
    pub(crate) replayed: Counter,
    /// Places up to which clients have everything that were written down.
    pub(crate) checkpoints: Counter,

    /// How long the oldest checkpoint waits to be written, in seconds. Set before [`encode`](Self::encode).
    pub(crate) checkpoint_age: Gauge<f64, AtomicU64>,
    /// Entries of the log that wait for the local fan-out. Set before [`encode`](Self::encode).
    pub(crate) log_waiting: Gauge,
    /// Times that missed entries were read from the log. Set before [`encode`](Self::encode).
    pub(crate) log_repairs: Gauge,
    /// Entries that were read from the log instead of being pushed. Set before [`encode`](Self::encode).
    pub(crate) log_repaired: Gauge,
    /// Connection events that were dropped before they were delivered. Set before [`encode`](Self::encode).
    pub(crate) events_dropped: Gauge,
    /// Connection events that wait.
    pub(crate) events_pending: Arc<PendingMetrics>,

    /// Bytes that wait for clients.
    pub(crate) outbox_bytes: Gauge,
    pub(crate) held_bytes: Gauge,
    /// Connections that were closed because their client reads too slowly.
    pub(crate) slow_consumers: Counter,
    /// Requests that another node, the owner of the connection, was asked to serve.
    pub(crate) forwarded_requests: ByLabel<ForwardLabel>,
    /// Negotiations that were answered with a connection token.
    pub(crate) negotiations: Counter,
    /// Requests that were turned away.
    pub(crate) rejected: ByLabel<RejectLabel>,
    /// Times that a limit was reached: a client was refused, closed, or made to wait.
    pub(crate) limited: ByLabel<LimitLabel>,
    /// Connections that ended.
    pub(crate) connections_closed: ByLabel<CloseLabel>,
    /// Invocations of hub methods that ended.
    pub(crate) invocations: ByLabel<InvocationLabel>,
    /// Time from an invocation's arrival at its method to its end, in seconds.
    pub(crate) invocation_seconds: Histogram,
    /// Tasks that are alive. Set before [`encode`](Self::encode).
    pub(crate) tasks: Gauge,
    /// Requests to handlers of the application.
    pub(crate) upstream: Arc<UpstreamMetrics>,
}

impl Metrics {
    /// Metrics at zero, in a registry of their own.
    pub(crate) fn new() -> Self {
        let mut registry = Registry::with_prefix("hubcast");
        let r = &mut registry;
        let build = Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]);
        r.register("build", "The running version", build);
        Self {
            connections: connections(r),
            messages_received: labelled(r, "messages_received", "Hub messages from clients"),
            messages_sent: labelled(r, "messages_sent", "Hub messages handed to clients' sockets"),
            received_bytes: single(r, "received_bytes", "Bytes of hub messages from clients"),
            sent_bytes: single(
                r,
                "sent_bytes",
                "Bytes of hub messages handed to clients' sockets",
            ),
            deliveries: single(r, "deliveries", "Messages of the log handed to local connections"),
            fanout_messages: single(r, "fanout_messages", "Messages of the log with a local receiver"),
            encodes: labelled(r, "encodes", "Encodings of messages of the log"),
            published: single(r, "published", "Messages published to the log"),
            publish_errors: single(r, "publish_errors", "Publications that failed"),
            publish_seconds: histogram(r, "publish_seconds", "Time of one publication"),
            backplane_up: single(r, "backplane_up", "Whether the backplane is reachable"),
            backplane_warnings: single(
                r,
                "backplane_warnings",
                "What an operator should change at the backplane, as /readyz says",
            ),
            log_gaps: single(
                r,
                "log_gaps",
                "Times that the log could not prove that nothing is missing",
            ),
            resumes: resumes(r),
            replayed: single(
                r,
                "replayed_messages",
                "Messages of the log replayed for sessions that moved here",
            ),
            checkpoints: single(r, "checkpoints", "Session checkpoints written to the backplane"),
            checkpoint_age: single(
                r,
                "checkpoint_age_seconds",
                "How long the oldest checkpoint waits",
            ),
            log_waiting: single(
                r,
                "log_waiting",
                "Entries of the log that wait for the local fan-out",
            ),
            log_repairs: single(
                r,
                "log_repairs",
                "Times that missed entries were read from the log",
            ),
            log_repaired: single(r, "log_repaired", "Entries read from the log instead of pushed"),
            events_dropped: single(
                r,
                "connection_events_dropped",
                "Connection events that were dropped before they were delivered",
            ),
            events_pending: PendingMetrics::new(r),
            outbox_bytes: single(r, "outbox_bytes", "Bytes that wait for clients"),
            held_bytes: single(r, "held_bytes", "Bytes of unfinished messages and bodies"),
            slow_consumers: single(
                r,
                "slow_consumers",
                "Connections closed because their client reads too slowly",
            ),
            forwarded_requests: labelled(
                r,
                "forwarded_requests",
                "Requests served by the connection's owner node",
            ),
            negotiations: single(r, "negotiations", "Negotiations answered with a connection token"),
            rejected: labelled(r, "rejected", "Requests turned away"),
            limited: labelled(r, "limited", "Times that a limit was reached"),
            connections_closed: labelled(r, "connections_closed", "Connections that ended"),
            invocations: labelled(r, "invocations", "Invocations of hub methods that ended"),
            invocation_seconds: histogram(
                r,
                "invocation_seconds",
                "Time from an invocation's start to its end",
            ),
            tasks: single(r, "tasks", "Tasks that are alive"),
            upstream: UpstreamMetrics::new(r),
            registry,
        }
    }

    /// The connections of that transport and protocol.
    pub(crate) fn connections(&self, transport: Transport, protocol: ClientProtocol) -> &Gauge {
        self.connections[transport.index()].get(protocol)
    }

    /// Stateful sessions whose client came back.
    pub(crate) fn resumes(&self, kind: ResumeKind, outcome: ResumeOutcome) -> &Counter {
        self.resumes[kind.index()].get(outcome)
    }

    /// All metrics as text, of [`CONTENT_TYPE`].
    pub(crate) fn encode(&self) -> String {
        let mut text = String::new();
        // Writing to a `String` does not fail.
        _ = text::encode(&mut text, &self.registry);
        text
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

/// One metric for each value of a label.
#[derive(Debug)]
pub(crate) struct ByLabel<L, M = Counter> {
    children: Vec<M>,
    label: std::marker::PhantomData<L>,
}

impl<L: Label, M: Clone + Default> ByLabel<L, M> {
    /// The metric of that value.
    pub(crate) fn get(&self, label: L) -> &M {
        &self.children[label.index()]
    }

    fn of(family: &Family<Labels, M>, fixed: &[(&'static str, &'static str)]) -> Self {
        let child = |label: &L| {
            let labels = [fixed, &[(L::NAME, label.as_str())]].concat();
            family.get_or_create_owned(&labels)
        };
        Self {
            children: L::ALL.iter().map(child).collect(),
            label: std::marker::PhantomData,
        }
    }
}

type Labels = Vec<(&'static str, &'static str)>;

fn single<M: Metric + Clone + Default>(registry: &mut Registry, name: &str, help: &str) -> M {
    let metric = M::default();
    registry.register(name, help, metric.clone());
    metric
}

fn labelled<L: Label>(registry: &mut Registry, name: &str, help: &str) -> ByLabel<L> {
    let family = Family::<Labels, Counter>::default();
    registry.register(name, help, family.clone());
    ByLabel::of(&family, &[])
}

fn connections(registry: &mut Registry) -> Vec<ByLabel<ClientProtocol, Gauge>> {
    let family = Family::<Labels, Gauge>::default();
    registry.register(
        "connections",
        "Open connections after their handshake",
        family.clone(),
    );
    let of = |transport: &Transport| ByLabel::of(&family, &[(Transport::NAME, transport.as_str())]);
    Transport::ALL.iter().map(of).collect()
}

fn resumes(registry: &mut Registry) -> Vec<ByLabel<ResumeOutcome>> {
    let family = Family::<Labels, Counter>::default();
    registry.register(
        "session_resumes",
        "Stateful sessions whose client came back",
        family.clone(),
    );
    let of = |kind: &ResumeKind| ByLabel::of(&family, &[(ResumeKind::NAME, kind.as_str())]);
    ResumeKind::ALL.iter().map(of).collect()
}

fn histogram(registry: &mut Registry, name: &str, help: &str) -> Histogram {
    let histogram = Histogram::new(BUCKETS);
    registry.register(name, help, histogram.clone());
    histogram
}

/// From 100 µs, a publication on the same machine, to 5 s, a command's timeout.
pub(super) const BUCKETS: [f64; 15] = [
    0.0001, 0.000_25, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0,
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::HubProtocol;

    #[test]
    fn every_metric_is_there_from_the_start() {
        let text = Metrics::new().encode();
        for line in [
            "hubcast_connections{transport=\"WebSockets\",protocol=\"json\"} 0",
            "hubcast_connections{transport=\"LongPolling\",protocol=\"messagepack\"} 0",
            "hubcast_messages_received_total{protocol=\"json\"} 0",
            "hubcast_messages_sent_total{protocol=\"messagepack\"} 0",
            "hubcast_received_bytes_total 0",
            "hubcast_sent_bytes_total 0",
            "hubcast_deliveries_total 0",
            "hubcast_fanout_messages_total 0",
            "hubcast_encodes_total{protocol=\"json\"} 0",
            "hubcast_published_total 0",
            "hubcast_publish_errors_total 0",
            "hubcast_publish_seconds_bucket{le=\"0.0001\"} 0",
            "hubcast_publish_seconds_bucket{le=\"5.0\"} 0",
            "hubcast_backplane_up 0",
            "hubcast_backplane_warnings 0",
            "hubcast_outbox_bytes 0",
            "hubcast_held_bytes 0",
            "hubcast_slow_consumers_total 0",
            "hubcast_log_gaps_total 0",
            "hubcast_forwarded_requests_total{kind=\"attach\"} 0",
            "hubcast_negotiations_total 0",
            "hubcast_rejected_total{reason=\"unknown_connection\"} 0",
            "hubcast_limited_total{limit=\"messages_per_second\"} 0",
            "hubcast_connections_closed_total{reason=\"transport_lost\"} 0",
            "hubcast_invocations_total{outcome=\"unknown_method\"} 0",
            "hubcast_invocation_seconds_count 0",
            "hubcast_tasks 0",
            concat!(
                "hubcast_build_info{version=\"",
                env!("CARGO_PKG_VERSION"),
                "\"} 1"
            ),
            "# EOF",
        ] {
            assert!(
                text.lines().any(|found| found == line),
                "{line} is not in\n{text}"
            );
        }
    }

    #[test]
    fn a_handle_counts_its_own_child() {
        let metrics = Metrics::new();
        metrics
            .connections(Transport::ServerSentEvents, HubProtocol::MessagePack.into())
            .inc();
        metrics.connections_closed.get(CloseLabel::Fenced).inc_by(2);
        metrics.publish_seconds.observe(0.003);
        let text = metrics.encode();
        assert!(
            text.contains("hubcast_connections{transport=\"ServerSentEvents\",protocol=\"messagepack\"} 1\n")
        );
        assert!(text.contains("hubcast_connections{transport=\"ServerSentEvents\",protocol=\"json\"} 0\n"));
        assert!(text.contains("hubcast_connections_closed_total{reason=\"fenced\"} 2\n"));
        assert!(text.contains("hubcast_publish_seconds_bucket{le=\"0.0025\"} 0\n"));
        assert!(text.contains("hubcast_publish_seconds_bucket{le=\"0.005\"} 1\n"));
    }

    #[test]
    fn two_gateways_count_apart() {
        let (one, two) = (Metrics::new(), Metrics::new());
        one.negotiations.inc();
        assert!(one.encode().contains("hubcast_negotiations_total 1\n"));
        assert!(two.encode().contains("hubcast_negotiations_total 0\n"));
    }
}
