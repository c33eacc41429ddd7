//! The node's state that the HTTP endpoints use.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use hubcast_backplane::{BackplaneError, Status};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use super::Hosts;
use crate::auth::{Authenticator, Origins, PointSigner, ServerAuthenticator, TicketCipher, TokenSigner};
use crate::hub::{HubRuntime, Hubs, Shared};
use crate::limits::{Gate, Terms};
use crate::options::Options;
use crate::session::Session;
use crate::telemetry::metrics::Metrics;

/// Most requests that are answered late, on purpose.
const MOST_LATE: usize = 64;
/// A warning for operators.
pub(crate) const NO_HUB: &str = "no hub is served, so every negotiate is answered with 404; name one in the configuration, such as [hubs.chat]";

/// The state that the HTTP endpoints use. Cheap to clone.
#[derive(Clone)]
pub(crate) struct App {
    inner: Arc<AppState>,
}

struct AppState {
    shared: Arc<Shared>,
    hubs: Arc<Hubs>,
    authenticator: Authenticator,
    servers: ServerAuthenticator,
    origins: Origins,
    hosts: Hosts,
    gate: Gate,
    /// The newest signer of connection tokens, with the secret that it is keyed by.
    tokens: ArcSwapOption<(Arc<[u8]>, Arc<TokenSigner>)>,
    /// Requests that are answered late, on purpose.
    late: Arc<Semaphore>,
    draining: AtomicBool,
    /// Ends when the node no longer waits for clients.
    leaving: CancellationToken,
}

/// The readiness of the node for traffic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Readiness {
    Ready,
    Draining,
    /// The node is cut off from the backplane.
    CutOff,
    /// Keys of tokens were never had yet; which and why.
    NoKeys(String),
}

impl App {
    pub(crate) fn new(
        shared: Arc<Shared>,
        hubs: Arc<Hubs>,
        authenticator: Authenticator,
        servers: ServerAuthenticator,
    ) -> Self {
        let options = shared.options();
        let origins = Origins::new(&options.cors);
        let hosts = Hosts::new(&options.server);
        let gate = Gate::new(options);
        let draining = AtomicBool::new(false);
        Self {
            inner: Arc::new(AppState {
                shared,
                hubs,
                authenticator,
                servers,
                origins,
                hosts,
                gate,
                tokens: ArcSwapOption::empty(),
                late: Arc::new(Semaphore::new(MOST_LATE)),
                draining,
                leaving: CancellationToken::new(),
            }),
        }
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.inner.shared
    }

    /// The hubs that are served.
    pub(crate) fn hubs(&self) -> &Arc<Hubs> {
        &self.inner.hubs
    }

    /// Says to load balancers that the node is not ready any more.
    pub(crate) fn begin_drain(&self) {
        self.inner.draining.store(true, Ordering::Release);
    }

    /// The hub of that name, or else one whose name differs in case alone: SDKs write it in small letters.
    pub(crate) fn hub(&self, name: &str) -> Option<Arc<HubRuntime>> {
        self.inner.hubs.find(name)
    }

    pub(crate) fn authenticator(&self) -> &Authenticator {
        &self.inner.authenticator
    }

    /// The authenticator of back ends.
    pub(crate) fn servers(&self) -> &ServerAuthenticator {
        &self.inner.servers
    }

    pub(crate) fn origins(&self) -> &Origins {
        &self.inner.origins
    }

    /// The hosts that requests may be for.
    pub(crate) fn hosts(&self) -> &Hosts {
        &self.inner.hosts
    }

    /// The gate that counts the connections of users and addresses.
    pub(crate) fn gate(&self) -> &Gate {
        &self.inner.gate
    }

    pub(crate) fn metrics(&self) -> &Metrics {
        self.inner.shared.metrics()
    }

    /// The signer of connection tokens, keyed by the secret that the cluster has now.
    pub(crate) fn tokens(&self) -> Arc<TokenSigner> {
        let secret = self.inner.shared.backplane().cluster_secret();
        let known = self.inner.tokens.load();
        if let Some(known) = known.as_ref().filter(|known| Arc::ptr_eq(&known.0, &secret)) {
            return Arc::clone(&known.1);
        }
        let signer = Arc::new(TokenSigner::new(&secret));
        self.inner
            .tokens
            .store(Some(Arc::new((secret, Arc::clone(&signer)))));
        signer
    }

    /// The signer of places in logs, keyed alike.
    pub(crate) fn points(&self) -> PointSigner {
        PointSigner::new(&self.inner.shared.backplane().cluster_secret())
    }

