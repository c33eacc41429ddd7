//! The MessagePack hub protocol: one array per message.
//!
//! Readers accept integers of any width and arrays with more items than they know. Writers use the shortest
//! form of everything and the longest known form of each message, as the reference server does.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use bytes::Bytes;

use super::{
    DecodeError, Headers, HubMessage, Invocation, MAX_DEPTH, Outcome, Value,
    encoder::{ArgumentList, InvocationParts},
    framing::Sink,
    json::keep_last,
    pack::{self, PackError, Reader},
};

const ERROR: u64 = 1;
const VOID: u64 = 2;
const RESULT: u64 = 3;

/// How deep a value within a message may be: the message is an array itself.
const LEVELS: usize = MAX_DEPTH - 1;

/// Reads one message without its length prefix. `None`: a message of a type that is not known here, whose
/// rest is not looked at.
///
/// Its values share the message's memory. Strings within them are not checked to be UTF-8: browsers may
/// send text that is not, and it concerns only the reader of the value.
pub(super) fn decode(body: &Bytes) -> Result<Option<HubMessage>, DecodeError> {
    let mut reader = Reader::new(body);
    let mut items = Items {
        left: reader.array()?,
        reader,
        body,
    };
    let message = match items.next("type")?.unsigned()? {
        1 => HubMessage::Invocation(items.call()?),
        2 => HubMessage::StreamItem {
            headers: items.headers()?,
            invocation_id: items.id()?,
            item: items.value("item")?,
        },
        3 => HubMessage::Completion {
            headers: items.headers()?,
            invocation_id: items.id()?,
            outcome: match items.next("result kind")?.unsigned()? {
                ERROR => Outcome::Error(items.next("error")?.str()?.to_owned()),
                VOID => Outcome::Void,
                RESULT => Outcome::Result(items.value("result")?),
                kind => return Err(DecodeError::UnknownResultKind { kind }),
            },
        },
        4 => {
            let call = items.call()?;
            if call.invocation_id.is_none() {
                return Err(DecodeError::Missing {
                    property: "invocationId",
                });
            }
            HubMessage::StreamInvocation(call)
        }
        5 => HubMessage::CancelInvocation {
            headers: items.headers()?,
            invocation_id: items.id()?,
        },
        6 => HubMessage::Ping,
        7 => HubMessage::Close {
            error: items.next("error")?.str_or_nil()?.map(str::to_owned),
            allow_reconnect: match items.optional() {
                Some(reader) => reader.bool()?,
                None => false,
            },
        },
        8 => HubMessage::Ack {
            sequence_id: items.next("sequenceId")?.unsigned()?,
        },
        9 => HubMessage::Sequence {
            sequence_id: items.next("sequenceId")?.unsigned()?,
        },
        _ => return Ok(None),
    };
    items.end()?;
    Ok(Some(message))
}

/// The items of a message's array that have not been read.
struct Items<'a> {
    reader: Reader<'a>,
    left: u32,
    body: &'a Bytes,
}

impl<'a> Items<'a> {
    /// The reader in front of the next item, which has to be read.
    fn next(&mut self, property: &'static str) -> Result<&mut Reader<'a>, DecodeError> {
        self.optional().ok_or(DecodeError::Missing { property })
    }

    fn optional(&mut self) -> Option<&mut Reader<'a>> {
        self.left = self.left.checked_sub(1)?;
        Some(&mut self.reader)
    }

    fn call(&mut self) -> Result<Invocation, DecodeError> {
        let body = self.body;
        Ok(Invocation {
            headers: self.headers()?,
            invocation_id: self.id_or_nil()?,
            target: self.next("target")?.str()?.to_owned(),
            arguments: {
                let arguments = self.next("arguments")?.values(LEVELS)?;
                arguments
                    .into_iter()
                    .map(|argument| pack::value_in(body, argument))
                    .collect()
            },
            stream_ids: match self.optional() {
                Some(reader) => strings(reader)?,
                None => Vec::new(),
            },
            data_type: None,
        })
    }

    fn value(&mut self, property: &'static str) -> Result<Value, DecodeError> {
        let body = self.body;
        Ok(pack::value_in(body, self.next(property)?.value(LEVELS)?))
    }

    /// Nil and the empty string both mean that there is no id.
    fn id_or_nil(&mut self) -> Result<Option<String>, DecodeError> {
        let id = self.next("invocationId")?.str_or_nil()?;
        Ok(id.filter(|id| !id.is_empty()).map(str::to_owned))
    }

