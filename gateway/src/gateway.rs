//! The parts of a node, put together.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use hubcast_backplane::memory::MemoryBackplane;
use hubcast_backplane::{Backplane, BackplaneError, HubName, HubOptions, NodeId, Status};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use crate::auth::{Authenticator, Origins, PointSigner, ServerAuthenticator, TicketBooth, TokenSigner};
use crate::cluster::{Cluster, ServeNode};
use crate::drain::{Pace, let_go};
use crate::error::Error;
use crate::http::{self, Hosts};
use crate::hub::{Hub, HubHandle, HubRuntime, Shared};
#[cfg(feature = "cli")]
use crate::limits::Doors;
use crate::limits::{Gate, Terms};
use crate::options::DRAIN_RATE;
use crate::options::Options;
use crate::session::{CloseReason, Session};
use crate::telemetry::metrics::Metrics;

/// A warning for operators.
pub(crate) const NO_HUB: &str = "no hub is served, so every negotiate is answered with 404; name one in the configuration, such as [hubs.chat]";

/// Time that the last connections of a drain have to end; half of the deadline where that is less.
const LAST: Duration = Duration::from_secs(5);

/// A running gateway node, to be mounted in an axum application.
///
/// ```no_run
/// use hubcast::{Context, Gateway, Hub, HubError, Options};
///
/// async fn send_message(context: Context, user: String, text: String) -> Result<(), HubError> {
///     context.clients().all().send("ReceiveMessage", (user, text)).await?;
///     Ok(())
/// }
///
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// let mut options = Options::default();
/// options.auth.allow_anonymous = Some(true);
/// let gateway = Gateway::builder()
///     .hub(Hub::new("chat").method("SendMessage", send_message))
///     .options(options)
///     .build()
///     .await?;
///
/// // Outside of hub code, for example in a background task:
/// gateway.hub("chat")?.clients().all().send("Started", ()).await?;
///
/// let listener = tokio::net::TcpListener::bind("127.0.0.1:8080").await?;
/// axum::serve(listener, gateway.router()).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Gateway {
    app: App,
}

/// What a gateway is made of.
///
/// ```
/// use std::sync::Arc;
/// use std::time::Duration;
/// use hubcast::backplane::NodeId;
/// use hubcast::backplane::memory::MemoryBackplane;
/// use hubcast::{Drained, Gateway, Hub, Options};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let mut options = Options::default();
/// options.auth.access_key = Some("an access key of at least 32 bytes".into());
/// let gateway = Gateway::builder()
///     .hub(Hub::new("chat"))
///     .hub(Hub::new("news"))
///     .backplane(Arc::new(MemoryBackplane::new(NodeId::parse("node-1")?)))
///     .options(options)
///     .build()
///     .await?;
/// let app: axum::Router = axum::Router::new().merge(gateway.router());
///
/// // Before the process ends:
/// gateway.begin_drain();
/// assert_eq!(gateway.shutdown(Duration::from_secs(10)).await, Drained::Clean);
/// # Ok(())
/// # }
/// ```
pub struct GatewayBuilder {
    hubs: Vec<Hub>,
    options: Options,
    backplane: Option<Arc<dyn Backplane>>,
    /// Whether tokens of back ends may be for any URL of REST, or none.
    lax: bool,
    metrics: Option<Arc<Metrics>>,
    drain_rate: u32,
}

impl Default for GatewayBuilder {
    fn default() -> Self {
        Self {
            hubs: Vec::new(),
            options: Options::default(),
            backplane: None,
            lax: false,
            metrics: None,
            drain_rate: DRAIN_RATE,
        }
    }
}

/// How a shutdown went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drained {
    /// Every connection and task has ended.
    Clean,
    /// The deadline came first; this many tasks were left behind.
    Abandoned {
        /// Tasks that had not ended.
        tasks: usize,
    },
}

impl GatewayBuilder {
    /// Adds a hub. Its path is `/hubs/` and its name.
    #[must_use]
    pub fn hub(mut self, hub: Hub) -> Self {
        self.hubs.push(hub);
        self
    }

