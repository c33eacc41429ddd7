//! The first request of a TCP connection, where it asks for a WebSocket: it is read and answered without the HTTP library, whose
//! buffers, timers and tasks would be most of what accepting a connection costs.
//!
//! Only a request is taken that came whole with the first bytes, and that leaves nothing open: HTTP/1.1, no body, no expectation.
//! All others are the HTTP library's, and so is the answer to one that is refused.

use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Poll, ready};
use std::time::Duration;

use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::uri::PathAndQuery;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode, Uri, header};
use axum::response::Response;
use bytes::Bytes;
use tokio::io::{AsyncRead as _, AsyncWriteExt as _, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{App, head, router};
use crate::transport::{Accepted, Takeover, with_buffer};

/// Most headers of a request that is taken.
const MOST_HEADERS: usize = 64;
/// How the paths begin at which hubs accept WebSockets.
const BEGINNINGS: [&[u8]; 2] = [b"GET /hubs/", b"GET /client"];

/// The first bytes of a connection; none at its end.
pub(super) async fn read(stream: &mut TcpStream) -> io::Result<Bytes> {
    poll_fn(|cx| {
        with_buffer(|buffer| {
            let mut buffer = ReadBuf::new(buffer);
            ready!(Pin::new(&mut *stream).poll_read(cx, &mut buffer))?;
            Poll::Ready(Ok(Bytes::copy_from_slice(buffer.filled())))
        })
    })
    .await
}

/// The request for a WebSocket that these bytes begin with, if it can be taken, and its length.
pub(super) fn socket_request(read: &Bytes, most_headers: usize) -> Option<(Request<Body>, usize)> {
    if !BEGINNINGS.iter().any(|beginning| read.starts_with(beginning)) {
        return None;
    }
    let mut fields = [const { MaybeUninit::uninit() }; MOST_HEADERS];
    let mut head = httparse::Request::new(&mut []);
    let parsed = head.parse_with_uninit_headers(read, &mut fields);
    let Ok(httparse::Status::Complete(length)) = parsed else {
        return None;
    };
    if head.version != Some(1) || head.headers.len() > most_headers {
        return None;
    }
    let mut headers = HeaderMap::with_capacity(head.headers.len());
    for field in &*head.headers {
        let name = HeaderName::from_bytes(field.name.as_bytes()).ok()?;
        let value = HeaderValue::from_maybe_shared(read.slice_ref(field.value)).ok()?;
        headers.append(name, value);
    }
    let upgrade = headers.get(header::UPGRADE)?;
    let others = [header::CONTENT_LENGTH, header::TRANSFER_ENCODING, header::EXPECT];
    if !upgrade.as_bytes().eq_ignore_ascii_case(b"websocket")
        || others.iter().any(|name| headers.contains_key(name))
    {
        return None;
    }
    let target = read.slice_ref(head.path?.as_bytes());
    let mut request = Request::new(Body::empty());
    *request.uri_mut() = Uri::from(PathAndQuery::from_maybe_shared(target).ok()?);
    *request.headers_mut() = headers;
    Some((request, length))
}

/// The outcome of a request for a WebSocket.
pub(super) enum Outcome {
    /// The socket is served elsewhere, or is gone.
    Over,
    /// The HTTP library is to go on with the same request: with this answer, or with the whole router's.
    Http(Accepted, Option<Box<Response>>),
}

/// Answers a request for a WebSocket, and hands the socket on where it was accepted. `rest` came behind the request.
pub(super) async fn answer(
    mut accepted: Accepted,
    mut request: Request<Body>,
    rest: Bytes,
    (app, peer): (&App, SocketAddr),
    patience: Duration,
) -> Outcome {
    let takeover = Takeover::default();
    request.extensions_mut().insert(ConnectInfo(peer));
    request.extensions_mut().insert(takeover.clone());
    let response = tokio::select! {
        biased;
        response = router::socket(app, request) => response,
        () = poll_fn(|cx| accepted.poll_gone(cx)) => return Outcome::Over,
    };
    let (Some(serve), Some(response)) = (takeover.take(), &response) else {
        return Outcome::Http(accepted, response.map(Box::new));
    };
    debug_assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
    let head = head::write(response.status(), response.headers(), None);
    if let Ok(Ok(())) = timeout(patience, accepted.stream.write_all(&head)).await {
        serve(accepted, &rest);
    }
    Outcome::Over
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::extract::ws::WebSocketUpgrade;
    use axum::routing::any;
    use tokio::io::AsyncReadExt as _;

    use super::*;
    use crate::protocol::websocket::client_frame;
    use crate::server::{Listener, Serving};
    use crate::{Gateway, Hub, Options};

    const WHOLE: &str =
        "GET /hubs/chat?id=a HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: WebSocket\r\n\r\n";

    fn taken(text: &str) -> Option<(Request<Body>, usize)> {
        socket_request(&Bytes::copy_from_slice(text.as_bytes()), 100)
    }

    #[test]
    fn a_whole_request_for_a_socket_is_taken() {
        let (request, length) = taken(&format!("{WHOLE}more")).unwrap();
        assert_eq!(length, WHOLE.len());
        assert_eq!(request.uri(), "/hubs/chat?id=a");
        assert_eq!(request.headers().len(), 3);
        assert_eq!(request.headers()["host"], "x");
    }

    #[test]
    fn what_leaves_anything_open_is_left_to_the_http_library() {
        for (what, by) in [
            ("GET", "POST"),
            ("/hubs/chat", "/sse/chat"),
            ("/hubs/chat", "http://x/hubs/chat"),
            ("1.1", "1.0"),
            ("WebSocket", "h2c"),
            ("\r\n\r\n", "\r\n"),
            ("Host: x", "Host: x\r\nContent-Length: 0"),
            ("Host: x", "Host: x\r\nTransfer-Encoding: chunked"),
            ("Host: x", "Host: x\r\nExpect: 100-continue"),
            ("Host: x", "Host : x"),
            ("Host: x", "Host: x\r\n folded"),
            ("Host: x", "Host: \0"),
        ] {
            let other = WHOLE.replacen(what, by, 1);
            assert_ne!(other, WHOLE);
            assert!(taken(&other).is_none(), "{other:?}");
        }
        let many = WHOLE.replace("Host: x", &"a: b\r\n".repeat(99));
        assert!(taken(&many).is_none());
        let few = Bytes::from_static(WHOLE.as_bytes());
        assert!(socket_request(&few, 3).is_some() && socket_request(&few, 2).is_none());
    }

    /// The head of the answer to a request, in order and without its date, and the socket.
    async fn ask(address: SocketAddr, request: &str) -> (String, TcpStream) {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        let head = String::from_utf8(head).unwrap();
        let is_101 = head.starts_with("HTTP/1.1 101 ");
        let differs = |line: &str| line.starts_with("date: ") || is_101 && is_for_pages(line);
        let lines = head.lines().filter(|line| !differs(line));
        let mut lines: Vec<_> = lines.collect();
        lines.get_mut(1..).unwrap_or_default().sort_unstable();
        (lines.join("\n"), stream)
    }

    fn is_for_pages(line: &str) -> bool {
        line.starts_with("vary: ") || line.starts_with("access-control-")
    }

    fn request(path: &str, headers: &str, end: &str) -> String {
        format!(
            "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n{headers}{end}\r\n"
        )
    }

    const VERSION: &str = "Sec-WebSocket-Version: 13\r\n";
    const KEY: &str = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    /// The HTTP library reads a request with this header.
    const BY_LIBRARY: &str = "Content-Length: 0\r\n";

    async fn serving() -> (Gateway, Serving, SocketAddr) {
        let mut options = Options::default();
        options.auth.allow_anonymous = Some(true);
        let listener = Listener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.address();
        let listener = listener.for_clients(&options);
        let gateway = Gateway::builder().hub(Hub::new("chat")).options(options);
        let gateway = gateway.build().await.unwrap();
        // An application's own socket, which is accepted in the HTTP library's hands alone.
        let own = any(async |upgrade: WebSocketUpgrade| upgrade.on_upgrade(async |_| ()));
        let pages = Router::new().route("/client/own", own);
        let serving = listener.serve(&gateway, pages, Duration::from_secs(1));
        (gateway, serving, address)
    }

    #[tokio::test]
    async fn a_request_is_answered_as_the_http_library_answers_it() {
        let (_gateway, _serving, address) = serving().await;
        let good = format!("{VERSION}{KEY}");
        for (path, headers, status) in [
            ("/hubs/chat", good.clone(), 101),
            ("/client/?hub=chat", good.clone(), 101),
            ("/client/own", good.clone(), 101),
            (
                "/client/hubs/chat",
                format!("{good}Sec-WebSocket-Protocol: a, json.webpubsub.azure.v1\r\n"),
                101,
            ),
            ("/hubs/chat", format!("{good}Origin: http://x\r\n"), 101),
            ("/hubs/chat", format!("{good}Origin: http://y\r\n"), 403),
            ("/hubs/chat?id=none", good.clone(), 404),
            ("/hubs/none", good.clone(), 404),
            ("/hubs/chat", KEY.to_owned(), 400),
            ("/hubs/chat", VERSION.to_owned(), 400),
            ("/hubs/chat", format!("{good}Host: y\r\n"), 400),
            ("/hubs/chat", format!("{good}Accept: text/event-stream\r\n"), 400),
        ] {
            let (by_us, _) = ask(address, &request(path, &headers, "")).await;
            let (by_library, _) = ask(address, &request(path, &headers, BY_LIBRARY)).await;
            assert!(
                by_us.starts_with(&format!("HTTP/1.1 {status} ")),
                "{path} {headers}: {by_us}"
            );
            assert_eq!(by_us, by_library, "{path} {headers}");
        }
    }

    #[tokio::test]
    async fn a_refused_client_may_ask_again_and_bytes_behind_the_request_are_kept() {
        let (_gateway, _serving, address) = serving().await;
        let (refusal, mut stream) = ask(
            address,
            &request("/hubs/chat?id=none", &format!("{VERSION}{KEY}"), ""),
        )
        .await;
        assert!(refusal.starts_with("HTTP/1.1 404 "), "{refusal}");
        let length = refusal
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "));
        let mut text = vec![0; length.unwrap().parse().unwrap()];
        stream.read_exact(&mut text).await.unwrap();
        let handshake = client_frame(0x81, b"{\"protocol\":\"json\",\"version\":1}\x1e");
        let again = request("/hubs/chat", VERSION, KEY);
        stream
            .write_all(&[again.as_bytes(), &handshake].concat())
            .await
            .unwrap();
        read_until(&mut stream, b"{}\x1e").await;
        for end in ["", BY_LIBRARY] {
            let mut stream = TcpStream::connect(address).await.unwrap();
            let whole = request("/hubs/chat", &format!("{VERSION}{KEY}"), end);
            stream
                .write_all(&[whole.as_bytes(), &handshake].concat())
                .await
                .unwrap();
            read_until(&mut stream, b"{}\x1e").await;
        }
    }

    async fn read_until(stream: &mut TcpStream, end: &[u8]) {
        let mut read = Vec::new();
        while !read.ends_with(end) {
            read.push(stream.read_u8().await.unwrap());
        }
    }
}
