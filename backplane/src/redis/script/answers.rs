//! The answer of a batch: a line of text, then the outcomes as MessagePack. One text costs the server and the node much
//! less than nested arrays.

use std::time::Duration;

use bytes::{Buf, Bytes};
use redis::Value;

use crate::error::BackplaneError;
use crate::redis::server::replies::malformed;

/// Deepest nesting of arrays in an answer.
const DEPTH: usize = 8;

/// The answer of a batch.
#[derive(Debug, PartialEq)]
pub(in crate::redis) struct BatchAnswer {
    /// The server's time in milliseconds since 1970.
    pub(in crate::redis) now: u64,
    /// The log's epoch and for how long it has lasted; `None` where it is the one that the node named.
    pub(in crate::redis) epoch: Option<(String, Duration)>,
    /// The outcomes of the operations; empty where none was carried out.
    pub(in crate::redis) outcomes: Vec<Outcome>,
}

/// The outcome of one operation.
#[derive(Debug, PartialEq)]
pub(in crate::redis) struct Outcome {
    pub(in crate::redis) kind: u8,
    pub(in crate::redis) value: Value,
}

impl BatchAnswer {
    pub(in crate::redis) fn read(answer: Value) -> Result<Self, BackplaneError> {
        match answer {
            Value::BulkString(text) => {
                Self::parse(Bytes::from(text)).ok_or_else(|| malformed("the answer of a batch"))
            }
            _ => Err(malformed("an answer of another type")),
        }
    }

    fn parse(mut text: Bytes) -> Option<Self> {
        let end = text.iter().position(|byte| *byte == b'\n')?;
        let head = text.split_to(end);
        text.advance(1);
        let mut head = std::str::from_utf8(&head).ok()?.split(' ');
        let seconds: u64 = head.next()?.parse().ok()?;
        let micros: u64 = head.next()?.parse().ok()?;
        let epoch = match head.next()? {
            "" => None,
            epoch => {
                let age: i64 = head.next()?.parse().ok()?;
                let age = Duration::from_millis(u64::try_from(age).unwrap_or(0));
                Some((epoch.to_owned(), age))
            }
        };
        let now = seconds.checked_mul(1_000)?.checked_add(micros / 1_000)?;
        let mut outcomes = Vec::new();
        if !text.is_empty() {
            let count = length(&mut text)?;
            outcomes.reserve(count.min(text.len()) / 2);
            for _ in 0..count / 2 {
                let Value::Int(kind) = value(&mut text, DEPTH)? else {
                    return None;
                };
                outcomes.push(Outcome {
                    kind: u8::try_from(kind).ok()?,
                    value: value(&mut text, DEPTH)?,
                });
            }
        }
        Some(Self { now, epoch, outcomes })
    }
}

/// Reads the head of an array and returns its length. The server writes an empty table as a map or as an array.
fn length(text: &mut Bytes) -> Option<usize> {
    match text.try_get_u8().ok()? {
        0x80 => Some(0),
        head @ 0x90..=0x9f => Some((head & 0x0f).into()),
        0xdc => text.try_get_u16().ok().map(Into::into),
        0xdd => usize::try_from(text.try_get_u32().ok()?).ok(),
        _ => None,
    }
}

/// Reads a value as the server would answer it by itself: `false` is nil, and a fraction is cut off.
fn value(text: &mut Bytes, depth: usize) -> Option<Value> {
    let head = *text.first()?;
    if matches!(head, 0x80 | 0x90..=0x9f | 0xdc | 0xdd) {
        let count = length(text)?;
        let depth = depth.checked_sub(1)?;
        let mut items = Vec::with_capacity(count.min(text.len()));
        for _ in 0..count {
            items.push(value(text, depth)?);
        }
        return Some(Value::Array(items));
    }
    text.advance(1);
    let number = match head {
        0x00..=0x7f => head.into(),
        0xe0..=0xff => i8::from_be_bytes([head]).into(),
        0xa0..=0xbf => return string(text, (head & 0x1f).into()),
        0xc0 | 0xc2 => return Some(Value::Nil),
        0xc3 => 1,
        0xca => text.try_get_f32().ok()? as i64,
        0xcb => text.try_get_f64().ok()? as i64,
        0xcc => text.try_get_u8().ok()?.into(),
        0xcd => text.try_get_u16().ok()?.into(),
        0xce => text.try_get_u32().ok()?.into(),
        0xcf => i64::try_from(text.try_get_u64().ok()?).ok()?,
        0xd0 => text.try_get_i8().ok()?.into(),
        0xd1 => text.try_get_i16().ok()?.into(),
        0xd2 => text.try_get_i32().ok()?.into(),
        0xd3 => text.try_get_i64().ok()?,
        0xd9 => {
            let length = text.try_get_u8().ok()?;
            return string(text, length.into());
        }
        0xda => {
            let length = text.try_get_u16().ok()?;
            return string(text, length.into());
        }
        0xdb => {
            let length = text.try_get_u32().ok()?;
            return string(text, usize::try_from(length).ok()?);
        }
        _ => return None,
    };
    Some(Value::Int(number))
}

fn string(text: &mut Bytes, length: usize) -> Option<Value> {
    (length <= text.len()).then(|| Value::BulkString(text.split_to(length).into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(kind: u8, value: Value) -> Outcome {
        Outcome { kind, value }
    }

    #[test]
    fn an_answer_is_read() {
        let mut text =
            b"1764324000 123456   \n\x96\x00\xce\x00\x01\x00\x00\x02\xc2\x00\x93\xa2ab\xd9\x01c\x80".to_vec();
        let read = BatchAnswer::read(Value::BulkString(text.clone())).unwrap();
        let nested = vec![
            Value::BulkString(b"ab".to_vec()),
            Value::BulkString(b"c".to_vec()),
            Value::Array(Vec::new()),
        ];
        assert_eq!(
            read,
            BatchAnswer {
                now: 1_764_324_000_123,
                epoch: None,
                outcomes: vec![
                    outcome(0, Value::Int(65_536)),
                    outcome(2, Value::Nil),
                    outcome(0, Value::Array(nested)),
                ],
            }
        );
        text.pop();
        assert!(BatchAnswer::read(Value::BulkString(text)).is_err());
        assert!(BatchAnswer::read(Value::Nil).is_err());
    }

    #[test]
    fn another_epoch_is_read() {
        let read = BatchAnswer::parse(Bytes::from_static(b"10 5 abc-7 250 \n")).unwrap();
        assert_eq!(read.epoch, Some(("abc-7".to_owned(), Duration::from_millis(250))));
        assert_eq!((read.now, read.outcomes), (10_000, Vec::new()));
        let read = BatchAnswer::parse(Bytes::from_static(b"10 5 abc-7 -3 \n")).unwrap();
        assert_eq!(read.epoch, Some(("abc-7".to_owned(), Duration::ZERO)));
    }

    #[test]
    fn nesting_is_bounded() {
        let mut text = b"10 5   \n\x92\x00".to_vec();
        text.extend([0x91; 100_000]);
        assert_eq!(BatchAnswer::parse(text.into()), None);
    }

    proptest::proptest! {
        #[test]
        fn nothing_that_comes_panics(packed in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..60)) {
            let text = [b"10 5   \n".as_slice(), &packed].concat();
            let _ = BatchAnswer::parse(text.into());
        }
    }
}
