//! Keys that change: a JSON Web Key Set in a file or behind a URL.
//!
//! The keys are kept. They are loaded again when a token names one that is not among them, and when they are old; at most
//! once in [`LoadPace::interval`], by one task, within bounds of time and size. When that fails, the keys stay as they are.
//! A node that has never had them tries on by itself, more often in the beginning: see [`KeySet::fetch`].

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep, timeout};

use super::keys::{KeyError, TokenKey, read_set};

/// How long loading may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// Time between the first two attempts to have keys at all.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// Largest set, in bytes.
const MAX_BYTES: usize = 256 * 1024;

/// The source of a key set.
#[derive(Debug)]
pub(super) enum KeySource {
    File(PathBuf),
    Url {
        url: reqwest::Url,
        client: reqwest::Client,
    },
}

/// How often a set is loaded.
#[derive(Debug, Clone, Copy)]
pub(super) struct LoadPace {
    /// Least time between two attempts.
    pub(super) interval: Duration,
    /// Age at which keys are loaded again.
    pub(super) max_age: Duration,
}

/// The keys of one source.
pub(super) struct KeySet {
    source: KeySource,
    pace: LoadPace,
    leeway: u64,
    keys: ArcSwap<Vec<TokenKey>>,
    /// The last attempt and the last success.
    attempts: Mutex<Attempts>,
    /// The reason why there are no keys; `None` once they were loaded.
    missing: ArcSwapOption<String>,
}

#[derive(Default, Clone, Copy)]
struct Attempts {
    last: Option<Instant>,
    loaded: Option<Instant>,
}

