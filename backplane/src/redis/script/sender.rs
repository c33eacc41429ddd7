//! The task that sends the changes of one hub, one batch after the other.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;
use redis::Value;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tracing::{debug, warn};

use crate::backplane::HubOptions;
use crate::error::BackplaneError;
use crate::redis::feed::split::Acknowledged;
use crate::redis::keys::HubKeys;
use crate::redis::node::clock::Clock;
use crate::redis::script::answers::{BatchAnswer, Outcome};
use crate::redis::script::calls::log;
use crate::redis::script::change::Change;
use crate::redis::script::entries::gap_call;
use crate::redis::script::invocation::Invocation;
use crate::redis::server::commands::{Commands, Failed, Sent};
use crate::redis::server::replies::{decode, malformed};
use crate::topic::{NodeId, Topic};

/// Highest cost of one batch, in simple changes, so that no call holds the server for long.
const MOST: usize = 64;
/// Most bytes of one batch, unless one change is larger.
const MOST_BYTES: usize = 256 * 1_024;

/// The changes of one call.
struct Batch {
    number: u64,
    changes: Vec<Change>,
    /// Whether the batch may have reached a server.
    sent: bool,
}

/// Sends the changes of one hub.
pub(in crate::redis) struct Sender {
    commands: Arc<Commands>,
    clock: Arc<Clock>,
    node: NodeId,
    /// The key of the hub's log.
    log: String,
    number: u64,
    /// The hub's options, where this node serves it.
    served: Arc<ArcSwapOption<HubOptions>>,
    acknowledged: Acknowledged,
    /// Topics of which a former master has lost messages, until their gaps are appended.
    lost: Vec<Topic>,
    queue: mpsc::Receiver<Change>,
    /// A change that was taken from the queue and is not in a batch yet.
    held: Option<Change>,
    /// The time of the last batch.
    begun: Instant,
}

impl Sender {
    pub(in crate::redis) fn new(
        commands: &Arc<Commands>,
        node: NodeId,
        hub: &HubKeys,
        served: Arc<ArcSwapOption<HubOptions>>,
        queue: mpsc::Receiver<Change>,
    ) -> Self {
        Self {
            commands: Arc::clone(commands),
            clock: commands.clock(),
            node,
            log: hub.log(),
            number: 0,
            served,
            acknowledged: Acknowledged::default(),
            lost: Vec::new(),
            queue,
            held: None,
            begun: Instant::now(),
        }
    }

    /// Sends changes until closing, or until the last writer is gone.
    pub(in crate::redis) async fn run(mut self) {
        let closing = self.commands.closing();
        closing.run_until_cancelled(self.send_all()).await;
    }

    async fn send_all(&mut self) {
        loop {
            let changes = self.company().await;
            if changes.is_empty() {
                return; // the last writer is gone
            }
            let batch = Batch {
                number: 0,
                changes,
                sent: false,
            };
            self.send(batch).await;
        }
    }

    /// As [`next`](Self::next), but not before the interval between two batches is over: changes that come meanwhile
    /// share the batch.
    async fn company(&mut self) -> Vec<Change> {
        let interval = self.commands.bounds().batches;
        if interval.is_zero() {
            return self.next().await;
        }
        if self.held.is_none() {
            self.held = self.queue.recv().await;
        }
        let left = interval.saturating_sub(self.begun.elapsed());
        if !left.is_zero() {
            // The runtime's timers are too coarse.
            let _ = tokio::task::spawn_blocking(move || std::thread::sleep(left)).await;
        }
        self.begun = Instant::now();
        self.next().await
    }

    /// The changes that wait, as many as one batch takes; empty when there will be no more.
    async fn next(&mut self) -> Vec<Change> {
        let mut changes = Vec::new();
        let (mut bytes, mut costs) = (0, 0);
        let mut next = match self.held.take() {
            Some(held) => Some(held),
            None => self.queue.recv().await,
        };
        while let Some(change) = next {
            let (weight, cost) = (change.operation.weight(), change.operation.cost());
            if !changes.is_empty() && (bytes + weight > MOST_BYTES || costs + cost > MOST) {
                self.held = Some(change);
                break;
            }
            bytes += weight;
            costs += cost;
            changes.push(change);
            next = (costs < MOST).then(|| self.queue.try_recv().ok()).flatten();
        }
        changes
    }

