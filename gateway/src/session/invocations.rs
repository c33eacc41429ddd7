//! The invocations of one connection that are running.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicIsize, Ordering};

use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use tokio::sync::Notify;
use tokio::task::yield_now;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Session;
use super::stateful::{Answering, INTERRUPTED, Sent, invocation_of};
use super::uploads::Uploads;
use crate::hub::{
    Dispatched, InvocationOutcome, RawUpload, UploadEvent, ValueStream, dispatch, guarded, stream_error,
};
use crate::protocol::{Encoding, HubMessage, Invocation, Outcome, Request, Value};

/// A stream that always has an item lets the rest of its session run after so many: its client may want to cancel it.
const YIELD_AFTER: usize = 32;

/// Methods that run for one connection. Plain ones take a slot each; while none is free, the connection is not read.
/// Streams, and methods that take uploads, run beside them: what they wait for comes from the connection.
pub(super) struct Invocations {
    running: FuturesUnordered<BoxFuture<'static, Ended>>,
    slots: Arc<Slots>,
    /// Those of `running` that have an invocation id, by it.
    named: HashMap<String, Named>,
    pub(super) uploads: Uploads,
}

/// A running invocation that the client can cancel.
struct Named {
    cancelled: CancellationToken,
    stream: bool,
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
    slot: bool,
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
            named: HashMap::new(),
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
        invocation: Invocation,
        call: Option<String>,
        encoding: Encoding,
    ) {
        self.start(session, invocation, call, encoding, false);
    }

    /// Starts a streaming method. Without an invocation id there would be nobody to stream to.
    pub(super) fn begin_stream(
        &mut self,
        session: &Arc<Session>,
        invocation: Invocation,
        call: Option<String>,
        encoding: Encoding,
    ) {
        if invocation.invocation_id.is_some() {
            self.start(session, invocation, call, encoding, true);
        }
    }

    fn start(
        &mut self,
        session: &Arc<Session>,
        mut invocation: Invocation,
        call: Option<String>,
        encoding: Encoding,
        streaming: bool,
    ) {
        let invocation_id = invocation.invocation_id.take();
        let answering = Answering {
            invocation_id: invocation_id.clone(),
            call,
        };
        let uploads = std::mem::take(&mut invocation.stream_ids);
        let receivers = match self.open(session, invocation_id.as_deref(), &uploads, streaming) {
            Ok(receivers) => receivers,
            Err(text) => return self.refuse(session, answering, text),
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
            Dispatched::Plain(running) => running
                .map(|outcome: InvocationOutcome| outcome.map_or_else(Outcome::Error, Outcome::Result))
                .boxed(),
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
            self.named.insert(id.clone(), Named { cancelled, stream });
        }
        if slot {
            self.slots.take();
        }
        let session = Arc::clone(session);
        let running = async move {
            let outcome = outcome.await;
            session.complete(answering, outcome).await;
            Ended {
                invocation_id,
                slot,
                uploads,
            }
        };
        self.running.push(running.boxed());
    }

    /// Starts what the gateway itself does for the client. Like a plain method it takes a slot, so that a client's requests
    /// and calls are done in their order.
    pub(super) fn begin_request(&mut self, session: &Arc<Session>, request: Request) {
        self.slots.take();
        let session = Arc::clone(session);
        let running = async move {
            session.carry_out(request).await;
            Ended {
                invocation_id: None,
                slot: true,
                uploads: Vec::new(),
            }
        };
        self.running.push(running.boxed());
    }

    /// Tells the client that a call was lost, if the backplane knows of it.
    pub(super) fn interrupt(&mut self, session: &Arc<Session>, call: String) {
        let answering = Answering {
            invocation_id: invocation_of(&call).map(str::to_owned),
            call: Some(call),
        };
        self.refuse(session, answering, INTERRUPTED.to_owned());
    }

    /// Tells the client that an invocation can't begin. The id may be that of one that runs.
    fn refuse(&mut self, session: &Arc<Session>, answering: Answering, text: String) {
        let session = Arc::clone(session);
        let telling = async move {
            session.complete(answering, Outcome::Error(text)).await;
            Ended {
                invocation_id: None,
                slot: false,
                uploads: Vec::new(),
            }
        };
        self.running.push(telling.boxed());
    }

    /// Checks the ids of an invocation, and opens its uploads.
    fn open(
        &mut self,
        session: &Session,
        invocation_id: Option<&str>,
        uploads: &[String],
        streaming: bool,
    ) -> Result<Vec<RawUpload>, String> {
        if let Some(id) = invocation_id
            && self.named.contains_key(id)
        {
            return Err(format!("Invocation ID '{id}' is already in use."));
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
                return Err(format!(
                    "The connection may have {limit} streams open (limits.streams_per_connection)."
                ));
            }
        }
        self.uploads
            .open(uploads)
            .ok_or_else(|| "A stream ID is already in use.".to_owned())
    }

    /// Tells an invocation that its client no longer wants it. It ends when its method does, with a completion; a stream
    /// ends at once. An unknown id is ignored.
    pub(super) fn cancel(&self, invocation_id: &str) {
        if let Some(named) = self.named.get(invocation_id) {
            named.cancelled.cancel();
        }
    }

    /// Frees what an ended one held.
    pub(super) fn settle(&mut self, ended: Ended) {
        if ended.slot {
            self.slots.give_back();
        }
        self.uploads.close(&ended.uploads);
        if let Some(id) = ended.invocation_id {
            self.named.remove(&id);
        }
    }

    /// Takes what the client says to a call that runs: a cancellation, an item or the end of an upload, or a result that
    /// the server asked for. Uploads and results share one space of ids; an unknown one is ignored.
    pub(super) fn hear(&mut self, session: &Session, message: HubMessage) {
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

    /// Whether something runs.
    pub(super) fn any_runs(&self) -> bool {
        !self.running.is_empty()
    }

    /// Whether an item of an upload can be taken.
    pub(super) fn may_take(&self) -> bool {
        !self.uploads.is_blocked()
    }

    /// Whether a message of the client is for one of these, or for nobody in particular.
    pub(super) fn know(&self, session: &Session, message: &HubMessage) -> bool {
        match message {
            HubMessage::CancelInvocation { invocation_id, .. } => self.named.contains_key(invocation_id),
            HubMessage::StreamItem { invocation_id, .. } => self.uploads.holds(invocation_id),
            HubMessage::Completion { invocation_id, .. } => {
                self.uploads.holds(invocation_id) || session.asks.hold(invocation_id)
            }
            _ => true,
        }
    }

    /// Lets methods that still run come to their end without a client: they may be in the middle of something. Streams
    /// are over, because the connection's cancellation is theirs, and so are uploads.
    pub(super) fn finish_elsewhere(self, tasks: &TaskTracker) {
        if !self.running.is_empty() {
            tasks.spawn(self.running.for_each(|_| std::future::ready(())));
        }
    }
}

