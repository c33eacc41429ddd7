//! The lane: delivers one hub's entries to its sink in order, from pushes, and from the log where pushes were missed.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use tracing::{debug, warn};

use crate::backplane::{Delivery, Gap, HubSink, Message};
use crate::error::BackplaneError;
use crate::position::{Epoch, Offset, Step, step};
use crate::redis::feed::entry::{Content, Stored};
use crate::redis::feed::hub::Hub;
use crate::redis::feed::local::{LocalConnections, Seen};
use crate::redis::feed::queue::BATCH;
use crate::redis::inner::Inner;
use crate::redis::script::frame::Frame;
use crate::redis::script::hub_scripts::Extent;
use crate::redis::server::backoff::Backoff;
use crate::topic::Topic;
use crate::wire::membership::Change;

pub(in crate::redis) struct Lane {
    pub(in crate::redis) inner: Arc<Inner>,
    pub(in crate::redis) hub: Arc<Hub>,
    pub(in crate::redis) epoch: Epoch,
    /// The offset up to which all entries for this node were delivered.
    pub(in crate::redis) cursor: Offset,
    sink: Arc<dyn HubSink>,
    /// Pushes that are to be delivered next.
    pushes: VecDeque<Bytes>,
    /// The most receivers here of an entry, since the lane was last given back.
    pub(in crate::redis) receivers: usize,
    /// The deliveries that the sink is given next.
    out: Vec<Delivery>,
    /// Number of entries that this catch-up has delivered.
    repaired: u64,
}

/// The source of an entry.
#[derive(Clone, Copy)]
pub(in crate::redis) enum Source {
    /// A push: entries that are missing before it are in the log.
    Push,
    /// The log, read from `after`: entries that are missing are lost. No topic without a tail has one above
    /// `forgotten`.
    Log { after: Offset, forgotten: Offset },
}

/// The lane needs to catch up before it can deliver a push.
struct NeedsCatchUp;

/// Ends the hub's lane when dropped.
struct Ending(Arc<Hub>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.pushes.end();
    }
}

impl Lane {
    pub(in crate::redis) fn new(
        inner: Arc<Inner>,
        hub: Arc<Hub>,
        sink: Arc<dyn HubSink>,
        extent: &Extent,
    ) -> Self {
        Self {
            inner,
            hub,
            epoch: extent.epoch.clone(),
            cursor: extent.last,
            sink,
            pushes: VecDeque::new(),
            receivers: 0,
            out: Vec::new(),
            repaired: 0,
        }
    }

    /// Runs until closing. Pushes that need no catch-up may be delivered by the task that reads them
    /// ([`deliver`](Self::deliver)).
    pub(in crate::redis) async fn run(self) {
        let (inner, hub) = (Arc::clone(&self.inner), Arc::clone(&self.hub));
        let _ending = Ending(Arc::clone(&hub));
        hub.pushes.give_back(Box::new(self));
        loop {
            tokio::select! {
                biased;
                () = inner.closing.cancelled() => return,
                () = hub.pushes.woken() => {}
            }
            if let Some(mut lane) = hub.pushes.turn() {
                lane.take_turn().await;
                hub.pushes.give_back(lane);
            }
        }
    }

    /// Delivers the pushes that wait, after the entries that were missed before them.
    async fn take_turn(&mut self) {
        let (needs_catch_up, paused) = self.hub.pushes.take_state();
        if paused && !self.hub.scripts.options.volatile {
            self.pushes.clear(); // the log has them
        }
        if needs_catch_up {
            self.catch_up().await;
        }
        while let Err(NeedsCatchUp) = self.take_pushes() {
            self.catch_up().await;
            // The log was read past this push, so either it was delivered or its epoch is over.
            self.pushes.pop_front();
        }
    }

    /// Adds pushes for the next [turn](Self::take_turn).
    pub(in crate::redis) fn add(&mut self, pushes: impl Iterator<Item = Bytes>) {
        self.pushes.extend(pushes);
    }

    /// Returns whether pushes are left for the next turn.
    pub(in crate::redis) fn has_pushes(&self) -> bool {
        !self.pushes.is_empty()
    }

    /// Delivers pushes at once, up to one before which entries were missed.
    pub(in crate::redis) fn deliver(&mut self, pushes: impl Iterator<Item = Bytes>) {
        self.add(pushes);
        let _ = self.take_pushes(); // the lane's task catches up
    }

    /// Delivers pushes until one needs a catch-up; that one stays in front.
    fn take_pushes(&mut self) -> Result<(), NeedsCatchUp> {
        let hub = Arc::clone(&self.hub);
        let mut local = hub.local.lock();
        let mut outcome = Ok(());
        while let Some(push) = self.pushes.pop_front() {
            outcome = self.take_push(&mut local, &push);
            if outcome.is_err() {
                self.pushes.push_front(push);
                break;
            }
        }
        drop(local);
        self.flush();
        outcome
    }

    fn take_push(&mut self, local: &mut LocalConnections, push: &Bytes) -> Result<(), NeedsCatchUp> {
        let Some((frame, topic)) =
            Frame::parse(push).and_then(|frame| Topic::from_key(frame.topic).map(|topic| (frame, topic)))
        else {
            warn!(hub = %self.hub.name, "ignored a push that can't be read; is another version of Hubcast on this Redis?");
            return Ok(());
        };
        if frame.epoch != self.epoch.as_str() {
            return Err(NeedsCatchUp);
        }
        let Frame {
            offset,
            previous,
            entry,
            ..
        } = frame;
        self.apply(
            local,
            &Stored {
                topic,
                offset,
                previous,
                entry,
            },
            Source::Push,
        )
    }

