//! The parameters of operations in the OpenAPI document.

use serde_json::{Value, json};

use super::events::LONGEST_WAIT;
use super::groups::MAX_PAGE;
use super::openapi::is_open;
use super::path::Base;
use super::send::MAX_KEY_BYTES;
use super::statistics::MOST_SETTLED;
use super::streams::MAX_STREAM_ID;
use super::table::{Action, Api, Route, VERSIONS, WEB_PUBSUB_VERSIONS};
use crate::hub::{MAX_EVENTS, MAX_REASON_BYTES};
use crate::odata::MAX_BYTES as MAX_FILTER_BYTES;

/// The parameters of an operation in path, query and headers.
pub(super) fn parameters(route: &Route, base: Base) -> Vec<Value> {
    let mut parameters: Vec<Value> = ["hub", "connection", "group", "user", "permission", "stream"]
        .into_iter()
        .filter(|name| route.path.contains(&format!("{{{name}}}")))
        .map(|name| {
            let mut schema = json!({ "type": "string", "minLength": 1 });
            match name {
                "hub" => schema["pattern"] = json!("^[A-Za-z][A-Za-z0-9_`,.[\\]]{0,127}$"),
                "group" => schema["maxLength"] = json!(1024),
                "stream" => schema["maxLength"] = json!(MAX_STREAM_ID / 4), // bytes, as they may be written
                "permission" => {
                    schema = json!({ "type": "string", "enum": ["sendToGroup", "joinLeaveGroup"] });
                }
                _ => {}
            }
            json!({ "name": name, "in": "path", "required": true, "schema": schema })
        })
        .collect();
    if base == Base::Dated && route.api != Api::Own && !is_open(route.action) {
        let since = match route.api {
            Api::Dated(since) => since,
            _ => VERSIONS[0],
        };
        let versions: Vec<_> = match route.api {
            Api::WebPubSub => WEB_PUBSUB_VERSIONS.to_vec(),
            _ => VERSIONS.into_iter().filter(|version| *version >= since).collect(),
        };
        parameters.push(json!({
            "name": "api-version", "in": "query", "required": route.api != Api::WebPubSub,
            "schema": { "type": "string", "enum": versions },
        }));
    }
    if !is_open(route.action) {
        let schema = json!({ "type": "string" });
        parameters.push(query(
            "application",
            schema,
            "The hub is that of this application: application_hub",
        ));
    }
    parameters.extend(own_parameters(route.action));
    parameters
}

fn own_parameters(action: Action) -> Vec<Value> {
    let excluded = || {
        let schema = json!({ "type": "array", "items": { "type": "string" } });
        query("excluded", schema, "Connections that are left out")
    };
    let reason = || {
        let schema = json!({ "type": "string", "maxLength": MAX_REASON_BYTES });
        query("reason", schema, "What the clients are told")
    };
    let key = || {
        json!({
            "name": "Idempotency-Key", "in": "header",
            "schema": { "type": "string", "minLength": 1, "maxLength": MAX_KEY_BYTES, "pattern": "^[!-~]+$" },
            "description": "A request with the same key is carried out once within the hub's retention",
        })
    };
    let filter = || {
        let schema = json!({ "type": "string", "maxLength": MAX_FILTER_BYTES });
        query(
            "filter",
            schema,
            "Which connections receive it, in OData (Azure Web PubSub)",
        )
    };
    let life = || {
        let schema = json!({ "type": "integer", "minimum": 0, "maximum": 300 });
        query(
            "messageTtlSeconds",
            schema,
            "How long it may take to its receivers; 0: for ever (Azure Web PubSub)",
        )
    };
    let whole = |least: u64, most: u64| json!({ "type": "integer", "minimum": least, "maximum": most });
    match action {
        Action::SendToAll | Action::SendToGroup => vec![excluded(), key(), filter(), life()],
        Action::SendToUser => vec![key(), filter(), life()],
        Action::SendToConnection => vec![key(), life()],
        Action::SendBatch => vec![key()],
        Action::GrantPermission | Action::RevokePermission | Action::CheckPermission => {
            let schema = json!({ "type": "string", "maxLength": 1024 });
            vec![query(
                "targetName",
                schema,
                "The group that it is for; all groups without one",
            )]
        }
        Action::CloseAll | Action::CloseGroup | Action::CloseUser => vec![excluded(), reason()],
        Action::CloseConnection => vec![reason()],
        Action::Execute => vec![filter()],
        Action::StreamItem => vec![query(
            "completed",
            json!({ "type": "boolean" }),
            "It is the stream's last item",
        )],
        Action::StreamEnd => vec![
            reason(),
            query("error", json!({ "type": "string" }), "The same as reason"),
        ],
        Action::UserJoins => vec![query(
            "ttl",
            whole(0, 31_536_000),
            "Seconds; 0 for present connections alone",
        )],
        Action::Rebalance => vec![query(
            "settled",
            whole(0, MOST_SETTLED),
            "Seconds that a connection has been on its node before it may leave it; 300 unless given",
        )],
        Action::Events => vec![
            query(
                "after",
                json!({ "type": "string", "pattern": "^[0-9]{1,19}(-[0-9]{1,19})?$" }),
                "The place after which events are read: from next; 0 for the first, none for the end",
            ),
            query(
                "limit",
                whole(1, MAX_EVENTS as u64),
                "Most events; 100 unless given",
            ),
            query(
                "wait",
                whole(0, LONGEST_WAIT),
                "Seconds to wait for an event; 0 unless given",
            ),
        ],
        Action::ListGroup => vec![
            query("maxpagesize", whole(1, MAX_PAGE), "Most connections of a page"),
            query(
                "top",
                whole(1, u64::from(u32::MAX)),
                "Most connections of all pages",
            ),
            query(
                "continuationToken",
                json!({ "type": "string", "pattern": "^[A-Za-z0-9_-]{1,128}$" }),
                "Where the page begins: from nextLink",
            ),
        ],
        Action::GenerateToken => vec![
            query(
                "userId",
                json!({ "type": "string", "minLength": 1, "maxLength": 1024 }),
                "The token's user",
            ),
            query(
                "minutesToExpire",
                whole(1, 525_600),
                "Its life; an hour unless given",
            ),
            query(
                "role",
                json!({ "type": "array", "items": { "type": "string" } }),
                "Its roles",
            ),
            query(
                "group",
                json!({ "type": "array", "items": { "type": "string" } }),
                "Groups that its client is in from the start (Azure Web PubSub)",
            ),
            query(
                "clientType",
                json!({ "type": "string", "enum": ["default", "mqtt", "socketio"] }),
                "The kind of client (Azure Web PubSub); there are none of MQTT and Socket.IO here",
            ),
        ],
        _ => Vec::new(),
    }
}

fn query(name: &str, schema: impl Into<Value>, about: &str) -> Value {
    let schema: Value = schema.into();
    json!({ "name": name, "in": "query", "schema": schema, "description": about })
}
