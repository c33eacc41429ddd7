//! Tokens as an application's back end makes them, and tokens that must be refused.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};

/// The access key that every gateway of the tests has.
pub const ACCESS_KEY: &str = "black-box-tests-access-key-0123456789abcdef";

/// A token for `user`, valid for an hour.
pub fn token_for(user: &str) -> String {
    token_with(&json!({ "nameid": user, "exp": now() + 3_600 }), ACCESS_KEY)
}

/// A token with these claims, signed with HS256.
pub fn token_with(claims: &Value, key: &str) -> String {
    token_as(Algorithm::HS256, claims, key.as_bytes())
}

/// A token with these claims, signed with an algorithm for shared keys.
pub fn token_as(algorithm: Algorithm, claims: &Value, key: &[u8]) -> String {
    encode(&Header::new(algorithm), claims, &EncodingKey::from_secret(key)).expect("claims can be signed")
}

/// A token whose header says that it needs no signature, and that has none.
pub fn unsigned_token(claims: &Value) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!(
        "{}.{}.",
        part(&json!({ "alg": "none", "typ": "JWT" })),
        part(claims)
    )
}

/// Seconds since 1970.
pub fn now() -> i64 {
    let since = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .expect("it is after 1970");
    i64::try_from(since.as_secs()).expect("it is before the end of time")
}