    /// Delivers entries of the log, in the order of their offsets.
    pub(in crate::redis) fn take_stored(&mut self, entries: &[Stored], source: Source) {
        let hub = Arc::clone(&self.hub);
        for entries in entries.chunks(BATCH) {
            let mut local = hub.local.lock();
            for entry in entries {
                let _ = self.apply(&mut local, entry, source); // an entry of the log never needs a catch-up
            }
            drop(local);
            self.flush();
        }
    }

    /// Delivers one entry, if it is new and a connection of this node receives its topic.
    fn apply(
        &mut self,
        local: &mut LocalConnections,
        entry: &Stored,
        source: Source,
    ) -> Result<(), NeedsCatchUp> {
        if entry.offset <= self.cursor {
            return Ok(());
        }
        let received = match local.seen(&entry.topic) {
            Seen::Nobody => false,
            Seen::UpTo {
                offset: seen,
                receivers,
            } => {
                self.receivers = self.receivers.max(receivers);
                let missing = match (step(seen, entry.previous, entry.offset), source) {
                    (Step::Gap, Source::Push) => return Err(NeedsCatchUp),
                    (Step::Gap, Source::Log { .. }) => true,
                    (_, Source::Log { after, forgotten }) => entry.previous == 0 && after < forgotten,
                    (_, Source::Push) => false,
                };
                if missing {
                    self.out.push(Delivery::Gap(Gap::Trimmed(entry.topic.clone())));
                }
                local.set_seen(&entry.topic, entry.offset);
                true
            }
        };
        self.cursor = entry.offset;
        if matches!(source, Source::Log { .. }) {
            self.repaired += 1;
        }
        if received || matches!(entry.topic, Topic::Connection(_)) {
            self.hand_on(local, entry, received);
        }
        Ok(())
    }

    fn hand_on(&mut self, local: &mut LocalConnections, entry: &Stored, received: bool) {
        let offset = entry.offset;
        let here = self.inner.options.node.as_str();
        match entry.content() {
            None => {
                warn!(hub = %self.hub.name, "ignored a log entry that can't be read; is another version of Hubcast on this Redis?");
                self.out.push(Delivery::Gap(Gap::Trimmed(entry.topic.clone())));
            }
            Some(Content::Gap) => self.out.push(Delivery::Gap(Gap::Trimmed(entry.topic.clone()))),
            Some(Content::Message(envelope)) if received => {
                self.out.push(Delivery::Message(Message {
                    topic: entry.topic.clone(),
                    offset,
                    envelope,
                }));
            }
            Some(Content::Message(_)) => {} // the message was sent before the connection entered
            Some(Content::Membership { connection, .. }) if !local.contains(&connection) => {}
            Some(Content::Membership {
                connection,
                change: Change::Taken,
                owner,
                ..
            }) if owner != here => {
                if local.taken(&connection, &self.epoch, offset) {
                    self.out.push(Delivery::Taken { connection, offset });
                }
            }
            Some(Content::Membership {
                connection, change, ..
            }) if change != Change::Taken && local.is_being_taken(&connection) => {} // the replay has this change
            Some(Content::Membership {
                connection,
                topics,
                change: change @ (Change::Joined | Change::Taken),
                ..
            }) => {
                let missing = if change == Change::Taken {
                    local.took(&connection, &topics, offset)
                } else {
                    local.joined(&connection, &topics, offset)
                };
                if missing {
                    self.inner.wanted.notify_one();
                }
                self.out.push(Delivery::Joined {
                    connection,
                    topics,
                    offset,
                });
            }
            Some(Content::Membership {
                connection,
                topics,
                change: Change::Left,
                ..
            }) => {
                local.left(&connection, &topics);
                self.out.push(Delivery::Left {
                    connection,
                    topics,
                    offset,
                });
            }
        }
    }

    /// Reports that a topic's entries are lost.
    pub(in crate::redis) fn lost(&mut self, topic: Topic) {
        self.out.push(Delivery::Gap(Gap::Trimmed(topic)));
    }

    /// Begins another epoch.
    pub(in crate::redis) fn restart(&mut self, extent: &Extent) {
        self.epoch = extent.epoch.clone();
        self.cursor = extent.start;
        self.hub.local.lock().restart(extent.start);
        self.sink
            .deliver(&[Delivery::Gap(Gap::NewEpoch(extent.epoch.clone()))]);
        self.hub.waiters.restart(&self.epoch, self.cursor);
    }

    /// Gives the sink its deliveries, then notifies the calls that wait for them.
    pub(in crate::redis) fn flush(&mut self) {
        if !self.out.is_empty() {
            self.sink.deliver(&self.out);
            self.out.clear();
        }
        self.hub.waiters.done(self.cursor);
    }

    /// Reads the log until it was read to its end, or until closing.
    async fn catch_up(&mut self) {
        let mut backoff = Backoff::new();
        loop {
            self.hub.pushes.take_state(); // a push that finds no room from here on sets the bit again
            let read = self.read_on().await;
            let repaired = std::mem::take(&mut self.repaired);
            if repaired > 0 {
                self.hub.note_repair(repaired);
            }
            match read {
                Ok(()) => return,
                Err(BackplaneError::Closed) => return,
                Err(error) => debug!(hub = %self.hub.name, %error, "log can't be read yet"),
            }
            tokio::select! {
                () = self.inner.closing.cancelled() => return,
                () = backoff.wait() => {}
            }
        }
    }
}
