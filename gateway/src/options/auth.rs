//! Authentication of clients.

use std::path::PathBuf;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;

use super::{OptionError, seconds};

/// Authentication of clients: by a JSON Web Token that one of the keys has signed; if so set, no token is required.
/// Which authenticated clients a hub admits is the hub's to say: [`Hub::admit`](crate::Hub::admit).
///
/// Access keys are shared with the applications that make tokens (HS256, HS384, HS512). Keys of identity providers are
/// public ones (RS…, PS…, ES256, ES384, EdDSA), in files or in a JSON Web Key Set; which algorithms a key may be used with
/// is fixed by the key. A token must have an end (`exp`), and may have a beginning (`nbf`).
///
/// A token's audience (`aud`) must be either one of [`audiences`](Self::audiences) or the address where clients of the
/// hub connect: `/hubs/chat`, `https://host/hubs/chat`, `https://host/client/?hub=chat`. A token for anything else,
/// such as Azure SignalR's for REST or app servers, opens nothing here.
///
/// ```
/// use std::time::Duration;
/// use hubcast::Options;
///
/// let mut options = Options::default();
/// options.auth.access_key = Some("the new access key, of at least 32 bytes".into());
/// options.auth.access_key_secondary = Some("the access key of last year, 32 bytes too".into());
/// options.auth.jwks_url = Some("https://id.example.org/.well-known/jwks.json".to_owned());
/// options.auth.issuers = vec!["https://id.example.org".to_owned()];
/// options.auth.audiences = vec!["chat-app".to_owned()];
/// options.auth.allow_anonymous = Some(false);
/// options.auth.leeway = Duration::from_secs(5).into();
/// assert_eq!(options.check(), Ok(()));
///
/// options.auth.access_key = Some("too short".into());
/// assert_eq!(options.check().unwrap_err().key, "auth.access_key");
/// ```
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AuthOptions {
    /// Key of HMAC tokens, at least 32 bytes.
    pub access_key: Option<SecretString>,
    /// A second accepted key, while keys are rotated.
    pub access_key_secondary: Option<SecretString>,
    /// Public keys in PEM: RSA, elliptic curves (P-256, P-384), Ed25519.
    pub key_files: Vec<PathBuf>,
    /// A JSON Web Key Set in a file. It is read again when a token names a key that is not in it.
    pub jwks_file: Option<PathBuf>,
    /// A JSON Web Key Set at an `https` URL. It is fetched when the first token comes, and again when a token names a
    /// key that is not in it; when that fails, the keys stay as they are.
    pub jwks_url: Option<String>,
    /// Certificates (PEM) to trust for the URL instead of the system's.
    pub jwks_ca_file: Option<PathBuf>,
    /// Least time between two attempts to get the key set.
    #[serde(rename = "jwks_interval_seconds", deserialize_with = "seconds")]
    pub jwks_interval: KeyInterval,
    /// Age at which a key set is got again, so that keys that were taken back are forgotten.
    #[serde(rename = "jwks_max_age_seconds", deserialize_with = "seconds")]
    pub jwks_max_age: KeyAge,
    /// Accepted issuers (`iss`). Tokens of access keys may have none; without a list any issuer is accepted.
    pub issuers: Vec<String>,
    /// Accepted audiences (`aud`), besides the URLs of the hub. With a list, only tokens of access keys may have none.
    pub audiences: Vec<String>,
    /// Hosts that audiences which are URLs may name; without a list any.
    pub audience_hosts: Vec<String>,
    /// The only claim that names the user, instead of `asrs.s.uid`, `nameid` or else `sub`.
    pub user_claim: Option<String>,
    /// A cookie that may hold the token, for clients that show none otherwise.
    pub cookie: Option<String>,
    /// True if clients without a token may connect. Off unless set; the binary sets it in demo mode.
    pub allow_anonymous: Option<bool>,
    /// Roles of clients without a token.
    pub anonymous_roles: Vec<String>,
    /// True if a connection is closed when its token ends. The client may reconnect at once.
    pub close_on_expiry: bool,
    /// True if clients may show a new token for a living connection: `POST {hub}/refresh?id=…`.
    pub refresh: bool,
    /// True if negotiate gives tickets, so that no token stands in a URL. A ticket is good for the negotiated
    /// connection alone; other tokens in a query are refused then.
    pub tickets: bool,
    /// Clock difference that is tolerated between the signer of a token and this node.
    #[serde(rename = "leeway_seconds", deserialize_with = "seconds")]
    pub leeway: Leeway,
}

