//! A queue of byte chunks between two tasks, or between tasks and a socket, bounded by bytes.

mod burst;
mod socket;
mod state;

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use parking_lot::Mutex;

pub(crate) use burst::BurstPolicy;
pub(crate) use socket::{Sent, Writing};
use state::{Hold, Resend, State};

/// Room for this many chunks is kept by an empty queue.
const IDLE_CHUNKS: usize = 16;

/// Chunks on their way to a client, from many producers to one consumer.
///
/// Callers that must not wait use [`try_push`](Self::try_push), which refuses over the bound; callers that may wait use
/// [`push`](Self::push). Nothing is ever removed from the middle.
///
/// The consumer is a task that takes chunks, or a socket ([`attach`](Self::attach)): then whoever pushes also writes, and
/// the task is woken only for what the kernel does not take.
#[derive(Debug)]
pub(crate) struct ByteQueue {
    state: Mutex<State>,
    limit_bytes: usize,
    bursts: Option<Arc<BurstPolicy>>,
}

/// The reason why a chunk was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PushError {
    /// The consumer is gone or the queue was closed.
    Closed,
    /// This many bytes wait already.
    Full { queued: usize },
}

/// The fate of a chunk that was appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Appended {
    /// Its consumer takes it, or somebody is about to write it.
    Offered,
    /// The caller is to [`flush`](ByteQueue::flush).
    Unwritten,
}

/// Some of what the consumer may request again is no longer here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NotWhole;

/// The outcome of taking from the outbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Taken {
    /// At least one chunk.
    Some,
    /// Answers to the client's Pings, which overtake chunks.
    Pongs,
    /// The queue is closed and empty.
    End,
}

impl ByteQueue {
    pub(crate) fn new(limit_bytes: usize) -> Self {
        Self {
            state: Mutex::default(),
            limit_bytes,
            bursts: None,
        }
    }

    /// A queue that hands out nothing before [`open`](Self::open), and may be pushed over its bound while its consumer gets
    /// on, as the policy for bursts says.
    pub(crate) fn held(limit_bytes: usize, bursts: Arc<BurstPolicy>) -> Self {
        let mut queue = Self::new(limit_bytes);
        queue.bursts = Some(bursts);
        queue.state.get_mut().hold = Hold::Everything;
        queue
    }

    /// Lets the consumer begin, with `first` before everything that was pushed meanwhile.
    pub(crate) fn open(&self, first: Bytes) {
        let mut state = self.state.lock();
        state.push_front(first, None);
        state.hold = Hold::Nothing;
        self.offer(&mut state);
    }

    /// From now on numbered chunks are kept until they are acknowledged. The first of them gets the number 1.
    pub(crate) fn keep(&self) {
        let mut state = self.state.lock();
        let waiting = state.chunks.len();
        state.resend = Some(Box::new(Resend {
            places: std::iter::repeat_n(None, waiting).collect(),
            first: 1,
            ..Resend::default()
        }));
    }

    /// Lets the consumer have `first` and nothing more before [`release`](Self::release).
    pub(crate) fn open_one(&self, first: Bytes) {
        let mut state = self.state.lock();
        state.push_front(first, None);
        state.hold = Hold::AfterFirst;
        self.offer(&mut state);
    }

    /// Ends what [`open_one`](Self::open_one) held back.
    pub(crate) fn release(&self) {
        let mut state = self.state.lock();
        state.hold = Hold::Nothing;
        self.offer(&mut state);
    }

    /// The number of the last numbered chunk, where all of them were acknowledged.
    pub(crate) fn all_acknowledged(&self) -> Option<u64> {
        let state = self.state.lock();
        let resend = state.resend.as_ref()?;
        let waits = resend.later.is_some() || resend.places.iter().any(Option::is_some);
        (resend.kept.is_empty() && !waits).then(|| resend.first.saturating_sub(1))
    }

    /// Forgets kept chunks up to this number. Returns number and offset of the last one that was forgotten.
    pub(crate) fn acknowledge(&self, number: u64) -> Option<(u64, u64)> {
        self.forget(|first, _| first <= number)
    }

    /// Forgets kept chunks up to this offset. Returns as [`acknowledge`](Self::acknowledge).
    pub(crate) fn acknowledge_place(&self, upto: u64) -> Option<(u64, u64)> {
        self.forget(|_, place| place <= upto)
    }

    fn forget(&self, arrived: impl Fn(u64, u64) -> bool) -> Option<(u64, u64)> {
        let mut state = self.state.lock();
        let resend = state.resend.as_mut()?;
        let mut last = None;
        while let Some((chunk, place)) = resend.kept.pop_front_if(|kept| arrived(resend.first, kept.1)) {
            last = Some((resend.first, place));
            resend.first = resend.first.saturating_add(1);
            resend.kept_bytes = resend.kept_bytes.saturating_sub(chunk.len());
        }
        if last.is_some() {
            self.goes_on(&mut state);
            state.notify_drained();
        }
        last
    }

