//! One encoded value and its way to and from Rust types.

use std::io;

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{ser::Formatter, value::RawValue};

use super::{Encoding, MAX_DEPTH, PackError, TranscodeError, json, pack, timestamp, transcode};

/// One encoded value: an argument, a stream item or a result.
///
/// A clone shares the bytes. Values of decoded messages share one buffer per message, so a value that is
/// kept for long keeps the whole message it came with. Values are equal if their bytes are.
///
/// Invariant, kept by every constructor but [`from_raw`](Self::from_raw): `bytes` holds exactly one well
/// formed value of this encoding, nested at most [`MAX_DEPTH`] levels.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Value {
    encoding: Encoding,
    bytes: Bytes,
}

impl Value {
    /// Null.
    pub fn null(encoding: Encoding) -> Value {
        match encoding {
            Encoding::Json => Value::from_raw(encoding, Bytes::from_static(b"null")),
            Encoding::MessagePack => Value::from_raw(encoding, Bytes::from_static(&[pack::NIL])),
        }
    }

    /// Takes bytes that are known to hold one value of this encoding, such as those of another `Value`.
    /// They are not looked at: use [`from_json_text`](Self::from_json_text) or
    /// [`from_messagepack`](Self::from_messagepack) for bytes of unknown origin. Wrong bytes make wrong
    /// messages or errors later, never a panic.
    pub fn from_raw(encoding: Encoding, bytes: Bytes) -> Value {
        Value { encoding, bytes }
    }

    /// Checks that `text` is one JSON value; white space around it is dropped, inside it is kept.
    ///
    /// # Errors
    ///
    /// Not UTF-8, not JSON, more than one value, or nested deeper than [`MAX_DEPTH`].
    pub fn from_json_text(text: impl Into<Bytes>) -> Result<Value, DecodeValueError> {
        let text = text.into();
        let raw: &RawValue = serde_json::from_slice(&text)?;
        json::check_depth(raw.get().as_bytes()).map_err(|json::TooDeep| DecodeValueError::TooDeep)?;
        let bytes = text.slice_ref(raw.get().as_bytes());
        Ok(Value::from_raw(Encoding::Json, bytes))
    }

    /// Checks that `bytes` are one MessagePack value. Strings inside are not checked to be UTF-8.
    ///
    /// # Errors
    ///
    /// Truncated, a reserved marker, bytes after the value, or nested deeper than [`MAX_DEPTH`].
    pub fn from_messagepack(bytes: impl Into<Bytes>) -> Result<Value, DecodeValueError> {
        let bytes = bytes.into();
        pack::check_value(&bytes)?;
        Ok(Value::from_raw(Encoding::MessagePack, bytes))
    }

    /// How the value is written.
    pub fn encoding(&self) -> Encoding {
        self.encoding
    }

    /// The value as it is written.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Returns whether the value is null.
    pub fn is_null(&self) -> bool {
        match self.encoding {
            Encoding::Json => self.bytes.as_ref() == b"null",
            Encoding::MessagePack => self.bytes.as_ref() == [pack::NIL],
        }
    }

    /// Returns whether the value is a byte string, which JSON has none of.
    pub(crate) fn is_bytes(&self) -> bool {
        let bin = matches!(self.bytes.first(), Some(0xc4..=0xc6));
        bin && self.encoding == Encoding::MessagePack
    }

    /// Returns whether the value is text in MessagePack, which tells it from any other JSON value.
    pub(crate) fn is_text(&self) -> bool {
        let text = matches!(self.bytes.first(), Some(0xa0..=0xbf | 0xd9..=0xdb));
        text && self.encoding == Encoding::MessagePack
    }

    /// The content of a byte string, sharing its bytes.
    pub(crate) fn byte_string(&self) -> Option<Bytes> {
        let mut reader = pack::Reader::new(&self.bytes);
        match reader.token() {
            Ok(pack::Token::Bin(content)) if self.encoding == Encoding::MessagePack => {
                Some(self.bytes.slice_ref(content))
            }
            _ => None,
        }
    }

