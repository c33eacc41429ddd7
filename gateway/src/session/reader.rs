//! Clients that speak no hub protocol: they read events, and hold their own place in the log.
//!
//! A reader enters with all its topics at one place of the log. What it lacks up to there comes from the log and is
//! written first; what comes after waits in the outbox. So nothing is lost between the two, and nothing comes twice.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hubcast_backplane::{Entered, Epoch, Gap, GroupName, Message, Offset, Page, Position, Topic};
use parking_lot::Mutex;
use tokio::time::{Instant, sleep_until};

use super::invocations::Invocations;
use super::run::end;
use super::{CloseReason, Session};
use crate::auth::{PointSigner, ResumePoint};
use crate::error::Error;
use crate::fanout::Frames;
use crate::hub::HubRuntime;
use crate::protocol::HubProtocol;
use crate::queue::{ByteQueue, PushError, Taken};
use crate::transport::sse_named_event;

/// Messages that are read from the log at once.
const PAGE: usize = 256;
/// A browser whose response ended comes back after this time, and up to as much again: a node's clients don't all come
/// at the same moment.
const RETRY_MS: u64 = 1_000;
/// How often the place of a client that receives nothing is moved. The log can vouch for places that are less than an
/// hour old, whatever its topics are.
const MOVE: Duration = Duration::from_secs(600);
const COMMENT: Bytes = Bytes::from_static(b":\n\n");
const UNAVAILABLE: Bytes = Bytes::from_static(b": the backplane can't be reached\n\n");

/// What a reader has beside its outbox.
pub(super) struct Reader {
    /// What comes before the outbox.
    pub(super) past: ByteQueue,
    /// The place of the last message in the outbox; held while one is put there.
    last: Mutex<Offset>,
}

impl Reader {
    pub(super) fn new(limit_bytes: usize) -> Self {
        Self {
            past: ByteQueue::new(limit_bytes),
            last: Mutex::default(),
        }
    }
}

/// From where on a reader wants to read.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Begin {
    /// From now on.
    Now,
    /// After what it has.
    After(ResumePoint),
    /// With so many of the last messages of each topic.
    Newest(usize),
}

/// What a reader lacks.
enum Lacks {
    Nothing,
    After(Position),
    Newest(usize),
    /// Nobody knows.
    Unknown(Why),
}

/// Why messages may be missing.
#[derive(Clone, Copy)]
enum Why {
    /// The log no longer has them.
    Trimmed,
    /// The place is of a log that has ended.
    Epoch,
}

impl Why {
    fn event(self, id: Option<&str>) -> Bytes {
        let data: &[u8] = match self {
            Self::Trimmed => br#"{"reason":"trimmed"}"#,
            Self::Epoch => br#"{"reason":"epoch"}"#,
        };
        sse_named_event("reset", id, data)
    }
}

/// Why a reader's stream did not begin.
enum Failed {
    Asked,
    Backplane(Error),
}

impl<E: Into<Error>> From<E> for Failed {
    fn from(error: E) -> Self {
        Self::Backplane(error.into())
    }
}

/// Runs a reader's session to the end of its membership.
pub(crate) async fn read_on(session: Arc<Session>, groups: Vec<GroupName>, begin: Begin) {
    let running = Invocations::new(1, 1); // none will come
    let (reason, running) = match session.begin(groups, begin).await {
        Ok(()) => (session.stay().await, Some(running)),
        Err(Failed::Asked) => (session.asked_to_close(), None),
        Err(Failed::Backplane(error)) => {
            tracing::warn!(connection_id = %session.id(), %error, "a reader could not be registered");
            let _ = session.give(UNAVAILABLE).await; // who is gone need not know
            let detail = error.to_string();
            (CloseReason::Handshake { detail }, None)
        }
    };
    end(&session, reason, running, true).await;
}

impl Session {
    /// Whether the client speaks no hub protocol.
    pub(crate) fn is_reader(&self) -> bool {
        self.reader.is_some()
    }

