//! The frames of a client.

use std::mem;

use bytes::{Buf as _, Bytes, BytesMut};

use super::utf8::Utf8;
use super::{
    BINARY, BadFrame, CLOSE, CONTINUATION, FIN, MASKED, MOST_CONTROL_BYTES, Messages, OPCODE, PING, PONG,
    RESERVED, TEXT,
};

/// The next thing that a client's frames say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Incoming {
    /// Bytes of a stream, or one message.
    Data(Bytes),
    /// A Ping, which is to be answered with its payload.
    Ping(Bytes),
    /// A Pong with a payload of so many bytes.
    Pong(usize),
    /// The payload of a Close frame, which is well formed: nothing, or a code and words. Nothing after it counts.
    Close(Bytes),
}

/// Reads the frames of one client.
#[derive(Debug)]
pub struct MessageReader {
    messages: Messages,
    /// Set while a data frame is being read.
    frame: Option<Payload>,
    /// Set from a message's first frame to the end of its last.
    message: Option<PartialMessage>,
}

/// A data frame's payload.
#[derive(Debug, Clone, Copy)]
struct Payload {
    left: u64,
    /// Turned, so that it begins with the next byte's.
    mask: [u8; 4],
    is_final: bool,
}

#[derive(Debug)]
struct PartialMessage {
    /// Set for a text that is checked.
    text: Option<Utf8>,
    /// The part of a unit that has come.
    unit: BytesMut,
    /// The unit was over its bound and was given out: its rest is dropped.
    is_over: bool,
}

/// A frame's header.
struct Head {
    is_final: bool,
    opcode: u8,
    length: u64,
    mask: [u8; 4],
    /// The header's own bytes.
    size: usize,
}

impl MessageReader {
    /// A reader at the beginning of a connection.
    #[must_use]
    pub fn new(messages: Messages) -> Self {
        Self {
            messages,
            frame: None,
            message: None,
        }
    }

    /// Returns whether a message has begun whose end has not come.
    #[must_use]
    pub fn is_unfinished(&self) -> bool {
        self.message.is_some()
    }

    /// Bytes of an unfinished message that are kept here.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.message.as_ref().map_or(0, |message| message.unit.len())
    }

    /// Takes the next thing off the front of `input`; `None` when it needs more bytes than there are.
    ///
    /// # Errors
    ///
    /// The client breaks the protocol. The connection has to end, and the reader is of no more use.
    pub fn next(&mut self, input: &mut BytesMut) -> Result<Option<Incoming>, BadFrame> {
        loop {
            if let Some(frame) = self.frame.take() {
                match self.go_on(frame, input)? {
                    ReadStep::Out(data) => return Ok(Some(Incoming::Data(data))),
                    ReadStep::Needs => return Ok(None),
                    ReadStep::On => continue,
                }
            }
            let Some(head) = Head::read(input)? else {
                return Ok(None);
            };
            if head.opcode >= CLOSE {
                return control(&head, input);
            }
            self.begin(&head)?;
            input.advance(head.size);
        }
    }

    fn begin(&mut self, head: &Head) -> Result<(), BadFrame> {
        match (head.opcode, self.message.is_some()) {
            (CONTINUATION, false) => {
                return Err(BadFrame::of_protocol("A part of no message came."));
            }
            (CONTINUATION, true) => {}
            (_, true) => {
                return Err(BadFrame::of_protocol(
                    "A message began before the last one ended.",
                ));
            }
            (TEXT, false) if matches!(self.messages, Messages::BinaryUnits { .. }) => {
                return Err(BadFrame::of_type());
            }
            (opcode, false) => {
                self.message = Some(PartialMessage {
                    text: (opcode == TEXT).then(Utf8::default),
                    unit: BytesMut::new(),
                    is_over: false,
                });
            }
        }
        self.frame = Some(Payload {
            left: head.length,
            mask: head.mask,
            is_final: head.is_final,
        });
        Ok(())
    }

    /// Reads on in a frame.
    fn go_on(&mut self, mut frame: Payload, input: &mut BytesMut) -> Result<ReadStep, BadFrame> {
        if frame.left > 0 && input.is_empty() {
            self.frame = Some(frame);
            return Ok(ReadStep::Needs);
        }
        let Some(message) = &mut self.message else {
            return Ok(ReadStep::On); // never: a frame is one of a message
        };
        let length = usize::try_from(frame.left).map_or(input.len(), |left| left.min(input.len()));
        let mut part = input.split_to(length);
        frame.left = frame.left.saturating_sub(length as u64);
        let ends = frame.left == 0;
        let ends_message = ends && frame.is_final;
        if !message.is_over {
            unmask(&mut part, frame.mask);
            frame.mask.rotate_left(length % 4);
            let limit = self.messages.limit().unwrap_or(usize::MAX);
            let room = limit.saturating_sub(message.unit.len());
            let is_cut = length > room; // perhaps between the bytes of a character
            let kept = part.get(..room).unwrap_or(&part);
            if let Some(text) = &mut message.text
                && !(text.take(kept) && (is_cut || !ends_message || text.is_whole()))
            {
                return Err(BadFrame::of_text());
            }
            if is_cut {
                message.text = None;
            }
        }
        let out = message.take(self.messages, part, ends_message);
        if !ends {
            self.frame = Some(frame);
        } else if frame.is_final {
            self.message = None;
        }
        Ok(out.map_or(ReadStep::On, ReadStep::Out))
    }
}

