//! Messages to framed bytes.

use std::borrow::Cow;

use bytes::Bytes;
use memchr::memchr;

use super::{
    Encoding, HubMessage, HubProtocol, Invocation, TranscodeError, Value,
    framing::{Count, MAX_PREFIXED_BYTES, RECORD_SEPARATOR, Sink, write_length},
    json, messagepack, transcode,
};

/// Writes one whole message: JSON with its record separator, or MessagePack after its length. Values in the
/// other encoding are transcoded. The result has exactly the size of the message.
///
/// # Errors
///
/// A value can't be transcoded, or the message can't be framed; see [`EncodeError`].
pub fn encode(protocol: HubProtocol, message: &HubMessage) -> Result<Bytes, EncodeError> {
    let message = in_encoding(message, protocol.encoding())?;
    frame(protocol, &*message)
}

/// Writes an invocation without a completion, for a fan-out: like [`encode`] for such a message, but from
/// borrowed parts.
///
/// # Errors
///
/// The same as for [`encode`].
pub fn encode_invocation(
    protocol: HubProtocol,
    target: &str,
    arguments: &[Value],
) -> Result<Bytes, EncodeError> {
    let arguments = transcode::all(arguments, protocol.encoding())?;
    frame(
        protocol,
        &InvocationParts::to_many(target, ArgumentList::Each(&arguments)),
    )
}

/// Like [`encode_invocation`], for arguments that are one array, as [`Value::array`] makes it.
///
/// # Errors
///
/// The same as for [`encode`], and if `arguments` is no array.
pub fn encode_invocation_with_array(
    protocol: HubProtocol,
    target: &str,
    arguments: &Value,
) -> Result<Bytes, EncodeError> {
    let arguments = arguments.transcode(protocol.encoding())?;
    let is_array = match (protocol, arguments.bytes().first()) {
        (HubProtocol::Json, first) => first == Some(&b'['),
        (HubProtocol::MessagePack, first) => matches!(first, Some(0x90..=0x9F | 0xDC | 0xDD)),
    };
    if !is_array {
        return Err(EncodeError::NotAnArray);
    }
    frame(
        protocol,
        &InvocationParts::to_many(target, ArgumentList::Array(&arguments)),
    )
}

/// The reason why a message could not be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// A value can't be written in the encoding of the protocol.
    #[error("a value can't be transcoded")]
    Transcode(#[from] TranscodeError),
    /// A value holds the byte that ends messages, which JSON can't: it came from [`Value::from_raw`].
    #[error("a value is not JSON, it holds a record separator")]
    RecordSeparator,
    /// The length prefix of MessagePack can't say this size.
    #[error("a message of {size} bytes is larger than the protocol can carry")]
    TooLarge {
        /// Bytes of the message without its prefix.
        size: usize,
    },
    /// The arguments of an invocation are one value, but no array.
    #[error("the arguments are no array")]
    NotAnArray,
}

/// The parts of an invocation (type 1) or stream invocation (type 4).
pub(super) struct InvocationParts<'a> {
    pub(super) type_id: u8,
    pub(super) headers: &'a [(String, String)],
    pub(super) invocation_id: Option<&'a str>,
    pub(super) target: &'a str,
    pub(super) arguments: ArgumentList<'a>,
    pub(super) stream_ids: &'a [String],
}

#[derive(Clone, Copy)]
pub(super) enum ArgumentList<'a> {
    Each(&'a [Value]),
    Array(&'a Value),
}

impl<'a> InvocationParts<'a> {
    pub(super) fn of(type_id: u8, call: &'a Invocation) -> InvocationParts<'a> {
        InvocationParts {
            type_id,
            headers: &call.headers,
            invocation_id: call.invocation_id.as_deref(),
            target: &call.target,
            arguments: ArgumentList::Each(&call.arguments),
            stream_ids: &call.stream_ids,
        }
    }

    fn to_many(target: &'a str, arguments: ArgumentList<'a>) -> InvocationParts<'a> {
        InvocationParts {
            type_id: 1,
            headers: &[],
            invocation_id: None,
            target,
            arguments,
            stream_ids: &[],
        }
    }
}

/// Something that is one message. Every value in it has the encoding of the protocol.
trait WriteMessage {
    fn write(&self, protocol: HubProtocol, out: &mut impl Sink);
}

impl WriteMessage for HubMessage {
    fn write(&self, protocol: HubProtocol, out: &mut impl Sink) {
        match protocol {
            HubProtocol::Json => json::write(out, self),
            HubProtocol::MessagePack => messagepack::write(out, self),
        }
    }
}

impl WriteMessage for InvocationParts<'_> {
    fn write(&self, protocol: HubProtocol, out: &mut impl Sink) {
        match protocol {
            HubProtocol::Json => json::write_call(out, self),
            HubProtocol::MessagePack => messagepack::write_call(out, self),
        }
    }
}

/// Writes the message twice: first to learn its size.
fn frame(protocol: HubProtocol, message: &impl WriteMessage) -> Result<Bytes, EncodeError> {
    let mut size = Count::default();
    message.write(protocol, &mut size);
    let Count(size) = size;
    match protocol {
        HubProtocol::Json => {
            let mut out = Vec::with_capacity(size.saturating_add(1));
            message.write(protocol, &mut out);
            if memchr(RECORD_SEPARATOR, &out).is_some() {
                return Err(EncodeError::RecordSeparator);
            }
            out.push(RECORD_SEPARATOR);
            Ok(out.into())
        }
        HubProtocol::MessagePack => {
            if size > MAX_PREFIXED_BYTES {
                return Err(EncodeError::TooLarge { size });
            }
            let mut prefix = Count::default();
            write_length(&mut prefix, size);
            let mut out = Vec::with_capacity(prefix.0.saturating_add(size));
            write_length(&mut out, size);
            message.write(protocol, &mut out);
            Ok(out.into())
        }
    }
}

/// The message with all values in `encoding`, copied only if one of them is not.
fn in_encoding(message: &HubMessage, encoding: Encoding) -> Result<Cow<'_, HubMessage>, TranscodeError> {
    if message.values().iter().all(|value| value.encoding() == encoding) {
        return Ok(Cow::Borrowed(message));
    }
    let mut message = message.clone();
    for value in message.values_mut() {
        *value = value.transcode(encoding)?;
    }
    Ok(Cow::Owned(message))
}
