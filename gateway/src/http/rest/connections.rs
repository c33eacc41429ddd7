//! Single connections, and all of them.

use axum::response::Response;

use super::call::Call;
use super::error::{NO_CONNECTION, Refusal};

pub(super) async fn exists(call: &Call<'_>) -> Result<Response, Refusal> {
    if call.hub().of_connection(call.connection()?).exists().await? {
        Ok(call.done())
    } else {
        Err(Refusal::absent(NO_CONNECTION))
    }
}

/// Closes one. One that is not there is closed already.
pub(super) async fn close(call: &Call<'_>) -> Result<Response, Refusal> {
    let connection = call.hub().of_connection(call.connection()?);
    connection.close(call.reason()).await?;
    Ok(call.done())
}

pub(super) async fn leave_all(call: &Call<'_>) -> Result<Response, Refusal> {
    let connection = call.hub().of_connection(call.connection()?);
    connection.leave_all().await?;
    Ok(call.done())
}

pub(super) async fn close_all(call: &Call<'_>) -> Result<Response, Refusal> {
    call.hub().close_all(call.reason(), call.excluded()).await?;
    Ok(call.done())
}
