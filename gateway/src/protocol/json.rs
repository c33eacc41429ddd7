//! The JSON hub protocol: one object per message.
//!
//! Reading follows the reference server: names are case-sensitive and may come in any order, unknown ones
//! are skipped, of equal ones the last counts, and a property is only looked at if the type of the message
//! has it.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::{collections::HashSet, fmt};

use bytes::Bytes;
use serde::de::{Deserialize, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::{
    DecodeError, Encoding, Headers, HubMessage, Invocation, MAX_DEPTH, Outcome, Value,
    encoder::{ArgumentList, InvocationParts},
    framing::Sink,
};

/// Reads one record without its separator. `None`: a message of a type that is not known here.
///
/// Its values share the record's memory.
pub(super) fn decode(record: &Bytes) -> Result<Option<HubMessage>, DecodeError> {
    let text = checked_text(record)?;
    let [
        kind,
        headers,
        invocation_id,
        target,
        arguments,
        stream_ids,
        item,
        result,
        error,
        allow_reconnect,
        sequence_id,
    ] = properties(text, NAMES)?;
    let call = |invocation_id| {
        Ok::<_, DecodeError>(Invocation {
            headers: headers.headers()?,
            invocation_id,
            target: target.required("a string")?,
            arguments: arguments.values(record)?,
            stream_ids: stream_ids.read("an array of strings")?.unwrap_or_default(),
            data_type: None,
        })
    };
    Ok(Some(match kind.required("an integer")? {
        1_i64 => HubMessage::Invocation(call(invocation_id.id_or_none()?)?),
        2 => HubMessage::StreamItem {
            headers: headers.headers()?,
            invocation_id: invocation_id.id()?,
            item: item
                .value(record)
                .ok_or(DecodeError::Missing { property: "item" })?,
        },
        3 => HubMessage::Completion {
            headers: headers.headers()?,
            invocation_id: invocation_id.id()?,
            outcome: match (result.value(record), error.text()?) {
                (Some(_), Some(_)) => return Err(DecodeError::ResultAndError),
                (Some(result), None) => Outcome::Result(result),
                (None, Some(error)) => Outcome::Error(error),
                (None, None) => Outcome::Void,
            },
        },
        4 => HubMessage::StreamInvocation(call(Some(invocation_id.id()?))?),
        5 => HubMessage::CancelInvocation {
            headers: headers.headers()?,
            invocation_id: invocation_id.id()?,
        },
        6 => HubMessage::Ping,
        7 => HubMessage::Close {
            error: error.text()?,
            allow_reconnect: allow_reconnect.read("a boolean")?.unwrap_or_default(),
        },
        8 => HubMessage::Ack {
            sequence_id: sequence_id.required("an integer that is not negative")?,
        },
        9 => HubMessage::Sequence {
            sequence_id: sequence_id.required("an integer that is not negative")?,
        },
        _ => return Ok(None),
    }))
}

const NAMES: [&str; 11] = [
    "type",
    "headers",
    "invocationId",
    "target",
    "arguments",
    "streamIds",
    "item",
    "result",
    "error",
    "allowReconnect",
    "sequenceId",
];

/// The text of a record or handshake, if it is UTF-8 and not nested deeper than [`MAX_DEPTH`].
pub(super) fn checked_text(record: &[u8]) -> Result<&str, DecodeError> {
    check_depth(record).map_err(|TooDeep| DecodeError::TooDeep)?;
    str::from_utf8(record).map_err(|_| DecodeError::InvalidUtf8)
}

/// Nested deeper than [`MAX_DEPTH`].
#[derive(Debug)]
pub(super) struct TooDeep;

/// Counts brackets outside of strings. The text need not be JSON.
pub(super) fn check_depth(text: &[u8]) -> Result<(), TooDeep> {
    check_depth_within(text, MAX_DEPTH)
}

/// As [`check_depth`], for so many levels.
pub(super) fn check_depth_within(text: &[u8], levels: usize) -> Result<(), TooDeep> {
    // Text with few brackets can't be deep, whatever they are. Most messages end here.
    if memchr::memchr2_iter(b'[', b'{', text).nth(levels).is_none() {
        return Ok(());
    }
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    for byte in text {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            _ if in_string => {}
            b'[' | b'{' => {
                depth = depth.saturating_add(1);
                if depth > levels {
                    return Err(TooDeep);
                }
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    Ok(())
}

/// A value that was found within `whole`, sharing its memory.
pub(super) fn value_in(whole: &Bytes, raw: &RawValue) -> Value {
    Value::from_raw(Encoding::Json, whole.slice_ref(raw.get().as_bytes()))
}

/// Reads these properties of the object that is all of `text`.
pub(super) fn properties<'a, const N: usize>(
    text: &'a str,
    names: [&'static str; N],
) -> Result<[Property<'a>; N], serde_json::Error> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let properties = deserializer.deserialize_map(ObjectVisitor { names })?;
    deserializer.end()?;
    Ok(properties)
}

struct ObjectVisitor<const N: usize> {
    names: [&'static str; N],
}

impl<'de, const N: usize> Visitor<'de> for ObjectVisitor<N> {
    type Value = [Property<'de>; N];

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut properties = self.names.map(|name| Property { name, raw: None });
        while let Some(place) = map.next_key_seed(NameSeed { names: &self.names })? {
            match place.and_then(|place| properties.get_mut(place)) {
                Some(property) => property.raw = Some(map.next_value()?),
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(properties)
    }
}

/// Reads the name of a property as its place among the known names.
struct NameSeed<'n> {
    names: &'n [&'n str],
}

impl<'de> DeserializeSeed<'de> for NameSeed<'_> {
    type Value = Option<usize>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Option<usize>, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for NameSeed<'_> {
    type Value = Option<usize>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a property")
    }

    fn visit_str<E>(self, name: &str) -> Result<Option<usize>, E> {
        Ok(self.names.iter().position(|known| *known == name))
    }
}

/// One property that may be there.
#[derive(Clone, Copy)]
pub(super) struct Property<'a> {
    name: &'static str,
    raw: Option<&'a RawValue>,
}

impl<'a> Property<'a> {
    pub(super) fn required<T: Deserialize<'a>>(self, expected: &'static str) -> Result<T, DecodeError> {
        self.read(expected)?
            .ok_or(DecodeError::Missing { property: self.name })
    }

    /// Reads a field that may be absent; null means the same.
    pub(super) fn optional<T: Deserialize<'a>>(
        self,
        expected: &'static str,
    ) -> Result<Option<T>, DecodeError> {
        Ok(self.read::<Option<T>>(expected)?.flatten())
    }

    fn read<T: Deserialize<'a>>(self, expected: &'static str) -> Result<Option<T>, DecodeError> {
        let wrong_type = |_| DecodeError::WrongType {
            property: self.name,
            expected,
        };
        self.raw
            .map(|raw| serde_json::from_str(raw.get()))
            .transpose()
            .map_err(wrong_type)
    }

    /// A string; null is as good as absent.
    fn text(self) -> Result<Option<String>, DecodeError> {
        self.optional("a string")
    }

    /// An invocation id; the empty one is as good as absent.
    fn id_or_none(self) -> Result<Option<String>, DecodeError> {
        Ok(self.text()?.filter(|id| !id.is_empty()))
    }

    fn id(self) -> Result<String, DecodeError> {
        self.id_or_none()?
            .ok_or(DecodeError::Missing { property: self.name })
    }

    /// Any value, also null.
    pub(super) fn value(self, record: &Bytes) -> Option<Value> {
        self.raw.map(|raw| value_in(record, raw))
    }

    fn values(self, record: &Bytes) -> Result<Vec<Value>, DecodeError> {
        let values: Vec<&RawValue> = self.required("an array")?;
        Ok(values.into_iter().map(|value| value_in(record, value)).collect())
    }

    fn headers(self) -> Result<Headers, DecodeError> {
        let headers = self.read::<UniqueHeaders>("an object of strings")?;
        Ok(headers.map(|UniqueHeaders(headers)| headers).unwrap_or_default())
    }
}

