//! The upstream form of Azure SignalR Service in serverless mode.
//!
//! A handler is sent the client's invocation as the client's protocol writes it, and answers with a completion. Events of
//! connections are small JSON objects whatever the client speaks.

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use bytes::Bytes;
use reqwest::Method;

use super::call_error::{BadStatus, CallError, Fault};
use super::carried::carried;
use super::handler::{Handler, WebhookAnswer, WebhookRequest};
use super::line::Line;
use super::settings::Category;
use super::signature::signature;
use super::template::{BadName, UrlNames};
use crate::hub::{BY_CLIENT, BY_SERVER, Connection};
use crate::protocol::{
    ClientProtocol, DecodeValueError, Decoder, EncodeError, Encoding, HubMessage, HubProtocol, Invocation,
    Outcome, RECORD_SEPARATOR, TranscodeError, encode,
};

const JSON: &str = "application/json";
const MESSAGEPACK: &str = "application/x-msgpack";
/// Claims of the token itself, which say nothing of the client.
const TOKEN_CLAIMS: [&str; 5] = ["aud", "exp", "iat", "iss", "nbf"];

/// The reason why an event or a call can't be written as a request.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unsendable {
    #[error(transparent)]
    Url(#[from] BadName),
    /// A header would change the name, or can't hold it.
    #[error("its name can't stand in a header: it has control characters, or blanks at its ends")]
    Header,
    #[error("its name can't stand in a header: it is not ASCII")]
    NotAscii,
    #[error("the invocation can't be written: {0}")]
    Invocation(#[from] EncodeError),
    #[error("its data can't be written: {0}")]
    Arguments(#[from] TranscodeError),
    /// The data is not of the kind that the client says.
    #[error("its data can't be written: {0}")]
    Data(#[from] DecodeValueError),
}

/// The fault of a handler's answer to an invocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
enum BadCompletion {
    #[error("the handler's answer is not a Completion of the client's protocol")]
    Unreadable,
    #[error("the handler's answer has more than one message")]
    Several,
    #[error("the handler's answer is the Completion of another invocation")]
    OfAnother,
}

/// The subject of a request.
pub(super) struct About<'a> {
    pub(super) hub: &'a str,
    pub(super) connection: &'a Connection,
    pub(super) line: &'a Line,
    /// Equal on every try and every node.
    pub(super) event_id: &'a str,
}

/// The event that a client has connected.
pub(super) fn connected(handler: &Handler, about: &About<'_>) -> Result<WebhookRequest, Unsendable> {
    let body = Bytes::from_static(br#"{"type":10}"#);
    request(handler, about, Category::Connections, "connected", JSON, body)
}

/// The event that a connection has ended.
pub(super) fn disconnected(
    handler: &Handler,
    about: &About<'_>,
    reason: &str,
) -> Result<WebhookRequest, Unsendable> {
    let body = match reason {
        BY_CLIENT | BY_SERVER => r#"{"type":11}"#.to_owned(),
        reason => serde_json::json!({ "type": 11, "error": reason }).to_string(),
    };
    request(
        handler,
        about,
        Category::Connections,
        "disconnected",
        JSON,
        body.into(),
    )
}

/// An invocation of a client.
pub(super) fn message(
    handler: &Handler,
    about: &About<'_>,
    invocation: Invocation,
) -> Result<WebhookRequest, Unsendable> {
    let protocol = spoken(about.connection);
    let event = invocation.target.clone();
    let framed = encode(protocol, &HubMessage::Invocation(invocation))?;
    let (content_type, body) = match protocol {
        HubProtocol::Json => (JSON, framed.slice(..framed.len().saturating_sub(1))),
        HubProtocol::MessagePack => (MESSAGEPACK, without_length(&framed)),
    };
    request(handler, about, Category::Messages, &event, content_type, body)
}

/// The hub protocol in which handlers are told what a client says.
fn spoken(connection: &Connection) -> HubProtocol {
    connection
        .protocol()
        .and_then(ClientProtocol::hub)
        .unwrap_or(HubProtocol::Json)
}

/// A MessagePack message without the length before it.
fn without_length(framed: &Bytes) -> Bytes {
    let prefix = framed
        .iter()
        .take_while(|byte| **byte >= 0x80)
        .count()
        .saturating_add(1);
    framed.slice(prefix.min(framed.len())..)
}

fn request(
    handler: &Handler,
    about: &About<'_>,
    category: Category,
    event: &str,
    content_type: &'static str,
    body: Bytes,
) -> Result<WebhookRequest, Unsendable> {
    let names = UrlNames {
        hub: about.hub,
        category: category.name(),
        event,
    };
    let url = handler.template.fill(names)?;
    let connection = about.connection;
    let identity = connection.identity();
    let mut headers = HeaderMap::new();
    let mut set =
        |name: &'static str, value: &str| carried(value).map(|value| _ = headers.insert(name, value));
    let required = [
        ("x-asrs-connection-id", connection.id().as_str()),
        ("x-asrs-hub", about.hub),
        ("x-asrs-category", category.name()),
        ("x-asrs-event", event),
        ("x-hubcast-event-id", about.event_id),
        ("content-type", content_type),
    ];
    for (name, value) in required {
        set(name, value).ok_or(Unsendable::Header)?;
    }
    // Values that no header can hold are left out: the rest is still of use.
    if let Some(user) = connection.user() {
        let _ = set("x-asrs-user-id", user.as_str());
    }
    let claims = identity.claims().filter(|(name, _)| !TOKEN_CLAIMS.contains(name));
    let claims: Vec<_> = claims
        .flat_map(|(name, value)| {
            texts(value)
                .into_iter()
                .map(move |value| format!("{name}: {value}"))
        })
        .filter(|claim| carried(claim).is_some())
        .collect();
    if !claims.is_empty() {
        let _ = set("x-asrs-user-claims", &claims.join(", "));
    }
    if let Some(query) = query(connection) {
        let _ = set("x-asrs-client-query", &query);
    }
    if let Some(signature) = signature(&handler.keys, connection.id().as_str()) {
        let _ = set("x-asrs-signature", &signature);
    }
    about.line.add_cookies(&url, &mut headers);
    Ok(WebhookRequest {
        method: Method::POST,
        url,
        headers,
        body,
    })
}

/// The texts of a claim.
pub(super) fn texts(claim: &serde_json::Value) -> Vec<String> {
    match claim {
        serde_json::Value::Array(values) => values.iter().flat_map(texts).collect(),
        serde_json::Value::String(text) => vec![text.clone()],
        serde_json::Value::Null => Vec::new(),
        other => vec![other.to_string()],
    }
}

/// The query of the client's first request, with a `?`.
fn query(connection: &Connection) -> Option<String> {
    let mut query = String::new();
    let encoded = |text| percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC);
    for (name, value) in connection.query_pairs() {
        query.push(if query.is_empty() { '?' } else { '&' });
        query.extend(encoded(name));
        query.push('=');
        query.extend(encoded(value));
    }
    Some(query).filter(|query| !query.is_empty())
}

/// The outcome of an invocation for the client, from the handler's answer. The client is told the whole text of an error.
pub(super) fn outcome(
    connection: &Connection,
    invocation_id: Option<&str>,
    answer: Result<WebhookAnswer, CallError>,
) -> Result<Outcome, Fault> {
    let answer = answer.map_err(|error| Fault {
        why: error.to_string(),
        for_client: match error {
            CallError::Unreachable(_) | CallError::Tls(_) => "Invocation failed, status code 500".to_owned(),
            CallError::TooLarge { .. } => "Invocation failed, response too large.".to_owned(),
            error => format!("Invocation failed, error: the handler: {}.", error.for_client()),
        },
    })?;
    match answer.status {
        StatusCode::NO_CONTENT => return Ok(Outcome::Void),
        StatusCode::OK if answer.body.is_empty() => return Ok(Outcome::Void),
        StatusCode::OK => {}
        status => {
            return Err(Fault {
                for_client: format!("Invocation failed, status code {}", status.as_u16()),
                why: BadStatus(status).to_string(),
            });
        }
    }
    let Some(invocation_id) = invocation_id else {
        return Ok(Outcome::Void); // nobody waits for it
    };
    let protocol = match answer
        .headers
        .get(header::CONTENT_TYPE)
        .map(HeaderValue::as_bytes)
    {
        Some(kind) if begins(kind, JSON) => HubProtocol::Json,
        Some(kind) if begins(kind, MESSAGEPACK) => HubProtocol::MessagePack,
        _ => spoken(connection),
    };
    read(protocol, invocation_id, &answer.body).map_err(|problem| Fault {
        for_client: format!("Invocation failed, error: {problem}."),
        why: problem.to_string(),
    })
}

fn begins(content_type: &[u8], kind: &str) -> bool {
    let head = content_type.get(..kind.len());
    head.is_some_and(|head| head.eq_ignore_ascii_case(kind.as_bytes()))
}

/// Reads the completion of an invocation.
fn read(protocol: HubProtocol, invocation_id: &str, body: &[u8]) -> Result<Outcome, BadCompletion> {
    let mut decoder = Decoder::new(protocol, body.len().saturating_add(1));
    decoder.push(body);
    // Handlers that are written by hand forget the separator.
    if protocol == HubProtocol::Json && !body.ends_with(&[RECORD_SEPARATOR]) {
        decoder.push(&[RECORD_SEPARATOR]);
    }
    let message = decoder
        .next_message()
        .map_err(|_| BadCompletion::Unreadable)?
        .ok_or(BadCompletion::Unreadable)?;
    if decoder.buffered_bytes() > 0 {
        return Err(BadCompletion::Several);
    }
    match message {
        HubMessage::Completion {
            invocation_id: of,
            outcome,
            ..
        } if of == invocation_id => Ok(outcome),
        HubMessage::Completion { .. } => Err(BadCompletion::OfAnother),
        _ => Err(BadCompletion::Unreadable),
    }
}

/// The encoding of values for a connection's client.
pub(super) fn encoding(connection: &Connection) -> Encoding {
    spoken(connection).encoding()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Value;

    #[test]
    fn completions_are_read_as_handlers_write_them() {
        let json = |text: &str| read(HubProtocol::Json, "0", text.as_bytes());
        let five = Ok(Outcome::Result(Value::from_json_text("5").unwrap()));
        assert_eq!(
            json("{\"type\":3,\"invocationId\":\"0\",\"result\":5}\u{1e}"),
            five
        );
        assert_eq!(json("{\"result\":5,\"invocationId\":\"0\",\"type\":3}"), five);
        assert_eq!(
            json("{\"type\":3,\"invocationId\":\"0\"}\u{1e}"),
            Ok(Outcome::Void)
        );
        let failed = json("{\"type\":3,\"invocationId\":\"0\",\"error\":\"no\"}\u{1e}");
        assert_eq!(failed, Ok(Outcome::Error("no".to_owned())));
        for bad in [
            "x",
            "{}",
            "5",
            "null",
            "{\"type\":6}",
            "{\"type\":3}",
            "{\"type\":3,\"invocationId\":\"1\"}",
        ] {
            assert!(json(bad).is_err(), "{bad}");
            assert!(json(&format!("{bad}\u{1e}")).is_err(), "{bad}");
        }
        let two = "{\"type\":3,\"invocationId\":\"0\"}\u{1e}{\"type\":6}\u{1e}";
        assert_eq!(json(two), Err(BadCompletion::Several));
        let packed = [0x07, 0x95, 3, 0x80, 0xa1, 0x30, 3, 5];
        let outcome = read(HubProtocol::MessagePack, "0", &packed);
        assert_eq!(
            outcome,
            Ok(Outcome::Result(Value::from_messagepack(&[5][..]).unwrap()))
        );
        assert!(read(HubProtocol::MessagePack, "0", &packed[..5]).is_err());
    }

    #[test]
    fn the_length_before_a_message_is_taken_off() {
        for content in [1, 0x7f, 0x80, 0x4000] {
            let arguments = vec![Value::encode_as(&"x".repeat(content), Encoding::MessagePack).unwrap()];
            let call = Invocation {
                target: "a".to_owned(),
                arguments,
                ..Invocation::default()
            };
            let framed = encode(HubProtocol::MessagePack, &HubMessage::Invocation(call)).unwrap();
            let body = without_length(&framed);
            assert_eq!(body[0] & 0xf0, 0x90, "an array");
            assert!(body.len() > content && body.len() < framed.len());
        }
    }
}
