//! Hubs: named sets of methods that clients call, and of clients that are called.

mod clients;
mod connection;
mod context;
mod dispatch;
mod error;
mod handle;
mod method;
mod runtime;
mod upload;

use std::collections::HashMap;
use std::fmt;

use hubcast_backplane::HubName;

use crate::error::Error;

pub use clients::{Arguments, CallerClients, Clients, Recipient, Recipients};
pub(crate) use connection::RequestInfo;
pub use connection::{Connection, Transport};
pub(crate) use context::Calls;
pub use context::Context;
pub(crate) use dispatch::{Dispatched, InvocationOutcome, dispatch, panic_text, stream_error};
pub use error::HubError;
pub use handle::{Groups, HubHandle};
pub use method::{
    BindError, Call, FromInvocation, Hook, HookOutcome, IntoOutcome, IntoStream, Method, StreamMethod, marker,
};
pub(crate) use method::{ErasedMethod, ErasedStream, ValueStream};
pub(crate) use runtime::{HubRuntime, Shared, guarded};
pub(crate) use upload::{RawUpload, UploadEvent};
pub use upload::{Upload, UploadError};

/// Why a connection ended, as told to [`Hub::on_disconnected`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Disconnected {
    /// The client said goodbye.
    ByClient,
    /// Hub code ended it.
    ByServer,
    /// The node was stopped.
    NodeStopped,
    /// The transport broke, or the client fell silent. Carries what was seen.
    Lost(String),
    /// The client broke a rule of the protocol or a limit. Carries which.
    Refused(String),
    /// The node that owned the connection died; this node speaks for it.
    NodeDied,
}

impl fmt::Display for Disconnected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ByClient => f.write_str("closed by the client"),
            Self::ByServer => f.write_str("closed by the server"),
            Self::NodeStopped => f.write_str("the node was stopped"),
            Self::Lost(what) | Self::Refused(what) => f.write_str(what),
            Self::NodeDied => f.write_str("the node died"),
        }
    }
}

/// A method of a hub, by how it answers.
pub(crate) enum Target {
    Plain(Box<dyn ErasedMethod>),
    Stream(Box<dyn ErasedStream>),
}

/// A hub under construction: plain async functions by the names that clients call them by.
///
/// ```
/// use hubcast::{Context, Hub, HubError};
///
/// async fn send_message(context: Context, user: String, text: String) -> Result<(), HubError> {
///     context.clients().all().send("ReceiveMessage", (user, text)).await?;
///     Ok(())
/// }
///
/// async fn add(a: i64, b: i64) -> i64 {
///     a + b
/// }
///
/// let hub = Hub::new("chat").method("SendMessage", send_message).method("Add", add);
/// ```
pub struct Hub {
    name: String,
    targets: HashMap<String, (String, Target)>,
    defined_twice: Option<String>,
    connected: Option<Box<dyn Hook>>,
    disconnected: Option<DisconnectedHook>,
}

type DisconnectedHook = Box<
    dyn Fn(Context, Disconnected) -> futures_util::future::BoxFuture<'static, Result<(), HubError>>
        + Send
        + Sync,
>;

impl Hub {
    /// A hub without methods. Names are ASCII letters, digits, `_`, `-` and `.`.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            targets: HashMap::new(),
            defined_twice: None,
            connected: None,
            disconnected: None,
        }
    }

    /// Adds a method. Clients call it by `name`, in any case.
    ///
    /// `method` is an async function of up to eight parameters. Each is taken from the invocation by its type: a
    /// [`Context`] anywhere, everything else that serde can deserialize from the next argument. It returns a value that
    /// serde can serialize, or a `Result` of one and [`HubError`].
    #[must_use]
    pub fn method<M>(self, name: impl Into<String>, method: impl Method<M>) -> Self
    where
        M: 'static,
    {
        self.target(name.into(), Target::Plain(method::erase(method)))
    }

    /// Adds a method that answers with a stream of items, for clients' `stream` calls.
    #[must_use]
    pub fn stream<M>(self, name: impl Into<String>, method: impl StreamMethod<M>) -> Self
    where
        M: 'static,
    {
        self.target(name.into(), Target::Stream(method::erase_stream(method)))
    }

    /// Runs after a client's handshake and before its first invocation. An error closes the connection.
    #[must_use]
    pub fn on_connected<H: Hook>(mut self, hook: H) -> Self {
        self.connected = Some(Box::new(hook));
        self
    }

    /// Runs once after a connection has ended, wherever it ended.
    #[must_use]
    pub fn on_disconnected<F, Fut, R>(mut self, hook: F) -> Self
    where
        F: Fn(Context, Disconnected) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = R> + Send + 'static,
        R: HookOutcome,
    {
        self.disconnected = Some(Box::new(move |context, reason| {
            let running = hook(context, reason);
            Box::pin(async move { running.await.into_outcome() })
        }));
        self
    }

    fn target(mut self, name: String, target: Target) -> Self {
        if let Some((earlier, _)) = self.targets.insert(name.to_lowercase(), (name, target)) {
            self.defined_twice.get_or_insert(earlier);
        }
        self
    }

    /// The name, checked.
    pub(crate) fn check(&self) -> Result<HubName, Error> {
        if let Some(name) = &self.defined_twice {
            return Err(Error::DefinedTwice {
                kind: "method",
                name: name.clone(),
            });
        }
        Ok(HubName::parse(&self.name)?)
    }

    /// The method that a client means, with its name as defined.
    pub(crate) fn find(&self, target: &str) -> Option<&(String, Target)> {
        self.targets.get(&target.to_lowercase())
    }

    pub(crate) fn connected(&self) -> Option<&dyn Hook> {
        self.connected.as_deref()
    }

    pub(crate) fn disconnected(&self) -> Option<&DisconnectedHook> {
        self.disconnected.as_ref()
    }
}

impl fmt::Debug for Hub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hub")
            .field("name", &self.name)
            .field("methods", &self.targets.len())
            .finish_non_exhaustive()
    }
}
