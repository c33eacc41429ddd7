//! Errors of test clients.

use std::error::Error;
use std::fmt::Display;
use std::mem::discriminant;
use std::time::Duration;

use super::client::Closed;
use crate::auth::AuthError;
use crate::protocol::{DecodeError, DecodeValueError, EncodeError, EncodeValueError};

/// The reason why a method of a [`TestClient`](super::TestClient) failed.
///
/// Two errors are equal when they are of the same kind and have the same text.
///
/// ```
/// use hubcast::testing::{HubTester, TestError};
/// use hubcast::{Context, Hub, HubError};
///
/// async fn divide(a: i64, b: i64) -> Result<i64, HubError> {
///     a.checked_div(b).ok_or_else(|| HubError::new("b is 0"))
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let hub = Hub::new("math")
///     .method("Divide", divide)
///     .method("Leave", async |context: Context| context.abort());
/// let tester = HubTester::new(hub).await?;
/// let mut client = tester.connect().await;
///
/// match client.invoke::<i64>("Divide", (1, 0)).await {
///     Err(TestError::Completion(text)) => assert!(text.ends_with("HubException: b is 0")),
///     other => panic!("{other:?}"),
/// }
/// let text = client.invoke::<String>("Divide", (4, 2)).await;
/// assert!(matches!(text, Err(TestError::Decode(_))), "it is a number");
///
/// client.send("Leave", ()).await?;
/// let gone = client.invoke::<i64>("Divide", (4, 2)).await;
/// assert!(matches!(gone, Err(TestError::Closed(_))));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TestError {
    /// The call was completed with an error: the text that the client gets.
    #[error("{0}")]
    Completion(String),
    /// The connection has ended.
    #[error("the connection has ended{}", after_colon(.0.error.as_deref()))]
    Closed(Closed),
    /// The server sent nothing within the [patience](super::TestClient::set_patience) of the client.
    #[error("nothing came within {0:?}")]
    TimedOut(Duration),
    /// The server did not call an expected target.
    #[error("{target:?} was not called, only {others:?}: {reason}")]
    NotCalled {
        /// The target that was expected.
        target: String,
        /// The targets of the calls that came in and were not taken yet.
        others: Vec<String>,
        /// The reason why the client waits no longer.
        reason: Box<TestError>,
    },
    /// An argument or an item can't be encoded.
    #[error("{}", with_source(.0))]
    Encode(#[from] EncodeValueError),
    /// A result or an item is not of the expected type.
    #[error("{}", with_source(.0))]
    Decode(#[from] DecodeValueError),
    /// A message to the server can't be written.
    #[error("{}", with_source(.0))]
    Write(#[from] EncodeError),
    /// The server sent something that is no message.
    #[error("{}", with_source(.0))]
    Read(#[from] DecodeError),
}

impl PartialEq for TestError {
    fn eq(&self, other: &Self) -> bool {
        discriminant(self) == discriminant(other) && self.to_string() == other.to_string()
    }
}

fn after_colon(reason: Option<impl Display>) -> String {
    reason.map_or_else(String::new, |reason| format!(": {reason}"))
}

fn with_source(error: &impl Error) -> String {
    format!("{error}{}", after_colon(error.source()))
}

/// A refusal before there is a connection, in the words that HTTP would answer with.
#[derive(Debug, thiserror::Error)]
pub(super) enum ClientRefusal {
    #[error("401: {0}")]
    Claims(#[from] AuthError),
    #[error("403: the hub does not admit this client")]
    NotAdmitted,
    #[error("400: the {part} of the header {name:?} can't be sent")]
    Header { part: &'static str, name: String },
}
