//! Users, and the groups that their connections are in.

use std::time::Duration;

use axum::response::Response;

use super::call::Call;
use super::error::{NO_USER, NOT_IN_GROUP, Refusal};

pub(super) async fn exists(call: &Call<'_>) -> Result<Response, Refusal> {
    if call.hub().of_user(call.user()?).exists().await? {
        Ok(call.done())
    } else {
        Err(Refusal::absent(NO_USER))
    }
}

pub(super) async fn close(call: &Call<'_>) -> Result<Response, Refusal> {
    let user = call.hub().of_user(call.user()?);
    user.close_all(call.reason(), call.excluded()).await?;
    Ok(call.done())
}

pub(super) async fn is_in(call: &Call<'_>) -> Result<Response, Refusal> {
    if call.hub().of_user(call.user()?).is_in(call.group()?).await? {
        Ok(call.done())
    } else {
        Err(Refusal::absent(NOT_IN_GROUP))
    }
}

pub(super) async fn join(call: &Call<'_>) -> Result<Response, Refusal> {
    let user = call.hub().of_user(call.user()?);
    let group = call.group()?;
    if !call.is_web_pubsub() {
        user.join(group, call.ttl()?).await?;
    } else if user.exists().await? {
        user.join(group, Some(Duration::ZERO)).await?; // there connections that come later don't join
    } else {
        return Err(Refusal::absent(NO_USER));
    }
    Ok(call.done())
}

pub(super) async fn leave(call: &Call<'_>) -> Result<Response, Refusal> {
    call.hub().of_user(call.user()?).leave(call.group()?).await?;
    Ok(call.done())
}

pub(super) async fn leave_all(call: &Call<'_>) -> Result<Response, Refusal> {
    call.hub().of_user(call.user()?).leave_all().await?;
    Ok(call.done())
}
