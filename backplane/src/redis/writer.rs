//! The one way for changes of a hub to the server: in order, and each exactly once.
//!
//! Changes that wait share a batch; one batch is on its way at a time. It has a number, and the server keeps the number and the
//! answers of a node's last batch (`batch.lua`). So a batch whose answer was lost is sent again without harm, over whatever
//! connection. Each change has a deadline that the server looks at: one whose caller was told that it failed is not carried
//! out later.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use redis::Value;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::{Instant, timeout_at};
use tracing::{debug, warn};

use super::clock::Clock;
use super::commands::{Commands, Failed, Sent};
use super::keys::HubKeys;
use super::link::{decode, items, malformed};
use super::script::{Invocation, KeptBytes};
use super::split::{Acknowledged, Split};
use crate::error::BackplaneError;
use crate::topic::{NodeId, Topic};

/// Changes that wait for the batch before theirs, before callers wait for room.
const WAITING: usize = 4_096;
/// Most changes of one batch, or what costs as much as they do: no call holds the server for long.
const MOST: usize = 64;
/// Most bytes of one batch, unless one change is larger.
const MOST_BYTES: usize = 256 * 1_024;
/// How much longer than its deadline a caller waits for the news that its change was, or was not, carried out in time.
const GRACE: Duration = Duration::from_millis(500);

/// How long a change waits for a server that can't be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Patience {
    /// As long as any command: somebody waits for the outcome and can try again.
    Short,
    /// For the time of an ordinary outage: nobody could be told, or order would be lost.
    Long,
}

/// Hands changes of one hub to the task that sends them.
#[derive(Clone)]
pub(super) struct Writer {
    queue: mpsc::Sender<Change>,
    bounds: Bounds,
    kept: Arc<ArcSwap<KeptBytes>>,
    split: Arc<Split>,
}

/// How long changes wait.
#[derive(Clone, Copy)]
pub(super) struct Bounds {
    /// For an answer.
    pub(super) command: Duration,
    /// For a lost connection to come back, within `command`.
    pub(super) reconnect: Duration,
    /// Of a change with [`Patience::Long`], for both.
    pub(super) outage: Duration,
}

/// A change on its way.
struct Change {
    operation: Invocation,
    begun: Instant,
    /// When it must have been carried out.
    deadline: Instant,
    /// How long it waits for a connection.
    unreachable: Instant,
    answer: Option<oneshot::Sender<Result<Value, BackplaneError>>>,
}

/// The changes of one call.
struct Batch {
    number: u64,
    changes: Vec<Change>,
    /// It may have reached a server.
    sent: bool,
}

/// Sends the changes of one hub.
struct Sender {
    commands: Arc<Commands>,
    clock: Arc<Clock>,
    node: NodeId,
    /// The key of the hub's log.
    log: String,
    /// The key of what the server keeps of the last batch.
    record: String,
    number: u64,
    kept: Arc<ArcSwap<KeptBytes>>,
    split: Arc<Split>,
    acknowledged: Acknowledged,
    queue: mpsc::Receiver<Change>,
    /// Taken from the queue, and too much for the last batch.
    held: Option<Change>,
}

impl Writer {
    /// Begins to send changes of the hub with this log, until closing or until the last handle is gone.
    pub(super) fn open(commands: &Arc<Commands>, node: NodeId, hub: &HubKeys) -> Self {
        let (sender, queue) = mpsc::channel(WAITING);
        let kept: Arc<ArcSwap<KeptBytes>> = Arc::default();
        let split: Arc<Split> = Arc::default();
        let task = Sender {
            commands: Arc::clone(commands),
            clock: commands.clock(),
            record: hub.batch(&node),
            node,
            log: hub.log(),
            number: 0,
            kept: Arc::clone(&kept),
            split: Arc::clone(&split),
            acknowledged: Acknowledged::default(),
            queue,
            held: None,
        };
        commands.tasks().spawn(task.run());
        Self {
            queue: sender,
            bounds: commands.bounds(),
            kept,
            split,
        }
    }

    /// Tells when [`take_split`](Self::take_split) has something.
    pub(super) fn splits(&self) -> Arc<Notify> {
        Arc::clone(&self.split.news)
    }

    /// The topics of messages that a former master has acknowledged after the present epoch began.
    pub(super) fn take_split(&self) -> Vec<Topic> {
        std::mem::take(&mut *self.split.topics.lock())
    }

    /// Bounds the bytes of the log from now on.
    pub(super) fn keep(&self, kept: KeptBytes) {
        self.kept.store(Arc::new(kept));
    }

    /// Carries one change out, after those that were handed in before.
    ///
    /// # Errors
    /// [`BackplaneError::Unavailable`]: it was not carried out, and will not be. [`BackplaneError::Timeout`]: it is not known
    /// whether it was, and it will not be later.
    pub(super) async fn carry_out(
        &self,
        operation: Invocation,
        patience: Patience,
    ) -> Result<Value, BackplaneError> {
        let (change, answer) = self.change(operation, patience);
        self.hand_in(change).await?;
        self.wait(answer, patience).await
    }

    /// Carries several changes out, in order.
    pub(super) async fn carry_out_all(
        &self,
        operations: Vec<Invocation>,
        patience: Patience,
    ) -> Result<Vec<Value>, BackplaneError> {
        let mut waits = Vec::with_capacity(operations.len());
        for operation in operations {
            let (change, answer) = self.change(operation, patience);
            self.hand_in(change).await?;
            waits.push(answer);
        }
        let mut answers = Vec::with_capacity(waits.len());
        for wait in waits {
            answers.push(self.wait(wait, patience).await?);
        }
        Ok(answers)
    }

