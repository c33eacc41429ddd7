//! Streams that a client sends to a method.

use std::fmt;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context as TaskContext, Poll, ready};

use futures_util::stream::{self, Stream};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;

use crate::protocol::{DecodeValueError, Value};

/// A parameter of a hub method: the items that the client streams to it.
///
/// The client takes it out of the call's arguments and sends the items by themselves; an official client does so for
/// every argument that is a `Subject`. Items wait in a queue of `hubs.stream_buffer` items, and while that is full the
/// connection is not read. It ends when the client says so; when the client gives up, when an item is of another type
/// and when the connection ends, its last item is an [`UploadError`]. Dropping it does not notify the client: what
/// still comes is ignored. A method that takes uploads runs beside the slots of `hubs.parallel_invocations`.
///
/// ```
/// use futures_util::StreamExt;
/// use hubcast::hub::Upload;
/// use hubcast::{Hub, HubError};
///
/// async fn sum(mut numbers: Upload<f64>) -> Result<f64, HubError> {
///     let mut total = 0.0;
///     while let Some(number) = numbers.next().await {
///         total += number?;
///     }
///     Ok(total)
/// }
///
/// let hub = Hub::new("math").method("Sum", sum);
/// ```
pub struct Upload<T> {
    raw: RawUpload,
    ended: bool,
    item: PhantomData<fn() -> T>,
}

/// The reason why an upload ended early.
///
/// ```
/// use futures_util::StreamExt;
/// use hubcast::hub::{Upload, UploadError};
/// use hubcast::Hub;
///
/// async fn archive(mut lines: Upload<String>) -> String {
///     let mut kept = 0;
///     loop {
///         match lines.next().await {
///             Some(Ok(_)) => kept += 1,
///             None => return format!("all {kept} lines"),
///             Some(Err(UploadError::ConnectionClosed)) => return format!("{kept} lines of a client that is gone"),
///             Some(Err(why)) => return format!("{kept} lines: {why}"),
///         }
///     }
/// }
///
/// let hub = Hub::new("logs").method("Archive", archive);
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UploadError {
    /// The client ended it with an error. Carries its text.
    #[error("{0}")]
    Client(String),
    /// An item is not of the expected type.
    #[error("an item of the stream is of another type: {0}")]
    Item(#[from] DecodeValueError),
    /// The connection ended before the upload did.
    #[error("The underlying connection was closed.")]
    ConnectionClosed,
}

/// An event of an upload: an item, or its end.
#[derive(Debug)]
pub(crate) enum UploadEvent {
    Item(Value),
    End(Option<String>),
}

/// The receiving end of an upload, before its type is known.
pub(crate) type RawUpload = mpsc::Receiver<UploadEvent>;

impl<T> Upload<T> {
    pub(crate) fn new(raw: RawUpload) -> Self {
        Self {
            raw,
            ended: false,
            item: PhantomData,
        }
    }

    /// The items as the client encoded them, for code that passes them on without looking into them.
    pub fn into_values(mut self) -> impl Stream<Item = Result<Value, UploadError>> + Send {
        stream::poll_fn(move |cx| self.poll_value(cx))
    }

    fn poll_value(&mut self, cx: &mut TaskContext<'_>) -> Poll<Option<Result<Value, UploadError>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let outcome = match ready!(self.raw.poll_recv(cx)) {
            Some(UploadEvent::Item(value)) => return Poll::Ready(Some(Ok(value))),
            Some(UploadEvent::End(None)) => None,
            Some(UploadEvent::End(Some(text))) => Some(Err(UploadError::Client(text))),
            None => Some(Err(UploadError::ConnectionClosed)),
        };
        self.end();
        Poll::Ready(outcome)
    }

    fn end(&mut self) {
        self.ended = true;
        self.raw.close();
    }
}

impl<T: DeserializeOwned> Stream for Upload<T> {
    type Item = Result<T, UploadError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Option<Self::Item>> {
        let Some(item) = ready!(self.poll_value(cx)) else {
            return Poll::Ready(None);
        };
        let item = item.and_then(|value| Ok(value.decode()?));
        if item.is_err() {
            self.end();
        }
        Poll::Ready(Some(item))
    }
}

impl<T> fmt::Debug for Upload<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upload")
            .field("ended", &self.ended)
            .finish_non_exhaustive()
    }
}
