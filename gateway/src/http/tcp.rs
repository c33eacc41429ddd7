//! One TCP connection, and how a peer is noticed that does not fetch its answers.
//!
//! A peer can leave answers unread in two ways: it stops reading, or, over HTTP/2, it reads and keeps its windows
//! closed. In the first case writing makes no progress, in the second an answer does not end. Both end the connection
//! after a while.

use std::collections::BTreeSet;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::http::{Method, StatusCode};
use axum::response::Response;
use bytes::Bytes;
use hyper::body::{Frame, SizeHint};
use parking_lot::Mutex;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use crate::limits::Terms;

/// Requests that may be open on a connection before one of them was admitted: enough for the files of a page.
const MOST_UNKNOWN: usize = 16;
/// An answer is given to the HTTP library in pieces of so many bytes, or it would be held there and seem to have ended.
const PIECE_BYTES: usize = 4 * 1024;

/// Probes of a connection on which nothing is sent, until it is given up.
const PROBES: u32 = 3;

/// Sets up a socket; those that a listening one accepts from then on have the same options on Linux. A peer that has vanished
/// says nothing more, and the kernel would send to it again for a quarter of an hour: it is given up when it acknowledges
/// nothing for `silence`, whatever runs on the connection.
pub(super) fn set_up<'a, S>(socket: &'a S, silence: Duration) -> io::Result<()>
where
    SockRef<'a>: From<&'a S>,
{
    let socket = SockRef::from(socket);
    socket.set_tcp_nodelay(true)?;
    #[cfg(any(target_os = "android", target_os = "fuchsia", target_os = "linux"))]
    socket.set_tcp_user_timeout(Some(silence))?;
    let pause = (silence / (PROBES + 1)).max(Duration::from_secs(1)); // the kernel counts seconds
    let probing = TcpKeepalive::new()
        .with_time(pause)
        .with_interval(pause)
        .with_retries(PROBES);
    socket.set_tcp_keepalive(&probing)
}

/// As [`set_up`], for an accepted socket: one look at it takes the place of setting each option again.
pub(super) fn set_up_accepted(stream: &TcpStream, silence: Duration) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    if SockRef::from(stream).tcp_user_timeout()? == Some(silence) {
        return Ok(()); // as of the listening one, with all others: it may have been accepted before that was set up
    }
    set_up(stream, silence)
}

/// The state of a TCP connection. In the extensions of its requests.
#[derive(Debug)]
pub(crate) struct Traffic {
    terms: Terms,
    /// The deadlines of the answers that are being fetched.
    due: Mutex<BTreeSet<(Instant, u64)>>,
    answers: AtomicU64,
    changed: Notify,
    /// Requests that are not answered to the end.
    open: AtomicUsize,
    /// A request on this connection was admitted.
    known: AtomicBool,
}

impl Traffic {
    pub(super) fn new(terms: Terms) -> Arc<Self> {
        Arc::new(Self {
            terms,
            due: Mutex::default(),
            answers: AtomicU64::new(0),
            changed: Notify::new(),
            open: AtomicUsize::new(0),
            known: AtomicBool::new(false),
        })
    }

    /// A request on it was admitted: its peer may have as many requests open as HTTP/2 allows for.
    pub(crate) fn trust(&self) {
        self.known.store(true, Ordering::Relaxed);
    }

    /// Counts a request until its answer has ended; `None` where it is one too many.
    pub(super) fn open(self: &Arc<Self>) -> Option<Open> {
        let open = Open {
            traffic: Arc::clone(self),
            due: None,
        };
        let before = self.open.fetch_add(1, Ordering::Relaxed);
        (before < MOST_UNKNOWN || self.known.load(Ordering::Relaxed)).then_some(open)
    }

    /// Ends when an answer is being fetched for too long.
    pub(super) async fn overdue(&self) {
        loop {
            let first = self.due.lock().first().copied();
            match first {
                None => self.changed.notified().await,
                Some((due, _)) if due <= Instant::now() => return,
                Some((due, _)) => tokio::select! {
                    () = sleep_until(due) => {}
                    () = self.changed.notified() => {}
                },
            }
        }
    }
}

/// A request that is not answered to the end.
#[derive(Debug)]
pub(super) struct Open {
    traffic: Arc<Traffic>,
    due: Option<(Instant, u64)>,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.traffic.open.fetch_sub(1, Ordering::Relaxed);
        if let Some(due) = &self.due {
            self.traffic.due.lock().remove(due);
        }
    }
}

impl Open {
    /// Gives an answer its deadline, and records its end. Event streams and the like, whose length is not known, have
    /// none: their sessions look after themselves.
    pub(super) fn answer(mut self, method: &Method, response: Response) -> Response {
        let bodiless = *method == Method::HEAD || response.status() == StatusCode::NOT_MODIFIED;
        response.map(|body| {
            let length = body.size_hint().exact().filter(|length| *length > 0 && !bodiless);
            if let Some(length) = length {
                self.give_time(length);
            }
            Body::new(Answer {
                body,
                rest: Bytes::new(),
                open: Some(self),
            })
        })
    }

    fn give_time(&mut self, length: u64) {
        let terms = &self.traffic.terms;
        let own = match terms.least_rate {
            0 => Duration::ZERO,
            rate => Duration::from_secs(length / rate),
        };
        let number = self.traffic.answers.fetch_add(1, Ordering::Relaxed);
        let due = (Instant::now() + terms.grace + own, number);
        self.due = Some(due);
        self.traffic.due.lock().insert(due);
        self.traffic.changed.notify_one();
    }
}

struct Answer {
    body: Body,
    rest: Bytes,
    open: Option<Open>,
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = self.get_mut();
        if this.rest.is_empty() {
            match ready!(Pin::new(&mut this.body).poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(bytes) => this.rest = bytes,
                    Err(frame) => return Poll::Ready(Some(Ok(frame))),
                },
                end => {
                    this.open = None;
                    return Poll::Ready(end);
                }
            }
        }
        let piece = this.rest.split_to(this.rest.len().min(PIECE_BYTES));
        if this.is_end_stream() {
            this.open = None;
        }
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (body, rest) = (self.body.size_hint(), self.rest.len() as u64);
        let mut hint = SizeHint::new();
        hint.set_lower(body.lower().saturating_add(rest));
        if let Some(upper) = body.upper() {
            hint.set_upper(upper.saturating_add(rest));
        }
        hint
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn the_kernel_gives_up_a_peer_that_acknowledges_nothing() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let silence = Duration::from_secs(30);
        for was_set_up_before in [false, true] {
            if was_set_up_before {
                set_up(&listener, silence).unwrap();
            }
            let (connected, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
            let (stream, _) = accepted.unwrap();
            let socket = SockRef::from(&stream);
            assert_eq!(
                socket.tcp_nodelay().unwrap(),
                was_set_up_before,
                "as the listening one"
            );
            set_up_accepted(&stream, silence).unwrap();
            assert_eq!(socket.tcp_user_timeout().unwrap(), Some(silence));
            assert!(socket.keepalive().unwrap() && socket.tcp_nodelay().unwrap());
            let probing = socket.tcp_keepalive_time().unwrap()
                + socket.tcp_keepalive_interval().unwrap() * socket.tcp_keepalive_retries().unwrap();
            assert!(probing <= silence, "{probing:?}");
            drop(connected);
        }
    }
}
