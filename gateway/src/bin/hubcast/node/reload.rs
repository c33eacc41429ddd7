//! Handlers, their keys and the keys of tokens change while the node runs: the configuration is read again on SIGHUP.

use std::sync::Arc;

use hubcast::auth::TokenKeys;
use hubcast::options::OptionError;
use hubcast::upstream::{Upstream, UpstreamError};
use parking_lot::Mutex;
use secrecy::SecretString;
use tokio::signal::unix::Signal;

use crate::config::{Config, ConfigError};

/// The reason why the configuration was not taken over.
#[derive(Debug, thiserror::Error)]
enum ReloadError {
    /// It can't be read, or can't work.
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
    #[error(transparent)]
    Keys(#[from] OptionError),
}

/// The parts of a node that may change.
#[derive(Clone)]
pub(super) struct Reloadable {
    pub(super) upstream: Upstream,
    pub(super) keys: TokenKeys,
    /// The access key of a demo whose configuration has none.
    pub(super) demo_key: Arc<Mutex<Option<SecretString>>>,
}

impl Reloadable {
    pub(super) fn new(config: &Config) -> anyhow::Result<Self> {
        Ok(Self {
            upstream: config.upstream()?,
            keys: TokenKeys::new(&config.options.auth)?,
            demo_key: Arc::default(),
        })
    }

    /// Takes over all of a configuration that may change, or nothing: its keys were read and checked with it.
    fn reload(&self, config: &Config) -> Result<(), ReloadError> {
        let mut auth = config.options.auth.clone();
        if config.demo && auth.access_key.is_none() {
            auth.access_key = self.demo_key.lock().clone();
        }
        self.upstream.reload(&config.upstream_options())?;
        self.keys.reload(&auth)?;
        Ok(())
    }
}

/// Takes new handlers and keys at each signal. A configuration that can't work keeps the present ones, and is told in the log.
pub(super) async fn on_hangup(
    mut hangup: Signal,
    node: Reloadable,
    read: impl Fn() -> Result<Config, ConfigError>,
) {
    while hangup.recv().await.is_some() {
        let outcome = read().map_err(ReloadError::from);
        match outcome.and_then(|config| node.reload(&config).map(|()| config)) {
            Ok(config) => {
                tracing::info!(
                    handlers = config.upstream.len(),
                    "the handlers and the keys of tokens were read again; other settings take a restart"
                );
                for warning in config.warnings() {
                    tracing::warn!("{warning}");
                }
            }
            Err(error) => tracing::error!(
                reason = %error,
                "the configuration can't be used; the former handlers and keys stay"
            ),
        }
    }
}
