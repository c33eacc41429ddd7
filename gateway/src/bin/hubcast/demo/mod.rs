//! A hub and a page to try the gateway with.

mod hub;
mod page;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::hmac;
use axum::extract::Query;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hubcast_backplane::UserId;
use jsonwebtoken::{EncodingKey, Header, encode};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::json;

pub(crate) use hub::hub;

/// How long a token of the demo is valid.
const TOKEN_LIFE: Duration = Duration::from_secs(12 * 3600);

/// A key for tokens when none is configured: all nodes derive the same.
pub(crate) fn derived_key(cluster_secret: &[u8]) -> SecretString {
    let key = hmac::Key::new(hmac::HMAC_SHA256, cluster_secret);
    URL_SAFE_NO_PAD
        .encode(hmac::sign(&key, b"hubcast demo access key"))
        .into()
}

/// The page, and `POST /demo/token?user=NAME`, which believes any name: so it is for demos alone.
pub(crate) fn routes(access_key: SecretString) -> Router {
    let token = move |Query(wanted): Query<Wanted>| async move { token(&wanted.user, &access_key) };
    Router::new()
        .merge(page::routes())
        .route("/demo/token", post(token))
}

#[derive(Deserialize)]
struct Wanted {
    user: String,
}

fn token(user: &str, access_key: &SecretString) -> Response {
    let user = match UserId::parse(user) {
        Ok(user) => user,
        Err(error) => return (StatusCode::BAD_REQUEST, error.to_string()).into_response(),
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let claims = json!({
        "nameid": user.as_str(),
        "aud": "/hubs/demo", // it is for clients, and opens no REST
        "iat": now.as_secs(),
        "exp": now.saturating_add(TOKEN_LIFE).as_secs(),
    });
    let key = EncodingKey::from_secret(access_key.expose_secret().as_bytes());
    match encode(&Header::default(), &claims, &key) {
        Ok(token) => Json(json!({ "token": token })).into_response(),
        Err(error) => {
            tracing::error!(%error, "a demo token could not be signed");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}
