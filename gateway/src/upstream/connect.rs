//! The question of a CloudEvents handler before a client is let in, and its answer.

use std::collections::BTreeMap;

use axum::http::StatusCode;
use bytes::Bytes;
use hubcast_backplane::{GroupName, NameError};
use serde::Serialize;
use serde_json::{Map, Value};

use super::call_error::{BadStatus, CallError, Fault};
use super::handler::WebhookAnswer;
use super::line::StateTooLarge;
use super::settings::HandlerSettings;
use super::signalr::{Unsendable, texts};
use crate::auth::{Changes, Identity};
use crate::hub::Connection;

/// The body of the question. All properties are always there: a middleware fails without any of them.
#[derive(Serialize)]
struct ConnectQuestion<'a> {
    claims: BTreeMap<&'a str, Vec<String>>,
    query: BTreeMap<&'a str, Vec<&'a str>>,
    headers: BTreeMap<&'a str, Vec<&'a str>>,
    subprotocols: &'a [String],
    #[serde(rename = "clientCertificates")]
    client_certificates: [(); 0],
}

/// Writes the question about a client.
pub(super) fn question(connection: &Connection, subprotocols: &[String]) -> Bytes {
    let identity = connection.identity();
    let question = ConnectQuestion {
        claims: identity
            .claims()
            .map(|(name, value)| (name, texts(value)))
            .collect(),
        query: grouped(connection.query_pairs()),
        headers: grouped(connection.headers()),
        subprotocols,
        client_certificates: [],
    };
    serde_json::to_vec(&question).unwrap_or_default().into() // texts can be written
}

fn grouped<'a>(pairs: impl Iterator<Item = (&'a str, &'a str)>) -> BTreeMap<&'a str, Vec<&'a str>> {
    let mut grouped = BTreeMap::<_, Vec<_>>::new();
    for (name, value) in pairs {
        grouped.entry(name).or_default().push(value);
    }
    grouped
}

/// A client that may come in, and as whom.
#[derive(Debug, PartialEq)]
pub(super) struct Verdict {
    pub(super) changes: Changes,
    pub(super) subprotocol: Option<String>,
}

/// The reason why a client is not let in.
#[derive(Debug)]
pub(super) enum ConnectRefusal {
    /// The handler refused it, with that status.
    Refused(StatusCode),
    /// The handler could not be asked, or its answer can't be used.
    Bad(ConnectError),
}

impl<E: Into<ConnectError>> From<E> for ConnectRefusal {
    fn from(error: E) -> Self {
        Self::Bad(error.into())
    }
}

/// The reason why there is no word of the handler about a client. The texts are for operators.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectError {
    #[error(transparent)]
    Request(#[from] Unsendable),
    #[error(transparent)]
    Call(#[from] CallError),
    /// The handler does not allow requests of this gateway, or could not be asked for that.
    #[error("{0}")]
    Validation(Fault),
    #[error(transparent)]
    Status(#[from] BadStatus),
    #[error(transparent)]
    State(#[from] StateTooLarge),
    #[error("its answer to connect is not JSON")]
    NotJson,
    #[error("its answer to connect is no JSON object")]
    NotAnObject,
    #[error("{0} in its answer to connect is no text")]
    NotAText(&'static str),
    #[error("{0} in its answer to connect is no array of texts")]
    NotTexts(&'static str),
    #[error("its answer to connect gives the role {0:?}, which allow_roles does not have")]
    Role(String),
    #[error("its answer to connect names the group {0:?}, which allow_groups does not have")]
    Group(String),
    #[error("its answer to connect names a group that can't be: {0}")]
    GroupName(#[from] NameError),
    #[error("its answer to connect chooses {0:?}, which the client did not offer")]
    Subprotocol(String),
    #[error("userId in its answer to connect can't be a user id")]
    User,
}

/// Reads the answer.
pub(super) fn verdict(
    settings: &HandlerSettings,
    answer: &WebhookAnswer,
    offered: &[String],
) -> Result<Verdict, ConnectRefusal> {
    let status = answer.status;
    if status.is_client_error() || status == StatusCode::INTERNAL_SERVER_ERROR {
        return Err(ConnectRefusal::Refused(status)); // 500 is how a middleware refuses, too
    }
    if !status.is_success() {
        return Err(BadStatus(status).into());
    }
    let body = answer.body.trim_ascii();
    let nothing = status == StatusCode::NO_CONTENT || body.is_empty();
    let fields = if nothing { Map::new() } else { read(body)? };
    let verdict = Verdict {
        changes: Changes {
            user: text(&fields, "userId")?,
            roles: list(&fields, "roles")?,
            groups: list(&fields, "groups")?.filter(|groups| !groups.is_empty()),
        },
        subprotocol: text(&fields, "subprotocol")?.filter(|name| !name.is_empty()),
    };
    check(settings, &verdict, offered)?;
    Ok(verdict)
}

/// The fields of the answer, by their names in lower case.
fn read(body: &[u8]) -> Result<Map<String, Value>, ConnectError> {
    match serde_json::from_slice(body) {
        Ok(Value::Object(fields)) => {
            let lower = |(name, value): (String, Value)| (name.to_ascii_lowercase(), value);
            Ok(fields.into_iter().map(lower).collect())
        }
        Ok(Value::Null) => Ok(Map::new()),
        Ok(_) => Err(ConnectError::NotAnObject),
        Err(_) => Err(ConnectError::NotJson),
    }
}

/// A text; null is as if it were not there.
fn text(fields: &Map<String, Value>, name: &'static str) -> Result<Option<String>, ConnectError> {
    match fields.get(&name.to_ascii_lowercase()) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(_) => Err(ConnectError::NotAText(name)),
    }
}

fn list(fields: &Map<String, Value>, name: &'static str) -> Result<Option<Vec<String>>, ConnectError> {
    match fields.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Array(items)) => {
            let texts = items.iter().map(|item| item.as_str().map(str::to_owned));
            let texts = texts.collect::<Option<Vec<_>>>();
            texts.map(Some).ok_or(ConnectError::NotTexts(name))
        }
        Some(_) => Err(ConnectError::NotTexts(name)),
    }
}

/// The names that an answer may give are the operator's decision: whoever forges answers gets no further.
fn check(settings: &HandlerSettings, verdict: &Verdict, offered: &[String]) -> Result<(), ConnectError> {
    let shown = |name: &str| name.chars().take(64).collect::<String>();
    let roles = verdict.changes.roles.iter().flatten();
    if let Some(role) = roles.clone().find(|role| !settings.allows_role(role)) {
        return Err(ConnectError::Role(shown(role)));
    }
    for group in verdict.changes.groups.iter().flatten() {
        if !settings.allows_group(group) {
            return Err(ConnectError::Group(shown(group)));
        }
        GroupName::parse(group)?;
    }
    if let Some(name) = &verdict.subprotocol
        && !offered.contains(name)
    {
        return Err(ConnectError::Subprotocol(shown(name)));
    }
    Ok(())
}

/// The identity after the handler's changes.
pub(super) fn changed(identity: &Identity, changes: Changes) -> Result<Identity, ConnectError> {
    identity.changed(changes).map_err(|_| ConnectError::User)
}
