//! Hub messages in MessagePack, as plain values.

use bytes::{Buf, BytesMut};

pub use rmpv::Value;
use serde_json::Value as Json;

/// `value` as a hub message: with its length before it.
pub fn frame(value: &Value) -> Vec<u8> {
    let mut body = Vec::new();
    rmpv::encode::write_value(&mut body, value).expect("memory takes any value");
    let mut bytes = length_prefix(body.len());
    bytes.append(&mut body);
    bytes
}

/// The prefix of a message of `length` bytes: groups of 7 bits, the lowest first.
pub fn length_prefix(mut length: usize) -> Vec<u8> {
    let mut prefix = Vec::new();
    loop {
        let group = u8::try_from(length & 0x7F).expect("7 bits");
        length >>= 7;
        if length == 0 {
            prefix.push(group);
            return prefix;
        }
        prefix.push(group | 0x80);
    }
}

/// Takes one message off the front, if a whole one is there.
pub fn take(buffer: &mut BytesMut) -> Option<Value> {
    let (mut length, mut prefix) = (0_usize, 0_usize);
    loop {
        let byte = *buffer.get(prefix)?;
        length |= usize::from(byte & 0x7F) << (7 * prefix);
        prefix += 1;
        if byte & 0x80 == 0 {
            break;
        }
    }
    if buffer.len() < prefix + length {
        return None;
    }
    buffer.advance(prefix);
    let body = buffer.split_to(length);
    Some(rmpv::decode::read_value(&mut body.as_ref()).unwrap_or_else(|error| panic!("{error} in {body:?}")))
}

/// A value as a JSON text would say it.
pub fn from_json(value: &Json) -> Value {
    match value {
        Json::Null => Value::Nil,
        Json::Bool(flag) => Value::from(*flag),
        Json::Number(number) => match number.as_i64() {
            Some(integer) => Value::from(integer),
            None => Value::from(number.as_f64().expect("a number")),
        },
        Json::String(text) => Value::from(text.as_str()),
        Json::Array(items) => Value::Array(items.iter().map(from_json).collect()),
        Json::Object(fields) => Value::Map(
            fields
                .iter()
                .map(|(name, field)| (Value::from(name.as_str()), from_json(field)))
                .collect(),
        ),
    }
}

/// The other way; panics where JSON has no such value.
pub fn to_json(value: &Value) -> Json {
    match value {
        Value::Nil => Json::Null,
        Value::Boolean(flag) => Json::from(*flag),
        Value::Integer(number) => number
            .as_i64()
            .map_or_else(|| Json::from(number.as_u64()), Json::from),
        Value::F32(number) => Json::from(*number),
        Value::F64(number) => Json::from(*number),
        Value::String(text) => Json::from(text.as_str().expect("text is UTF-8")),
        Value::Array(items) => items.iter().map(to_json).collect(),
        Value::Map(fields) => {
            let name = |name: &Value| name.as_str().expect("names are text").to_owned();
            fields
                .iter()
                .map(|(key, field)| (name(key), to_json(field)))
                .collect()
        }
        Value::Binary(_) | Value::Ext(..) => panic!("JSON has nothing like {value}"),
    }
}

/// An invocation that wants an answer.
pub fn invocation(id: &str, target: &str, arguments: Vec<Value>) -> Value {
    Value::Array(vec![
        1.into(),
        Value::Map(Vec::new()),
        id.into(),
        target.into(),
        Value::Array(arguments),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_written_as_the_official_clients_write_them() {
        assert_eq!(length_prefix(13), [0x0D]);
        assert_eq!(length_prefix(209), [0xD1, 0x01]);
        assert_eq!(length_prefix(5248), [0x80, 0x29]);
    }

    #[test]
    fn messages_are_taken_one_by_one() {
        let value = invocation("0", "Say", vec!["hi".into(), 7.into()]);
        let bytes = frame(&value);
        assert_eq!(bytes[..4], [0x0E, 0x95, 0x01, 0x80]);
        let mut buffer = BytesMut::from(&[&bytes[..], &bytes[..5]].concat()[..]);
        assert_eq!(take(&mut buffer), Some(value));
        assert_eq!(take(&mut buffer), None);
    }
}
