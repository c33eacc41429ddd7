//! The messages as JSON: each WebSocket text frame is one object.

use std::num::NonZero;

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use bytes::Bytes;

use super::metadata::{Metadata, RULES};
use super::stream::{BEGINNING, Beginning, END_ERROR};
use super::{BY_EVENT, BY_INVOKE, Published, RefusedAs, StreamRequest};
use crate::protocol::client::{
    ClientMessage, Data, DataType, GroupSend, GroupStateWish, Request, RequestWish,
};
use crate::protocol::json::{self, Property, properties};
use crate::protocol::{Binary, DecodeError, EncodeError, Encoding, HubMessage, Invocation, Outcome, Value};

const NAMES: [&str; 17] = [
    "type",
    "group",
    "ackId",
    "noEcho",
    "dataType",
    "data",
    "event",
    "sequenceId",
    "invocationId",
    "target",
    "ttlSeconds",
    "stream",
    "streamId",
    "metadata",
    "state",
    "streamSequenceId",
    "error",
];

/// Reads one frame.
pub(super) fn decode(frame: &Bytes) -> Result<ClientMessage, DecodeError> {
    let text = json::checked_text(frame)?;
    let [
        kind,
        group,
        ack_id,
        no_echo,
        data_type,
        data,
        event,
        sequence_id,
        invocation_id,
        target,
        ttl_seconds,
        stream,
        stream_id,
        metadata,
        state,
        stream_sequence_id,
        error,
    ] = properties(text, NAMES)?;
    let ack_id = || ack_id.optional("an integer that is not negative");
    let request = |wish| {
        Ok(ClientMessage::Request(Request {
            ack_id: ack_id()?,
            wish,
        }))
    };
    let group = || group.required::<String>("a string");
    let no_echo = || Ok::<_, DecodeError>(no_echo.optional("a boolean")?.unwrap_or_default());
    let metadata = || metadata.optional::<Metadata>(RULES);
    let has_data = data.value(frame).is_some();
    let data = |default| read_data(frame, data_type, data, default);
    let call = |invocation_id, default| {
        let data = data(default)?;
        Ok(ClientMessage::Hub(HubMessage::Invocation(Invocation {
            headers: metadata()?.unwrap_or_default().into_headers(),
            invocation_id,
            target: event.required("a string")?,
            data_type: data.as_ref().map(|data| data.kind),
            arguments: data.map(|data| data.json).into_iter().collect(),
            ..Invocation::default()
        })))
    };
    let kind: String = kind.required("a string")?;
    let stream_id = || stream_id.required::<String>("a string");
    let begun: Option<Beginning> = stream.optional(BEGINNING)?;
    match kind.as_str() {
        "joinGroup" => request(RequestWish::Join(group()?)),
        "leaveGroup" => request(RequestWish::Leave(group()?)),
        "sendToGroup" if let Some(Beginning { id, idle_timeout }) = begun => {
            request(RequestWish::Stream(StreamRequest::Begin {
                id,
                group: group()?,
                no_echo: no_echo()?,
                idle_timeout,
                has_data,
            }))
        }
        "sendToGroup" => {
            let metadata = metadata()?;
            let data = match &metadata {
                Some(_) if !has_data => empty_text(),
                _ => data(true)?.ok_or(DecodeError::Missing { property: "data" })?,
            };
            request(RequestWish::Send(GroupSend {
                group: group()?,
                no_echo: no_echo()?,
                ttl_seconds: ttl_seconds
                    .optional("an integer that is not negative")?
                    .unwrap_or_default(),
                data,
                metadata: metadata.map(Metadata::into_entries).unwrap_or_default(),
            }))
        }
        "streamData" => {
            let id = stream_id()?;
            let number: Option<NonZero<u64>> = stream_sequence_id.optional("an integer above 0")?;
            let named = data_type.optional::<String>("a string")?.is_some();
            let missing = |property| Err(DecodeError::Missing { property });
            request(RequestWish::Stream(match number {
                None if !named && !has_data => StreamRequest::KeepAlive { id },
                None => return missing("streamSequenceId"),
                Some(_) if !named => return missing("dataType"),
                Some(_) if !has_data => return missing("data"),
                Some(number) => StreamRequest::Data {
                    id,
                    number: number.get(),
                    data: data(true)?.ok_or(DecodeError::Missing { property: "data" })?,
                },
            }))
        }
        "streamEnd" => request(RequestWish::Stream(StreamRequest::End {
            id: stream_id()?,
            error: error.optional(END_ERROR)?,
        })),
        "event" => call(ack_id()?.map(|id: u64| format!("{BY_EVENT}{id}")), true),
        "invoke" => {
            let kind: Option<String> = target.optional("a string")?;
            if kind.is_some_and(|kind| kind != "event") {
                return Err(DecodeError::WrongType {
                    property: "target",
                    expected: "\"event\"",
                });
            }
            let id: String = invocation_id.required("a string")?;
            call(Some(format!("{BY_INVOKE}{id}")), false)
        }
        "cancelInvocation" => {
            let id: String = invocation_id.required("a string")?;
            Ok(ClientMessage::Hub(HubMessage::CancelInvocation {
                headers: Vec::new(),
                invocation_id: format!("{BY_INVOKE}{id}"),
            }))
        }
        "sequenceAck" => Ok(ClientMessage::Hub(HubMessage::Ack {
            sequence_id: sequence_id.required("an integer that is not negative")?,
        })),
        "setGroupState" => request(RequestWish::GroupState(GroupStateWish::Set {
            group: group()?,
            state: state.optional("an object of strings")?,
        })),
        "subscribeGroupState" => request(RequestWish::GroupState(GroupStateWish::Subscribe(group()?))),
        "unsubscribeGroupState" => request(RequestWish::GroupState(GroupStateWish::Unsubscribe(group()?))),
        "ping" => Ok(ClientMessage::Hub(HubMessage::Ping)),
        kind => Err(DecodeError::UnknownMessage {
            kind: kind.chars().take(64).collect(),
        }),
    }
}

