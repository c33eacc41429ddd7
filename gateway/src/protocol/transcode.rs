//! Values from one encoding to the other, without a tree in between.
//!
//! Both directions see the limits of [`MAX_DEPTH`] themselves and don't trust their input: bytes that are
//! not what they should be are an error.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::{borrow::Cow, io::Write as _, iter};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use memchr::memchr2;

use super::{
    Encoding, MAX_DEPTH, Value, json,
    pack::{self, PackError, Reader, Token},
    timestamp,
};

/// The reason why a value can't be written in the other encoding.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TranscodeError {
    /// The bytes are not one JSON value.
    #[error("the bytes are not one JSON value")]
    InvalidJson,
    /// The bytes are not one MessagePack value.
    #[error("the bytes are not one MessagePack value")]
    InvalidMessagePack(#[from] PackError),
    /// The limit is [`MAX_DEPTH`].
    #[error("the value is nested deeper than {MAX_DEPTH} levels")]
    TooDeep,
    /// JSON has no way to write it.
    #[error("an array or map is the key of a map")]
    UnsupportedKey,
    /// A value sent to clients is wrapped for some of them, and must not be deeper than they can read then.
    #[error("the value is nested deeper than {} levels", super::readable::MOST_SENT)]
    TooDeepToSend,
    /// Not every client can read it.
    #[error("a timestamp is malformed, or not of the years 0001 to 9999")]
    InvalidTimestamp,
    /// Not every client can read it.
    #[error("a text has half of a surrogate pair")]
    LoneSurrogate,
}

/// The same values in `encoding`, borrowed if all of them are written so already.
pub(super) fn all(values: &[Value], encoding: Encoding) -> Result<Cow<'_, [Value]>, TranscodeError> {
    if values.iter().all(|value| value.encoding() == encoding) {
        return Ok(Cow::Borrowed(values));
    }
    values
        .iter()
        .map(|value| value.transcode(encoding))
        .collect::<Result<_, _>>()
        .map(Cow::Owned)
}

pub(super) fn messagepack_to_json(bytes: &[u8]) -> Result<Vec<u8>, TranscodeError> {
    let mut reader = Reader::new(bytes);
    let mut out = Vec::with_capacity(bytes.len().saturating_mul(2));
    write_json(&mut reader, &mut out, MAX_DEPTH)?;
    reader.end()?;
    Ok(out)
}

fn write_json(reader: &mut Reader<'_>, out: &mut Vec<u8>, levels: usize) -> Result<(), TranscodeError> {
    match reader.token()? {
        Token::Array(items) => {
            let levels = levels.checked_sub(1).ok_or(TranscodeError::TooDeep)?;
            out.push(b'[');
            for comma in commas().take(as_usize(items)) {
                out.extend_from_slice(comma);
                write_json(reader, out, levels)?;
            }
            out.push(b']');
        }
        Token::Map(pairs) => {
            let levels = levels.checked_sub(1).ok_or(TranscodeError::TooDeep)?;
            out.push(b'{');
            for comma in commas().take(as_usize(pairs)) {
                out.extend_from_slice(comma);
                write_json_key(&reader.token()?, out)?;
                out.push(b':');
                write_json(reader, out, levels)?;
            }
            out.push(b'}');
        }
        scalar => write_json_scalar(&scalar, out),
    }
    Ok(())
}

fn write_json_key(key: &Token<'_>, out: &mut Vec<u8>) -> Result<(), TranscodeError> {
    match key {
        Token::Array(_) | Token::Map(_) => return Err(TranscodeError::UnsupportedKey),
        Token::Str(_) | Token::Bin(_) | Token::Ext(..) => write_json_scalar(key, out),
        Token::Nil
        | Token::Bool(_)
        | Token::Unsigned(_)
        | Token::Signed(_)
        | Token::Float32(_)
        | Token::Float64(_) => {
            out.push(b'"');
            write_json_scalar(key, out);
            out.push(b'"');
        }
    }
    Ok(())
}

