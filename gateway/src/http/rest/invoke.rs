//! A client's method, called for its result.
//!
//! Azure's Management SDK asks for `application/octet-stream`: a framed Completion in the protocol that the header
//! `X-ASRS-Protocol` names, which is one that it has written the call in. Others get the result as JSON.

use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use hubcast_backplane::ConnectionId;

use super::body::{self, Media};
use super::call::Call;
use super::error::{NO_CONNECTION, Refusal};
use crate::error::Error;
use crate::hub::Outgoing;
use crate::protocol::{Encoding, HubMessage, HubProtocol, Outcome, encode};

/// The header that names the protocol of a framed answer.
const PROTOCOL: HeaderName = HeaderName::from_static("x-asrs-protocol");
/// The id of a framed answer, which nobody compares: a request has one.
const INVOCATION_ID: &str = "1";

pub(super) async fn invoke(call: &Call<'_>, body: Body) -> Result<Response, Refusal> {
    let media = Media::of(call.headers(), &Media::ALL)?;
    let message = body::message(media, call.read(body).await?)?;
    let Ok(connection) = ConnectionId::parse(call.connection()?) else {
        return Err(Refusal::absent(NO_CONNECTION)); // no connection has such an id
    };
    let spoken = spoken(media, &message);
    let Outgoing {
        target,
        arguments,
        translated,
        ..
    } = message;
    let hub = call.hub().runtime();
    let patience = hub.options().timeouts.client_result;
    let asking = hub.ask(&connection, &target, arguments, translated, patience);
    let result = asking.await;
    if wants_frame(call) {
        let outcome = match result {
            Ok(value) => Outcome::Result(value),
            Err(Error::Client(text)) => Outcome::Error(text),
            Err(error) => return Err(error.into()),
        };
        return framed(&spoken, &target, outcome);
    }
    let result = result?
        .transcode(Encoding::Json)
        .map_err(|source| Error::Transcode { target, source })?;
    let answer = [b"{\"result\":", result.bytes().as_ref(), b"}"].concat();
    let json = [(header::CONTENT_TYPE, "application/json")];
    Ok((call.success(), json, answer).into_response())
}

/// The protocols that the caller has written the call in: it reads answers in these.
fn spoken(media: Media, message: &Outgoing) -> Vec<HubProtocol> {
    let protocol = |encoding| match encoding {
        Encoding::Json => HubProtocol::Json,
        Encoding::MessagePack => HubProtocol::MessagePack,
    };
    match media {
        Media::Json => vec![HubProtocol::Json],
        Media::MessagePack => vec![HubProtocol::MessagePack],
        Media::Framed => message.framed_in.iter().copied().map(protocol).collect(),
    }
}

fn wants_frame(call: &Call<'_>) -> bool {
    let accepted = call.headers().get_all(header::ACCEPT).iter();
    let mut listed = accepted
        .filter_map(|value| value.to_str().ok())
        .flat_map(|list| list.split(','));
    listed.any(|item| {
        let media = item.split(';').next().unwrap_or_default().trim();
        media.eq_ignore_ascii_case(Media::Framed.name())
    })
}

/// The client's answer, in its own protocol if the caller reads that.
fn framed(spoken: &[HubProtocol], target: &str, outcome: Outcome) -> Result<Response, Refusal> {
    let own = match &outcome {
        Outcome::Result(value) => Some(value.encoding()),
        Outcome::Void | Outcome::Error(_) => None,
    };
    let own = spoken.iter().find(|protocol| Some(protocol.encoding()) == own);
    let protocol = own.or(spoken.first()).copied().unwrap_or(HubProtocol::Json);
    let completion = HubMessage::Completion {
        headers: Vec::new(),
        invocation_id: INVOCATION_ID.to_owned(),
        outcome,
    };
    let frame = encode(protocol, &completion).map_err(|error| {
        tracing::debug!(%error, target, "a client's result can't be passed on");
        Refusal::invalid(format!("The client's result can't be passed on: {error}."))
    })?;
    let headers = [
        (
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/octet-stream"),
        ),
        (PROTOCOL, HeaderValue::from_static(protocol.name())),
    ];
    Ok((headers, frame).into_response())
}
