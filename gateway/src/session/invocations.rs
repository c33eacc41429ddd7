//! The invocations of one connection that are running.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicIsize, Ordering};

use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Session;
use super::uploads::Uploads;
use crate::hub::{Dispatched, InvocationOutcome, RawUpload, ValueStream, dispatch, guarded, stream_error};
use crate::protocol::{HubMessage, HubProtocol, Invocation, Outcome, Value};

/// Methods that run for one connection. Plain ones take a slot each; while none is free, the connection is not read.
/// Streams, and methods that take uploads, run beside them: what they wait for comes from the connection.
pub(super) struct Invocations {
    running: FuturesUnordered<BoxFuture<'static, Ended>>,
    slots: Arc<Slots>,
    streams: HashMap<String, CancellationToken>,
    pub(super) uploads: Uploads,
}

/// The slots of a connection's plain methods.
#[derive(Debug)]
pub(crate) struct Slots {
    /// Below zero after a method came back from a wait and found its slot taken.
    free: AtomicIsize,
    changed: Notify,
}

impl Slots {
    /// Frees the caller's slot while it waits for its client: the client's answer must be read.
    pub(crate) fn lend(self: &Arc<Self>) -> Lent {
        self.give_back();
        Lent(Arc::clone(self))
    }

    fn give_back(&self) {
        self.free.fetch_add(1, Ordering::AcqRel);
        self.changed.notify_one();
    }

    /// Taken without asking: who comes back from a wait goes on at once, even if that makes one too many.
    fn take(&self) {
        self.free.fetch_sub(1, Ordering::AcqRel);
    }
}

/// A slot that others may use until this is dropped.
#[derive(Debug)]
pub(crate) struct Lent(Arc<Slots>);

impl Drop for Lent {
    fn drop(&mut self) {
        self.0.take();
    }
}

/// One that ended.
pub(super) struct Ended {
    invocation_id: Option<String>,
    outcome: Outcome,
    slot: bool,
    stream: bool,
    uploads: Vec<String>,
}

impl Invocations {
    pub(super) fn new(slots: usize, stream_buffer: usize) -> Self {
        Self {
            running: FuturesUnordered::new(),
            slots: Arc::new(Slots {
                free: AtomicIsize::new(isize::try_from(slots).unwrap_or(isize::MAX)),
                changed: Notify::new(),
            }),
            streams: HashMap::new(),
            uploads: Uploads::new(stream_buffer),
        }
    }

    /// Whether the client's next message can be taken.
    pub(super) fn may_read(&self) -> bool {
        self.slots.free.load(Ordering::Acquire) > 0 && !self.uploads.is_blocked()
    }

    /// The next one that ends, or `None` when the connection may be read again. Cancel-safe.
    pub(super) async fn next(&mut self) -> Option<Ended> {
        tokio::select! {
            biased;
            Some(ended) = self.running.next(), if !self.running.is_empty() => Some(ended),
            () = self.uploads.unblock() => None,
            () = self.slots.changed.notified() => None,
        }
    }

    /// Starts a plain method.
    pub(super) fn begin(
        &mut self,
        session: &Arc<Session>,
        mut invocation: Invocation,
        protocol: HubProtocol,
    ) {
        let invocation_id = invocation.invocation_id.take();
        let uploads = std::mem::take(&mut invocation.stream_ids);
        let receivers = match self.open(session, &uploads, 0) {
            Ok(receivers) => receivers,
            Err(text) => return complete(session, invocation_id, Outcome::Error(text)),
        };
        let slot = uploads.is_empty();
        let headers = std::mem::take(&mut invocation.headers);
        let lent = slot.then(|| Arc::clone(&self.slots));
        let context = session
            .context()
            .with_invocation(headers, session.closing().clone(), lent);
        match dispatch(
            session.hub(),
            context,
            invocation,
            receivers,
            protocol.encoding(),
            false,
        ) {
            Dispatched::Plain(running) => {
                if slot {
                    self.slots.take();
                }
                let ended = move |outcome: InvocationOutcome| {
                    let outcome = outcome.map_or_else(Outcome::Error, Outcome::Result);
                    Ended {
                        invocation_id,
                        outcome,
                        slot,
                        stream: false,
                        uploads,
                    }
                };
                self.running.push(running.map(ended).boxed());
            }
            Dispatched::Refused(text) => {
                self.uploads.close(&uploads);
                complete(session, invocation_id, Outcome::Error(text));
            }
            Dispatched::Stream(_) => {} // not what was asked for
        }
    }