/// Writing to a `Vec` can't fail, so the results of `write!` say nothing.
fn write_json_scalar(token: &Token<'_>, out: &mut Vec<u8>) {
    match *token {
        Token::Bool(true) => out.extend_from_slice(b"true"),
        Token::Bool(false) => out.extend_from_slice(b"false"),
        Token::Unsigned(number) => drop(write!(out, "{number}")),
        Token::Signed(number) => drop(write!(out, "{number}")),
        // `Debug` keeps the fraction of whole numbers (`1.0`), and uses exponents where JSON may.
        Token::Float32(number) if number.is_finite() => drop(write!(out, "{number:?}")),
        Token::Float64(number) if number.is_finite() => drop(write!(out, "{number:?}")),
        Token::Str(text) => json::write_string(out, &String::from_utf8_lossy(text)),
        Token::Bin(bytes) => write_base64(bytes, out),
        Token::Ext(kind, data) => match timestamp::to_rfc3339(data) {
            Some(text) if kind == timestamp::EXTENSION_TYPE => json::write_string(out, &text),
            _ => write_base64(data, out),
        },
        Token::Nil | Token::Float32(_) | Token::Float64(_) | Token::Array(_) | Token::Map(_) => {
            out.extend_from_slice(b"null");
        }
    }
}

fn write_base64(bytes: &[u8], out: &mut Vec<u8>) {
    json::write_string(out, &BASE64.encode(bytes));
}

/// The separators before the items: nothing, then commas.
fn commas() -> impl Iterator<Item = &'static [u8]> {
    iter::once(b"".as_slice()).chain(iter::repeat(b",".as_slice()))
}

fn as_usize(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

pub(super) fn json_to_messagepack(text: &[u8]) -> Result<Vec<u8>, TranscodeError> {
    let mut cursor = JsonCursor {
        rest: text,
        out: Vec::with_capacity(text.len()),
        unescaped: Vec::new(),
    };
    cursor.value(MAX_DEPTH)?;
    cursor.space();
    if cursor.rest.is_empty() {
        Ok(cursor.out)
    } else {
        Err(TranscodeError::InvalidJson)
    }
}

/// Reads JSON that was checked before, and writes MessagePack. It finds every mistake in the structure but
/// is lenient about the spelling of numbers.
///
/// Not `serde_json`: its numbers may differ in the last bit, and it refuses lone surrogates, which are
/// legal JSON that any browser may send.
struct JsonCursor<'a> {
    rest: &'a [u8],
    out: Vec<u8>,
    /// Memory for text with escapes, used again and again.
    unescaped: Vec<u8>,
}

