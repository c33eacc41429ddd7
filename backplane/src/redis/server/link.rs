//! One connection to the server, with the run of the server that it leads to.

use std::sync::Arc;

use redis::aio::MultiplexedConnection;
use redis::{Cmd, ErrorKind, PushKind, RedisError, RedisResult, ServerErrorKind, Value};
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::redis::script::calls::log::Renew;
use crate::redis::script::catalog::Scripts;
use crate::redis::script::invocation::Invocation;
use crate::redis::server::connector::{Take, within};
use crate::redis::server::endpoint::{Endpoint, Opened};
use crate::redis::server::info::master_info;
use crate::redis::server::replies::Trouble;
use crate::redis::server::run::Run;

/// A connection for commands. Many callers share it; their commands are sent one after another without waiting.
pub(in crate::redis) struct Link {
    pub(in crate::redis) connection: MultiplexedConnection,
    /// The scripts for the run of the server that this connection leads to.
    pub(in crate::redis) scripts: Scripts,
    /// The run, as the server named it when the connection was made.
    pub(in crate::redis) run: Run,
    /// Number of replicas that followed closely then.
    pub(in crate::redis) replicas: usize,
    /// True if the server is one of a cluster.
    sharded: bool,
    /// Cancelled when the connection is of no more use. Callers then stop waiting for answers on it: with the last of
    /// them it closes, and what it has not sent yet is never sent.
    pub(in crate::redis) broken: CancellationToken,
}

impl Link {
    pub(in crate::redis) async fn open(endpoint: &Endpoint) -> RedisResult<Self> {
        let opened = endpoint.connect(notice_end).await?;
        let link = Self::over(endpoint, &opened, opened.listener.clone());
        let mut connection = opened.connection;
        within(endpoint.connector.bound(), link.scripts.load(&mut connection)).await?;
        Ok(link)
    }

    /// A link over a connection that was opened. `broken` is cancelled at the connection's end. The scripts are loaded when
    /// the server first lacks one.
    pub(in crate::redis) fn over<T>(
        endpoint: &Endpoint,
        opened: &Opened<T>,
        broken: CancellationToken,
    ) -> Self {
        Self {
            connection: opened.connection.clone(),
            scripts: Scripts::for_run(&opened.info.run, endpoint.publish()),
            run: opened.info.run.clone(),
            replicas: opened.info.replicas,
            sharded: endpoint.sharded,
            broken,
        }
    }

    /// The present run of the server at the other end; an error where it is no master any more.
    pub(in crate::redis) async fn identity_now(&self) -> RedisResult<Run> {
        let info = master_info(&mut self.connection.clone(), self.sharded).await?;
        Ok(info.run)
    }

    /// Waits for an answer on this connection, or for the connection's end.
    pub(in crate::redis) async fn unless_broken<T>(
        &self,
        asked: impl Future<Output = RedisResult<T>>,
    ) -> RedisResult<T> {
        tokio::select! {
            biased;
            outcome = asked => outcome,
            () = self.broken.cancelled() => Err((ErrorKind::Io, "the connection was given up").into()),
        }
    }

    /// Calls a script of the log `log`.
    pub(in crate::redis) async fn call(
        &self,
        script: &impl Fn(&Scripts) -> Cmd,
        log: &str,
    ) -> RedisResult<Value> {
        match self.send(script).await {
            Err(error) => self.again(error, script, Some(log)).await,
            answer => answer,
        }
    }

    /// Repeats the call of a script that was refused, after loading the scripts or renewing the log's epoch.
    pub(in crate::redis) async fn again(
        &self,
        mut refused: RedisError,
        script: &impl Fn(&Scripts) -> Cmd,
        log: Option<&str>,
    ) -> RedisResult<Value> {
        for _ in 0..REFUSALS {
            match (Trouble::of(&refused), log) {
                (Trouble::NoScript, _) => self.scripts.load(&mut self.connection.clone()).await?,
                (Trouble::StaleRun(stored), Some(log)) => self.renew(log, &stored).await?,
                _ => return Err(refused),
            }
            match self.send(script).await {
                Err(error) => refused = error,
                answer => return answer,
            }
        }
        Err(refused)
    }

    async fn send(&self, script: &impl Fn(&Scripts) -> Cmd) -> RedisResult<Value> {
        script(&self.scripts)
            .query_async(&mut self.connection.clone())
            .await
    }

    /// Begins a new epoch of a log that names another run than this connection's, where that is still the server's.
    async fn renew(&self, log: &str, stored: &str) -> RedisResult<()> {
        // A log that was begun under a newer name of this run must not begin again under an older one.
        if self.run != self.identity_now().await? {
            self.broken.cancel();
            let problem = "the server names its run differently by now";
            return Err((ErrorKind::Server(ServerErrorKind::ReadOnly), problem).into());
        }
        let renew = Invocation::of(Renew {
            log: log.to_owned(),
            run: stored,
        });
        let begun: Value = self.send(&|scripts: &Scripts| renew.command(scripts)).await?;
        if begun == Value::Int(1) {
            info!(log, run = ?self.run, "the log was of another run of the server; a new epoch begins");
        }
        Ok(())
    }
}

/// Most repetitions of a call after refusals whose cause was removed.
const REFUSALS: usize = 3;

/// Returns a receiver for the pushes of a connection without subscriptions, and a token that is cancelled at its end.
pub(in crate::redis) fn notice_end() -> (CancellationToken, Take) {
    let ended = CancellationToken::new();
    let reported = ended.clone();
    let take: Take = Box::new(move |info| {
        if info.kind == PushKind::Disconnection {
            reported.cancel();
        }
    });
    (ended, take)
}

/// A link that callers share.
pub(in crate::redis) type SharedLink = Arc<Link>;
