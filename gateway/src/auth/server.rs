//! Tokens of back ends: JSON Web Tokens signed with an access key, each for the URL that it is shown at.
//!
//! Clients' tokens are signed with the same keys. Only the audience separates them: no token opens both.

use axum::http::request::Parts;
use axum::http::uri::Authority;
use axum::http::{Uri, header};
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, Validation, decode};
use percent_encoding::percent_decode_str;
use secrecy::SecretString;
use serde::Deserialize;

use super::jwt::read_header;
use super::token_keys::TokenKeys;
use super::{AuthError, bearer};
use crate::options::AuthOptions;
use crate::options::requested_authority;

/// Paths of hubs' clients, and of application servers: tokens for these are not for REST.
const OTHER_PATHS: [&str; 3] = ["client", "hubs", "server"];

/// The reason why a back end was refused. The texts are safe to show.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ServerAuthError {
    #[error("this gateway has no access key, so that nobody can sign tokens for it: set access_key")]
    NoKey,
    #[error(
        "the token is for another audience: its aud must be the URL of the request (see auth.audience_hosts)"
    )]
    Audience,
    #[error(transparent)]
    Token(#[from] AuthError),
}

/// Checks the tokens of back ends.
pub(crate) struct ServerAuthenticator {
    keys: TokenKeys,
    validation: Validation,
    audiences: Audiences,
}

/// The audiences that a token may have.
enum Audiences {
    /// The URL of the request, on the host that the request names.
    Requested,
    /// The URL of the request, on one of these hosts.
    Listed(Vec<String>),
    /// Any, and none, but those of clients and application servers.
    Lax,
}

/// The claims of a token that are read.
#[derive(Deserialize)]
struct ServerClaims {
    #[serde(default)]
    aud: OneOrMany,
}

#[derive(Deserialize, Default)]
#[serde(untagged)]
enum OneOrMany {
    #[default]
    None,
    One(String),
    Many(Vec<String>),
}

impl OneOrMany {
    fn as_slice(&self) -> &[String] {
        match self {
            Self::None => &[],
            Self::One(one) => std::slice::from_ref(one),
            Self::Many(many) => many,
        }
    }
}

impl ServerAuthenticator {
    /// With `any_audience`, tokens are believed that are for another REST URL or for none: for trying things out.
    pub(crate) fn new(options: &AuthOptions, keys: TokenKeys, any_audience: bool) -> Self {
        let mut validation = Validation::new(Algorithm::HS256);
        validation.algorithms = vec![Algorithm::HS256, Algorithm::HS512];
        validation.leeway = options.leeway.0.as_secs();
        validation.validate_nbf = true;
        validation.validate_aud = false; // a URL is not compared as a text: see below
        validation.set_required_spec_claims(&["exp"]);
        let audiences = match (any_audience, options.audience_hosts.as_slice()) {
            (true, _) => Audiences::Lax,
            (false, []) => Audiences::Requested,
            (false, hosts) => Audiences::Listed(hosts.to_vec()),
        };
        Self {
            keys,
            validation,
            audiences,
        }
    }

    /// Checks whether a back end may make this request.
    pub(crate) fn authenticate(&self, request: &Parts) -> Result<(), ServerAuthError> {
        if self.keys.fixed().of_servers.is_empty() {
            return Err(ServerAuthError::NoKey);
        }
        let Some(value) = request.headers.get(header::AUTHORIZATION) else {
            return Err(AuthError::Missing.into());
        };
        let claims = self.verify(bearer(value.as_bytes()).ok_or(AuthError::Scheme)?)?;
        if self.is_meant(&claims, request) {
            Ok(())
        } else {
            Err(ServerAuthError::Audience)
        }
    }

    /// Checks whether an application server may make this request: its token is for application servers.
    pub(crate) fn authenticate_app_server(&self, request: &Parts) -> Result<(), ServerAuthError> {
        if self.keys.fixed().of_servers.is_empty() {
            return Err(ServerAuthError::NoKey);
        }
        let Some(value) = request.headers.get(header::AUTHORIZATION) else {
            return Err(AuthError::Missing.into());
        };
        let claims = self.verify(bearer(value.as_bytes()).ok_or(AuthError::Scheme)?)?;
        let is_for_servers = |aud: &String| {
            aud.parse::<Uri>()
                .is_ok_and(|url| first_segment(url.path()) == "server")
        };
        if claims.aud.as_slice().iter().any(is_for_servers) {
            Ok(())
        } else {
            Err(ServerAuthError::Audience)
        }
    }

