//! MessagePack itself: a reader that is safe on any bytes, and writers that use the shortest form.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use bytes::Bytes;
use rmp::Marker;

use super::{Encoding, MAX_DEPTH, Value, framing::Sink};

/// The byte that is nil.
pub(super) const NIL: u8 = 0xC0;

/// The byte that is false.
pub(super) const FALSE: u8 = 0xC2;

/// The byte that is true.
pub(super) const TRUE: u8 = 0xC3;

/// The reason why bytes are not the MessagePack that was expected.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PackError {
    /// The bytes end within a value, or a length says more than there is.
    #[error("the value is truncated")]
    Truncated,
    /// The byte 0xC1, which no value begins with.
    #[error("a value begins with the reserved byte 0xC1")]
    Reserved,
    /// The limit is [`MAX_DEPTH`].
    #[error("nested deeper than {MAX_DEPTH} levels")]
    TooDeep,
    /// Something follows where the value has ended.
    #[error("bytes follow behind the value")]
    TrailingBytes,
    /// A value of another type.
    #[error("expected {0}")]
    Expected(&'static str),
    /// A text that had to be read is not UTF-8.
    #[error("a string is not UTF-8")]
    InvalidUtf8,
}

/// The beginning of one value: all of a scalar, or the number of items (of pairs, in a map) that follow.
#[derive(Debug)]
pub(super) enum Token<'a> {
    Nil,
    Bool(bool),
    Unsigned(u64),
    /// Any integer of the signed forms, also one that is not negative.
    Signed(i64),
    Float32(f32),
    Float64(f64),
    Str(&'a [u8]),
    Bin(&'a [u8]),
    Ext(i8, &'a [u8]),
    Array(u32),
    Map(u32),
}

/// Checks that `bytes` are exactly one value, nested at most [`MAX_DEPTH`] levels.
pub(super) fn check_value(bytes: &[u8]) -> Result<(), PackError> {
    let mut reader = Reader::new(bytes);
    reader.skip(MAX_DEPTH)?;
    reader.end()
}

/// Reads values off the front of a slice. Lengths that a peer declared are only ever compared with the bytes
/// there, nothing is allocated for them.
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { rest: bytes }
    }

    pub(super) fn end(&self) -> Result<(), PackError> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(PackError::TrailingBytes)
        }
    }

    pub(super) fn token(&mut self) -> Result<Token<'a>, PackError> {
        let [marker] = self.fixed()?;
        Ok(match Marker::from_u8(marker) {
            Marker::Null => Token::Nil,
            Marker::True => Token::Bool(true),
            Marker::False => Token::Bool(false),
            Marker::FixPos(n) => Token::Unsigned(n.into()),
            Marker::U8 => Token::Unsigned(u8::from_be_bytes(self.fixed()?).into()),
            Marker::U16 => Token::Unsigned(self.u16()?.into()),
            Marker::U32 => Token::Unsigned(self.u32()?.into()),
            Marker::U64 => Token::Unsigned(u64::from_be_bytes(self.fixed()?)),
            Marker::FixNeg(n) => Token::Signed(n.into()),
            Marker::I8 => Token::Signed(self.i8()?.into()),
            Marker::I16 => Token::Signed(i16::from_be_bytes(self.fixed()?).into()),
            Marker::I32 => Token::Signed(i32::from_be_bytes(self.fixed()?).into()),
            Marker::I64 => Token::Signed(i64::from_be_bytes(self.fixed()?)),
            Marker::F32 => Token::Float32(f32::from_be_bytes(self.fixed()?)),
            Marker::F64 => Token::Float64(f64::from_be_bytes(self.fixed()?)),
            Marker::FixStr(n) => Token::Str(self.take(n.into())?),
            Marker::Str8 => Token::Str(self.sized8()?),
            Marker::Str16 => Token::Str(self.sized16()?),
            Marker::Str32 => Token::Str(self.sized32()?),
            Marker::Bin8 => Token::Bin(self.sized8()?),
            Marker::Bin16 => Token::Bin(self.sized16()?),
            Marker::Bin32 => Token::Bin(self.sized32()?),
            Marker::FixExt1 => self.ext(1)?,
            Marker::FixExt2 => self.ext(2)?,
            Marker::FixExt4 => self.ext(4)?,
            Marker::FixExt8 => self.ext(8)?,
            Marker::FixExt16 => self.ext(16)?,
            Marker::Ext8 => {
                let length = u8::from_be_bytes(self.fixed()?).into();
                self.ext(length)?
            }
            Marker::Ext16 => {
                let length = self.u16()?.into();
                self.ext(length)?
            }
            Marker::Ext32 => {
                let length = self.u32()?;
                self.ext(length)?
            }
            Marker::FixArray(n) => Token::Array(n.into()),
            Marker::Array16 => Token::Array(self.u16()?.into()),
            Marker::Array32 => Token::Array(self.u32()?),
            Marker::FixMap(n) => Token::Map(n.into()),
            Marker::Map16 => Token::Map(self.u16()?.into()),
            Marker::Map32 => Token::Map(self.u32()?),
            Marker::Reserved => return Err(PackError::Reserved),
        })
    }

    /// Passes one value that may have this many levels of arrays and maps.
    pub(super) fn skip(&mut self, levels: usize) -> Result<(), PackError> {
        let values = match self.token()? {
            Token::Array(items) => u64::from(items),
            Token::Map(pairs) => u64::from(pairs).saturating_mul(2),
            _ => return Ok(()),
        };
        let levels = levels.checked_sub(1).ok_or(PackError::TooDeep)?;
        for _ in 0..values {
            self.skip(levels)?; // takes at least one byte, so a huge count ends with the input
        }
        Ok(())
    }

    /// The bytes of one value that may have this many levels.
    pub(super) fn value(&mut self, levels: usize) -> Result<&'a [u8], PackError> {
        let start = self.rest;
        self.skip(levels)?;
        let length = start.len().saturating_sub(self.rest.len());
        start.get(..length).ok_or(PackError::Truncated)
    }

    /// The bytes of each item of an array; the array itself is one of the levels.
    pub(super) fn values(&mut self, levels: usize) -> Result<Vec<&'a [u8]>, PackError> {
        let length = self.array()?;
        let levels = levels.checked_sub(1).ok_or(PackError::TooDeep)?;
        let mut values = Vec::new();
        for _ in 0..length {
            values.push(self.value(levels)?);
        }
        Ok(values)
    }

    pub(super) fn array(&mut self) -> Result<u32, PackError> {
        match self.token()? {
            Token::Array(items) => Ok(items),
            _ => Err(PackError::Expected("an array")),
        }
    }

    pub(super) fn map(&mut self) -> Result<u32, PackError> {
        match self.token()? {
            Token::Map(pairs) => Ok(pairs),
            _ => Err(PackError::Expected("a map")),
        }
    }

    pub(super) fn bool(&mut self) -> Result<bool, PackError> {
        match self.token()? {
            Token::Bool(value) => Ok(value),
            _ => Err(PackError::Expected("a boolean")),
        }
    }

    /// An integer of any width that is not negative.
    pub(super) fn unsigned(&mut self) -> Result<u64, PackError> {
        let number = match self.token()? {
            Token::Unsigned(number) => Some(number),
            Token::Signed(number) => number.try_into().ok(),
            _ => None,
        };
        number.ok_or(PackError::Expected("an integer that is not negative"))
    }

    pub(super) fn str(&mut self) -> Result<&'a str, PackError> {
        self.str_or_nil()?.ok_or(PackError::Expected("a string"))
    }

    pub(super) fn str_or_nil(&mut self) -> Result<Option<&'a str>, PackError> {
        match self.token()? {
            Token::Nil => Ok(None),
            Token::Str(text) => str::from_utf8(text).map(Some).map_err(|_| PackError::InvalidUtf8),
            _ => Err(PackError::Expected("a string")),
        }
    }

    fn sized8(&mut self) -> Result<&'a [u8], PackError> {
        let length = u8::from_be_bytes(self.fixed()?);
        self.take(length.into())
    }

    fn sized16(&mut self) -> Result<&'a [u8], PackError> {
        let length = self.u16()?;
        self.take(length.into())
    }

    fn sized32(&mut self) -> Result<&'a [u8], PackError> {
        let length = self.u32()?;
        self.take(length)
    }

    fn ext(&mut self, length: u32) -> Result<Token<'a>, PackError> {
        let kind = self.i8()?;
        Ok(Token::Ext(kind, self.take(length)?))
    }

    fn i8(&mut self) -> Result<i8, PackError> {
        self.fixed().map(i8::from_be_bytes)
    }

    fn u16(&mut self) -> Result<u16, PackError> {
        self.fixed().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Result<u32, PackError> {
        self.fixed().map(u32::from_be_bytes)
    }

    fn fixed<const N: usize>(&mut self) -> Result<[u8; N], PackError> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or(PackError::Truncated)?;
        self.rest = rest;
        Ok(*taken)
    }

    fn take(&mut self, length: u32) -> Result<&'a [u8], PackError> {
        let length = usize::try_from(length).map_err(|_| PackError::Truncated)?;
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(PackError::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }
}

