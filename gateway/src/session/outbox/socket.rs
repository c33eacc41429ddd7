//! A queue whose consumer is a socket: whoever pushes also writes, and wakes nobody.
//!
//! Only what the kernel does not take stays in the queue, and only then the connection's task is woken, to go on when the
//! socket is writable. While that task runs, it writes once at the end of its turn what was pushed meanwhile.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::mem;
use std::sync::Arc;

use bytes::{Buf as _, Bytes};
use tokio::net::TcpStream;

use super::state::State;
use super::{ByteQueue, PushError};
use crate::protocol::ClientProtocol;
use crate::telemetry::metrics::Metrics;

/// Most chunks that are written in one system call.
const MOST_SLICES: usize = 64;

/// The socket that chunks go to.
#[derive(Debug)]
pub(super) struct Socket {
    stream: Arc<TcpStream>,
    /// The rest of a chunk of which the kernel took a part. It was handed out.
    rest: Bytes,
    kernel: Kernel,
    /// The connection's task runs.
    is_running: bool,
    sent: Sent,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kernel {
    Takes,
    /// It takes no more before the socket is writable, for which the connection's task waits.
    IsFull,
    /// The socket takes no more bytes.
    IsBroken,
}

/// Chunks that were handed to the kernel and are not counted yet.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sent {
    pub(crate) chunks: u64,
    pub(crate) bytes: u64,
}

impl Sent {
    /// Adds the chunks of another connection.
    pub(crate) fn add(&mut self, other: Self) {
        self.chunks = self.chunks.saturating_add(other.chunks);
        self.bytes = self.bytes.saturating_add(other.bytes);
    }

    /// Counts the chunks in the metrics of the node.
    pub(crate) fn count(self, metrics: &Metrics, protocol: ClientProtocol) {
        if self.chunks > 0 {
            metrics.messages_sent.get(protocol).inc_by(self.chunks);
            metrics.sent_bytes.inc_by(self.bytes);
        }
    }
}

/// The part of the connection's task in writing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Writing {
    /// There is nothing to do before [`ByteQueue::changed`].
    Idle,
    /// The socket is to become writable, then [`ByteQueue::go_on_writing`] is to be called.
    Stuck,
    /// The socket broke.
    Broken,
    /// The queue was closed, and everything was written.
    Over,
}

impl ByteQueue {
    /// From now on chunks are written to this socket.
    pub(crate) fn attach(&self, stream: Arc<TcpStream>) {
        let mut state = self.state.lock();
        state.socket = Some(Box::new(Socket {
            stream,
            rest: Bytes::new(),
            kernel: Kernel::Takes,
            is_running: false,
            sent: Sent::default(),
        }));
        self.write(&mut state);
    }

    /// From now on chunks wait for another consumer. Returns what is not counted yet, and the rest of a chunk of which the
    /// socket took a part.
    pub(crate) fn detach(&self) -> (Sent, Bytes) {
        let socket = self.state.lock().socket.take();
        socket
            .map(|socket| (socket.sent, socket.rest))
            .unwrap_or_default()
    }

    /// Writes what waits. Without effect where no socket is attached, or its task is at it.
    pub(crate) fn flush(&self) -> Sent {
        let mut state = self.state.lock();
        if state.socket.as_ref().is_some_and(|socket| !socket.is_running) {
            self.write(&mut state);
        }
        take_sent(&mut state)
    }

    /// The connection's task runs: what is pushed waits for the end of its turn.
    pub(crate) fn begin_turn(&self) {
        if let Some(socket) = &mut self.state.lock().socket {
            socket.is_running = true;
        }
    }

    /// The task has run.
    pub(crate) fn end_turn(&self) -> Sent {
        let mut state = self.state.lock();
        if let Some(socket) = &mut state.socket {
            socket.is_running = false;
        }
        self.write(&mut state);
        if state.chunks.is_empty() {
            state.chunks = VecDeque::new(); // a connection that is idle after this turn keeps none
        }
        take_sent(&mut state)
    }

