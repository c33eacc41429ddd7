//! Starts a node from a configuration, however long the services that it needs are away.
//!
//! Only an error of the configuration ends the process. Other errors pass: the node says what it waits for, and tries
//! on.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use hubcast::server::Starting;
use hubcast::{Error, Gateway};
use hubcast_backplane::memory::MemoryBackplane;
use hubcast_backplane::redis::{RedisBackplane, RedisOptions};
use hubcast_backplane::{Backplane, BackplaneError, NodeId};
use secrecy::{ExposeSecret, SecretString};
use tokio::time::{Instant, sleep, timeout};
use tracing::{info, warn};

use super::reload::Reloadable;
use crate::config::Config;
use crate::{builtin, demo};

/// Time between two attempts, at first and at most.
const PAUSES: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));
/// Time between two lines of the log that say the same.
const SAY_AGAIN: Duration = Duration::from_secs(60);

/// A node that can serve.
pub(super) struct Started {
    pub(super) gateway: Gateway,
    /// Pages besides the gateway's own.
    pub(super) pages: Router,
    /// The key that the demo has where none is configured.
    pub(super) demo_key: Option<SecretString>,
}

/// The configuration, or a server that it names, is wrong: starting again would fail in the same way.
#[derive(Debug, thiserror::Error)]
#[error("{0:#}")]
pub(crate) struct Unusable(anyhow::Error);

/// The reason why an attempt to start failed.
enum AttemptError {
    /// Something is away, in words.
    Away(String),
    /// No other attempt would go better.
    ForGood(anyhow::Error),
}

/// Starts a node, with as many attempts as it takes. `waits` is called for each that failed.
///
/// # Errors
/// [`Unusable`]
pub(super) async fn start(
    config: &Config,
    starting: &Starting,
    parts: &Reloadable,
    mut waits: impl FnMut(),
) -> anyhow::Result<Started> {
    let (begun, mut said) = (Instant::now(), None);
    let mut pause = PAUSES.0;
    loop {
        let reason = match attempt(config, starting, parts).await {
            Ok(started) => {
                if said.is_some() {
                    info!(waited = ?begun.elapsed(), "the node has started");
                }
                return Ok(started);
            }
            Err(AttemptError::ForGood(error)) => return Err(Unusable(error).into()),
            Err(AttemptError::Away(reason)) => reason,
        };
        if starting.waits(&reason) || said.is_none_or(|said: Instant| said.elapsed() >= SAY_AGAIN) {
            warn!(
                reason,
                "the node can't start yet; it keeps trying, and /readyz answers 503 until then"
            );
            said = Some(Instant::now());
        }
        waits();
        sleep(jittered(pause)).await;
        pause = (pause * 2).min(PAUSES.1);
    }
}

async fn attempt(config: &Config, starting: &Starting, parts: &Reloadable) -> Result<Started, AttemptError> {
    let backplane = backplane(config).await?;
    let built = build(config, starting, parts, &backplane).await;
    if built.is_err() {
        // The next attempt is another node.
        let _ = timeout(Duration::from_secs(2), backplane.shutdown()).await;
    }
    built
}

async fn build(
    config: &Config,
    starting: &Starting,
    parts: &Reloadable,
    backplane: &Arc<dyn Backplane>,
) -> Result<Started, AttemptError> {
    let mut options = config.options.clone();
    let mut builder = Gateway::builder()
        .backplane(Arc::clone(backplane))
        .drain_rate(config.drain.rate_per_second)
        .drain_calls(config.drain.calls)
        .token_keys(parts.keys.clone())
        .started(starting);
    let mut pages = Router::new();
    let mut demo_key = None;
    if config.demo {
        if options.auth.access_key.is_none() {
            demo_key = Some(demo::derived_key(&backplane.cluster_secret()));
            parts.demo_key.lock().clone_from(&demo_key);
            options.auth.access_key.clone_from(&demo_key);
            let keys = parts.keys.reload(&options.auth);
            keys.map_err(|error| AttemptError::ForGood(error.into()))?;
            builder = builder.any_audience(); // a demo has no secret to keep
        }
        pages = options.auth.access_key.clone().map_or(pages, demo::routes);
        builder = builder.hub(demo::hub());
    }
    let hubs = config
        .builtin_hubs()
        .map_err(|error| AttemptError::ForGood(anyhow::Error::msg(error)))?;
    for (name, settings) in hubs {
        builder = builder.hub(builtin::hub_with(&name, settings, &parts.upstream));
    }
    let (upstream, settings) = (parts.upstream.clone(), options.hubs.clone());
    let template = move |name: &str| builtin::hub_with(name, settings.clone(), &upstream);
    let gateway = builder
        .undeclared_hubs(config.undeclared_hubs, template)
        .options(options)
        .build()
        .await
        .map_err(|error| match error {
            Error::Backplane(error) => AttemptError::of(config, error),
            other => AttemptError::ForGood(other.into()),
        })?;
    Ok(Started {
        gateway,
        pages,
        demo_key,
    })
}

