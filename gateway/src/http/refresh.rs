//! A newer token for a living connection: `POST {hub}/refresh`, as ASP.NET Core 11 has it. The connection token comes in the header
//! `X-SignalR-Connection-Token`, or as `?id=…`.

use std::sync::Arc;

use axum::http::{Method, StatusCode, header};

use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use hubcast_backplane::BackplaneError;
use serde::Serialize;

use super::request::Query;
use super::{negotiate, reply};
use crate::auth::Identity;
use crate::cluster::owner;
use crate::cluster::{Forward, OwnerAnswer};
use crate::http::App;
use crate::hub::HubRuntime;
use crate::telemetry::labels::RejectLabel;

const CONNECTION_TOKEN: &str = "x-signalr-connection-token";

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Refreshed {
    #[serde(skip_serializing_if = "Option::is_none")]
    token_lifetime_seconds: Option<u64>,
    /// A newer ticket, which clients show from then on instead of the one before.
    #[serde(skip_serializing_if = "Option::is_none")]
    access_token: Option<String>,
}

#[derive(Serialize)]
struct RefusalBody {
    error: &'static str,
}

fn refused(status: StatusCode, error: &'static str) -> Response {
    (status, axum::Json(RefusalBody { error })).into_response()
}

/// The response to a poll with credentials of another user. Its client refreshes once, and is refused there because the
/// connection is not its own.
pub(super) fn required() -> Response {
    refused(StatusCode::CONFLICT, "authentication_refresh_required")
}

/// Answers a request for a refresh. Where `auth.refresh` is off there is no such path.
pub(super) async fn refresh(app: &App, hub: &Arc<HubRuntime>, parts: &Parts) -> Response {
    if !app.options().auth.refresh {
        return refused(StatusCode::NOT_FOUND, "refresh_disabled");
    }
    if parts.method != Method::POST {
        return (StatusCode::METHOD_NOT_ALLOWED, [(header::ALLOW, "POST")]).into_response();
    }
    if !app.origins().admit(parts) {
        app.metrics().rejected.get(RejectLabel::Origin).inc();
        return reply::foreign_origin();
    }
    let query = Query::of(&parts.uri);
    let identity = match negotiate::admitted(app, hub, parts, &query).await {
        Ok(identity) => identity,
        Err(refusal) if refusal.status() == StatusCode::FORBIDDEN => {
            return refused(StatusCode::FORBIDDEN, "permission_change_rejected");
        }
        Err(refusal) => return *refusal,
    };
    if identity.is_anonymous() {
        return refused(StatusCode::UNAUTHORIZED, "invalid_token");
    }
    let header = parts
        .headers
        .get(CONNECTION_TOKEN)
        .and_then(|value| value.to_str().ok());
    let Some(id) = header.or_else(|| query.get("id")) else {
        return refused(StatusCode::BAD_REQUEST, "missing_connection_token");
    };
    let Ok(token) = app.tokens().read(hub.name(), id, hub.shared().backplane().now()) else {
        app.metrics().rejected.get(RejectLabel::UnknownConnection).inc();
        return refused(StatusCode::NOT_FOUND, "connection_not_found");
    };
    if token.id.as_str() == id {
        return refused(StatusCode::BAD_REQUEST, "unsupported_negotiate_version");
    }
    match at_the_owner(hub, &token.id, &identity).await {
        Ok(200) => axum::Json(Refreshed {
            token_lifetime_seconds: negotiate::lifetime(app, &identity),
            access_token: app
                .tickets()
                .and_then(|booth| booth.issue(hub.name(), id, &identity)),
        })
        .into_response(),
        Ok(403) => {
            app.metrics().rejected.get(RejectLabel::Forbidden).inc();
            refused(StatusCode::FORBIDDEN, "user_changed")
        }
        Ok(503) => reply::unavailable(),
        Ok(_) => refused(StatusCode::NOT_FOUND, "connection_not_found"),
        Err(error) => {
            tracing::debug!(%error, "a token could not be refreshed");
            reply::unavailable()
        }
    }
}

/// Has the owner of the connection take the identity. Returns the status.
async fn at_the_owner(
    hub: &Arc<HubRuntime>,
    connection: &hubcast_backplane::ConnectionId,
    identity: &Identity,
) -> Result<u16, BackplaneError> {
    if let Some(session) = hub.registry().find(connection) {
        return Ok(owner::refresh(&session, identity).await.status);
    }
    let listing = hub.look_up(connection).await?;
    let Some(owner) = listing.and_then(|listing| listing.owner) else {
        return Ok(owner::unknown_connection().status);
    };
    if owner == *hub.shared().backplane().node() {
        return Ok(match hub.find_settled(connection).await {
            Some(session) => owner::refresh(&session, identity).await.status,
            None => owner::unknown_connection().status,
        });
    }
    let forward = Forward {
        hub,
        owner: &owner,
        connection,
        user: identity.user(),
    };
    let answer: OwnerAnswer = forward.refresh(identity).await?;
    Ok(answer.status)
}