enum ReadStep {
    Out(Bytes),
    Needs,
    On,
}

impl PartialMessage {
    /// Adds a part; what is given out of it.
    fn take(&mut self, messages: Messages, part: BytesMut, ends: bool) -> Option<Bytes> {
        let Some(limit) = messages.limit() else {
            return Some(part.freeze());
        };
        if self.is_over {
            return None;
        }
        if self.unit.is_empty() && ends && part.len() <= limit {
            return Some(part.freeze());
        }
        let room = limit.saturating_add(1).saturating_sub(self.unit.len());
        self.unit
            .extend_from_slice(part.get(..room).unwrap_or(part.as_ref()));
        self.is_over = self.unit.len() > limit;
        (ends || self.is_over).then(|| mem::take(&mut self.unit).freeze())
    }
}

impl Head {
    /// `None` while it is not whole.
    fn read(bytes: &[u8]) -> Result<Option<Self>, BadFrame> {
        let Some((&[first, second], rest)) = bytes.split_first_chunk::<2>() else {
            return Ok(None);
        };
        let opcode = first & OPCODE;
        let is_final = first & FIN != 0;
        if first & RESERVED != 0 {
            return Err(BadFrame::of_protocol("A reserved bit of a frame is set."));
        }
        if !matches!(opcode, CONTINUATION | TEXT | BINARY | CLOSE | PING | PONG) {
            return Err(BadFrame::of_protocol("A frame has a reserved opcode."));
        }
        if second & MASKED == 0 {
            return Err(BadFrame::of_protocol("A frame is not masked."));
        }
        let short = second & !MASKED;
        if opcode >= CLOSE && (!is_final || usize::from(short) > MOST_CONTROL_BYTES) {
            return Err(BadFrame::of_protocol("A control frame is too long, or in parts."));
        }
        let (length, extended) = match short {
            126 => match rest.first_chunk() {
                Some(length) => (u64::from(u16::from_be_bytes(*length)), 2),
                None => return Ok(None),
            },
            127 => match rest.first_chunk() {
                Some(length) => (u64::from_be_bytes(*length), 8),
                None => return Ok(None),
            },
            short => (u64::from(short), 0_usize),
        };
        if length > i64::MAX.unsigned_abs() {
            return Err(BadFrame::of_protocol("The length of a frame is negative."));
        }
        let Some(mask) = rest.get(extended..).and_then(<[u8]>::first_chunk) else {
            return Ok(None);
        };
        Ok(Some(Self {
            is_final,
            opcode,
            length,
            mask: *mask,
            size: extended.saturating_add(6),
        }))
    }
}

/// A control frame, once it is whole: it may stand between the frames of a message.
fn control(head: &Head, input: &mut BytesMut) -> Result<Option<Incoming>, BadFrame> {
    let length = usize::try_from(head.length).unwrap_or(MOST_CONTROL_BYTES);
    if input.len() < head.size.saturating_add(length) {
        return Ok(None);
    }
    input.advance(head.size);
    let mut payload = input.split_to(length);
    unmask(&mut payload, head.mask);
    let payload = payload.freeze();
    Ok(Some(match head.opcode {
        PING => Incoming::Ping(payload),
        PONG => Incoming::Pong(length),
        _ => {
            check_close(&payload)?;
            Incoming::Close(payload)
        }
    }))
}

/// Section 7.4 of RFC 6455.
fn check_close(payload: &[u8]) -> Result<(), BadFrame> {
    if payload.is_empty() {
        return Ok(());
    }
    let Some((code, words)) = payload.split_first_chunk::<2>() else {
        return Err(BadFrame::of_protocol("A Close frame has half a code."));
    };
    if !matches!(u16::from_be_bytes(*code), 1_000..=1_003 | 1_007..=1_014 | 3_000..=4_999) {
        return Err(BadFrame::of_protocol(
            "A Close frame has a code that none may have.",
        ));
    }
    match std::str::from_utf8(words) {
        Ok(_) => Ok(()),
        Err(_) => Err(BadFrame::of_text()),
    }
}

/// Takes the mask off, eight bytes at a time.
fn unmask(bytes: &mut [u8], mask: [u8; 4]) {
    let word = u32::from_ne_bytes(mask);
    let double = u64::from(word) | u64::from(word) << 32;
    let (chunks, rest) = bytes.as_chunks_mut::<8>();
    for chunk in chunks {
        *chunk = (u64::from_ne_bytes(*chunk) ^ double).to_ne_bytes();
    }
    for (byte, mask) in rest.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= mask;
    }
}