    /// Writes a typed value as JSON, or as MessagePack if it holds byte strings or [timestamps](super::Timestamp), which
    /// JSON would turn into text: so receivers of either protocol get what is natural there.
    ///
    /// # Errors
    ///
    /// `value` can't be written (a map with keys that are no strings, its own `Serialize` failed), or is
    /// nested deeper than [`MAX_DEPTH`].
    pub fn encode<T: Serialize + ?Sized>(value: &T) -> Result<Value, EncodeValueError> {
        let (json, richer) = to_json(value)?;
        if richer {
            Value::encode_as(value, Encoding::MessagePack)
        } else {
            Ok(json)
        }
    }

    /// Writes a typed value in this encoding. Structs are maps in both; byte strings are base64 text in JSON,
    /// as .NET writes them. Types that tell human readable formats from others write the readable form in
    /// both, so that a value has one shape for every client.
    ///
    /// # Errors
    ///
    /// The same as for [`encode`](Self::encode).
    pub fn encode_as<T: Serialize + ?Sized>(
        value: &T,
        encoding: Encoding,
    ) -> Result<Value, EncodeValueError> {
        match encoding {
            Encoding::Json => Ok(to_json(value)?.0),
            Encoding::MessagePack => {
                let mut out = Vec::new();
                let mut serializer = rmp_serde::Serializer::new(&mut out)
                    .with_struct_map()
                    .with_human_readable();
                timestamp::writing(encoding, || value.serialize(&mut serializer)).0?;
                pack::check_value(&out).map_err(|_| EncodeValueError::TooDeep)?;
                Ok(Value::from_raw(encoding, out.into()))
            }
        }
    }

    /// Reads the value as a Rust type. Byte strings: see [`Binary`](super::Binary).
    ///
    /// # Errors
    ///
    /// The value is of another type, or its bytes are not one value of at most [`MAX_DEPTH`] levels.
    pub fn decode<T: DeserializeOwned>(&self) -> Result<T, DecodeValueError> {
        match self.encoding {
            // The parser's own recursion limit of 128 is above MAX_DEPTH.
            Encoding::Json => Ok(serde_json::from_slice(&self.bytes)?),
            Encoding::MessagePack => {
                // Refuses deep nesting and bytes after the value, which the deserializer would ignore.
                pack::check_value(&self.bytes)?;
                let mut deserializer =
                    rmp_serde::Deserializer::from_read_ref(self.bytes.as_ref()).with_human_readable();
                deserializer.set_max_depth(DESERIALIZER_DEPTH);
                Ok(T::deserialize(&mut deserializer)?)
            }
        }
    }

    /// The same value in this encoding; a clone if it is written so already.
    ///
    /// From JSON: integers become the shortest MessagePack integers if they fit 64 bits, every other number
    /// a 64-bit float. Text that is no Unicode (a lone surrogate) gets U+FFFD.
    ///
    /// From MessagePack: floats stay floats (`1.0`, not `1`), NaN and the infinities become `null`, byte
    /// strings base64 text, timestamps (extension -1) RFC 3339 text in UTC, other extensions the base64 text
    /// of their data without the type. Map keys that are numbers, booleans or nil become their JSON text as
    /// strings. Text that is not UTF-8 gets U+FFFD.
    ///
    /// # Errors
    ///
    /// The bytes are not one value of at most [`MAX_DEPTH`] levels, or an array or map is the key of a map.
    pub fn transcode(&self, encoding: Encoding) -> Result<Value, TranscodeError> {
        match (self.encoding, encoding) {
            (Encoding::Json, Encoding::MessagePack) => Ok(Value::from_raw(
                encoding,
                transcode::json_to_messagepack(&self.bytes)?.into(),
            )),
            (Encoding::MessagePack, Encoding::Json) => Ok(Value::from_raw(
                encoding,
                transcode::messagepack_to_json(&self.bytes)?.into(),
            )),
            (Encoding::Json, Encoding::Json) | (Encoding::MessagePack, Encoding::MessagePack) => {
                Ok(self.clone())
            }
        }
    }

