//! The invocations of one connection that are running.

use std::collections::{HashMap, HashSet};
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures_util::FutureExt;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::completions::Answering;
use super::running::Running;
use super::slots::Slots;
use super::stream_out::stream_out;
use super::uploads::{StreamIdInUse, Uploads};
use super::{CloseReason, Session};
use crate::hub::{Dispatched, MethodFailure, RawUpload, UploadEvent, dispatch};
use crate::protocol::{Encoding, HubMessage, Invocation, Outcome, Request};

/// Methods that run for one connection. Plain ones take a slot each; while none is free, the connection is not read.
/// Streams, and methods that take uploads, run beside them: their input comes from the connection.
#[derive(Default)]
pub(super) struct Invocations {
    /// `None` while nothing runs.
    live: Option<Box<Live>>,
}

/// The invocations of a connection of which some run.
struct Live {
    running: Running<Ended>,
    slots: Arc<Slots>,
    /// A request of the client is being done: nothing after it is read, so that requests are done in their order.
    requesting: bool,
    /// The calls of `running` that have an invocation id, by it.
    named: HashMap<String, Cancellable>,
    /// Names by which calls of `running` were recorded, in a stateful session.
    calls: HashSet<String>,
    uploads: Uploads,
}

/// The reason why an invocation can't begin. The client is given the text.
#[derive(Debug, thiserror::Error)]
enum BeginError {
    #[error("Invocation ID '{0}' is already in use.")]
    IdInUse(String),
    #[error(transparent)]
    StreamIdInUse(#[from] StreamIdInUse),
    #[error("The connection may have {limit} streams open (limits.streams_per_connection).")]
    TooManyStreams { limit: usize },
}

/// A running invocation that the client can cancel.
struct Cancellable {
    cancelled: CancellationToken,
    stream: bool,
}

/// An invocation that has ended.
#[derive(Default)]
struct Ended {
    invocation_id: Option<String>,
    /// The name by which it was recorded.
    call: Option<String>,
    blocks: Blocks,
    uploads: Vec<String>,
}

/// The part of its client's messages that an invocation keeps from being read.
#[derive(Default, Clone, Copy, PartialEq, Eq)]
enum Blocks {
    /// None of them.
    #[default]
    Nothing,
    /// A slot was taken.
    Slot,
    /// All of them.
    Reading,
}

impl Invocations {
    fn live(&mut self, session: &Session) -> &mut Live {
        self.live.get_or_insert_with(|| {
            let hubs = &session.hub.options().hubs;
            Box::new(Live::new(hubs.parallel_invocations, hubs.stream_buffer))
        })
    }

    /// Returns whether the client's next message can be taken.
    pub(super) fn may_read(&self) -> bool {
        self.live.as_ref().is_none_or(|live| live.may_read())
    }

    /// Returns whether a plain method or a request runs.
    pub(super) fn has_calls(&self) -> bool {
        self.live.as_ref().is_some_and(|live| live.has_calls())
    }

    /// Ends when one has ended, whose slot and uploads are free again, or when the connection may be read again.
    /// Cancel-safe.
    pub(super) fn next(&mut self) -> impl Future<Output = ()> {
        poll_fn(|cx| {
            let Some(live) = &mut self.live else {
                return Poll::Pending;
            };
            if let Some(ended) = ready!(live.poll_next(cx)) {
                live.settle(ended);
                if live.is_idle() {
                    self.live = None; // an idle connection keeps nothing of its calls
                }
            }
            Poll::Ready(())
        })
    }

    /// Starts a plain method.
    pub(super) fn begin(
        &mut self,
        session: &Arc<Session>,
        invocation: Invocation,
        call: Option<String>,
        encoding: Encoding,
    ) {
        self.live(session)
            .start(session, invocation, call, encoding, false);
    }

    /// Starts a streaming method. Without an invocation id there would be no call to stream to.
    pub(super) fn begin_stream(
        &mut self,
        session: &Arc<Session>,
        invocation: Invocation,
        call: Option<String>,
        encoding: Encoding,
    ) {
        if invocation.invocation_id.is_some() {
            self.live(session)
                .start(session, invocation, call, encoding, true);
        }
    }

    /// Starts a request that the gateway itself serves for the client. Until it is done, nothing more is read.
    pub(super) fn begin_request(&mut self, session: &Arc<Session>, request: Request) {
        let carrying_out = Arc::clone(session);
        self.begin_alone(session, async move { carrying_out.carry_out(request).await });
    }

    /// Does something for the client. Until it is done, nothing more is read.
    pub(super) fn begin_alone(
        &mut self,
        session: &Session,
        running: impl Future<Output = ()> + Send + 'static,
    ) {
        self.live(session).begin_alone(running);
    }

    /// Returns whether a request runs, or something else before whose end nothing is read.
    pub(super) fn is_requesting(&self) -> bool {
        self.live.as_ref().is_some_and(|live| live.requesting)
    }