struct UniqueHeaders(Headers);

impl<'de> Deserialize<'de> for UniqueHeaders {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<UniqueHeaders, D::Error> {
        deserializer.deserialize_map(HeadersVisitor).map(UniqueHeaders)
    }
}

struct HeadersVisitor;

impl<'de> Visitor<'de> for HeadersVisitor {
    type Value = Headers;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of strings")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Headers, A::Error> {
        let mut headers = Vec::new();
        while let Some(header) = map.next_entry()? {
            headers.push(header);
        }
        keep_last(&mut headers);
        Ok(headers)
    }
}

/// Keeps the last of headers with one name, so that every reader of the message sees the same one.
pub(super) fn keep_last(headers: &mut Headers) {
    if headers.len() < 2 {
        return;
    }
    let mut seen = HashSet::new();
    headers.reverse();
    headers.retain(|(name, _)| seen.insert(name.clone()));
    headers.reverse();
}

/// Writes one message without its separator. Values that are not JSON would be written as they are: the
/// encoder has transcoded them.
pub(super) fn write(out: &mut impl Sink, message: &HubMessage) {
    match message {
        HubMessage::Invocation(call) | HubMessage::StreamInvocation(call) => {
            return write_call(out, &InvocationParts::of(message.type_id(), call));
        }
        HubMessage::StreamItem {
            headers,
            invocation_id,
            item,
        } => {
            write_start(out, message.type_id(), headers, Some(invocation_id));
            out.put(b",\"item\":");
            out.put(item.bytes());
        }
        HubMessage::Completion {
            headers,
            invocation_id,
            outcome,
        } => {
            write_start(out, message.type_id(), headers, Some(invocation_id));
            match outcome {
                Outcome::Void => {}
                Outcome::Result(result) => {
                    out.put(b",\"result\":");
                    out.put(result.bytes());
                }
                Outcome::Error(error) => {
                    out.put(b",\"error\":");
                    write_string(out, error);
                }
            }
        }
        HubMessage::CancelInvocation {
            headers,
            invocation_id,
        } => {
            write_start(out, message.type_id(), headers, Some(invocation_id));
        }
        HubMessage::Ping => write_start(out, message.type_id(), &[], None),
        HubMessage::Close {
            error,
            allow_reconnect,
        } => {
            write_start(out, message.type_id(), &[], None);
            if let Some(error) = error {
                out.put(b",\"error\":");
                write_string(out, error);
            }
            if *allow_reconnect {
                out.put(b",\"allowReconnect\":true");
            }
        }
        HubMessage::Ack { sequence_id } | HubMessage::Sequence { sequence_id } => {
            write_start(out, message.type_id(), &[], None);
            out.put(b",\"sequenceId\":");
            out.put(sequence_id.to_string().as_bytes());
        }
    }
    out.put(b"}");
}

