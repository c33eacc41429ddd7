//! The request before a connection: it hands out a connection token and names the transports. Nothing is stored.

use std::sync::{Arc, LazyLock};
use std::time::SystemTime;

use axum::http::request::Parts;
use axum::http::{Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

use super::admit::{offers, trust};
use super::reply;
use super::request::Query;
use crate::auth::{Credentials, Identity, TokenKind, TokenSource};
use crate::http::App;
use crate::hub::HubRuntime;
use crate::protocol::TransferFormat;
use crate::protocol::Transport;
use crate::telemetry::labels::RejectLabel;

/// Clients read lifetimes as signed numbers of 32 bits, and refuse to start with a larger one.
const LONGEST_LIFETIME: u64 = i32::MAX as u64;
/// Highest version that the server speaks.
const HIGHEST_VERSION: i64 = 1;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Negotiated {
    negotiate_version: i64,
    connection_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    connection_token: Option<String>,
    available_transports: Vec<&'static RawValue>,
    /// Never sent to a client that did not request it: it would give up.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    use_stateful_reconnect: bool,
    /// A ticket, which clients show from then on instead of their token.
    #[serde(skip_serializing_if = "Option::is_none")]
    access_token: Option<String>,
    /// The time to show a newer token, for clients that can.
    #[serde(skip_serializing_if = "Option::is_none")]
    token_lifetime_seconds: Option<u64>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct AvailableTransport {
    transport: &'static str,
    transfer_formats: Vec<&'static str>,
}

#[derive(Serialize)]
struct NegotiateError {
    error: String,
}

/// Answers `POST {hub}/negotiate`. Errors of negotiation itself are answered with 200, as the clients expect.
pub(crate) async fn negotiate(app: &App, hub: &Arc<HubRuntime>, parts: &Parts) -> Response {
    if parts.method != Method::POST {
        return (StatusCode::METHOD_NOT_ALLOWED, [(header::ALLOW, "POST")]).into_response();
    }
    let query = Query::of(&parts.uri);
    let identity = match admitted(app, hub, parts, &query).await {
        Ok(identity) => identity,
        Err(refusal) => return *refusal,
    };
    if hub.hub().connecting().is_some() {
        app.metrics().rejected.get(RejectLabel::Forbidden).inc();
        return reply::asks_first();
    }
    let version = match version(query.get("negotiateVersion")) {
        Ok(version) => version,
        Err(error) => {
            let error = error.to_string();
            return axum::Json(NegotiateError { error }).into_response();
        }
    };
    let life = hub.options().timeouts.disconnect;
    let asked = query
        .get("useStatefulReconnect")
        .is_some_and(|value| value.eq_ignore_ascii_case("true"));
    let kind = match (version, asked && hub.options().hubs.resumes()) {
        (0, _) => TokenKind::Same,
        (_, false) => TokenKind::Separate,
        (_, true) => TokenKind::Stateful,
    };
    let until = hub.shared().backplane().now() + life;
    let epoch = hub.backplane().epoch();
    let Ok((id, token)) = app
        .tokens()
        .issue(hub.name(), until, &epoch, identity.user(), kind)
    else {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    app.metrics().negotiations.inc();
    let access_token = app
        .tickets()
        .and_then(|booth| booth.issue(hub.name(), &token, &identity));
    let negotiated = Negotiated {
        negotiate_version: version,
        connection_id: id.to_string(),
        connection_token: (version > 0).then_some(token),
        available_transports: Transport::ALL
            .into_iter()
            .filter(|transport| offers(hub, &identity, *transport))
            .filter_map(available)
            .collect(),
        use_stateful_reconnect: kind == TokenKind::Stateful,
        access_token,
        token_lifetime_seconds: lifetime(app, &identity),
    };
    axum::Json(negotiated).into_response()
}

/// The identity of the request's client, if the hub admits it.
pub(super) async fn admitted(
    app: &App,
    hub: &HubRuntime,
    parts: &Parts,
    query: &Query,
) -> Result<Identity, Box<Response>> {
    let credentials = Credentials {
        hub: hub.name(),
        headers: &parts.headers,
        query_token: query.get("access_token"),
        connection: None, // a ticket gives no further ones
    };
    let authenticated = match app.authenticator().authenticate(&credentials).await {
        Ok(authenticated) => authenticated,
        Err(error) => {
            app.metrics().rejected.get(RejectLabel::Unauthorized).inc();
            return Err(Box::new(reply::unauthorized(error)));
        }
    };
    if authenticated.source == TokenSource::Cookie && !app.origins().admit(parts) {
        app.metrics().rejected.get(RejectLabel::Origin).inc();
        return Err(Box::new(reply::foreign_origin()));
    }
    if !hub.hub().admits(&authenticated.identity) {
        app.metrics().rejected.get(RejectLabel::Forbidden).inc();
        return Err(Box::new(reply::not_admitted(&authenticated.identity)));
    }
    trust(parts);
    Ok(authenticated.identity)
}

/// How long the client's token still lasts, where it may be refreshed.
pub(super) fn lifetime(app: &App, identity: &Identity) -> Option<u64> {
    let expires = identity.expires().filter(|_| app.options().auth.refresh)?;
    let left = expires.duration_since(SystemTime::now()).unwrap_or_default();
    Some(left.as_secs().min(LONGEST_LIFETIME))
}

/// A transport in JSON, which is written once.
fn available(transport: Transport) -> Option<&'static RawValue> {
    static AVAILABLE: LazyLock<[Option<Box<RawValue>>; Transport::ALL.len()]> = LazyLock::new(|| {
        Transport::ALL.map(|transport| {
            let mut transfer_formats = vec![TransferFormat::Text.name()];
            if transport.is_binary() {
                transfer_formats.push(TransferFormat::Binary.name());
            }
            let transport = transport.name();
            to_raw_value(&AvailableTransport {
                transport,
                transfer_formats,
            })
            .ok()
        })
    });
    AVAILABLE.get(transport.index())?.as_deref()
}

/// The version that a client asks for can't be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
enum VersionError {
    #[error("The client requested a non-integer protocol version.")]
    NoInteger,
    #[error("The client requested version '{0}', but the server does not support this version.")]
    Unsupported(i64),
}

fn version(asked: Option<&str>) -> Result<i64, VersionError> {
    let Some(asked) = asked else { return Ok(0) };
    let version: i64 = asked.trim().parse().map_err(|_| VersionError::NoInteger)?;
    if version < 0 {
        return Err(VersionError::Unsupported(version));
    }
    Ok(version.min(HIGHEST_VERSION))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_chosen_as_the_reference_chooses() {
        assert_eq!(version(None), Ok(0));
        assert_eq!(version(Some("0")), Ok(0));
        assert_eq!(version(Some("1")), Ok(1));
        assert_eq!(version(Some("7")), Ok(1));
        assert_eq!(
            version(Some("x")).unwrap_err().to_string(),
            "The client requested a non-integer protocol version."
        );
        assert_eq!(
            version(Some("-1")).unwrap_err().to_string(),
            "The client requested version '-1', but the server does not support this version."
        );
    }
}
