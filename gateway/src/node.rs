//! A node of the `hubcast` binary: from its configuration to the end of its drain.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use hubcast_backplane::memory::MemoryBackplane;
use hubcast_backplane::redis::{RedisBackplane, RedisOptions};
use hubcast_backplane::{Backplane, NodeId};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use secrecy::{ExposeSecret, SecretString};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::gateway::{Drained, Gateway};
use crate::{builtin, demo, http};

/// What is known of a node as soon as it listens.
pub(crate) struct Listening {
    pub(crate) address: SocketAddr,
    /// Where operators ask, if that is another one.
    pub(crate) admin: Option<SocketAddr>,
    /// The key that the demo has where none is configured.
    pub(crate) demo_key: Option<SecretString>,
}

/// Runs until SIGTERM or SIGINT, then drains. `ready` is told the bound address.
pub(crate) async fn run(config: Config, ready: impl FnOnce(Listening)) -> anyhow::Result<()> {
    raise_file_limit();
    let mut stopped = Stopped::new().context("signals can't be handled")?;
    let backplane = backplane(&config).await?;
    let mut options = config.options.clone();
    let mut builder = Gateway::builder().backplane(Arc::clone(&backplane));
    let mut pages = Router::new();
    let mut demo_key = None;
    if config.demo {
        if options.auth.access_key.is_none() {
            demo_key = Some(demo::derived_key(&backplane.cluster_secret()));
            options.auth.access_key.clone_from(&demo_key);
            builder = builder.lax(); // whoever tries things out has no secret to keep
        }
        pages = options.auth.access_key.clone().map_or(pages, demo::routes);
        builder = builder.hub(demo::hub());
    }
    for (name, settings) in config.builtin_hubs().map_err(anyhow::Error::msg)? {
        builder = builder.hub(builtin::hub(&name, settings));
    }
    let gateway = builder.options(options).build().await?;
    if let Some(warning) = gateway.own_warning() {
        tracing::warn!("{warning}");
    }
    let router = gateway.router_with(pages);

    let listener = TcpListener::bind(&config.listen).await.with_context(|| {
        format!(
            "listen: can't bind {}; is another process using it?",
            config.listen
        )
    })?;
    let address = listener
        .local_addr()
        .context("listen: the bound address is unknown")?;
    let admin = Admin::open(&config, &gateway).await?;
    ready(Listening {
        address,
        admin: admin.as_ref().map(|admin| admin.address),
        demo_key,
    });

    let stop = CancellationToken::new();
    let serving = tokio::spawn(http::serve(
        listener,
        router,
        gateway.rules(),
        stop.clone(),
        config.drain.deadline,
    ));
    stopped.wait().await;
    // Probes and metrics are answered to the end.
    let _admin = admin;
    tokio::select! {
        outcome = drain(&config, &gateway, &stop, serving) => outcome,
        () = stopped.wait() => anyhow::bail!("stopped by a second signal before the drain was done"),
    }
}

/// The listener of `server.admin_listen`. Ends when dropped.
struct Admin {
    address: SocketAddr,
    serving: tokio::task::JoinHandle<()>,
}

impl Admin {
    async fn open(config: &Config, gateway: &Gateway) -> anyhow::Result<Option<Self>> {
        let Some(listen) = &config.options.server.admin_listen else {
            return Ok(None);
        };
        let listener = TcpListener::bind(listen).await.with_context(|| {
            format!("server.admin_listen: can't bind {listen}; is another process using it?")
        })?;
        let address = listener
            .local_addr()
            .context("server.admin_listen: the bound address is unknown")?;
        let rules = http::Rules {
            doors: None,
            ..gateway.rules()
        };
        let (stop, deadline) = (CancellationToken::new(), config.drain.deadline);
        let serving = tokio::spawn(http::serve(
            listener,
            gateway.admin_router(),
            rules,
            stop,
            deadline,
        ));
        Ok(Some(Self { address, serving }))
    }
}

impl Drop for Admin {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// Leaves in stages, with a deadline: load balancers first, then clients, then requests that are being answered.
async fn drain(
    config: &Config,
    gateway: &Gateway,
    stop: &CancellationToken,
    serving: tokio::task::JoinHandle<()>,
) -> anyhow::Result<()> {
    tracing::info!(notice = ?config.drain.notice, deadline = ?config.drain.deadline, "draining");
    gateway.begin_drain();
    sleep(config.drain.notice).await;
    stop.cancel();
    let drained = gateway.shutdown(config.drain.deadline).await;
    let _ = timeout(Duration::from_secs(2), serving).await;
    match drained {
        Drained::Clean => tracing::info!("drained"),
        Drained::Abandoned { tasks } => {
            tracing::warn!(tasks, "the drain's deadline came before every client had left");
        }
    }
    Ok(())
}

async fn backplane(config: &Config) -> anyhow::Result<Arc<dyn Backplane>> {
    let Some(options) = redis_options(config)? else {
        let node = node_id(config)?.map_or_else(|| NodeId::parse("local"), Ok)?;
        return Ok(Arc::new(MemoryBackplane::new(node)));
    };
    let backplane = RedisBackplane::connect(options).await.context("redis")?;
    Ok(Arc::new(backplane))
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
    options.history_connections = settings.history_connections;
    options.command_timeout = settings.command_timeout;
    options.outage_wait = config.options.timeouts.outage;
    options.heartbeat_interval = settings.heartbeat;
    options.lease = settings.lease;
    options.min_replicas = settings.min_replicas;
    options.ca_file.clone_from(&settings.ca_file);
    Ok(Some(options))
}

/// A name of its own for each process: one that is started again must not be taken for the owner of what it had before.
fn of_this_process(node: &NodeId) -> anyhow::Result<NodeId> {
    let life = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    NodeId::parse(format!("{node}-{:x}", life.as_millis())).context("node_id")
}

/// Every connection is a file, and the soft limit that processes start with is often 1,024.
fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    if limit.current == limit.maximum {
        return;
    }
    if let Err(error) = setrlimit(
        Resource::Nofile,
        Rlimit {
            current: limit.maximum,
            maximum: limit.maximum,
        },
    ) {
        tracing::warn!(%error, current = limit.current, "the limit of open files can't be raised");
    }
}

/// The signals that ask a process to end.
struct Stopped {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

impl Stopped {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn wait(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
