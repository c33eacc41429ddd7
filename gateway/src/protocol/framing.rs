//! Finds the boundaries of messages in a byte stream that is cut anywhere.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::{mem, ops::Range};

use bytes::{Buf as _, Bytes, BytesMut};
use memchr::memchr;

/// Ends every handshake message and every message of the JSON protocol.
pub const RECORD_SEPARATOR: u8 = 0x1E;

/// A MessagePack message may have at most 2 GiB - 1 bytes: the limit of its length prefix.
pub(super) const MAX_PREFIXED_BYTES: usize = 0x7FFF_FFFF;

/// Bytes that have arrived and are not taken yet.
///
/// Cost: every byte is copied once when it is pushed and at most once more when it is taken, and is searched
/// once, however the stream is cut. An empty buffer owns no memory.
#[derive(Debug)]
pub(super) struct FrameBuffer {
    bytes: BytesMut,
    /// How many bytes at the front are known to hold no record separator.
    searched: usize,
    /// True if messages have been taken off the front of this allocation.
    advanced: bool,
    /// Limit of one message with its separator or length prefix.
    max_bytes: usize,
}

impl FrameBuffer {
    pub(super) fn new(max_bytes: usize) -> FrameBuffer {
        FrameBuffer {
            bytes: BytesMut::new(),
            searched: 0,
            advanced: false,
            max_bytes,
        }
    }

    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn clear(&mut self) {
        *self = FrameBuffer::new(self.max_bytes);
    }

    pub(super) fn into_bytes(self) -> Bytes {
        self.bytes.freeze()
    }

    /// The next record without its separator; `None` means that it has not arrived whole.
    pub(super) fn next_record(&mut self) -> Result<Option<Bytes>, FrameError> {
        let unsearched = self.bytes.get(self.searched..).unwrap_or_default();
        let Some(offset) = memchr(RECORD_SEPARATOR, unsearched) else {
            self.searched = self.bytes.len();
            self.check_size(self.bytes.len().saturating_add(1))?; // its separator will need a byte
            self.compact();
            return Ok(None);
        };
        let end = self.searched.saturating_add(offset);
        let next = end.saturating_add(1);
        self.check_size(next)?;
        Ok(Some(self.take(0..end, next)))
    }

    /// The next message without its length prefix; `None` means that it has not arrived whole. One that is
    /// too large is refused as soon as its length is known.
    pub(super) fn next_prefixed(&mut self) -> Result<Option<Bytes>, FrameError> {
        let Some((prefix, length)) = read_length(&self.bytes)? else {
            self.check_size(self.bytes.len().saturating_add(1))?; // its prefix will need a byte
            self.compact();
            return Ok(None);
        };
        let next = prefix.saturating_add(length);
        self.check_size(next)?;
        if self.bytes.len() < next {
            self.compact();
            return Ok(None);
        }
        Ok(Some(self.take(prefix..next, next)))
    }

    fn check_size(&self, size: usize) -> Result<(), FrameError> {
        if size > self.max_bytes {
            Err(FrameError::TooLarge {
                limit: self.max_bytes,
            })
        } else {
            Ok(())
        }
    }

    /// Takes `body` and drops everything before `next`. The result never shares memory with other messages.
    fn take(&mut self, body: Range<usize>, next: usize) -> Bytes {
        self.searched = 0;
        if next == self.bytes.len() && !self.advanced {
            return mem::take(&mut self.bytes).freeze().slice(body);
        }
        let body = Bytes::copy_from_slice(self.bytes.get(body).unwrap_or_default());
        self.bytes.advance(next);
        self.advanced = true;
        if self.bytes.is_empty() {
            self.bytes = BytesMut::new();
            self.advanced = false;
        }
        body
    }

    /// Moves the beginning of an unfinished message out of an allocation that was made for more.
    fn compact(&mut self) {
        if self.advanced {
            self.bytes = BytesMut::from(self.bytes.as_ref());
            self.advanced = false;
        }
    }
}

/// The reason why the stream can't be cut into messages.
#[derive(Debug)]
pub(super) enum FrameError {
    /// A message with its separator or prefix is larger than this.
    TooLarge { limit: usize },
    /// A length prefix of more than five bytes, or of 2 GiB or more.
    InvalidLength,
}

/// Reads a length prefix: seven bits a byte, the least significant first, the high bit says that another
/// byte follows. Returns the size of the prefix and the length.
fn read_length(bytes: &[u8]) -> Result<Option<(usize, usize)>, FrameError> {
    let mut length = 0_usize;
    for (size, (&byte, shift)) in (1..).zip(bytes.iter().zip([0_u32, 7, 14, 21, 28])) {
        if shift == 28 && byte > 7 {
            return Err(FrameError::InvalidLength);
        }
        length |= usize::from(byte & 0x7F).wrapping_shl(shift);
        if byte & 0x80 == 0 {
            return Ok(Some((size, length)));
        }
    }
    Ok(None)
}

/// Writes a length prefix; `length` is at most [`MAX_PREFIXED_BYTES`].
pub(super) fn write_length(out: &mut impl Sink, mut length: usize) {
    while length > 0x7F {
        out.put(&[low_byte(length) | 0x80]);
        length >>= 7_u32;
    }
    out.put(&[low_byte(length)]);
}

fn low_byte(number: usize) -> u8 {
    number.to_le_bytes().first().copied().unwrap_or_default()
}

/// The target of encoders: first a [`Count`], then a buffer of exactly that size.
pub(super) trait Sink {
    fn put(&mut self, bytes: &[u8]);
}

impl Sink for Vec<u8> {
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

/// Counts the written bytes and keeps none of them.
#[derive(Default)]
pub(super) struct Count(pub(super) usize);

impl Sink for Count {
    fn put(&mut self, bytes: &[u8]) {
        self.0 = self.0.saturating_add(bytes.len());
    }
}
