//! One connection to the server, and which run of which server it leads to.

use std::sync::Arc;

use redis::aio::MultiplexedConnection;
use redis::{Cmd, ErrorKind, PushKind, RedisError, RedisResult, ServerErrorKind, Value};
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::connector::{Take, within};
use super::endpoint::Endpoint;
use super::options::config;
use super::run::Run;
use super::script::{Invocation, Name, Scripts};
use crate::error::BackplaneError;

/// A connection for commands. Many callers share it; their commands are sent one after another without waiting.
pub(super) struct Link {
    pub(super) connection: MultiplexedConnection,
    /// The scripts of the run of the server that this connection was made to, and leads to as long as it lasts.
    pub(super) scripts: Scripts,
    /// That run.
    pub(super) run: Run,
    /// The server is one of a cluster.
    sharded: bool,
    /// Cancelled when the connection is of no more use.
    pub(super) broken: CancellationToken,
}

impl Link {
    pub(super) async fn open(endpoint: &Endpoint) -> RedisResult<Self> {
        let mut opened = endpoint
            .connect(|| {
                let broken = CancellationToken::new();
                let told = broken.clone();
                let take: Take = Box::new(move |info| {
                    if info.kind == PushKind::Disconnection {
                        told.cancel();
                    }
                });
                (broken, take)
            })
            .await?;
        let scripts = Scripts::for_run(&opened.run, endpoint.publish());
        let loading = scripts.load(&mut opened.connection);
        within(endpoint.connector.bound(), loading).await?;
        Ok(Self {
            connection: opened.connection,
            scripts,
            run: opened.run,
            sharded: endpoint.sharded,
            broken: opened.listener,
        })
    }

    /// The run that the server at the other end is in by now.
    pub(super) async fn identity_now(&self) -> RedisResult<Run> {
        server_run(&mut self.connection.clone(), self.sharded).await
    }

    /// Calls a script of the log `log`.
    pub(super) async fn call(&self, script: &impl Fn(&Scripts) -> Cmd, log: &str) -> RedisResult<Value> {
        match self.send(script).await {
            Err(error) => self.again(error, script, Some(log)).await,
            answer => answer,
        }
    }

    /// Calls a script again that was refused because the server has to be told its scripts, or the log a new run, first.
    pub(super) async fn again(
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
        let fresh = self.identity_now().await?;
        if !self.run.goes_on_as(&fresh) {
            self.broken.cancel();
            let problem = "the connection leads to another run of the server by now";
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

/// How often a script is called again after a refusal that was seen to.
const REFUSALS: usize = 3;

/// Names the run of the server process at the other end, and refuses servers that can't do. Sharded channels need a
/// newer one.
pub(super) async fn server_run(connection: &mut MultiplexedConnection, sharded: bool) -> RedisResult<Run> {
    let mut ask = redis::pipe();
    ask.cmd("INFO").arg("server").cmd("INFO").arg("replication");
    let (server, replication): (String, String) = ask.query_async(connection).await?;
    let version = field(&server, "redis_version").unwrap_or_default();
    let mut parts = version.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
    let version = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
    let problem = match sharded {
        false if version < (6, 2) => "the server is older than Redis 6.2",
        true if version < (7, 0) => "the server is older than Redis 7.0, which a cluster needs",
        _ => "",
    };
    if !problem.is_empty() {
        return Err((ErrorKind::InvalidClientConfig, problem).into());
    }
    if field(&replication, "role") != Some("master") {
        return Err((ErrorKind::Io, "the server is a replica").into());
    }
    let part = |text, name| {
        field(text, name)
            .and_then(|id| id.get(..10))
            .filter(|id| is_plain(id))
    };
    let id = part(&server, "run_id").ok_or_else(unnamed)?;
    let promoted = part(&replication, "master_replid2").ok_or_else(unnamed)?;
    let at = field(&replication, "second_repl_offset").filter(|at| is_plain(at));
    let mark = match at {
        Some(at) if promoted.bytes().any(|byte| byte != b'0') => format!("{promoted}{at}"),
        _ => String::new(),
    };
    Ok(Run {
        id: id.to_owned(),
        mark,
    })
}

fn unnamed() -> RedisError {
    (ErrorKind::Parse, "the server does not name its run").into()
}

pub(super) fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
        .map(str::trim)
}

/// The run becomes part of a script.
fn is_plain(run: &str) -> bool {
    run.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

/// What an error of the server or of the connection to it means.
#[derive(Debug)]
pub(super) enum Trouble {
    /// The connection is of no more use; the command may have been carried out.
    Lost(String),
    /// The server can't carry out commands now; it did not carry out this one.
    NotNow(String),
    /// The same, and the connection is as good as any: the cluster or its replicas are not ready.
    Wait(String),
    /// Another server of the cluster has the key, or will have in a moment; this one carried nothing out.
    Moved(String),
    /// The server forgot the scripts; it did not carry out this one.
    NoScript,
    /// The log was last used in this other run of the server; the script was not carried out.
    StaleRun(String),
    /// Trying again is of no use.
    Final(BackplaneError),
}

impl Trouble {
    pub(super) fn of(error: &RedisError) -> Self {
        if matches!(error.code(), Some("WRONGPASS" | "NOAUTH")) {
            return Self::refused_user(error);
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
            // While a slot moves, its server refuses what names keys here and there. What it sends elsewhere waits as
            // well: were it carried out there before the slot has moved, each server would begin an epoch of its own.
            ErrorKind::Server(ServerErrorKind::Moved | ServerErrorKind::Ask) => {
                Self::Moved(error.to_string())
            }
            ErrorKind::AuthenticationFailed => Self::refused_user(error),
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

    /// In words.
    pub(super) fn reason(self) -> String {
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

pub(super) fn malformed(what: &str) -> BackplaneError {
    BackplaneError::Malformed {
        what: what.to_owned(),
    }
}

/// The items of an array; an error for anything else.
pub(super) fn items(value: Value) -> Result<Vec<Value>, BackplaneError> {
    match value {
        Value::Array(items) => Ok(items),
        _ => Err(malformed("no array")),
    }
}

/// Turns an answer into a type.
pub(super) fn decode<T: redis::FromRedisValue>(value: Value) -> Result<T, BackplaneError> {
    redis::from_redis_value(value).map_err(|_| malformed("an answer of another type"))
}

/// A link that callers share.
pub(super) type SharedLink = Arc<Link>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn info_fields_are_found() {
        let info = "# Server\r\nredis_version:7.0.15\r\nrun_id:abc\r\n";
        assert_eq!(field(info, "redis_version"), Some("7.0.15"));
        assert_eq!(field(info, "run"), None);
    }
}
