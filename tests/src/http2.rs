//! HTTP/2 in cleartext, without an upgrade: the client says at once that it speaks it.

use std::fmt;
use std::io;
use std::net::{Shutdown, SocketAddr, TcpStream as StdTcpStream};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2::{self, SendRequest};
use hyper::ext::Protocol;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

use crate::eventually::within;
use crate::http::{Body, Head, Request, Response};
use crate::websocket::WebSocket;

/// The bytes that arrive on one stream. Dropping it resets the stream.
pub use hyper::body::Incoming;

/// One connection, for any number of requests at the same time. Dropping it closes the connection.
pub struct Http2 {
    address: SocketAddr,
    sender: SendRequest<Full<Bytes>>,
    /// The same socket once more, for breaking it off.
    socket: StdTcpStream,
}

impl fmt::Debug for Http2 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Http2")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

impl Drop for Http2 {
    fn drop(&mut self) {
        self.vanish();
    }
}

impl Http2 {
    /// Connects, and has one request answered: what the server allows is known then.
    pub async fn open(address: SocketAddr) -> Self {
        let tcp = TcpStream::connect(address)
            .await
            .expect("the server accepts connections");
        tcp.set_nodelay(true).expect("a TCP socket has options");
        let tcp = tcp.into_std().expect("a TCP socket is a file");
        let socket = tcp.try_clone().expect("a file can be shared");
        let tcp = TcpStream::from_std(tcp).expect("a TCP socket is a file");
        let shaking = http2::handshake(TokioExecutor::new(), TokioIo::new(tcp));
        let (sender, connection) = within("an HTTP/2 connection opens", shaking)
            .await
            .expect("the server speaks HTTP/2");
        tokio::spawn(async move {
            let _its_requests_fail_too = connection.await;
        });
        let opened = Self {
            address,
            sender,
            socket,
        };
        let healthy = opened.fetch(&Request::get("/healthz")).await;
        assert_eq!(healthy.expect("the server answers").status(), 200);
        opened
    }

    /// Sends a request and reads the whole answer.
    pub async fn fetch(&self, request: &Request) -> io::Result<Response> {
        let exchange = async {
            let (head, mut rest) = self.start(request).await?;
            let mut body = Vec::new();
            while let Some(piece) = rest.piece().await? {
                body.extend_from_slice(&piece);
            }
            let body = body.into();
            Ok(Response { head, body })
        };
        within(&format!("{} {}", request.method, request.target), exchange).await
    }

    /// Sends a request and reads the head of the answer.
    pub async fn start(&self, request: &Request) -> io::Result<(Head, Body)> {
        let mut message = hyper::Request::builder()
            .method(request.method.as_str())
            .uri(format!("http://{}{}", self.address, request.target));
        for (name, value) in &request.headers {
            message = message.header(name, value);
        }
        let message = message
            .body(Full::new(request.body.clone().unwrap_or_default()))
            .expect("a valid request");
        let answer = self.sender.clone().send_request(message).await;
        let (parts, incoming) = answer.map_err(io::Error::other)?.into_parts();
        Ok((head(&parts), Body::Http2(incoming)))
    }

    /// Opens a WebSocket on a stream by extended CONNECT (RFC 8441); the error is the refusal's status.
    pub async fn websocket(&self, target: &str, headers: &[(&str, &str)]) -> Result<WebSocket, u16> {
        let opening = async {
            let answer = self.connect("websocket", target, headers).await;
            if answer.status() != 200 {
                return Err(answer.status().as_u16());
            }
            let stream = hyper::upgrade::on(answer)
                .await
                .expect("an accepted stream is open");
            Ok(WebSocket::accepted(TokioIo::new(stream)).await)
        };
        within("a WebSocket opens", opening).await
    }

    /// Requests a stream of any protocol by extended CONNECT.
    pub async fn connect(
        &self,
        protocol: &'static str,
        target: &str,
        headers: &[(&str, &str)],
    ) -> hyper::Response<Incoming> {
        let mut message = hyper::Request::connect(format!("http://{}{target}", self.address))
            .extension(Protocol::from_static(protocol))
            .header("sec-websocket-version", "13");
        for (name, value) in headers {
            message = message.header(*name, *value);
        }
        let message = message.body(Full::default()).expect("a valid request");
        let answer = self.sender.clone().send_request(message).await;
        answer.unwrap_or_else(|error| panic!("CONNECT {target}: {error}"))
    }

    /// Breaks the connection off.
    pub fn vanish(&self) {
        let _broken_already = self.socket.shutdown(Shutdown::Both);
    }
}

/// The next bytes of a body; `None` at its end.
pub(crate) async fn piece(incoming: &mut Incoming) -> io::Result<Option<Bytes>> {
    loop {
        match incoming.frame().await {
            None => return Ok(None),
            Some(Err(error)) => return Err(io::Error::other(error)),
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) if data.is_empty() => {}
                Ok(data) => return Ok(Some(data)),
                Err(_trailers) => {}
            },
        }
    }
}

fn head(parts: &hyper::http::response::Parts) -> Head {
    let text = |value: &hyper::header::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let headers = parts.headers.iter();
    Head::new(
        parts.status.as_u16(),
        headers
            .map(|(name, value)| (name.as_str().to_owned(), text(value)))
            .collect(),
    )
}
