//! Upgrades a request to a WebSocket.

use std::borrow::Cow;
use std::sync::Arc;

use aws_lc_rs::digest;
use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{Extensions, HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version, header};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use hyper::ext::Protocol;
use hyper::upgrade::OnUpgrade;
use parking_lot::Mutex;

use super::socket::WebSocket;
use super::tcp::Accepted;
use crate::limits::Terms;
use crate::protocol::websocket::Messages;

/// Follows a client's key in what its answer is made of (section 1.3 of RFC 6455).
const KEY_END: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// A request that may become a WebSocket.
pub(crate) struct Upgrade {
    way: Way,
    /// `None` over HTTP/2.
    key: Option<HeaderValue>,
    /// The lists of subprotocols that the client offers.
    offers: Vec<HeaderValue>,
    /// The subprotocol that both sides agree on.
    protocol: Option<HeaderValue>,
}

/// The way in which an accepted socket comes.
enum Way {
    /// From the HTTP library, once it has written the answer.
    Library(OnUpgrade),
    /// From whoever read the request without the HTTP library.
    Direct(Takeover),
}

/// A request that was read without the HTTP library: whoever accepts it leaves here what is done with the socket, once the
/// answer is written. In the extensions of the request.
#[derive(Clone, Default)]
pub(crate) struct Takeover(Arc<Mutex<Option<Serve>>>);

/// Begins to serve a socket. The bytes came behind the request.
type Serve = Box<dyn FnOnce(Accepted, &[u8]) + Send>;

impl Takeover {
    /// Takes out what is done with the socket; `None` where the request was not accepted.
    pub(crate) fn take(&self) -> Option<Serve> {
        self.0.lock().take()
    }
}

impl Upgrade {
    /// Checks a request for a socket: section 4.2.1 of RFC 6455, and section 5 of RFC 8441 for HTTP/2. The refusal is a response.
    pub(crate) fn read(parts: &mut Parts) -> Result<Self, Box<Response>> {
        let refuse = |status: StatusCode, text: &'static str| Err(Box::new((status, text).into_response()));
        let headers = &parts.headers;
        let key = if parts.version <= Version::HTTP_11 {
            if parts.method != Method::GET {
                return refuse(StatusCode::METHOD_NOT_ALLOWED, "Request method must be `GET`");
            }
            if !lists(headers, header::CONNECTION, "upgrade") {
                let text = "Connection header did not include 'upgrade'";
                return refuse(StatusCode::BAD_REQUEST, text);
            }
            if !is(headers, header::UPGRADE, "websocket") {
                let text = "`Upgrade` header did not include 'websocket'";
                return refuse(StatusCode::BAD_REQUEST, text);
            }
            let Some(key) = headers.get(header::SEC_WEBSOCKET_KEY) else {
                return refuse(StatusCode::BAD_REQUEST, "`Sec-WebSocket-Key` header missing");
            };
            Some(key.clone())
        } else {
            if parts.method != Method::CONNECT {
                return refuse(StatusCode::METHOD_NOT_ALLOWED, "Request method must be `CONNECT`");
            }
            let protocol = parts.extensions.get::<Protocol>();
            if protocol.is_none_or(|protocol| protocol.as_str() != "websocket") {
                let text = "`:protocol` pseudo-header did not include 'websocket'";
                return refuse(StatusCode::BAD_REQUEST, text);
            }
            None
        };
        if !is(headers, header::SEC_WEBSOCKET_VERSION, "13") {
            return Err(Box::new(other_version()));
        }
        let offers = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL);
        let offers = offers.into_iter().cloned().collect();
        let Some(way) = Way::of(&mut parts.extensions) else {
            let text = "WebSocket request couldn't be upgraded since no upgrade state was present";
            return refuse(StatusCode::UPGRADE_REQUIRED, text);
        };
        Ok(Self {
            way,
            key,
            offers,
            protocol: None,
        })
    }

    /// Agrees to a subprotocol, if the client offers it.
    pub(crate) fn protocol(mut self, name: impl Into<Cow<'static, str>>) -> Self {
        let name = name.into();
        let names = |list: &HeaderValue| {
            let mut offers = list.as_bytes().split(|byte| *byte == b',');
            offers.any(|offer| offer.trim_ascii() == name.as_bytes())
        };
        self.protocol = match self.offers.iter().any(names) {
            true => HeaderValue::from_str(&name).ok(),
            false => None,
        };
        self
    }

    /// Accepts the socket and serves it in a task of its own.
    pub(crate) fn accept<F>(
        self,
        messages: Messages,
        terms: Arc<Terms>,
        serve: impl FnOnce(Box<WebSocket>) -> F + Send + 'static,
    ) -> Response
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let mut response = match &self.key {
            Some(key) => switching(key),
            None => StatusCode::OK.into_response(), // RFC 9113 §8.5
        };
        if let Some(protocol) = self.protocol {
            let headers = response.headers_mut();
            headers.insert(header::SEC_WEBSOCKET_PROTOCOL, protocol);
        }
        // When the answer can't be written, the socket's preparation is dropped, and gives up by itself.
        match self.way {
            Way::Library(on_upgrade) => drop(tokio::spawn(async move {
                // The task lives as long as the connection: of this beginning it is to keep as little as can be.
                serve({
                    let Ok(upgraded) = on_upgrade.await else { return };
                    Box::new(WebSocket::new(upgraded, messages, terms))
                })
                .await;
            })),
            Way::Direct(takeover) => {
                let serve: Serve = Box::new(move |accepted, read| {
                    let socket = Box::new(WebSocket::accepted(accepted, read, messages, terms));
                    tokio::spawn(Box::pin(serve(socket))); // boxed: what is spawned is copied several times
                });
                *takeover.0.lock() = Some(serve);
            }
        }
        response
    }
}

impl Way {
    fn of(extensions: &mut Extensions) -> Option<Self> {
        let direct = extensions.remove::<Takeover>().map(Self::Direct);
        direct.or_else(|| extensions.remove::<OnUpgrade>().map(Self::Library))
    }
}

fn is(headers: &HeaderMap, name: HeaderName, value: &str) -> bool {
    let present = headers.get(name);
    present.is_some_and(|present| present.as_bytes().eq_ignore_ascii_case(value.as_bytes()))
}

/// Returns whether a list header has an item. Proxies add lines of their own (section 5.3 of RFC 9110).
fn lists(headers: &HeaderMap, name: HeaderName, item: &str) -> bool {
    let lines = headers.get_all(name).into_iter();
    let mut items = lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b','));
    items.any(|present| present.trim_ascii().eq_ignore_ascii_case(item.as_bytes()))
}

/// Section 4.4 of RFC 6455: a request for another version is answered with the known one.
fn other_version() -> Response {
    let text = "`Sec-WebSocket-Version` header did not include '13'";
    let mut response = (StatusCode::BAD_REQUEST, text).into_response();
    let headers = response.headers_mut();
    headers.insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
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