    /// Tells a reader that messages may be missing. One that has not entered yet will see by its place in the log.
    pub(crate) fn tell_gap(&self, gap: &Gap) {
        if self.is_reader() && self.receives() {
            let why = match gap {
                Gap::NewEpoch(_) => Why::Epoch,
                Gap::Trimmed(_) => Why::Trimmed,
            };
            self.push_event(why.event(None));
        }
        if let (Some(reader), Gap::NewEpoch(_)) = (&self.reader, gap) {
            *reader.last.lock() = 0;
        }
    }

    /// Pushes a message of the log.
    pub(super) fn deliver_event(&self, reader: &Reader, frames: &Frames<'_>, place: Offset) -> bool {
        let Some(event) = frames.named() else {
            return false;
        };
        let mut last = reader.last.lock();
        *last = place;
        self.push_event(event)
    }

    /// Moves the client's place to where the log is by now, if nothing came for it since: a place that is too old can't be
    /// vouched for, even if nothing is missing after it.
    async fn move_place(&self) {
        let Some(reader) = &self.reader else { return };
        let hub = &self.hub;
        match hub.shared().backplane().handed_on(hub.name()).await {
            Ok(now) => {
                let last = reader.last.lock();
                if *last <= now.offset {
                    self.push_event(place_event(&point(hub, &now.epoch, now.offset)));
                }
            }
            Err(error) => tracing::debug!(hub = %hub.name(), %error, "a reader's place could not be moved"),
        }
    }

    /// The last thing that the client is told.
    pub(super) fn goodbye(
        &self,
        reason: &CloseReason,
        protocol: HubProtocol,
        detailed: bool,
    ) -> Option<Bytes> {
        if self.is_reader() {
            reason.event(detailed)
        } else {
            reason.frame(protocol, detailed)
        }
    }

    /// What comes before the outbox, until there is no more of it.
    pub(super) async fn take_past(&self, into: &mut Vec<Bytes>, max_bytes: usize) -> Taken {
        match &self.reader {
            Some(reader) => reader.past.take(into, max_bytes).await,
            None => Taken::End,
        }
    }

    /// Nothing more comes before the outbox.
    pub(super) fn end_past(&self) {
        if let Some(reader) = &self.reader {
            reader.past.close();
        }
    }

    pub(super) fn discard_past(&self) {
        if let Some(reader) = &self.reader {
            reader.past.discard();
        }
    }

    fn asked_to_close(&self) -> CloseReason {
        self.reason().cloned().unwrap_or(CloseReason::Aborted)
    }

    /// Writes before the outbox, as fast as the client reads.
    async fn give(&self, event: Bytes) -> Result<(), Failed> {
        let Some(reader) = &self.reader else { return Ok(()) };
        tokio::select! {
            biased;
            () = self.closing.cancelled() => Err(Failed::Asked),
            given = reader.past.push(event) => given.map_err(|_| Failed::Asked),
        }
    }

    /// Returns whether the outbox took it; one that is full ends the session.
    fn push_event(&self, event: Bytes) -> bool {
        let pushed = self.outbox.try_push(event);
        if let Err(PushError::Full { queued }) = pushed {
            self.fall_behind(queued);
        }
        pushed.is_ok()
    }

    /// Puts the connection into the cluster and writes what its client lacks.
    async fn begin(self: &Arc<Self>, groups: Vec<GroupName>, begin: Begin) -> Result<(), Failed> {
        let hub = &self.hub;
        let backplane = hub.shared().backplane();
        let now = backplane.position(hub.name()).await?;
        hub.learn_epoch(&now.epoch);
        self.give(retry(self)).await?;
        let of_user = match self.connection.user() {
            Some(user) => backplane.user_groups(hub.name(), user).await?,
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
            Begin::After(point) => match point.of(&now.epoch) {
                Some(position) => Lacks::After(position),
                None => Lacks::Unknown(Why::Epoch),
            },
        };
        // Most of it before the connection enters: while it reads this, nothing else waits for it.
        self.catch_up(&topics, &mut lacks, Offset::MAX).await?;
        self.set_groups(joined.clone());
        let entered = backplane
            .enter_with(hub.name(), &self.record(), &joined, true)
            .await?;
        self.settle_groups_of_user(&entered, &groups, of_user).await?;
        self.finish(&topics, lacks, &entered.position).await
    }