    /// The cipher that writes and reads tickets; `None` where negotiate gives none.
    pub(crate) fn tickets(&self) -> Option<TicketCipher> {
        if !self.authenticator().gives_tickets() {
            return None;
        }
        TicketCipher::new(&self.inner.shared.backplane().cluster_secret())
    }

    /// The options of the gateway.
    pub(crate) fn options(&self) -> &Options {
        self.inner.shared.options()
    }

    /// A place among the requests that are answered late, on purpose; `None` where there are enough of them.
    pub(super) fn late_answer(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.inner.late).try_acquire_owned().ok()
    }

    /// How slowly the bodies of requests may come.
    pub(crate) fn terms(&self) -> Terms {
        self.inner.shared.terms()
    }

    /// Ends when the node no longer waits for clients.
    pub(crate) fn leaving(&self) -> &CancellationToken {
        &self.inner.leaving
    }

    pub(crate) fn readiness(&self) -> Readiness {
        let status = *self.inner.shared.backplane().status().borrow();
        match (self.is_draining(), status) {
            (true, _) => Readiness::Draining,
            (false, Status::Connected) => match self.authenticator().missing_keys() {
                Some(missing) => Readiness::NoKeys(missing),
                None => Readiness::Ready,
            },
            (false, Status::Disconnected) => Readiness::CutOff,
        }
    }

    /// Fails while the backplane is known to be away.
    pub(crate) fn check_backplane(&self) -> Result<(), BackplaneError> {
        match *self.inner.shared.backplane().status().borrow() {
            Status::Connected => Ok(()),
            Status::Disconnected => Err(BackplaneError::Unavailable {
                waited: Duration::ZERO,
                reason: "the node is cut off from its backplane".to_owned(),
            }),
        }
    }

    /// Warnings for operators, in sentences.
    pub(crate) fn warnings(&self) -> Vec<String> {
        let mut warnings = self.inner.shared.backplane().warnings();
        warnings.extend(self.own_warning());
        warnings
    }

    /// The warning that is not about the backplane.
    pub(crate) fn own_warning(&self) -> Option<String> {
        let hubs = &self.inner.hubs;
        let none = hubs.all().is_empty() && !hubs.take_undeclared();
        none.then(|| NO_HUB.to_owned())
    }

    /// Returns whether `limits.connections` leaves room for one more. A parked session takes no room.
    pub(crate) fn has_room(&self) -> bool {
        let limit = self.inner.shared.options().limits.connections;
        limit == 0
            || self
                .connections()
                .saturating_sub(self.inner.shared.parked().len())
                < limit
    }

    /// Returns whether the node takes no new connections because it leaves.
    pub(crate) fn is_draining(&self) -> bool {
        self.inner.draining.load(Ordering::Acquire)
    }

    /// The metrics page, with the figures that are only known by looking.
    pub(crate) fn encode_metrics(&self) -> String {
        let shared = &self.inner.shared;
        let metrics = shared.metrics();
        let connected = *shared.backplane().status().borrow() == Status::Connected;
        metrics.backplane_up.set(i64::from(connected));
        let warnings = shared.backplane().warnings().len();
        metrics
            .backplane_warnings
            .set(i64::try_from(warnings).unwrap_or(i64::MAX));
        metrics
            .tasks
            .set(i64::try_from(shared.tasks().len()).unwrap_or(i64::MAX));
        let held = i64::try_from(shared.budget().held());
        metrics.held_bytes.set(held.unwrap_or(i64::MAX));
        let whole = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        let log = shared.backplane().statistics();
        metrics.log_waiting.set(whole(log.waiting as u64));
        metrics.log_repairs.set(whole(log.repairs));
        metrics.log_repaired.set(whole(log.repaired));
        metrics.events_dropped.set(whole(log.events_dropped));
        let hubs = self.inner.hubs.all();
        let ages = hubs.values().map(|hub| hub.checkpoints().age());
        metrics
            .checkpoint_age
            .set(ages.max().unwrap_or_default().as_secs_f64());
        let queued: usize = hubs.values().map(|hub| hub.registry().queued_bytes()).sum();
        metrics
            .outbox_bytes
            .set(i64::try_from(queued).unwrap_or(i64::MAX));
        metrics.encode()
    }

    /// The sessions of all hubs.
    pub(crate) fn sessions(&self) -> Vec<Arc<Session>> {
        let hubs = self.inner.hubs.all();
        hubs.values().flat_map(|hub| hub.registry().all()).collect()
    }

    fn connections(&self) -> usize {
        let hubs = self.inner.hubs.all();
        hubs.values().map(|hub| hub.registry().len()).sum()
    }
}
