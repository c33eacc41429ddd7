//! The OpenAPI document, written from the table of routes.

use std::sync::OnceLock;

use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::body::Media;
use super::events::LONGEST_WAIT;
use super::execute::MAX_COMMANDS;
use super::groups::{MAX_GROUPS, MAX_PAGE};
use super::path::Base;
use super::send::{MAX_BATCH, MAX_KEY_BYTES};
use super::statistics::MOST_SETTLED;
use super::streams::MAX_STREAM_ID;
use super::table::{Action, Api, ROUTES, Route, VERSIONS, WEB_PUBSUB_VERSIONS};
use crate::hub::{MAX_EVENTS, MAX_REASON_BYTES};
use crate::odata::MAX_BYTES as MAX_FILTER_BYTES;

/// The document, made once.
pub(super) fn document() -> Bytes {
    static DOCUMENT: OnceLock<Bytes> = OnceLock::new();
    DOCUMENT.get_or_init(|| Bytes::from(write().to_string())).clone()
}

fn write() -> Value {
    let mut paths: Map<String, Value> = Map::new();
    for route in ROUTES {
        for base in [Base::Dated, Base::V1] {
            if !route.is_answered(base) {
                continue;
            }
            let path = paths
                .entry(format!("{}{}", base.path(), route.path))
                .or_insert_with(|| json!({}));
            for method in route.verb.methods() {
                path[*method] = operation(route, method, base);
            }
        }
    }
    json!({
        "openapi": "3.0.3",
        "info": {
            "title": "Hubcast REST API",
            "version": env!("CARGO_PKG_VERSION"),
            "description": ABOUT,
        },
        "paths": paths,
        "components": {
            "securitySchemes": { "bearer": { "type": "http", "scheme": "bearer", "bearerFormat": "JWT" } },
            "schemas": schemas(),
        },
    })
}

const ABOUT: &str = "The data plane of Azure SignalR, versions 2022-06-01 to 2024-12-01 and v1; that of Azure Web PubSub, \
    versions 2021-10-01 to 2024-12-01, on hubs with hubs.rest_api = webpubsub, where the body of a message is text, JSON or \
    bytes; and Hubcast's own additions: batches, Idempotency-Key, statistics. Requests carry a JSON Web Token that is signed with an access key \
    and whose audience is the URL of the request.";

fn operation(route: &Route, method: &str, base: Base) -> Value {
    let tag = match (route.api, base) {
        (Api::Own, _) => "Hubcast",
        (Api::WebPubSub, _) => "Azure Web PubSub",
        (_, Base::V1) => "v1",
        (_, Base::Dated) => "Azure SignalR",
    };
    let v1 = if base == Base::V1 { "V1" } else { "" };
    let alias = if route.is_official(base) { "" } else { "Alias" };
    let mut operation = json!({
        "operationId": format!("{method}{:?}{v1}{alias}", route.action),
        "summary": route.about,
        "tags": [tag],
        "responses": responses(route, method, base),
    });
    if !route.is_official(base) {
        operation["deprecated"] = true.into(); // answered, for callers of the other API
    }
    let parameters = parameters(route, base);
    if !parameters.is_empty() {
        operation["parameters"] = parameters.into();
    }
    if let Some(media) = media(route.action) {
        operation["requestBody"] = json!({ "required": true, "content": content(route.action, media) });
    }
    if !is_open(route.action) {
        operation["security"] = json!([{ "bearer": [] }]);
    }
    operation
}

/// Returns whether a route is answered without a token.
fn is_open(action: Action) -> bool {
    matches!(action, Action::Health | Action::Document)
}

/// The media types of a request's body, if it has one.
fn media(action: Action) -> Option<&'static [Media]> {
    match action {
        Action::SendToAll | Action::SendToConnection | Action::SendToGroup | Action::SendToUser => {
            Some(&Media::ALL)
        }
        Action::Invoke => Some(&Media::ALL),
        Action::SendBatch | Action::StreamItem => Some(&[Media::Json, Media::MessagePack]),
        Action::AddToGroups
        | Action::RemoveFromGroups
        | Action::Execute
        | Action::ConnectionClaims
        | Action::RefreshAuth => Some(&[Media::Json]),
        _ => None,
    }
}

