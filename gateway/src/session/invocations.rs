//! The invocations of one connection that are running.

use std::collections::HashMap;
use std::future::pending;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Session;
use crate::hub::{Dispatched, InvocationOutcome, ValueStream, dispatch, guarded, stream_error};
use crate::protocol::{HubMessage, HubProtocol, Invocation, Outcome, Value};

/// Methods that run for one connection. Plain ones take a slot each; while none is free, the connection is not read.
/// Streams run beside them.
pub(super) struct Invocations {
    running: FuturesUnordered<BoxFuture<'static, Ended>>,
    plain: usize,
    slots: usize,
    streams: HashMap<String, CancellationToken>,
}

/// One that ended.
pub(super) enum Ended {
    Plain {
        invocation_id: Option<String>,
        outcome: InvocationOutcome,
    },
    Stream {
        invocation_id: String,
        outcome: Outcome,
    },
}

impl Invocations {
    pub(super) fn new(slots: usize) -> Self {
        Self {
            running: FuturesUnordered::new(),
            plain: 0,
            slots,
            streams: HashMap::new(),
        }
    }

    pub(super) fn has_free_slot(&self) -> bool {
        self.plain < self.slots
    }

    pub(super) fn is_empty(&self) -> bool {
        self.running.is_empty()
    }

    /// The next one that ends; never when none runs. Cancel-safe.
    pub(super) async fn next(&mut self) -> Ended {
        match self.running.next().await {
            Some(ended) => ended,
            None => pending().await,
        }
    }

    /// Starts a plain method.
    pub(super) fn begin(&mut self, session: &Arc<Session>, invocation: Invocation, protocol: HubProtocol) {
        let mut invocation = invocation;
        let invocation_id = invocation.invocation_id.take();
        let headers = std::mem::take(&mut invocation.headers);
        let context = session
            .context()
            .with_invocation(headers, session.closing().clone());
        match dispatch(session.hub(), context, invocation, protocol.encoding(), false) {
            Dispatched::Plain(running) => {
                self.plain += 1;
                self.running.push(
                    running
                        .map(|outcome| Ended::Plain {
                            invocation_id,
                            outcome,
                        })
                        .boxed(),
                );
            }
            Dispatched::Refused(text) => complete(session, invocation_id, Outcome::Error(text)),
            Dispatched::Stream(_) => {}
        }
    }

    /// Starts a streaming method.
    pub(super) fn begin_stream(
        &mut self,
        session: &Arc<Session>,
        invocation: Invocation,
        protocol: HubProtocol,
    ) {
        let mut invocation = invocation;
        let Some(invocation_id) = invocation.invocation_id.take() else {
            return;
        };
        if self.streams.contains_key(&invocation_id) {
            let text = format!("Invocation ID '{invocation_id}' is already in use.");
            return complete(session, Some(invocation_id), Outcome::Error(text));
        }
        let cancelled = session.closing().child_token();
        let headers = std::mem::take(&mut invocation.headers);
        let name = invocation.target.clone();
        let context = session.context().with_invocation(headers, cancelled.clone());
        match dispatch(session.hub(), context, invocation, protocol.encoding(), true) {
            Dispatched::Stream(starting) => {
                self.streams.insert(invocation_id.clone(), cancelled.clone());
                let session = Arc::clone(session);
                let running = async move {
                    let outcome = stream_out(&session, &invocation_id, &name, starting, &cancelled).await;
                    Ended::Stream {
                        invocation_id,
                        outcome,
                    }
                };
                self.running.push(running.boxed());
            }
            Dispatched::Refused(text) => complete(session, Some(invocation_id), Outcome::Error(text)),
            Dispatched::Plain(_) => {}
        }
    }

    /// Ends a stream; an unknown id is ignored.
    pub(super) fn cancel(&self, invocation_id: &str) {
        if let Some(stream) = self.streams.get(invocation_id) {
            stream.cancel();
        }
    }

    /// Frees what an ended one held, and tells the client.
    pub(super) fn settle(&mut self, session: &Session, ended: Ended) {
        match ended {
            Ended::Plain {
                invocation_id,
                outcome,
            } => {
                self.plain -= 1;
                complete(
                    session,
                    invocation_id,
                    outcome.map_or_else(Outcome::Error, Outcome::Result),
                );
            }
            Ended::Stream {
                invocation_id,
                outcome,
            } => {
                self.streams.remove(&invocation_id);
                complete(session, Some(invocation_id), outcome);
            }
        }
    }

    /// Lets methods that still run come to their end without a client: they may be in the middle of something. Streams
    /// are over, because the connection's cancellation is theirs.
    pub(super) fn finish_elsewhere(self, tasks: &TaskTracker) {
        if !self.running.is_empty() {
            tasks.spawn(self.running.for_each(|_| std::future::ready(())));
        }
    }
}

/// Without an invocation id nobody is told anything, not even errors.
fn complete(session: &Session, invocation_id: Option<String>, outcome: Outcome) {
    if let Some(invocation_id) = invocation_id {
        session.push(&HubMessage::Completion {
            headers: Vec::new(),
            invocation_id,
            outcome,
        });
    }
}

/// Sends the items as fast as the client reads them.
async fn stream_out(
    session: &Arc<Session>,
    invocation_id: &str,
    name: &str,
    starting: BoxFuture<'static, Result<ValueStream, String>>,
    cancelled: &CancellationToken,
) -> Outcome {
    let mut items = tokio::select! {
        biased;
        () = cancelled.cancelled() => return Outcome::Void,
        started = starting => match started {
            Ok(items) => items,
            Err(text) => return Outcome::Error(text),
        },
    };
    loop {
        let item: Value = tokio::select! {
            biased;
            () = cancelled.cancelled() => return Outcome::Void,
            item = guarded(items.next().map(Option::transpose)) => match item {
                Ok(Some(item)) => item,
                Ok(None) => return Outcome::Void,
                Err(error) => return Outcome::Error(stream_error(session.hub(), name, &error)),
            },
        };
        let message = HubMessage::StreamItem {
            headers: Vec::new(),
            invocation_id: invocation_id.to_owned(),
            item,
        };
        if !session.push_waiting(&message).await {
            return Outcome::Void;
        }
    }
}
