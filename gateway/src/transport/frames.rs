//! A filter between a socket and the WebSocket library: it keeps small what a client can make the library hold.
//!
//! The library gives out whole messages, and answers every Ping. Left alone it would hold as much of an unfinished message
//! as a message may have, and one Pong for every Ping of a client that does not read. Here
//!
//! * a long frame is cut into several: for clients of the hub protocol, whose frames are a stream of hub messages cut
//!   anywhere, each piece is a message of its own;
//! * for others, whose messages are units, a message goes on only up to its limit, and the rest of it is dropped: its reader
//!   sees that it is over the limit;
//! * nothing is read after a Ping as long as the last write is stuck;
//! * an unfinished message has to get on ([`Held`]).
//!
//! Frames that break the rules of RFC 6455 go through as they are: the library knows them.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::limits::{Held, Terms};

/// Most payload of a piece. A multiple of the mask's four bytes, so that each piece begins with the mask's first.
const PIECE_BYTES: usize = 16 * 1024;
/// The longest header: two bytes, a length of eight, a mask.
const HEADER_BYTES: usize = 14;

const FIN: u8 = 0x80;
const MASKED: u8 = 0x80;
const CONTINUATION: u8 = 0;
const BINARY: u8 = 2;
/// No frame of RFC 6455 has it: the library refuses it.
const UNKNOWN: u8 = 3;
const PING: u8 = 9;

/// The meaning of a WebSocket message for the session that reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Messages {
    /// Some bytes of a stream.
    Stream,
    /// One message, of at most so many bytes.
    Units { limit: usize },
}

/// A socket whose incoming frames are cut.
#[derive(Debug)]
pub(crate) struct Frames<S> {
    inner: S,
    messages: Messages,
    /// A frame that is being given out.
    frame: Frame,
    /// Bytes of a header that are there, of one that is not whole or was made here.
    header: Header,
    /// A message that has begun and whose last frame has not: its bytes so far.
    message: Option<usize>,
    /// The bytes from here on break the rules: they go through.
    broken: bool,
    held: Held,
    write: Write,
}

#[derive(Debug, Default, Clone, Copy)]
struct Frame {
    /// Payload that is still to be given out under the header that was given out last.
    left: u64,
    /// Payload after that, for which a header has to be made.
    behind: u64,
    /// Payload after that, which is dropped.
    dropped: u64,
    mask: [u8; 4],
}

#[derive(Debug, Default)]
struct Header {
    bytes: [u8; HEADER_BYTES],
    length: usize,
    /// Set when it was made here and only has to be given out.
    is_made: bool,
}

#[derive(Debug, Default)]
struct Write {
    is_stuck: bool,
    /// A Ping was given out since something was written.
    pinged: bool,
    reader: Option<Waker>,
}

impl<S> Frames<S> {
    pub(crate) fn new(inner: S, messages: Messages, terms: Terms) -> Self {
        Self {
            inner,
            messages,
            frame: Frame::default(),
            header: Header::default(),
            message: None,
            broken: false,
            held: Held::new(terms),
            write: Write::default(),
        }
    }

    /// Records how much of a message is here.
    fn account(&mut self) -> io::Result<()> {
        let frame = &self.frame;
        let is_whole = frame.left == 0 && frame.behind == 0 && frame.dropped == 0;
        if is_whole && self.message.is_none() && (self.header.length == 0 || self.header.is_made) {
            self.held.end();
            self.held.rest();
            return Ok(());
        }
        self.held.begin();
        let kept = match self.messages {
            Messages::Stream => 0, // no more than a piece
            Messages::Units { .. } => self.message.unwrap_or_default(),
        };
        let full = |_| {
            io::Error::new(
                io::ErrorKind::OutOfMemory,
                "the node holds too much for its clients",
            )
        };
        self.held.keep(kept).map_err(full)
    }