    /// Sets limits, times, origins and keys.
    #[must_use]
    pub fn options(mut self, options: Options) -> Self {
        self.options = options;
        self
    }

    /// Sets the backplane. Without one the gateway runs alone, on an in-memory one.
    #[must_use]
    pub fn backplane(mut self, backplane: Arc<dyn Backplane>) -> Self {
        self.backplane = Some(backplane);
        self
    }

    /// Sets how many connections leave in a second, of all nodes of the cluster together, where nodes stop: 500 by default, 0 for
    /// as many as they can. A deadline that needs more goes before it.
    #[must_use]
    pub fn drain_rate(mut self, per_second: u32) -> Self {
        self.drain_rate = per_second;
        self
    }

    /// Believes tokens of back ends whatever REST URL they are for: for trying things out.
    #[cfg(feature = "cli")]
    pub(crate) fn lax(mut self) -> Self {
        self.lax = true;
        self
    }

    /// Counts on in these.
    #[cfg(feature = "cli")]
    pub(crate) fn metrics(mut self, metrics: &Arc<Metrics>) -> Self {
        self.metrics = Some(Arc::clone(metrics));
        self
    }

    /// Checks the settings and opens the hubs. Must be called in a tokio runtime.
    ///
    /// # Errors
    /// [`Error`] for a setting or a name that can't work, or a backplane that can't be reached.
    pub async fn build(self) -> Result<Gateway, Error> {
        self.options.check()?;
        let authenticator = Authenticator::new(&self.options.auth)?;
        let servers = ServerAuthenticator::new(&self.options.auth, self.lax);
        let backplane = match self.backplane {
            Some(backplane) => backplane,
            None => Arc::new(MemoryBackplane::new(NodeId::parse("local")?)),
        };
        let metrics = self.metrics.unwrap_or_else(|| Arc::new(Metrics::new()));
        let shared = Shared::new(self.options, backplane, Arc::new(Cluster), metrics);
        let shared = Arc::new(shared.with_drain_rate(self.drain_rate));
        let mut hubs = HashMap::with_capacity(self.hubs.len());
        for hub in self.hubs {
            let runtime = Arc::new(HubRuntime::new(hub, Arc::clone(&shared))?);
            let name = runtime.name().clone();
            if hubs.insert(name.clone(), runtime).is_some() {
                return Err(Error::DefinedTwice {
                    kind: "hub",
                    name: name.to_string(),
                });
            }
        }
        shared
            .backplane()
            .set_service(Arc::new(ServeNode::new(hubs.values())));
        for (name, runtime) in &hubs {
            let log = &runtime.options().hubs;
            let log = HubOptions {
                retention_messages: log.retention_messages,
                retention: log.retention,
                retention_topic_bytes: log.retention_topic_bytes,
                retention_bytes: log.retention_bytes,
                resume_window: log.resume_window,
                volatile: log.volatile,
                keeps_unread: log.keep_unread,
                presence: log.presence,
                tells_ends: runtime.hears_of_ends(),
            };
            shared
                .backplane()
                .open_hub(name.clone(), log, Arc::clone(runtime) as _)
                .await?;
        }
        for fetching in authenticator.fetch_keys() {
            let stopping = shared.stopping().clone();
            shared
                .tasks()
                .spawn(async move { stopping.run_until_cancelled(fetching).await });
        }
        Ok(Gateway {
            app: App::new(shared, hubs, authenticator, servers),
        })
    }
}

impl Gateway {
    /// Begins one.
    #[must_use]
    pub fn builder() -> GatewayBuilder {
        GatewayBuilder::default()
    }

    /// The paths of all hubs, `/healthz`, `/readyz` and `/metrics`.
    pub fn router(&self) -> Router {
        self.router_with(Router::new())
    }

    /// The same, and more pages.
    pub(crate) fn router_with(&self, pages: Router) -> Router {
        http::router(self.app.clone(), pages)
    }

