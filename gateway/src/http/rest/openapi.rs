//! The OpenAPI document, written from the table of routes.

use std::sync::OnceLock;

use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::body::Media;
use super::execute::MAX_COMMANDS;
use super::groups::MAX_GROUPS;
use super::parameters::parameters;
use super::path::Base;
use super::send::MAX_BATCH;
use super::table::{Action, Api, ROUTES, Route};
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
pub(super) fn is_open(action: Action) -> bool {
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
    use super::super::table::{RouteMatch, find};
    use super::*;

    #[test]
    fn what_is_documented_is_routed_and_named_once() {
        let document = write();
        let mut names = HashSet::new();
        for (path, methods) in document["paths"].as_object().unwrap() {
            for (method, operation) in methods.as_object().unwrap() {
                let method = Method::from_bytes(method.to_uppercase().as_bytes()).unwrap();
                let found = find(&Path::read(path).unwrap(), &method);
                assert!(matches!(found, RouteMatch::Route(_)), "{method} {path}");
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