    /// Notifies the client that a call was lost, if the backplane knows of it.
    pub(super) fn interrupt(&mut self, session: &Arc<Session>, call: String) {
        self.live(session).interrupt(session, call);
    }

    /// Takes a client's message to a call that runs: a cancellation, an item or the end of an upload, or a client
    /// result that the server requested. Uploads and results share one space of ids; an unknown one is ignored.
    pub(super) fn hear(&mut self, session: &Session, message: HubMessage) {
        match (&mut self.live, message) {
            (Some(live), message) => live.hear(session, message),
            (
                None,
                HubMessage::Completion {
                    invocation_id,
                    outcome,
                    ..
                },
            ) => session.answered(&invocation_id, outcome),
            (None, _) => {}
        }
    }

    /// Returns whether something runs.
    pub(super) fn any_runs(&self) -> bool {
        self.live.as_ref().is_some_and(|live| !live.running.is_empty())
    }

    /// Breaks off the running calls. Returns the names of the calls whose clients have to be notified.
    pub(super) fn break_off(self) -> HashSet<String> {
        self.live.map(|live| live.calls).unwrap_or_default()
    }

    /// Returns whether an item of an upload can be taken.
    pub(super) fn may_take(&self) -> bool {
        self.live.as_ref().is_none_or(|live| !live.uploads.is_blocked())
    }

    /// Returns whether a message of the client is for one of these, or for no call in particular.
    pub(super) fn know(&self, session: &Session, message: &HubMessage) -> bool {
        let live = self.live.as_ref();
        let has_upload = |id: &String| live.is_some_and(|live| live.uploads.holds(id));
        match message {
            HubMessage::CancelInvocation { invocation_id, .. } => {
                live.is_some_and(|live| live.named.contains_key(invocation_id))
            }
            HubMessage::StreamItem { invocation_id, .. } => has_upload(invocation_id),
            HubMessage::Completion { invocation_id, .. } => {
                has_upload(invocation_id) || session.client_results.hold(invocation_id)
            }
            _ => true,
        }
    }

    /// Lets methods that still run come to their end without a client: they may be in the middle of something. Streams
    /// are over, because the connection's cancellation is theirs, and so are uploads.
    pub(super) fn finish_elsewhere(self, tasks: &TaskTracker) {
        if let Some(live) = self.live
            && !live.running.is_empty()
        {
            tasks.spawn(live.running.finish());
        }
    }
}

impl Live {
    /// `slots`: how many plain methods may run at once. `stream_buffer`: how many items of an upload wait for its method.
    fn new(slots: usize, stream_buffer: usize) -> Self {
        Self {
            running: Running::default(),
            slots: Arc::new(Slots::new(slots)),
            requesting: false,
            named: HashMap::new(),
            calls: HashSet::new(),
            uploads: Uploads::new(stream_buffer),
        }
    }

    fn may_read(&self) -> bool {
        self.slots.has_free() && !self.requesting && !self.uploads.is_blocked()
    }

    fn has_calls(&self) -> bool {
        self.requesting || self.slots.are_used()
    }