    /// Sends a batch until it is answered, or until no caller waits for it any more.
    async fn send(&mut self, mut batch: Batch) {
        let mut reason = String::new();
        loop {
            let Some(until) = batch.retire(Instant::now(), &reason) else {
                return;
            };
            match self.try_send(&mut batch, until).await {
                Ok(()) if batch.changes.is_empty() => return,
                Ok(()) => batch.sent = false,
                Err(Failed { sent, why }) => {
                    batch.sent |= sent == Sent::Perhaps;
                    match why {
                        Ok(words) => reason = words,
                        Err(error) => return batch.fail_all(&error),
                    }
                }
            }
        }
    }

    /// Sends a batch once. Changes that were not carried out, and still can be, stay in it.
    async fn try_send(&mut self, batch: &mut Batch, until: Instant) -> Result<(), Failed> {
        // A batch that may have been carried out goes again under its number, before anything else.
        if !batch.sent {
            self.append_gaps(until).await?;
            self.number += 1;
            batch.number = self.number;
        }
        match self.exchange(batch.number, &batch.changes, until).await? {
            Some(outcomes) => self.finish(batch, outcomes).map_err(Failed::for_good),
            None => {
                batch.give_up_unsure();
                Ok(())
            }
        }
    }

    /// Appends gaps to topics of which messages are lost, before any other entry of this node in the new epoch.
    async fn append_gaps(&mut self, until: Instant) -> Result<(), Failed> {
        while !self.lost.is_empty() {
            let Some(options) = self.served.load_full() else {
                self.lost.clear(); // nothing was published by this node
                return Ok(());
            };
            let some = self.lost.iter().take(MOST);
            let gaps: Vec<_> = some
                .map(|topic| Change::own(gap_call(&options, topic), until))
                .collect();
            self.number += 1;
            let outcomes = match self.exchange(self.number, &gaps, until).await {
                Ok(Some(outcomes)) => outcomes,
                Ok(None) => continue, // another epoch has begun meanwhile
                Err(Failed { why, .. }) => return Err(Failed { sent: Sent::No, why }),
            };
            let kinds: Vec<u8> = outcomes.iter().map(|outcome| outcome.kind).collect();
            if kinds.contains(&FULL) {
                return Ok(()); // no node can publish, so no client misses more messages until this works
            }
            if !kinds.contains(&EXPIRED) {
                for topic in gaps.iter().filter_map(|gap| gap.operation.topic()) {
                    self.acknowledged.note(topic);
                }
                self.lost.drain(..gaps.len());
                continue;
            }
            if Instant::now() >= until {
                let why = Ok("the server did not come to it in time".to_owned());
                return Err(Failed { sent: Sent::No, why });
            }
        }
        Ok(())
    }

    /// Sends changes once, under this number. Returns their outcomes; `None` where the log is in a new epoch, and none
    /// of the changes was carried out.
    async fn exchange(
        &mut self,
        number: u64,
        changes: &[Change],
        until: Instant,
    ) -> Result<Option<Vec<Outcome>>, Failed> {
        let begun = Mutex::new(Instant::now());
        let served = self.served.load();
        let options = served.as_deref();
        let head = || log::Batch {
            log: self.log.clone(),
            node: &self.node,
            number,
            epoch: &self.acknowledged.epoch,
            // Where the node does not serve the hub, it appends no entries of its own.
            topic_bytes: options.map_or(0, |options| options.retention_topic_bytes),
            hub_bytes: options.map_or(0, |options| options.retention_bytes),
            messages: options.map_or(0, HubOptions::kept_messages),
            life: options.map_or(0, HubOptions::life_ms),
            tail_life: options.map_or(0, HubOptions::tail_life_ms),
        };
        let command = |scripts: &_| {
            let now = Instant::now();
            *begun.lock() = now; // the call may wait for a connection first, and be sent twice
            let operations = changes.iter().map(|change| {
                let left = change.deadline.saturating_duration_since(now);
                (&change.operation, self.clock.deadline(left))
            });
            Invocation::batch(scripts, head(), operations)
        };
        let answer = self.commands.try_batch(&self.log, command, until).await?;
        let begun = *begun.lock();
        self.observe(answer, begun).map_err(Failed::for_good)
    }

