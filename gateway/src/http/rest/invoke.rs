//! A client's method, called for its result.

use axum::body::Body;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use hubcast_backplane::ConnectionId;

use super::body::{self, Media};
use super::call::Call;
use super::error::{NO_CONNECTION, Refusal};
use crate::error::Error;
use crate::protocol::Encoding;

pub(super) async fn invoke(call: &Call<'_>, body: Body) -> Result<Response, Refusal> {
    let media = Media::of(call.headers(), &[Media::Json, Media::MessagePack])?;
    let message = body::message(media, call.read(body).await?)?;
    let Ok(connection) = ConnectionId::parse(call.connection()?) else {
        return Err(Refusal::absent(NO_CONNECTION)); // no connection has such an id
    };
    let hub = call.hub().runtime();
    let patience = hub.options().timeouts.client_result;
    let result = hub
        .ask(&connection, &message.target, message.arguments, patience)
        .await?;
    let result = result
        .transcode(Encoding::Json)
        .map_err(|source| Error::Transcode {
            target: message.target,
            source,
        })?;
    let answer = [b"{\"result\":", result.bytes().as_ref(), b"}"].concat();
    let json = [(header::CONTENT_TYPE, "application/json")];
    Ok((call.success(), json, answer).into_response())
}
