//! Permissions of single connections, given and taken while they live.

use axum::response::Response;
use hubcast_backplane::{ConnectionId, GroupName};

use super::call::Call;
use super::error::{NO_CONNECTION, NO_PERMISSION, Refusal};
use crate::auth::{PermissionRequest, TooManyGrants, Wish};
use crate::hub::Permitted;

/// Gives or takes a permission, or says whether a connection has it.
pub(super) async fn answer(call: &Call<'_>, wish: Wish) -> Result<Response, Refusal> {
    let group = call.text("targetName").filter(|name| !name.is_empty());
    let request = PermissionRequest {
        permission: call.permission()?,
        group: group
            .map(|name| GroupName::parse(name).map(|name| name.to_string()))
            .transpose()?,
        wish,
    };
    let permitted = match ConnectionId::parse(call.connection()?) {
        Ok(connection) => call.hub().runtime().permit(&connection, &request).await?,
        Err(_) => Permitted::Unknown, // no connection has such an id
    };
    match (permitted, wish) {
        (Permitted::Yes, _) | (Permitted::Unknown, Wish::Revoke) => Ok(call.done()),
        (Permitted::No, _) => Err(Refusal::absent(NO_PERMISSION)),
        (Permitted::Unknown, _) => Err(Refusal::absent(NO_CONNECTION)),
        (Permitted::TooMany, _) => Err(Refusal::too_many_grants(TooManyGrants)),
    }
}
