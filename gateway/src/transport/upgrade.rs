//! Upgrades a request to a WebSocket whose frames are cut: see [`frames`](super::frames).

use axum::body::Body;
use axum::extract::FromRequestParts;
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

use super::frames::{Frames, Messages};
use crate::limits::Terms;

/// An accepted socket.
pub(crate) type WebSocket = WebSocketStream<Frames<TokioIo<Upgraded>>>;

/// Read buffer of a socket. The library fills it with zeros at each read, so that a larger one costs time and memory
/// with every connection.
const READ_BUFFER_BYTES: usize = 2 * 1024;
/// Written in one system call, if that much waits.
const WRITE_BUFFER_BYTES: usize = 16 * 1024;
/// Largest frame of a stream that the library sees.
const MOST_PIECE_BYTES: usize = 64 * 1024;

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
    pub(crate) fn protocol(mut self, name: &'static str) -> Self {
        self.request = self.request.protocols([name]);
        self
    }

    /// Accepts the socket and serves it in a task of its own.
    pub(crate) fn accept<F>(
        self,
        messages: Messages,
        terms: Terms,
        serve: impl FnOnce(WebSocket) -> F + Send + 'static,
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
                let io = Frames::new(TokioIo::new(upgraded), messages, terms);
                let config = Some(config(messages));
                serve(WebSocketStream::from_raw_socket(io, Role::Server, config).await).await;
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
    if let Ok(accept) = HeaderValue::from_str(&derive_accept_key(key.as_bytes())) {
        headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    }
    response
}

fn config(messages: Messages) -> WebSocketConfig {
    let most = match messages {
        Messages::Stream => MOST_PIECE_BYTES,
        Messages::Units { limit } => limit.saturating_add(1),
    };
    WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(WRITE_BUFFER_BYTES)
        .max_message_size(Some(most))
        .max_frame_size(Some(most))
}