    /// Returns whether no call runs, and none that has run still uses a slot.
    fn is_idle(&self) -> bool {
        self.running.is_empty()
            && self.uploads.len() == 0
            && !self.uploads.is_blocked()
            && !self.requesting
            && Arc::strong_count(&self.slots) == 1
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Ended>> {
        if let Poll::Ready(ended) = self.running.poll_next(cx) {
            return Poll::Ready(Some(ended));
        }
        if self.uploads.poll_unblock(cx).is_ready() || self.slots.poll_changed(cx).is_ready() {
            return Poll::Ready(None);
        }
        Poll::Pending
    }

    fn start(
        &mut self,
        session: &Arc<Session>,
        mut invocation: Invocation,
        call: Option<String>,
        encoding: Encoding,
        streaming: bool,
    ) {
        let invocation_id = invocation.invocation_id.clone();
        let answering = Answering {
            invocation_id: invocation_id.clone(),
            call,
        };
        let uploads = std::mem::take(&mut invocation.stream_ids);
        let receivers = match self.open(session, invocation_id.as_deref(), &uploads, streaming) {
            Ok(receivers) => receivers,
            Err(refused) => return self.refuse(session, answering, refused.to_string()),
        };
        let slot = !streaming && uploads.is_empty();
        let cancelled = match invocation_id {
            Some(_) => session.gone().child_token(),
            None => session.gone().clone(),
        };
        let context = session.context().with_invocation(
            std::mem::take(&mut invocation.headers),
            cancelled.clone(),
            slot.then(|| Arc::clone(&self.slots)),
        );
        let name = invocation.target.clone();
        let outcome = match dispatch(session.hub(), context, invocation, receivers, encoding, streaming) {
            Dispatched::Plain(running) => {
                let session = Arc::clone(session);
                let reported = invocation_id.is_some();
                running
                    .map(move |outcome| {
                        outcome.map_or_else(|failed| session.failed(failed, reported), Outcome::Result)
                    })
                    .boxed()
            }
            Dispatched::Stream(starting) => stream_out(
                Arc::clone(session),
                answering.clone(),
                name,
                starting,
                cancelled.clone(),
            )
            .boxed(),
            Dispatched::Refused(text) => {
                self.uploads.close(&uploads);
                return self.refuse(session, answering, text);
            }
        };
        if let Some(id) = &invocation_id {
            let stream = streaming;
            self.named.insert(id.clone(), Cancellable { cancelled, stream });
        }
        if slot {
            self.slots.take();
        }
        self.calls.extend(answering.call.clone());
        let session = Arc::clone(session);
        let running = async move {
            let outcome = outcome.await;
            let call = answering.call.clone();
            session.complete(answering, outcome).await;
            Ended {
                invocation_id,
                call,
                blocks: if slot { Blocks::Slot } else { Blocks::Nothing },
                uploads,
            }
        };
        self.running.push(running.boxed());
    }

    fn begin_alone(&mut self, running: impl Future<Output = ()> + Send + 'static) {
        self.requesting = true;
        let running = async move {
            running.await;
            Ended {
                blocks: Blocks::Reading,
                ..Ended::default()
            }
        };
        self.running.push(running.boxed());
    }

    fn interrupt(&mut self, session: &Arc<Session>, call: String) {
        let session = Arc::clone(session);
        let reporting = async move {
            let host = session.hub().shared().backplane().node();
            session.interrupt(&call, host).await;
            Ended::default()
        };
        self.running.push(reporting.boxed());
    }

    /// Reports to the client that an invocation can't begin. The id may be that of one that runs.
    fn refuse(&mut self, session: &Arc<Session>, answering: Answering, text: String) {
        let session = Arc::clone(session);
        let reporting = async move {
            session.complete(answering, Outcome::Error(text)).await;
            Ended::default()
        };
        self.running.push(reporting.boxed());
    }

    /// Checks the ids of an invocation, and opens its uploads.
    fn open(
        &mut self,
        session: &Session,
        invocation_id: Option<&str>,
        uploads: &[String],
        streaming: bool,
    ) -> Result<Vec<RawUpload>, BeginError> {
        if let Some(id) = invocation_id
            && self.named.contains_key(id)
        {
            return Err(BeginError::IdInUse(id.to_owned()));
        }
        if streaming || !uploads.is_empty() {
            let limit = session.hub().options().limits.streams_per_connection;
            let streams = self.named.values().filter(|named| named.stream).count();
            let open = streams.saturating_add(self.uploads.len());
            if open
                .saturating_add(uploads.len())
                .saturating_add(usize::from(streaming))
                > limit
            {
                return Err(BeginError::TooManyStreams { limit });
            }
        }
        Ok(self.uploads.open(uploads)?)
    }

    /// Cancels an invocation that its client no longer wants. It ends when its method does, with a completion; a stream
    /// ends at once. An unknown id is ignored.
    fn cancel(&self, invocation_id: &str) {
        if let Some(named) = self.named.get(invocation_id) {
            named.cancelled.cancel();
        }
    }

    fn settle(&mut self, ended: Ended) {
        match ended.blocks {
            Blocks::Nothing => {}
            Blocks::Slot => self.slots.give_back(),
            Blocks::Reading => self.requesting = false,
        }
        self.uploads.close(&ended.uploads);
        if let Some(id) = ended.invocation_id {
            self.named.remove(&id);
        }
        if let Some(call) = ended.call {
            self.calls.remove(&call);
        }
    }

    fn hear(&mut self, session: &Session, message: HubMessage) {
        match message {
            HubMessage::CancelInvocation { invocation_id, .. } => self.cancel(&invocation_id),
            HubMessage::StreamItem {
                invocation_id, item, ..
            } => self.uploads.push(&invocation_id, UploadEvent::Item(item)),
            HubMessage::Completion {
                invocation_id,
                outcome,
                ..
            } if self.uploads.holds(&invocation_id) => {
                let error = match outcome {
                    Outcome::Error(text) => Some(text),
                    Outcome::Void | Outcome::Result(_) => None,
                };
                self.uploads.push(&invocation_id, UploadEvent::End(error));
            }
            HubMessage::Completion {
                invocation_id,
                outcome,
                ..
            } => session.answered(&invocation_id, outcome),
            _ => {} // nothing else is for a call
        }
    }
}

impl Session {
    /// Ends the connection where a call failed because the backplane is away and its client waits for no answer: it would
    /// take its message for delivered.
    fn failed(&self, failed: MethodFailure, reported: bool) -> Outcome {
        if failed.unreachable && !reported {
            self.close(CloseReason::LogLost("a message could not be passed on"));
        }
        Outcome::Error(failed.text)
    }
}

#[cfg(test)]
#[path = "invocations_tests.rs"]
mod tests;
