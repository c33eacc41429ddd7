//! The requests with which a SignalR client begins, as far as they are the first ones of a TCP connection: to negotiate, and for a
//! WebSocket. They are read and answered without the HTTP library, whose buffers, timers and tasks would be most of what accepting
//! a connection costs.
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

use axum::body::{Body, HttpBody as _};
use axum::extract::ConnectInfo;
use axum::http::uri::PathAndQuery;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Uri, header};
use axum::response::Response;
use bytes::Bytes;
use http_body_util::BodyExt as _;
use tokio::io::{AsyncRead as _, AsyncWriteExt as _, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{App, head, router};
use crate::transport::{Accepted, Takeover, with_buffer};

/// Most headers of a request that is taken.
const MOST_HEADERS: usize = 64;
/// How requests begin that may be taken.
const BEGINNINGS: [&[u8]; 4] = [b"GET /hubs/", b"GET /client", b"POST /hubs/", b"POST /client"];

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

/// The request that these bytes begin with, if it can be taken, and the bytes behind it.
pub(super) fn request(read: &Bytes, most_headers: usize) -> Option<(Request<Body>, Bytes)> {
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
    let rest = read.slice(length..);
    let leaves_open = [header::TRANSFER_ENCODING, header::EXPECT];
    let is_taken = match head.method? {
        "GET" => wants_socket(&headers),
        _ => rest.is_empty() && is_bare(&headers),
    };
    if !is_taken || leaves_open.iter().any(|name| headers.contains_key(name)) {
        return None;
    }
    let target = read.slice_ref(head.path?.as_bytes());
    let mut request = Request::new(Body::empty());
    *request.method_mut() = Method::from_bytes(head.method?.as_bytes()).ok()?;
    *request.uri_mut() = Uri::from(PathAndQuery::from_maybe_shared(target).ok()?);
    *request.headers_mut() = headers;
    Some((request, rest))
}

fn wants_socket(headers: &HeaderMap) -> bool {
    let upgrade = headers.get(header::UPGRADE);
    upgrade.is_some_and(|upgrade| upgrade.as_bytes().eq_ignore_ascii_case(b"websocket"))
        && !headers.contains_key(header::CONTENT_LENGTH)
}

/// Returns whether a POST has no body, and its connection is to be kept.
fn is_bare(headers: &HeaderMap) -> bool {
    let mut lengths = headers.get_all(header::CONTENT_LENGTH).into_iter();
    let mut lines = headers.get_all(header::CONNECTION).into_iter();
    lengths.all(|length| length.as_bytes() == b"0")
        && lines.all(|line| line.as_bytes().eq_ignore_ascii_case(b"keep-alive"))
        && !headers.contains_key(header::UPGRADE)
}

/// The outcome of a request.
pub(super) enum Outcome {
    /// The socket is served elsewhere, or is gone.
    Over,
    /// It is answered, and another request may come.
    Answered(Accepted),
    /// The HTTP library is to go on with the same request: with this answer, or with the whole router's.
    Http(Accepted, Option<Box<Response>>),
}

/// Answers a request, and hands the socket on where it was accepted as a WebSocket. `rest` came behind the request.
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
        response = router::directly(app, request) => response,
        () = poll_fn(|cx| accepted.poll_gone(cx)) => return Outcome::Over,
    };
    let Some(response) = response else {
        return Outcome::Http(accepted, None);
    };
    let serve = takeover.take();
    let is_plain =
        response.status() == StatusCode::OK && !response.headers().contains_key(header::CONNECTION);
    let length = response.body().size_hint().exact();
    let (parts, body) = match (&serve, length) {
        (Some(_), _) => response.into_parts(),
        (None, Some(_)) if is_plain => response.into_parts(),
        _ => return Outcome::Http(accepted, Some(Box::new(response))),
    };
    let length = length.filter(|_| serve.is_none());
    let length = length.map(|length| length.to_string());
    let framing = length.as_deref().map(|length| ("content-length", length));
    let mut bytes = head::write(parts.status, &parts.headers, framing);
    if let Ok(body) = body.collect().await {
        bytes.extend_from_slice(&body.to_bytes());
    }
    match (timeout(patience, accepted.stream.write_all(&bytes)).await, serve) {
        (Ok(Ok(())), Some(serve)) => serve(accepted, &rest),
        (Ok(Ok(())), None) => return Outcome::Answered(accepted),
        _ => {}
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

    const NEGOTIATE: &str =
        "POST /hubs/chat/negotiate?negotiateVersion=1 HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n";

    fn taken(text: &str) -> Option<(Request<Body>, Bytes)> {
        request(&Bytes::copy_from_slice(text.as_bytes()), 100)
    }

    #[test]
    fn a_whole_request_for_a_socket_is_taken() {
        let (request, rest) = taken(&format!("{WHOLE}more")).unwrap();
        assert_eq!(rest, "more");
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
        assert!(request(&few, 3).is_some() && request(&few, 2).is_none());
        assert!(taken(NEGOTIATE).is_some() && taken(&format!("{NEGOTIATE}POST")).is_none());
        assert!(taken(&NEGOTIATE.replace("Content-Length: 0\r\n", "Connection: keep-alive\r\n")).is_some());
        for other in [
            "Content-Length: 1",
            "Content-Length: 0\r\nContent-Length: 1",
            "Transfer-Encoding: chunked",
            "Connection: close",
            "Connection: Upgrade\r\nUpgrade: h2c",
        ] {
            let other = NEGOTIATE.replace("Content-Length: 0", other);
            assert!(taken(&other).is_none(), "{other:?}");
        }
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

    fn upgrade(path: &str, headers: &str, end: &str) -> String {
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
            let (by_us, _) = ask(address, &upgrade(path, &headers, "")).await;
            let (by_library, _) = ask(address, &upgrade(path, &headers, BY_LIBRARY)).await;
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
            &upgrade("/hubs/chat?id=none", &format!("{VERSION}{KEY}"), ""),
        )
        .await;
        assert!(refusal.starts_with("HTTP/1.1 404 "), "{refusal}");
        let length = refusal
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "));
        let mut text = vec![0; length.unwrap().parse().unwrap()];
        stream.read_exact(&mut text).await.unwrap();
        let handshake = client_frame(0x81, b"{\"protocol\":\"json\",\"version\":1}\x1e");
        let again = upgrade("/hubs/chat", VERSION, KEY);
        stream
            .write_all(&[again.as_bytes(), &handshake].concat())
            .await
            .unwrap();
        read_until(&mut stream, b"{}\x1e").await;
        for end in ["", BY_LIBRARY] {
            let mut stream = TcpStream::connect(address).await.unwrap();
            let whole = upgrade("/hubs/chat", &format!("{VERSION}{KEY}"), end);
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

    #[tokio::test]
    async fn a_connection_is_negotiated_on_as_by_the_http_library_and_goes_on() {
        let (_gateway, _serving, address) = serving().await;
        let negotiate = |path: &str, headers: &str| {
            format!("POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n{headers}\r\n")
        };
        for (path, headers, status) in [
            ("/hubs/chat/negotiate?negotiateVersion=1", "", 200),
            ("/client/negotiate?hub=chat", "Origin: http://x\r\n", 200),
            ("/hubs/chat/negotiate?negotiateVersion=x", "", 200),
            ("/hubs/chat/negotiate", "Authorization: Bearer none\r\n", 401),
            ("/hubs/none/negotiate", "", 404),
            ("/hubs/chat", "", 400),
        ] {
            let (by_us, _) = ask(address, &negotiate(path, headers)).await;
            let by_library = negotiate(path, &format!("{headers}Connection: te\r\n"));
            let (by_library, _) = ask(address, &by_library).await;
            assert!(
                by_us.starts_with(&format!("HTTP/1.1 {status} ")),
                "{path}: {by_us}"
            );
            assert_eq!(by_us, by_library, "{path}");
        }
        let mut stream = TcpStream::connect(address).await.unwrap();
        for _ in 0..2 {
            let asked = negotiate("/hubs/chat/negotiate?negotiateVersion=1", "");
            stream.write_all(asked.as_bytes()).await.unwrap();
            read_until(&mut stream, b"\"transferFormats\":[\"Text\",\"Binary\"]}]}").await;
        }
        let socket = upgrade("/hubs/chat", VERSION, KEY);
        stream.write_all(socket.as_bytes()).await.unwrap();
        read_until(&mut stream, b"\r\n\r\n").await;
        let handshake = client_frame(0x81, b"{\"protocol\":\"json\",\"version\":1}\x1e");
        stream.write_all(&handshake).await.unwrap();
        read_until(&mut stream, b"{}\x1e").await;
    }
}
