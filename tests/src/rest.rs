//! A back end: REST requests with tokens for their URLs.

use std::net::SocketAddr;

use serde_json::{Value, json};

use crate::gateway::Gateway;
use crate::http::{Request, Response, fetch};
use crate::jwt::{ACCESS_KEY, now, token_with};

/// The version that the SDKs request.
pub const VERSION: &str = "api-version=2022-06-01";
/// The last version.
pub const LATEST: &str = "api-version=2024-12-01";

/// A back end of the demo hub that calls one node.
#[derive(Debug, Clone, Copy)]
pub struct Rest {
    address: SocketAddr,
}

impl Rest {
    /// Calls this node.
    pub fn on(node: &Gateway) -> Self {
        Self {
            address: node.address(),
        }
    }

    /// Calls whatever answers there.
    pub fn at(address: SocketAddr) -> Self {
        Self { address }
    }

    /// The address that it calls.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The audience of a token for a path, as the SDKs write it: without the port.
    fn audience(&self, target: &str) -> String {
        format!("http://{}{target}", self.address.ip())
    }

    /// A token for a path.
    pub fn token(&self, target: &str) -> String {
        token_with(&self.claims(target), ACCESS_KEY)
    }

    /// The claims of a token for a path.
    pub fn claims(&self, target: &str) -> Value {
        json!({ "aud": self.audience(target), "exp": now() + 600, "nameid": "machine_1" })
    }

    /// A request with a token for it.
    pub fn request(&self, method: &str, target: &str) -> Request {
        Request::new(method, target).bearer(Some(&self.token(target)))
    }

    /// Sends a request.
    pub async fn fetch(&self, request: &Request) -> Response {
        fetch(self.address, request).await
    }

    /// Sends a request to a path below the demo hub, by the version of the SDKs.
    pub async fn call(&self, method: &str, path: &str) -> Response {
        self.fetch(&self.request(method, &dated(path))).await
    }

    /// Sends a message to a path below the demo hub, by the version of the SDKs.
    pub async fn send(&self, path: &str, message: &Value) -> Response {
        self.post(&dated(path), message).await
    }

    /// Sends a body in JSON to a path.
    pub async fn post(&self, target: &str, body: &Value) -> Response {
        self.fetch(&self.message(target, body)).await
    }

    /// A request with a body in JSON.
    pub fn message(&self, target: &str, body: &Value) -> Request {
        self.request("POST", target)
            .header("Content-Type", "application/json; charset=utf-8")
            .body(body.to_string())
    }
}

/// A path below the demo hub with the version of the SDKs.
pub fn dated(path: &str) -> String {
    let separator = if path.contains('?') { '&' } else { '?' };
    format!("/api/hubs/demo{path}{separator}{VERSION}")
}

/// A path below the demo hub with the last version.
pub fn latest(path: &str) -> String {
    let separator = if path.contains('?') { '&' } else { '?' };
    format!("/api/hubs/demo{path}{separator}{LATEST}")
}
