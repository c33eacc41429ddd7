//! The server's answers: values, and the meaning of errors.

use redis::{ErrorKind, RedisError, ServerErrorKind, Value};

use crate::error::{BackplaneError, config};

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

/// Returns whether a server's certificate was refused for its signer or its name, which only another configuration
/// can change. The crate hides the error of the TLS library, except for its text.
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
