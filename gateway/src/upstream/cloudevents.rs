//! The event handler form of Azure Web PubSub: CloudEvents 1.0 in binary mode.

use std::time::SystemTime;

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use reqwest::{Method, Url};

use super::call_error::BadStatus;
use super::carried::carried;
use super::handler::{Handler, WebhookAnswer, WebhookRequest};
use super::line::Line;
use super::origin::{REQUEST_ORIGIN, VERSION};
use super::settings::SystemEvent;
use super::signalr::{About, Unsendable};
use super::signature::signature;
use super::template::UrlNames;
use crate::hub::{BY_CLIENT, Connection};
use crate::protocol::{Binary, ClientProtocol, DataType, Encoding, Headers, Timestamp, Value};

const JSON: &str = "application/json; charset=utf-8";
/// Begins the headers that carry a message's metadata.
const METADATA: &str = "x-webpubsub-metadata-";

/// The event that a client wants to connect.
pub(super) fn connect(
    handler: &Handler,
    about: &About<'_>,
    body: Bytes,
) -> Result<WebhookRequest, Unsendable> {
    request(handler, about, "sys", SystemEvent::Connect.name(), JSON, body)
}

/// The event that a client has connected.
pub(super) fn connected(handler: &Handler, about: &About<'_>) -> Result<WebhookRequest, Unsendable> {
    let body = Bytes::from_static(b"{}");
    request(handler, about, "sys", SystemEvent::Connected.name(), JSON, body)
}

/// The event that a connection has ended. The reason is always there: a middleware fails without.
pub(super) fn disconnected(
    handler: &Handler,
    about: &About<'_>,
    reason: &str,
) -> Result<WebhookRequest, Unsendable> {
    let reason = match reason {
        BY_CLIENT => "",
        reason => reason,
    };
    let body = serde_json::json!({ "reason": reason }).to_string();
    request(
        handler,
        about,
        "sys",
        SystemEvent::Disconnected.name(),
        JSON,
        body.into(),
    )
}

/// The event that a connection has joined a group or left it.
pub(super) fn group_changed(
    handler: &Handler,
    about: &About<'_>,
    event: SystemEvent,
    group: &str,
) -> Result<WebhookRequest, Unsendable> {
    let body = serde_json::json!({ "group": group }).to_string();
    request(handler, about, "gp", event.name(), JSON, body.into())
}

/// A user event: its name, the data, and the metadata that came with it.
pub(super) fn message(
    handler: &Handler,
    about: &About<'_>,
    event: &str,
    data: EventData,
    metadata: &Headers,
) -> Result<WebhookRequest, Unsendable> {
    let content_type = match data.kind {
        DataType::Json => "application/json",
        DataType::Text => "text/plain",
        DataType::Protobuf if !handler.settings.protobuf_as_binary => "application/x-protobuf",
        DataType::Binary | DataType::Protobuf => "application/octet-stream",
    };
    let mut request = request(handler, about, "user", event, content_type, data.bytes)?;
    for (name, value) in metadata {
        let name = format!("{METADATA}{}", name.to_ascii_lowercase());
        let value = carried(value).filter(|_| value.is_ascii());
        if let (Ok(name), Some(value)) = (name.parse::<header::HeaderName>(), value) {
            request.headers.insert(name, value);
        }
    }
    Ok(request)
}

/// The URL that a handler is validated at, for events of a hub.
pub(super) fn validation_url(handler: &Handler, hub: &str) -> Result<Url, Unsendable> {
    let names = UrlNames {
        hub,
        category: "validate",
        event: "validate",
    };
    Ok(handler.template.fill(names)?)
}

