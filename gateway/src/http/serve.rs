//! The listener's loop: bounds the cost of a connection before its first request, and ends them all on request.

use std::convert::Infallible;
use std::error::Error;
use std::future::ready;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use hyper::Request;
use hyper::body::Incoming;
use hyper::service::Service;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::Service as _;

use super::App;
use super::event_stream::{self, Detour};
use super::first::{self, Outcome};
use super::reply;
use super::tcp::{self, Traffic};
use crate::limits::{Budget, Doors, Terms};
use crate::options::Options;
use crate::telemetry::labels::LimitLabel;
use crate::telemetry::metrics::Metrics;
use crate::transport::{Accepted, HttpSocket};

/// Time between two lines that say that connections can't be accepted.
const SAY_AGAIN: Duration = Duration::from_secs(60);
/// Largest head of a request. A token of 16 KiB must fit.
const MAX_HEAD_BYTES: usize = 32 * 1024;
/// The first bytes of an HTTP/2 connection (section 3.4 of RFC 9113).
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Serves connections until `stop` ends, then waits for requests that are being answered, but not longer than
/// `deadline`.
pub(crate) async fn serve(
    listener: Arc<TcpListener>,
    router: Router,
    rules: Rules,
    stop: CancellationToken,
    deadline: Duration,
) {
    if let Err(error) = tcp::set_up(&*listener, rules.silence) {
        tracing::debug!(%error, "a listening socket could not be set up"); // each accepted one is, then
    }
    let mut failures = Failures::default();
    let graceful = GracefulShutdown::new();
    let connections = TaskTracker::new();
    let server = Arc::new(Server {
        any: builder(&rules),
        http1: builder(&rules).http1_only(),
        router,
        rules,
        stop,
        connections: connections.clone(),
    });
    loop {
        let (accepted, peer) = tokio::select! {
            biased;
            () = server.stop.cancelled() => break,
            (stream, peer) = accept(&listener, &mut failures) => match server.rules.let_in(stream, peer) {
                Some(accepted) => (accepted, peer),
                None => continue, // closed without a response: no request has come yet
            },
        };
        let conversing = Arc::clone(&server).converse(accepted, peer, graceful.watcher());
        connections.spawn(Box::pin(conversing)); // boxed: what is spawned is copied several times
    }
    drop(listener);
    connections.close();
    let _ = timeout(deadline, async {
        graceful.shutdown().await;
        connections.wait().await;
    })
    .await;
}

/// The parts of a listener's server that its connections share.
struct Server {
    /// The HTTP library where the version is not clear, and where it is 1.
    any: Builder<TokioExecutor>,
    http1: Builder<TokioExecutor>,
    router: Router,
    rules: Rules,
    stop: CancellationToken,
    connections: TaskTracker,
}

impl Server {
    /// Serves a connection, until it has become something else than HTTP.
    async fn converse(self: Arc<Self>, mut accepted: Accepted, peer: SocketAddr, watcher: Watcher) {
        let (read, answer, due) = loop {
            let due = Instant::now() + self.rules.idle;
            let read = tokio::select! {
                biased;
                read = first::read(&mut accepted.stream) => read.unwrap_or_default(),
                () = self.stop.cancelled() => return,
                () = sleep_until(due) => return tracing::trace!("a connection asked for nothing"),
            };
            if read.is_empty() {
                return; // the peer has ended it
            }
            let Some(app) = &self.rules.sockets else {
                break (read, None, due);
            };
            let Some((request, rest)) = first::request(&read, self.rules.most_headers) else {
                break (read, None, due);
            };
            let patience = self.rules.terms.grace;
            let answering = first::answer(accepted, request, rest, (app, peer), patience);
            match Box::pin(answering).await {
                Outcome::Over => return,
                Outcome::Answered(socket) => accepted = socket,
                Outcome::Http(socket, answer) => {
                    accepted = socket;
                    break (read, answer, due);
                }
            }
        };
        // Boxed: what the HTTP library needs is large, and a socket that is accepted needs none of it.
        Box::pin(self.speak_http(accepted, peer, read, answer, watcher, due)).await;
    }

