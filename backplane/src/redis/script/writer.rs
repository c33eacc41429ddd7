//! Sends all changes of a hub to the server: in order, and each exactly once.
//!
//! Changes that wait share a batch; one batch is on its way at a time. It has a number, and the server keeps the number
//! and the answers of a node's last batch (`batch.lua`). So a batch whose answer was lost is sent again without harm,
//! over any connection. Each change has a deadline that the server checks: a change that has failed for its caller is
//! not carried out later.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use redis::Value;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout_at};

use crate::backplane::HubOptions;
use crate::error::BackplaneError;
use crate::redis::keys::HubKeys;
use crate::redis::script::change::Change;
use crate::redis::script::invocation::Invocation;
use crate::redis::script::sender::Sender;
use crate::redis::server::commands::{Bounds, Commands};
use crate::topic::NodeId;

/// Most changes that wait for their batch, before callers wait for room.
const WAITING: usize = 4_096;
/// Time beyond its deadline that a caller waits for the outcome of its change.
const GRACE: Duration = Duration::from_millis(500);

/// The time that a change waits for a server that can't be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::redis) enum Patience {
    /// As long as any command: the caller waits for the outcome and can try again.
    Short,
    /// As long as an ordinary outage: the failure could not be reported, or order would be lost.
    Long,
}

/// A handle that queues changes of one hub for the task that sends them.
#[derive(Clone)]
pub(in crate::redis) struct Writer {
    queue: mpsc::Sender<Change>,
    bounds: Bounds,
    served: Arc<ArcSwapOption<HubOptions>>,
}

impl Writer {
    /// Begins to send changes of the hub with this log, until closing or until the last handle is gone.
    pub(in crate::redis) fn open(commands: &Arc<Commands>, node: NodeId, hub: &HubKeys) -> Self {
        let (sender, queue) = mpsc::channel(WAITING);
        let served: Arc<ArcSwapOption<HubOptions>> = Arc::default();
        let task = Sender::new(commands, node, hub, Arc::clone(&served), queue);
        commands.tasks().spawn(task.run());
        Self {
            queue: sender,
            bounds: commands.bounds(),
            served,
        }
    }

    /// Applies the retention of the hub's options from now on.
    pub(in crate::redis) fn serve(&self, options: &HubOptions) {
        self.served.store(Some(Arc::new(options.clone())));
    }

    /// Carries one change out, after the changes that were queued before.
    ///
    /// # Errors
    /// [`BackplaneError::Unavailable`]: the change was not carried out, and will not be. [`BackplaneError::Timeout`]:
    /// the change may have been carried out, but it will not be carried out later.
    pub(in crate::redis) async fn carry_out(
        &self,
        operation: Invocation,
        patience: Patience,
    ) -> Result<Value, BackplaneError> {
        let (change, answer) = self.change(operation, patience);
        self.hand_in(change).await?;
        self.wait(answer, patience).await
    }

    /// Carries several changes out, in order.
    pub(in crate::redis) async fn carry_out_all(
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
