//! HTTP/1.1, small enough to see every byte and to say anything.

use std::io;
use std::net::SocketAddr;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::eventually::within;
use crate::http2;

/// A request. Host and Content-Length are added when it is sent.
#[derive(Debug, Clone)]
pub struct Request {
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Option<Bytes>,
}

impl Request {
    /// A request of any method; `target` is the path with its query.
    pub fn new(method: &str, target: &str) -> Self {
        Self {
            method: method.to_owned(),
            target: target.to_owned(),
            headers: Vec::new(),
            body: None,
        }
    }

    /// GET.
    pub fn get(target: &str) -> Self {
        Self::new("GET", target)
    }

    /// POST with a body.
    pub fn post(target: &str, body: impl Into<Bytes>) -> Self {
        Self::new("POST", target).body(body)
    }

    /// Requests a WebSocket by hand, for the response.
    pub fn upgrade(target: &str) -> Self {
        Self::get(target)
            .header("Connection", "Upgrade")
            .header("Upgrade", "websocket")
            .header("Sec-WebSocket-Version", "13")
            .header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")
    }

    /// DELETE.
    pub fn delete(target: &str) -> Self {
        Self::new("DELETE", target)
    }

    /// Adds a header.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Adds `Authorization: Bearer`, if there is a token.
    pub fn bearer(self, token: Option<&str>) -> Self {
        match token {
            Some(token) => self.header("Authorization", &format!("Bearer {token}")),
            None => self,
        }
    }

    /// Sets the body.
    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = Some(body.into());
        self
    }

    /// The bytes of the request.
    pub fn bytes(&self, host: SocketAddr) -> Vec<u8> {
        let mut head = format!("{} {} HTTP/1.1\r\nHost: {host}\r\n", self.method, self.target);
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if let Some(body) = &self.body {
            head.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        head.push_str("\r\n");
        let mut bytes = head.into_bytes();
        bytes.extend_from_slice(self.body.as_deref().unwrap_or_default());
        bytes
    }
}

/// The status line and the headers of an answer.
#[derive(Debug, Clone)]
pub struct Head {
    /// The status code.
    pub status: u16,
    headers: Vec<(String, String)>,
}

impl Head {
    /// Names are in lower case.
    pub(crate) fn new(status: u16, headers: Vec<(String, String)>) -> Self {
        Self { status, headers }
    }

    /// Reads the head of an answer, without the empty line at its end.
    pub fn parse(text: &str) -> Option<Self> {
        let mut lines = text.split("\r\n");
        let status = lines.next()?.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()?;
        let headers = lines.filter_map(|line| line.split_once(':'));
        let headers = headers.map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()));
        Some(Self {
            status,
            headers: headers.collect(),
        })
    }

    /// A header, by its name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    /// The items of a header that is a list, in lower case.
    pub fn list(&self, name: &str) -> Vec<String> {
        let values = self.headers.iter().filter(|(key, _)| key == name);
        let items = values.flat_map(|(_, value)| value.split(','));
        items.map(|item| item.trim().to_ascii_lowercase()).collect()
    }
}

/// A whole answer.
#[derive(Debug, Clone)]
pub struct Response {
    /// Status line and headers.
    pub head: Head,
    /// The body, without its chunk framing.
    pub body: Bytes,
}

impl Response {
    /// The status code.
    pub fn status(&self) -> u16 {
        self.head.status
    }

    /// The body as text.
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("the body is text")
    }

    /// The body as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error} in {:?}", self.body))
    }

    /// Status and text, for comparing both at once.
    pub fn outcome(&self) -> (u16, &str) {
        (self.status(), self.text())
    }
}

/// How a body ends.
enum Length {
    Known(usize),
    Chunked,
    UntilClosed,
    Ended,
}

/// One connection, used for one request after the other.
pub struct Connection {
    address: SocketAddr,
    stream: TcpStream,
    buffer: BytesMut,
    length: Length,
}