    /// The key that tokens for clients are signed with; `None` where there is none.
    pub(crate) fn signing_key(&self) -> Option<SecretString> {
        self.keys.fixed().signing.clone()
    }

    fn verify(&self, token: &str) -> Result<ServerClaims, AuthError> {
        read_header(token)?;
        let mut refusal = AuthError::Invalid;
        for key in &self.keys.fixed().of_servers {
            match decode::<ServerClaims>(token, key, &self.validation) {
                Ok(data) => return Ok(data.claims),
                Err(error) => {
                    refusal = refusal.or(match error.kind() {
                        ErrorKind::ExpiredSignature => AuthError::Expired,
                        ErrorKind::ImmatureSignature => AuthError::NotYet,
                        _ => AuthError::Invalid,
                    });
                }
            }
        }
        Err(refusal)
    }

    fn is_meant(&self, claims: &ServerClaims, request: &Parts) -> bool {
        let audiences = claims.aud.as_slice();
        match &self.audiences {
            Audiences::Lax => audiences.is_empty() || audiences.iter().any(|aud| !is_for_others(aud)),
            Audiences::Requested => {
                let own = requested_authority(request);
                let own = own.as_ref().map(Authority::host);
                let accepted = |host: &str| own.is_some_and(|own| host.eq_ignore_ascii_case(own));
                audiences.iter().any(|aud| is_url_of(aud, request, accepted))
            }
            Audiences::Listed(hosts) => {
                let accepted = |host: &str| hosts.iter().any(|known| known.eq_ignore_ascii_case(host));
                audiences.iter().any(|aud| is_url_of(aud, request, accepted))
            }
        }
    }
}

/// Returns whether an audience is one of clients or application servers.
fn is_for_others(aud: &str) -> bool {
    aud.parse::<Uri>()
        .is_ok_and(|url| OTHER_PATHS.contains(&first_segment(url.path())))
}

fn first_segment(path: &str) -> &str {
    let path = path.strip_prefix('/').unwrap_or(path);
    path.split('/').next().unwrap_or_default()
}

/// Returns whether an audience is the URL of the request. Scheme, port and query don't count, case only in the path,
/// percent encoding and one slash at the end don't.
fn is_url_of(aud: &str, request: &Parts, accepted: impl Fn(&str) -> bool) -> bool {
    let Ok(url) = aud.parse::<Uri>() else { return false };
    let http = matches!(url.scheme_str(), Some("http" | "https"));
    http && url.host().is_some_and(accepted) && same_path(url.path(), request.uri.path())
}

fn same_path(one: &str, other: &str) -> bool {
    let mut before = "";
    let (mut one, mut other) = (segments(one), segments(other));
    loop {
        match (one.next(), other.next()) {
            (None, None) => return true,
            (Some(one), Some(other)) => {
                let (mine, yours) = (percent_decode_str(one), percent_decode_str(other));
                let same = if before == "hubs" {
                    let lower = |byte: u8| byte.to_ascii_lowercase();
                    mine.map(lower).eq(yours.map(lower)) // a hub's name has no case
                } else {
                    mine.eq(yours)
                };
                if !same {
                    return false;
                }
                before = other;
            }
            _ => return false,
        }
    }
}

fn segments(path: &str) -> std::str::Split<'_, char> {
    path.strip_suffix('/').unwrap_or(path).split('/')
}

#[cfg(test)]
mod tests {
    use std::time::{SystemTime, UNIX_EPOCH};

    use axum::http::Request;
    use jsonwebtoken::{EncodingKey, Header, encode};
    use serde_json::{Value, json};

    use super::*;

    const KEY: &str = "an access key of at least 32 bytes";
    const OTHER: &str = "another access key of at least 32 bytes";
    const PATH: &str = "/api/hubs/chat/users/u%201/:send";

    fn options(audiences: &[&str]) -> AuthOptions {
        AuthOptions {
            access_key: Some(KEY.into()),
            access_key_secondary: Some(OTHER.into()),
            audience_hosts: audiences.iter().map(ToString::to_string).collect(),
            ..AuthOptions::default()
        }
    }

