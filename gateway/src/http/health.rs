//! Liveness, readiness, metrics.

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::app::{App, Readiness};
use super::reply;

/// The process works.
pub(crate) async fn healthz() -> Response {
    reply::text(StatusCode::OK, "ok\n")
}

/// The node may get traffic. Further lines are warnings for operators; they make no node unready, since all of a
/// cluster have them alike.
pub(crate) fn readyz(app: &App) -> Response {
    let (status, state) = match app.readiness() {
        Readiness::Ready => (StatusCode::OK, "ready".to_owned()),
        Readiness::Draining => (StatusCode::SERVICE_UNAVAILABLE, "draining".to_owned()),
        Readiness::CutOff => (
            StatusCode::SERVICE_UNAVAILABLE,
            "the backplane can't be reached".to_owned(),
        ),
        Readiness::NoKeys(missing) => (StatusCode::SERVICE_UNAVAILABLE, missing),
    };
    let mut lines = vec![state];
    let warnings = app.warnings().into_iter();
    lines.extend(warnings.map(|warning| format!("warning: {warning}")));
    reply::text(status, lines.join("\n") + "\n")
}

/// Prometheus text format.
pub(crate) fn metrics(page: String) -> Response {
    let content_type = crate::telemetry::metrics::CONTENT_TYPE;
    ([(header::CONTENT_TYPE, content_type)], page).into_response()
}
