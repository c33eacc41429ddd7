//! The parts of a node, put together.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hubcast_backplane::memory::MemoryBackplane;
use hubcast_backplane::{Backplane, NodeId};

use crate::auth::{Authenticator, ServerAuthenticator, TokenKeys};
use crate::cluster::{Cluster, ServeNode};
use crate::drain::{self, Drained};
use crate::error::Error;
use crate::http::{self, App, Starting};
use crate::hub::{self, CheckedHub, Hub, HubHandle, HubRuntime, Hubs, Shared, Template};
use crate::limits::{Doors, Terms};
use crate::options::{DRAIN_CALLS, DRAIN_RATE, Options};
use crate::telemetry::metrics::Metrics;

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

/// Builds a gateway from hubs, options and a backplane.
///
/// ```
/// use std::sync::Arc;
/// use std::time::Duration;
/// use hubcast::backplane::NodeId;
/// use hubcast::backplane::memory::MemoryBackplane;
/// use hubcast::drain::Drained;
/// use hubcast::{Gateway, Hub, Options};
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
    /// True if tokens of back ends may be for any URL of REST, or none.
    any_audience: bool,
    token_keys: Option<TokenKeys>,
    undeclared: Option<(usize, Template)>,
    metrics: Option<Arc<Metrics>>,
    drain_rate: u32,
    drain_calls: Duration,
}

impl Default for GatewayBuilder {
    fn default() -> Self {
        Self {
            hubs: Vec::new(),
            options: Options::default(),
            backplane: None,
            any_audience: false,
            token_keys: None,
            undeclared: None,
            metrics: None,
            drain_rate: DRAIN_RATE,
            drain_calls: DRAIN_CALLS,
        }
    }
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

    /// Sets how long calls of clients with stateful reconnect may go on here after their clients have moved to other nodes: 25 s
    /// by default, and never longer than up to 5 s before the deadline of [`shutdown`](Gateway::shutdown). Then they end with an error.
    #[must_use]
    pub fn drain_calls(mut self, patience: Duration) -> Self {
        self.drain_calls = patience;
        self
    }

    /// Accepts tokens of back ends whatever REST URL their `aud` names, or without one: for demonstrations, since such a
    /// token is valid for every operation.
    #[must_use]
    pub fn any_audience(mut self) -> Self {
        self.any_audience = true;
        self
    }

    /// Sets the keys of tokens, to [change](TokenKeys::reload) them while the gateway runs. Without this, they are those of the
    /// options, and stay.
    #[must_use]
    pub fn token_keys(mut self, keys: TokenKeys) -> Self {
        self.token_keys = Some(keys);
        self
    }

    /// Has hubs that were not added opened by those who use them: clients with a token, and back ends by REST. `most` are opened
    /// on this node; `template` makes each of them from its name, which is in small letters. It should be the same on all nodes.
    /// The names have letters, digits, `.`, `_` and `-`, and begin with a letter. Such a hub stays open as long as the node runs.
    #[must_use]
    pub fn undeclared_hubs(
        mut self,
        most: usize,
        template: impl Fn(&str) -> Hub + Send + Sync + 'static,
    ) -> Self {
        self.undeclared = Some((most, Box::new(template)));
        self
    }

    /// Continues the metrics of a node that was [starting](crate::server::Starting).
    #[must_use]
    pub fn started(mut self, starting: &Starting) -> Self {
        self.metrics = Some(Arc::clone(starting.metrics()));
        self
    }

    /// Checks the settings and opens the hubs. Must be called in a tokio runtime.
    ///
    /// # Errors
    /// [`Error`] for a setting or a name that can't work, or a backplane that can't be reached.
    pub async fn build(self) -> Result<Gateway, Error> {
        self.options.check()?;
        let auth = &self.options.auth;
        let keys = self.token_keys.map_or_else(|| TokenKeys::new(auth), Ok)?;
        let authenticator = Authenticator::new(auth, keys.clone());
        let servers = ServerAuthenticator::new(auth, keys, self.any_audience);
        let backplane = match self.backplane {
            Some(backplane) => backplane,
            None => Arc::new(MemoryBackplane::new(NodeId::parse("local")?)),
        };
        let metrics = self.metrics.unwrap_or_else(|| Arc::new(Metrics::new()));
        let shared = Shared::new(self.options, backplane, Arc::new(Cluster), metrics);
        let shared = Arc::new(shared.with_drain(self.drain_rate, self.drain_calls));
        let mut checked = HashMap::with_capacity(self.hubs.len());
        for hub in self.hubs {
            let hub = CheckedHub::new(hub, shared.options())?;
            if let Some(hub) = checked.insert(hub.name().clone(), hub) {
                return Err(Error::DefinedTwice {
                    kind: "hub",
                    name: hub.name().to_string(),
                });
            }
        }
        let mut hubs = HashMap::with_capacity(checked.len());
        for (name, hub) in checked {
            hubs.insert(name, Arc::new(HubRuntime::open(hub, Arc::clone(&shared)).await?));
        }
        let hubs = Arc::new(Hubs::new(hubs, self.undeclared, Arc::clone(&shared)));
        shared.backplane().set_service(Arc::new(ServeNode::new(&hubs)));
        for hub in hubs.all().values() {
            hub::begin_delivery(hub);
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

    /// The same with more pages, which requests for other paths reach.
    pub fn router_with(&self, pages: Router) -> Router {
        http::router(self.app.clone(), pages)
    }

    /// `/healthz`, `/readyz`, `/metrics` and the OpenAPI document: for a listener that only operators reach
    /// ([`ServerOptions::admin_listen`](crate::options::ServerOptions::admin_listen)).
    pub fn admin_router(&self) -> Router {
        http::admin_router(self.app.clone())
    }

    /// A warning for operators that is not about the backplane, as `/readyz` shows it: no hub is served.
    #[must_use]
    pub fn warning(&self) -> Option<String> {
        self.app.own_warning()
    }

    /// The settings of the server. A client may take as long to fetch an answer as the most patient hub allows for.
    pub(crate) fn rules(&self, doors: Option<Arc<Doors>>) -> http::Rules {
        let shared = self.app.shared();
        let options = shared.options();
        let hubs = self.app.hubs().all();
        let patience = hubs.values().map(|hub| hub.options().timeouts.send).max();
        let silence = hubs
            .values()
            .map(|hub| hub.options().timeouts.client_timeout)
            .max();
        http::Rules {
            most_headers: options.limits.headers,
            idle: options.timeouts.idle,
            silence: silence.unwrap_or_default().max(options.timeouts.client_timeout),
            terms: Terms {
                grace: patience.unwrap_or_default().max(options.timeouts.send),
                ..shared.terms()
            },
            sockets: doors.is_some().then(|| self.app.clone()), // clients' listeners alone have the hubs' paths
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
        self.app.begin_drain();
    }

    /// Ends every connection, telling clients that they may reconnect, and waits for all tasks, but no longer than
    /// `deadline`. Connections leave at the [rate](GatewayBuilder::drain_rate) that all nodes share, or at the one that the
    /// deadline needs.
    pub async fn shutdown(&self, deadline: Duration) -> Drained {
        self.begin_drain();
        self.app.leaving().cancel();
        drain::leave(self.app.shared(), || self.app.sessions(), deadline).await
    }
}

impl fmt::Debug for Gateway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gateway")
            .field("hubs", self.app.hubs())
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
