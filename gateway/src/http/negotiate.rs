//! The request before a connection: it hands out a connection token and names the transports. Nothing is stored.

use std::sync::Arc;

use axum::http::request::Parts;
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::reply;
use super::request::Query;
use crate::auth::TokenKind;
use crate::gateway::App;
use crate::hub::{HubRuntime, Transport};
use crate::protocol::TransferFormat;
use crate::telemetry::labels::RejectLabel;

/// Highest version that the server speaks.
const HIGHEST_VERSION: i64 = 1;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Negotiated {
    negotiate_version: i64,
    connection_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    connection_token: Option<String>,
    available_transports: Vec<AvailableTransport>,
    /// Never sent to a client that did not ask: it would give up.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    use_stateful_reconnect: bool,
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
pub(crate) fn negotiate(app: &App, hub: &Arc<HubRuntime>, parts: &Parts) -> Response {
    if parts.method != Method::POST {
        return StatusCode::METHOD_NOT_ALLOWED.into_response();
    }
    match app.authenticator().authenticate(&parts.headers, None) {
        Ok(identity) if hub.hub().admits(&identity) => {}
        Ok(identity) => {
            app.metrics().rejected.get(RejectLabel::Forbidden).inc();
            return reply::not_admitted(&identity);
        }
        Err(error) => {
            app.metrics().rejected.get(RejectLabel::Unauthorized).inc();
            return reply::unauthorized(error);
        }
    }
    let Some(query) = Query::of(&parts.uri) else {
        return reply::text(StatusCode::BAD_REQUEST, "The query can't be read");
    };
    let version = match version(query.get("negotiateVersion")) {
        Ok(version) => version,
        Err(error) => return axum::Json(NegotiateError { error }).into_response(),
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
    let Ok((id, token)) = app.tokens().issue(hub.name(), life, kind) else {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    app.metrics().negotiations.inc();
    let negotiated = Negotiated {
        negotiate_version: version,
        connection_id: id.to_string(),
        connection_token: (version > 0).then_some(token),
        available_transports: Transport::ALL.into_iter().map(available).collect(),
        use_stateful_reconnect: kind == TokenKind::Stateful,
    };
    axum::Json(negotiated).into_response()
}

fn available(transport: Transport) -> AvailableTransport {
    let mut transfer_formats = vec![TransferFormat::Text.name()];
    if transport.is_binary() {
        transfer_formats.push(TransferFormat::Binary.name());
    }
    AvailableTransport {
        transport: transport.name(),
        transfer_formats,
    }
}

fn version(asked: Option<&str>) -> Result<i64, String> {
    let Some(asked) = asked else { return Ok(0) };
    let version: i64 = asked
        .trim()
        .parse()
        .map_err(|_| "The client requested a non-integer protocol version.".to_owned())?;
    if version < 0 {
        let text = "but the server does not support this version.";
        return Err(format!("The client requested version '{version}', {text}"));
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
            version(Some("x")).unwrap_err(),
            "The client requested a non-integer protocol version."
        );
        assert_eq!(
            version(Some("-1")).unwrap_err(),
            "The client requested version '-1', but the server does not support this version."
        );
    }
}
