//! Bodies of requests, on every route: they have to get on, and an answer that is given before the whole body was read waits
//! until the rest was dropped.
//!
//! A server that answers and closes while its client is still sending resets the connection, and the client sees a broken
//! pipe in place of the answer. So the rest is read and dropped, within bounds, and the connection can be used again.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::extract::Request;
use axum::http::header::{self, HeaderMap, HeaderValue};
use axum::http::{Method, Version};
use axum::response::Response;
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::Frame;
use parking_lot::Mutex;
use tokio::time::timeout;

use crate::http::App;
use crate::limits::{Held, Terms};

/// Most bytes that are dropped for a client that has its answer already.
const MOST_DROPPED: u64 = 4 * 1024 * 1024;
/// How long that may take.
const DROPPING: Duration = Duration::from_secs(5);

/// Serves a request whose body has to get on.
pub(super) async fn attend<F>(app: &App, request: Request, answer: impl FnOnce(Request) -> F) -> Response
where
    F: Future<Output = Response>,
{
    let (parts, body) = request.into_parts();
    // The body of CONNECT is the socket.
    if body.is_end_stream() || parts.method == Method::CONNECT {
        return answer(Request::from_parts(parts, body)).await;
    }
    // Such a client sends nothing before it is invited to, by the first look at its body.
    let waits = parts.headers.contains_key(header::EXPECT);
    let persistent = parts.version < Version::HTTP_2;
    let incoming = Arc::new(Mutex::new(IncomingBody {
        body,
        held: Held::new(app.terms()),
        touched: false,
        end: None,
    }));
    let handed = Body::new(Handed(Arc::clone(&incoming)));
    let mut response = answer(Request::from_parts(parts, handed)).await;
    let untouched = waits && !incoming.lock().touched;
    let dropped = !untouched && drop_rest(incoming).await;
    if !dropped && persistent {
        let headers = response.headers_mut();
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// Returns whether the rest of a body came, and was dropped, within bounds.
async fn drop_rest(incoming: Arc<Mutex<IncomingBody>>) -> bool {
    if let Some(end) = incoming.lock().end {
        return end == BodyEnd::Whole;
    }
    let mut rest = Handed(incoming);
    let mut left = MOST_DROPPED;
    let dropping = async {
        while let Some(frame) = rest.frame().await {
            let Ok(frame) = frame else { return false };
            let bytes = frame.data_ref().map_or(0, Bytes::len);
            match left.checked_sub(bytes as u64) {
                Some(less) => left = less,
                None => return false,
            }
        }
        true
    };
    timeout(DROPPING, dropping).await.unwrap_or(false)
}

/// A request's body as it comes.
struct IncomingBody {
    body: Body,
    held: Held,
    /// Set once an endpoint has polled it.
    touched: bool,
    end: Option<BodyEnd>,
}

/// How a body ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum BodyEnd {
    Whole,
    Broken,
}

/// A body in the hands of an endpoint; the rest when that drops it is read by [`drop_rest`].
struct Handed(Arc<Mutex<IncomingBody>>);

impl HttpBody for Handed {
    type Data = Bytes;
    type Error = axum::BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let mut incoming = self.0.lock();
        let IncomingBody {
            body,
            held,
            touched,
            end,
        } = &mut *incoming;
        *touched = true;
        if end.is_some() {
            return Poll::Ready(None);
        }
        held.begin();
        let frame = match Pin::new(body).poll_frame(cx) {
            Poll::Ready(frame) => frame,
            Poll::Pending => {
                ready!(held.poll_late(cx));
                *end = Some(BodyEnd::Broken);
                let late = io::Error::new(io::ErrorKind::TimedOut, "the body did not get on");
                return Poll::Ready(Some(Err(late.into())));
            }
        };
        match &frame {
            Some(Ok(frame)) => held.pass(frame.data_ref().map_or(0, Bytes::len)),
            Some(Err(_)) => *end = Some(BodyEnd::Broken),
            None => *end = Some(BodyEnd::Whole),
        }
        Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        let incoming = self.0.lock();
        incoming.end.is_some() || incoming.body.is_end_stream()
    }

    fn size_hint(&self) -> hyper::body::SizeHint {
        self.0.lock().body.size_hint()
    }
}

/// The reason why there is no body, or no more of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BodyError {
    /// The body is over the limit.
    TooLarge,
    /// The body came too slowly.
    Late,
    /// The node holds too much for its clients already.
    NoRoom,
    /// The client gave up.
    Broken,
}

impl BodyError {
    fn of(error: &axum::Error) -> Self {
        let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
        while let Some(error) = source {
            let io = error.downcast_ref::<io::Error>();
            if io.is_some_and(|error| error.kind() == io::ErrorKind::TimedOut) {
                return Self::Late;
            }
            source = error.source();
        }
        Self::Broken
    }
}

/// The next bytes of a body; `None` at its end.
pub(crate) async fn next_bytes(body: &mut Body) -> Result<Option<Bytes>, BodyError> {
    loop {
        match body.frame().await {
            None => return Ok(None),
            Some(Err(error)) => return Err(BodyError::of(&error)),
            Some(Ok(frame)) => {
                if let Ok(bytes) = frame.into_data()
                    && !bytes.is_empty()
                {
                    return Ok(Some(bytes));
                }
            }
        }
    }
}

/// Reads a whole body of at most `limit` bytes. One that is declared larger is not waited for.
/// While it is read it is charged to the node's budget.
pub(crate) async fn read_body(
    headers: &HeaderMap,
    mut body: Body,
    limit: usize,
    terms: Arc<Terms>,
) -> Result<Bytes, BodyError> {
    let declared = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse().ok());
    if declared.is_some_and(|bytes: usize| bytes > limit) {
        return Err(BodyError::TooLarge);
    }
    let mut held = Held::new(terms);
    let mut whole = BytesMut::new();
    while let Some(bytes) = next_bytes(&mut body).await? {
        let length = whole.len().saturating_add(bytes.len());
        if length > limit {
            return Err(BodyError::TooLarge);
        }
        held.keep(length).map_err(|_| BodyError::NoRoom)?;
        whole.extend_from_slice(&bytes);
    }
    Ok(whole.freeze())
}