    /// Has the HTTP library serve a connection. `answer`: what its first request is answered with, where that is known.
    async fn speak_http(
        self: Arc<Self>,
        accepted: Accepted,
        peer: SocketAddr,
        read: Bytes,
        answer: Option<Box<Response>>,
        watcher: Watcher,
        due: Instant,
    ) {
        let Self { rules, .. } = &*self;
        let begun = Arc::new(AtomicBool::new(false));
        let traffic = Traffic::new(rules.terms.clone());
        let detour = Arc::new(Detour::default());
        let socket = HttpSocket::new(accepted, rules.terms.clone(), Some(Arc::clone(&detour.exit)));
        let is_http1 = !HTTP2_PREFACE.starts_with(read.get(..HTTP2_PREFACE.len()).unwrap_or(&read));
        let service = Noting {
            begun: Arc::clone(&begun),
            peer,
            traffic: Arc::clone(&traffic),
            detour: Arc::clone(&detour),
            answer: Mutex::new(answer),
            server: Arc::clone(&self),
        };
        let connection = if is_http1 { &self.http1 } else { &self.any }
            .serve_connection_with_upgrades(TokioIo::new(socket.after(read)), service)
            .into_owned();
        let response = tokio::select! {
            outcome = watcher.watch(connection) => {
                if let Err(error) = outcome {
                    if is_large_head(&*error) {
                        rules.metrics.limited.get(LimitLabel::Headers).inc();
                    }
                    tracing::trace!(%error, "an HTTP connection broke"); // peers do that all the time
                }
                return;
            }
            () = traffic.overdue() => return tracing::debug!("a client did not fetch its answers"),
            () = asks_for_nothing(&begun, due) => return tracing::trace!("an HTTP connection asked for nothing"),
            response = detour.response() => response,
        };
        // In a task of its own: this one has room for all that the HTTP library needs.
        if let Some(accepted) = detour.exit.take() {
            let socket = HttpSocket::new(accepted, rules.terms.clone(), None);
            self.connections.spawn(event_stream::write(socket, response));
        }
    }
}

/// How a listener is served.
#[derive(Clone)]
pub(crate) struct Rules {
    /// Most headers of a request: `limits.headers`.
    pub(crate) most_headers: usize,
    /// How long an HTTP/1.1 connection is kept without a request: `timeouts.idle_seconds`.
    pub(crate) idle: Duration,
    /// The time after which a peer is given up that acknowledges nothing.
    pub(crate) silence: Duration,
    /// How slowly answers may be fetched.
    pub(crate) terms: Terms,
    /// How many TCP connections there may be, if that is bounded.
    pub(crate) doors: Option<Arc<Doors>>,
    pub(crate) metrics: Arc<Metrics>,
    /// The node whose hubs accept WebSockets here, if there is one.
    pub(crate) sockets: Option<App>,
}

impl Rules {
    /// Lets an accepted connection in, and sets it up.
    fn let_in(&self, stream: TcpStream, peer: SocketAddr) -> Option<Accepted> {
        let place = self.doors.as_ref().map(|doors| doors.enter(peer.ip()));
        let place = match place.transpose() {
            Ok(place) => place,
            Err(limit) => {
                self.metrics.limited.get(limit).inc();
                return None;
            }
        };
        if let Err(error) = tcp::set_up_accepted(&stream, self.silence) {
            tracing::debug!(%error, "a socket could not be set up");
            return None;
        }
        Some(Accepted { stream, place })
    }

    /// The rules before there is a node.
    pub(crate) fn starting(options: &Options, doors: Option<Arc<Doors>>, metrics: &Arc<Metrics>) -> Self {
        Self {
            most_headers: options.limits.headers,
            idle: options.timeouts.idle,
            silence: options.timeouts.client_timeout,
            terms: Terms {
                budget: Budget::new(options.limits.held_bytes),
                grace: options.timeouts.send,
                least_rate: options.limits.least_bytes_per_second,
            },
            doors,
            metrics: Arc::clone(metrics),
            sockets: None,
        }
    }
}

