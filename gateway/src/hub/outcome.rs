//! Turns what methods return into results and items for their callers.

use futures_util::stream::{BoxStream, Stream, StreamExt};
use serde::Serialize;

use super::HubError;
use super::method::marker;
use crate::protocol::{EncodeValueError, Encoding, Value};

/// The return type of a hub method, and the item type of a streaming one: a value that serde serializes, a [`Value`]
/// that is encoded already, or a `Result` of one and an error that becomes a [`HubError`].
///
/// ```
/// use hubcast::protocol::{Encoding, Value};
/// use hubcast::{Hub, HubError};
///
/// async fn settings() -> Result<Value, HubError> {
///     let text = r#"{"theme":"dark"}"#; // from a file or a database
///     Ok(Value::from_json_text(text)?)
/// }
///
/// let hub = Hub::new("settings").method("Settings", settings).method("Version", async || (1, 2));
/// ```
pub trait IntoOutcome<M>: Send {
    /// Encodes the result as the caller's protocol wants it.
    ///
    /// # Errors
    /// The method's own error, or one that says that the result can't be encoded.
    fn into_outcome(self, encoding: Encoding) -> Result<Value, HubError>;
}

impl<T: Serialize + Send> IntoOutcome<marker::Plain> for T {
    fn into_outcome(self, encoding: Encoding) -> Result<Value, HubError> {
        Value::encode_as(&self, encoding).map_err(EncodeValueError::into)
    }
}

impl IntoOutcome<marker::Raw> for Value {
    fn into_outcome(self, _: Encoding) -> Result<Value, HubError> {
        Ok(self)
    }
}

impl<T, E, M> IntoOutcome<marker::Fallible<M>> for Result<T, E>
where
    T: IntoOutcome<M>,
    E: Into<HubError> + Send,
{
    fn into_outcome(self, encoding: Encoding) -> Result<Value, HubError> {
        self.map_err(Into::into)?.into_outcome(encoding)
    }
}

/// The items of a stream, encoded for the caller.
pub(crate) type ValueStream = BoxStream<'static, Result<Value, HubError>>;

/// The return type of a streaming hub method: a stream of [`IntoOutcome`] items, or a `Result` of such a stream.
///
/// ```
/// use futures_util::stream::{self, Stream};
/// use hubcast::testing::HubTester;
/// use hubcast::{Hub, HubError};
///
/// /// Fails before it begins, or after its last item.
/// async fn lines(count: usize) -> Result<impl Stream<Item = Result<String, HubError>>, HubError> {
///     if count == 0 {
///         return Err(HubError::new("no lines"));
///     }
///     let lines = (1..=count).map(|line| Ok(format!("line {line}")));
///     Ok(stream::iter(lines.chain([Err(HubError::new("torn off"))])))
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let tester = HubTester::new(Hub::new("files").stream("Lines", lines)).await?;
/// let mut client = tester.connect().await;
/// let call = client.begin_stream("Lines", (1,), &[]).await?;
/// assert_eq!(client.item::<String>(&call).await, Ok(Some("line 1".to_owned())));
/// assert!(client.item::<String>(&call).await.unwrap_err().to_string().ends_with("HubException: torn off"));
/// # Ok(())
/// # }
/// ```
pub trait IntoStream<M>: Send {
    /// Turns it into a stream of encoded items.
    ///
    /// # Errors
    /// The method's own error, before any item.
    fn into_values(self, encoding: Encoding)
    -> Result<BoxStream<'static, Result<Value, HubError>>, HubError>;
}

impl<S, M> IntoStream<(marker::Plain, M)> for S
where
    S: Stream + Send + 'static,
    S::Item: IntoOutcome<M>,
{
    fn into_values(self, encoding: Encoding) -> Result<ValueStream, HubError> {
        Ok(self.map(move |item| item.into_outcome(encoding)).boxed())
    }
}

impl<S, E, M> IntoStream<marker::Fallible<M>> for Result<S, E>
where
    S: IntoStream<M>,
    E: Into<HubError> + Send,
{
    fn into_values(self, encoding: Encoding) -> Result<ValueStream, HubError> {
        self.map_err(Into::into)?.into_values(encoding)
    }
}
