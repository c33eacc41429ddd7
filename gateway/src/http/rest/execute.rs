//! Several commands for the connections that a filter admits.
//!
//! Azure documents the types of commands and not their other properties; here they are named like those of the routes for
//! the same purpose. All commands are read before the first is carried out; they are carried out one after the other.

use axum::body::Body;
use axum::response::Response;
use hubcast_backplane::Topic;
use serde::Deserialize;

use super::body::{self, Media};
use super::call::Call;
use super::error::Refusal;
use crate::hub::{Outgoing, RegroupWish, Regrouping};
use crate::protocol::Value;

/// Most commands of one request.
pub(super) const MAX_COMMANDS: usize = 100;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct CommandBody {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    group: Option<String>,
    #[serde(default)]
    reason: Option<String>,
}

enum ExecuteCommand {
    Send(Outgoing),
    Regroup(Regrouping),
}

pub(super) async fn execute(call: &Call<'_>, body: Body) -> Result<Response, Refusal> {
    let filter = call.filter()?;
    Media::of(call.headers(), &[Media::Json])?;
    let body = body::value(Media::Json, call.read(body).await?)?;
    let items = body::elements("The body", &body)?;
    if items.is_empty() || items.len() > MAX_COMMANDS {
        let text = format!("There must be 1 to {MAX_COMMANDS} commands, not {}.", items.len());
        return Err(Refusal::invalid(text));
    }
    let mut commands = Vec::with_capacity(items.len());
    for (index, item) in items.iter().enumerate() {
        let command =
            command(item, &filter).map_err(|refusal| refusal.about(&format!("commands[{index}]")))?;
        commands.push(command);
    }
    let hub = call.hub().runtime();
    for command in commands {
        match command {
            ExecuteCommand::Send(message) => {
                let filter = filter.clone();
                let message = Outgoing { filter, ..message };
                hub.publish_message(None, &[Topic::All], message).await?;
            }
            ExecuteCommand::Regroup(change) => hub.regroup(&change).await?,
        }
    }
    Ok(call.done())
}

fn command(item: &Value, filter: &str) -> Result<ExecuteCommand, Refusal> {
    let named: CommandBody = item
        .decode()
        .map_err(|error| Refusal::invalid(format!("it can't be read: {error}.")))?;
    let is = |kind: &str| named.kind.eq_ignore_ascii_case(kind);
    if is("SendMessage") {
        return Ok(ExecuteCommand::Send(body::outgoing(item)?));
    }
    if is("CloseConnection") {
        let to = RegroupWish::Close(named.reason);
        return Ok(ExecuteCommand::Regroup(Regrouping::new(
            Vec::new(),
            filter.to_owned(),
            to,
        )?));
    }
    let to = if is("JoinGroup") {
        RegroupWish::Join
    } else if is("LeaveGroup") {
        RegroupWish::Leave
    } else {
        let text = "type must be SendMessage, JoinGroup, LeaveGroup or CloseConnection.";
        return Err(Refusal::invalid(text));
    };
    let group = named.group.ok_or_else(|| Refusal::invalid("it needs a group."))?;
    Ok(ExecuteCommand::Regroup(Regrouping::new(
        vec![group],
        filter.to_owned(),
        to,
    )?))
}