async fn backplane(config: &Config) -> Result<Arc<dyn Backplane>, AttemptError> {
    let Some(mut options) = redis_options(config).map_err(AttemptError::ForGood)? else {
        let node = node_id(config).map_err(AttemptError::ForGood)?;
        let node = node.map_or_else(|| NodeId::parse("local"), Ok);
        let node = node.map_err(|error| AttemptError::ForGood(error.into()))?;
        return Ok(Arc::new(MemoryBackplane::new(node)));
    };
    options.connect_wait = Some(Duration::ZERO); // this is tried again and again anyway
    let connected = RedisBackplane::connect(options).await;
    Ok(Arc::new(
        connected.map_err(|error| AttemptError::of(config, error))?,
    ))
}

impl AttemptError {
    fn of(config: &Config, error: BackplaneError) -> Self {
        let redis = redis_options(config)
            .ok()
            .flatten()
            .map(|options| options.address());
        let redis = redis.unwrap_or_default();
        match error {
            BackplaneError::Config { .. } => {
                Self::ForGood(anyhow::Error::new(error).context(format!("redis ({redis})")))
            }
            BackplaneError::Unavailable { reason, .. } => {
                Self::Away(format!("redis ({redis}) can't be reached: {reason}"))
            }
            other => Self::Away(format!("redis ({redis}): {other}")),
        }
    }
}

fn node_id(config: &Config) -> anyhow::Result<Option<NodeId>> {
    let node = config.node_id.as_deref().map(NodeId::parse);
    node.transpose().context("node_id")
}

/// How Redis is used; nothing where none is set.
pub(crate) fn redis_options(config: &Config) -> anyhow::Result<Option<RedisOptions>> {
    let Some(url) = &config.redis else {
        return Ok(None);
    };
    let mut options = RedisOptions::parse(url.expose_secret()).context("redis")?;
    if let Some(node) = node_id(config)? {
        options.node = of_this_process(&node)?;
    }
    let settings = &config.backplane;
    options.prefix.clone_from(&settings.key_prefix);
    options.pool_size = settings.pool_size;
    options.batch_interval = Duration::from_micros(settings.batch_interval_micros as u64);
    options.history_connections = settings.history_connections;
    options.command_timeout = settings.command_timeout;
    options.outage_wait = config.options.timeouts.outage;
    options.heartbeat_interval = settings.heartbeat;
    options.lease = settings.lease;
    options.min_replicas = settings.min_replicas;
    options.ca_file.clone_from(&settings.ca_file);
    Ok(Some(options))
}

/// A name of its own for each attempt: one that is started again must not be taken for the owner of its former
/// connections.
fn of_this_process(node: &NodeId) -> anyhow::Result<NodeId> {
    let life = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    NodeId::parse(format!("{node}-{:x}", life.as_millis())).context("node_id")
}

/// Between half of a time and all of it, so that nodes don't try in step.
fn jittered(time: Duration) -> Duration {
    let random = RandomState::new().hash_one(0_u8) % 512;
    time.mul_f64(0.5 + f64::from(u16::try_from(random).unwrap_or_default()) / 1024.0)
}
