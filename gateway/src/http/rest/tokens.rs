//! Tokens for clients, for back ends that don't sign their own.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Json;
use axum::http::StatusCode;
use axum::http::uri::Authority;
use axum::response::{IntoResponse, Response};
use hubcast_backplane::UserId;
use jsonwebtoken::{EncodingKey, Header, encode};
use secrecy::ExposeSecret;
use serde::Serialize;
use serde_json::json;

use super::call::Call;
use super::error::Refusal;
use crate::options::requested_authority;

/// Longest life of a token, in minutes: a year.
const LONGEST: u64 = 365 * 24 * 60;
/// Life of a token where the request does not say.
const USUAL: u64 = 60;

#[derive(Serialize)]
struct TokenRequest<'a> {
    aud: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    nameid: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sub: Option<&'a str>,
    #[serde(skip_serializing_if = "<[&str]>::is_empty")]
    role: &'a [&'a str],
    #[serde(rename = "webpubsub.group", skip_serializing_if = "<[&str]>::is_empty")]
    groups: &'a [&'a str],
    iat: u64,
    nbf: u64,
    exp: u64,
}

/// Checks that there are such clients here.
fn check_client(kind: Option<&str>) -> Result<(), Refusal> {
    let kind = kind.unwrap_or("default").to_ascii_lowercase();
    match kind.as_str() {
        "default" => Ok(()),
        "mqtt" | "socketio" => Err(Refusal::not_implemented(format!(
            "There are no clients of type {kind} here."
        ))),
        _ => Err(Refusal::invalid("clientType must be default, mqtt or socketio.")),
    }
}

/// Signs a token for a client of the hub.
pub(super) fn generate(call: &Call<'_>) -> Result<Response, Refusal> {
    let web_pubsub = call.is_web_pubsub();
    if web_pubsub {
        check_client(call.text("clientType"))?;
    }
    let minutes = call.number("minutesToExpire", 1, LONGEST)?.unwrap_or(USUAL);
    let user = call.text("userId").map(UserId::parse).transpose()?;
    let roles: Vec<_> = call.all("role").collect();
    let groups: Vec<_> = call.all("group").filter(|_| web_pubsub).collect();
    let auth = &call.app().options().auth;
    let host = auth.audience_hosts.first().map(String::as_str);
    let requested = requested_authority(call.request());
    let host = host
        .or_else(|| requested.as_ref().map(Authority::host))
        .unwrap_or("localhost");
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let claims = TokenRequest {
        aud: if web_pubsub {
            format!("http://{host}/client/hubs/{}", call.hub().name())
        } else {
            format!("http://{host}/client/?hub={}", call.hub().name())
        },
        nameid: user.as_ref().map(UserId::as_str).filter(|_| !web_pubsub),
        sub: user.as_ref().map(UserId::as_str).filter(|_| web_pubsub),
        role: &roles,
        groups: &groups,
        iat: now.as_secs(),
        nbf: now.as_secs(),
        exp: now.saturating_add(Duration::from_secs(minutes * 60)).as_secs(),
    };
    let unsigned = || {
        let text = "The token could not be signed.";
        Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "Error.Internal", text)
    };
    let key = call.app().servers().signing_key().ok_or_else(unsigned)?;
    let key = EncodingKey::from_secret(key.expose_secret().as_bytes());
    let token = encode(&Header::default(), &claims, &key).map_err(|_| unsigned())?;
    Ok(Json(json!({ "token": token })).into_response())
}
