//! `/server/`: where application servers of Azure SignalR connect, and its Management SDK in persistent mode. There are no
//! such connections here; this makes that known.
//!
//! The SDK takes every quick refusal for an outage: it logs it, tries again, and drops what the application sends without
//! an error. But it creates no hub context while its first connection is neither there nor refused, and after a minute it
//! fails with a time-out (`ConnectionService` and `ServiceConnectionBase` of Azure/azure-signalr). So the answer comes
//! later than that: an application that uses this mode fails where it begins, and not at its first lost message.

use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use tokio::time::sleep;

use super::App;
use super::reply;
use super::request::Query;
use crate::telemetry::labels::RejectLabel;

/// How long an answer takes: longer than the SDK waits.
const LATE: Duration = Duration::from_secs(70);
const TEXT: &str = "This gateway has no connections of application servers. Use the Management SDK in transient mode \
    (ServiceTransportType.Transient, its default), and REST.";

/// Answers an application server that was authenticated, late.
pub(super) async fn endpoint(State(app): State<App>, request: Request) -> Response {
    let (parts, _) = request.into_parts();
    if let Err(error) = app.servers().authenticate_app_server(&parts) {
        app.metrics().rejected.get(RejectLabel::Unauthorized).inc();
        return (StatusCode::UNAUTHORIZED, error.to_string()).into_response();
    }
    let query = Query::of(&parts.uri);
    let hub = query.get("hub").unwrap_or_default();
    let hub = app.hub(hub).map(|hub| hub.name().to_string());
    tracing::warn!(
        hub = hub.unwrap_or_default(),
        "an application server wants a connection, as Azure's Management SDK does in persistent mode; there are none here, use transient mode"
    );
    let Some(_place) = app.late_answer() else {
        return reply::text(StatusCode::NOT_IMPLEMENTED, TEXT);
    };
    tokio::select! {
        () = app.leaving().cancelled() => {}
        () = sleep(LATE) => {}
    }
    reply::text(StatusCode::NOT_IMPLEMENTED, TEXT)
}
