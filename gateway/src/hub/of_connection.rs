//! One connection of the whole cluster: asked about, and ended, wherever it is.

use hubcast_backplane::ConnectionId;

use super::HubHandle;
use crate::error::Error;

/// One connection, on whatever node it is: [`HubHandle::of_connection`].
///
/// ```
/// use hubcast::hub::Disconnected;
/// use hubcast::testing::HubTester;
/// use hubcast::Hub;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let tester = HubTester::new(Hub::new("chat")).await?;
/// let mut client = tester.connect_as("ann").await;
/// let connection = tester.hub().of_connection(client.id());
/// assert_eq!(connection.user().await?.as_deref(), Some("ann"));
///
/// assert!(connection.close(Some("Be polite.")).await?);
/// let closed = client.closed().await;
/// assert_eq!((closed.error.as_deref(), closed.allow_reconnect), (Some("Be polite."), false));
/// assert_eq!(closed.reason, Some(Disconnected::ByServer));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct OfConnection {
    pub(super) hub: HubHandle,
    /// `None` for an id that no connection has.
    pub(super) connection: Option<ConnectionId>,
}

impl OfConnection {
    /// Returns whether there is such a connection. One with stateful reconnect whose client may come back counts.
    ///
    /// # Errors
    /// A backplane that can't be reached.
    pub async fn exists(&self) -> Result<bool, Error> {
        let Some(connection) = &self.connection else {
            return Ok(false);
        };
        let hub = self.hub.runtime();
        let listing = hub.look_up(connection).await?;
        Ok(listing.is_some())
    }

    /// The connection's user, if it exists and has one.
    ///
    /// # Errors
    /// A backplane that can't be reached.
    pub async fn user(&self) -> Result<Option<String>, Error> {
        let Some(connection) = &self.connection else {
            return Ok(None);
        };
        let hub = self.hub.runtime();
        let listing = hub.look_up(connection).await?;
        Ok(listing
            .and_then(|listing| listing.user)
            .map(|user| user.to_string()))
    }

    /// The groups that the connection is in, in order; none where it does not exist.
    ///
    /// # Errors
    /// A backplane that can't be reached.
    pub async fn groups(&self) -> Result<Vec<String>, Error> {
        let Some(connection) = &self.connection else {
            return Ok(Vec::new());
        };
        let groups = self.hub.runtime().groups_of(connection).await?;
        Ok(groups.iter().map(ToString::to_string).collect())
    }

    /// Takes the connection out of all of its groups. What it watches it goes on watching.
    ///
    /// # Errors
    /// A backplane or node that can't be reached.
    pub async fn leave_all(&self) -> Result<(), Error> {
        match &self.connection {
            Some(connection) => self.hub.runtime().leave_all_groups(connection).await,
            None => Ok(()),
        }
    }

    /// Ends the connection. Its client gets `reason` as the error of the end, and does not reconnect by itself;
    /// [`Hub::on_disconnected`](crate::Hub::on_disconnected) is given
    /// [`Disconnected::ByServer`](crate::hub::Disconnected::ByServer). Answers whether there was such a connection.
    ///
    /// # Errors
    /// [`Error::ReasonTooLong`], or a backplane or node that can't be reached: the connection may live on, and the call
    /// may be repeated.
    pub async fn close(&self, reason: Option<&str>) -> Result<bool, Error> {
        match &self.connection {
            Some(connection) => self.hub.runtime().close_connection(connection, reason).await,
            None => Ok(false), // no connection has such an id
        }
    }
}
