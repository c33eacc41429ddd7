//! The sockets of a node: open from its first moment, for clients and, on a port of their own, for operators.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use hubcast::Gateway;
use hubcast::server::{Listener, Serving, Starting};

use crate::config::Config;

/// How long requests that came before the node had started may take to be answered.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);

/// The listeners of a node.
pub(super) struct Listeners {
    clients: Listener,
    /// The one of `server.admin_listen`.
    operators: Option<Listener>,
}

impl Listeners {
    pub(super) async fn bind(config: &Config) -> anyhow::Result<Self> {
        let options = &config.options;
        let operators = match &options.server.admin_listen {
            Some(listen) => Some(bind("server.admin_listen", listen).await?),
            None => None,
        };
        Ok(Self {
            clients: bind("listen", &config.listen).await?.for_clients(options),
            operators,
        })
    }

    /// The address for clients.
    pub(super) fn address(&self) -> SocketAddr {
        self.clients.address()
    }

    /// The address for operators, if that is another one.
    pub(super) fn admin(&self) -> Option<SocketAddr> {
        self.operators.as_ref().map(Listener::address)
    }

    /// Answers all requests that the node is starting.
    pub(super) fn serve_starting(&self, config: &Config, starting: &Arc<Starting>) -> Vec<Serving> {
        let listeners = self.operators.iter().chain([&self.clients]);
        listeners
            .map(|listener| listener.serve_starting(starting, &config.options, PATIENCE))
            .collect()
    }

    /// Serves a node that has started, for clients and for operators.
    pub(super) fn serve(
        self,
        gateway: &Gateway,
        pages: Router,
        deadline: Duration,
    ) -> (Serving, Option<Serving>) {
        let clients = self.clients.serve(gateway, pages, deadline);
        let admin = |listener: Listener| listener.serve(gateway, Router::new(), deadline);
        (clients, self.operators.map(admin))
    }
}

async fn bind(key: &str, listen: &str) -> anyhow::Result<Listener> {
    let bound = Listener::bind(listen).await;
    bound.with_context(|| format!("{key}: can't bind {listen}; is another process using it?"))
}
