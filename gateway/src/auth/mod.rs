//! Who a request is from: tokens in, [`Identity`] out. The only place that reads credentials.

mod connection_token;
mod jwt;
mod origin;

use std::sync::Arc;

use axum::http::{HeaderMap, header};
use hubcast_backplane::UserId;
use serde_json::{Map, Value};

pub(crate) use connection_token::{ConnectionToken, TokenKind, TokenSigner, random_connection_id};
pub(crate) use jwt::JwtVerifier;
pub(crate) use origin::Origins;

/// Who is behind a connection.
#[derive(Clone, Debug, Default)]
pub struct Identity {
    user: Option<UserId>,
    claims: Option<Arc<Map<String, Value>>>,
}

impl Identity {
    /// A client without a token.
    pub(crate) fn anonymous() -> Self {
        Self::default()
    }

    pub(crate) fn new(user: Option<UserId>, claims: Map<String, Value>) -> Self {
        Self {
            user,
            claims: Some(Arc::new(claims)),
        }
    }

    /// An identity of which only the user is known: of a connection that lived on another node.
    pub(crate) fn of_user(user: Option<UserId>) -> Self {
        Self { user, claims: None }
    }

    /// The user id, from the token's `nameid` or else `sub`.
    #[must_use]
    pub fn user(&self) -> Option<&UserId> {
        self.user.as_ref()
    }

    /// Whether the client has shown no token.
    #[must_use]
    pub fn is_anonymous(&self) -> bool {
        self.claims.is_none() && self.user.is_none()
    }

    /// One claim of the token.
    #[must_use]
    pub fn claim(&self, name: &str) -> Option<&Value> {
        self.claims.as_ref()?.get(name)
    }
}

/// Why a request was refused before anything was done for it. The texts are safe to show.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AuthError {
    #[error("a bearer token is required")]
    Missing,
    #[error("the Authorization header must be `Bearer <token>`")]
    Scheme,
    #[error("the token is not valid")]
    Invalid,
    #[error("the token has expired")]
    Expired,
    #[error("the token's user id can't be used: it is empty, too long or holds control characters")]
    UserId,
}

/// Decides who a request is from.
pub(crate) struct Authenticator {
    jwt: JwtVerifier,
    allow_anonymous: bool,
}

impl Authenticator {
    pub(crate) fn new(jwt: JwtVerifier, allow_anonymous: bool) -> Self {
        Self { jwt, allow_anonymous }
    }

    /// Reads the credentials of a request. The `access_token` of the query counts only where browsers can't send
    /// headers (WebSocket and SSE, the caller decides) and only without an `Authorization` header.
    pub(crate) fn authenticate(
        &self,
        headers: &HeaderMap,
        query_token: Option<&str>,
    ) -> Result<Identity, AuthError> {
        let token = match headers.get(header::AUTHORIZATION) {
            Some(value) => Some(bearer(value.as_bytes())?),
            None => query_token,
        };
        match token {
            Some(token) => self.jwt.verify(token),
            None if self.allow_anonymous => Ok(Identity::anonymous()),
            None => Err(AuthError::Missing),
        }
    }
}

fn bearer(value: &[u8]) -> Result<&str, AuthError> {
    let text = std::str::from_utf8(value).map_err(|_| AuthError::Scheme)?;
    let (scheme, token) = text.split_once(' ').ok_or(AuthError::Scheme)?;
    if scheme.eq_ignore_ascii_case("bearer") {
        Ok(token.trim())
    } else {
        Err(AuthError::Scheme)
    }
}
