//! The messages in protobuf: each WebSocket binary frame is one.

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use bytes::Bytes;
use prost::{Message as _, decode_length_delimiter};

use super::metadata::{Metadata, RULES};
use super::schema::{
    self as schema, Ack, Any, Connected, DataMessage, Disconnected, Downstream, DownstreamMessage, Empty,
    Entry, Error, MessageData, SendToGroup, System, SystemEvent, Upstream, UpstreamMessage,
};
use super::{BY_EVENT, Published, RefusedAs, StreamRequest, byte_string};
use crate::protocol::client::{ClientMessage, Data, DataType, GroupSend, Request, RequestWish};
use crate::protocol::{DecodeError, DecodeValueError, Encoding, HubMessage, Invocation, Value, json};

/// Reads one frame.
pub(super) fn decode(frame: &Bytes) -> Result<ClientMessage, DecodeError> {
    let message = UpstreamMessage::decode(frame.clone()).map_err(DecodeError::Protobuf)?;
    let request = |ack_id, wish| Ok(ClientMessage::Request(Request { ack_id, wish }));
    match message.message {
        Some(Upstream::JoinGroup(join)) => request(join.ack_id, RequestWish::Join(join.group)),
        Some(Upstream::LeaveGroup(leave)) => request(leave.ack_id, RequestWish::Leave(leave.group)),
        Some(Upstream::SendToGroup(send)) => {
            let ack_id = send.ack_id;
            // It is refused: the schema has no messages about streams.
            let wish = match send.stream {
                Some(_) => RequestWish::Stream(StreamRequest::Begin {
                    id: String::new(),
                    group: send.group,
                    no_echo: false,
                    idle_timeout: None,
                    has_data: false,
                }),
                None => RequestWish::Send(read_send(send)?),
            };
            request(ack_id, wish)
        }
        Some(Upstream::Event(event)) => {
            let data = read_data(event.data)?;
            Ok(ClientMessage::Hub(HubMessage::Invocation(Invocation {
                headers: read_metadata(event.metadata)?.into_headers(),
                invocation_id: event.ack_id.map(|id| format!("{BY_EVENT}{id}")),
                target: event.event,
                data_type: Some(data.kind),
                arguments: vec![data.json],
                ..Invocation::default()
            })))
        }
        Some(Upstream::SequenceAck(ack)) => Ok(ClientMessage::Hub(HubMessage::Ack {
            sequence_id: ack.sequence_id,
        })),
        Some(Upstream::Ping(Empty {})) => Ok(ClientMessage::Hub(HubMessage::Ping)),
        None => Err(DecodeError::UnknownMessage {
            kind: first_field(frame),
        }),
    }
}

fn read_send(send: SendToGroup) -> Result<GroupSend, DecodeError> {
    let only_metadata = send.data.is_none() && !send.metadata.is_empty();
    let empty_text = || MessageData {
        data: Some(schema::Data::Text(Bytes::new())),
    };
    Ok(GroupSend {
        group: send.group,
        no_echo: send.no_echo.unwrap_or_default(),
        ttl_seconds: send.ttl_seconds.unwrap_or_default().into(),
        data: read_data(send.data.or_else(|| only_metadata.then(empty_text)))?,
        metadata: read_metadata(send.metadata)?.into_entries(),
    })
}

fn read_metadata(entries: Vec<Bytes>) -> Result<Metadata, DecodeError> {
    let mut metadata = Metadata::default();
    for entry in entries {
        let entry = Entry::decode(entry).map_err(DecodeError::Protobuf)?;
        if !metadata.add(&entry.key, &entry.value) {
            return Err(DecodeError::WrongType {
                property: "metadata",
                expected: RULES,
            });
        }
    }
    Ok(metadata)
}

/// The number of a frame's first field, in words. A field begins with its number and the type of its value, in three bits.
fn first_field(frame: &Bytes) -> String {
    let number = decode_length_delimiter(frame.clone()).map(|key| key >> 3);
    number.map_or_else(|_| "none".to_owned(), |number| format!("field {number}"))
}

