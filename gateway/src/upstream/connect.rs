//! The question of a CloudEvents handler before a client is let in, and its answer.

use std::collections::BTreeMap;

use axum::http::StatusCode;
use bytes::Bytes;
use serde::Serialize;
use serde_json::{Map, Value};

use super::handler::Answer;
use super::settings::HandlerSettings;
use super::signalr::texts;
use crate::auth::{Changes, Identity};
use crate::hub::Connection;

/// The body of the question. All properties are always there: a middleware fails without any of them.
#[derive(Serialize)]
struct Question<'a> {
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
    let question = Question {
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
#[derive(Debug, PartialEq)]
pub(super) enum Refusal {
    /// The handler refused it, with that status.
    Refused(StatusCode),
    /// The answer can't be used; the text is for operators.
    Bad(String),
}

/// Reads the answer.
pub(super) fn verdict(
    settings: &HandlerSettings,
    answer: &Answer,
    offered: &[String],
) -> Result<Verdict, Refusal> {
    let status = answer.status;
    if status.is_client_error() || status == StatusCode::INTERNAL_SERVER_ERROR {
        return Err(Refusal::Refused(status)); // 500 is how a middleware refuses, too
    }
    if !status.is_success() {
        return Err(Refusal::Bad(super::cloudevents::status(status)));
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

fn bad(text: impl Into<String>) -> Refusal {
    Refusal::Bad(text.into())
}

/// The fields of the answer, by their names in lower case.
fn read(body: &[u8]) -> Result<Map<String, Value>, Refusal> {
    match serde_json::from_slice(body) {
        Ok(Value::Object(fields)) => {
            let lower = |(name, value): (String, Value)| (name.to_ascii_lowercase(), value);
            Ok(fields.into_iter().map(lower).collect())
        }
        Ok(Value::Null) => Ok(Map::new()),
        Ok(_) => Err(bad("its answer to connect is no JSON object")),
        Err(_) => Err(bad("its answer to connect is not JSON")),
    }
}

/// A text; null is as if it were not there.
fn text(fields: &Map<String, Value>, name: &str) -> Result<Option<String>, Refusal> {
    match fields.get(&name.to_ascii_lowercase()) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(_) => Err(bad(format!("{name} in its answer to connect is no text"))),
    }
}

fn list(fields: &Map<String, Value>, name: &str) -> Result<Option<Vec<String>>, Refusal> {
    let wrong = || bad(format!("{name} in its answer to connect is no array of texts"));
    match fields.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Array(items)) => {
            let texts = items.iter().map(|item| item.as_str().map(str::to_owned));
            texts.collect::<Option<Vec<_>>>().map(Some).ok_or_else(wrong)
        }
        Some(_) => Err(wrong()),
    }
}

/// The names that an answer may give are the operator's decision: whoever forges answers gets no further.
fn check(settings: &HandlerSettings, verdict: &Verdict, offered: &[String]) -> Result<(), Refusal> {
    let shown = |name: &str| name.chars().take(64).collect::<String>();
    let roles = verdict.changes.roles.iter().flatten();
    if let Some(role) = roles.clone().find(|role| !settings.allows_role(role)) {
        let role = shown(role);
        return Err(bad(format!(
            "its answer to connect gives the role {role:?}, which allow_roles does not have"
        )));
    }
    for group in verdict.changes.groups.iter().flatten() {
        if !settings.allows_group(group) {
            let group = shown(group);
            return Err(bad(format!(
                "its answer to connect names the group {group:?}, which allow_groups does not have"
            )));
        }
        if let Err(error) = hubcast_backplane::GroupName::parse(group) {
            return Err(bad(format!(
                "its answer to connect names a group that can't be: {error}"
            )));
        }
    }
    if let Some(name) = &verdict.subprotocol
        && !offered.contains(name)
    {
        let name = shown(name);
        return Err(bad(format!(
            "its answer to connect chooses {name:?}, which the client did not offer"
        )));
    }
    Ok(())
}

/// The identity after the handler's changes.
pub(super) fn changed(identity: &Identity, changes: Changes) -> Result<Identity, Refusal> {
    identity
        .changed(changes)
        .map_err(|_| bad("userId in its answer to connect can't be a user id"))
}
