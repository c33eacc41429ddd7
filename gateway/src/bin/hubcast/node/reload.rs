//! Handlers and their keys change while the node runs: the configuration is read again on SIGHUP.

use hubcast::upstream::Upstream;
use tokio::signal::unix::Signal;

use crate::config::{Config, ConfigError};

/// Takes new handlers at each signal. A configuration that can't work keeps the present ones, and is told in the log.
pub(super) async fn on_hangup(
    mut hangup: Signal,
    upstream: Upstream,
    read: impl Fn() -> Result<Config, ConfigError>,
) {
    while hangup.recv().await.is_some() {
        let outcome = read().map_err(|error| error.to_string());
        let outcome = outcome.and_then(|config| {
            upstream
                .reload(&config.upstream_options())
                .map_err(|error| error.to_string())?;
            Ok(config.upstream.len())
        });
        match outcome {
            Ok(handlers) => tracing::info!(
                handlers,
                "the handlers of the configuration were read again; other keys take a restart"
            ),
            Err(reason) => tracing::error!(
                reason,
                "the configuration can't be used; the former handlers stay"
            ),
        }
    }
}
