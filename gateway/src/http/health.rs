//! Liveness, readiness, metrics.

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::reply;
use crate::gateway::{App, Readiness};

/// The process works.
pub(crate) async fn healthz() -> Response {
    reply::text(StatusCode::OK, "ok\n")
}

/// The node may get traffic.
pub(crate) fn readyz(app: &App) -> Response {
    match app.readiness() {
        Readiness::Ready => reply::text(StatusCode::OK, "ready\n"),
        Readiness::Draining => reply::text(StatusCode::SERVICE_UNAVAILABLE, "draining\n"),
        Readiness::CutOff => reply::text(
            StatusCode::SERVICE_UNAVAILABLE,
            "the backplane can't be reached\n",
        ),
    }
}

/// Prometheus text format.
pub(crate) fn metrics(app: &App) -> Response {
    let content_type = crate::telemetry::metrics::CONTENT_TYPE;
    ([(header::CONTENT_TYPE, content_type)], app.encode_metrics()).into_response()
}