fn request(
    handler: &Handler,
    about: &About<'_>,
    kind: &str,
    event: &str,
    content_type: &'static str,
    body: Bytes,
) -> Result<WebhookRequest, Unsendable> {
    let category = if kind == "user" { "messages" } else { "connections" };
    let names = UrlNames {
        hub: about.hub,
        category,
        event,
    };
    let url = handler.template.fill(names)?;
    let connection = about.connection;
    let id = connection.id().as_str();
    let origin = handler.public_host.as_ref().map(|own| own.host.as_str());
    let mut headers = HeaderMap::new();
    // Names in lower case are what HTTP/2 writes; the receivers compare without case.
    let required = [
        ("content-type", content_type),
        (REQUEST_ORIGIN, origin.unwrap_or_default()),
        (VERSION, "1.0"),
        ("ce-specversion", "1.0"),
        ("ce-type", &format!("azure.webpubsub.{kind}.{event}")),
        ("ce-source", &format!("/hubs/{}/client/{id}", about.hub)),
        ("ce-id", about.event_id),
        ("ce-time", &now()),
        ("ce-hub", about.hub),
        ("ce-connectionid", id),
        ("ce-eventname", event),
    ];
    for (name, value) in required {
        if !value.is_ascii() {
            return Err(Unsendable::NotAscii);
        }
        headers.insert(name, carried(value).ok_or(Unsendable::Header)?);
    }
    // A user id that no header brings unchanged is left out: the rest is still of use.
    if let Some(user) = connection.user().and_then(|user| carried(user.as_str())) {
        headers.insert("ce-userid", user);
    }
    let subprotocol = about
        .line
        .subprotocol()
        .or_else(|| subprotocol(connection).map(str::to_owned));
    if let Some(name) = subprotocol.filter(|_| event != SystemEvent::Connect.name() || kind == "user")
        && let Ok(name) = HeaderValue::from_str(&name)
    {
        headers.insert("ce-subprotocol", name);
    }
    if let Some(signature) = signature(&handler.keys, id)
        && let Ok(signature) = HeaderValue::from_str(&signature)
    {
        headers.insert("ce-signature", signature);
    }
    Line::add_state(connection, &mut headers);
    about.line.add_cookies(&url, &mut headers);
    Ok(WebhookRequest {
        method: Method::POST,
        url,
        headers,
        body,
    })
}

fn now() -> String {
    Timestamp::try_from(SystemTime::now())
        .map(|now| now.to_string())
        .unwrap_or_default()
}

/// The subprotocol that the client and the gateway agreed on.
fn subprotocol(connection: &Connection) -> Option<&'static str> {
    connection.protocol().and_then(ClientProtocol::subprotocol)
}

/// Data of an event or an answer, as bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct EventData {
    pub(super) kind: DataType,
    pub(super) bytes: Bytes,
}

impl EventData {
    /// The data of a call. Clients without kinds of data send all arguments, as one JSON array.
    pub(super) fn of_call(kind: Option<DataType>, arguments: &[Value]) -> Result<Self, Unsendable> {
        let Some(kind) = kind else {
            let all = Value::array(arguments, Encoding::Json)?;
            return Ok(Self {
                kind: DataType::Json,
                bytes: all.bytes().clone(),
            });
        };
        let Some(argument) = arguments.first() else {
            return Ok(Self {
                kind: DataType::Json,
                bytes: Bytes::from_static(b"null"),
            });
        };
        let bytes = match kind {
            DataType::Json => argument.bytes().clone(),
            DataType::Text => argument.decode::<String>()?.into(),
            DataType::Binary | DataType::Protobuf => argument.decode::<Binary>()?.0.into(),
        };
        Ok(Self { kind, bytes })
    }

    /// The data of an answer; `None` where it has none.
    fn of_answer(answer: &WebhookAnswer) -> Result<Option<Self>, BadAnswer> {
        if answer.body.is_empty() {
            return Ok(None);
        }
        let content_type = answer
            .headers
            .get(header::CONTENT_TYPE)
            .map(HeaderValue::as_bytes);
        let content_type = content_type.map(|value| String::from_utf8_lossy(value).to_ascii_lowercase());
        let essence = content_type
            .as_deref()
            .and_then(|value| value.split(';').next())
            .map(str::trim);
        let kind = match essence {
            Some("text/plain") => DataType::Text,
            Some("application/json") => DataType::Json,
            _ => DataType::Binary,
        };
        match kind {
            DataType::Text if str::from_utf8(&answer.body).is_err() => {
                return Err(BadAnswer::NotUtf8);
            }
            DataType::Json => {
                let value = Value::from_json_text(answer.body.clone()).map_err(|_| BadAnswer::NotJson)?;
                // Null is no data: the .NET client can't bear it.
                return Ok((!value.is_null()).then(|| Self {
                    kind,
                    bytes: value.bytes().clone(),
                }));
            }
            _ => {}
        }
        Ok(Some(Self {
            kind,
            bytes: answer.body.clone(),
        }))
    }