    /// Ends the queue. Of what waits only the rest of a chunk goes out of which the kernel took a part.
    pub(crate) fn cut_off(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        state.chunks = VecDeque::new();
        state.bytes = 0;
        state.resend = None;
        state.pongs = None;
        self.goes_on(&mut state);
        state.wake_all();
    }

    /// The next step of the connection's task.
    pub(crate) fn writing(&self) -> Writing {
        let mut state = self.state.lock();
        if state.closed {
            self.write(&mut state);
        }
        match &state.socket {
            None => Writing::Over,
            Some(socket) if state.closed && socket.has_written_all(&state) => Writing::Over,
            Some(socket) => match socket.kernel {
                Kernel::IsBroken => Writing::Broken,
                Kernel::IsFull => Writing::Stuck,
                Kernel::Takes => Writing::Idle,
            },
        }
    }

    /// The socket is writable again. Returns how many bytes it took.
    pub(crate) fn go_on_writing(&self) -> usize {
        let mut state = self.state.lock();
        if let Some(socket) = &mut state.socket
            && socket.kernel == Kernel::IsFull
        {
            socket.kernel = Kernel::Takes;
        }
        self.write(&mut state)
    }

    /// Adds the answer to a Ping, which overtakes the chunks, unless nothing is handed out any more.
    pub(crate) fn add_pong(&self, frame: &[u8]) -> Result<(), PushError> {
        let mut state = self.state.lock();
        if state.closed && state.chunks.is_empty() {
            return Err(PushError::Closed);
        }
        state.pongs.get_or_insert_default().extend_from_slice(frame);
        self.offer(&mut state);
        Ok(())
    }

    /// Waits until no answer to a Ping waits: until then nothing more is read.
    pub(crate) async fn pongs_are_out(&self) {
        loop {
            let drained = {
                let mut state = self.state.lock();
                if state.pongs.is_some() {
                    self.write(&mut state);
                }
                let is_broken = |socket: &Socket| socket.kernel == Kernel::IsBroken;
                if state.pongs.is_none() || state.socket.as_deref().is_some_and(is_broken) {
                    return;
                }
                state.drained()
            };
            drained.await;
        }
    }

    /// Something is there to hand out: writes it, or wakes the task that takes it.
    pub(super) fn offer(&self, state: &mut State) {
        match &state.socket {
            None => state.wake_consumer(),
            Some(socket) if socket.is_running => {}
            Some(_) => {
                self.write(state);
            }
        }
    }

    /// Writes as much as the kernel takes. Returns how many bytes it took.
    pub(super) fn write(&self, state: &mut State) -> usize {
        state.is_dirty = false;
        let Some(mut socket) = state.socket.take() else {
            return 0;
        };
        let mut written = 0_usize;
        if socket.kernel == Kernel::Takes {
            written = socket.write_all(state, self.limit_bytes);
            let needs_task = socket.kernel != Kernel::Takes || state.closed && socket.has_written_all(state);
            if needs_task {
                state.wake_consumer();
            }
        }
        state.socket = Some(socket);
        if written > 0 {
            self.went_on(state);
        }
        written
    }
}