/// Returns whether a request was refused by the HTTP library, which then has answered with 431 and no text.
fn is_large_head(error: &(dyn Error + Send + Sync + 'static)) -> bool {
    error
        .downcast_ref::<hyper::Error>()
        .is_some_and(hyper::Error::is_parse_too_large)
}

/// Records a request and its client. `header_read_timeout` alone does not count the time before the first bytes, which
/// tell HTTP/1 from HTTP/2, nor anything of HTTP/2.
struct Noting {
    begun: Arc<AtomicBool>,
    peer: SocketAddr,
    traffic: Arc<Traffic>,
    detour: Arc<Detour>,
    /// What the first request is answered with, where that is known.
    answer: Mutex<Option<Box<Response>>>,
    server: Arc<Server>,
}

impl Service<Request<Incoming>> for Noting {
    type Response = Response;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response, Infallible>>;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        self.begun.store(true, Ordering::Relaxed);
        let rules = &self.server.rules;
        if request.headers().len() > rules.most_headers {
            rules.metrics.limited.get(LimitLabel::Headers).inc();
            return refuse(reply::limited(LimitLabel::Headers));
        }
        let Some(open) = self.traffic.open() else {
            return refuse(StatusCode::SERVICE_UNAVAILABLE.into_response()); // without a body
        };
        let method = request.method().clone();
        if let Some(answer) = self.answer.lock().take() {
            let answer = open.answer(&method, *answer);
            return ready(Ok(answer)).boxed();
        }
        let (detour, suits) = (Arc::clone(&self.detour), Detour::suits(&request));
        request.extensions_mut().insert(ConnectInfo(self.peer));
        request.extensions_mut().insert(Arc::clone(&self.traffic));
        let answering = self.server.router.clone().call(request);
        async move {
            let response = answering.await?;
            if suits && detour.leaves(&response) {
                detour.take(response);
                return std::future::pending().await; // the HTTP library lets the connection go
            }
            Ok(open.answer(&method, response))
        }
        .boxed()
    }
}

fn refuse(response: Response) -> BoxFuture<'static, Result<Response, Infallible>> {
    ready(Ok(reply::not_stored(response))).boxed()
}

/// Ends when no request has come in time.
async fn asks_for_nothing(begun: &AtomicBool, due: Instant) {
    sleep_until(due).await;
    if begun.load(Ordering::Relaxed) {
        std::future::pending::<()>().await;
    }
}

fn builder(rules: &Rules) -> Builder<TokioExecutor> {
    let &Rules {
        most_headers, idle, ..
    } = rules;
    let mut server = Builder::new(TokioExecutor::new());
    server
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(idle) // the time between two requests counts, too
        // Some more than allowed are read, to say which limit it is.
        .max_headers(most_headers.saturating_mul(2).min(MAX_HEAD_BYTES))
        .max_buf_size(MAX_HEAD_BYTES);
    server
        .http2()
        .timer(TokioTimer::new())
        .enable_connect_protocol()
        .max_concurrent_streams(100)
        .max_header_list_size(u32::try_from(MAX_HEAD_BYTES).unwrap_or(u32::MAX))
        .keep_alive_interval(Duration::from_secs(30));
    server
}

/// Accepts, however long it takes: running out of file descriptors must not end the server.
async fn accept(listener: &TcpListener, failures: &mut Failures) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok(accepted) => return accepted,
            Err(error) => {
                failures.note(&error);
                sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Says seldom that connections can't be accepted: it may go on for long.
#[derive(Default)]
struct Failures {
    count: u64,
    said: Option<Instant>,
}

impl Failures {
    fn note(&mut self, error: &io::Error) {
        self.count = self.count.saturating_add(1);
        if self.said.is_none_or(|said| said.elapsed() >= SAY_AGAIN) {
            tracing::warn!(%error, times = self.count, "connections can't be accepted; are there enough file descriptors (ulimit -n)?");
            *self = Self {
                count: 0,
                said: Some(Instant::now()),
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// Whatever begins like a request and is none.
    const BEGINNINGS: [&str; 5] = [
        "",
        "P",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "GET / HT",
        "GET / HTTP/1.1\r\nhost: x\r\n",
    ];

    #[tokio::test(start_paused = true)]
    async fn who_asks_for_nothing_is_not_waited_for() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let router = Router::new().route("/", get(async || "fine"));
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
        let serving = tokio::spawn(serve(
            Arc::new(listener),
            router,
            rules,
            stop.clone(),
            Duration::from_secs(1),
        ));
        for beginning in BEGINNINGS {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(beginning.as_bytes()).await.unwrap();
            let mut answer = Vec::new();
            let read = timeout(Duration::from_secs(150), stream.read_to_end(&mut answer)).await;
            assert!(read.is_ok(), "{beginning:?} is waited for");
        }
        let mut stream = TcpStream::connect(address).await.unwrap();
        let ask = b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
        stream.write_all(ask).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.ends_with("fine"), "{answer}");
        stop.cancel();
        serving.await.unwrap();
    }
}