    /// Writes the rest of what the client lacks, and lets what was pushed meanwhile follow.
    async fn finish(&self, topics: &[Topic], mut lacks: Lacks, entered: &Position) -> Result<(), Failed> {
        let hub = &self.hub;
        let id = point(hub, &entered.epoch, entered.offset);
        self.catch_up(topics, &mut lacks, entered.offset).await?;
        match lacks {
            Lacks::Unknown(why) => self.give(why.event(Some(&id))).await?,
            Lacks::Newest(most) => {
                let backplane = hub.shared().backplane();
                let newest = backplane.newest(hub.name(), topics, entered.offset, most).await?;
                self.give_all(newest, &entered.epoch).await?;
            }
            Lacks::Nothing | Lacks::After(_) => {}
        }
        self.end_past();
        // Who receives nothing is to know, too, from where on it lacks something.
        self.outbox.open(place_event(&id));
        Ok(())
    }

    /// Writes what the client lacks up to a place.
    async fn catch_up(&self, topics: &[Topic], lacks: &mut Lacks, upto: Offset) -> Result<(), Failed> {
        let hub = &self.hub;
        while let Lacks::After(position) = lacks {
            let page = hub
                .shared()
                .backplane()
                .history(hub.name(), topics, position, upto, PAGE)
                .await?;
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

    async fn give_all(&self, messages: Vec<Message>, epoch: &Epoch) -> Result<(), Failed> {
        let hub = &self.hub;
        let metrics = hub.shared().metrics();
        let epoch = Arc::new(epoch.clone());
        for message in messages {
            let event = {
                let frames = Frames::new(&message.envelope, metrics);
                frames.at(hub, Some(Arc::clone(&epoch)), message.offset).named()
            };
            if let Some(event) = event {
                metrics.replayed.inc();
                self.give(event).await?;
            }
        }
        Ok(())
    }

    /// The groups that the connection enters with: those that its client asked for, and those of its user.
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

    /// Tells the hub, then keeps the response alive until it is to end.
    async fn stay(&self) -> CloseReason {
        if let (Some(transport), Some(protocol)) = (self.connection.transport(), self.connection.protocol()) {
            let metrics = self.hub.shared().metrics();
            metrics.connections(transport, protocol).inc();
        }
        let connected = tokio::select! {
            biased;
            () = self.closing.cancelled() => return self.asked_to_close(),
            outcome = self.hub.connected(self.context().connecting()) => outcome,
        };
        if let Err(error) = connected {
            return self.hook_failed(&error);
        }
        let period = self.hub.options().timeouts.keep_alive;
        let mut moved = Instant::now();
        loop {
            tokio::select! {
                biased;
                () = self.closing.cancelled() => return self.asked_to_close(),
                () = sleep_until(Instant::now() + period) => drop(self.push_event(COMMENT)),
            }
            if moved.elapsed() >= MOVE {
                moved = Instant::now();
                tokio::select! {
                    biased;
                    () = self.closing.cancelled() => return self.asked_to_close(),
                    () = self.move_place() => {}
                }
            }
        }
    }
}

/// A place without an event: clients remember it all the same.
fn place_event(id: &str) -> Bytes {
    Bytes::from(format!("id: {id}\n\n"))
}

fn point(hub: &HubRuntime, epoch: &Epoch, offset: Offset) -> String {
    PointSigner::new(&hub.shared().backplane().cluster_secret()).write(hub.name(), epoch, offset)
}

/// How long the client is to wait before it comes back. Ids are random.
fn retry(session: &Session) -> Bytes {
    let sum: u64 = session.id().as_str().bytes().map(u64::from).sum();
    let spread = sum.wrapping_mul(97) % RETRY_MS;
    Bytes::from(format!("retry: {}\n\n", RETRY_MS + spread))
}