    /// Puts everything that was not acknowledged before what waits, after a chunk that is made from the number of the
    /// first: for a consumer that has lost its connection.
    pub(crate) fn rewind(&self, head: impl FnOnce(u64) -> Option<Bytes>) -> Result<(), NotWhole> {
        let mut state = self.state.lock();
        let resend = state.resend.as_mut().ok_or(NotWhole)?;
        if !resend.is_whole() {
            return Err(NotWhole);
        }
        let kept = std::mem::take(&mut resend.kept);
        resend.kept_bytes = 0;
        state.begin_with(kept, head);
        self.offer(&mut state);
        Ok(())
    }

    /// Returns whether everything that was not acknowledged is still here.
    pub(crate) fn can_rewind(&self) -> bool {
        self.state
            .lock()
            .resend
            .as_ref()
            .is_some_and(|resend| resend.is_whole())
    }

    /// Opens a queue that goes on where another one ended: `kept` are chunks that the consumer may have, and that come
    /// before those that were pushed since [`keep`](Self::keep); the first of them all gets the number `first`. Where there is
    /// `more` of them, it follows by [`push_past`](Self::push_past) until [`end_past`](Self::end_past).
    pub(crate) fn go_on(
        &self,
        first: u64,
        kept: VecDeque<(Bytes, u64)>,
        more: bool,
        head: impl FnOnce(u64) -> Option<Bytes>,
    ) -> Result<(), PushError> {
        let mut state = self.state.lock();
        if state.closed {
            return Err(PushError::Closed);
        }
        state.allowance = kept.iter().map(|(chunk, _)| chunk.len()).sum();
        if more {
            state.begin_past();
        }
        if let Some(resend) = &mut state.resend {
            resend.first = first;
        }
        state.begin_with(kept, head);
        self.offer(&mut state);
        Ok(())
    }

    /// Adds chunks before those that were pushed since [`keep`](Self::keep), as fast as the consumer takes it.
    pub(crate) async fn push_past(&self, chunk: Bytes, place: u64) -> Result<(), PushError> {
        self.at_most(self.limit_bytes.saturating_sub(chunk.len())).await;
        let mut state = self.state.lock();
        if state.closed {
            return Err(PushError::Closed);
        }
        state.bytes = state.bytes.saturating_add(chunk.len());
        state.chunks.push_back(chunk);
        if let Some(resend) = &mut state.resend {
            resend.places.push_back(Some(place));
        }
        self.offer(&mut state);
        Ok(())
    }

    /// Lets the chunks that were pushed meanwhile follow.
    pub(crate) fn end_past(&self) {
        let mut state = self.state.lock();
        let later = state.resend.as_mut().and_then(|resend| resend.later.take());
        let Some(later) = later else { return };
        state.allowance = state.bytes;
        state.bytes = state.bytes.saturating_sub(later.bytes);
        for (chunk, place) in later.chunks {
            state.push_back(chunk, place);
        }
        self.offer(&mut state);
    }

    /// Adds a chunk without waiting. A chunk that alone is over the bound is taken when nothing else waits.
    pub(crate) fn try_push(&self, chunk: Bytes) -> Result<(), PushError> {
        let mut state = self.state.lock();
        self.add(&mut state, chunk, None, self.bursts.as_deref())?;
        self.offer_added(&mut state);
        Ok(())
    }

    /// Like [`try_push`](Self::try_push), for a message of the log. After [`keep`](Self::keep) it is numbered with its place.
    /// Where the consumer is a socket, nothing is written yet.
    pub(crate) fn append(&self, chunk: Bytes, place: Option<u64>) -> Result<Appended, PushError> {
        let mut state = self.state.lock();
        self.add(&mut state, chunk, place, self.bursts.as_deref())?;
        match &state.socket {
            None => {
                self.offer_added(&mut state);
                Ok(Appended::Offered)
            }
            Some(_) if state.is_dirty => Ok(Appended::Offered),
            Some(_) => {
                state.is_dirty = true;
                Ok(Appended::Unwritten)
            }
        }
    }

    /// As [`offer`](Self::offer), for a chunk that was added: a task that takes chunks was woken for the one before it.
    fn offer_added(&self, state: &mut State) {
        if state.socket.is_some() || state.chunks.len() == 1 {
            self.offer(state);
        }
    }

    fn add(
        &self,
        state: &mut State,
        chunk: Bytes,
        place: Option<u64>,
        bursts: Option<&BurstPolicy>,
    ) -> Result<(), PushError> {
        if state.closed {
            return Err(PushError::Closed);
        }
        let weight = state.weight();
        let then = weight.saturating_add(chunk.len());
        let over = then.saturating_sub(self.limit_bytes.saturating_add(state.allowance));
        if weight > 0 && over > 0 {
            let allows = |bursts| state.stall.allows(bursts, self.limit_bytes, over);
            if !bursts.is_some_and(allows) {
                return Err(PushError::Full { queued: weight });
            }
        }
        if then > self.limit_bytes / 2 && self.bursts.is_some() {
            state.stall.begin();
        }
        state.push_back(chunk, place);
        Ok(())
    }