    /// One array of these values, for places that carry all arguments of an invocation as one value.
    ///
    /// # Errors
    ///
    /// A value in the other encoding can't be [transcoded](Self::transcode).
    pub fn array(values: &[Value], encoding: Encoding) -> Result<Value, TranscodeError> {
        let values = transcode::all(values, encoding)?;
        let content: usize = values
            .iter()
            .map(|value| value.bytes.len())
            .fold(0, usize::saturating_add);
        let mut out = Vec::with_capacity(content.saturating_add(values.len()).saturating_add(2));
        match encoding {
            Encoding::Json => json::write_array(&mut out, &values),
            Encoding::MessagePack => pack::write_values(&mut out, &values),
        }
        Ok(Value::from_raw(encoding, out.into()))
    }

    /// The items of an array, sharing its bytes: the opposite of [`array`](Self::array).
    ///
    /// # Errors
    ///
    /// The value is no array, or not well formed.
    pub fn elements(&self) -> Result<Vec<Value>, DecodeValueError> {
        match self.encoding {
            Encoding::Json => {
                let items: Vec<&RawValue> = serde_json::from_slice(&self.bytes)?;
                Ok(items
                    .into_iter()
                    .map(|item| json::value_in(&self.bytes, item))
                    .collect())
            }
            Encoding::MessagePack => {
                let mut reader = pack::Reader::new(&self.bytes);
                let items = reader.values(MAX_DEPTH)?;
                reader.end()?;
                Ok(items
                    .into_iter()
                    .map(|item| pack::value_in(&self.bytes, item))
                    .collect())
            }
        }
    }
}

/// The reason why a typed value could not be written.
#[derive(Debug, thiserror::Error)]
pub enum EncodeValueError {
    /// Refused by the JSON serializer or by the type itself.
    #[error("the value can't be written as JSON")]
    Json(#[from] serde_json::Error),
    /// Refused by the MessagePack serializer or by the type itself.
    #[error("the value can't be written as MessagePack")]
    MessagePack(#[from] rmp_serde::encode::Error),
    /// The limit is [`MAX_DEPTH`].
    #[error("the value is nested deeper than {MAX_DEPTH} levels")]
    TooDeep,
}

/// The reason why a value could not be read.
#[derive(Debug, thiserror::Error)]
pub enum DecodeValueError {
    /// No JSON, or JSON of another type.
    #[error("the JSON value can't be read")]
    Json(#[from] serde_json::Error),
    /// MessagePack of another type.
    #[error("the MessagePack value can't be read")]
    MessagePack(#[from] rmp_serde::decode::Error),
    /// The bytes are not one MessagePack value.
    #[error("the bytes are not one MessagePack value")]
    Malformed(#[source] PackError),
    /// The limit is [`MAX_DEPTH`].
    #[error("the value is nested deeper than {MAX_DEPTH} levels")]
    TooDeep,
}

impl From<PackError> for DecodeValueError {
    fn from(error: PackError) -> DecodeValueError {
        match error {
            PackError::TooDeep => DecodeValueError::TooDeep,
            error => DecodeValueError::Malformed(error),
        }
    }
}

/// The deserializer refuses the container at which its counter reaches zero. Depth has been checked before.
const DESERIALIZER_DEPTH: usize = MAX_DEPTH + 1;

/// The value as JSON, and whether MessagePack can say more of it.
fn to_json<T: Serialize + ?Sized>(value: &T) -> Result<(Value, bool), EncodeValueError> {
    let mut out = Vec::new();
    let mut bytes_seen = false;
    let formatter = Base64Bytes {
        bytes_seen: &mut bytes_seen,
    };
    let mut serializer = serde_json::Serializer::with_formatter(&mut out, formatter);
    let (written, times_seen) = timestamp::writing(Encoding::Json, || value.serialize(&mut serializer));
    written?;
    json::check_depth(&out).map_err(|json::TooDeep| EncodeValueError::TooDeep)?;
    Ok((
        Value::from_raw(Encoding::Json, out.into()),
        bytes_seen || times_seen,
    ))
}

/// Writes byte strings as base64 text instead of arrays of numbers, and records that there were some.
struct Base64Bytes<'a> {
    bytes_seen: &'a mut bool,
}

impl Formatter for Base64Bytes<'_> {
    fn write_byte_array<W: io::Write + ?Sized>(&mut self, writer: &mut W, value: &[u8]) -> io::Result<()> {
        *self.bytes_seen = true;
        write!(writer, "\"{}\"", BASE64.encode(value))
    }
}