/// The reason why a set could not be loaded.
#[derive(Debug, thiserror::Error)]
pub(super) enum LoadError {
    #[error("it can't be read: {0}")]
    Read(#[from] std::io::Error),
    #[error("it can't be fetched: {0}")]
    Fetch(#[from] reqwest::Error),
    #[error("the answer has status {0}")]
    Status(u16),
    #[error("it is larger than {MAX_BYTES} bytes")]
    TooLarge,
    #[error("it was not there within {PATIENCE:?}")]
    TooSlow,
    #[error("it {0}")]
    Keys(#[from] KeyError),
}

/// The reason why a set in a file could not be loaded, with the file's name.
#[derive(Debug, thiserror::Error)]
#[error("{}: {error}", .path.display())]
pub(super) struct FileError {
    path: PathBuf,
    error: LoadError,
}

impl KeySource {
    /// A client for one server that answers at once, or not at all.
    pub(super) fn url(
        url: reqwest::Url,
        certificates: Option<Vec<reqwest::Certificate>>,
    ) -> reqwest::Result<Self> {
        let mut client = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .pool_max_idle_per_host(0)
            .timeout(PATIENCE);
        if let Some(certificates) = certificates {
            client = client.tls_certs_only(certificates);
        }
        Ok(Self::Url {
            url,
            client: client.build()?,
        })
    }

    async fn load(&self, leeway: u64) -> Result<Vec<TokenKey>, LoadError> {
        match self {
            Self::File(path) => {
                let path = path.clone();
                let read = tokio::task::spawn_blocking(move || read_file(&path));
                let bytes = read.await.map_err(std::io::Error::other)??;
                Ok(read_set(&bytes, true, leeway)?)
            }
            // A shared key that can be fetched is no secret.
            Self::Url { url, client } => Ok(read_set(&fetch(client, url).await?, false, leeway)?),
        }
    }

    /// The name for log lines. The rest of a URL may hold secrets.
    fn name(&self) -> String {
        match self {
            Self::File(path) => path.display().to_string(),
            Self::Url { url, .. } => url.host_str().unwrap_or_default().to_owned(),
        }
    }
}

fn read_file(path: &std::path::Path) -> Result<Vec<u8>, LoadError> {
    use std::io::Read;
    let mut bytes = Vec::new();
    let limit = u64::try_from(MAX_BYTES).unwrap_or(u64::MAX).saturating_add(1);
    std::fs::File::open(path)?.take(limit).read_to_end(&mut bytes)?;
    if bytes.len() > MAX_BYTES {
        return Err(LoadError::TooLarge);
    }
    Ok(bytes)
}

fn read_keys(path: &std::path::Path, leeway: u64) -> Result<Vec<TokenKey>, FileError> {
    let read = read_file(path).and_then(|bytes| Ok(read_set(&bytes, true, leeway)?));
    read.map_err(|error| FileError {
        path: path.to_owned(),
        error,
    })
}

async fn fetch(client: &reqwest::Client, url: &reqwest::Url) -> Result<Vec<u8>, LoadError> {
    let request = client
        .get(url.clone())
        .header("accept", "application/jwk-set+json, application/json");
    let mut response = request.send().await.map_err(reqwest::Error::without_url)?;
    if response.status() != reqwest::StatusCode::OK {
        return Err(LoadError::Status(response.status().as_u16()));
    }
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(reqwest::Error::without_url)? {
        if bytes.len() + chunk.len() > MAX_BYTES {
            return Err(LoadError::TooLarge);
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

impl KeySet {
    /// A set that is loaded when the first token comes.
    pub(super) fn new(source: KeySource, pace: LoadPace, leeway: u64) -> Arc<Self> {
        Arc::new(Self {
            source,
            pace,
            leeway,
            keys: ArcSwap::default(),
            attempts: Mutex::default(),
            missing: ArcSwapOption::from_pointee("they were not asked for yet".to_owned()),
        })
    }

    /// A set in a file, which must be right from the beginning.
    pub(super) fn of_file(path: PathBuf, pace: LoadPace, leeway: u64) -> Result<Arc<Self>, FileError> {
        let keys = read_keys(&path, leeway)?;
        let set = Self::new(KeySource::File(path), pace, leeway);
        set.have(keys);
        Ok(set)
    }

    /// The keys of the file as they are now, without keeping them; `None` where they are not in a file.
    pub(super) fn read_again(&self) -> Result<Option<Vec<TokenKey>>, FileError> {
        match &self.source {
            KeySource::File(path) => read_keys(path, self.leeway).map(Some),
            KeySource::Url { .. } => Ok(None),
        }
    }

    pub(super) fn have(&self, keys: Vec<TokenKey>) {
        self.keys.store(Arc::new(keys));
        self.missing.store(None);
    }

    /// The source of the keys and the reason why there are none; `None` once they were loaded.
    pub(super) fn missing(&self) -> Option<String> {
        let reason = self.missing.load_full()?;
        Some(format!("the key set of {}: {reason}", self.source.name()))
    }

    /// Loads the keys for the first time, with as many attempts as it takes.
    pub(super) async fn fetch(self: Arc<Self>) {
        let mut pause = FIRST_PAUSE.min(self.pace.interval);
        while self.missing.load().is_some() {
            let _ = self.load_after(Duration::ZERO).await; // a panic there is a failed attempt
            if self.missing.load().is_none() {
                return;
            }
            sleep(pause).await;
            pause = (pause * 2).min(self.pace.interval);
        }
    }

    /// The keys as far as they are known now.
    pub(super) fn keys(&self) -> Arc<Vec<TokenKey>> {
        self.keys.load_full()
    }

    /// Loads the keys if it is time to, for a token that names a key. Waits only where the token can't be checked without.
    pub(super) async fn freshen(self: &Arc<Self>, key_id: Option<&str>) {
        let keys = self.keys();
        let is_known = match key_id {
            Some(id) => keys.iter().any(|key| key.is_named(id)),
            None => !keys.is_empty(),
        };
        if is_known {
            // The lock is held by the task that loads the keys already.
            let is_old = self
                .attempts
                .try_lock()
                .is_ok_and(|attempts| attempts.loaded.is_none_or(|at| at.elapsed() >= self.pace.max_age));
            if is_old {
                drop(self.load_after(self.pace.interval));
            }
            return;
        }
        let _ = self.load_after(self.pace.interval).await; // a panic there is a failed attempt
    }

    /// Loads the keys, unless that was tried within a time. In a task of its own: clients that go away in between must not
    /// keep others from their keys. It ends within [`PATIENCE`].
    fn load_after(self: &Arc<Self>, interval: Duration) -> tokio::task::JoinHandle<()> {
        let set = Arc::clone(self);
        tokio::spawn(async move {
            let mut attempts = set.attempts.lock().await;
            if attempts.last.is_some_and(|at| at.elapsed() < interval) {
                return;
            }
            attempts.last = Some(Instant::now());
            let loading = timeout(PATIENCE, set.source.load(set.leeway)).await;
            match loading.unwrap_or(Err(LoadError::TooSlow)) {
                Ok(keys) => {
                    tracing::debug!(source = set.source.name(), keys = keys.len(), "keys loaded");
                    set.have(keys);
                    attempts.loaded = Some(Instant::now());
                }
                Err(error) => {
                    let kept = set.keys().len();
                    let error = with_causes(&error);
                    tracing::warn!(
                        source = set.source.name(),
                        kept,
                        error,
                        "the key set can't be loaded; the keys that were loaded before stay in use"
                    );
                    set.missing
                        .rcu(|missing| missing.as_ref().map(|_| Arc::new(error.clone())));
                }
            }
        })
    }
}

/// An error with its causes: the first text of an HTTP client's error is rarely the reason.
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
#[path = "jwks_tests.rs"]
mod tests;
