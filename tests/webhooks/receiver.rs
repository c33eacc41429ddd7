//! The application's end of the webhooks: an HTTP server that can go away and come back on its port.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::HeaderMap;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

/// The answer to one request.
pub(crate) type Answer = BoxFuture<'static, Response<Full<Bytes>>>;

/// Answers each request by its path, headers and body.
pub(crate) type Handler = dyn Fn(String, HeaderMap, Bytes) -> Answer + Send + Sync;

/// A server of an application.
pub(crate) struct Receiver {
    address: SocketAddr,
    handler: Arc<Handler>,
    /// Cancelled while it is away.
    open: CancellationToken,
}

impl Receiver {
    /// Starts one on a free port.
    pub(crate) async fn start(
        handler: impl Fn(String, HeaderMap, Bytes) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let mut receiver = Self {
            address: listener.local_addr().expect("an address"),
            handler: Arc::new(handler),
            open: CancellationToken::new(),
        };
        receiver.serve(listener);
        receiver
    }

    /// The URL of a path.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// The address where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Closes all connections; new ones are refused.
    pub(crate) fn go_away(&self) {
        self.open.cancel();
    }

    /// Listens again.
    pub(crate) async fn come_back(&mut self) {
        let listener = TcpListener::bind(self.address)
            .await
            .expect("the port is still free");
        self.serve(listener);
    }

    fn serve(&mut self, listener: TcpListener) {
        self.open = CancellationToken::new();
        let (open, handler) = (self.open.clone(), Arc::clone(&self.handler));
        tokio::spawn(async move {
            let accepting = async {
                loop {
                    if let Ok((stream, _)) = listener.accept().await {
                        tokio::spawn(serve_one(stream, Arc::clone(&handler), open.clone()));
                    }
                }
            };
            open.run_until_cancelled(accepting).await;
        });
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.open.cancel();
    }
}

async fn serve_one(stream: TcpStream, handler: Arc<Handler>, open: CancellationToken) {
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request| answer(request, Arc::clone(&handler)));
    let serving = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    // An error is a client that went away.
    let _ = open.run_until_cancelled(serving).await;
}

async fn answer(
    request: Request<Incoming>,
    handler: Arc<Handler>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (parts, body) = request.into_parts();
    if parts.method == Method::OPTIONS {
        return Ok(allowed());
    }
    let body = match body.collect().await {
        Ok(body) => body.to_bytes(),
        Err(_) => return Ok(status(StatusCode::BAD_REQUEST)),
    };
    Ok(handler(parts.uri.path().to_owned(), parts.headers, body).await)
}

/// The answer to the abuse-protection request of CloudEvents: every gateway may send.
fn allowed() -> Response<Full<Bytes>> {
    let response = Response::builder().header("WebHook-Allowed-Origin", "*");
    response.body(Full::default()).expect("valid headers")
}

/// An answer without a body.
pub(crate) fn status(status: StatusCode) -> Response<Full<Bytes>> {
    let response = Response::builder().status(status);
    response.body(Full::default()).expect("a valid status")
}

/// The answer to an invocation of a SignalR client: its own arguments.
pub(crate) fn completion(body: &[u8]) -> Response<Full<Bytes>> {
    let call: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    if call["invocationId"].is_null() {
        return status(StatusCode::OK);
    }
    let answer = serde_json::json!({
        "type": 3, "invocationId": call["invocationId"], "result": call["arguments"]
    });
    let response = Response::builder().header("Content-Type", "application/json");
    response
        .body(Full::from(format!("{answer}\u{1e}")))
        .expect("valid headers")
}
