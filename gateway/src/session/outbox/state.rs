//! The state of a queue: the waiting chunks, and the ones that a consumer may request again.

use std::collections::VecDeque;
use std::mem;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use tokio::sync::Notify;
use tokio::sync::futures::OwnedNotified;

use super::burst::Stall;
use super::socket::Socket;

/// The least weight of a kept chunk, in bytes.
const KEPT_CHUNK_BYTES: usize = size_of::<(Bytes, u64)>();
#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) chunks: VecDeque<Bytes>,
    pub(super) bytes: usize,
    pub(super) hold: Hold,
    pub(super) closed: bool,
    /// Bytes by which the bound may be passed: the bytes with which a queue went on for another one.
    pub(super) allowance: usize,
    pub(super) stall: Stall,
    pub(super) resend: Option<Box<Resend>>,
    /// Answers to Pings: whole frames, which overtake the chunks.
    #[expect(clippy::box_collection, reason = "next to none of many connections has some")]
    pub(super) pongs: Option<Box<Vec<u8>>>,
    /// The consumer, if it is a socket.
    pub(super) socket: Option<Box<Socket>>,
    /// Chunks were added that somebody is about to write.
    pub(super) is_dirty: bool,
    /// There is something new for the consumer.
    has_changed: bool,
    /// The task of the consumer, while it waits for that.
    pub(super) consumer: Option<Waker>,
    /// Set while somebody waits until something was taken.
    drained: Option<Arc<Notify>>,
}

/// The hold on the chunks: decides whether they are handed out.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hold {
    #[default]
    Nothing,
    /// All but the first.
    AfterFirst,
    Everything,
}

/// Chunks that the consumer may request again, until it has acknowledged them.
#[derive(Debug, Default)]
pub(super) struct Resend {
    /// One for each waiting chunk: the offset in the log of a numbered one.
    pub(super) places: VecDeque<Option<u64>>,
    /// Handed out and not acknowledged, with their offsets. Their bytes may have been dropped: the log has them.
    pub(super) kept: VecDeque<(Bytes, u64)>,
    pub(super) kept_bytes: usize,
    /// Up to this number the bytes of kept chunks were dropped.
    pub(super) dropped: u64,
    /// Chunks that come after a past that is still being added.
    pub(super) later: Option<Later>,
    /// The number of the first kept chunk, or of the next one when none is kept.
    pub(super) first: u64,
}

/// Chunks that wait for earlier ones, with their offsets in the log.
#[derive(Debug, Default)]
pub(super) struct Later {
    pub(super) chunks: VecDeque<(Bytes, Option<u64>)>,
    pub(super) bytes: usize,
}

impl Resend {
    pub(super) fn is_whole(&self) -> bool {
        self.kept.is_empty() || self.first > self.dropped
    }
}

impl State {
    /// There is something to take, or the queue was closed, or its socket needs the consumer.
    pub(super) fn wake_consumer(&mut self) {
        self.has_changed = true;
        if let Some(consumer) = self.consumer.take() {
            consumer.wake();
        }
    }

    pub(super) fn poll_changed(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if mem::take(&mut self.has_changed) {
            return Poll::Ready(());
        }
        match &mut self.consumer {
            Some(consumer) => consumer.clone_from(cx.waker()),
            consumer => *consumer = Some(cx.waker().clone()),
        }
        Poll::Pending
    }

    /// Ends when something was taken, or the queue was closed.
    pub(super) fn drained(&mut self) -> OwnedNotified {
        Arc::clone(self.drained.get_or_insert_default()).notified_owned()
    }

    /// Something was taken.
    pub(super) fn notify_drained(&mut self) {
        if let Some(drained) = self.drained.take() {
            drained.notify_waiters();
        }
    }

    /// The queue was closed.
    pub(super) fn wake_all(&mut self) {
        self.wake_consumer();
        self.notify_drained();
    }

    /// The answers to Pings that wait.
    pub(super) fn pongs(&self) -> &[u8] {
        self.pongs.as_deref().map_or(&[], Vec::as_slice)
    }