impl Socket {
    /// Writes until there is nothing more, or the kernel takes no more. Returns how many bytes it took.
    fn write_all(&mut self, state: &mut State, limit_bytes: usize) -> usize {
        let mut all = 0_usize;
        while self.kernel == Kernel::Takes {
            match self.write_some(state) {
                Ok((_, 0)) => break, // there was nothing
                Ok((written, total)) => {
                    all = all.saturating_add(written);
                    self.advance(state, written, limit_bytes);
                    if written < total {
                        self.kernel = Kernel::IsFull;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.kernel = Kernel::IsFull;
                    self.begin_chunk(state, limit_bytes);
                }
                Err(_) => self.kernel = Kernel::IsBroken,
            }
        }
        all
    }

    /// One system call. Returns how many bytes were written, of how many.
    fn write_some(&self, state: &State) -> io::Result<(usize, usize)> {
        let first = [&*self.rest, state.pongs()].into_iter();
        let first = first.filter(|bytes| !bytes.is_empty());
        let chunks = state
            .chunks
            .iter()
            .take(state.may_hand_out())
            .map(|chunk| &**chunk);
        let mut waiting = first.chain(chunks);
        let Some(only) = waiting.next() else {
            return Ok((0, 0));
        };
        match waiting.next() {
            // The usual case: a table of slices would cost as much as all the rest here.
            None => Ok((self.stream.try_write(only)?, only.len())),
            Some(second) => self.write_several([only, second].into_iter().chain(waiting)),
        }
    }

    /// As [`write_some`](Self::write_some), for the first of several.
    fn write_several<'a>(&self, waiting: impl Iterator<Item = &'a [u8]>) -> io::Result<(usize, usize)> {
        let mut slices = [IoSlice::new(&[]); MOST_SLICES];
        let (mut count, mut total) = (0_usize, 0_usize);
        for (place, bytes) in slices.iter_mut().zip(waiting) {
            *place = IoSlice::new(bytes);
            count = count.saturating_add(1);
            total = total.saturating_add(bytes.len());
        }
        let written = self
            .stream
            .try_write_vectored(slices.get(..count).unwrap_or_default())?;
        Ok((written, total))
    }

    /// Takes away what was written. A chunk of which a part was written counts as handed out.
    fn advance(&mut self, state: &mut State, written: usize, limit_bytes: usize) {
        let of_rest = written.min(self.rest.len());
        self.rest.advance(of_rest);
        let mut left = written.saturating_sub(of_rest);
        if left == 0 {
            return;
        }
        if let Some(pongs) = state.pongs.take() {
            let mut pongs = Bytes::from(*pongs);
            let of_pongs = left.min(pongs.len());
            pongs.advance(of_pongs);
            left = left.saturating_sub(of_pongs);
            self.rest = pongs;
        }
        while left > 0 {
            let Some(mut chunk) = self.hand_out(state, limit_bytes) else {
                return;
            };
            let of_chunk = left.min(chunk.len());
            left = left.saturating_sub(of_chunk);
            if of_chunk < chunk.len() {
                chunk.advance(of_chunk);
                self.rest = chunk;
            }
        }
    }

    /// The kernel takes nothing: the next chunk is on its way all the same, and no longer counts as one that waits. Else a
    /// long one, which goes out piece by piece, would keep others from being taken.
    fn begin_chunk(&mut self, state: &mut State, limit_bytes: usize) {
        if self.rest.is_empty() && state.pongs.is_none() && state.may_hand_out() > 0 {
            self.rest = self.hand_out(state, limit_bytes).unwrap_or_default();
        }
    }

    fn hand_out(&mut self, state: &mut State, limit_bytes: usize) -> Option<Bytes> {
        let chunk = state.hand_out(limit_bytes)?;
        self.sent.chunks = self.sent.chunks.saturating_add(1);
        self.sent.bytes = self.sent.bytes.saturating_add(chunk.len() as u64);
        Some(chunk)
    }

    fn has_written_all(&self, state: &State) -> bool {
        self.rest.is_empty() && state.pongs.is_none() && state.chunks.is_empty()
    }

    /// The consumer is gone: what is on its way is forgotten.
    pub(super) fn forget(&mut self) {
        self.rest = Bytes::new();
    }
}

fn take_sent(state: &mut State) -> Sent {
    state
        .socket
        .as_mut()
        .map(|socket| mem::take(&mut socket.sent))
        .unwrap_or_default()
}

#[cfg(test)]
#[path = "socket_tests.rs"]
mod tests;
