//! The keys of tokens, which may change while the node runs.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use arc_swap::ArcSwap;
use jsonwebtoken::DecodingKey;
use secrecy::{ExposeSecret, SecretString};

use super::jwks::{KeySet, KeySource, LoadPace};
use super::keys::TokenKey;
use crate::options::{AuthOptions, OptionError};

/// The keys that tokens of clients and back ends are checked with. Cheap to clone; all clones change together.
///
/// ```
/// use hubcast::auth::TokenKeys;
/// use hubcast::options::AuthOptions;
///
/// let mut auth = AuthOptions::default();
/// auth.access_key = Some("the access key of last year, 32 bytes".into());
/// let keys = TokenKeys::new(&auth)?; // for `GatewayBuilder::token_keys`
///
/// // Both are accepted from now on, and new tokens are signed with the first one.
/// auth.access_key_secondary = auth.access_key.replace("the new access key, of at least 32 bytes".into());
/// keys.reload(&auth)?;
///
/// auth.access_key = Some("too short".into());
/// assert_eq!(keys.reload(&auth).unwrap_err().key, "auth.access_key"); // the former ones stay
/// # Ok::<(), hubcast::options::OptionError>(())
/// ```
#[derive(Clone)]
pub struct TokenKeys(Arc<Inner>);

struct Inner {
    fixed: ArcSwap<Fixed>,
    sets: Vec<Arc<KeySet>>,
}

/// The keys that settings and files name one by one.
pub(super) struct Fixed {
    /// Access keys and those of `auth.key_files`.
    pub(super) of_clients: Vec<TokenKey>,
    /// Access keys, for the tokens of back ends.
    pub(super) of_servers: Vec<DecodingKey>,
    /// The key that new tokens are signed with.
    pub(super) signing: Option<SecretString>,
}

impl TokenKeys {
    /// Takes the access keys, and reads the files of `auth.key_files` and `auth.jwks_file`.
    ///
    /// # Errors
    /// The first key that can't be used, by the setting that names it.
    pub fn new(options: &AuthOptions) -> Result<Self, OptionError> {
        let leeway = options.leeway.0.as_secs();
        Ok(Self(Arc::new(Inner {
            fixed: ArcSwap::from_pointee(fixed(options, leeway)?),
            sets: key_sets(options, leeway)?,
        })))
    }

    /// Goes on with other access keys and `auth.key_files`, and reads `auth.jwks_file` again. A key that is not among them any
    /// more opens nothing from now on; connections that came in with its tokens go on. All other settings stay.
    ///
    /// # Errors
    /// As for [`new`](Self::new); nothing has changed then.
    pub fn reload(&self, options: &AuthOptions) -> Result<(), OptionError> {
        let fixed = fixed(options, options.leeway.0.as_secs())?;
        let mut read = Vec::new();
        for set in &self.0.sets {
            let keys = set.read_again().map_err(|error| OptionError {
                key: "auth.jwks_file",
                problem: error.to_string(),
            })?;
            read.extend(keys.map(|keys| (set, keys)));
        }
        for (set, keys) in read {
            set.have(keys);
        }
        self.0.fixed.store(Arc::new(fixed));
        Ok(())
    }

    pub(super) fn fixed(&self) -> Arc<Fixed> {
        self.0.fixed.load_full()
    }

    pub(super) fn sets(&self) -> &[Arc<KeySet>] {
        &self.0.sets
    }
}

impl fmt::Debug for TokenKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenKeys").finish_non_exhaustive()
    }
}

fn fixed(options: &AuthOptions, leeway: u64) -> Result<Fixed, OptionError> {
    options.check_access_keys()?;
    let mut of_clients: Vec<_> = options.keys().map(|key| TokenKey::access(key, leeway)).collect();
    for path in &options.key_files {
        of_clients.push(read_key(path, leeway)?);
    }
    Ok(Fixed {
        of_clients,
        of_servers: options.keys().map(DecodingKey::from_secret).collect(),
        signing: options
            .access_key
            .clone()
            .filter(|key| !key.expose_secret().is_empty()),
    })
}

fn read_key(path: &Path, leeway: u64) -> Result<TokenKey, OptionError> {
    let fail = |problem: String| OptionError {
        key: "auth.key_files",
        problem: format!("{} {problem}", path.display()),
    };
    let pem = std::fs::read(path).map_err(|error| fail(format!("can't be read: {error}")))?;
    TokenKey::from_pem(&pem, leeway).map_err(|error| fail(error.to_string()))
}

fn key_sets(options: &AuthOptions, leeway: u64) -> Result<Vec<Arc<KeySet>>, OptionError> {
    let pace = LoadPace {
        interval: options.jwks_interval.0,
        max_age: options.jwks_max_age.0,
    };
    let mut sets = Vec::new();
    if let Some(path) = &options.jwks_file {
        let set = KeySet::of_file(path.clone(), pace, leeway).map_err(|error| OptionError {
            key: "auth.jwks_file",
            problem: error.to_string(),
        })?;
        sets.push(set);
    }
    if let Some(url) = &options.jwks_url {
        let fail = |key, problem: String| OptionError { key, problem };
        let url = url
            .parse()
            .map_err(|_| fail("auth.jwks_url", "is not a URL".to_owned()))?;
        let certificates = match &options.jwks_ca_file {
            Some(path) => Some(
                read_certificates(path)
                    .map_err(|error| fail("auth.jwks_ca_file", format!("{} {error}", path.display())))?,
            ),
            None => None,
        };
        let source = KeySource::url(url, certificates)
            .map_err(|error| fail("auth.jwks_url", error.without_url().to_string()))?;
        sets.push(KeySet::new(source, pace, leeway));
    }
    Ok(sets)
}

/// The reason why a file gives no certificates, in words that follow its name.
#[derive(Debug, thiserror::Error)]
enum CertificatesError {
    #[error("can't be read: {0}")]
    Read(#[from] std::io::Error),
    #[error("holds no certificates in PEM")]
    NoneInPem,
}

fn read_certificates(path: &Path) -> Result<Vec<reqwest::Certificate>, CertificatesError> {
    let pem = std::fs::read(path)?;
    match reqwest::Certificate::from_pem_bundle(&pem) {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        _ => Err(CertificatesError::NoneInPem),
    }
}