    /// Starts a streaming method.
    pub(super) fn begin_stream(
        &mut self,
        session: &Arc<Session>,
        mut invocation: Invocation,
        protocol: HubProtocol,
    ) {
        let Some(invocation_id) = invocation.invocation_id.take() else {
            return;
        };
        if self.streams.contains_key(&invocation_id) {
            let text = format!("Invocation ID '{invocation_id}' is already in use.");
            return complete(session, Some(invocation_id), Outcome::Error(text));
        }
        let uploads = std::mem::take(&mut invocation.stream_ids);
        let receivers = match self.open(session, &uploads, 1) {
            Ok(receivers) => receivers,
            Err(text) => return complete(session, Some(invocation_id), Outcome::Error(text)),
        };
        let cancelled = session.closing().child_token();
        let headers = std::mem::take(&mut invocation.headers);
        let name = invocation.target.clone();
        let context = session
            .context()
            .with_invocation(headers, cancelled.clone(), None);
        match dispatch(
            session.hub(),
            context,
            invocation,
            receivers,
            protocol.encoding(),
            true,
        ) {
            Dispatched::Stream(starting) => {
                self.streams.insert(invocation_id.clone(), cancelled.clone());
                let session = Arc::clone(session);
                let running = async move {
                    let outcome = stream_out(&session, &invocation_id, &name, starting, &cancelled).await;
                    Ended {
                        invocation_id: Some(invocation_id),
                        outcome,
                        slot: false,
                        stream: true,
                        uploads,
                    }
                };
                self.running.push(running.boxed());
            }
            Dispatched::Refused(text) => {
                self.uploads.close(&uploads);
                complete(session, Some(invocation_id), Outcome::Error(text));
            }
            Dispatched::Plain(_) => {} // not what was asked for
        }
    }

    /// Opens the uploads of an invocation that also streams `down` results.
    fn open(&mut self, session: &Session, uploads: &[String], down: usize) -> Result<Vec<RawUpload>, String> {
        let limit = session.hub().options().limits.streams_per_connection;
        let streams = uploads.len().saturating_add(down);
        if streams > 0
            && self
                .streams
                .len()
                .saturating_add(self.uploads.len())
                .saturating_add(streams)
                > limit
        {
            return Err(format!(
                "The connection may have {limit} streams open (limits.streams_per_connection)."
            ));
        }
        self.uploads
            .open(uploads)
            .ok_or_else(|| "A stream ID is already in use.".to_owned())
    }

    /// Ends a stream; an unknown id is ignored.
    pub(super) fn cancel(&self, invocation_id: &str) {
        if let Some(stream) = self.streams.get(invocation_id) {
            stream.cancel();
        }
    }

    /// Frees what an ended one held, and tells the client.
    pub(super) fn settle(&mut self, session: &Session, ended: Ended) {
        if ended.slot {
            self.slots.give_back();
        }
        self.uploads.close(&ended.uploads);
        if let (true, Some(id)) = (ended.stream, &ended.invocation_id) {
            self.streams.remove(id);
        }
        complete(session, ended.invocation_id, ended.outcome);
    }

    /// Lets methods that still run come to their end without a client: they may be in the middle of something. Streams
    /// are over, because the connection's cancellation is theirs, and so are uploads.
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
