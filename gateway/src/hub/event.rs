//! Typed calls of clients' methods, declared once.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Arguments, Recipient, Recipients};
use crate::error::Error;
use crate::protocol::{EncodeValueError, Value};

/// A message to clients, declared once: the method that it calls, and its arguments. All events and [`Question`]s of
/// an application together are the interface that its clients must implement.
///
/// An event is the only argument, unless [`arguments`](Self::arguments) says otherwise.
///
/// ```
/// use hubcast::hub::Event;
/// use hubcast::{Context, Hub, HubError};
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
///
/// For clients that expect several arguments, such as `connection.on("Moved", (x, y) => …)`:
///
/// ```
/// use hubcast::protocol::{EncodeValueError, Value};
/// use hubcast::hub::{Arguments, Event};
/// use hubcast::testing::HubTester;
/// use hubcast::Hub;
///
/// #[derive(serde::Serialize)]
/// struct Moved(f64, f64);
///
/// impl Event for Moved {
///     const TARGET: &'static str = "Moved";
///
///     fn arguments(&self) -> Result<Vec<Value>, EncodeValueError> {
///         (self.0, self.1).into_values()
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let tester = HubTester::new(Hub::new("board")).await?;
/// let mut client = tester.connect().await;
/// tester.hub().clients().all().emit(&Moved(1.0, 2.5)).await?;
/// assert_eq!(client.expect("Moved").await?.argument::<f64>(1), Some(2.5));
/// # Ok(())
/// # }
/// ```
pub trait Event: Serialize + Sync + Sized {
    /// The client's method.
    const TARGET: &'static str;

    /// Encodes the arguments.
    ///
    /// # Errors
    /// The serializer's error.
    fn arguments(&self) -> Result<Vec<Value>, EncodeValueError> {
        (self,).into_values()
    }
}

/// A question to one client, declared once: the method that it calls, its arguments, and the type of its client result.
///
/// ```
/// use hubcast::hub::Question;
/// use hubcast::{Context, Error};
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
pub trait Question: Serialize + Sync + Sized {
    /// The client's method.
    const TARGET: &'static str;
    /// The type of its client result.
    type Answer: DeserializeOwned + Send;

    /// Encodes the arguments, as [`Event::arguments`].
    ///
    /// # Errors
    /// The serializer's error.
    fn arguments(&self) -> Result<Vec<Value>, EncodeValueError> {
        (self,).into_values()
    }
}

/// Arguments that know themselves how they are encoded.
struct DeclaredArguments<F>(F);

impl<F: FnOnce() -> Result<Vec<Value>, EncodeValueError> + Send> Arguments for DeclaredArguments<F> {
    fn into_values(self) -> Result<Vec<Value>, EncodeValueError> {
        (self.0)()
    }
}

impl Recipients {
    /// Sends an event, as [`send`](Self::send).
    ///
    /// # Errors
    /// As for [`send`](Self::send).
    pub async fn emit<E: Event>(self, event: &E) -> Result<(), Error> {
        self.send(E::TARGET, DeclaredArguments(|| event.arguments()))
            .await
    }
}

impl Recipient {
    /// Sends an event, as [`send`](Self::send).
    ///
    /// # Errors
    /// As for [`Recipients::send`].
    pub async fn emit<E: Event>(self, event: &E) -> Result<(), Error> {
        self.send(E::TARGET, DeclaredArguments(|| event.arguments()))
            .await
    }

    /// ClientResults a question, as [`invoke`](Self::invoke).
    ///
    /// # Errors
    /// As for [`invoke`](Self::invoke).
    pub async fn question<Q: Question>(self, question: &Q) -> Result<Q::Answer, Error> {
        self.invoke(Q::TARGET, DeclaredArguments(|| question.arguments()))
            .await
    }
}