    /// Goes through bytes that have come, and changes headers in place. Returns how many are to be given out; a header that
    /// is not whole is kept back.
    fn scan(&mut self, bytes: &mut [u8]) -> usize {
        let (mut from, mut to) = (0_usize, 0_usize);
        while from < bytes.len() {
            if self.broken {
                let end = bytes.len();
                bytes.copy_within(from..end, to);
                return to.saturating_add(end.saturating_sub(from));
            }
            let rest = bytes.len().saturating_sub(from);
            if self.frame.left > 0 {
                let part = usize::try_from(self.frame.left).unwrap_or(rest).min(rest);
                bytes.copy_within(from..from.saturating_add(part), to);
                (from, to) = (from.saturating_add(part), to.saturating_add(part));
                self.frame.left = self.frame.left.saturating_sub(part as u64);
            } else if self.frame.behind > 0 {
                // Its header is made when this is read on: reading stops there.
                return to;
            } else if self.frame.dropped > 0 {
                let part = usize::try_from(self.frame.dropped).unwrap_or(rest).min(rest);
                from = from.saturating_add(part);
                self.frame.dropped = self.frame.dropped.saturating_sub(part as u64);
            } else {
                let Some(mut head) = Head::read(bytes.get(from..).unwrap_or_default()) else {
                    self.keep_back(bytes.get(from..).unwrap_or_default());
                    return to;
                };
                let size = head.size;
                self.begin(&mut head);
                from = from.saturating_add(size);
                if !head.is_hidden {
                    let header = head.write();
                    let end = to.saturating_add(header.length);
                    if let (Some(place), Some(header)) = (bytes.get_mut(to..end), header.get()) {
                        place.copy_from_slice(header);
                    }
                    to = end;
                }
            }
        }
        to
    }

    /// Decides how a frame is handled.
    fn begin(&mut self, head: &mut Head) {
        if !head.is_masked || head.has_extensions || head.payload > u64::MAX / 2 {
            self.broken = true;
            return;
        }
        self.frame = Frame {
            left: head.payload,
            mask: head.mask,
            ..Frame::default()
        };
        if head.opcode == PING {
            self.write.pinged = true;
        }
        if head.opcode > BINARY {
            return;
        }
        match (head.opcode == CONTINUATION, self.message.is_some()) {
            (true, false) => return, // refused by the library
            (false, true) => {
                head.opcode = UNKNOWN;
                return;
            }
            _ => {}
        }
        match self.messages {
            Messages::Stream => {
                self.message = (!head.is_final).then_some(0);
                let whole =
                    head.is_final && head.opcode != CONTINUATION && head.payload <= PIECE_BYTES as u64;
                if !whole {
                    head.opcode = BINARY;
                    head.is_final = true;
                    self.frame.left = head.payload.min(PIECE_BYTES as u64);
                    self.frame.behind = head.payload.saturating_sub(self.frame.left);
                    head.payload = self.frame.left;
                }
            }
            Messages::Units { limit } => self.begin_unit(head, limit),
        }
    }

    fn begin_unit(&mut self, head: &mut Head, limit: usize) {
        let before = self.message.unwrap_or_default();
        let payload = usize::try_from(head.payload).unwrap_or(usize::MAX);
        let so_far = before.saturating_add(payload);
        self.message = (!head.is_final).then_some(so_far);
        if so_far <= limit {
            return;
        }
        // One byte more than there may be is enough to see that there are too many.
        let most = limit.saturating_add(1);
        let left = most.saturating_sub(before);
        self.frame.left = left as u64;
        self.frame.dropped = head.payload.saturating_sub(left as u64);
        head.payload = left as u64;
        if before > limit {
            head.is_hidden = true; // its message was given out
        } else {
            head.is_final = true;
            if head.opcode != CONTINUATION {
                head.opcode = BINARY; // text may be cut between the bytes of a character
            }
        }
    }

    fn keep_back(&mut self, bytes: &[u8]) {
        self.header = Header::default();
        for (place, byte) in self.header.bytes.iter_mut().zip(bytes) {
            *place = *byte;
            self.header.length = self.header.length.saturating_add(1);
        }
    }

    /// Makes the header of the next piece.
    fn make_header(&mut self) {
        let left = self.frame.behind.min(PIECE_BYTES as u64);
        self.frame.left = left;
        self.frame.behind = self.frame.behind.saturating_sub(left);
        let head = Head {
            is_final: true,
            opcode: BINARY,
            payload: left,
            mask: self.frame.mask,
            is_masked: true,
            has_extensions: false,
            is_hidden: false,
            size: 0,
        };
        self.header = head.write();
    }
}

