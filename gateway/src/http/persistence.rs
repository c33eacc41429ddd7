//! HTTP/1.1 connections that clients may use again.

use axum::extract::Request;
use axum::http::header::{self, HeaderValue};
use axum::http::{Method, StatusCode, Version};
use axum::middleware::Next;
use axum::response::Response;

use super::reply;
use crate::http::App;

/// Keeps clients from using a connection again that carried an event stream, which ends when the node wants, or that
/// leads to a node which leaves: a request that is sent just as the connection closes would be lost.
pub(super) async fn limit<F>(app: &App, request: Request, answer: impl FnOnce(Request) -> F) -> Response
where
    F: Future<Output = Response>,
{
    let over = |response: &Response| app.is_draining() || reply::is_event_stream(response);
    close_where(request, answer, over).await
}

/// The same, of every connection.
pub(super) async fn never(request: Request, next: Next) -> Response {
    close_where(request, |request| next.run(request), |_| true).await
}

async fn close_where<F>(
    request: Request,
    answer: impl FnOnce(Request) -> F,
    over: impl FnOnce(&Response) -> bool,
) -> Response
where
    F: Future<Output = Response>,
{
    let persistent = request.version() < Version::HTTP_2 && request.method() != Method::CONNECT;
    let mut response = answer(request).await;
    if persistent && response.status() != StatusCode::SWITCHING_PROTOCOLS && over(&response) {
        let headers = response.headers_mut();
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}
