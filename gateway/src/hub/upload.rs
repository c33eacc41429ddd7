//! Streams that a client sends to a method.

use std::fmt;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context as TaskContext, Poll};

use futures_util::stream::Stream;
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;

use crate::protocol::{DecodeValueError, Value};

/// A parameter of a hub method: the items that the client streams to it.
///
/// The client takes it out of the call's arguments and sends the items by themselves; an official client does so for
/// every argument that is a `Subject`. Items wait in a queue of `hubs.stream_buffer` items, and while that is full the
/// connection is not read. Dropping it tells nobody anything: what still comes is ignored.
///
/// ```
/// use futures_util::StreamExt;
/// use hubcast::{Hub, HubError, Upload};
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

/// Why an upload ended early.
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

/// What comes in for an upload.
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

    fn end(&mut self) {
        self.ended = true;
        self.raw.close();
    }
}

impl<T: DeserializeOwned> Stream for Upload<T> {
    type Item = Result<T, UploadError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Option<Self::Item>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let Poll::Ready(event) = self.raw.poll_recv(cx) else {
            return Poll::Pending;
        };
        let outcome = match event {
            Some(UploadEvent::Item(value)) => match value.decode() {
                Ok(item) => return Poll::Ready(Some(Ok(item))),
                Err(error) => Some(Err(error.into())),
            },
            Some(UploadEvent::End(None)) => None,
            Some(UploadEvent::End(Some(text))) => Some(Err(UploadError::Client(text))),
            None => Some(Err(UploadError::ConnectionClosed)),
        };
        self.end();
        Poll::Ready(outcome)
    }
}

impl<T> fmt::Debug for Upload<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upload")
            .field("ended", &self.ended)
            .finish_non_exhaustive()
    }
}
