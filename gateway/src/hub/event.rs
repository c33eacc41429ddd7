//! What clients can be called with, declared once.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Recipient, Recipients};
use crate::error::Error;

/// A message to clients: which of their methods it calls, with itself as the only argument.
///
/// ```
/// use hubcast::{Context, Event, Hub, HubError};
/// use serde::Serialize;
///
/// #[derive(Serialize)]
/// struct MessagePosted {
///     author: String,
///     text: String,
/// }
///
/// impl Event for MessagePosted {
///     const TARGET: &'static str = "MessagePosted";
/// }
///
/// async fn post(context: Context, author: String, text: String) -> Result<(), HubError> {
///     Ok(context.clients().all().emit(&MessagePosted { author, text }).await?)
/// }
///
/// let hub = Hub::new("chat").method("Post", post);
/// ```
pub trait Event: Serialize + Sync {
    /// The client's method.
    const TARGET: &'static str;
}

/// A question to one client: which of its methods it calls, with itself as the only argument, and what the answer is.
///
/// ```
/// use hubcast::{Context, Error, Question};
/// use serde::Serialize;
///
/// #[derive(Serialize)]
/// struct Confirm {
///     text: String,
/// }
///
/// impl Question for Confirm {
///     const TARGET: &'static str = "Confirm";
///     type Answer = bool;
/// }
///
/// async fn confirmed(context: &Context) -> Result<bool, Error> {
///     context.clients().caller().question(&Confirm { text: "Really?".to_owned() }).await
/// }
/// ```
pub trait Question: Serialize + Sync {
    /// The client's method.
    const TARGET: &'static str;
    /// What it returns.
    type Answer: DeserializeOwned + Send;
}

impl Recipients {
    /// Sends an event, as [`send`](Self::send).
    ///
    /// # Errors
    /// As for [`send`](Self::send).
    pub async fn emit<E: Event>(self, event: &E) -> Result<(), Error> {
        self.send(E::TARGET, (event,)).await
    }
}

impl Recipient {
    /// Sends an event, as [`send`](Self::send).
    ///
    /// # Errors
    /// As for [`Recipients::send`].
    pub async fn emit<E: Event>(self, event: &E) -> Result<(), Error> {
        self.send(E::TARGET, (event,)).await
    }

    /// Asks a question, as [`invoke`](Self::invoke).
    ///
    /// # Errors
    /// As for [`invoke`](Self::invoke).
    pub async fn question<Q: Question>(self, question: &Q) -> Result<Q::Answer, Error> {
        self.invoke(Q::TARGET, (question,)).await
    }
}
