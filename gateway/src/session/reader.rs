//! Clients that hold their own place in the log: each message carries it.
//!
//! A reader enters with all its topics at one place of the log. What it lacks up to there comes from the log and is
//! written first; later messages wait in the outbox. So nothing is lost between the two, and nothing comes twice.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hubcast_backplane::{Entered, Epoch, Gap, GroupName, Message, Offset, Page, Position, Topic, UserId};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::Frames;
use super::{Appended, ByteQueue, CloseReason, PushError, Session, Taken};
use crate::auth::{PointSigner, ResumePoint};
use crate::error::Error;
use crate::fanout::Audience;
use crate::hub::HubRuntime;
use crate::protocol::{ClientProtocol, HubMessage, events, plain};

/// The part of the outbox's bound that is read from the log at once.
const PAGE: usize = 4;
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
    /// The replayed frames, sent before the outbox.
    pub(super) past: ByteQueue,
    /// The offset of the last message in the outbox; held while one is put there.
    last: Mutex<Offset>,
    reading: Mutex<Option<Reading>>,
    /// Ends when the reader receives, or never will.
    entered: CancellationToken,
    /// Runs where it begins before its socket is there.
    early: Mutex<Option<JoinHandle<Result<(), CloseReason>>>>,
    /// Holds a permit once the client of an event stream has fetched everything.
    fetched: Notify,
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
            past: ByteQueue::new(limit_bytes),
            last: Mutex::default(),
            reading: Mutex::new(Some(reading)),
            entered: CancellationToken::new(),
            early: Mutex::default(),
            fetched: Notify::new(),
        }
    }

    /// The client has fetched everything, or needs nothing more.
    pub(super) fn fetched_all(&self) {
        self.fetched.notify_one();
    }

    /// Waits until [`fetched_all`](Self::fetched_all) was called.
    pub(super) async fn until_fetched(&self) {
        self.fetched.notified().await;
        self.fetched.notify_one(); // it stays so
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

/// The messages that a reader lacks.
enum Lacks {
    Nothing,
    After(Position),
    Newest(usize),
    /// The reader's lack is unknown.
    Unknown(Why),
}

/// The reason why messages may be missing.
#[derive(Clone, Copy)]
enum Why {
    /// The log no longer has them.
    Trimmed,
    /// The place is of a log that has ended.
    Epoch,
}

impl Why {
    fn name(self) -> &'static str {
        match self {
            Self::Trimmed => "trimmed",
            Self::Epoch => "epoch",
        }
    }
}

/// The reason why a reader's stream did not begin.
enum Failed {
    Asked,
    Backplane(Error),
}

impl<E: Into<Error>> From<E> for Failed {
    fn from(error: E) -> Self {
        Self::Backplane(error.into())
    }
}

impl Session {
    /// Returns whether the client holds its own place in the log.
    pub(super) fn is_reader(&self) -> bool {
        self.reader().is_some()
    }

    fn is_plain(&self) -> bool {
        self.connection.protocol() == Some(ClientProtocol::Plain)
    }

    fn reset_frame(&self, why: Why, id: Option<&str>) -> Bytes {
        if self.is_plain() {
            plain::reset(why.name(), id)
        } else {
            events::reset(why.name(), id)
        }
    }

    fn place_frame(&self, id: &str) -> Bytes {
        if self.is_plain() {
            plain::place(id)
        } else {
            events::place(id)
        }
    }

