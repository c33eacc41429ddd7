//! The entry of a client's requests: one node, or several in turn, so that no two requests that follow each other reach
//! the same one.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use serde_json::Value;

use crate::http::{Body, Connection, Head, Request, Response, try_fetch};
use crate::http2::Http2;
use crate::websocket::WebSocket;

/// The demo hub's name.
pub const HUB_NAME: &str = "demo";

/// The demo hub's path.
pub const HUB: &str = "/hubs/demo";

/// Texts that must not appear in any log.
#[derive(Debug, Clone, Default)]
pub struct Secrets(Arc<Mutex<Vec<String>>>);

impl Secrets {
    /// Remembers one.
    pub fn add(&self, secret: &str) {
        self.0
            .lock()
            .expect("nobody panics while holding it")
            .push(secret.to_owned());
    }

    /// All that are known.
    pub fn all(&self) -> Vec<String> {
        self.0.lock().expect("nobody panics while holding it").clone()
    }
}

/// The response of negotiate.
#[derive(Debug, Clone)]
pub struct Negotiated {
    /// The public connection id.
    pub id: String,
    /// The secret connection token.
    pub token: String,
}

/// A hub's address on one node or on several.
#[derive(Debug)]
pub struct EntryPoint {
    addresses: Vec<SocketAddr>,
    next: AtomicUsize,
    path: String,
    bearer: Option<String>,
    /// One connection to each node, if the requests share one.
    http2: Option<Vec<Arc<Http2>>>,
    secrets: Secrets,
}

impl EntryPoint {
    /// The demo hub on these nodes, in turn.
    pub fn new(addresses: &[SocketAddr], secrets: &Secrets) -> Self {
        assert!(!addresses.is_empty(), "an entry point leads somewhere");
        Self {
            addresses: addresses.to_vec(),
            next: AtomicUsize::new(0),
            path: HUB.to_owned(),
            bearer: None,
            http2: None,
            secrets: secrets.clone(),
        }
    }

    /// The same for the hub with this path.
    pub fn at(&self, path: &str) -> Self {
        Self {
            path: path.to_owned(),
            ..self.copy()
        }
    }

    /// The same with an access token on every request.
    pub fn with_bearer(&self, token: &str) -> Self {
        self.secrets.add(token);
        Self {
            bearer: Some(token.to_owned()),
            ..self.copy()
        }
    }

    /// The same on one node only.
    pub fn on(&self, node: usize) -> Self {
        let node = node % self.addresses.len();
        let connection = self
            .http2
            .as_ref()
            .map(|connections| Arc::clone(&connections[node]));
        Self {
            addresses: vec![self.addresses[node]],
            http2: connection.map(|connection| vec![connection]),
            ..self.copy()
        }
    }

    /// The same with all requests, also WebSockets, on one HTTP/2 connection to each node. They end with this value.
    pub async fn over_http2(&self) -> Self {
        let mut connections = Vec::new();
        for address in &self.addresses {
            connections.push(Arc::new(Http2::open(*address).await));
        }
        Self {
            http2: Some(connections),
            ..self.copy()
        }
    }

    /// The HTTP/2 connections.
    pub fn http2(&self) -> &[Arc<Http2>] {
        self.http2.as_deref().expect("this entry point is one for HTTP/2")
    }

    fn copy(&self) -> Self {
        Self {
            addresses: self.addresses.clone(),
            next: AtomicUsize::new(0),
            path: self.path.clone(),
            bearer: self.bearer.clone(),
            http2: self.http2.clone(),
            secrets: self.secrets.clone(),
        }
    }

    /// How many nodes there are.
    pub fn nodes(&self) -> usize {
        self.addresses.len()
    }

    /// The node whose turn it is.
    pub fn turn(&self) -> SocketAddr {
        self.addresses[self.next()]
    }

    fn next(&self) -> usize {
        self.next.fetch_add(1, Ordering::Relaxed) % self.addresses.len()
    }

    /// The hub's path with a query.
    pub fn target(&self, query: &str) -> String {
        if query.is_empty() {
            self.path.clone()
        } else {
            format!("{}?{query}", self.path)
        }
    }

    /// A request to the hub with this connection token, with the access token if there is one.
    pub fn request(&self, method: &str, token: &str) -> Request {
        Request::new(method, &self.target(&format!("id={token}"))).bearer(self.bearer.as_deref())
    }