    /// The consumer has taken or acknowledged something.
    fn goes_on(&self, state: &mut State) {
        if self.bursts.is_some() {
            let waits = state.weight() > self.limit_bytes / 2;
            state.stall.goes_on(waits);
        }
    }

    /// Something was handed out.
    fn went_on(&self, state: &mut State) {
        if state.bytes <= self.limit_bytes / 2 {
            state.allowance = 0;
        }
        self.goes_on(state);
        if state.chunks.is_empty() && (state.closed || state.chunks.capacity() > IDLE_CHUNKS) {
            state.chunks = VecDeque::new(); // an idle connection keeps no large buffer
        }
        state.notify_drained();
    }

    /// Adds a chunk, waiting for room.
    pub(crate) async fn push(&self, chunk: Bytes) -> Result<(), PushError> {
        loop {
            let drained = {
                let mut state = self.state.lock();
                match self.add(&mut state, chunk.clone(), None, None) {
                    Err(PushError::Full { .. }) => state.drained(),
                    Err(closed) => return Err(closed),
                    Ok(()) => {
                        self.offer_added(&mut state);
                        return Ok(());
                    }
                }
            };
            drained.await;
        }
    }

    /// Waits until at most `bytes` wait that may be handed out, or the queue is closed.
    pub(crate) async fn at_most(&self, bytes: usize) {
        loop {
            let drained = {
                let mut state = self.state.lock();
                if state.closed || state.due_bytes() <= bytes {
                    return;
                }
                state.drained()
            };
            drained.await;
        }
    }

    /// Bytes that wait.
    pub(crate) fn queued_bytes(&self) -> usize {
        self.state.lock().bytes
    }

    /// Moves chunks to `into` until it holds about `max_bytes`, at least one chunk; waits for the first.
    /// Cancel-safe: a dropped call has taken nothing.
    pub(crate) async fn take(&self, into: &mut Vec<Bytes>, max_bytes: usize) -> Taken {
        loop {
            if let Some(taken) = self.take_now(into, max_bytes) {
                return taken;
            }
            self.changed().await;
        }
    }

    /// Ends when there is something new for the consumer, of which there is one: something to take, or the end of the
    /// queue, or another outcome of [`writing`](Self::writing).
    pub(crate) fn changed(&self) -> Changed<'_> {
        Changed(self)
    }

    fn take_now(&self, into: &mut Vec<Bytes>, max_bytes: usize) -> Option<Taken> {
        let mut state = self.state.lock();
        if let Some(pongs) = state.pongs.take() {
            into.push(Bytes::from(*pongs));
            state.wake_consumer();
            state.notify_drained();
            return Some(Taken::Pongs);
        }
        if state.closed && state.chunks.is_empty() {
            return Some(Taken::End);
        }
        let (mut moved, before) = (0_usize, into.len());
        while state.may_hand_out() > 0
            && let Some(chunk) = state.chunks.front()
        {
            if moved > 0 && moved.saturating_add(chunk.len()) > max_bytes {
                break;
            }
            moved = moved.saturating_add(chunk.len());
            into.extend(state.hand_out(self.limit_bytes));
        }
        if into.len() == before {
            return None;
        }
        self.went_on(&mut state);
        if !state.chunks.is_empty() {
            state.wake_consumer(); // the rest may be taken by a later call
        }
        Some(Taken::Some)
    }

    /// Puts a chunk before everything that waits, also into a queue that was closed.
    pub(crate) fn put_back(&self, chunk: Bytes) {
        let mut state = self.state.lock();
        state.push_front(chunk, None);
        self.offer(&mut state);
    }

    /// Ends the queue: nothing more is accepted, waiting chunks can still be taken.
    pub(crate) fn close(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        self.offer(&mut state);
        state.wake_all();
    }

    /// Ends the queue with a last chunk that is not counted against the bound.
    pub(crate) fn close_with(&self, last: Bytes) {
        let mut state = self.state.lock();
        if !state.closed {
            state.push_back(last, None);
        }
        drop(state);
        self.close();
    }

    /// Forgets the waiting chunks, and goes on.
    pub(crate) fn drop_waiting(&self) {
        let mut state = self.state.lock();
        state.chunks = VecDeque::new();
        state.bytes = 0;
        if let Some(resend) = &mut state.resend {
            resend.places = VecDeque::new();
            resend.later = None;
        }
        state.notify_drained();
    }

    /// Ends the queue and forgets the waiting chunks: the consumer is gone.
    pub(crate) fn discard(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        state.chunks = VecDeque::new();
        state.bytes = 0;
        state.resend = None;
        state.pongs = None;
        if let Some(socket) = &mut state.socket {
            socket.forget();
        }
        self.goes_on(&mut state);
        state.wake_all();
    }
}

/// See [`ByteQueue::changed`].
#[must_use]
pub(crate) struct Changed<'a>(&'a ByteQueue);

impl Future for Changed<'_> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.0.state.lock().poll_changed(cx)
    }
}

impl Drop for Changed<'_> {
    /// The waker of a task keeps that task's memory.
    fn drop(&mut self) {
        self.0.state.lock().consumer = None;
    }
}

#[cfg(test)]
#[path = "outbox_tests.rs"]
mod tests;
