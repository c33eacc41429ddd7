//! Streams to single clients: a back end answers a stream that a client has open, item by item.

use axum::body::Body;
use axum::response::Response;
use hubcast_backplane::{ConnectionId, wire::StreamPart};

use super::body::{self, Media};
use super::call::Call;
use super::error::Refusal;
use crate::protocol::Value;

/// Longest id of a stream, in bytes.
pub(super) const MAX_STREAM_ID: usize = 256;

/// Sends an item, and ends the stream if it is the last one.
pub(super) async fn item(call: &Call<'_>, body: Body) -> Result<Response, Refusal> {
    let media = Media::of(call.headers(), &[Media::Json, Media::MessagePack])?;
    let last = match call.text("completed") {
        Some(text) if text.eq_ignore_ascii_case("true") => true,
        Some(text) if !text.eq_ignore_ascii_case("false") => {
            return Err(Refusal::invalid("completed must be true or false."));
        }
        _ => false,
    };
    let item = body::value(media, call.read(body).await?)?;
    send(call, None, Some(item)).await?;
    if last {
        send(call, Some(None), None).await?;
    }
    Ok(call.done())
}

/// Ends a stream. The SDK names its error `error`, the documentation `reason`.
pub(super) async fn end(call: &Call<'_>) -> Result<Response, Refusal> {
    let error = call.text("error").or(call.text("reason"));
    let error = error.filter(|text| !text.is_empty()).map(str::to_owned);
    send(call, Some(error), None).await?;
    Ok(call.done())
}

async fn send(call: &Call<'_>, end: Option<Option<String>>, item: Option<Value>) -> Result<(), Refusal> {
    let stream = call.stream()?;
    let Ok(connection) = ConnectionId::parse(call.connection()?) else {
        return Ok(()); // no connection has such an id
    };
    let part = StreamPart {
        invocation_id: stream.to_owned(),
        ends: end.is_some(),
        error: end.flatten(),
    };
    let hub = call.hub().runtime();
    Ok(hub.publish_stream_part(&connection, part, item).await?)
}
