//! Clients that hold their own place in the log: each message carries it.
//!
//! A reader enters with all its topics at one place of the log. What it lacks up to there comes from the log and is
//! written first; later messages wait in the outbox. So nothing is lost between the two, and nothing comes twice.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hubcast_backplane::{Epoch, Gap, GroupName, Offset, UserId};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::missed::Why;
use super::{Appended, ByteQueue, CloseReason, PushError, Session, Taken};
use crate::auth::{PointSigner, ResumePoint};
use crate::hub::HubRuntime;
use crate::protocol::{ClientProtocol, events, plain};

/// A browser whose response ended comes back after this time, and up to as much again: a node's clients don't all come
/// at the same moment.
const RETRY_MS: u64 = 1_000;
/// How often the place of a client that receives nothing is moved. The log can vouch for places that are less than an
/// hour old, whatever its topics are.
pub(super) const MOVE: Duration = Duration::from_secs(600);

/// How long the answer to a reader waits at most until it receives.
const ENTERED: Duration = Duration::from_secs(5);

/// The state of a reader beside its outbox.
pub(super) struct Reader {
    /// The replayed frames, sent before the outbox; `None` once they were.
    past: Mutex<Option<Arc<ByteQueue>>>,
    /// The offset of the last message in the outbox; held while one is put there.
    last: Mutex<Offset>,
    pub(super) reading: Mutex<Option<Reading>>,
    /// The reader receives, or never will.
    pub(super) entered: Latch,
    /// Runs where it begins before its socket is there.
    early: Mutex<Option<JoinHandle<Result<(), CloseReason>>>>,
    /// The client of an event stream has fetched everything, or needs nothing more.
    pub(super) fetched: Latch,
}

/// Something that happens once, and is waited for in one place.
#[derive(Debug, Default)]
pub(super) struct Latch(Notify);

impl Latch {
    pub(super) fn open(&self) {
        self.0.notify_one();
    }

    /// Ends once it was opened.
    pub(super) async fn opened(&self) {
        self.0.notified().await;
        self.0.notify_one(); // it stays open
    }
}

/// Opens a latch when it is dropped.
pub(super) struct Opens<'a>(pub(super) &'a Latch);

impl Drop for Opens<'_> {
    fn drop(&mut self) {
        self.0.open();
    }
}

/// The subscription that a reader requests.
pub(crate) struct Reading {
    /// Groups that it joins, beside those of its user.
    pub(crate) groups: Vec<GroupName>,
    pub(crate) begin: Begin,
}

impl Reader {
    pub(super) fn new(limit_bytes: usize, reading: Reading) -> Self {
        Self {
            past: Mutex::new(Some(Arc::new(ByteQueue::new(limit_bytes)))),
            last: Mutex::default(),
            reading: Mutex::new(Some(reading)),
            entered: Latch::default(),
            early: Mutex::default(),
            fetched: Latch::default(),
        }
    }

    /// The replayed frames, as long as some may come.
    pub(super) fn past(&self) -> Option<Arc<ByteQueue>> {
        self.past.lock().clone()
    }

    /// Adds a message of the log to the outbox, as [`ByteQueue::append`].
    pub(super) fn append(
        &self,
        outbox: &ByteQueue,
        frame: Bytes,
        place: Offset,
    ) -> Result<Appended, PushError> {
        let mut last = self.last.lock();
        *last = place;
        outbox.append(frame, None)
    }
}

/// The position from which a reader reads.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Begin {
    /// From the present on.
    Now,
    /// After the messages that it has.
    After(ResumePoint),
    /// After a place that can't be read: of a log whose secret is lost, too.
    Unreadable,
    /// With so many of the last messages of each topic.
    Newest(usize),
}

impl Session {
    /// Returns whether the client holds its own place in the log.
    pub(super) fn is_reader(&self) -> bool {
        self.reader().is_some()
    }

    fn is_plain(&self) -> bool {
        self.connection.protocol() == Some(ClientProtocol::Plain)
    }

    pub(super) fn reset_frame(&self, why: Why, id: Option<&str>) -> Bytes {
        if self.is_plain() {
            plain::reset(why.name(), id)
        } else {
            events::reset(why.name(), id)
        }
    }

    pub(super) fn place_frame(&self, id: &str) -> Bytes {
        if self.is_plain() {
            plain::place(id)
        } else {
            events::place(id)
        }
    }

