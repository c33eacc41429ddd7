//! Code that decides about a client before its connection is accepted.

use std::sync::Arc;

use axum::http::StatusCode;
use futures_util::future::BoxFuture;

use hubcast_backplane::GroupName;

use super::{Connection, Context, HubRuntime};

/// A client that waits at the door.
pub(crate) struct Connecting {
    /// The connection that it would have.
    pub(crate) connection: Connection,
    /// The WebSocket subprotocols that it offers.
    pub(crate) subprotocols: Vec<String>,
}

/// A client that may come in.
pub(crate) struct Accepted {
    /// The connection, perhaps as another user and with other roles.
    pub(crate) connection: Connection,
    /// The subprotocol to agree on, one of those that the client offers; `None` leaves the choice to the gateway.
    pub(crate) subprotocol: Option<String>,
}

/// A client that is not let in, with the answer to its request.
pub(crate) struct TurnedAway {
    pub(crate) status: StatusCode,
    pub(crate) text: String,
}

/// Code that is told which groups connections join and leave.
pub(crate) type GroupHook = Box<dyn Fn(Context, &GroupName, bool) + Send + Sync>;

/// Decides about clients.
pub(crate) trait ConnectHandler: Send + Sync {
    /// Returns whether it decides at present. Then clients are refused that can't wait for it.
    fn is_asked(&self) -> bool;

    /// Decides about one client.
    fn connect(
        &self,
        hub: Arc<HubRuntime>,
        connecting: Connecting,
    ) -> BoxFuture<'static, Result<Accepted, TurnedAway>>;
}

/// The work that is due if a connection that code has let in never enters. It is among the connection's data until then.
pub(crate) struct Owed(Option<Box<dyn FnOnce() + Send>>);

impl Owed {
    pub(crate) fn new(tell: impl FnOnce() + Send + 'static) -> Self {
        Self(Some(Box::new(tell)))
    }

    pub(crate) fn settle(mut self) {
        self.0 = None;
    }
}

impl Drop for Owed {
    fn drop(&mut self) {
        if let Some(tell) = self.0.take() {
            tell();
        }
    }
}
