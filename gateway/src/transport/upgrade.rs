//! Upgrades a request to a WebSocket.

use std::borrow::Cow;

use aws_lc_rs::digest;
use axum::body::Body;
use axum::extract::FromRequestParts;
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use hyper::upgrade::OnUpgrade;

use super::socket::WebSocket;
use crate::limits::Terms;
use crate::protocol::websocket::Messages;

/// Follows a client's key in what its answer is made of (section 1.3 of RFC 6455).
const KEY_END: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// A request that may become a WebSocket.
pub(crate) struct Upgrade {
    /// The checks of a request, and of its subprotocols, are axum's.
    request: WebSocketUpgrade,
    /// Always there: the checks want it.
    on_upgrade: Option<OnUpgrade>,
    /// `None` over HTTP/2.
    key: Option<HeaderValue>,
}

impl Upgrade {
    /// Checks a request for a socket. The refusal is a response.
    pub(crate) async fn read(parts: &mut Parts) -> Result<Self, Response> {
        let on_upgrade = parts.extensions.get::<OnUpgrade>().cloned();
        join_lines(&mut parts.headers, header::CONNECTION);
        let request = WebSocketUpgrade::from_request_parts(parts, &())
            .await
            .map_err(refusal)?;
        let key = parts.headers.get(header::SEC_WEBSOCKET_KEY).cloned();
        let key = key.filter(|_| parts.method != Method::CONNECT);
        Ok(Self {
            request,
            on_upgrade,
            key,
        })
    }

    /// Agrees to a subprotocol, if the client offers it.
    pub(crate) fn protocol(mut self, name: impl Into<Cow<'static, str>>) -> Self {
        self.request = self.request.protocols([name.into()]);
        self
    }

    /// Accepts the socket and serves it in a task of its own.
    pub(crate) fn accept<F>(
        self,
        messages: Messages,
        terms: Terms,
        serve: impl FnOnce(Box<WebSocket>) -> F + Send + 'static,
    ) -> Response
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let mut response = match &self.key {
            Some(key) => switching(key),
            None => StatusCode::OK.into_response(), // RFC 9113 §8.5
        };
        if let Some(protocol) = self.request.selected_protocol() {
            let headers = response.headers_mut();
            headers.insert(header::SEC_WEBSOCKET_PROTOCOL, protocol.clone());
        }
        let on_upgrade = self.on_upgrade;
        tokio::spawn(async move {
            // When it fails, the socket's preparation is dropped, and gives up by itself.
            let Some(on_upgrade) = on_upgrade else { return };
            if let Ok(upgraded) = on_upgrade.await {
                serve(Box::new(WebSocket::new(upgraded, messages, terms))).await;
            }
        });
        response
    }
}

/// Makes one line of several of a list header (section 5.3 of RFC 9110): proxies add lines of their own, and the checks look
/// at the first one alone.
fn join_lines(headers: &mut HeaderMap, name: HeaderName) {
    let lines: Vec<_> = headers.get_all(&name).iter().map(HeaderValue::as_bytes).collect();
    if lines.len() > 1
        && let Ok(joined) = HeaderValue::from_bytes(&lines.join(&b", "[..]))
    {
        headers.insert(name, joined);
    }
}

/// Section 4.4 of RFC 6455: a request for another version is answered with the known one.
fn refusal(rejection: WebSocketUpgradeRejection) -> Response {
    let other_version = matches!(
        rejection,
        WebSocketUpgradeRejection::InvalidWebSocketVersionHeader(_)
    );
    let mut response = rejection.into_response();
    if other_version {
        let headers = response.headers_mut();
        headers.insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
    }
    response
}

fn switching(key: &HeaderValue) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    if let Ok(accept) = HeaderValue::from_str(&accept_key(key.as_bytes())) {
        headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    }
    response
}

fn accept_key(key: &[u8]) -> String {
    let mut context = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
    context.update(key);
    context.update(KEY_END);
    BASE64_STANDARD.encode(context.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_answered_as_in_the_example_of_the_rfc() {
        let accepted = accept_key(b"dGhlIHNhbXBsZSBub25jZQ==");
        assert_eq!(accepted, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }
}