/// A value that was found within `whole`, sharing its memory.
pub(super) fn value_in(whole: &Bytes, part: &[u8]) -> Value {
    Value::from_raw(Encoding::MessagePack, whole.slice_ref(part))
}

pub(super) fn write_values(out: &mut impl Sink, values: &[Value]) {
    write_array(out, values.len());
    for value in values {
        out.put(value.bytes());
    }
}

pub(super) fn write_array(out: &mut impl Sink, items: usize) {
    match length32(items) {
        items @ 0..=15 => write_marker(out, Marker::FixArray(low_byte(items))),
        items => write_length(out, None, Marker::Array16, Marker::Array32, items),
    }
}

pub(super) fn write_map(out: &mut impl Sink, pairs: usize) {
    match length32(pairs) {
        pairs @ 0..=15 => write_marker(out, Marker::FixMap(low_byte(pairs))),
        pairs => write_length(out, None, Marker::Map16, Marker::Map32, pairs),
    }
}

pub(super) fn write_str(out: &mut impl Sink, text: &str) {
    match length32(text.len()) {
        length @ 0..=31 => write_marker(out, Marker::FixStr(low_byte(length))),
        length => write_length(out, Some(Marker::Str8), Marker::Str16, Marker::Str32, length),
    }
    out.put(text.as_bytes());
}