    /// How many chunks may be handed out now.
    pub(super) fn may_hand_out(&self) -> usize {
        match self.hold {
            Hold::AfterFirst if !self.closed => 1,
            Hold::Everything if !self.closed => 0,
            _ => self.chunks.len(),
        }
    }

    /// Takes the next chunk, if it may be handed out.
    pub(super) fn hand_out(&mut self, limit_bytes: usize) -> Option<Bytes> {
        if self.may_hand_out() == 0 {
            return None;
        }
        if self.hold == Hold::AfterFirst {
            self.hold = Hold::Everything;
        }
        self.pop_front(limit_bytes)
    }

    /// Bytes that count against the bound. What comes before the past's end is bounded for itself.
    pub(super) fn weight(&self) -> usize {
        if let Some(later) = self.later() {
            return later.bytes;
        }
        let kept = self.resend.as_ref().map_or(0, |resend| resend.kept.len());
        self.bytes.saturating_add(kept.saturating_mul(KEPT_CHUNK_BYTES))
    }

    pub(super) fn later(&self) -> Option<&Later> {
        self.resend.as_ref()?.later.as_ref()
    }

    /// Bytes that may be handed out.
    pub(super) fn due_bytes(&self) -> usize {
        let later = self.later().map_or(0, |later| later.bytes);
        self.bytes.saturating_sub(later)
    }

    /// Keeps the waiting chunks for the end of a replay that is still to be added.
    pub(super) fn begin_past(&mut self) {
        let Some(resend) = &mut self.resend else { return };
        let chunks = std::mem::take(&mut self.chunks);
        let places = std::mem::take(&mut resend.places);
        resend.later = Some(Later {
            bytes: chunks.iter().map(Bytes::len).sum(),
            chunks: chunks.into_iter().zip(places).collect(),
        });
    }

    pub(super) fn push_front(&mut self, chunk: Bytes, place: Option<u64>) {
        self.bytes = self.bytes.saturating_add(chunk.len());
        self.chunks.push_front(chunk);
        if let Some(resend) = &mut self.resend {
            resend.places.push_front(place);
        }
    }

    pub(super) fn push_back(&mut self, chunk: Bytes, place: Option<u64>) {
        self.bytes = self.bytes.saturating_add(chunk.len());
        if let Some(later) = self.resend.as_mut().and_then(|resend| resend.later.as_mut()) {
            later.bytes = later.bytes.saturating_add(chunk.len());
            later.chunks.push_back((chunk, place));
            return;
        }
        self.chunks.push_back(chunk);
        if let Some(resend) = &mut self.resend {
            resend.places.push_back(place);
        }
    }

    /// Puts numbered chunks before the waiting ones, and a head before them.
    pub(super) fn begin_with(
        &mut self,
        kept: VecDeque<(Bytes, u64)>,
        head: impl FnOnce(u64) -> Option<Bytes>,
    ) {
        let first = self.resend.as_ref().map_or(1, |resend| resend.first);
        for (chunk, place) in kept.into_iter().rev() {
            self.push_front(chunk, Some(place));
        }
        if let Some(head) = head(first) {
            self.push_front(head, None);
        }
        self.hold = Hold::Nothing;
    }

    fn pop_front(&mut self, limit_bytes: usize) -> Option<Bytes> {
        let chunk = self.chunks.pop_front()?;
        self.bytes = self.bytes.saturating_sub(chunk.len());
        if let Some(resend) = &mut self.resend
            && let Some(Some(place)) = resend.places.pop_front()
        {
            resend.kept_bytes = resend.kept_bytes.saturating_add(chunk.len());
            resend.kept.push_back((chunk.clone(), place));
            if resend.kept_bytes > limit_bytes {
                resend
                    .kept
                    .iter_mut()
                    .for_each(|(chunk, _)| *chunk = Bytes::new());
                resend.kept_bytes = 0;
                resend.dropped = resend
                    .first
                    .saturating_add(resend.kept.len() as u64)
                    .saturating_sub(1);
            }
        }
        Some(chunk)
    }
}
