//! Checks that every kind of client can read a value. Any other value is refused to its sender: acknowledged, it would
//! be missing for some of the receivers, or end their connections.
//!
//! | value | because |
//! | --- | --- |
//! | nested deeper than [`MOST_SENT`] | .NET reads frames of at most 64 levels, and Web PubSub's frames wrap arguments thrice |
//! | MessagePack text that is not UTF-8 | clients end their connections; JSON has no way to write it |
//! | a JSON string with half of a surrogate pair | .NET can't read it, MessagePack can't write it |
//! | a timestamp that is malformed, or not of the years 0001 to 9999 | clients end their connections |
//! | an array or map as the key of a map | JSON has no way to write it |
//!
//! Every other value has a form in each encoding: see [`Value::transcode`].
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use memchr::memchr;

use super::pack::{PackError, Reader, Token};
use super::{Encoding, MAX_DEPTH, TranscodeError, Value, json, timestamp};

/// Most levels of a value that is sent: a frame around it has at most [`MAX_DEPTH`].
pub(crate) const MOST_SENT: usize = MAX_DEPTH - 3;

impl Value {
    /// Checks that every kind of client can read this value.
    pub(crate) fn check_readable(&self) -> Result<(), TranscodeError> {
        match self.encoding() {
            Encoding::Json => {
                let depth = json::check_depth_within(self.bytes(), MOST_SENT);
                depth.map_err(|json::TooDeep| TranscodeError::TooDeepToSend)?;
                check_escapes(self.bytes())
            }
            Encoding::MessagePack => {
                let mut reader = Reader::new(self.bytes());
                check(&mut reader, MOST_SENT)?;
                Ok(reader.end()?)
            }
        }
    }
}

fn check(reader: &mut Reader<'_>, levels: usize) -> Result<(), TranscodeError> {
    let token = reader.token()?;
    let (items, keyed) = match token {
        Token::Array(items) => (items, false),
        Token::Map(pairs) => (pairs, true),
        scalar => return check_scalar(&scalar),
    };
    let levels = levels.checked_sub(1).ok_or(TranscodeError::TooDeepToSend)?;
    for _ in 0..items {
        if keyed {
            match reader.token()? {
                Token::Array(_) | Token::Map(_) => return Err(TranscodeError::UnsupportedKey),
                key => check_scalar(&key)?,
            }
        }
        check(reader, levels)?;
    }
    Ok(())
}

fn check_scalar(token: &Token<'_>) -> Result<(), TranscodeError> {
    match *token {
        Token::Str(text) if str::from_utf8(text).is_err() => {
            Err(TranscodeError::InvalidMessagePack(PackError::InvalidUtf8))
        }
        Token::Ext(timestamp::EXTENSION_TYPE, data) if timestamp::to_rfc3339(data).is_none() => {
            Err(TranscodeError::InvalidTimestamp)
        }
        _ => Ok(()),
    }
}

/// Looks for halves of surrogate pairs in text that is known to be JSON.
fn check_escapes(mut text: &[u8]) -> Result<(), TranscodeError> {
    let mut high = false;
    while let Some(at) = memchr(b'\\', text) {
        if high && at > 0 {
            break; // nothing may stand between the two
        }
        let unit = code_unit(text.get(at..).unwrap_or_default());
        let length = if unit.is_some() { 6 } else { 2 };
        text = text.get(at.saturating_add(length)..).unwrap_or_default();
        high = match unit {
            Some(0xDC00..=0xDFFF) if high => false,
            Some(0xD800..=0xDBFF) if !high => true,
            Some(0xD800..=0xDFFF) => return Err(TranscodeError::LoneSurrogate),
            _ if high => return Err(TranscodeError::LoneSurrogate),
            _ => false,
        };
    }
    if high {
        return Err(TranscodeError::LoneSurrogate);
    }
    Ok(())
}

/// The number after `\\u`.
fn code_unit(escape: &[u8]) -> Option<u16> {
    let digits = escape.strip_prefix(b"\\u")?.get(..4)?;
    u16::from_str_radix(str::from_utf8(digits).ok()?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(text: &str) -> Result<(), TranscodeError> {
        Value::from_json_text(text.to_owned()).unwrap().check_readable()
    }

    fn packed(bytes: &[u8]) -> Result<(), TranscodeError> {
        Value::from_messagepack(bytes.to_vec()).unwrap().check_readable()
    }

    #[test]
    fn json_is_told_but_for_halves_of_pairs_and_depth() {
        for text in [
            "1e999",
            "123456789012345678901234567890",
            r#""\ud83d\ude00""#,
            r#""\\ud83d""#,
            r#"{"\u0041\n":"\uD7FF\uE000"}"#,
            r#"["\ud83d\ude00\ud83d\ude00", "\\\\"]"#,
        ] {
            assert_eq!(json(text), Ok(()), "{text}");
        }
        for text in [
            r#""\ud83d""#,
            r#""\ude00""#,
            r#""\ud83dx\ude00""#,
            r#""\ud83d\n\ude00""#,
            r#""\ud83d\ud83d\ude00""#,
            r#"["\ud83d","\ude00"]"#,
            r#"{"\\\ud83d":1}"#,
        ] {
            assert_eq!(json(text), Err(TranscodeError::LoneSurrogate), "{text}");
        }
        let nested = |levels| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        assert_eq!(json(&nested(MOST_SENT)), Ok(()));
        assert_eq!(json(&nested(MOST_SENT + 1)), Err(TranscodeError::TooDeepToSend));
    }

    #[test]
    fn messagepack_is_told_if_json_can_say_it_and_clients_can_read_it() {
        let reported: [&[u8]; 9] = [
            b"\x81\x07\x01",                         // keys: a number,
            b"\x81\xc4\x01\x01\x01",                 // bytes,
            b"\x81\xc3\x01",                         // a boolean,
            b"\x81\xcb\x7f\xf8\0\0\0\0\0\0\x01",     // NaN,
            b"\x81\xd4\x05\x01\x01",                 // an extension
            b"\xcf\xff\xff\xff\xff\xff\xff\xff\xff", // the largest number
            b"\xd6\xff\x5e\x0d\x5d\xa5",             // a timestamp
            b"\xd4\x05\x01",                         // another extension
            b"\xa2\xc3\xa4",                         // text
        ];
        for bytes in reported {
            assert_eq!(packed(bytes), Ok(()), "{bytes:x?}");
        }
        let no_text = Err(TranscodeError::InvalidMessagePack(PackError::InvalidUtf8));
        let no_time = Err(TranscodeError::InvalidTimestamp);
        let no_key = Err(TranscodeError::UnsupportedKey);
        let refused: [(&[u8], _); 7] = [
            (b"\xa1\xff", no_text),
            (b"\x91\x81\xa1\xc3\x01", no_text),
            (b"\xd4\xff\x01", no_time),
            (b"\xc7\x0c\xff\0\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff", no_time),
            (b"\xd7\xff\xff\xff\xff\xfc\0\0\0\0", no_time),
            (b"\x81\x92\x01\x02\x01", no_key),
            (b"\x91\x81\x80\x01", no_key),
        ];
        for (bytes, expected) in refused {
            assert_eq!(packed(bytes), expected, "{bytes:x?}");
        }
        let nested = |levels: usize| [vec![0x91; levels], vec![0xC0]].concat();
        assert_eq!(packed(&nested(MOST_SENT)), Ok(()));
        assert_eq!(packed(&nested(MOST_SENT + 1)), Err(TranscodeError::TooDeepToSend));
    }
}
