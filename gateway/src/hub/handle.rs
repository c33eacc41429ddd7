//! A hub from outside of its methods: background tasks, other parts of the application.

use std::fmt;
use std::sync::Arc;

use hubcast_backplane::{ConnectionId, GroupName};

use super::{Clients, HubRuntime};
use crate::error::Error;

/// A hub of a running gateway. Cheap to clone.
#[derive(Clone)]
pub struct HubHandle {
    hub: Arc<HubRuntime>,
}

impl HubHandle {
    pub(crate) fn new(hub: Arc<HubRuntime>) -> Self {
        Self { hub }
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

    /// Changes who is in which group.
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

/// Group membership of any connection of the hub, on whatever node it is.
#[derive(Clone, Debug)]
pub struct Groups {
    hub: HubHandle,
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
        let group = GroupName::parse(group)?;
        match ConnectionId::parse(connection) {
            Ok(connection) => self.hub.runtime().change_group(&connection, &group, join).await,
            Err(_) => Ok(()), // no connection has such an id
        }
    }
}
