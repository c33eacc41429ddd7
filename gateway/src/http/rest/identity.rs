//! The claims of living connections, by their tokens: for back ends that negotiate and refresh for their clients.
//!
//! Source: the tests of Azure SignalR's Management SDK (`RestHubLifetimeManager`, 2026): both requests have the connection
//! token in their body, the first may come with the method QUERY (RFC 10008), and both are answered with the claims, from
//! which the SDK makes the client's next token itself. 403 is another user, 404 an unknown connection.

use axum::Json;
use axum::body::Body;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use hubcast_backplane::ConnectionId;
use serde::{Deserialize, Serialize};

use super::body::Media;
use super::call::Call;
use super::error::{NO_CONNECTION, Refusal};
use crate::auth::Identity;
use crate::bom;
use crate::protocol::Timestamp;
use crate::session::Ownership;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct IdentityQuestion {
    connection_token: String,
    #[serde(default)]
    expire_time: Option<String>,
    #[serde(default)]
    claims: Option<Vec<ClaimPair>>,
}

#[derive(Serialize, Deserialize)]
struct ClaimPair {
    #[serde(rename = "type")]
    kind: String,
    value: String,
}

#[derive(Serialize)]
struct IdentityAnswer {
    claims: Vec<ClaimPair>,
}

async fn read(call: &Call<'_>, body: Body) -> Result<(IdentityQuestion, ConnectionId), Refusal> {
    Media::of(call.headers(), &[Media::Json])?;
    let body = call.read(body).await?;
    let asked: IdentityQuestion = serde_json::from_slice(bom::skip(&body)).map_err(|error| {
        Refusal::invalid(format!("The body must be {{\"connectionToken\": …}}: {error}."))
    })?;
    let hub = call.hub().runtime();
    let now = hub.shared().backplane().now();
    let token = call.app().tokens().read(hub.name(), &asked.connection_token, now);
    let token = token.map_err(|_| Refusal::absent(NO_CONNECTION))?;
    if token.id.as_str() == asked.connection_token {
        return Err(Refusal::absent(NO_CONNECTION)); // of version 0, whose tokens are no secrets
    }
    Ok((asked, token.id))
}

/// The claims of a connection.
pub(super) async fn claims(call: &Call<'_>, body: Body) -> Result<Response, Refusal> {
    let (_, connection) = read(call, body).await?;
    let identity = call.hub().runtime().identity_of(&connection).await?;
    let identity = identity.ok_or_else(|| Refusal::absent(NO_CONNECTION))?;
    Ok(shown(&identity))
}

/// Gives a connection other claims or another end.
pub(super) async fn refresh(call: &Call<'_>, body: Body) -> Result<Response, Refusal> {
    let (asked, connection) = read(call, body).await?;
    let hub = call.hub().runtime();
    let identity = hub.identity_of(&connection).await?;
    let identity = identity.ok_or_else(|| Refusal::absent(NO_CONNECTION))?;
    let claims = asked.claims.map(|claims| {
        let pairs = claims.into_iter().map(|claim| (claim.kind, claim.value));
        pairs.collect()
    });
    let end = asked.expire_time.as_deref().map(seconds).transpose()?;
    let changed = identity
        .with_claims(claims, end)
        .map_err(|error| Refusal::invalid(format!("The claims can't be used: {error}.")))?;
    let Some(changed) = changed else {
        let text = "The claims are of another user; a connection stays with the user who opened it.";
        return Err(Refusal::new(
            StatusCode::FORBIDDEN,
            "Error.Connection.UserChanged",
            text,
        ));
    };
    match hub.reidentify(&connection, &changed).await? {
        Ownership::Kept => Ok(shown(&changed)),
        Ownership::Lost => Err(Refusal::absent(NO_CONNECTION)),
    }
}

/// Seconds since 1970 of a time as RFC 3339 writes it.
fn seconds(text: &str) -> Result<u64, Refusal> {
    let invalid =
        || Refusal::invalid("expireTime must be a time after 1970 such as 2026-11-28T10:17:52+00:00.");
    let time: Timestamp = text.parse().map_err(|_| invalid())?;
    u64::try_from(time.seconds()).map_err(|_| invalid())
}

fn shown(identity: &Identity) -> Response {
    let claims = identity.claim_texts().into_iter();
    let claims = claims.map(|(kind, value)| ClaimPair { kind, value }).collect();
    Json(IdentityAnswer { claims }).into_response()
}
