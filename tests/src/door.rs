//! Where a client's requests go in: one node, or several in turn, so that no two requests that follow each other reach
//! the same one.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use serde_json::Value;

use crate::http::{Connection, Head, Request, Response, fetch, try_fetch};
use crate::websocket::WebSocket;

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

/// What negotiate gave.
#[derive(Debug, Clone)]
pub struct Negotiated {
    /// The public connection id.
    pub id: String,
    /// The secret connection token.
    pub token: String,
}

/// A hub's address on one node or on several.
#[derive(Debug)]
pub struct Door {
    addresses: Vec<SocketAddr>,
    next: AtomicUsize,
    path: String,
    bearer: Option<String>,
    secrets: Secrets,
}

impl Door {
    /// The demo hub on these nodes, in turn.
    pub fn new(addresses: &[SocketAddr], secrets: &Secrets) -> Self {
        assert!(!addresses.is_empty(), "a door leads somewhere");
        Self {
            addresses: addresses.to_vec(),
            next: AtomicUsize::new(0),
            path: HUB.to_owned(),
            bearer: None,
            secrets: secrets.clone(),
        }
    }

    /// The same with an access token on every request.
    pub fn with_bearer(&self, token: &str) -> Self {
        self.secrets.add(token);
        Self {
            bearer: Some(token.to_owned()),
            ..Self::new(&self.addresses, &self.secrets)
        }
    }

    /// The same on one node only.
    pub fn on(&self, node: usize) -> Self {
        let address = self.addresses[node % self.addresses.len()];
        Self {
            bearer: self.bearer.clone(),
            ..Self::new(&[address], &self.secrets)
        }
    }

    /// How many nodes there are.
    pub fn nodes(&self) -> usize {
        self.addresses.len()
    }

    /// The node whose turn it is.
    pub fn turn(&self) -> SocketAddr {
        self.addresses[self.next.fetch_add(1, Ordering::Relaxed) % self.addresses.len()]
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
        fetch(self.turn(), request).await
    }

    /// Asks for a connection token; the query says how.
    pub async fn negotiate_with(&self, query: &str) -> Response {
        let target = format!(
            "{}/negotiate{}{query}",
            self.path,
            if query.is_empty() { "" } else { "?" }
        );
        self.fetch(&Request::post(&target, "").bearer(self.bearer.as_deref()))
            .await
    }

    /// Asks for a connection token as every official client does.
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

    /// One poll; `None` if nobody answers.
    pub async fn try_poll(&self, token: &str) -> Option<Response> {
        try_fetch(self.turn(), &self.request("GET", token)).await.ok()
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
    pub async fn events(&self, token: &str) -> (Head, Connection) {
        let request = self.request("GET", token).header("Accept", "text/event-stream");
        self.start(&request).await
    }

    /// Asks for a WebSocket by hand, for the status and body of a refusal.
    pub async fn upgrade(&self, query: &str) -> Response {
        let request = Request::get(&self.target(query))
            .bearer(self.bearer.as_deref())
            .header("Connection", "Upgrade")
            .header("Upgrade", "websocket")
            .header("Sec-WebSocket-Version", "13")
            .header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==");
        let (head, mut connection) = self.start(&request).await;
        let mut body = Vec::new();
        if head.status != 101 {
            while let Some(piece) = connection.piece().await.expect("the body is whole") {
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
        WebSocket::open(self.turn(), &self.target(query), &headers).await
    }

    /// Opens a WebSocket with a connection token; the error is the refusal's status.
    pub async fn websocket(&self, token: &str) -> Result<WebSocket, u16> {
        self.websocket_with(&format!("id={token}")).await
    }

    /// Sends a request on a connection of its own and reads the head of the answer.
    pub async fn start(&self, request: &Request) -> (Head, Connection) {
        let mut connection = Connection::open(self.turn())
            .await
            .expect("the server accepts connections");
        let head = connection.start(request).await.expect("the server answers");
        (head, connection)
    }
}
