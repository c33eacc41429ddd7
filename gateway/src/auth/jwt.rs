//! JSON Web Tokens of clients.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Header, decode, decode_header};
use serde_json::{Map, Value};

use super::audience::ClientAudience;
use super::keys::TokenKey;
use super::token_keys::TokenKeys;
use super::{AuthError, Identity};
use crate::options::AuthOptions;

/// Longest accepted token, in bytes: longer ones do not fit into request headers anyway.
const MAX_TOKEN_BYTES: usize = 16 * 1024;

/// Checks tokens against all keys. Without a key no token is valid.
pub(crate) struct JwtVerifier {
    keys: TokenKeys,
    issuers: Vec<String>,
    audience: ClientAudience,
    user_claim: Option<String>,
}

impl JwtVerifier {
    pub(crate) fn new(options: &AuthOptions, keys: TokenKeys) -> Self {
        Self {
            keys,
            issuers: options.issuers.clone(),
            audience: ClientAudience::new(&options.audiences, &options.audience_hosts),
            user_claim: options.user_claim.clone(),
        }
    }

    /// Reads a token that is shown to a hub. Without a hub the token may be for any.
    pub(crate) async fn verify(&self, hub: Option<&str>, token: &str) -> Result<Identity, AuthError> {
        let header = read_header(token)?;
        let mut refusal = AuthError::Invalid;
        for key in &self.keys.fixed().of_clients {
            match self.check(key, &header, hub, token) {
                Ok(identity) => return Ok(identity),
                Err(error) => refusal = refusal.or(error),
            }
        }
        for set in self.keys.sets() {
            set.freshen(header.kid.as_deref()).await;
            for key in set.keys().iter() {
                match self.check(key, &header, hub, token) {
                    Ok(identity) => return Ok(identity),
                    Err(error) => refusal = refusal.or(error),
                }
            }
        }
        if refusal == AuthError::Invalid && self.missing_keys().is_some() {
            return Err(AuthError::NoKeys); // it may well be valid
        }
        Err(refusal)
    }

    /// A key set that was never loaded yet and the reason, in words.
    pub(crate) fn missing_keys(&self) -> Option<String> {
        self.keys.sets().iter().find_map(|set| set.missing())
    }

    /// Loads keys that were never had yet, until they are there.
    pub(crate) fn fetch_keys(&self) -> impl Iterator<Item = impl Future<Output = ()> + Send + 'static> {
        let missing = self.keys.sets().iter().filter(|set| set.missing().is_some());
        missing.map(|set| Arc::clone(set).fetch())
    }

    fn check(
        &self,
        key: &TokenKey,
        header: &Header,
        hub: Option<&str>,
        token: &str,
    ) -> Result<Identity, AuthError> {
        if !key.fits(header.alg, header.kid.as_deref()) {
            return Err(AuthError::Invalid);
        }
        let data = decode::<Map<String, Value>>(token, key.decoding(), key.validation());
        let claims = data.map_err(|error| match error.kind() {
            ErrorKind::ExpiredSignature => AuthError::Expired,
            ErrorKind::ImmatureSignature => AuthError::NotYet,
            _ => AuthError::Invalid,
        })?;
        let claims = claims.claims;
        // The holder of an access key may leave out issuer and audience. If present, they must fit.
        match claims.get("iss") {
            None if key.is_own() || self.issuers.is_empty() => {}
            Some(_) if self.issuers.is_empty() => {}
            Some(Value::String(issuer)) if self.issuers.contains(issuer) => {}
            _ => return Err(AuthError::Issuer),
        }
        match claims.get("aud") {
            None if key.is_own() || !self.audience.is_required() => {}
            Some(audience) if self.audience.holds(audience, hub) => {}
            _ => return Err(AuthError::Audience),
        }
        Identity::from_claims_with(claims, self.user_claim.as_deref())
    }
}

/// Reads a token's header. A header with an unknown algorithm, such as `none`, is refused, and a token that asks for an
/// extension that this reader does not know is refused, too (RFC 7515 §4.1.11): `b64` is such an extension (RFC 7797),
/// and changes the signed bytes.
pub(super) fn read_header(token: &str) -> Result<Header, AuthError> {
    if token.len() > MAX_TOKEN_BYTES {
        return Err(AuthError::TooLong);
    }
    let (header, _) = token.split_once('.').ok_or(AuthError::Invalid)?;
    let header = URL_SAFE_NO_PAD.decode(header).map_err(|_| AuthError::Invalid)?;
    let members = serde_json::from_slice::<Map<String, Value>>(&header);
    let members = members.map_err(|_| AuthError::Invalid)?;
    if members.contains_key("crit") || members.contains_key("b64") {
        return Err(AuthError::Invalid);
    }
    decode_header(token).map_err(|_| AuthError::Invalid)
}

#[cfg(test)]
#[path = "jwt_tests.rs"]
mod tests;
