//! The identity of a connection's client, read and changed by back ends, whichever node has the connection.

use std::sync::Arc;

use hubcast_backplane::ConnectionId;

use super::HubRuntime;
use crate::auth::Identity;
use crate::error::Error;
use crate::session::{Ownership, connection_of, watch_expiry};

impl HubRuntime {
    /// The identity of a connection's client; `None` where there is no such connection.
    pub(crate) async fn identity_of(
        self: &Arc<Self>,
        connection: &ConnectionId,
    ) -> Result<Option<Identity>, Error> {
        if let Some(session) = self.registry().find(connection) {
            return Ok(Some((*session.connection().identity()).clone()));
        }
        let Some(listing) = self.look_up(connection).await? else {
            return Ok(None);
        };
        if let Some(owner) = &listing.owner {
            return Ok(self.shared().peers().identity(self, owner, connection).await?);
        }
        let record = listing.to_record(connection.clone());
        Ok(Some((*connection_of(&record).identity()).clone()))
    }

    /// Gives a connection's client another identity of the same user, where a node has the connection at this moment.
    pub(crate) async fn reidentify(
        self: &Arc<Self>,
        connection: &ConnectionId,
        identity: &Identity,
    ) -> Result<Ownership, Error> {
        if let Some(session) = self.registry().find(connection) {
            let renewed = session.renew(identity).await?;
            watch_expiry(&session);
            return Ok(renewed);
        }
        let listing = self.look_up(connection).await?;
        let Some(owner) = listing.and_then(|listing| listing.owner) else {
            return Ok(Ownership::Lost);
        };
        let peers = self.shared().peers();
        Ok(peers.reidentify(self, &owner, connection, identity).await?)
    }
}