    fn bound(&self, patience: Patience) -> Duration {
        match patience {
            Patience::Short => self.bounds.command,
            Patience::Long => self.bounds.outage,
        }
    }

    fn change(
        &self,
        operation: Invocation,
        patience: Patience,
    ) -> (Change, oneshot::Receiver<Result<Value, BackplaneError>>) {
        let (answer, wait) = oneshot::channel();
        let begun = Instant::now();
        let deadline = begun + self.bound(patience);
        let change = Change {
            operation,
            begun,
            deadline,
            unreachable: match patience {
                Patience::Short => begun + self.bounds.reconnect,
                Patience::Long => deadline,
            },
            answer: Some(answer),
        };
        (change, wait)
    }

    async fn hand_in(&self, change: Change) -> Result<(), BackplaneError> {
        let (begun, unreachable) = (change.begun, change.unreachable);
        match timeout_at(unreachable, self.queue.send(change)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(BackplaneError::Closed),
            Err(_) => Err(BackplaneError::Unavailable {
                waited: begun.elapsed(),
                reason: "too many changes wait for the server".to_owned(),
            }),
        }
    }

    async fn wait(
        &self,
        answer: oneshot::Receiver<Result<Value, BackplaneError>>,
        patience: Patience,
    ) -> Result<Value, BackplaneError> {
        let waited = self.bound(patience) + GRACE;
        match tokio::time::timeout(waited, answer).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => Err(BackplaneError::Closed),
            Err(_) => Err(BackplaneError::Timeout { waited }),
        }
    }
}

impl Sender {
    async fn run(mut self) {
        let closing = self.commands.closing();
        loop {
            let changes = tokio::select! {
                biased;
                () = closing.cancelled() => return,
                changes = self.next() => changes,
            };
            if changes.is_empty() {
                return; // nobody is left who could hand changes in
            }
            self.number += 1;
            let batch = Batch {
                number: self.number,
                changes,
                sent: false,
            };
            tokio::select! {
                () = closing.cancelled() => return,
                () = self.send(batch) => {}
            }
        }
    }

    /// The changes that wait, as many as one batch takes; none when there will be no more.
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

    /// Sends a batch until it is answered, or until nobody waits for it any more.
    async fn send(&mut self, mut batch: Batch) {
        let mut reason = String::new();
        loop {
            let Some(until) = batch.retire(Instant::now(), &reason) else {
                return;
            };
            let begun = Mutex::new(Instant::now());
            let command = |scripts: &_| {
                let now = Instant::now();
                *begun.lock() = now; // it may wait for a connection first, and be sent twice
                let operations = batch.changes.iter().map(|change| {
                    let left = change.deadline.saturating_duration_since(now);
                    (&change.operation, self.clock.deadline(left))
                });
                let kept = **self.kept.load();
                Invocation::batch(
                    scripts,
                    (&self.log, &self.record),
                    &self.node,
                    batch.number,
                    kept,
                    operations,
                )
            };
            match self.commands.try_batch(&self.log, command, until).await {
                Ok(answer) => {
                    let begun = *begun.lock();
                    if let Err(error) = self.settle(&mut batch, answer, begun) {
                        return batch.fail_all(&error);
                    }
                    if batch.changes.is_empty() {
                        return;
                    }
                    self.number += 1;
                    batch.number = self.number;
                    batch.sent = false;
                }
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

    /// Hands the answers out. What the server took for late, and is not, stays in the batch: its clock has moved.
    fn settle(&mut self, batch: &mut Batch, answer: Value, begun: Instant) -> Result<(), BackplaneError> {
        let mut answer = items(answer)?.into_iter();
        let now: u64 = decode(answer.next().unwrap_or(Value::Nil))?;
        let received = Instant::now();
        self.clock.observe(begun, received, now);
        let epoch: String = decode(answer.next().unwrap_or(Value::Nil))?;
        let age: i64 = decode(answer.next().unwrap_or(Value::Nil))?;
        let age = Duration::from_millis(u64::try_from(age).unwrap_or(0));
        let longest_age = age + received.saturating_duration_since(begun);
        self.split.tell(self.acknowledged.enter(&epoch, longest_age));
        let mut late = Vec::new();
        for change in batch.changes.drain(..) {
            let outcome = answer
                .next()
                .ok_or_else(|| malformed("a batch of another length"))?;
            let mut parts = items(outcome)?.into_iter();
            let kind: u8 = decode(parts.next().unwrap_or(Value::Nil))?;
            let value = parts.next().unwrap_or(Value::Nil);
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

/// Outcomes of `batch.lua`.
const DONE: u8 = 0;
const FAILED: u8 = 1;
const EXPIRED: u8 = 2;
const FULL: u8 = 3;

fn outcome_of(kind: u8, value: Value, waited: Duration) -> Result<Value, BackplaneError> {
    match kind {
        DONE => Ok(value),
        FAILED => {
            let reason: String = decode(value)?;
            warn!(%reason, "the server failed to carry out a change");
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
    /// Tells callers whose time is up, and leaves their changes out where that is still possible. Returns when the next one's
    /// is, or nothing when nobody waits any more.
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

    fn fail_all(&mut self, error: &BackplaneError) {
        for change in self.changes.drain(..) {
            change.tell(Err(error.clone()));
        }
    }
}

impl Change {
    /// Until when it waits: for a connection, or for an answer.
    fn limit(&self, sent: bool) -> Instant {
        if sent { self.deadline } else { self.unreachable }
    }

    fn tell(mut self, outcome: Result<Value, BackplaneError>) {
        // The caller may have stopped waiting.
        let _ = self.answer.take().map(|answer| answer.send(outcome));
    }
}