/// Writes a whole message of type 1 or 4.
pub(super) fn write_call(out: &mut impl Sink, call: &InvocationParts<'_>) {
    write_start(out, call.type_id, call.headers, call.invocation_id);
    out.put(b",\"target\":");
    write_string(out, call.target);
    out.put(b",\"arguments\":");
    match call.arguments {
        ArgumentList::Each(values) => write_array(out, values),
        ArgumentList::Array(array) => out.put(array.bytes()),
    }
    if !call.stream_ids.is_empty() {
        out.put(b",\"streamIds\":");
        let mut before: &[u8] = b"[";
        for id in call.stream_ids {
            out.put(before);
            write_string(out, id);
            before = b",";
        }
        out.put(b"]");
    }
    out.put(b"}");
}

/// The properties with which every message begins.
fn write_start(out: &mut impl Sink, type_id: u8, headers: &[(String, String)], invocation_id: Option<&str>) {
    out.put(b"{\"type\":");
    out.put(&[type_id.saturating_add(b'0')]);
    if !headers.is_empty() {
        out.put(b",\"headers\":");
        let mut before: &[u8] = b"{";
        for (name, value) in headers {
            out.put(before);
            write_string(out, name);
            out.put(b":");
            write_string(out, value);
            before = b",";
        }
        out.put(b"}");
    }
    if let Some(invocation_id) = invocation_id {
        out.put(b",\"invocationId\":");
        write_string(out, invocation_id);
    }
}

pub(super) fn write_array(out: &mut impl Sink, values: &[Value]) {
    out.put(b"[");
    let mut before: &[u8] = b"";
    for value in values {
        out.put(before);
        out.put(value.bytes());
        before = b",";
    }
    out.put(b"]");
}

/// Writes a string with the escapes that JSON requires; everything else stays as it is. No control
/// character is left, so neither the record separator nor a line feed.
pub(super) fn write_string(out: &mut impl Sink, text: &str) {
    out.put(b"\"");
    let mut rest = text.as_bytes();
    let special = |byte: &u8| *byte < 0x20 || matches!(byte, b'"' | b'\\');
    while let Some((plain, [byte, after @ ..])) = rest
        .iter()
        .position(special)
        .and_then(|at| rest.split_at_checked(at))
    {
        out.put(plain);
        match byte {
            b'"' => out.put(b"\\\""),
            b'\\' => out.put(b"\\\\"),
            b'\n' => out.put(b"\\n"),
            0x08 => out.put(b"\\b"),
            0x0C => out.put(b"\\f"),
            b'\r' => out.put(b"\\r"),
            b'\t' => out.put(b"\\t"),
            _ => {
                out.put(b"\\u00");
                out.put(&[hex_digit(byte >> 4), hex_digit(byte & 0xF)]);
            }
        }
        rest = after;
    }
    out.put(rest);
    out.put(b"\"");
}

fn hex_digit(number: u8) -> u8 {
    b"0123456789abcdef"
        .get(usize::from(number))
        .copied()
        .unwrap_or(b'0')
}