    /// Sends a request to the node whose turn it is.
    pub async fn fetch(&self, request: &Request) -> Response {
        let response = self.try_fetch(request).await;
        response.unwrap_or_else(|error| panic!("{} {}: {error}", request.method, request.target))
    }

    async fn try_fetch(&self, request: &Request) -> io::Result<Response> {
        let node = self.next();
        match &self.http2 {
            Some(connections) => connections[node].fetch(request).await,
            None => try_fetch(self.addresses[node], request).await,
        }
    }

    /// Requests a connection token; the query says how.
    pub async fn negotiate_with(&self, query: &str) -> Response {
        let target = format!(
            "{}/negotiate{}{query}",
            self.path,
            if query.is_empty() { "" } else { "?" }
        );
        self.fetch(&Request::post(&target, "").bearer(self.bearer.as_deref()))
            .await
    }

    /// Requests a connection token as every official client does.
    pub async fn negotiate(&self) -> Negotiated {
        let response = self.negotiate_with("negotiateVersion=1").await;
        assert_eq!(response.status(), 200, "{}", response.text());
        let answer = response.json();
        let text = |name: &str| {
            let value = answer.get(name).and_then(Value::as_str);
            value
                .unwrap_or_else(|| panic!("no {name} in {answer}"))
                .to_owned()
        };
        let negotiated = Negotiated {
            id: text("connectionId"),
            token: text("connectionToken"),
        };
        self.secrets.add(&negotiated.token);
        negotiated
    }

    /// One poll.
    pub async fn poll(&self, token: &str) -> Response {
        self.fetch(&self.request("GET", token)).await
    }

    /// One poll; `None` if no node answers.
    pub async fn try_poll(&self, token: &str) -> Option<Response> {
        self.try_fetch(&self.request("GET", token)).await.ok()
    }

    /// Sends bytes to the hub.
    pub async fn post(&self, token: &str, body: impl Into<Bytes>) -> Response {
        let request = self
            .request("POST", token)
            .header("Content-Type", "text/plain;charset=UTF-8");
        self.fetch(&request.body(body)).await
    }

    /// Ends a long-polling connection.
    pub async fn delete(&self, token: &str) -> Response {
        self.fetch(&self.request("DELETE", token)).await
    }

    /// Opens a stream of server-sent events, whatever the answer is.
    pub async fn events(&self, token: &str) -> (Head, Body) {
        let request = self.request("GET", token).header("Accept", "text/event-stream");
        self.start(&request).await
    }

    /// Requests a WebSocket by hand, for the status and body of a refusal.
    pub async fn upgrade(&self, query: &str) -> Response {
        let request = Request::upgrade(&self.target(query)).bearer(self.bearer.as_deref());
        let (head, mut rest) = self.start(&request).await;
        let mut body = Vec::new();
        if head.status != 101 {
            while let Some(piece) = rest.piece().await.expect("the body is whole") {
                body.extend_from_slice(&piece);
            }
        }
        Response {
            head,
            body: body.into(),
        }
    }

    /// Opens a WebSocket with a query; the error is the refusal's status.
    pub async fn websocket_with(&self, query: &str) -> Result<WebSocket, u16> {
        let bearer = self.bearer.as_ref().map(|token| format!("Bearer {token}"));
        let headers: Vec<_> = bearer
            .iter()
            .map(|value| ("Authorization", value.as_str()))
            .collect();
        let (node, target) = (self.next(), self.target(query));
        match &self.http2 {
            Some(connections) => connections[node].websocket(&target, &headers).await,
            None => WebSocket::open(self.addresses[node], &target, &headers).await,
        }
    }

    /// Opens a WebSocket with a connection token; the error is the refusal's status.
    pub async fn websocket(&self, token: &str) -> Result<WebSocket, u16> {
        self.websocket_with(&format!("id={token}")).await
    }

    /// Sends a request, on a connection of its own with HTTP/1.1, and reads the head of the answer.
    pub async fn start(&self, request: &Request) -> (Head, Body) {
        let node = self.next();
        if let Some(connections) = &self.http2 {
            return connections[node]
                .start(request)
                .await
                .expect("the server answers");
        }
        let mut connection = Connection::open(self.addresses[node])
            .await
            .expect("the server accepts connections");
        let head = connection.start(request).await.expect("the server answers");
        (head, Body::Http1(connection))
    }
}