    /// The data as JSON; bytes are base64 text.
    pub(super) fn json(&self) -> Value {
        let text = match self.kind {
            DataType::Json => return Value::from_raw(Encoding::Json, self.bytes.clone()),
            DataType::Text => String::from_utf8_lossy(&self.bytes).into_owned(),
            DataType::Binary | DataType::Protobuf => BASE64.encode(&self.bytes),
        };
        Value::encode_as(&text, Encoding::Json).unwrap_or_else(|_| Value::null(Encoding::Json))
    }

    /// The data as the result of a call whose client names kinds of data: text and bytes are MessagePack.
    pub(super) fn result(&self) -> Value {
        let typed = match self.kind {
            DataType::Json => None,
            DataType::Text => {
                let text = str::from_utf8(&self.bytes).ok();
                text.and_then(|text| Value::encode_as(text, Encoding::MessagePack).ok())
            }
            DataType::Binary | DataType::Protobuf => self.packed(),
        };
        typed.unwrap_or_else(|| self.json())
    }

    /// The data as a byte string of MessagePack, where it is bytes.
    pub(super) fn packed(&self) -> Option<Value> {
        match self.kind {
            DataType::Json | DataType::Text => None,
            DataType::Binary | DataType::Protobuf => {
                Value::encode_as(&Binary(self.bytes.to_vec()), Encoding::MessagePack).ok()
            }
        }
    }
}

/// The fault of a handler's answer to a user event, for the client and the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadAnswer {
    #[error(transparent)]
    Status(#[from] BadStatus),
    #[error("its answer is text/plain and not UTF-8")]
    NotUtf8,
    #[error("its answer is application/json and not JSON")]
    NotJson,
}

/// The data that a handler answered with to a user event.
pub(super) fn outcome(answer: &WebhookAnswer) -> Result<Option<EventData>, BadAnswer> {
    if !answer.status.is_success() {
        return Err(BadStatus(answer.status).into());
    }
    if answer.status == StatusCode::NO_CONTENT {
        Ok(None)
    } else {
        EventData::of_answer(answer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(content_type: Option<&str>, body: &'static [u8]) -> WebhookAnswer {
        let mut headers = HeaderMap::new();
        if let Some(kind) = content_type {
            headers.insert(header::CONTENT_TYPE, kind.parse().unwrap());
        }
        WebhookAnswer {
            status: StatusCode::OK,
            headers,
            body: Bytes::from_static(body),
        }
    }

    #[test]
    fn answers_have_the_kind_that_their_content_type_says() {
        let of = |kind, body| {
            EventData::of_answer(&answer(kind, body))
                .unwrap()
                .map(|data| (data.kind, data.bytes))
        };
        let bytes = Bytes::from_static;
        assert_eq!(
            of(Some("text/plain; charset=utf-8"), b"a"),
            Some((DataType::Text, bytes(b"a")))
        );
        assert_eq!(
            of(Some("Application/JSON"), b" {\"x\":1} "),
            Some((DataType::Json, bytes(b"{\"x\":1}")))
        );
        assert_eq!(
            of(None, b"\x00\xff"),
            Some((DataType::Binary, bytes(b"\x00\xff")))
        );
        assert_eq!(of(Some("application/json"), b"null"), None);
        assert_eq!(of(Some("text/plain"), b""), None);
        assert_eq!(
            EventData::of_answer(&answer(Some("text/plain"), b"\xff")),
            Err(BadAnswer::NotUtf8)
        );
        assert_eq!(
            EventData::of_answer(&answer(Some("application/json"), b"{")),
            Err(BadAnswer::NotJson)
        );
    }

    #[test]
    fn data_of_calls_is_what_the_client_meant() {
        let value = |text: &str| Value::from_json_text(text.to_owned()).unwrap();
        let of = |kind, text| EventData::of_call(kind, &[value(text)]).unwrap().bytes;
        assert_eq!(of(Some(DataType::Text), r#""h\u00e4""#), "hä".as_bytes());
        assert_eq!(of(Some(DataType::Json), r#"{"a": 1}"#), &br#"{"a": 1}"#[..]);
        assert_eq!(of(Some(DataType::Binary), r#""AP8=""#), &[0, 255][..]);
        assert_eq!(of(None, r#""x""#), &br#"["x"]"#[..]);
        assert_eq!(
            EventData::of_call(Some(DataType::Json), &[]).unwrap().bytes,
            &b"null"[..]
        );
        assert!(EventData::of_call(Some(DataType::Text), &[value("5")]).is_err());
    }
}