    /// What operators ask for, on a listener of its own.
    #[cfg(feature = "cli")]
    pub(crate) fn admin_router(&self) -> Router {
        http::admin_router(self.app.clone())
    }

    /// A warning for operators that is not about the backplane.
    #[cfg(feature = "cli")]
    pub(crate) fn own_warning(&self) -> Option<String> {
        self.app.own_warning()
    }

    /// How the router is served. Who fetches an answer may take as long as the most patient hub allows for.
    #[cfg(feature = "cli")]
    pub(crate) fn rules(&self, doors: Option<Arc<Doors>>) -> http::Rules {
        let shared = &self.app.inner.shared;
        let options = shared.options();
        let hubs = self.app.inner.hubs.values();
        let patience = hubs.clone().map(|hub| hub.options().timeouts.send).max();
        let silence = hubs.map(|hub| hub.options().timeouts.client_timeout).max();
        http::Rules {
            most_headers: options.limits.headers,
            idle: options.timeouts.idle,
            silence: silence.unwrap_or_default().max(options.timeouts.client_timeout),
            terms: Terms {
                grace: patience.unwrap_or_default().max(options.timeouts.send),
                ..shared.terms()
            },
            doors,
            metrics: Arc::clone(shared.metrics_handle()),
        }
    }

    /// A hub, for use outside of its methods.
    ///
    /// # Errors
    /// [`Error::UnknownHub`] when the gateway was built without it.
    pub fn hub(&self, name: &str) -> Result<HubHandle, Error> {
        let hub = self
            .app
            .hub(name)
            .ok_or_else(|| Error::UnknownHub(name.to_owned()))?;
        Ok(HubHandle::new(hub))
    }

    /// Makes `/readyz` fail, so that load balancers look elsewhere. Connections go on.
    pub fn begin_drain(&self) {
        self.app.inner.draining.store(true, Ordering::Release);
    }

    /// Ends every connection, telling clients that they may reconnect, and waits for all tasks, but no longer than
    /// `deadline`. Connections leave at the [rate](GatewayBuilder::drain_rate) that all nodes share, or at the one that the
    /// deadline needs.
    pub async fn shutdown(&self, deadline: Duration) -> Drained {
        self.begin_drain();
        self.app.inner.leaving.cancel();
        let shared = &self.app.inner.shared;
        shared.stopping().cancel();
        let within = deadline - LAST.min(deadline / 2);
        let pace = Pace {
            rate: shared.drain_rate(),
            deadline: Some(Instant::now() + within),
        };
        let finished = timeout(deadline, async {
            let sessions = self.app.sessions();
            let_go(shared.backplane(), pace, sessions, &CloseReason::NodeStops).await;
            // Those that came after the list was made.
            let late = self.app.sessions().into_iter();
            late.for_each(|session| session.leave(CloseReason::NodeStops));
            shared.tasks().close();
            shared.tasks().wait().await;
        })
        .await;
        let drained = match finished {
            Ok(()) => Drained::Clean,
            Err(_) => Drained::Abandoned {
                tasks: shared.tasks().len(),
            },
        };
        // Short even when the server can't be reached: the node's lease ends by itself.
        let _ = timeout(Duration::from_secs(2), shared.backplane().shutdown()).await;
        drained
    }
}

impl fmt::Debug for Gateway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gateway")
            .field("hubs", &self.app.inner.hubs.len())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for GatewayBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GatewayBuilder")
            .field("hubs", &self.hubs)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

/// What the HTTP endpoints need. Cheap to clone.
#[derive(Clone)]
pub(crate) struct App {
    inner: Arc<Inner>,
}

struct Inner {
    shared: Arc<Shared>,
    hubs: HashMap<HubName, Arc<HubRuntime>>,
    authenticator: Authenticator,
    servers: ServerAuthenticator,
    origins: Origins,
    hosts: Hosts,
    gate: Gate,
    draining: AtomicBool,
    /// Ends when the node no longer waits for clients.
    leaving: CancellationToken,
}