/// Sends the items as fast as the client reads them.
async fn stream_out(
    session: Arc<Session>,
    answering: Answering,
    name: String,
    starting: BoxFuture<'static, Result<ValueStream, String>>,
    cancelled: CancellationToken,
) -> Outcome {
    let mut items = tokio::select! {
        biased;
        () = cancelled.cancelled() => return Outcome::Void,
        started = starting => match started {
            Ok(items) => items,
            Err(text) => return Outcome::Error(text),
        },
    };
    let mut sent = 0_usize;
    loop {
        let item: Value = tokio::select! {
            biased;
            () = cancelled.cancelled() => return Outcome::Void,
                item = guarded(items.next().map(Option::transpose)) => match item {
                Ok(Some(item)) => item,
                Ok(None) => return Outcome::Void,
                Err(error) => return Outcome::Error(stream_error(session.hub(), &name, &error)),
            },
        };
        let message = HubMessage::StreamItem {
            headers: Vec::new(),
            invocation_id: answering.invocation_id.clone().unwrap_or_default(),
            item,
        };
        match session.send_item(&answering, &message).await {
            Sent::Yes => {}
            Sent::Unwanted => return Outcome::Void,
            Sent::Unsure => return Outcome::Error(INTERRUPTED.to_owned()),
        }
        sent = sent.wrapping_add(1);
        if sent.is_multiple_of(YIELD_AFTER) {
            yield_now().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use hubcast_backplane::ConnectionId;

    use super::*;
    use crate::auth::Identity;
    use crate::hub::{Connection, Context, Hub, HubError, RequestInfo};
    use crate::protocol::HubProtocol;
    use crate::tester::HubTester;

    async fn wait(context: Context) -> Result<(), HubError> {
        context.cancelled().cancelled().await;
        Err(HubError::new("cancelled"))
    }

    fn call(id: Option<&str>, target: &str, stream_ids: &[&str]) -> Invocation {
        Invocation {
            invocation_id: id.map(str::to_owned),
            target: target.to_owned(),
            stream_ids: stream_ids.iter().map(ToString::to_string).collect(),
            ..Invocation::default()
        }
    }

    async fn session() -> Arc<Session> {
        let hub = Hub::new("h")
            .method("Wait", wait)
            .method("Nothing", async || ())
            .stream("Silent", async || futures_util::stream::pending::<()>());
        let tester = HubTester::new(hub).await.unwrap();
        let id = ConnectionId::parse("c").unwrap();
        let connection = Connection::new(id, Identity::anonymous(), RequestInfo::default());
        connection.set_protocol(HubProtocol::Json);
        let session = Session::new(Arc::clone(tester.hub().runtime()), connection);
        session.open_for_test();
        session
    }

    /// What was sent to the client, without the answer to its handshake.
    async fn sent(session: &Session) -> String {
        let mut frames = Vec::new();
        session.take_frames(&mut frames, usize::MAX).await;
        let frames: Vec<u8> = frames.concat();
        let text = String::from_utf8(frames).unwrap();
        text.strip_prefix("{}\u{1e}").unwrap_or(&text).to_owned()
    }

    /// Waits for all that run.
    async fn settle_all(invocations: &mut Invocations) {
        while !invocations.running.is_empty() {
            if let Some(ended) = invocations.next().await {
                invocations.settle(ended);
            }
        }
    }

    #[tokio::test]
    async fn nothing_is_kept_of_calls_that_were_cancelled_ended_or_refused() {
        let session = session().await;
        let mut invocations = Invocations::new(10, 10);
        let mut begin = |call| invocations.begin(&session, call, None, Encoding::Json);
        begin(call(Some("1"), "Wait", &[]));
        begin(call(Some("2"), "Nothing", &[]));
        begin(call(Some("3"), "Unknown", &[]));
        begin(call(Some("4"), "Wait", &["u"])); // it takes no upload
        begin(call(None, "Nothing", &[]));
        invocations.begin_stream(&session, call(Some("5"), "Silent", &[]), None, Encoding::Json);
        let mut running: Vec<_> = invocations.named.keys().cloned().collect();
        running.sort_unstable();
        assert_eq!(running, ["1", "2", "5"]);
        for id in ["1", "5", "5", "unknown"] {
            invocations.cancel(id);
        }
        settle_all(&mut invocations).await;
        assert!(invocations.named.is_empty());
        assert_eq!(invocations.uploads.len(), 0);
        assert_eq!(invocations.slots.free.load(Ordering::Relaxed), 10);
        let sent = sent(&session).await;
        for id in ["1", "2", "3", "4", "5"] {
            let completion = format!("{{\"type\":3,\"invocationId\":\"{id}\"");
            assert_eq!(sent.matches(&completion).count(), 1, "{sent}");
        }
    }

    #[tokio::test]
    async fn an_id_names_one_running_call_whatever_its_kind() {
        let session = session().await;
        let mut invocations = Invocations::new(10, 10);
        let mut begin = |call| invocations.begin(&session, call, None, Encoding::Json);
        begin(call(Some("1"), "Wait", &[]));
        begin(call(Some("1"), "Nothing", &[]));
        invocations.begin_stream(&session, call(Some("1"), "Silent", &[]), None, Encoding::Json);
        invocations.cancel("1");
        settle_all(&mut invocations).await;
        let sent = sent(&session).await;
        let refusal = "\"error\":\"Invocation ID '1' is already in use.\"";
        assert_eq!(sent.matches(refusal).count(), 2, "{sent}");
        assert!(sent.contains("HubException: cancelled"), "{sent}");
        invocations.begin(&session, call(Some("1"), "Nothing", &[]), None, Encoding::Json);
        assert!(
            invocations.named.contains_key("1"),
            "an id that is free again can be used"
        );
    }
}
