//! The responses of a node that waits for something that it needs to start.
//!
//! The node is alive and not ready. Clients of a hub may try again, here or elsewhere; connections are not used again,
//! since the node proper serves on others.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::middleware::{from_fn, map_response};
use axum::response::Response;
use axum::routing::get;
use parking_lot::Mutex;

use super::{events, health, persistence, reply, rest};
use crate::auth::Origins;
use crate::options::Options;
use crate::telemetry::metrics::Metrics;

/// A starting node, with the reason why it waits, and the metrics that the gateway takes over when it is there.
#[derive(Debug)]
pub struct Starting {
    reason: Mutex<String>,
    metrics: Arc<Metrics>,
}

impl Starting {
    /// A node that waits for something that is not known yet.
    #[must_use]
    pub fn new() -> Arc<Self> {
        let metrics = Arc::new(Metrics::new());
        metrics.backplane_up.set(0);
        Arc::new(Self {
            reason: Mutex::new("not everything is there yet".to_owned()),
            metrics,
        })
    }

    pub(crate) fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// Sets the reason of the wait, which `/readyz` shows to operators. Returns whether it is a new one.
    pub fn waits(&self, reason: &str) -> bool {
        let mut known = self.reason.lock();
        let changed = *known != reason;
        reason.clone_into(&mut known);
        changed
    }

    fn line(&self) -> String {
        format!("starting: {}", self.reason.lock())
    }
}

/// The routes for clients, and for operators where they have no listener of their own.
pub(crate) fn router(starting: &Arc<Starting>, options: &Options) -> Router {
    let mut router = probes()
        .route("/sse/{hub}", get(async || events::come_back()))
        .route("/sse/{hub}/", get(async || events::come_back()));
    if options.server.admin_listen.is_none() {
        router = router.merge(metrics());
    }
    finish(router.layer(Origins::new(&options.cors).layer()), starting)
}

/// The routes for operators.
pub(crate) fn admin_router(starting: &Arc<Starting>) -> Router {
    let document = get(async || rest::document());
    finish(
        probes().merge(metrics()).route("/api/openapi.json", document),
        starting,
    )
}

fn probes() -> Router<Arc<Starting>> {
    Router::new()
        .route("/healthz", get(health::healthz))
        .route("/readyz", get(readyz))
        .fallback(refuse)
}

fn metrics() -> Router<Arc<Starting>> {
    let page = async |State(starting): State<Arc<Starting>>| health::metrics(starting.metrics.encode());
    Router::new().route("/metrics", get(page))
}

fn finish(router: Router<Arc<Starting>>, starting: &Arc<Starting>) -> Router {
    router
        .with_state(Arc::clone(starting))
        .layer(from_fn(persistence::never))
        .layer(map_response(async |response| reply::not_stored(response)))
}

async fn readyz(State(starting): State<Arc<Starting>>) -> Response {
    reply::text(StatusCode::SERVICE_UNAVAILABLE, starting.line() + "\n")
}

/// Refuses without the reason, which is for operators.
async fn refuse() -> Response {
    reply::later("This node is starting. Try again later.")
}
