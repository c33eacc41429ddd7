//! One connection to the server, and which run of which server it leads to.

use std::sync::Arc;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, ErrorKind, PushInfo, RedisError, ServerErrorKind, Value};
use tokio_util::sync::CancellationToken;

use super::options::config;
use super::script::Scripts;
use crate::error::BackplaneError;

/// Most commands that wait in one connection before callers wait.
const PIPELINE: usize = 1_024;

/// A connection for commands. Many callers share it; their commands are sent one after another without waiting.
pub(super) struct Link {
    pub(super) connection: MultiplexedConnection,
    /// The scripts of the run of the server that this connection was made to, and leads to as long as it lasts.
    pub(super) scripts: Scripts,
    /// Cancelled when the connection is of no more use.
    pub(super) broken: CancellationToken,
}

impl Link {
    pub(super) async fn open(client: &Client, bound: Duration) -> Result<Self, RedisError> {
        let broken = CancellationToken::new();
        let told = broken.clone();
        let mut connection = connect(client, bound, move |info: PushInfo| {
            if info.kind == redis::PushKind::Disconnection {
                told.cancel();
            }
        })
        .await?;
        let run = server_run(&mut connection).await?;
        let scripts = Scripts::for_run(&run);
        scripts.load(&mut connection).await?;
        Ok(Self {
            connection,
            scripts,
            broken,
        })
    }
}

/// Opens a RESP3 connection whose pushes go to `take`, which must not block.
pub(super) async fn connect(
    client: &Client,
    bound: Duration,
    take: impl Fn(PushInfo) + Send + Sync + 'static,
) -> Result<MultiplexedConnection, RedisError> {
    let settings = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(bound))
        .set_response_timeout(Some(bound))
        .set_pipeline_buffer_size(PIPELINE)
        .set_push_sender(move |info: PushInfo| {
            take(info);
            Ok::<(), redis::aio::SendError>(())
        });
    client
        .get_multiplexed_async_connection_with_config(&settings)
        .await
}

/// Names the run of the server process at the other end, and refuses servers that can't do.
async fn server_run(connection: &mut MultiplexedConnection) -> Result<String, RedisError> {
    let mut ask = redis::pipe();
    ask.cmd("INFO").arg("server").cmd("INFO").arg("replication");
    let (server, replication): (String, String) = ask.query_async(connection).await?;
    let version = field(&server, "redis_version").unwrap_or_default();
    let mut parts = version.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
    if (parts.next().unwrap_or(0), parts.next().unwrap_or(0)) < (6, 2) {
        return Err((
            ErrorKind::InvalidClientConfig,
            "the server is older than Redis 6.2",
        )
            .into());
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

fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
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
        match error.kind() {
            ErrorKind::Server(ServerErrorKind::NoScript) => Self::NoScript,
            ErrorKind::Server(
                ServerErrorKind::ReadOnly
                | ServerErrorKind::BusyLoading
                | ServerErrorKind::MasterDown
                | ServerErrorKind::ClusterDown
                | ServerErrorKind::TryAgain,
            ) => Self::NotNow(error.to_string()),
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
