//! Answers and refusals as HTTP responses.

use std::borrow::Cow;

use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use crate::auth::{AuthError, Identity};
use crate::cluster::OwnerAnswer;
use crate::protocol::Transport;
use crate::telemetry::labels::{Label, LimitLabel};

/// A response with a line of text, or none.
pub(crate) fn text(status: StatusCode, text: impl Into<Cow<'static, str>>) -> Response {
    let text = text.into();
    if text.is_empty() {
        return status.into_response();
    }
    (
        status,
        [(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"))],
        text,
    )
        .into_response()
}

/// The caller is unknown or not allowed; or its token can't be checked yet, and it may try again.
pub(crate) fn unauthorized(error: AuthError) -> Response {
    if error == AuthError::NoKeys {
        return later("The keys of tokens can't be had. Try again later.");
    }
    let mut response = (StatusCode::UNAUTHORIZED, error.to_string()).into_response();
    response
        .headers_mut()
        .insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    response
}

/// The hub does not admit the caller; an anonymous one may authenticate.
pub(crate) fn not_admitted(identity: &Identity) -> Response {
    if identity.is_anonymous() {
        return unauthorized(AuthError::Missing);
    }
    text(StatusCode::FORBIDDEN, "This hub does not admit the caller")
}

/// The application decides about each client of this hub, and SignalR clients can't wait for it.
pub(crate) fn asks_first() -> Response {
    text(
        StatusCode::FORBIDDEN,
        "This hub's application decides about each connection (system_events = [\"connect\"]): it serves WebSockets at /client/hubs/ and event streams, and no SignalR clients",
    )
}

/// The page's origin is not permitted.
pub(crate) fn foreign_origin() -> Response {
    text(
        StatusCode::FORBIDDEN,
        "This origin is not allowed (cors.allowed_origins)",
    )
}

/// The client may not use that transport.
pub(crate) fn no_transport(transport: Transport) -> Response {
    let text = format!("{transport} transport not supported by this end point type");
    (StatusCode::NOT_FOUND, text).into_response()
}

/// The backplane can't be reached: the client may try again.
pub(crate) fn unavailable() -> Response {
    later("The backplane can't be reached. Try again later.")
}

/// The request can be served later.
pub(crate) fn later(what: &'static str) -> Response {
    let mut response = text(StatusCode::SERVICE_UNAVAILABLE, what);
    response
        .headers_mut()
        .insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    response
}

/// A response that never ends of itself, and that no proxy is to buffer or keep.
pub(crate) fn event_stream(body: Body) -> Response {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_TYPE, "text/event-stream"),
        (header::CACHE_CONTROL, "no-cache,no-store,no-transform"), // a proxy that compresses holds events back
        (header::PRAGMA, "no-cache"),
        (header::CONTENT_ENCODING, "identity"),
        (HeaderName::from_static("x-accel-buffering"), "no"), // for proxies that would gather events
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

/// Returns whether a response is such a stream, whatever made it.
pub(crate) fn is_event_stream(response: &Response) -> bool {
    let content_type = response.headers().get(header::CONTENT_TYPE);
    content_type.is_some_and(|value| value.as_bytes().starts_with(b"text/event-stream"))
}

/// Keeps the gateway's responses out of caches, unless they say otherwise.
pub(crate) fn not_stored(mut response: Response) -> Response {
    let headers = response.headers_mut();
    if !headers.contains_key(header::CACHE_CONTROL) {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    response
}

/// The same for refusals alone: pages of the application are its own affair.
pub(crate) fn refusals_not_stored(response: Response) -> Response {
    let refused = response.status().is_client_error() || response.status().is_server_error();
    if refused { not_stored(response) } else { response }
}

/// The node takes no new connections.
pub(crate) fn leaving() -> Response {
    text(
        StatusCode::SERVICE_UNAVAILABLE,
        "This node is leaving and accepts no more connections",
    )
}

/// A limit is reached. The text names its key.
pub(crate) fn limited(limit: LimitLabel) -> Response {
    let key = limit.as_str();
    let (status, what) = match limit {
        LimitLabel::ConnectionsPerUser => (
            StatusCode::TOO_MANY_REQUESTS,
            "This node accepts no more connections of this user",
        ),
        LimitLabel::ConnectionsPerAddress => (
            StatusCode::TOO_MANY_REQUESTS,
            "This node accepts no more connections from this address",
        ),
        LimitLabel::Headers => (
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            "The request has too many headers",
        ),
        LimitLabel::HandshakesPerSecond => (
            StatusCode::SERVICE_UNAVAILABLE,
            "This node accepts no more connections in this second",
        ),
        LimitLabel::HeldBytes => (
            StatusCode::SERVICE_UNAVAILABLE,
            "This node holds too much for its clients; try again later",
        ),
        _ => (
            StatusCode::SERVICE_UNAVAILABLE,
            "This node accepts no more connections",
        ),
    };
    let plain = HeaderValue::from_static("text/plain");
    let text = format!("{what} (limits.{key})");
    let mut response = (status, [(header::CONTENT_TYPE, plain)], text).into_response();
    if limit == LimitLabel::HandshakesPerSecond {
        let headers = response.headers_mut();
        headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
}

/// The response of the connection's owner. Data of polls is binary; caches must not keep it.
pub(crate) fn answer(answer: OwnerAnswer) -> Response {
    let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let refused = status.is_client_error() || status.is_server_error();
    let mut response = Response::new(Body::from(answer.body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    if refused {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    } else if status == StatusCode::OK {
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/octet-stream"),
        );
    }
    headers.insert(
        header::CACHE_CONTROL,
        HeaderValue::from_static("no-cache, no-store"),
    );
    headers.insert(header::PRAGMA, HeaderValue::from_static("no-cache"));
    headers.insert(
        header::EXPIRES,
        HeaderValue::from_static("Thu, 01 Jan 1970 00:00:00 GMT"),
    );
    response
}