pub(super) fn write_unsigned(out: &mut impl Sink, number: u64) {
    match number {
        0..=0x7F => out.put(&number.to_be_bytes()[7..]),
        0x80..=0xFF => write_bytes(out, Marker::U8, &number.to_be_bytes()[7..]),
        0x100..=0xFFFF => write_bytes(out, Marker::U16, &number.to_be_bytes()[6..]),
        0x1_0000..=0xFFFF_FFFF => write_bytes(out, Marker::U32, &number.to_be_bytes()[4..]),
        _ => write_bytes(out, Marker::U64, &number.to_be_bytes()),
    }
}

pub(super) fn write_signed(out: &mut impl Sink, number: i64) {
    match number {
        0.. => write_unsigned(out, number.unsigned_abs()),
        -0x20..0 => out.put(&number.to_be_bytes()[7..]),
        -0x80..-0x20 => write_bytes(out, Marker::I8, &number.to_be_bytes()[7..]),
        -0x8000..-0x80 => write_bytes(out, Marker::I16, &number.to_be_bytes()[6..]),
        -0x8000_0000..-0x8000 => write_bytes(out, Marker::I32, &number.to_be_bytes()[4..]),
        _ => write_bytes(out, Marker::I64, &number.to_be_bytes()),
    }
}

pub(super) fn write_float(out: &mut impl Sink, number: f64) {
    write_bytes(out, Marker::F64, &number.to_be_bytes());
}

pub(super) fn write_bool(out: &mut impl Sink, value: bool) {
    out.put(&[if value { TRUE } else { FALSE }]);
}

pub(super) fn write_nil(out: &mut impl Sink) {
    out.put(&[NIL]);
}

fn write_length(out: &mut impl Sink, short: Option<Marker>, middle: Marker, long: Marker, length: u32) {
    match (short, u8::try_from(length), u16::try_from(length)) {
        (Some(short), Ok(length), _) => write_bytes(out, short, &[length]),
        (_, _, Ok(length)) => write_bytes(out, middle, &length.to_be_bytes()),
        _ => write_bytes(out, long, &length.to_be_bytes()),
    }
}

fn write_bytes(out: &mut impl Sink, marker: Marker, bytes: &[u8]) {
    write_marker(out, marker);
    out.put(bytes);
}

fn write_marker(out: &mut impl Sink, marker: Marker) {
    out.put(&[marker.to_u8()]);
}

/// No value that fits in a message has more than `u32::MAX` bytes or items; the encoder checks its size.
fn length32(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

fn low_byte(number: u32) -> u8 {
    number.to_be_bytes()[3]
}
