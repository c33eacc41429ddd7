//! Event streams over HTTP/1.1: their sockets are taken from the HTTP library, whose buffers would be most of what an idle
//! stream costs.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::{Body, HttpBody};
use axum::http::{HeaderValue, Method, Request, StatusCode, Version, header};
use axum::response::Response;
use bytes::{Buf as _, Bytes};
use parking_lot::Mutex;
use tokio::io::AsyncWriteExt as _;
use tokio::sync::Notify;

use super::{head, reply};
use crate::transport::{Exit, HttpSocket};

/// Events that are ready together are written together, up to so many bytes.
const MOST_BYTES: usize = 64 * 1024;

/// A connection's way out of the HTTP library.
#[derive(Default)]
pub(super) struct Detour {
    pub(super) exit: Arc<Exit>,
    response: Mutex<Option<Response>>,
    given: Notify,
}

impl Detour {
    /// Returns whether an event stream may answer a request from outside of the HTTP library.
    pub(super) fn suits<B>(request: &Request<B>) -> bool {
        let others = [
            header::CONTENT_LENGTH,
            header::TRANSFER_ENCODING,
            header::EXPECT,
            header::UPGRADE,
        ];
        let is_bare = !others.iter().any(|name| request.headers().contains_key(name));
        is_bare && request.version() == Version::HTTP_11 && request.method() == Method::GET
    }

    /// Returns whether the response to such a request leaves the HTTP library: an event stream with which the connection ends.
    pub(super) fn leaves(&self, response: &Response) -> bool {
        let headers = response.headers();
        let closes = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"close");
        response.status() == StatusCode::OK
            && reply::is_event_stream(response)
            && response.body().size_hint().exact().is_none()
            && !headers.contains_key(header::CONTENT_LENGTH)
            && !headers.contains_key(header::TRANSFER_ENCODING)
            && headers.get(header::CONNECTION).is_some_and(closes)
            && self.exit.is_free()
    }

    /// Takes such a response. The HTTP library must get no answer.
    pub(super) fn take(&self, response: Response) {
        *self.response.lock() = Some(response);
        self.given.notify_one();
    }

    /// The response that was taken.
    pub(super) async fn response(&self) -> Response {
        loop {
            if let Some(response) = self.response.lock().take() {
                return response;
            }
            self.given.notified().await;
        }
    }
}

/// How an event stream ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// There is nothing more.
    Whole,
    /// The client is gone, or the stream broke off.
    Broken,
}

/// Writes an event stream as the HTTP library would, and ends the connection.
pub(super) async fn write(mut socket: HttpSocket, response: Response) {
    let (head, body) = {
        let (parts, body) = response.into_parts();
        let chunked = Some(("transfer-encoding", "chunked"));
        (head::write(parts.status, &parts.headers, chunked), body)
    };
    if Box::pin(socket.write_all(&head)).await.is_err() {
        return;
    }
    drop(head);
    let mut events = Events { body, end: None };
    let end = loop {
        let next = poll_fn(|cx| {
            // Without a look at it, a client that has gone would be noticed by the next event alone.
            if socket.poll_gone(cx).is_ready() {
                return Poll::Ready(Err(End::Broken));
            }
            events.poll_next(cx)
        });
        match next.await {
            Ok(bytes) => {
                if Box::pin(write_chunk(&mut socket, bytes)).await.is_err() {
                    break End::Broken;
                }
            }
            Err(end) => break end,
        }
    };
    if end == End::Whole && Box::pin(socket.write_all(b"0\r\n\r\n")).await.is_ok() {
        let _ = Box::pin(socket.shutdown()).await; // the client may be gone
    }
}

/// The body of an event stream.
struct Events {
    body: Body,
    /// Set once nothing more comes of it.
    end: Option<End>,
}

impl Events {
    /// All that is ready, at least one byte, or the end.
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Bytes, End>> {
        let mut ready = Vec::new();
        let mut length = 0_usize;
        while self.end.is_none() && length < MOST_BYTES {
            match Pin::new(&mut self.body).poll_frame(cx) {
                Poll::Pending => break,
                Poll::Ready(None) => self.end = Some(End::Whole),
                Poll::Ready(Some(Err(_))) => self.end = Some(End::Broken),
                Poll::Ready(Some(Ok(frame))) => {
                    let bytes = frame.into_data().unwrap_or_default(); // there are no trailers
                    length = length.saturating_add(bytes.len());
                    ready.extend((!bytes.is_empty()).then_some(bytes));
                }
            }
        }
        match (ready.pop(), self.end) {
            (None, None) => Poll::Pending,
            (None, Some(end)) => Poll::Ready(Err(end)),
            (Some(only), _) if ready.is_empty() => Poll::Ready(Ok(only)),
            (Some(last), _) => {
                ready.push(last);
                Poll::Ready(Ok(ready.concat().into()))
            }
        }
    }
}