fn content(action: Action, media: &[Media]) -> Value {
    let schema = match action {
        Action::SendBatch => "Batch",
        Action::AddToGroups | Action::RemoveFromGroups => "Regroup",
        Action::Execute => "Commands",
        Action::ConnectionClaims => "ConnectionToken",
        Action::RefreshAuth => "Refresh",
        Action::StreamItem => "Item",
        _ => "Message",
    };
    let mut content = Map::new();
    for media in media {
        let schema = match media {
            Media::Json => reference(schema),
            Media::MessagePack | Media::Framed => json!({ "type": "string", "format": "binary" }),
        };
        content.insert(media.name().to_owned(), json!({ "schema": schema }));
    }
    if matches!(
        action,
        Action::SendToAll | Action::SendToConnection | Action::SendToGroup | Action::SendToUser
    ) {
        // Of Azure Web PubSub, which also takes any JSON and any bytes.
        content.insert("text/plain".to_owned(), json!({ "schema": { "type": "string" } }));
    }
    content.into()
}

fn parameters(route: &Route, base: Base) -> Vec<Value> {
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

fn responses(route: &Route, method: &str, base: Base) -> Value {
    let (dated, v1) = route.success;
    let success = match base {
        Base::Dated => dated,
        Base::V1 => v1,
    };
    let mut responses = Map::new();
    let mut done = json!({ "description": "Done" });
    if let Some(schema) = answer(route.action).filter(|_| method != "head") {
        done["content"] = json!({ "application/json": { "schema": schema } });
    }
    responses.insert(success.to_string(), done);
    // The HTTP server's own responses, before the route is known.
    for (status, about) in [
        (414, "The URI is too long"),
        (431, "The head of the request is over 32 KiB"),
    ] {
        responses.insert(status.to_string(), json!({ "description": about }));
    }
    for (status, about) in refusals(route.action) {
        let mut refusal = json!({
            "description": about,
            "headers": { "x-ms-error-code": { "schema": { "type": "string" } } },
        });
        if method != "head" {
            refusal["content"] = json!({ "application/json": { "schema": reference("Error") } });
        }
        responses.insert(status.to_string(), refusal);
    }
    responses.into()
}

/// The schema of a successful response's body, if it has one.
fn answer(action: Action) -> Option<Value> {
    Some(match action {
        Action::SendBatch => reference("Accepted"),
        Action::ListGroup => reference("Page"),
        Action::Invoke => reference("Result"),
        Action::GenerateToken => reference("Token"),
        Action::ConnectionClaims | Action::RefreshAuth => reference("Claims"),
        Action::Statistics => reference("Statistics"),
        Action::Events => reference("Events"),
        Action::Rebalance => reference("Rebalance"),
        Action::Document => json!({ "type": "object" }),
        _ => return None,
    })
}

/// How a request may be refused.
fn refusals(action: Action) -> Vec<(u16, &'static str)> {
    match action {
        Action::Health => return vec![(503, "The backplane can't be reached; try again later")],
        Action::Document => return Vec::new(),
        _ => {}
    }
    let mut refusals = vec![
        (
            400,
            "The request can't be understood, or names no api-version that has this route",
        ),
        (401, "No token, or none for this request"),
        (404, "What was asked about is not there"),
        (
            501,
            "The hub has the REST API of the other service (hubs.rest_api)",
        ),
        (503, "The backplane can't be reached; try again later"),
    ];
    if let Some(media) = media(action) {
        refusals.push((413, "The body is over limits.http_body_bytes"));
        refusals.push((415, "The body is of another type"));
        if action == Action::Invoke {
            refusals.push((422, "The client answered with an error, or without a result"));
            refusals.push((504, "The client did not answer in time"));
        } else if action == Action::RefreshAuth {
            refusals.push((403, "The claims are of another user"));
        } else {
            debug_assert!(!media.is_empty());
            refusals.push((422, "The Idempotency-Key was used for another message"));
        }
    }
    if matches!(
        action,
        Action::ConnectionJoins | Action::UserJoins | Action::AddToGroups | Action::Execute
    ) {
        refusals.push((409, "The connection is in limits.groups_per_connection groups"));
    }
    if matches!(action, Action::GrantPermission | Action::RevokePermission) {
        refusals.push((409, "The permission was given or taken by name too often"));
    }
    refusals
}

fn reference(schema: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{schema}") })
}

fn schemas() -> Value {
    let text = json!({ "type": "string" });
    let count = json!({ "type": "integer", "minimum": 0 });
    let object = |required: &[&str], properties: Value| json!({ "type": "object", "required": required, "properties": properties });
    let arguments = json!({ "type": "array", "items": {}, "nullable": true });
    let one = |name: &str| {
        json!({ "type": "object", "required": [name], "additionalProperties": false,
        "properties": { name: { "type": "string", "minLength": 1, "maxLength": 1024 } } })
    };
    let target = json!({ "type": "string", "minLength": 1 });
    let claim = object(&["type", "value"], json!({ "type": text, "value": text }));
    json!({
        "Message": object(&["target"], json!({ "target": target, "arguments": arguments })),
        "Batch": object(&["messages"], json!({ "messages": {
            "type": "array", "minItems": 1, "maxItems": MAX_BATCH,
            "items": object(&["to", "target"], json!({
                "to": { "oneOf": [{ "type": "string", "enum": ["all"] }, one("group"), one("user"), one("connection")] },
                "target": target, "arguments": arguments,
                "excluded": { "type": "array", "items": text },
            })),
        } })),
        "Commands": { "type": "array", "minItems": 1, "maxItems": MAX_COMMANDS, "items": object(&["type"], json!({
            "type": { "type": "string", "enum": ["SendMessage", "JoinGroup", "LeaveGroup", "CloseConnection"] },
            "target": target, "arguments": arguments, "group": { "type": "string", "minLength": 1, "maxLength": 1024 }, "reason": text,
        })) },
        "Item": {},
        "ConnectionToken": object(&["connectionToken"], json!({ "connectionToken": text })),
        "Refresh": object(&["connectionToken"], json!({
            "connectionToken": text,
            "expireTime": { "type": "string", "format": "date-time", "nullable": true },
            "claims": { "type": "array", "nullable": true, "items": claim },
        })),
        "Claims": object(&["claims"], json!({ "claims": { "type": "array", "items": claim } })),
        "Error": object(&["code", "message", "target"], json!({ "code": text, "message": text, "target": text })),
        "Regroup": object(&["groups"], json!({
            "groups": { "type": "array", "minItems": 1, "maxItems": MAX_GROUPS, "items": { "type": "string", "minLength": 1, "maxLength": 1024 } },
            "filter": { "type": "string", "nullable": true, "maxLength": MAX_FILTER_BYTES },
        })),
        "Accepted": object(&["accepted"], json!({ "accepted": count })),
        "Page": object(&["value"], json!({
            "value": { "type": "array", "items": object(&["connectionId"], json!({ "connectionId": text, "userId": text })) },
            "nextLink": text,
        })),
        "Result": object(&["result"], json!({ "result": {} })),
        "Token": object(&["token"], json!({ "token": text })),
        "Rebalance": object(&["hub", "connections", "mean", "nodes"], json!({
            "hub": text, "connections": count, "mean": count,
            "nodes": { "type": "array", "items": object(&["node", "connections", "leaving"], json!({ "node": text, "connections": count, "leaving": count })) },
        })),
        "Events": object(&["events", "next", "trimmed"], json!({
            "events": { "type": "array", "items": object(&["id", "place", "type", "connectionId", "time", "data"], json!({
                "id": text, "place": text, "type": { "type": "string", "enum": ["connected", "disconnected"] },
                "connectionId": text, "userId": text, "time": { "type": "string", "format": "date-time" }, "reason": text,
                "data": {},
            })) },
            "next": text,
            "trimmed": { "type": "boolean" },
        })),
        "Statistics": object(&["hub", "connections", "parked", "groups", "nodes"], json!({
            "hub": text, "connections": count, "parked": count, "groups": count,
            "nodes": { "type": "array", "items": object(&["node", "connections"], json!({ "node": text, "connections": count })) },
        })),
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use axum::http::Method;

    use super::super::path::Path;
    use super::super::table::{Found, find};
    use super::*;

    #[test]
    fn what_is_documented_is_routed_and_named_once() {
        let document = write();
        let mut names = HashSet::new();
        for (path, methods) in document["paths"].as_object().unwrap() {
            for (method, operation) in methods.as_object().unwrap() {
                let method = Method::from_bytes(method.to_uppercase().as_bytes()).unwrap();
                let found = find(&Path::read(path).unwrap(), &method);
                assert!(matches!(found, Found::Route(_)), "{method} {path}");
                let name = operation["operationId"].as_str().unwrap();
                assert!(names.insert(name.to_owned()), "{name} is there twice");
            }
        }
    }

    #[test]
    fn every_route_is_documented() {
        let document = write();
        for route in ROUTES {
            for base in [Base::Dated, Base::V1] {
                for method in route.verb.methods() {
                    let operation = &document["paths"][format!("{}{}", base.path(), route.path)][*method];
                    assert_eq!(
                        operation.is_object(),
                        route.is_answered(base),
                        "{method} {}",
                        route.path
                    );
                }
            }
        }
    }
}
