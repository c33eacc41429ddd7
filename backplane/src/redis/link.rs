//! One connection to the server, and which run of which server it leads to.

use std::sync::Arc;

use redis::aio::MultiplexedConnection;
use redis::{ErrorKind, PushKind, RedisError, RedisResult, ServerErrorKind, Value};
use tokio_util::sync::CancellationToken;

use super::connector::{Take, within};
use super::endpoint::Endpoint;
use super::options::config;
use super::script::Scripts;
use crate::error::BackplaneError;

/// A connection for commands. Many callers share it; their commands are sent one after another without waiting.
pub(super) struct Link {
    pub(super) connection: MultiplexedConnection,
    /// The scripts of the run of the server that this connection was made to, and leads to as long as it lasts.
    pub(super) scripts: Scripts,
    /// That run.
    pub(super) run: String,
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
            broken: opened.listener,
        })
    }
}

/// Names the run of the server process at the other end, and refuses servers that can't do. Sharded channels need a
/// newer one.
pub(super) async fn server_run(connection: &mut MultiplexedConnection, sharded: bool) -> RedisResult<String> {
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
    let part = |text, name| field(text, name).and_then(|id| id.get(..10));
    match (part(&server, "run_id"), part(&replication, "master_replid")) {
        (Some(run), Some(replication)) if is_plain(run) && is_plain(replication) => {
            Ok(format!("{run}{replication}"))
        }
        _ => Err((ErrorKind::Parse, "the server does not name its run").into()),
    }
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
    /// Trying again is of no use.
    Final(BackplaneError),
}

impl Trouble {
    pub(super) fn of(error: &RedisError) -> Self {
        if matches!(error.code(), Some("WRONGPASS" | "NOAUTH")) {
            return Self::refused_user(error);
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