/// Whether the node may get traffic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Readiness {
    Ready,
    Draining,
    /// From the backplane.
    CutOff,
    /// Keys of tokens were never had yet; which and why.
    NoKeys(String),
}

impl App {
    fn new(
        shared: Arc<Shared>,
        hubs: HashMap<HubName, Arc<HubRuntime>>,
        authenticator: Authenticator,
        servers: ServerAuthenticator,
    ) -> Self {
        let options = shared.options();
        let origins = Origins::new(&options.cors);
        let hosts = Hosts::new(&options.server);
        let gate = Gate::new(options);
        let draining = AtomicBool::new(false);
        Self {
            inner: Arc::new(Inner {
                shared,
                hubs,
                authenticator,
                servers,
                origins,
                hosts,
                gate,
                draining,
                leaving: CancellationToken::new(),
            }),
        }
    }

    /// The hub of that name, or else one whose name differs in case alone: SDKs write it in small letters.
    pub(crate) fn hub(&self, name: &str) -> Option<Arc<HubRuntime>> {
        let alike = || {
            let mut hubs = self.inner.hubs.values();
            hubs.find(|hub| hub.name().as_str().eq_ignore_ascii_case(name))
        };
        self.inner.hubs.get(name).or_else(alike).cloned()
    }

    pub(crate) fn authenticator(&self) -> &Authenticator {
        &self.inner.authenticator
    }

    /// Who checks the tokens of back ends.
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

    /// Who counts the connections of users and addresses.
    pub(crate) fn gate(&self) -> &Gate {
        &self.inner.gate
    }

    pub(crate) fn metrics(&self) -> &Metrics {
        self.inner.shared.metrics()
    }

    /// The signer of connection tokens, keyed by the secret that the cluster has now.
    pub(crate) fn tokens(&self) -> TokenSigner {
        TokenSigner::new(&self.inner.shared.backplane().cluster_secret())
    }

    /// The signer of places in logs, keyed alike.
    pub(crate) fn points(&self) -> PointSigner {
        PointSigner::new(&self.inner.shared.backplane().cluster_secret())
    }

    /// Who gives tickets and reads them, if negotiate does.
    pub(crate) fn tickets(&self) -> Option<TicketBooth> {
        if !self.authenticator().gives_tickets() {
            return None;
        }
        TicketBooth::new(&self.inner.shared.backplane().cluster_secret())
    }

    /// What the gateway is set to.
    pub(crate) fn options(&self) -> &Options {
        self.inner.shared.options()
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

    /// The one that is not about the backplane.
    pub(crate) fn own_warning(&self) -> Option<String> {
        self.inner.hubs.is_empty().then(|| NO_HUB.to_owned())
    }

    /// Whether `limits.connections` leaves room for one more. Who has left and may come back takes no room.
    pub(crate) fn has_room(&self) -> bool {
        let limit = self.inner.shared.options().limits.connections;
        limit == 0
            || self
                .connections()
                .saturating_sub(self.inner.shared.parked().len())
                < limit
    }

    /// Whether the node takes no new connections because it leaves.
    pub(crate) fn is_draining(&self) -> bool {
        self.inner.draining.load(Ordering::Acquire)
    }

    /// The metrics page, with what is only known by looking.
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
        let ages = self.inner.hubs.values().map(|hub| hub.checkpoints().age());
        metrics
            .checkpoint_age
            .set(ages.max().unwrap_or_default().as_secs_f64());
        let queued: usize = self
            .inner
            .hubs
            .values()
            .map(|hub| hub.registry().queued_bytes())
            .sum();
        metrics
            .outbox_bytes
            .set(i64::try_from(queued).unwrap_or(i64::MAX));
        metrics.encode()
    }

    /// The sessions of all hubs.
    fn sessions(&self) -> Vec<Arc<Session>> {
        let hubs = self.inner.hubs.values();
        hubs.flat_map(|hub| hub.registry().all()).collect()
    }

    fn connections(&self) -> usize {
        self.inner.hubs.values().map(|hub| hub.registry().len()).sum()
    }
}
