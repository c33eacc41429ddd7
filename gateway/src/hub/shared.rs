//! The state that all hubs and endpoints of a node share.

use std::sync::Arc;
use std::time::Duration;

use hubcast_backplane::{Backplane, Status};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Peers;
use crate::limits::{Budget, Terms};
use crate::options::{DRAIN_CALLS, DRAIN_RATE, Options};
use crate::session::Parked;
use crate::telemetry::metrics::Metrics;

/// Time between two lines of the log about mistakes of clients.
const MISTAKE_PAUSE: Duration = Duration::from_secs(1);
/// The state that every part of a node needs.
pub(crate) struct Shared {
    options: Options,
    backplane: Arc<dyn Backplane>,
    status: watch::Receiver<Status>,
    peers: Arc<dyn Peers>,
    metrics: Arc<Metrics>,
    budget: Arc<Budget>,
    parked: Arc<Parked>,
    /// Most connections that all nodes let go in a second; 0 for any number.
    drain_rate: u32,
    /// How long calls whose clients have moved may go on while the node leaves.
    drain_calls: Duration,
    /// The time when a client's mistake was last logged.
    reported_mistake: Mutex<Option<Instant>>,
    tasks: TaskTracker,
    stopping: CancellationToken,
    calls_over: CancellationToken,
}

impl Shared {
    pub(crate) fn new(
        options: Options,
        backplane: Arc<dyn Backplane>,
        peers: Arc<dyn Peers>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let budget = Budget::new(options.limits.held_bytes);
        let parked = Parked::new(options.limits.connections);
        Self {
            options,
            status: backplane.status(),
            backplane,
            peers,
            metrics,
            budget,
            parked,
            drain_rate: DRAIN_RATE,
            drain_calls: DRAIN_CALLS,
            reported_mistake: Mutex::default(),
            tasks: TaskTracker::new(),
            stopping: CancellationToken::new(),
            calls_over: CancellationToken::new(),
        }
    }

    /// The same with another pace at which connections leave, and another time for their calls.
    pub(crate) fn with_drain(self, drain_rate: u32, drain_calls: Duration) -> Self {
        Self {
            drain_rate,
            drain_calls,
            ..self
        }
    }

    /// How long calls whose clients have moved may go on while the node leaves.
    pub(crate) fn drain_calls(&self) -> Duration {
        self.drain_calls
    }

    /// Ends when a node that leaves waits no longer for calls of clients that have moved.
    pub(crate) fn calls_over(&self) -> &CancellationToken {
        &self.calls_over
    }

    /// Most connections that all nodes let go in a second; 0 for any number.
    pub(crate) fn drain_rate(&self) -> u32 {
        self.drain_rate
    }

    pub(crate) fn options(&self) -> &Options {
        &self.options
    }

    pub(crate) fn backplane(&self) -> &dyn Backplane {
        &*self.backplane
    }

    /// Returns whether the backplane can be reached.
    pub(crate) fn is_connected(&self) -> bool {
        *self.status.borrow() == Status::Connected
    }

    /// Ends when the backplane can be reached; never where the node ends before.
    pub(crate) async fn connected(&self) {
        let mut status = self.status.clone();
        if status
            .wait_for(|status| *status == Status::Connected)
            .await
            .is_err()
        {
            std::future::pending::<()>().await;
        }
    }

    /// The other nodes.
    pub(crate) fn peers(&self) -> &dyn Peers {
        &*self.peers
    }

    pub(crate) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    pub(crate) fn metrics_handle(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// Sessions that wait for their clients.
    pub(crate) fn parked(&self) -> &Arc<Parked> {
        &self.parked
    }

    /// Returns whether the log has room for one more mistake of a client: peers could fill it.
    pub(crate) fn may_report_mistake(&self) -> bool {
        let mut reported = self.reported_mistake.lock();
        let may = reported.is_none_or(|at| at.elapsed() >= MISTAKE_PAUSE);
        if may {
            *reported = Some(Instant::now());
        }
        may
    }

    /// The budget for memory that clients make the node hold.
    pub(crate) fn budget(&self) -> &Arc<Budget> {
        &self.budget
    }

    /// How slowly peers may send a request that they have begun, where no hub is concerned.
    pub(crate) fn terms(&self) -> Terms {
        self.terms_of(&self.options)
    }

    pub(super) fn terms_of(&self, options: &Options) -> Terms {
        Terms {
            budget: Arc::clone(&self.budget),
            grace: options.timeouts.receive,
            least_rate: options.limits.least_bytes_per_second,
        }
    }

    /// Ends when the node begins to leave: idle tasks stop.
    pub(crate) fn stopping(&self) -> &CancellationToken {
        &self.stopping
    }

    /// Owns every task of the node, so that a drain can wait for them.
    pub(crate) fn tasks(&self) -> &TaskTracker {
        &self.tasks
    }
}