    /// Reads the server's time and epoch from an answer. Returns the outcomes.
    fn observe(&mut self, answer: Value, begun: Instant) -> Result<Option<Vec<Outcome>>, BackplaneError> {
        let BatchAnswer { now, epoch, outcomes } = BatchAnswer::read(answer)?;
        let received = Instant::now();
        self.clock.observe(begun, received, now);
        let lost = epoch.map_or_else(Vec::new, |(epoch, age)| {
            // The age is in whole milliseconds, so it may be up to one too short.
            let longest_age = age + Duration::from_millis(1) + received.saturating_duration_since(begun);
            self.acknowledged.enter(&epoch, longest_age)
        });
        if !lost.is_empty() {
            warn!(
                topics = lost.len(),
                "a former Redis master has acknowledged messages that are lost"
            );
            self.lost.extend(lost);
        }
        Ok(Some(outcomes).filter(|outcomes| !outcomes.is_empty()))
    }

    /// Finishes the changes of a batch with their outcomes. Changes that the server took for late, and that are not,
    /// stay in the batch: its clock has moved.
    fn finish(&mut self, batch: &mut Batch, outcomes: Vec<Outcome>) -> Result<(), BackplaneError> {
        let mut outcomes = outcomes.into_iter();
        let mut late = Vec::new();
        for change in batch.changes.drain(..) {
            let Outcome { kind, value } = outcomes
                .next()
                .ok_or_else(|| malformed("a batch of another length"))?;
            if kind == EXPIRED && Instant::now() < change.deadline {
                late.push(change);
                continue;
            }
            if kind == DONE
                && let Some(topic) = change.operation.topic()
            {
                self.acknowledged.note(topic);
            }
            let waited = change.begun.elapsed();
            change.tell(outcome_of(kind, value, waited));
        }
        if !late.is_empty() {
            debug!(
                changes = late.len(),
                "the server's clock has moved; changes are sent again"
            );
        }
        batch.changes = late;
        Ok(())
    }
}

/// The kinds of outcomes of `batch.lua`.
const DONE: u8 = 0;
const FAILED: u8 = 1;
const EXPIRED: u8 = 2;
const FULL: u8 = 3;

fn outcome_of(kind: u8, value: Value, waited: Duration) -> Result<Value, BackplaneError> {
    match kind {
        DONE => Ok(value),
        FAILED => {
            let reason: String = decode(value)?;
            warn!(%reason, "the Redis server could not carry out a change");
            Err(BackplaneError::Refused { reason })
        }
        EXPIRED => Err(BackplaneError::Unavailable {
            waited,
            reason: "the server did not come to it in time".to_owned(),
        }),
        FULL => Err(BackplaneError::Full),
        _ => Err(malformed("an outcome of an unknown kind")),
    }
}

impl Batch {
    /// Fails the callers whose time is up, and drops their changes where that is still possible. Returns the time of
    /// the next one; `None` when no caller waits any more.
    fn retire(&mut self, now: Instant, reason: &str) -> Option<Instant> {
        for change in &mut self.changes {
            let given_up = change.answer.as_ref().is_none_or(oneshot::Sender::is_closed);
            if given_up {
                change.answer = None;
            } else if change.limit(self.sent) <= now {
                let waited = change.begun.elapsed();
                let error = if self.sent {
                    BackplaneError::Timeout { waited }
                } else {
                    let reason = reason.to_owned();
                    BackplaneError::Unavailable { waited, reason }
                };
                change.answer.take().map(|answer| answer.send(Err(error)));
            }
        }
        let sent = self.sent;
        if !sent {
            self.changes.retain(|change| change.answer.is_some());
        }
        let waiting = self.changes.iter().filter(|change| change.answer.is_some());
        waiting.map(|change| change.limit(sent)).min()
    }

    /// Fails the callers of a batch that the server of a new epoch does not know. Where a former master may have
    /// carried it out, its messages may have reached clients: they are not sent again, because clients would receive
    /// them twice.
    fn give_up_unsure(&mut self) {
        if !self.sent {
            return;
        }
        for change in self
            .changes
            .extract_if(.., |change| change.operation.topic().is_some())
        {
            let waited = change.begun.elapsed();
            change.tell(Err(BackplaneError::Timeout { waited }));
        }
    }

    fn fail_all(&mut self, error: &BackplaneError) {
        for change in self.changes.drain(..) {
            change.tell(Err(error.clone()));
        }
    }
}
