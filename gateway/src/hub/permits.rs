//! Permissions that back ends give and take while a connection lives, wherever it is.
//!
//! They are a part of the connection's identity, which its owner holds, and of the state with which another node goes on
//! with it. So a refreshed token, a lost socket and another node leave them as they are.

use std::sync::Arc;

use hubcast_backplane::{BackplaneError, ConnectionId, Listing};

use super::{Connection, HubRuntime};
use crate::auth::{PermissionRequest, Wish};
use crate::error::Error;
use crate::session::{Ownership, Session, connection_of, state_of};

/// How often is looked for a connection that moves, and how often a parked one is changed that others change, too.
const ATTEMPTS: usize = 4;

/// The outcome of a request about a permission.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Permitted {
    /// It was given or taken, or the connection has it.
    Yes,
    /// The connection does not have it.
    No,
    /// It was given or taken by name too often.
    TooMany,
    /// There is no such connection.
    Unknown,
}

/// Changes a connection's identity here.
fn apply(connection: &Connection, request: &PermissionRequest) -> Permitted {
    let (permission, group) = (request.permission, request.group.as_deref());
    let give = match request.wish {
        Wish::Grant => true,
        Wish::Revoke => false,
        Wish::Check if connection.identity().has_permission(permission, group) => return Permitted::Yes,
        Wish::Check => return Permitted::No,
    };
    match connection.permit(permission, group, give) {
        Ok(()) => Permitted::Yes,
        Err(_) => Permitted::TooMany,
    }
}

impl Session {
    /// Gives or takes a permission, also for the nodes that the connection may move to, or says whether it has it.
    pub(crate) async fn permit(&self, request: &PermissionRequest) -> Result<Permitted, BackplaneError> {
        if self.closing().is_cancelled() {
            return Ok(Permitted::Unknown);
        }
        let permitted = apply(self.connection(), request);
        if request.wish == Wish::Check || permitted != Permitted::Yes {
            return Ok(permitted);
        }
        Ok(match self.write_state().await? {
            Ownership::Kept => permitted,
            Ownership::Lost => Permitted::Unknown, // it has just moved
        })
    }
}

impl HubRuntime {
    /// Gives or takes a permission of a connection, or says whether it has it, wherever it is.
    pub(crate) async fn permit(
        self: &Arc<Self>,
        connection: &ConnectionId,
        request: &PermissionRequest,
    ) -> Result<Permitted, Error> {
        for _ in 0..ATTEMPTS {
            if let Some(session) = self.registry().find(connection) {
                match session.permit(request).await? {
                    Permitted::Unknown => {} // it moves, or ends
                    permitted => return Ok(permitted),
                }
            }
            let Some(listing) = self.look_up(connection).await? else {
                return Ok(Permitted::Unknown);
            };
            let permitted = match &listing.owner {
                Some(owner) if owner == self.shared().backplane().node() => {
                    match self.find_settled(connection).await {
                        Some(session) => session.permit(request).await?,
                        None => Permitted::Unknown,
                    }
                }
                Some(owner) => {
                    self.shared()
                        .peers()
                        .permit(self, owner, connection, request)
                        .await?
                }
                None => self.permit_parked(connection, listing, request).await?,
            };
            if permitted != Permitted::Unknown {
                return Ok(permitted);
            }
        }
        Ok(Permitted::Unknown)
    }

    /// The same for a connection that no node owns at this moment.
    async fn permit_parked(
        &self,
        connection: &ConnectionId,
        listing: Listing,
        request: &PermissionRequest,
    ) -> Result<Permitted, Error> {
        let Some(former) = listing.state.clone() else {
            return Ok(Permitted::Unknown);
        };
        let record = listing.to_record(connection.clone());
        let parked = connection_of(&record);
        let permitted = apply(&parked, request);
        let Some(protocol) = parked.protocol().filter(|_| permitted == Permitted::Yes) else {
            return Ok(permitted);
        };
        if request.wish == Wish::Check {
            return Ok(permitted);
        }
        let state = state_of(&parked, protocol);
        let backplane = self.backplane();
        let restating = backplane.restate_parked(connection, listing.version, former, state);
        Ok(if restating.await? {
            permitted
        } else {
            Permitted::Unknown // it was changed meanwhile
        })
    }
}