impl<S: AsyncRead + Unpin> Frames<S> {
    fn read_frames(&mut self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.broken && self.header.length == 0 {
            return Pin::new(&mut self.inner).poll_read(cx, buffer);
        }
        if self.frame.left == 0 && self.frame.behind > 0 && self.header.length == 0 {
            self.make_header();
        }
        if self.header.is_made || self.broken {
            self.give_header(buffer);
            return Poll::Ready(Ok(()));
        }
        loop {
            let begun = self.header.length;
            // Behind a piece comes a header that is not there yet.
            let most = match self.frame.behind {
                0 => PIECE_BYTES,
                _ => usize::try_from(self.frame.left).unwrap_or(PIECE_BYTES),
            };
            let size = buffer.remaining().min(most);
            if size <= begun {
                return Poll::Ready(Err(io::Error::other(
                    "the buffer for a WebSocket header is too small",
                )));
            }
            let space = buffer.initialize_unfilled_to(size);
            let (kept, fresh) = space.split_at_mut(begun);
            let mut fresh = ReadBuf::new(fresh);
            if Pin::new(&mut self.inner).poll_read(cx, &mut fresh)?.is_pending() {
                ready!(self.held.poll_late(cx));
                return Poll::Ready(Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    "a message did not get on",
                )));
            }
            let read = fresh.filled().len();
            self.held.pass(read);
            if let Some(header) = self.header.get() {
                kept.copy_from_slice(header);
            }
            self.header = Header::default();
            let came = begun.saturating_add(read);
            let given = match read {
                0 => came, // the end: a header that is not whole stays so
                _ => self.scan(space.get_mut(..came).unwrap_or_default()),
            };
            buffer.advance(given);
            self.account()?;
            if given > 0 || read == 0 {
                return Poll::Ready(Ok(()));
            }
        }
    }

    fn give_header(&mut self, buffer: &mut ReadBuf<'_>) {
        let header = self.header.get().unwrap_or_default();
        let given = header.len().min(buffer.remaining());
        buffer.put_slice(header.get(..given).unwrap_or_default());
        self.header.bytes.copy_within(given.., 0);
        self.header.length = self.header.length.saturating_sub(given);
        if self.header.length == 0 {
            self.header.is_made = false;
        }
    }
}

impl Header {
    fn get(&self) -> Option<&[u8]> {
        self.bytes.get(..self.length)
    }

    fn put(&mut self, bytes: &[u8]) {
        let end = self.length.saturating_add(bytes.len());
        if let Some(place) = self.bytes.get_mut(self.length..end) {
            place.copy_from_slice(bytes);
            self.length = end;
        }
    }
}

/// A frame's header.
struct Head {
    is_final: bool,
    has_extensions: bool,
    opcode: u8,
    is_masked: bool,
    payload: u64,
    mask: [u8; 4],
    /// The frame's bytes as they came.
    size: usize,
    /// Set when it is not given out.
    is_hidden: bool,
}

impl Head {
    /// `None` while it is not whole.
    fn read(bytes: &[u8]) -> Option<Self> {
        let (&[first, second], rest) = bytes.split_first_chunk::<2>()?;
        let (payload, length) = match second & !MASKED {
            126 => (u64::from(u16::from_be_bytes(*rest.first_chunk()?)), 2),
            127 => (u64::from_be_bytes(*rest.first_chunk()?), 8),
            short => (u64::from(short), 0),
        };
        let is_masked = second & MASKED != 0;
        let mask = match is_masked {
            true => *rest.get(length..)?.first_chunk()?,
            false => [0; 4],
        };
        let mask_bytes = if is_masked { 4_usize } else { 0 };
        Some(Self {
            is_final: first & FIN != 0,
            has_extensions: first & 0x70 != 0,
            opcode: first & 0x0F,
            is_masked,
            payload,
            mask,
            size: length.saturating_add(2).saturating_add(mask_bytes),
            is_hidden: false,
        })
    }

    /// Never longer than the same frame's header as it came: the payload is no longer than it was.
    fn write(&self) -> Header {
        let mut header = Header {
            is_made: true,
            ..Header::default()
        };
        let extensions = if self.has_extensions { 0x70 } else { 0 };
        let first = self.opcode | extensions | if self.is_final { FIN } else { 0 };
        let masked = if self.is_masked { MASKED } else { 0 };
        match (u8::try_from(self.payload), u16::try_from(self.payload)) {
            (Ok(short @ 0..=125), _) => header.put(&[first, masked | short]),
            (_, Ok(length)) => {
                header.put(&[first, masked | 126]);
                header.put(&length.to_be_bytes());
            }
            _ => {
                header.put(&[first, masked | 127]);
                header.put(&self.payload.to_be_bytes());
            }
        }
        if self.is_masked {
            header.put(&self.mask);
        }
        header
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Frames<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.write.is_stuck && this.write.pinged {
            this.write.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        this.read_frames(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Frames<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.inner).poll_write(cx, bytes);
        this.write.note(written.is_pending());
        written
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.inner).poll_write_vectored(cx, bytes);
        this.write.note(written.is_pending());
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(cx)
    }
}

impl Write {
    fn note(&mut self, is_stuck: bool) {
        self.is_stuck = is_stuck;
        if !is_stuck {
            self.pinged = false;
            if let Some(reader) = self.reader.take() {
                reader.wake();
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, clippy::arithmetic_side_effects)]
#[path = "frames_tests.rs"]
mod tests;
