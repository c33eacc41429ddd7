//! One connection to the server, with the run of the server that it leads to.

use std::sync::Arc;

use redis::aio::MultiplexedConnection;
use redis::{Cmd, ErrorKind, PushKind, RedisError, RedisResult, ServerErrorKind, Value};
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::error::BackplaneError;
use crate::redis::options::config;
use crate::redis::script::catalog::{Invocation, Name, Scripts};
use crate::redis::server::connector::{Take, within};
use crate::redis::server::endpoint::Endpoint;
use crate::redis::server::info::master_info;
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
    /// Whether the server is one of a cluster.
    sharded: bool,
    /// Cancelled when the connection is of no more use. Callers then stop waiting for answers on it: with the last of
    /// them it closes, and what it has not sent yet is never sent.
    pub(in crate::redis) broken: CancellationToken,
}

impl Link {
    pub(in crate::redis) async fn open(endpoint: &Endpoint) -> RedisResult<Self> {
        let mut opened = endpoint.connect(notice_end).await?;
        let scripts = Scripts::for_run(&opened.info.run, endpoint.publish());
        let loading = scripts.load(&mut opened.connection);
        within(endpoint.connector.bound(), loading).await?;
        Ok(Self {
            connection: opened.connection,
            scripts,
            run: opened.info.run,
            replicas: opened.info.replicas,
            sharded: endpoint.sharded,
            broken: opened.listener,
        })
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
        let renew = Invocation::new(Name::Renew, vec![log.to_owned()]).arg(stored.to_owned());
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
    let told = ended.clone();
    let take: Take = Box::new(move |info| {
        if info.kind == PushKind::Disconnection {
            told.cancel();
        }
    });
    (ended, take)
}

/// The meaning of an error of the server or of the connection to it.
#[derive(Debug)]
pub(in crate::redis) enum Trouble {
    /// The connection is of no more use; the command may have been carried out.
    Lost(String),
    /// The server can't carry out commands now; it did not carry out this one.
    NotNow(String),
    /// As [`NotNow`](Self::NotNow), and another connection would not help: the cluster or its replicas are not ready.
    Wait(String),
    /// Another server of the cluster has the key, or will have it in a moment; this one carried nothing out.
    Moved(String),
    /// The server forgot the scripts; it did not carry out this one.
    NoScript,
    /// The log was last used in this other run of the server; the script was not carried out.
    StaleRun(String),
    /// Trying again is of no use.
    Final(BackplaneError),
}

impl Trouble {
    pub(in crate::redis) fn of(error: &RedisError) -> Self {
        if matches!(error.code(), Some("WRONGPASS" | "NOAUTH")) {
            return Self::refused_user(error);
        }
        if error.code() == Some("NOPERM") {
            return Self::Final(config(format!(
                "the Redis server does not permit this user all that is needed: {error}"
            )));
        }
        if error.code() == Some("STALERUN") {
            return Self::StaleRun(error.detail().unwrap_or_default().to_owned());
        }
        if error.code() == Some("NOREPLICAS") {
            return Self::Wait(error.to_string());
        }
        match error.kind() {
            ErrorKind::Server(ServerErrorKind::NoScript) => Self::NoScript,
            ErrorKind::Server(
                ServerErrorKind::ReadOnly | ServerErrorKind::BusyLoading | ServerErrorKind::MasterDown,
            ) => Self::NotNow(error.to_string()),
            ErrorKind::Server(ServerErrorKind::ClusterDown | ServerErrorKind::TryAgain) => {
                Self::Wait(error.to_string())
            }
            // While a slot moves, its server refuses commands whose keys are on both servers. Commands that it
            // redirects wait as well: carried out there before the slot has moved, each server would begin an epoch of
            // its own.
            ErrorKind::Server(ServerErrorKind::Moved | ServerErrorKind::Ask) => {
                Self::Moved(error.to_string())
            }
            ErrorKind::AuthenticationFailed => Self::refused_user(error),
            // A name without addresses may have some later, and a certificate may be renewed.
            ErrorKind::InvalidClientConfig if says(error, NO_ADDRESS) => Self::Lost(error.to_string()),
            ErrorKind::Io if is_distrusted(error) => Self::Final(config(format!(
                "the certificate of the Redis server is not trusted (backplane.ca_file): {error}"
            ))),
            ErrorKind::Server(_) if says(error, NO_DATABASE) => Self::Final(config(format!(
                "the Redis server does not have the database of the URL: {error}"
            ))),
            ErrorKind::InvalidClientConfig => Self::Final(config(error.to_string())),
            ErrorKind::RESP3NotSupported => {
                Self::Final(config("the server is older than Redis 6.2".to_owned()))
            }
            ErrorKind::Server(_) | ErrorKind::Extension => Self::Final(BackplaneError::Refused {
                reason: error.to_string(),
            }),
            ErrorKind::UnexpectedReturnType => Self::Final(malformed("an answer of another type")),
            _ => Self::Lost(error.to_string()),
        }
    }

    /// The trouble as text.
    pub(in crate::redis) fn reason(self) -> String {
        match self {
            Self::Lost(reason) | Self::NotNow(reason) | Self::Wait(reason) | Self::Moved(reason) => reason,
            Self::NoScript => "the server forgot the scripts".to_owned(),
            Self::StaleRun(_) => "the log is of another run of the server".to_owned(),
            Self::Final(error) => error.to_string(),
        }
    }

    fn refused_user(error: &RedisError) -> Self {
        let reason = error.detail().unwrap_or(error.category());
        Self::Final(config(format!(
            "the Redis server refused the user name or password: {reason}"
        )))
    }
}

/// Texts of the `redis` crate and its TLS library, for errors that have no kind of their own.
const NO_ADDRESS: &str = "No address found for host";
const DISTRUSTED: &str = "invalid peer certificate";
const NO_DATABASE: &str = "Redis server refused to switch database";

/// Whether a server's certificate was refused for its signer or its name, which only another configuration can change.
/// The crate hides the error of the TLS library, except for its text.
fn is_distrusted(error: &RedisError) -> bool {
    let passes = [
        "Expired",
        "NotValidYet",
        "certificate expired",
        "certificate not valid yet",
    ];
    says(error, DISTRUSTED) && !passes.iter().any(|passes| says(error, passes))
}

fn says(error: &RedisError, words: &str) -> bool {
    error.to_string().contains(words)
}

pub(in crate::redis) fn malformed(what: &str) -> BackplaneError {
    BackplaneError::Malformed {
        what: what.to_owned(),
    }
}

/// The items of an array; an error for anything else.
pub(in crate::redis) fn items(value: Value) -> Result<Vec<Value>, BackplaneError> {
    match value {
        Value::Array(items) => Ok(items),
        _ => Err(malformed("no array")),
    }
}

/// Turns an answer into a type.
pub(in crate::redis) fn decode<T: redis::FromRedisValue>(value: Value) -> Result<T, BackplaneError> {
    redis::from_redis_value(value).map_err(|_| malformed("an answer of another type"))
}

/// A link that callers share.
pub(in crate::redis) type SharedLink = Arc<Link>;
