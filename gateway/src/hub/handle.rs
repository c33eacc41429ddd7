//! A hub from outside of its methods: background tasks, other parts of the application.

use std::fmt;
use std::sync::Arc;

use hubcast_backplane::{ConnectionId, GroupName};

use super::{Clients, Connection, HubRuntime};
use crate::error::Error;

/// A hub of a running gateway, for background tasks and other parts of an application. Cheap to clone.
///
/// ```
/// use hubcast::hub::HubHandle;
/// use hubcast::{Gateway, Hub};
///
/// async fn tick(clock: HubHandle) -> Result<(), hubcast::Error> {
///     for second in 0..3 {
///         clock.clients().all().send("Tick", (second,)).await?;
///     }
///     Ok(())
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let gateway = Gateway::builder().hub(Hub::new("clock")).build().await?;
/// let clock = gateway.hub("clock")?;
/// assert_eq!((clock.name(), clock.local_connections()), ("clock", 0));
/// tokio::spawn(tick(clock)).await??;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct HubHandle {
    hub: Arc<HubRuntime>,
    /// The connection for whose call it speaks.
    caller: Option<Arc<Connection>>,
}

impl HubHandle {
    pub(crate) fn new(hub: Arc<HubRuntime>) -> Self {
        Self { hub, caller: None }
    }

    /// A handle for a call of this connection: its result comes after messages that are sent with this.
    pub(crate) fn of_caller(hub: Arc<HubRuntime>, caller: Arc<Connection>) -> Self {
        let caller = Some(caller);
        Self { hub, caller }
    }

    pub(crate) fn caller(&self) -> Option<&Connection> {
        self.caller.as_deref()
    }

    pub(crate) fn runtime(&self) -> &Arc<HubRuntime> {
        &self.hub
    }

    /// The hub's name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.hub.name().as_str()
    }

    /// Chooses clients to call, on whatever node they are.
    #[must_use]
    pub fn clients(&self) -> Clients {
        Clients::new(self.clone())
    }

    /// Changes the members of groups.
    #[must_use]
    pub fn groups(&self) -> Groups {
        Groups { hub: self.clone() }
    }

    /// Connections of this hub on this node.
    #[must_use]
    pub fn local_connections(&self) -> usize {
        self.hub.registry().len()
    }
}

impl fmt::Debug for HubHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HubHandle")
            .field("name", &self.name())
            .finish_non_exhaustive()
    }
}

/// Group membership of any connection of the hub, on whatever node it is. Membership ends with the connection.
///
/// ```
/// use hubcast::testing::HubTester;
/// use hubcast::Hub;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let tester = HubTester::new(Hub::new("games")).await?;
/// let client = tester.connect().await;
/// let groups = tester.hub().groups();
/// groups.add(client.id(), "chess").await?;
/// assert_eq!(client.groups(), ["chess"]);
/// groups.remove(client.id(), "chess").await?;
/// groups.add("a connection that is gone", "chess").await?; // changes nothing
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Groups {
    pub(super) hub: HubHandle,
}

impl Groups {
    /// Puts a connection into a group. When this returns, messages sent to the group reach it. A connection that does
    /// not exist is ignored.
    ///
    /// # Errors
    /// [`Error`] for a group name that can't be used, one group too many, or a backplane that can't be reached.
    pub async fn add(&self, connection: &str, group: impl AsRef<str> + Send) -> Result<(), Error> {
        self.change(connection, group.as_ref(), true).await
    }

    /// Takes a connection out of a group.
    ///
    /// # Errors
    /// [`Error`] for a group name that can't be used or a backplane that can't be reached.
    pub async fn remove(&self, connection: &str, group: impl AsRef<str> + Send) -> Result<(), Error> {
        self.change(connection, group.as_ref(), false).await
    }

    async fn change(&self, connection: &str, group: &str, join: bool) -> Result<(), Error> {
        self.change_named(connection, &GroupName::parse(group)?, join)
            .await
    }

    pub(super) async fn change_named(
        &self,
        connection: &str,
        group: &GroupName,
        join: bool,
    ) -> Result<(), Error> {
        match ConnectionId::parse(connection) {
            Ok(connection) => self.hub.runtime().change_group(&connection, group, join).await,
            Err(_) => Ok(()), // no connection has such an id
        }
    }
}