/// Section 7.1 of RFC 9112.
async fn write_chunk(socket: &mut HttpSocket, bytes: Bytes) -> io::Result<()> {
    let size = Bytes::from(format!("{:x}\r\n", bytes.len()));
    let mut chunk = size.chain(bytes).chain(&b"\r\n"[..]);
    socket.write_all_buf(&mut chunk).await
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::time::Duration;

    use axum::Router;
    use axum::routing::get;
    use futures_util::stream::{self, StreamExt};
    use tokio::io::AsyncReadExt;
    use tokio::net::{TcpListener, TcpStream};
    use tokio::sync::mpsc;
    use tokio::time::timeout;
    use tokio_util::sync::CancellationToken;

    use super::super::serve::{Rules, serve};
    use super::*;
    use crate::limits::{Budget, Terms};
    use crate::telemetry::metrics::Metrics;

    const BARE: &str = "";
    /// The HTTP library answers a request with a body, if only an empty one.
    const WITH_BODY: &str = "content-length: 0\r\n";

    fn event_stream(events: Vec<&'static str>, then: mpsc::Sender<()>) -> Response {
        let events =
            stream::iter(events).map(|event| Ok::<_, Infallible>(Bytes::from_static(event.as_bytes())));
        let open = stream::once(async move {
            then.closed().await; // the stream goes on as long as the test wants
            Ok(Bytes::new())
        });
        let mut response = reply::event_stream(Body::from_stream(events.chain(open)));
        let headers = response.headers_mut();
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        response
    }

    /// A client of a listener with two events, and what ends the stream.
    async fn connect(kind: &str) -> (TcpStream, mpsc::Receiver<()>, CancellationToken) {
        let (sender, receiver) = mpsc::channel(1);
        let answer = move || {
            let sender = sender.clone();
            async move { event_stream(vec!["data: 1\n\n", "data: 2\n\n"], sender) }
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let rules = Rules {
            most_headers: 100,
            idle: Duration::from_secs(75),
            silence: Duration::from_secs(30),
            terms: Terms {
                budget: Budget::new(0),
                grace: Duration::from_secs(10),
                least_rate: 1_000,
            },
            doors: None,
            metrics: Arc::new(Metrics::new()),
            sockets: None,
        };
        let stop = CancellationToken::new();
        let router = Router::new().route("/", get(answer));
        let deadline = Duration::from_secs(1);
        tokio::spawn(serve(Arc::new(listener), router, rules, stop.clone(), deadline));
        let mut client = TcpStream::connect(address).await.unwrap();
        let request = format!("GET / HTTP/1.1\r\nhost: x\r\n{kind}\r\n");
        client.write_all(request.as_bytes()).await.unwrap();
        (client, receiver, stop)
    }

    async fn read_until(client: &mut TcpStream, end: &str) -> String {
        let mut read = Vec::new();
        while !read.ends_with(end.as_bytes()) {
            let mut byte = [0];
            client.read_exact(&mut byte).await.unwrap();
            read.extend(byte);
        }
        String::from_utf8(read).unwrap()
    }

    #[tokio::test]
    async fn a_stream_is_written_as_the_http_library_writes_it() {
        let mut heads = Vec::new();
        for (kind, chunks) in [
            (BARE, "12\r\ndata: 1\n\ndata: 2\n\n\r\n"),
            (WITH_BODY, "9\r\ndata: 1\n\n\r\n9\r\ndata: 2\n\n\r\n"),
        ] {
            let (mut client, open, _stop) = connect(kind).await;
            let head = read_until(&mut client, "\r\n\r\n").await;
            let (head, date) = head.split_once("date: ").unwrap();
            assert!(date.ends_with(" GMT\r\n\r\n"), "{date}");
            heads.push(head.to_owned());
            assert_eq!(read_until(&mut client, "2\n\n\r\n").await, chunks, "{kind}");
            drop(open);
            let mut end = String::new();
            client.read_to_string(&mut end).await.unwrap();
            assert_eq!(end, "0\r\n\r\n", "{kind}");
        }
        assert_eq!(heads.first(), heads.last());
    }

    #[tokio::test]
    async fn a_client_that_has_gone_is_noticed_without_an_event() {
        for kind in [BARE, WITH_BODY] {
            let (mut client, mut open, _stop) = connect(kind).await;
            read_until(&mut client, "2\n\n\r\n").await;
            drop(client);
            // All senders but that of the route are dropped with the body.
            let gone = timeout(Duration::from_secs(30), async {
                while open.sender_strong_count() > 1 {
                    tokio::task::yield_now().await;
                }
            });
            assert!(gone.await.is_ok(), "{kind:?}: the stream goes on");
            open.close();
        }
    }
}