    fn server_of(options: &AuthOptions, any_audience: bool) -> ServerAuthenticator {
        ServerAuthenticator::new(options, TokenKeys::new(options).unwrap(), any_audience)
    }

    fn token(algorithm: Algorithm, key: &str, aud: Value) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let mut claims = json!({ "exp": now + 60, "nameid": "machine" });
        if !aud.is_null() {
            claims["aud"] = aud;
        }
        let key = EncodingKey::from_secret(key.as_bytes());
        encode(&Header::new(algorithm), &claims, &key).unwrap()
    }

    fn request(token: &str) -> Parts {
        let request = Request::post(format!("{PATH}?api-version=2022-06-01"))
            .header("host", "signalr.example:8080")
            .header("authorization", format!("Bearer {token}"));
        request.body(()).unwrap().into_parts().0
    }

    fn opens(server: &ServerAuthenticator, aud: Value) -> bool {
        let outcome = server.authenticate(&request(&token(Algorithm::HS256, KEY, aud)));
        assert!(matches!(outcome, Ok(()) | Err(ServerAuthError::Audience)));
        outcome.is_ok()
    }

    #[test]
    fn both_keys_and_both_algorithms_open() {
        let server = server_of(&options(&[]), false);
        let aud = json!(format!("http://signalr.example{PATH}"));
        for key in [KEY, OTHER] {
            for algorithm in [Algorithm::HS256, Algorithm::HS512] {
                let token = token(algorithm, key, aud.clone());
                assert_eq!(server.authenticate(&request(&token)), Ok(()));
            }
        }
        let third = token(
            Algorithm::HS256,
            "a third key, also of 32 bytes or so",
            aud.clone(),
        );
        let invalid = Err(ServerAuthError::Token(AuthError::Invalid));
        assert_eq!(server.authenticate(&request(&third)), invalid);
        let other = token(Algorithm::HS384, KEY, aud);
        assert_eq!(server.authenticate(&request(&other)), invalid);
        let keyless = server_of(&AuthOptions::default(), true);
        assert_eq!(
            keyless.authenticate(&request(&third)),
            Err(ServerAuthError::NoKey)
        );
    }

    #[test]
    fn the_audience_is_the_url_of_the_request_however_it_is_written() {
        let server = server_of(&options(&[]), false);
        for aud in [
            "http://signalr.example/api/hubs/chat/users/u%201/:send",
            "https://SignalR.Example:444/api/hubs/Chat/users/u%201/%3asend/?api-version=2022-06-01",
        ] {
            assert!(opens(&server, json!(aud)), "{aud}");
            assert!(opens(&server, json!(["x", aud])), "one of several");
        }
        for aud in [
            json!(null),
            json!([]),
            json!(PATH),
            json!("http://other.example/api/hubs/chat/users/u%201/:send"),
            json!("ftp://signalr.example/api/hubs/chat/users/u%201/:send"),
            json!("http://signalr.example/api/hubs/chat/users/U%201/:send"),
            json!("http://signalr.example/api/hubs/chat/users/u%201"),
            json!("http://signalr.example/api/hubs/news/users/u%201/:send"),
            json!("http://signalr.example/client/?hub=chat"),
        ] {
            assert!(!opens(&server, aud.clone()), "{aud}");
        }
    }

    #[test]
    fn listed_hosts_take_the_place_of_the_requested_one() {
        let server = server_of(&options(&["a.example", "b.example"]), false);
        let url = |host: &str| json!(format!("https://{host}{PATH}"));
        assert!(opens(&server, url("A.example")) && opens(&server, url("b.example:81")));
        assert!(!opens(&server, url("signalr.example")));
    }

    #[test]
    fn a_lax_gateway_still_tells_clients_from_servers() {
        let server = server_of(&options(&[]), true);
        assert!(opens(&server, json!(null)) && opens(&server, json!("http://x/api/hubs/other")));
        for aud in [
            "http://signalr.example/client/?hub=chat",
            "/hubs/chat",
            "http://x/server/?hub=chat",
        ] {
            assert!(!opens(&server, json!(aud)), "{aud}");
        }
    }
}