    fn first_frame(&self) -> Bytes {
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
    pub(crate) fn tell_gap(&self, gap: &Gap) {
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
        match self.reader() {
            Some(reader) => reader.past.take(into, max_bytes).await,
            None => Taken::End,
        }
    }

    /// Returns whether frames may come before the outbox.
    pub(crate) fn has_past(&self) -> bool {
        self.reader().is_some()
    }

    /// Ends the replay: the outbox follows.
    pub(super) fn end_past(&self) {
        if let Some(reader) = self.reader() {
            reader.past.close();
        }
    }

    pub(super) fn discard_past(&self) {
        if let Some(reader) = self.reader() {
            reader.past.discard();
        }
    }

    fn asked_to_close(&self) -> CloseReason {
        self.reason().cloned().unwrap_or(CloseReason::Aborted)
    }

    /// Writes before the outbox, as fast as the client reads.
    async fn give(&self, message: Bytes) -> Result<(), Failed> {
        self.give_frame(self.carry(message)).await
    }

    /// As [`give`](Self::give), for a message that is wrapped as the transport carries it.
    async fn give_frame(&self, frame: Bytes) -> Result<(), Failed> {
        let Some(reader) = self.reader() else {
            return Ok(());
        };
        tokio::select! {
            biased;
            () = self.closing.cancelled() => Err(Failed::Asked),
            given = reader.past.push(frame) => given.map_err(|_| Failed::Asked),
        }
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
            reader.entered.cancel();
        }
        tokio::select! {
            () = reader.entered.cancelled() => {}
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

    async fn begin_once(self: &Arc<Self>) -> Result<(), CloseReason> {
        let Some(reader) = self.reader() else {
            return Err(CloseReason::Aborted);
        };
        let Some(Reading { groups, begin }) = reader.reading.lock().take() else {
            return Err(CloseReason::Aborted); // it begins once
        };
        let _entered = reader.entered.clone().drop_guard(); // however it ends
        match self.begin(groups, begin).await {
            Ok(()) => Ok(()),
            Err(Failed::Asked) => Err(self.asked_to_close()),
            Err(Failed::Backplane(error)) => {
                tracing::warn!(connection_id = %self.id(), %error, "a reader could not be registered");
                let text = "The backplane can't be reached. Try again later.".to_owned();
                let close = HubMessage::Close {
                    error: Some(text),
                    allow_reconnect: true,
                };
                if let Some(frame) = self.encode_bare(&close) {
                    let _ = self.give(frame).await; // a client that is gone need not know
                }
                let detail = error.to_string();
                Err(CloseReason::Handshake { detail })
            }
        }
    }

    async fn begin(self: &Arc<Self>, groups: Vec<GroupName>, begin: Begin) -> Result<(), Failed> {
        let hub = &self.hub;
        let backplane = hub.backplane();
        let now = backplane.position().await?;
        hub.sink().learn_epoch(&now.epoch);
        self.give(self.first_frame()).await?;
        let of_user = match self.connection.user() {
            Some(user) => backplane.user_groups(user).await?,
            None => Vec::new(),
        };
        let joined = self.all_groups(&groups, &of_user);
        let user = self.connection.user().cloned().map(Topic::User);
        let topics: Vec<_> = std::iter::once(Topic::All)
            .chain(user)
            .chain(joined.iter().cloned().map(Topic::Group))
            .collect();
        let mut lacks = match begin {
            Begin::Now => Lacks::Nothing,
            Begin::Newest(most) => Lacks::Newest(most),
            Begin::Unreadable => Lacks::Unknown(Why::Epoch),
            Begin::After(point) => match point.of(&now.epoch) {
                Some(position) => Lacks::After(position),
                None => Lacks::Unknown(Why::Epoch),
            },
        };
        let topics: Vec<_> = topics.into_iter().map(|topic| (topic, 0)).collect();
        self.set_groups(joined.clone()); // filters of messages look at them
        // Most of it before the connection enters: while it reads this, nothing else waits for it.
        self.catch_up(&topics, &mut lacks, Offset::MAX).await?;
        let entered = backplane.enter_with(&self.record(), &joined, true).await?;
        self.connection.has_entered();
        self.settle_groups_of_user(&entered, &groups, of_user).await?;
        if let Some(reader) = self.reader() {
            reader.entered.cancel();
        }
        self.finish(&topics, lacks, &entered.position).await
    }

    /// Writes the rest of the missing messages, and lets the frames that were pushed meanwhile follow.
    async fn finish(
        &self,
        topics: &[(Topic, Offset)],
        mut lacks: Lacks,
        entered: &Position,
    ) -> Result<(), Failed> {
        let hub = &self.hub;
        let id = point(hub, &entered.epoch, entered.offset);
        self.catch_up(topics, &mut lacks, entered.offset).await?;
        match lacks {
            Lacks::Unknown(why) => self.give(self.reset_frame(why, Some(&id))).await?,
            Lacks::Newest(most) => {
                self.give_newest(topics, entered, most).await?;
            }
            Lacks::Nothing | Lacks::After(_) => {}
        }
        self.end_past();
        // A reader that receives nothing must also know from where on it lacks messages.
        self.outbox.open(self.carry(self.place_frame(&id)));
        Ok(())
    }

    /// Writes the messages that the client lacks up to a place.
    async fn catch_up(
        &self,
        topics: &[(Topic, Offset)],
        lacks: &mut Lacks,
        upto: Offset,
    ) -> Result<(), Failed> {
        let hub = &self.hub;
        let most_bytes = hub.options().limits.outbox_bytes / PAGE;
        while let Lacks::After(position) = lacks {
            let backplane = hub.backplane();
            let reading = backplane.history(topics, position, upto, most_bytes);
            let page = tokio::select! {
                biased;
                () = self.closing.cancelled() => return Err(Failed::Asked),
                page = reading => page?,
            };
            match page {
                Page::Exact {
                    messages,
                    reached,
                    ends,
                } => {
                    let epoch = position.epoch.clone();
                    position.offset = reached;
                    self.give_all(messages, &epoch).await?;
                    if ends {
                        return Ok(());
                    }
                }
                Page::Trimmed => *lacks = Lacks::Unknown(Why::Trimmed),
                Page::OtherEpoch(_) => *lacks = Lacks::Unknown(Why::Epoch),
            }
        }
        Ok(())
    }

    /// Writes the last messages of each topic up to where the connection entered.
    async fn give_newest(
        &self,
        topics: &[(Topic, Offset)],
        entered: &Position,
        most: usize,
    ) -> Result<(), Failed> {
        let topics: Vec<_> = topics.iter().map(|(topic, _)| topic.clone()).collect();
        let backplane = self.hub.backplane();
        let looking = backplane.newest(&topics, entered.offset, most);
        let newest = tokio::select! {
            biased;
            () = self.closing.cancelled() => return Err(Failed::Asked),
            newest = looking => newest?,
        };
        let Some(first) = newest.iter().map(|(_, before)| *before).min() else {
            return Ok(());
        };
        let mut lacks = Lacks::After(Position {
            epoch: entered.epoch.clone(),
            offset: first,
        });
        self.catch_up(&newest, &mut lacks, entered.offset).await?;
        if let Lacks::Unknown(why) = lacks {
            self.give(self.reset_frame(why, None)).await?;
        }
        Ok(())
    }

    async fn give_all(&self, messages: Vec<Message>, epoch: &Epoch) -> Result<(), Failed> {
        let hub = &self.hub;
        let metrics = hub.shared().metrics();
        let Some(protocol) = self.connection.protocol() else {
            return Ok(());
        };
        let epoch = Arc::new(epoch.clone());
        for message in messages {
            let now = || hub.shared().backplane().now();
            let audience = Audience::of(&message.envelope, now);
            // It reads as if it had been in its groups all the time.
            if !audience.is_some_and(|audience| audience.held(self, || self.groups())) {
                continue;
            }
            let frame = {
                let frames = Frames::new(&message, hub.shared()).at(hub.name(), Some(Arc::clone(&epoch)));
                frames.get(protocol, self.carriage())
            };
            if let Some(frame) = frame {
                metrics.replayed.inc();
                self.give_frame(frame).await?;
            }
        }
        Ok(())
    }

    /// The groups that the connection enters with: those that its client requested, and those of its user.
    fn all_groups(&self, asked: &[GroupName], of_user: &[GroupName]) -> Vec<GroupName> {
        let mut groups = asked.to_vec();
        let limit = self.hub.options().limits.groups_per_connection;
        for group in of_user {
            if groups.contains(group) {
                continue;
            }
            if groups.len() >= limit {
                tracing::warn!(hub = %self.hub.name(), connection_id = %self.id(), limit, "a reader can't join all groups of its user");
                break;
            }
            groups.push(group.clone());
        }
        groups
    }

    /// The user's groups may have changed since they were looked up.
    async fn settle_groups_of_user(
        self: &Arc<Self>,
        entered: &Entered,
        asked: &[GroupName],
        before: Vec<GroupName>,
    ) -> Result<(), Failed> {
        let joined = self.groups();
        let new = entered.groups.iter().filter(|group| !joined.contains(group));
        self.hub.join_groups_of_user(self, new.cloned().collect()).await?;
        for group in before {
            if !entered.groups.contains(&group) && !asked.contains(&group) {
                self.hub.change_local_group(self.id(), &group, false).await?;
            }
        }
        Ok(())
    }
}

fn point(hub: &HubRuntime, epoch: &Epoch, offset: Offset) -> String {
    PointSigner::new(&hub.shared().backplane().cluster_secret()).write(hub.name(), epoch, offset)
}

#[cfg(test)]
#[path = "reader_tests.rs"]
mod tests;