/// The data of a message that has metadata alone, as in the service's emulator.
fn empty_text() -> Data {
    Data {
        kind: DataType::Text,
        json: Value::from_raw(Encoding::Json, Bytes::from_static(br#""""#)),
        packed: None,
    }
}

/// The data of a message. `default`: where neither data nor its type are there, it is null.
fn read_data(
    frame: &Bytes,
    kind: Property<'_>,
    data: Property<'_>,
    default: bool,
) -> Result<Option<Data>, DecodeError> {
    let named: Option<String> = kind.optional("a string")?;
    // The .NET client begins it with a capital.
    let kind = match named.as_deref().map(str::to_ascii_lowercase).as_deref() {
        None | Some("json") => DataType::Json,
        Some("text") => DataType::Text,
        Some("binary") => DataType::Binary,
        Some("protobuf") => DataType::Protobuf,
        Some(_) => {
            return Err(DecodeError::WrongType {
                property: "dataType",
                expected: "json, text, binary or protobuf",
            });
        }
    };
    let json = match (data.value(frame), kind) {
        (Some(json), _) => json,
        (None, DataType::Json) if default || named.is_some() => Value::null(Encoding::Json),
        (None, DataType::Json) => return Ok(None),
        (None, _) => return Err(DecodeError::Missing { property: "data" }),
    };
    let packed = match kind {
        DataType::Json => None,
        DataType::Text => {
            data.required::<String>("a string")?;
            None
        }
        DataType::Binary | DataType::Protobuf => Some(bytes_of(data)?),
    };
    Ok(Some(Data { kind, json, packed }))
}

fn bytes_of(data: Property<'_>) -> Result<Value, DecodeError> {
    let no_base64 = DecodeError::WrongType {
        property: "data",
        expected: "base64 text",
    };
    let text: String = data.required("base64 text")?;
    let Ok(bytes) = BASE64.decode(text.as_bytes()) else {
        return Err(no_base64);
    };
    Value::encode_as(&Binary(bytes), Encoding::MessagePack).map_err(|_| no_base64)
}

/// The kind of a result. Those in MessagePack are what its text or bytes are, also for JSON.
fn kind_of(result: &Value) -> &'static str {
    if result.is_bytes() {
        "binary"
    } else if result.is_text() {
        "text"
    } else {
        "json"
    }
}

/// Writes the answer to an `invoke`. Without a result it has no data: the official .NET client can't bear null.
pub(super) fn invoke_response(id: &str, outcome: &Outcome) -> Result<Bytes, EncodeError> {
    let mut out = br#"{"type":"invokeResponse","invocationId":"#.to_vec();
    json::write_string(&mut out, id);
    match outcome {
        Outcome::Error(text) => {
            out.extend_from_slice(br#","success":false,"error":"#);
            write_error(&mut out, RefusedAs::InternalServerError, text);
        }
        Outcome::Void => out.extend_from_slice(br#","success":true"#),
        Outcome::Result(value) if value.is_null() => out.extend_from_slice(br#","success":true"#),
        Outcome::Result(value) => {
            out.extend_from_slice(br#","success":true,"dataType":""#);
            out.extend_from_slice(kind_of(value).as_bytes());
            out.extend_from_slice(br#"","data":"#);
            out.extend_from_slice(value.transcode(Encoding::Json)?.bytes());
        }
    }
    out.push(b'}');
    Ok(out.into())
}

/// Writes the ack of a request. The clients expect name and text of an error.
pub(super) fn ack(ack_id: u64, outcome: Result<(), (RefusedAs, &str)>) -> Bytes {
    let mut out = format!(r#"{{"type":"ack","ackId":{ack_id},"success":{}"#, outcome.is_ok()).into_bytes();
    if let Err((name, text)) = outcome {
        out.extend_from_slice(br#","error":"#);
        write_error(&mut out, name, text);
    }
    out.push(b'}');
    out.into()
}

fn write_error(out: &mut Vec<u8>, name: RefusedAs, text: &str) {
    out.extend_from_slice(format!(r#"{{"name":"{}","message":"#, name.name()).as_bytes());
    json::write_string(out, text);
    out.push(b'}');
}

pub(super) fn pong() -> Bytes {
    Bytes::from_static(br#"{"type":"pong"}"#)
}

/// The first message on a socket.
pub(super) fn connected(connection: &str, user: Option<&str>, reconnection_token: Option<&str>) -> Bytes {
    let mut out = br#"{"type":"system","event":"connected""#.to_vec();
    let fields = [
        ("userId", user),
        ("connectionId", Some(connection)),
        ("reconnectionToken", reconnection_token),
    ];
    for (name, value) in fields {
        if let Some(value) = value {
            out.extend_from_slice(format!(r#","{name}":"#).as_bytes());
            json::write_string(&mut out, value);
        }
    }
    out.push(b'}');
    out.into()
}

pub(super) fn disconnected(reason: &str) -> Bytes {
    let mut out = br#"{"type":"system","event":"disconnected","message":"#.to_vec();
    json::write_string(&mut out, reason);
    out.push(b'}');
    out.into()
}

/// Writes a published message for every receiver; the sequence id for reliable connections only.
pub(super) fn message(published: &Published<'_>, sequence_id: Option<u64>) -> Bytes {
    let size: usize = published.arguments.iter().map(|value| value.bytes().len()).sum();
    let mut out = Vec::with_capacity(size.saturating_add(160));
    match published.group {
        Some(group) => {
            out.extend_from_slice(br#"{"type":"message","from":"group","group":"#);
            json::write_string(&mut out, group);
        }
        None => out.extend_from_slice(br#"{"type":"message","from":"server""#),
    }
    if !published.from_user.is_empty() {
        out.extend_from_slice(br#","fromUserId":"#);
        json::write_string(&mut out, published.from_user);
    }
    let kind: &[u8] = match published.data() {
        (_, DataType::Json) => br#","dataType":"json","data":"#,
        (_, DataType::Text) => br#","dataType":"text","data":"#,
        (_, DataType::Binary) => br#","dataType":"binary","data":"#,
        (_, DataType::Protobuf) => br#","dataType":"protobuf","data":"#,
    };
    out.extend_from_slice(kind);
    match published.data() {
        (Some(data), _) => out.extend_from_slice(data.bytes()),
        (None, _) => published.write_call(&mut out),
    }
    if !published.metadata.is_empty() {
        write_metadata(&mut out, published.metadata);
    }
    if let Some(fragment) = &published.fragment {
        fragment.write(&mut out);
    }
    if let Some(id) = sequence_id {
        out.extend_from_slice(format!(r#","sequenceId":{id}"#).as_bytes());
    }
    out.push(b'}');
    out.into()
}

fn write_metadata(out: &mut Vec<u8>, metadata: &[(&str, &str)]) {
    out.extend_from_slice(br#","metadata":"#);
    let mut before = b'{';
    for (name, value) in metadata {
        out.push(before);
        before = b',';
        json::write_string(out, name);
        out.push(b':');
        json::write_string(out, value);
    }
    out.push(b'}');
}
