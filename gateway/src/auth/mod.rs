//! Authentication: tokens in, [`Identity`] out. The only place that reads credentials.

mod audience;
mod connection_token;
mod grants;
mod identity;
mod jwks;
mod jwt;
mod keys;
mod origin;
mod permissions;
mod resume_point;
mod server;
mod ticket;
mod token_keys;

use axum::http::{HeaderMap, header};
use hubcast_backplane::HubName;

use crate::options::{AuthOptions, OptionError};

pub(crate) use connection_token::{
    ConnectionToken, TokenError, TokenKind, TokenSigner, random_connection_id,
};
pub(crate) use grants::{Permission, PermissionRequest, TooManyGrants, Wish};
pub(crate) use identity::Changes;
pub use identity::Identity;
pub(crate) use jwt::JwtVerifier;
pub(crate) use origin::Origins;
pub use permissions::Permissions;
pub(crate) use resume_point::{PointSigner, ResumePoint};
pub(crate) use server::{ServerAuthError, ServerAuthenticator};
pub(crate) use ticket::TicketCipher;
pub use token_keys::TokenKeys;

/// The reason why a request was refused before anything was done for it. The texts are safe to show.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AuthError {
    #[error("a bearer token is required")]
    Missing,
    #[error("the Authorization header must be `Bearer <token>`")]
    Scheme,
    #[error("the token is not valid")]
    Invalid,
    #[error("the token is too long: tokens may have 16 KiB")]
    TooLong,
    #[error("the token has expired")]
    Expired,
    #[error("the token is not valid yet")]
    NotYet,
    #[error("the token's issuer is not accepted here")]
    Issuer,
    #[error("the token is not for clients of this hub")]
    Audience,
    #[error("the token's user id can't be used: it is empty or too long")]
    UserId,
    #[error("the keys of this node are not there yet")]
    NoKeys,
    #[error("a token in the query must be a ticket of negotiate (auth.tickets)")]
    NoTicket,
}

impl AuthError {
    /// Returns the more precise one of two refusals.
    fn or(self, other: Self) -> Self {
        if self == Self::Invalid { other } else { self }
    }
}

/// The credentials of a request.
pub(crate) struct Credentials<'a> {
    /// The hub that it is for.
    pub(crate) hub: &'a HubName,
    pub(crate) headers: &'a HeaderMap,
    /// The `access_token` of the query: browsers can't send headers with WebSockets and event streams, and some clients have it
    /// in the hub's URL, which goes with every request.
    pub(crate) query_token: Option<&'a str>,
    /// The cipher that reads tickets, and the connection token that this ticket must be for.
    pub(crate) connection: Option<(&'a TicketCipher, &'a str)>,
}

/// The part of a request where its token was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TokenSource {
    /// There was none.
    Nothing,
    Header,
    Query,
    /// Browsers send cookies with requests of any page, so the page's origin has to be looked at.
    Cookie,
}

/// The result of authentication: the identity, and where its token was found.
#[derive(Debug)]
pub(crate) struct Authenticated {
    pub(crate) identity: Identity,
    pub(crate) source: TokenSource,
}

/// Decides which identity a request has.
pub(crate) struct Authenticator {
    jwt: JwtVerifier,
    /// The identity of clients without a token; `None` if a token is required.
    stranger: Option<Identity>,
    cookie: Option<String>,
    tickets: bool,
}

/// Reads the files of keys that the options name, without keeping them.
///
/// # Errors
/// The first key that can't be used, by the setting that names it.
pub fn check_keys(options: &AuthOptions) -> Result<(), OptionError> {
    TokenKeys::new(options).map(drop)
}

impl Authenticator {
    pub(crate) fn new(options: &AuthOptions, keys: TokenKeys) -> Self {
        let stranger = options.allow_anonymous.unwrap_or(false);
        Self {
            jwt: JwtVerifier::new(options, keys),
            stranger: stranger.then(|| Identity::anonymous_with(&options.anonymous_roles)),
            cookie: options.cookie.clone(),
            tickets: options.tickets,
        }
    }

    /// A key set that was never loaded yet and the reason, in words.
    pub(crate) fn missing_keys(&self) -> Option<String> {
        self.jwt.missing_keys()
    }

    /// Loads keys that were never had yet, until they are there.
    pub(crate) fn fetch_keys(&self) -> impl Iterator<Item = impl Future<Output = ()> + Send + 'static> {
        self.jwt.fetch_keys()
    }

    /// Returns whether negotiate gives tickets.
    pub(crate) fn gives_tickets(&self) -> bool {
        self.tickets
    }

    /// Reads the credentials of a request: an `Authorization` header before the query's token before the cookie. A header of
    /// another scheme, such as a proxy's basic authentication, and one without a token are none.
    pub(crate) async fn authenticate(&self, shown: &Credentials<'_>) -> Result<Authenticated, AuthError> {
        let authorization = shown.headers.get(header::AUTHORIZATION);
        let header = authorization.and_then(|value| bearer(value.as_bytes()));
        let query = shown.query_token.filter(|token| !token.is_empty());
        let (token, source) = match (header, query) {
            (Some(token), _) => (Some(token), TokenSource::Header),
            (None, Some(token)) => (Some(token), TokenSource::Query),
            (None, None) => (self.cookie(shown.headers), TokenSource::Cookie),
        };
        let Some(token) = token else {
            let missing = authorization.map_or(AuthError::Missing, |_| AuthError::Scheme);
            return Ok(Authenticated {
                identity: self.stranger.clone().ok_or(missing)?,
                source: TokenSource::Nothing,
            });
        };
        let identity = if self.tickets && ticket::is_ticket(token) {
            let (booth, connection_token) = shown.connection.ok_or(AuthError::Invalid)?;
            let read = booth.read(shown.hub, connection_token, token);
            read.ok_or(AuthError::Invalid)?
        } else if self.tickets && source == TokenSource::Query {
            return Err(AuthError::NoTicket);
        } else {
            self.jwt.verify(Some(shown.hub.as_str()), token).await?
        };
        Ok(Authenticated { identity, source })
    }

    fn cookie<'a>(&self, headers: &'a HeaderMap) -> Option<&'a str> {
        let name = self.cookie.as_deref()?;
        let lines = headers.get_all(header::COOKIE).into_iter();
        lines
            .filter_map(|line| line.to_str().ok())
            .flat_map(|line| line.split(';'))
            .find_map(|pair| value_of(pair, name))
    }
}

/// The value of a pair of a `Cookie` header, if it has that name.
fn value_of<'a>(pair: &'a str, name: &str) -> Option<&'a str> {
    let (key, value) = pair.split_once('=')?;
    let value = value.trim();
    let bare = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    (key.trim() == name).then(|| bare.unwrap_or(value))
}

/// A `Cookie` header without the cookies of that name.
pub(crate) fn without_cookie(line: &str, name: &str) -> String {
    let kept = line
        .split(';')
        .filter(|pair| pair.split('=').next().is_some_and(|key| key.trim() != name));
    kept.map(str::trim).collect::<Vec<_>>().join("; ")
}

/// The token of an `Authorization` header, if it holds one.
fn bearer(value: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(value).ok()?;
    let (scheme, token) = text.split_once(' ')?;
    let token = Some(token.trim()).filter(|token| !token.is_empty())?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token)
}

#[cfg(test)]
#[path = "authenticator_tests.rs"]
mod tests;