macro_rules! durations {
    ($($(#[$about:meta])* $name:ident = $default:expr;)*) => { $(
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct $name(pub Duration);

        impl Default for $name {
            fn default() -> Self {
                Self($default)
            }
        }

        impl From<Duration> for $name {
            fn from(duration: Duration) -> Self {
                Self(duration)
            }
        }
    )* };
}

durations! {
    /// A tolerated clock difference, 30 seconds unless set.
    Leeway = Duration::from_secs(30);
    /// Least time between two attempts to get a key set, 30 seconds unless set.
    KeyInterval = Duration::from_secs(30);
    /// Age at which a key set is got again, an hour unless set.
    KeyAge = Duration::from_secs(3600);
}

/// Shortest access key, in bytes: as long as the output of HS256.
const MIN_ACCESS_KEY_BYTES: usize = 32;

impl AuthOptions {
    /// The accepted access keys, the primary one first.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &[u8]> {
        [&self.access_key, &self.access_key_secondary]
            .into_iter()
            .flatten()
            .map(|key| key.expose_secret().as_bytes())
    }

    /// Returns whether some token could be valid.
    #[must_use]
    pub fn has_keys(&self) -> bool {
        self.access_key.is_some()
            || !self.key_files.is_empty()
            || self.jwks_file.is_some()
            || self.jwks_url.is_some()
    }

    /// Checks the access keys alone.
    pub(crate) fn check_access_keys(&self) -> Result<(), OptionError> {
        let fail = |key, problem: String| Err(OptionError { key, problem });
        let keys = [
            ("auth.access_key", &self.access_key),
            ("auth.access_key_secondary", &self.access_key_secondary),
        ];
        for (key, value) in keys {
            if let Some(length) = value.as_ref().map(|v| v.expose_secret().len())
                && length < MIN_ACCESS_KEY_BYTES
            {
                let problem = format!(
                    "has {length} bytes, at least {MIN_ACCESS_KEY_BYTES} are needed; try `openssl rand -base64 48`"
                );
                return fail(key, problem);
            }
        }
        if self.access_key.is_none() && self.access_key_secondary.is_some() {
            let problem = "is set, but auth.access_key is not".to_owned();
            return fail("auth.access_key_secondary", problem);
        }
        Ok(())
    }

    pub(super) fn check(&self) -> Result<(), OptionError> {
        let fail = |key, problem: String| Err(OptionError { key, problem });
        self.check_access_keys()?;
        if let Some(url) = &self.jwks_url
            && !is_trustworthy(url)
        {
            let problem = "must be an https URL: who can change the answer could sign tokens (http only for this machine)";
            return fail("auth.jwks_url", problem.to_owned());
        }
        if self.jwks_ca_file.is_some() && self.jwks_url.is_none() {
            return fail("auth.jwks_ca_file", "has no use without auth.jwks_url".to_owned());
        }
        if self.jwks_max_age.0 < self.jwks_interval.0 {
            let problem = "must be at least auth.jwks_interval_seconds".to_owned();
            return fail("auth.jwks_max_age_seconds", problem);
        }
        let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if let Some(name) = &self.cookie
            && (name.is_empty() || !name.chars().all(is_name))
        {
            let problem = format!("{name:?} is not a cookie's name: ASCII letters, digits, '-', '_' and '.'");
            return fail("auth.cookie", problem);
        }
        Ok(())
    }
}

/// Returns whether the connection is protected against changes on the way.
fn is_trustworthy(url: &str) -> bool {
    let Ok(uri) = url.parse::<axum::http::Uri>() else {
        return false;
    };
    match (uri.scheme_str(), uri.host()) {
        (Some("https"), Some(_)) => true,
        (Some("http"), Some(host)) => matches!(host, "127.0.0.1" | "[::1]" | "localhost"),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_setting_is_named() {
        let key = |change: fn(&mut AuthOptions)| {
            let mut options = AuthOptions::default();
            change(&mut options);
            options.check().err().map(|error| error.key)
        };
        assert_eq!(key(|_| {}), None);
        assert_eq!(
            key(|auth| auth.access_key = Some("short".into())),
            Some("auth.access_key")
        );
        assert_eq!(
            key(|auth| auth.access_key_secondary = Some("x".repeat(32).into())),
            Some("auth.access_key_secondary")
        );
        for url in ["http://idp.example/keys", "ftp://x", "keys", ""] {
            let auth = AuthOptions {
                jwks_url: Some(url.to_owned()),
                ..AuthOptions::default()
            };
            assert_eq!(auth.check().unwrap_err().key, "auth.jwks_url", "{url}");
        }
        assert_eq!(
            key(|auth| auth.jwks_url = Some("http://127.0.0.1:1/keys".to_owned())),
            None
        );
        assert_eq!(
            key(|auth| auth.jwks_ca_file = Some("ca.pem".into())),
            Some("auth.jwks_ca_file")
        );
        assert_eq!(
            key(|auth| auth.jwks_max_age = Duration::from_secs(1).into()),
            Some("auth.jwks_max_age_seconds")
        );
        assert_eq!(
            key(|auth| auth.cookie = Some("a b".to_owned())),
            Some("auth.cookie")
        );
    }
}
