//! Errors of hub code, and what clients see of them.

use std::any::Any;
use std::error::Error as StdError;
use std::fmt;

use super::UploadError;
use crate::error::Error;

/// The reason why a hub method failed.
///
/// [`HubError::new`] makes one whose text the client sees. Any other error becomes one by `?`; its text stays on the
/// server unless `hubs.detailed_errors` is on. Of this library's [`Error`] clients see the useful part, such as
/// that a name can't be used.
///
/// ```
/// use hubcast::testing::{HubTester, TestError};
/// use hubcast::{Hub, HubError};
///
/// async fn read(name: String) -> Result<String, HubError> {
///     if name.contains('/') {
///         return Err(HubError::new("a name has no slash"));
///     }
///     Ok(std::fs::read_to_string(format!("/nowhere/{name}"))?)
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let tester = HubTester::new(Hub::new("files").method("Read", read)).await?;
/// let mut client = tester.connect().await;
/// let base = "An unexpected error occurred invoking 'Read' on the server.";
/// let seen = client.invoke::<String>("Read", ("a/b",)).await;
/// assert_eq!(seen, Err(TestError::Completion(format!("{base} HubException: a name has no slash"))));
/// let hidden = client.invoke::<String>("Read", ("a",)).await;
/// assert_eq!(hidden, Err(TestError::Completion(base.to_owned())));
/// # Ok(())
/// # }
/// ```
pub struct HubError {
    kind: ErrorKind,
}

enum ErrorKind {
    Visible(String),
    /// All that the client sees.
    Whole(String),
    /// The backplane could not be reached; with a text for the client.
    Unreachable(String),
    Hidden {
        name: &'static str,
        source: Box<dyn StdError + Send + Sync>,
    },
}

impl HubError {
    /// An error whose text is meant for the client.
    pub fn new(text: impl Into<String>) -> Self {
        Self {
            kind: ErrorKind::Visible(text.into()),
        }
    }

    /// An error whose text is all that the client sees, without the words about the method that failed. For answers that
    /// come from elsewhere whole, such as another server's.
    ///
    /// ```
    /// use hubcast::testing::{HubTester, TestError};
    /// use hubcast::{Hub, HubError};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// async fn relay() -> Result<(), HubError> {
    ///     Err(HubError::whole("Invocation failed, status code 502"))
    /// }
    ///
    /// let tester = HubTester::new(Hub::new("relay").method("Relay", relay)).await?;
    /// let mut client = tester.connect().await;
    /// let seen = client.invoke::<()>("Relay", ()).await;
    /// assert_eq!(seen, Err(TestError::Completion("Invocation failed, status code 502".to_owned())));
    /// # Ok(())
    /// # }
    /// ```
    pub fn whole(text: impl Into<String>) -> Self {
        Self {
            kind: ErrorKind::Whole(text.into()),
        }
    }

    /// The reference's text for a method that a hub does not have.
    pub(crate) fn no_such_method(name: &str) -> String {
        format!(
            "Failed to invoke '{name}' due to an error on the server. HubException: Method does not exist."
        )
    }

    /// The text, where it is all that the client sees.
    pub(crate) fn whole_text(&self) -> Option<&str> {
        match &self.kind {
            ErrorKind::Whole(text) => Some(text),
            _ => None,
        }
    }

    /// The text added to a base text for the client: the reference names the exception's class and its message when the
    /// exception is a `HubException` or detailed errors are on.
    pub(crate) fn client_suffix(&self, detailed: bool) -> Option<String> {
        match &self.kind {
            ErrorKind::Visible(text) | ErrorKind::Whole(text) | ErrorKind::Unreachable(text) => {
                Some(format!(" HubException: {text}"))
            }
            ErrorKind::Hidden { name, source } => detailed.then(|| format!(" {name}: {source}")),
        }
    }

    /// Returns whether the method failed because the backplane could not be reached.
    pub(crate) fn is_unreachable(&self) -> bool {
        matches!(self.kind, ErrorKind::Unreachable(_))
    }

    /// Returns whether the error is the client's fault, or meant for it: operators need not look at it.
    pub(crate) fn is_theirs(&self) -> bool {
        match &self.kind {
            ErrorKind::Visible(_) | ErrorKind::Whole(_) => true,
            ErrorKind::Unreachable(_) => false,
            ErrorKind::Hidden { source, .. } => source.is::<UploadError>(),
        }
    }
}

impl<E: StdError + Send + Sync + 'static> From<E> for HubError {
    fn from(error: E) -> Self {
        match (&error as &dyn Any).downcast_ref() {
            Some(UploadError::Client(text)) => return Self::new(text), // the client's own words
            Some(UploadError::Item(_)) => return Self::new("Failed to bind Stream message."), // the reference's
            _ => {}
        }
        let known = (&error as &dyn Any).downcast_ref::<Error>();
        if let Some((known, text)) = known.and_then(|known| Some((known, known.client_text()?))) {
            let unreachable = matches!(known, Error::Backplane(_));
            let kind = if unreachable {
                ErrorKind::Unreachable(text)
            } else {
                ErrorKind::Visible(text)
            };
            return Self { kind };
        }
        let name = std::any::type_name::<E>();
        let name = name.rsplit("::").next().unwrap_or(name);
        Self {
            kind: ErrorKind::Hidden {
                name,
                source: Box::new(error),
            },
        }
    }
}

impl fmt::Display for HubError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            ErrorKind::Visible(text) | ErrorKind::Whole(text) | ErrorKind::Unreachable(text) => {
                f.write_str(text)
            }
            ErrorKind::Hidden { source, .. } => source.fmt(f),
        }
    }
}

impl fmt::Debug for HubError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            ErrorKind::Visible(text) | ErrorKind::Whole(text) | ErrorKind::Unreachable(text) => {
                f.debug_tuple("HubError").field(text).finish()
            }
            ErrorKind::Hidden { source, .. } => f.debug_tuple("HubError").field(source).finish(),
        }
    }
}
