//! The inbox: what has come for a session whose client sends by requests, or by sockets that come and go.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::PushError;
use super::signal::Signal;

/// An entry of an inbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum InboxEntry {
    /// Bytes of the client, cut anywhere.
    Bytes(Bytes),
    /// The next bytes come from a new socket.
    NewSocket,
    /// A body broke off: the message that it has begun is not continued.
    BrokenOff,
}

impl InboxEntry {
    /// Bytes that count against the bound.
    fn weight(&self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.len(),
            Self::NewSocket | Self::BrokenOff => 0,
        }
    }
}

/// Entries on their way from requests to one session, bounded by bytes.
#[derive(Debug)]
pub(super) struct Inbox {
    state: Mutex<InboxState>,
    limit_bytes: usize,
    /// There is something to take, or the inbox was closed.
    filled: Signal,
}

#[derive(Debug, Default)]
struct InboxState {
    entries: VecDeque<InboxEntry>,
    bytes: usize,
    closed: bool,
    /// Set while somebody waits until something was taken.
    drained: Option<Arc<Notify>>,
}

impl InboxState {
    /// Adds an entry. Bytes that alone are over the bound are taken when nothing else waits, what is no bytes always.
    fn add(&mut self, entry: InboxEntry, limit_bytes: usize) -> Result<(), PushError> {
        if self.closed {
            return Err(PushError::Closed);
        }
        let (weight, queued) = (entry.weight(), self.bytes);
        let then = queued.saturating_add(weight);
        if queued > 0 && weight > 0 && then > limit_bytes {
            return Err(PushError::Full { queued });
        }
        self.bytes = then;
        self.entries.push_back(entry);
        Ok(())
    }

    fn take(&mut self) -> Option<InboxEntry> {
        let entry = self.entries.pop_front()?;
        self.bytes = self.bytes.saturating_sub(entry.weight());
        if self.entries.is_empty() {
            self.entries = VecDeque::new(); // an idle connection keeps none
        }
        self.notify_drained();
        Some(entry)
    }

    fn notify_drained(&mut self) {
        if let Some(drained) = self.drained.take() {
            drained.notify_waiters();
        }
    }
}

impl Inbox {
    pub(super) fn new(limit_bytes: usize) -> Self {
        Self {
            state: Mutex::default(),
            limit_bytes,
            filled: Signal::default(),
        }
    }

    /// Adds an entry without waiting.
    pub(super) fn try_push(&self, entry: InboxEntry) -> Result<(), PushError> {
        self.state.lock().add(entry, self.limit_bytes)?;
        self.filled.give();
        Ok(())
    }

    /// Adds an entry, waiting for room.
    pub(super) async fn push(&self, entry: InboxEntry) -> Result<(), PushError> {
        match self.try_push(entry.clone()) {
            Err(PushError::Full { .. }) => Box::pin(self.push_waiting(entry)).await, // seldom
            pushed => pushed,
        }
    }

    async fn push_waiting(&self, entry: InboxEntry) -> Result<(), PushError> {
        loop {
            let drained = {
                let mut state = self.state.lock();
                match state.add(entry.clone(), self.limit_bytes) {
                    Err(PushError::Full { .. }) => {
                        Arc::clone(state.drained.get_or_insert_default()).notified_owned()
                    }
                    added => {
                        drop(state);
                        self.filled.give();
                        return added;
                    }
                }
            };
            drained.await;
        }
    }

    /// The next entry, waiting for it; `None` when the inbox is closed and empty. For one consumer. Cancel-safe.
    pub(super) async fn take(&self) -> Option<InboxEntry> {
        loop {
            {
                let mut state = self.state.lock();
                if let Some(entry) = state.take() {
                    return Some(entry);
                }
                if state.closed {
                    return None;
                }
            }
            self.filled.given().await;
        }
    }

    /// Refuses further entries, and takes those that wait.
    pub(super) fn close(&self) -> Vec<InboxEntry> {
        let left = {
            let mut state = self.state.lock();
            state.closed = true;
            state.bytes = 0;
            state.notify_drained();
            std::mem::take(&mut state.entries)
        };
        self.filled.give();
        left.into()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn bytes(text: &'static str) -> InboxEntry {
        InboxEntry::Bytes(Bytes::from_static(text.as_bytes()))
    }

    #[tokio::test]
    async fn entries_come_out_in_order_and_keep_apart() {
        let inbox = Inbox::new(10);
        let entries = [bytes("half a mess"), InboxEntry::BrokenOff, InboxEntry::NewSocket];
        for entry in &entries {
            inbox.try_push(entry.clone()).unwrap();
        }
        for entry in entries {
            assert_eq!(inbox.take().await, Some(entry));
        }
        assert_eq!(
            inbox.state.lock().entries.capacity(),
            0,
            "an idle inbox owns no buffer"
        );
    }

    #[tokio::test]
    async fn over_the_bound_bytes_wait_and_what_is_none_does_not() {
        let inbox = Arc::new(Inbox::new(10));
        inbox.push(bytes("12345678")).await.unwrap();
        assert_eq!(inbox.try_push(bytes("abc")), Err(PushError::Full { queued: 8 }));
        inbox.push(InboxEntry::BrokenOff).await.unwrap();
        let waiting = tokio::spawn({
            let inbox = Arc::clone(&inbox);
            async move { inbox.push(bytes("abc")).await }
        });
        for entry in [bytes("12345678"), InboxEntry::BrokenOff, bytes("abc")] {
            assert_eq!(inbox.take().await, Some(entry));
        }
        assert_eq!(waiting.await.unwrap(), Ok(()));
    }

    #[tokio::test]
    async fn a_closed_inbox_takes_nothing_and_gives_what_it_had() {
        let inbox = Inbox::new(10);
        inbox.try_push(bytes("a")).unwrap();
        inbox.try_push(InboxEntry::BrokenOff).unwrap();
        assert_eq!(inbox.close(), [bytes("a"), InboxEntry::BrokenOff]);
        assert_eq!(inbox.try_push(bytes("b")), Err(PushError::Closed));
        assert_eq!(inbox.push(InboxEntry::NewSocket).await, Err(PushError::Closed));
        assert_eq!(inbox.take().await, None);
    }
}
