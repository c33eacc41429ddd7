//! HTTP/1.1 connections that clients may use again.

use axum::extract::{Request, State};
use axum::http::header::{self, HeaderValue};
use axum::http::{Method, StatusCode, Version};
use axum::middleware::Next;
use axum::response::Response;

use super::reply;
use crate::http::App;

/// Keeps clients from using a connection again that carried an event stream, which ends when the node wants, or that
/// leads to a node which leaves: a request that is sent just as the connection closes would be lost.
pub(super) async fn limit(State(app): State<App>, request: Request, next: Next) -> Response {
    close_where(request, next, |response| {
        app.is_draining() || reply::is_event_stream(response)
    })
    .await
}

/// The same, of every connection.
pub(super) async fn never(request: Request, next: Next) -> Response {
    close_where(request, next, |_| true).await
}

async fn close_where(request: Request, next: Next, over: impl FnOnce(&Response) -> bool) -> Response {
    let persistent = request.version() < Version::HTTP_2 && request.method() != Method::CONNECT;
    let mut response = next.run(request).await;
    if persistent && response.status() != StatusCode::SWITCHING_PROTOCOLS && over(&response) {
        let headers = response.headers_mut();
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}