impl Connection {
    /// Connects.
    pub async fn open(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self {
            address,
            stream,
            buffer: BytesMut::new(),
            length: Length::Ended,
        })
    }

    /// Sends a request and reads the whole answer.
    pub async fn fetch(&mut self, request: &Request) -> io::Result<Response> {
        let head = self.start(request).await?;
        let mut body = Vec::new();
        while let Some(piece) = self.piece().await? {
            body.extend_from_slice(&piece);
        }
        Ok(Response {
            head,
            body: body.into(),
        })
    }

    /// Sends a request and reads the head of the answer; [`piece`](Self::piece) reads on.
    pub async fn start(&mut self, request: &Request) -> io::Result<Head> {
        self.send(&request.bytes(self.address)).await?;
        self.head(&request.method).await
    }

    /// Sends bytes, whatever they are.
    pub async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await
    }

    /// Reads the head of the answer to a request of this method.
    pub async fn head(&mut self, method: &str) -> io::Result<Head> {
        let end = loop {
            if let Some(at) = self.buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                break at;
            }
            if self.read().await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        };
        let text = String::from_utf8_lossy(&self.buffer.split_to(end)).into_owned();
        self.buffer.advance(4);
        let head =
            Head::parse(&text).ok_or_else(|| io::Error::other(format!("not an HTTP head: {text:?}")))?;
        let chunked = head.list("transfer-encoding").contains(&"chunked".to_owned());
        self.length = match head.header("content-length").map(str::parse) {
            _ if method == "HEAD" || head.status == 204 || head.status == 304 => Length::Ended,
            _ if head.status == 101 => Length::UntilClosed,
            Some(Ok(length)) => Length::Known(length),
            _ if chunked => Length::Chunked,
            _ => Length::UntilClosed,
        };
        Ok(head)
    }

    /// The next bytes of the body; `None` at its end.
    pub async fn piece(&mut self) -> io::Result<Option<Bytes>> {
        match self.length {
            Length::Ended | Length::Known(0) => Ok(None),
            Length::Known(left) => {
                if self.buffer.is_empty() && self.read().await? == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                let piece = self.buffer.split_to(left.min(self.buffer.len())).freeze();
                self.length = Length::Known(left - piece.len());
                Ok(Some(piece))
            }
            Length::UntilClosed => {
                if self.buffer.is_empty() && self.read().await? == 0 {
                    self.length = Length::Ended;
                    return Ok(None);
                }
                Ok(Some(self.buffer.split().freeze()))
            }
            Length::Chunked => {
                let size = self.line().await?;
                let size = usize::from_str_radix(size.trim(), 16).map_err(io::Error::other)?;
                while self.buffer.len() < size + 2 {
                    if self.read().await? == 0 {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                }
                let piece = self.buffer.split_to(size).freeze();
                self.buffer.advance(2);
                if size == 0 {
                    self.length = Length::Ended;
                    return Ok(None);
                }
                Ok(Some(piece))
            }
        }
    }

    async fn line(&mut self) -> io::Result<String> {
        loop {
            if let Some(at) = self.buffer.windows(2).position(|window| window == b"\r\n") {
                let line = self.buffer.split_to(at);
                self.buffer.advance(2);
                return Ok(String::from_utf8_lossy(&line).into_owned());
            }
            if self.read().await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    async fn read(&mut self) -> io::Result<usize> {
        self.stream.read_buf(&mut self.buffer).await
    }
}

/// The body of an answer whose head has been read. Dropped early, it takes its connection with it, or its HTTP/2 stream.
pub enum Body {
    /// On a connection of its own.
    Http1(Connection),
    /// One stream of many.
    Http2(http2::Incoming),
}

impl Body {
    /// The next bytes; `None` at the end.
    pub async fn piece(&mut self) -> io::Result<Option<Bytes>> {
        match self {
            Self::Http1(connection) => connection.piece().await,
            Self::Http2(incoming) => http2::piece(incoming).await,
        }
    }
}

/// The lines of a body.
pub struct Lines {
    body: Body,
    buffer: BytesMut,
}

impl Lines {
    /// Reads the body of an answer whose head has been read.
    pub fn of(body: Body) -> Self {
        Self {
            body,
            buffer: BytesMut::new(),
        }
    }

    /// The next line with its end; `None` at the end of the body.
    pub async fn next(&mut self) -> Option<Bytes> {
        within("a line arrives", self.next_whenever()).await
    }

    /// The same, however long that takes.
    pub async fn next_whenever(&mut self) -> Option<Bytes> {
        loop {
            if let Some(at) = self.buffer.iter().position(|byte| *byte == b'\n') {
                return Some(self.buffer.split_to(at + 1).freeze());
            }
            match self.body.piece().await {
                Ok(Some(piece)) => self.buffer.extend_from_slice(&piece),
                Ok(None) | Err(_) => return None,
            }
        }
    }
}

/// Sends one request on a connection of its own.
pub async fn try_fetch(address: SocketAddr, request: &Request) -> io::Result<Response> {
    let exchange = async { Connection::open(address).await?.fetch(request).await };
    within(&format!("{} {}", request.method, request.target), exchange).await
}

/// Sends one request on a connection of its own; panics when there is no answer.
pub async fn fetch(address: SocketAddr, request: &Request) -> Response {
    let response = try_fetch(address, request).await;
    response.unwrap_or_else(|error| panic!("{} {} at {address}: {error}", request.method, request.target))
}
