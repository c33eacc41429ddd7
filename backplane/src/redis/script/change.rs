//! One change of a hub, while it waits for its batch or is on its way.

use redis::Value;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::error::BackplaneError;
use crate::redis::script::invocation::Invocation;

/// A change that waits or is on its way.
pub(in crate::redis) struct Change {
    pub(in crate::redis) operation: Invocation,
    pub(in crate::redis) begun: Instant,
    /// The time by which the server must have carried the change out.
    pub(in crate::redis) deadline: Instant,
    /// The time until which the change waits for a connection.
    pub(in crate::redis) unreachable: Instant,
    pub(in crate::redis) answer: Option<oneshot::Sender<Result<Value, BackplaneError>>>,
}

impl Change {
    /// A change without a waiting caller.
    pub(in crate::redis) fn own(operation: Invocation, deadline: Instant) -> Self {
        Self {
            operation,
            begun: Instant::now(),
            deadline,
            unreachable: deadline,
            answer: None,
        }
    }

    /// The time until which the change waits: for a connection, or once it was sent for an answer.
    pub(in crate::redis) fn limit(&self, sent: bool) -> Instant {
        if sent { self.deadline } else { self.unreachable }
    }

    pub(in crate::redis) fn tell(mut self, outcome: Result<Value, BackplaneError>) {
        // The caller may have stopped waiting.
        let _ = self.answer.take().map(|answer| answer.send(outcome));
    }
}
