//! Tests of the protocol: bytes written by hand, the reading rules one by one, and properties that hold for
//! any message and any bytes.

mod clients;
mod fixtures;
mod handshakes;
mod properties;
mod reading_json;
mod reading_messagepack;
mod streams;
mod values;

use bytes::Bytes;

use super::{DecodeError, Decoder, Encoding, HubMessage, HubProtocol, Invocation, Outcome, Value};

fn json(text: &'static str) -> Value {
    Value::from_json_text(text).unwrap()
}

fn pack(bytes: &'static [u8]) -> Value {
    Value::from_messagepack(bytes).unwrap()
}

/// All messages of a stream, which has to end with the last of them.
fn decode_all(protocol: HubProtocol, bytes: &[u8]) -> Result<Vec<HubMessage>, DecodeError> {
    let mut decoder = Decoder::new(protocol, usize::MAX);
    decoder.push(bytes);
    let mut messages = Vec::new();
    while let Some(message) = decoder.next_message()? {
        messages.push(message);
    }
    assert_eq!(decoder.buffered_bytes(), 0, "bytes are left");
    Ok(messages)
}

/// Reads JSON records; the separators are added here.
fn read_json(record: impl AsRef<[u8]>) -> Result<Option<HubMessage>, DecodeError> {
    let mut bytes = record.as_ref().to_vec();
    bytes.push(0x1E);
    decode_all(HubProtocol::Json, &bytes).map(|messages| messages.into_iter().next())
}

/// Reads one MessagePack message; the length prefix is added here.
fn read_messagepack(body: impl AsRef<[u8]>) -> Result<Option<HubMessage>, DecodeError> {
    let body = body.as_ref();
    let mut bytes = Vec::new();
    super::framing::write_length(&mut bytes, body.len());
    bytes.extend_from_slice(body);
    decode_all(HubProtocol::MessagePack, &bytes).map(|messages| messages.into_iter().next())
}

fn call(invocation_id: Option<&str>, target: &str, arguments: Vec<Value>) -> Invocation {
    Invocation {
        invocation_id: invocation_id.map(str::to_owned),
        target: target.to_owned(),
        arguments,
        ..Invocation::default()
    }
}

fn completion(invocation_id: &str, outcome: Outcome) -> HubMessage {
    HubMessage::Completion {
        headers: Vec::new(),
        invocation_id: invocation_id.to_owned(),
        outcome,
    }
}

/// The message with every value in this encoding.
fn transcoded(mut message: HubMessage, encoding: Encoding) -> HubMessage {
    for value in message.values_mut() {
        *value = value.transcode(encoding).unwrap();
    }
    message
}

fn nested(open: &str, close: &str, levels: usize) -> Bytes {
    (open.repeat(levels) + &close.repeat(levels)).into()
}