/// The data of a message. Where it is missing it is null, as in JSON.
fn read_data(data: Option<MessageData>) -> Result<Data, DecodeError> {
    let bytes = |kind, bytes: &[u8]| {
        let base64 = json_text(&BASE64.encode(bytes));
        Data {
            kind,
            json: base64,
            packed: byte_string(bytes),
        }
    };
    Ok(match data.and_then(|data| data.data) {
        None => Data {
            kind: DataType::Json,
            json: Value::null(Encoding::Json),
            packed: None,
        },
        Some(schema::Data::Text(text)) => Data {
            kind: DataType::Text,
            json: json_text(str::from_utf8(&text).map_err(|_| DecodeError::WrongType {
                property: "text_data",
                expected: "UTF-8",
            })?),
            packed: None,
        },
        Some(schema::Data::Json(text)) => Data {
            kind: DataType::Json,
            json: Value::from_json_text(text).map_err(|error| match error {
                DecodeValueError::TooDeep => DecodeError::TooDeep,
                _ => DecodeError::WrongType {
                    property: "json_data",
                    expected: "JSON",
                },
            })?,
            packed: None,
        },
        Some(schema::Data::Binary(data)) => bytes(DataType::Binary, &data),
        Some(schema::Data::Protobuf(any)) => {
            let any = Any::checked(any).map_err(DecodeError::Protobuf)?;
            bytes(DataType::Protobuf, &any)
        }
    })
}

fn json_text(text: &str) -> Value {
    let mut out = Vec::with_capacity(text.len().saturating_add(2));
    json::write_string(&mut out, text);
    Value::from_raw(Encoding::Json, out.into())
}

fn write(message: Downstream) -> Bytes {
    let message = DownstreamMessage {
        message: Some(message),
    };
    message.encode_to_vec().into()
}

pub(super) fn ack(ack_id: u64, outcome: Result<(), (RefusedAs, &str)>) -> Bytes {
    write(Downstream::Ack(Ack {
        ack_id,
        success: outcome.is_ok(),
        error: outcome.err().map(|(name, message)| Error {
            name: name.name().to_owned(),
            message: message.to_owned(),
        }),
    }))
}

pub(super) fn pong() -> Bytes {
    write(Downstream::Pong(Empty {}))
}

pub(super) fn connected(connection: &str, user: Option<&str>, reconnection_token: Option<&str>) -> Bytes {
    write(Downstream::System(System {
        message: Some(SystemEvent::Connected(Connected {
            connection_id: connection.to_owned(),
            user_id: user.unwrap_or_default().to_owned(),
            reconnection_token: reconnection_token.map(str::to_owned),
        })),
    }))
}

pub(super) fn disconnected(reason: &str) -> Bytes {
    write(Downstream::System(System {
        message: Some(SystemEvent::Disconnected(Disconnected {
            reason: reason.to_owned(),
        })),
    }))
}

/// Writes a published message for every receiver; the sequence id for reliable connections only. It always has data: clients
/// lose their sockets over a message without.
pub(super) fn message(published: &Published<'_>, sequence_id: Option<u64>) -> Bytes {
    write(Downstream::Data(DataMessage {
        from: if published.group.is_some() {
            "group"
        } else {
            "server"
        }
        .to_owned(),
        group: published.group.map(str::to_owned),
        data: Some(MessageData {
            data: Some(data_of(published)),
        }),
        sequence_id,
        metadata: published.metadata.iter().map(entry).collect(),
    }))
}

fn entry((name, value): &(&str, &str)) -> Bytes {
    let entry = Entry {
        key: (*name).to_owned(),
        value: (*value).to_owned(),
    };
    entry.encode_to_vec().into()
}

fn data_of(published: &Published<'_>) -> schema::Data {
    let (data, kind) = published.data();
    let Some(json) = data else {
        let mut call = Vec::new();
        published.write_call(&mut call);
        return schema::Data::Json(call.into());
    };
    let typed = match kind {
        DataType::Json => None,
        DataType::Text => json
            .decode::<String>()
            .ok()
            .map(|text| schema::Data::Text(text.into())),
        DataType::Binary => published.bytes().map(schema::Data::Binary),
        // Bytes that are no `Any` would end the receivers' sockets.
        DataType::Protobuf => published.bytes().map(|bytes| {
            let any = Any::checked(bytes.clone());
            any.map_or(schema::Data::Binary(bytes), schema::Data::Protobuf)
        }),
    };
    typed.unwrap_or_else(|| schema::Data::Json(json.bytes().clone()))
}
