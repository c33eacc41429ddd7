//! Hub messages in MessagePack, as plain values.

use bytes::{Buf, BytesMut};

pub use rmpv::Value;

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
