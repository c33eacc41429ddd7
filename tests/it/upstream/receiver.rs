//! A handler of an application: it writes down what it is sent, and answers as the test says.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{ConnectInfo, Request};
use axum::http::{HeaderMap, Method, StatusCode, Version};
use axum::response::{IntoResponse, Response};
use axum::serve::{Listener, ListenerExt};
use futures_util::future::BoxFuture;
use hubcast_tests::eventually::eventually;
use serde_json::Value;

/// One request.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) method: Method,
    pub(crate) version: Version,
    /// Path and query.
    pub(crate) target: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    /// The other end of its connection.
    pub(crate) peer: SocketAddr,
}

impl Seen {
    /// A header; empty where there is none.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap_or("not ASCII"))
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON: {:?}", self.body))
    }

    /// The name of the event, in either form.
    pub(crate) fn event(&self) -> &str {
        match self.header("x-asrs-event") {
            "" => self.header("ce-eventname"),
            event => event,
        }
    }
}

type Answers = dyn Fn(Seen) -> BoxFuture<'static, Response> + Send + Sync;

/// A running handler.
pub(crate) struct Receiver {
    /// Scheme and host.
    origin: String,
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    serving: tokio::task::JoinHandle<()>,
}

impl Receiver {
    /// Answers each request but OPTIONS, which it allows for every origin.
    pub(crate) async fn start<F, R>(answer: F) -> Self
    where
        F: Fn(Seen) -> R + Send + Sync + 'static,
        R: IntoResponse,
    {
        Self::with(move |seen| {
            let response = if seen.method == Method::OPTIONS {
                allowed("*")
            } else {
                answer(seen).into_response()
            };
            Box::pin(std::future::ready(response))
        })
        .await
    }

    /// Answers every request.
    pub(crate) async fn with(
        answer: impl Fn(Seen) -> BoxFuture<'static, Response> + Send + Sync + 'static,
    ) -> Self {
        Self::at(0, answer).await
    }

    /// The same on a port.
    pub(crate) async fn at(
        port: u16,
        answer: impl Fn(Seen) -> BoxFuture<'static, Response> + Send + Sync + 'static,
    ) -> Self {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", port))
            .await
            .expect("a free port");
        let address = listener.local_addr().expect("an address");
        Self::on(listener, format!("http://{address}"), answer)
    }

    /// Answers every request that comes to a listener, at which clients know that origin.
    pub(crate) fn on<L: Listener<Addr = SocketAddr>>(
        listener: L,
        origin: String,
        answer: impl Fn(Seen) -> BoxFuture<'static, Response> + Send + Sync + 'static,
    ) -> Self {
        let address = listener.local_addr().expect("an address");
        let seen = Arc::new(Mutex::new(Vec::new()));
        let answer: Arc<Answers> = Arc::new(answer);
        let kept = Arc::clone(&seen);
        let serve = move |ConnectInfo(peer): ConnectInfo<SocketAddr>, request: Request| {
            let (seen, answer) = (Arc::clone(&kept), Arc::clone(&answer));
            async move {
                let (parts, body) = request.into_parts();
                let one = Seen {
                    method: parts.method,
                    version: parts.version,
                    target: parts.uri.to_string(),
                    headers: parts.headers,
                    body: to_bytes(body, usize::MAX).await.unwrap_or_default(),
                    peer,
                };
                seen.lock()
                    .expect("nobody panics while holding it")
                    .push(one.clone());
                answer(one).await
            }
        };
        let service = Router::new()
            .fallback(serve)
            .into_make_service_with_connect_info::<SocketAddr>();
        let listener = listener.tap_io(|_| {}); // so that any listener tells who connects
        let serving = tokio::spawn(async move {
            let _ = axum::serve(listener, service).await;
        });
        Self {
            origin,
            address,
            seen,
            serving,
        }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.origin)
    }

    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    /// All requests but OPTIONS.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        let seen = self.seen.lock().expect("nobody panics while holding it");
        seen.iter()
            .filter(|seen| seen.method != Method::OPTIONS)
            .cloned()
            .collect()
    }

    /// The requests of abuse protection.
    pub(crate) fn asked(&self) -> Vec<Seen> {
        let seen = self.seen.lock().expect("nobody panics while holding it");
        seen.iter()
            .filter(|seen| seen.method == Method::OPTIONS)
            .cloned()
            .collect()
    }

    /// The requests of an event.
    pub(crate) fn of(&self, event: &str) -> Vec<Seen> {
        self.seen()
            .into_iter()
            .filter(|seen| seen.event() == event)
            .collect()
    }

    /// Forgets all requests.
    pub(crate) fn forget(&self) {
        self.seen.lock().expect("nobody panics while holding it").clear();
    }

    /// Waits for so many requests of an event.
    pub(crate) async fn gets(&self, event: &str, count: usize) -> Vec<Seen> {
        eventually(&format!("{count} requests of {event}"), async || {
            let seen = self.of(event);
            (seen.len() >= count).then_some(seen)
        })
        .await
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// The answer of abuse protection.
pub(crate) fn allowed(origin: &str) -> Response {
    (StatusCode::OK, [("WebHook-Allowed-Origin", origin.to_owned())]).into_response()
}

/// The completion of the invocation that a request holds, with more properties.
pub(crate) fn completion(seen: &Seen, more: &str) -> Response {
    let id = seen.json()["invocationId"].clone();
    let body = format!("{{\"type\":3,\"invocationId\":{id}{more}}}\u{1e}");
    ([("content-type", "application/json")], Body::from(body)).into_response()
}
