//! The context of a call, for the hub method.

use std::fmt;
use std::sync::Arc;

use hubcast_backplane::{ConnectionId, GroupName, UserId};
use tokio_util::sync::CancellationToken;

use super::{CallerClients, Connection, HubHandle, HubRuntime};
use crate::error::Error;
use crate::protocol::Headers;
use crate::session::{CloseReason, Slots};

/// The connection that calls, its hub, and the way to its other clients. Cheap to clone, and good for as long as it is
/// kept: after the connection has ended, messages to it reach no client.
///
/// ```
/// use hubcast::{Context, Hub, HubError};
///
/// async fn enter(context: Context, room: String) -> Result<usize, HubError> {
///     context.join(&room).await?;
///     let name = context.user().map_or("somebody", |user| user.as_str());
///     context.clients().others_in_group(&room).send("Entered", (name,)).await?;
///     context.clients().caller().send("Welcome", (&room, context.connection_id().as_str())).await?;
///     Ok(context.groups().len())
/// }
///
/// let hub = Hub::new("rooms").method("Enter", enter);
/// ```
#[derive(Clone)]
pub struct Context {
    hub: Arc<HubRuntime>,
    connection: Arc<Connection>,
    cancelled: CancellationToken,
    headers: Arc<Headers>,
    calls: Calls,
}

impl Context {
    pub(crate) fn new(
        hub: Arc<HubRuntime>,
        connection: Arc<Connection>,
        cancelled: CancellationToken,
    ) -> Self {
        Self {
            hub,
            connection,
            cancelled,
            headers: Arc::default(),
            calls: Calls::default(),
        }
    }

    /// The context of the hook that runs before the connection is read: no client result can come in.
    pub(crate) fn connecting(mut self) -> Self {
        self.calls.connecting = true;
        self
    }

    pub(crate) fn with_invocation(
        mut self,
        headers: Headers,
        cancelled: CancellationToken,
        slots: Option<Arc<Slots>>,
    ) -> Self {
        if !headers.is_empty() {
            self.headers = Arc::new(headers);
        }
        self.cancelled = cancelled;
        self.calls.slots = slots;
        self
    }

    /// The id of the calling connection.
    #[must_use]
    pub fn connection_id(&self) -> &ConnectionId {
        self.connection.id()
    }

    /// The calling connection.
    #[must_use]
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// The calling user, if the client has shown a token that names one.
    #[must_use]
    pub fn user(&self) -> Option<&UserId> {
        self.connection.user()
    }

    /// The headers of this invocation.
    #[must_use]
    pub fn invocation_headers(&self) -> &Headers {
        &self.headers
    }

    /// Ends when no client waits for this call any more: its client has cancelled the invocation or the stream, or the
    /// connection has ended. A method that works for long should check it. In a hook it ends with the connection.
    ///
    /// Only a stream is interrupted by itself: it is dropped at once. A plain method runs on, and the client
    /// gets its completion when it returns, whatever it returns.
    ///
    /// A client's wish is read like its other messages, in their order: while all of the connection's
    /// `hubs.parallel_invocations` run (one, unless the hub is set otherwise) the connection is not read, and the wish
    /// waits after the call that it cancels. It arrives when more are allowed, when the method requests a client
    /// result, and when it takes uploads. A connection's end is noticed no sooner, unless writing to it fails.
    ///
    /// ```
    /// use std::time::Duration;
    /// use hubcast::{Context, Hub, HubError};
    ///
    /// async fn render(context: Context, pages: u32) -> Result<u32, HubError> {
    ///     for page in 0..pages {
    ///         tokio::select! {
    ///             () = context.cancelled().cancelled() => return Err(HubError::new("cancelled")),
    ///             () = tokio::time::sleep(Duration::from_millis(20)) => {} // one page of work
    ///         }
    ///         context.clients().caller().send("Rendered", (page,)).await?;
    ///     }
    ///     Ok(pages)
    /// }
    ///
    /// let hub = Hub::new("print")
    ///     .configure(|settings| settings.hubs.parallel_invocations = 4)
    ///     .method("Render", render);
    /// ```
    #[must_use]
    pub fn cancelled(&self) -> &CancellationToken {
        &self.cancelled
    }

    /// The hub, also for use after the call.
    #[must_use]
    pub fn hub(&self) -> HubHandle {
        HubHandle::of_caller(Arc::clone(&self.hub), Arc::clone(&self.connection))
    }

    /// The id of the node that serves the call.
    #[must_use]
    pub fn node(&self) -> &str {
        self.hub.shared().backplane().node().as_str()
    }

    /// Chooses clients to call.
    #[must_use]
    pub fn clients(&self) -> CallerClients {
        CallerClients::new(self.hub(), self.connection.id().clone(), self.calls.clone())
    }

    /// Something that the hub was given with [`Hub::state`](crate::Hub::state).
    #[must_use]
    pub fn state<T: Send + Sync + 'static>(&self) -> Option<Arc<T>> {
        self.hub.hub().states().get()
    }

    /// The groups that the calling connection is in, in no order.
    #[must_use]
    pub fn groups(&self) -> Vec<GroupName> {
        self.hub
            .registry()
            .find(self.connection.id())
            .map(|session| session.groups())
            .unwrap_or_default()
    }

    /// Puts the calling connection into a group. When this returns, messages sent to the group reach it.
    ///
    /// # Errors
    /// [`Error`] for a name that can't be used, one group too many, or a backplane that can't be reached.
    pub async fn join(&self, group: impl AsRef<str> + Send) -> Result<(), Error> {
        self.hub()
            .groups()
            .add(self.connection_id().as_str(), group)
            .await
    }

    /// Takes the calling connection out of a group.
    ///
    /// # Errors
    /// [`Error`] for a name that can't be used or a backplane that can't be reached.
    pub async fn leave(&self, group: impl AsRef<str> + Send) -> Result<(), Error> {
        self.hub()
            .groups()
            .remove(self.connection_id().as_str(), group)
            .await
    }

    /// Ends the calling connection, also when it has moved to another node meanwhile. The client does not reconnect by
    /// itself. See [`OfConnection::close`](crate::hub::OfConnection::close) to give it a reason, and to know that it was
    /// closed.
    pub fn abort(&self) {
        let session = self.hub.registry().find(self.connection.id());
        if let Some(session) = session.filter(|session| Arc::ptr_eq(session.connection(), &self.connection)) {
            session.close(CloseReason::Aborted);
            if !session.has_moved() {
                return;
            }
        }
        let (hub, id) = (Arc::clone(&self.hub), self.connection.id().clone());
        self.hub.shared().tasks().spawn(async move {
            if let Err(error) = hub.close_connection(&id, None).await {
                tracing::warn!(hub = %hub.name(), connection_id = %id, %error, "a connection could not be aborted");
            }
        });
    }
}

/// The data that a call needs to request a client result.
#[derive(Clone, Debug, Default)]
pub(crate) struct Calls {
    /// The slot of the method that requests it, which is lent while it waits.
    pub(crate) slots: Option<Arc<Slots>>,
    /// True if the caller's messages are not read yet.
    pub(crate) connecting: bool,
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context")
            .field("connection", &self.connection)
            .finish_non_exhaustive()
    }
}
