//! A node of the `hubcast` binary: from its configuration to the end of its drain.

mod listeners;
mod reload;
mod start;

use std::net::SocketAddr;

use anyhow::Context;
use hubcast::Gateway;
use hubcast::drain::Drained;
use hubcast::server::{Serving, Starting};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use secrecy::SecretString;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::sleep;

use self::listeners::{Listeners, PATIENCE};
use self::reload::Reloadable;
pub(crate) use self::start::{Unusable, redis_options};
use crate::config::{Config, ConfigError};

/// Events of a node that scripts and people should know.
pub(crate) enum News {
    /// The node listens. Unless something that it needs is away, it serves in the same moment.
    Listening {
        address: SocketAddr,
        /// The address for operators, if that is another one.
        admin: Option<SocketAddr>,
    },
    /// The node serves.
    Serving {
        address: SocketAddr,
        /// The key that the demo has where none is configured.
        demo_key: Option<SecretString>,
    },
}

/// Runs until SIGTERM or SIGINT, then drains. On SIGHUP `read` gives the configuration of which handlers and keys of
/// tokens are taken.
pub(crate) async fn run(
    config: Config,
    read: impl Fn() -> Result<Config, ConfigError> + Send + 'static,
    tell: impl Fn(News),
) -> anyhow::Result<()> {
    raise_file_limit();
    let hangup = signal(SignalKind::hangup()).context("signals can't be handled")?;
    let parts = Reloadable::new(&config)?;
    let reloading = tokio::spawn(reload::on_hangup(hangup, parts.clone(), read));
    let outcome = serve(&config, &parts, tell).await;
    reloading.abort();
    outcome
}

async fn serve(config: &Config, parts: &Reloadable, tell: impl Fn(News)) -> anyhow::Result<()> {
    let mut stopped = Stopped::new().context("signals can't be handled")?;
    let listeners = Listeners::bind(config).await?;
    let (address, admin) = (listeners.address(), listeners.admin());
    let starting = Starting::new();
    let waiting = listeners.serve_starting(config, &starting);
    let mut unreported = Some(News::Listening { address, admin });
    let mut listens = || unreported.take().into_iter().for_each(&tell);
    let started = tokio::select! {
        started = start::start(config, &starting, parts, &mut listens) => started?,
        () = stopped.wait() => {
            tracing::info!("stopped before the node had started");
            waiting.iter().for_each(Serving::stop);
            for serving in waiting {
                serving.ended(PATIENCE).await;
            }
            return Ok(());
        }
    };
    let gateway = started.gateway;
    if let Some(warning) = gateway.warning() {
        tracing::warn!("{warning}");
    }
    let (clients, _operators) = listeners.serve(&gateway, started.pages, config.drain.deadline); // those are answered to the end
    waiting.iter().for_each(Serving::stop);
    listens();
    tell(News::Serving {
        address,
        demo_key: started.demo_key,
    });
    stopped.wait().await;
    tokio::select! {
        () = drain(config, &gateway, clients) => Ok(()),
        () = stopped.wait() => anyhow::bail!("stopped by a second signal before the drain was done"),
    }
}

/// Leaves in stages, with a deadline: load balancers first, then clients, then requests that are being answered.
async fn drain(config: &Config, gateway: &Gateway, clients: Serving) {
    tracing::info!(notice = ?config.drain.notice, deadline = ?config.drain.deadline, "draining");
    gateway.begin_drain();
    sleep(config.drain.notice).await;
    clients.stop();
    let drained = gateway.shutdown(config.drain.deadline).await;
    clients.ended(PATIENCE).await;
    match drained {
        Drained::Clean => tracing::info!("drained"),
        Drained::Abandoned { tasks } => {
            tracing::warn!(tasks, "the drain's deadline came before every client had left");
        }
    }
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

/// The signals that end a process.
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