    pub(super) fn first_frame(&self) -> Bytes {
        if self.is_plain() {
            plain::connected(self.id().as_str(), self.connection.user().map(UserId::as_str))
        } else {
            events::retry(self.retry_after())
        }
    }

    /// How long the client is to wait before it comes back, in milliseconds. Ids are random.
    fn retry_after(&self) -> u64 {
        let sum: u64 = self.id().as_str().bytes().map(u64::from).sum();
        RETRY_MS + sum.wrapping_mul(97) % RETRY_MS
    }

    /// Notifies a reader that messages may be missing. One that has not entered yet will see by its place in the log.
    pub(crate) fn report_gap(&self, gap: &Gap) {
        if self.is_reader() && self.receives() {
            let why = match gap {
                Gap::NewEpoch(_) => Why::Epoch,
                Gap::Trimmed(_) => Why::Trimmed,
            };
            self.push_bare(self.reset_frame(why, None));
        }
        if let (Some(reader), Gap::NewEpoch(_)) = (self.reader(), gap) {
            *reader.last.lock() = 0;
        }
    }

    /// Moves the client's place to where the log is by now, if nothing came for it since: a place that is too old can't be
    /// vouched for, even if nothing is missing after it.
    pub(super) async fn move_place(&self) {
        let Some(reader) = self.reader() else { return };
        let hub = &self.hub;
        let asking = hub.backplane().handed_on();
        let now = tokio::select! {
            biased;
            () = self.closing.cancelled() => return,
            now = asking => now,
        };
        match now {
            Ok(now) => {
                let last = reader.last.lock();
                if *last <= now.offset {
                    self.push_bare(self.place_frame(&point(hub, &now.epoch, now.offset)));
                }
            }
            Err(error) => tracing::debug!(hub = %hub.name(), %error, "a reader's place could not be moved"),
        }
    }

    /// Takes the replayed frames, which come before the outbox, until there are no more of them.
    pub(crate) async fn take_past(&self, into: &mut Vec<Bytes>, max_bytes: usize) -> Taken {
        let Some(reader) = self.reader() else {
            return Taken::End;
        };
        let Some(past) = reader.past() else {
            return Taken::End;
        };
        let taken = Box::pin(past.take(into, max_bytes)).await;
        if taken == Taken::End {
            *reader.past.lock() = None; // an idle reader keeps none
        }
        taken
    }

    /// Returns whether frames may come before the outbox.
    pub(crate) fn has_past(&self) -> bool {
        self.reader().is_some()
    }

    /// Ends the replay: the outbox follows.
    pub(super) fn end_past(&self) {
        if let Some(past) = self.reader().and_then(Reader::past) {
            past.close();
        }
    }

    pub(super) fn discard_past(&self) {
        if let Some(past) = self.reader().and_then(Reader::past) {
            past.discard();
        }
    }

    pub(super) fn asked_to_close(&self) -> CloseReason {
        self.reason().cloned().unwrap_or(CloseReason::Aborted)
    }

    /// Begins to read before the socket is there.
    pub(crate) fn begin_early(self: &Arc<Self>) {
        if let Some(reader) = self.reader() {
            let session = Arc::clone(self);
            let beginning = async move { session.begin_once().await };
            *reader.early.lock() = Some(self.hub.shared().tasks().spawn(beginning));
        }
    }

    /// Waits until the connection receives, never will, or for a bounded time: a client that was notified that it is
    /// connected misses nothing from then on. One that goes on after a place lacks nothing anyway.
    pub(crate) async fn entered(&self) {
        let Some(reader) = self.reader() else { return };
        if let Some(Reading {
            begin: Begin::After(_),
            ..
        }) = &*reader.reading.lock()
        {
            reader.entered.open();
        }
        tokio::select! {
            () = reader.entered.opened() => {}
            () = self.closing.cancelled() => {}
            () = sleep(ENTERED) => {}
        }
    }

    /// Puts the connection into the cluster and writes the messages that its client lacks.
    pub(super) async fn begin_reading(self: &Arc<Self>) -> Result<(), CloseReason> {
        let early = self.reader().and_then(|reader| reader.early.lock().take());
        match early {
            Some(beginning) => beginning.await.unwrap_or(Err(CloseReason::Aborted)),
            None => self.begin_once().await,
        }
    }
}

pub(super) fn point(hub: &HubRuntime, epoch: &Epoch, offset: Offset) -> String {
    PointSigner::new(&hub.shared().backplane().cluster_secret()).write(hub.name(), epoch, offset)
}

#[cfg(test)]
#[path = "reader_tests.rs"]
mod tests;
