//! Paths to endpoints.

use axum::Router;
use axum::extract::{Path, Request, State};
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};

use super::request::Query;
use super::{health, hubs, negotiate, rest};
use crate::gateway::App;

/// Every path of the gateway, for an application to mount.
pub(crate) fn router(app: App) -> Router {
    let cors = app.origins().layer();
    let hubs = Router::new()
        .route("/hubs/{hub}", any(by_path))
        .route("/hubs/{hub}/", any(by_path))
        .route("/hubs/{hub}/negotiate", any(negotiate_by_path))
        .route("/client", any(by_query))
        .route("/client/", any(by_query))
        .route("/client/negotiate", any(negotiate_by_query))
        .layer(cors);
    Router::new()
        .merge(hubs)
        .merge(rest::routes())
        .route("/healthz", get(health::healthz))
        .route(
            "/readyz",
            get(async |State(app): State<App>| health::readyz(&app)),
        )
        .route(
            "/metrics",
            get(async |State(app): State<App>| health::metrics(&app)),
        )
        .with_state(app)
}

async fn by_path(State(app): State<App>, Path(hub): Path<String>, request: Request) -> Response {
    match app.hub(&hub) {
        Some(hub) => hubs::endpoint(app, hub, request).await,
        None => no_such_hub(),
    }
}

async fn by_query(State(app): State<App>, request: Request) -> Response {
    match hub_of(request.uri()).and_then(|hub| app.hub(&hub)) {
        Some(hub) => hubs::endpoint(app, hub, request).await,
        None => no_such_hub(),
    }
}

async fn negotiate_by_path(State(app): State<App>, Path(hub): Path<String>, request: Request) -> Response {
    match app.hub(&hub) {
        Some(hub) => negotiate::negotiate(&app, &hub, &request.into_parts().0).await,
        None => no_such_hub(),
    }
}

async fn negotiate_by_query(State(app): State<App>, request: Request) -> Response {
    match hub_of(request.uri()).and_then(|hub| app.hub(&hub)) {
        Some(hub) => negotiate::negotiate(&app, &hub, &request.into_parts().0).await,
        None => no_such_hub(),
    }
}

fn hub_of(uri: &Uri) -> Option<String> {
    Query::of(uri)?.get("hub").map(str::to_owned)
}

fn no_such_hub() -> Response {
    (StatusCode::NOT_FOUND, "There is no such hub here").into_response()
}