impl JsonCursor<'_> {
    fn value(&mut self, levels: usize) -> Result<(), TranscodeError> {
        self.space();
        match self.rest.first() {
            Some(b'"') => self.string(),
            Some(b'[') => self.container(levels, b']'),
            Some(b'{') => self.container(levels, b'}'),
            Some(b't') => self.literal(b"true", pack::TRUE),
            Some(b'f') => self.literal(b"false", pack::FALSE),
            Some(b'n') => self.literal(b"null", pack::NIL),
            Some(b'-' | b'0'..=b'9') => self.number(),
            _ => Err(TranscodeError::InvalidJson),
        }
    }

    fn container(&mut self, levels: usize, close: u8) -> Result<(), TranscodeError> {
        let levels = levels.checked_sub(1).ok_or(TranscodeError::TooDeep)?;
        self.advance(1);
        let start = self.out.len();
        let mut count = 0_usize;
        self.space();
        if self.rest.first() == Some(&close) {
            self.advance(1);
        } else {
            loop {
                if close == b'}' {
                    self.space();
                    self.string()?;
                    self.space();
                    self.expect(b":")?;
                }
                self.value(levels)?;
                count = count.saturating_add(1);
                self.space();
                match self.next() {
                    Some(b',') => {}
                    Some(byte) if byte == close => break,
                    _ => return Err(TranscodeError::InvalidJson),
                }
            }
        }
        // The count is known only now: its header is put in front of the written items.
        let mut header = Vec::with_capacity(5);
        match close {
            b'}' => pack::write_map(&mut header, count),
            _ => pack::write_array(&mut header, count),
        }
        self.out.splice(start..start, header);
        Ok(())
    }

    fn literal(&mut self, text: &[u8], written: u8) -> Result<(), TranscodeError> {
        self.expect(text)?;
        self.out.push(written);
        Ok(())
    }

    fn number(&mut self) -> Result<(), TranscodeError> {
        let length = self
            .rest
            .iter()
            .position(|byte| !matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E'))
            .unwrap_or(self.rest.len());
        let text = self.advance(length);
        let text = str::from_utf8(text).map_err(|_| TranscodeError::InvalidJson)?;
        if let Ok(number) = text.parse() {
            pack::write_unsigned(&mut self.out, number);
        } else if let Some(number) = text.parse().ok().filter(|number| *number != 0) {
            pack::write_signed(&mut self.out, number);
        } else {
            let number = text.parse().map_err(|_| TranscodeError::InvalidJson)?;
            pack::write_float(&mut self.out, number);
        }
        Ok(())
    }

    fn string(&mut self) -> Result<(), TranscodeError> {
        self.expect(b"\"")?;
        self.unescaped.clear();
        loop {
            let length = memchr2(b'"', b'\\', self.rest).ok_or(TranscodeError::InvalidJson)?;
            let plain = self.rest.get(..length).unwrap_or_default();
            self.unescaped.extend_from_slice(plain);
            self.advance(length);
            match self.next() {
                Some(b'"') => break,
                _ => self.escape()?,
            }
        }
        let text = str::from_utf8(&self.unescaped).map_err(|_| TranscodeError::InvalidJson)?;
        pack::write_str(&mut self.out, text);
        Ok(())
    }

    /// Reads the escape that follows a backslash.
    fn escape(&mut self) -> Result<(), TranscodeError> {
        let plain = match self.next().ok_or(TranscodeError::InvalidJson)? {
            b'u' => return self.unicode_escape(),
            byte @ (b'"' | b'\\' | b'/') => byte,
            b'b' => 0x08,
            b'f' => 0x0C,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            _ => return Err(TranscodeError::InvalidJson),
        };
        self.unescaped.push(plain);
        Ok(())
    }

    fn unicode_escape(&mut self) -> Result<(), TranscodeError> {
        let mut unit = self.code_unit()?;
        // A high surrogate needs a low one after it. Others are no text.
        while (0xD800..0xDC00).contains(&unit) {
            let Some(after) = self.rest.strip_prefix(b"\\u") else {
                break;
            };
            self.rest = after;
            let low = self.code_unit()?;
            if let Some(Ok(text)) = char::decode_utf16([unit, low]).next() {
                self.push_char(text);
                return Ok(());
            }
            self.push_char(char::REPLACEMENT_CHARACTER);
            unit = low;
        }
        self.push_char(char::from_u32(unit.into()).unwrap_or(char::REPLACEMENT_CHARACTER));
        Ok(())
    }

    /// Four hexadecimal digits.
    fn code_unit(&mut self) -> Result<u16, TranscodeError> {
        let digits = str::from_utf8(self.rest.get(..4).unwrap_or_default()).unwrap_or_default();
        if !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(TranscodeError::InvalidJson);
        }
        let unit = u16::from_str_radix(digits, 16).map_err(|_| TranscodeError::InvalidJson)?;
        self.advance(4);
        Ok(unit)
    }

    fn push_char(&mut self, text: char) {
        self.unescaped
            .extend_from_slice(text.encode_utf8(&mut [0; 4]).as_bytes());
    }

    fn space(&mut self) {
        while let [b' ' | b'\t' | b'\r' | b'\n', rest @ ..] = self.rest {
            self.rest = rest;
        }
    }

    fn expect(&mut self, text: &[u8]) -> Result<(), TranscodeError> {
        self.rest = self.rest.strip_prefix(text).ok_or(TranscodeError::InvalidJson)?;
        Ok(())
    }

    fn next(&mut self) -> Option<u8> {
        let (&byte, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(byte)
    }
}

impl<'a> JsonCursor<'a> {
    /// Passes `length` bytes, or the rest.
    fn advance(&mut self, length: usize) -> &'a [u8] {
        let (passed, rest) = self.rest.split_at_checked(length).unwrap_or((self.rest, &[]));
        self.rest = rest;
        passed
    }
}
