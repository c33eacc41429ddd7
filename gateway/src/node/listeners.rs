//! The sockets of a node, and the services on them: from its first moment, and once it has started.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::gateway::Gateway;
use crate::http::starting::{self, Starting};
use crate::http::{self, Rules};
use crate::limits::Doors;
use crate::telemetry::metrics::Metrics;

/// How long requests that came before the node had started may take to be answered.
const PATIENCE: Duration = Duration::from_secs(2);

/// The listeners of a node.
pub(super) struct Listeners {
    clients: Bound,
    /// The one of `server.admin_listen`.
    operators: Option<Bound>,
    doors: Arc<Doors>,
}

#[derive(Clone)]
struct Bound {
    listener: Arc<TcpListener>,
    address: SocketAddr,
}

/// The server task of one listener. Ends when dropped.
pub(super) struct Serving {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Listeners {
    pub(super) async fn bind(config: &Config) -> anyhow::Result<Self> {
        let options = &config.options;
        let operators = match &options.server.admin_listen {
            Some(listen) => Some(Bound::open("server.admin_listen", listen).await?),
            None => None,
        };
        Ok(Self {
            clients: Bound::open("listen", &config.listen).await?,
            operators,
            doors: Doors::new(options),
        })
    }

    /// The address for clients.
    pub(super) fn address(&self) -> SocketAddr {
        self.clients.address
    }

    /// The address for operators, if that is another one.
    pub(super) fn admin(&self) -> Option<SocketAddr> {
        Some(self.operators.as_ref()?.address)
    }

    /// Answers all requests that the node is starting.
    pub(super) fn serve_starting(
        &self,
        config: &Config,
        starting: &Arc<Starting>,
        metrics: &Arc<Metrics>,
    ) -> Vec<Serving> {
        let options = &config.options;
        let rules = |doors| Rules::starting(options, doors, metrics);
        let router = starting::router(starting, options);
        let clients = self.clients.clone();
        let clients = clients.serve(router, rules(Some(Arc::clone(&self.doors))), PATIENCE);
        let operators = self.operators.clone();
        let operators =
            operators.map(|bound| bound.serve(starting::admin_router(starting), rules(None), PATIENCE));
        operators.into_iter().chain([clients]).collect()
    }

    /// Serves a node that has started, for clients and for operators.
    pub(super) fn serve(
        self,
        gateway: &Gateway,
        pages: Router,
        deadline: Duration,
    ) -> (Serving, Option<Serving>) {
        let rules = gateway.rules(Some(self.doors));
        let clients = self.clients.serve(gateway.router_with(pages), rules, deadline);
        let admin = |bound: Bound| bound.serve(gateway.admin_router(), gateway.rules(None), deadline);
        (clients, self.operators.map(admin))
    }
}

impl Bound {
    async fn open(key: &str, listen: &str) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(listen)
            .await
            .with_context(|| format!("{key}: can't bind {listen}; is another process using it?"))?;
        let address = listener
            .local_addr()
            .with_context(|| format!("{key}: the bound address is unknown"))?;
        Ok(Self {
            listener: Arc::new(listener),
            address,
        })
    }

    fn serve(self, router: Router, rules: Rules, deadline: Duration) -> Serving {
        let stop = CancellationToken::new();
        let serving = http::serve(self.listener, router, rules, stop.clone(), deadline);
        Serving {
            stop,
            task: tokio::spawn(serving),
        }
    }
}

impl Serving {
    /// Accepts no more connections; requests are answered to their end.
    pub(super) fn stop(&self) {
        self.stop.cancel();
    }

    /// Waits until that is so, but not for long.
    pub(super) async fn ended(mut self) {
        let _ = timeout(PATIENCE, &mut self.task).await;
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.task.abort();
    }
}