    fn id(&mut self) -> Result<String, DecodeError> {
        self.id_or_nil()?.ok_or(DecodeError::Missing {
            property: "invocationId",
        })
    }

    fn headers(&mut self) -> Result<Headers, DecodeError> {
        let reader = self.next("headers")?;
        let pairs = reader.map()?;
        let mut headers = Vec::new();
        for _ in 0..pairs {
            headers.push((reader.str()?.to_owned(), reader.str()?.to_owned()));
        }
        keep_last(&mut headers);
        Ok(headers)
    }

    /// Passes items that a later version has added; nothing may follow the array.
    fn end(mut self) -> Result<(), PackError> {
        for _ in 0..self.left {
            self.reader.skip(LEVELS)?;
        }
        self.reader.end()
    }
}

fn strings(reader: &mut Reader<'_>) -> Result<Vec<String>, PackError> {
    let length = reader.array()?;
    let mut strings = Vec::new();
    for _ in 0..length {
        strings.push(reader.str()?.to_owned());
    }
    Ok(strings)
}

/// Writes one message without its length prefix. Values that are not MessagePack would be written as they
/// are: the encoder has transcoded them.
pub(super) fn write(out: &mut impl Sink, message: &HubMessage) {
    match message {
        HubMessage::Invocation(call) | HubMessage::StreamInvocation(call) => {
            write_call(out, &InvocationParts::of(message.type_id(), call));
        }
        HubMessage::StreamItem {
            headers,
            invocation_id,
            item,
        } => {
            write_start(out, 4, message.type_id());
            write_headers(out, headers);
            pack::write_str(out, invocation_id);
            out.put(item.bytes());
        }
        HubMessage::Completion {
            headers,
            invocation_id,
            outcome,
        } => {
            write_start(
                out,
                if *outcome == Outcome::Void { 4 } else { 5 },
                message.type_id(),
            );
            write_headers(out, headers);
            pack::write_str(out, invocation_id);
            match outcome {
                Outcome::Void => pack::write_unsigned(out, VOID),
                Outcome::Result(result) => {
                    pack::write_unsigned(out, RESULT);
                    out.put(result.bytes());
                }
                Outcome::Error(error) => {
                    pack::write_unsigned(out, ERROR);
                    pack::write_str(out, error);
                }
            }
        }
        HubMessage::CancelInvocation {
            headers,
            invocation_id,
        } => {
            write_start(out, 3, message.type_id());
            write_headers(out, headers);
            pack::write_str(out, invocation_id);
        }
        HubMessage::Ping => write_start(out, 1, message.type_id()),
        HubMessage::Close {
            error,
            allow_reconnect,
        } => {
            write_start(out, 3, message.type_id());
            write_str_or_nil(out, error.as_deref());
            pack::write_bool(out, *allow_reconnect);
        }
        HubMessage::Ack { sequence_id } | HubMessage::Sequence { sequence_id } => {
            write_start(out, 2, message.type_id());
            pack::write_unsigned(out, *sequence_id);
        }
    }
}

/// Writes a whole message of type 1 or 4.
pub(super) fn write_call(out: &mut impl Sink, call: &InvocationParts<'_>) {
    write_start(out, 6, call.type_id);
    write_headers(out, call.headers);
    write_str_or_nil(out, call.invocation_id);
    pack::write_str(out, call.target);
    match call.arguments {
        ArgumentList::Each(values) => pack::write_values(out, values),
        ArgumentList::Array(array) => out.put(array.bytes()),
    }
    pack::write_array(out, call.stream_ids.len());
    for id in call.stream_ids {
        pack::write_str(out, id);
    }
}

fn write_start(out: &mut impl Sink, items: usize, type_id: u8) {
    pack::write_array(out, items);
    pack::write_unsigned(out, type_id.into());
}

fn write_headers(out: &mut impl Sink, headers: &[(String, String)]) {
    pack::write_map(out, headers.len());
    for (name, value) in headers {
        pack::write_str(out, name);
        pack::write_str(out, value);
    }
}

fn write_str_or_nil(out: &mut impl Sink, text: Option<&str>) {
    match text {
        Some(text) => pack::write_str(out, text),
        None => pack::write_nil(out),
    }
}
