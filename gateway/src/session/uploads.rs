//! The uploads of one connection that are open.

use std::collections::HashMap;
use std::task::{Context, Poll, ready};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::mpsc;

use crate::hub::{RawUpload, UploadEvent};

/// The targets of items, by the stream id that the client chose.
pub(super) struct Uploads {
    open: HashMap<String, mpsc::Sender<UploadEvent>>,
    buffer: usize,
    /// Hands on an event that found its queue full. While there is one the connection is not read.
    blocked: Option<BoxFuture<'static, ()>>,
}

/// Two uploads of a connection would have the same id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("A stream ID is already in use.")]
pub(super) struct StreamIdInUse;

impl Uploads {
    pub(super) fn new(buffer: usize) -> Self {
        Self {
            open: HashMap::new(),
            buffer,
            blocked: None,
        }
    }

    /// Opens one for each id; the receivers are in the same order.
    pub(super) fn open(&mut self, ids: &[String]) -> Result<Vec<RawUpload>, StreamIdInUse> {
        let twice = |(index, id): (usize, &String)| ids.iter().take(index).any(|earlier| earlier == id);
        if ids.iter().any(|id| self.open.contains_key(id)) || ids.iter().enumerate().any(twice) {
            return Err(StreamIdInUse);
        }
        let receivers = ids.iter().map(|id| {
            let (sender, receiver) = mpsc::channel(self.buffer);
            self.open.insert(id.clone(), sender);
            receiver
        });
        Ok(receivers.collect())
    }

    pub(super) fn len(&self) -> usize {
        self.open.len()
    }

    /// Returns whether an upload of that id is open.
    pub(super) fn holds(&self, id: &str) -> bool {
        self.open.contains_key(id)
    }

    /// Hands an event on; one for an unknown stream is ignored.
    pub(super) fn push(&mut self, id: &str, event: UploadEvent) {
        let sender = match event {
            UploadEvent::Item(_) => self.open.get(id).cloned(),
            UploadEvent::End(_) => self.open.remove(id),
        };
        let Some(sender) = sender else { return };
        match sender.try_send(event) {
            Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => {}
            Err(mpsc::error::TrySendError::Full(event)) => {
                // Without room there is no receiver either, and the event is dropped.
                let handing_on = async move { drop(sender.send(event).await) };
                self.blocked = Some(handing_on.boxed());
            }
        }
    }

    /// Forgets the uploads of an invocation that has ended.
    pub(super) fn close(&mut self, ids: &[String]) {
        for id in ids {
            self.open.remove(id);
        }
    }

    pub(super) fn is_blocked(&self) -> bool {
        self.blocked.is_some()
    }

    /// Ready when the blocked event was taken; never when there is none.
    pub(super) fn poll_unblock(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(blocked) = &mut self.blocked else {
            return Poll::Pending;
        };
        ready!(blocked.poll_unpin(cx));
        self.blocked = None;
        Poll::Ready(())
    }
}
