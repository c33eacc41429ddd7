//! A connection that is many requests: what SSE and long polling share.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use crate::hub::Transport;
use crate::queue::{ByteQueue, PushError, Taken};
use crate::session::{CloseReason, Inbound, Past, Received, Session, run, run_restored};

/// How long a node that leaves waits for the poll that would only be told that the connection is over.
const LAST_POLL: Duration = Duration::from_secs(1);

/// The requests of one connection.
pub(crate) struct HttpLink {
    /// Bodies of POSTs on their way to the session.
    inbox: ByteQueue,
    state: Mutex<State>,
    /// A response or poll was attached or detached, or the state moved on.
    changed: Notify,
    /// Has the waiting poll answer with nothing, so that the client polls again, elsewhere.
    pub(super) yielding: Notify,
    /// Held by the poll that waits for data: the next one begins when it has answered.
    pub(super) polling: tokio::sync::Mutex<()>,
}

struct State {
    stage: Stage,
    /// Whether a response or a poll is attached at this moment, and if not, since when.
    idle_since: Option<Instant>,
    poll: Option<CancellationToken>,
    /// How many polls have taken something from the session.
    takings: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Bytes may have come, but the client has not chosen a transport.
    Waiting,
    /// The session runs.
    Running,
    /// Another node or transport took the connection over before it ran.
    Moved,
    /// The session has ended and its last bytes were fetched.
    Drained,
}

/// What came in for a connection that is taken over.
pub(crate) type Detached = Vec<Bytes>;

impl HttpLink {
    pub(crate) fn new(inbox_bytes: usize) -> Self {
        Self {
            inbox: ByteQueue::new(inbox_bytes),
            state: Mutex::new(State {
                stage: Stage::Waiting,
                idle_since: Some(Instant::now()),
                poll: None,
                takings: 0,
            }),
            changed: Notify::new(),
            yielding: Notify::new(),
            polling: tokio::sync::Mutex::new(()),
        }
    }

    /// Hands a POST's body to the session, waiting for room. `false` when the connection has ended.
    pub(crate) async fn receive(&self, body: Bytes) -> bool {
        body.is_empty() || self.inbox.push(body).await.is_ok()
    }

    /// Tells the session that what follows comes from a new socket. `false` when the connection has ended.
    pub(super) async fn resume(&self) -> bool {
        self.inbox.push(Bytes::new()).await.is_ok() // POSTs never hand on an empty chunk
    }

    /// Hands on bytes that came before this node owned the connection.
    pub(crate) fn receive_early(&self, chunks: Detached) -> Result<(), PushError> {
        chunks
            .into_iter()
            .try_for_each(|chunk| self.inbox.try_push(chunk))
    }

    /// Lets the session begin; `false` when it has begun before.
    pub(crate) fn begin(&self) -> bool {
        let mut state = self.state.lock();
        let first = state.stage == Stage::Waiting;
        if first {
            state.stage = Stage::Running;
            if state.idle_since.is_some() {
                state.idle_since = Some(Instant::now()); // the time for the next poll counts from here
            }
        }
        drop(state);
        self.changed.notify_one();
        first
    }

    /// Takes the connection away from a session that has not begun, with what came in so far.
    pub(crate) async fn detach(&self) -> Option<Detached> {
        {
            let mut state = self.state.lock();
            if state.stage != Stage::Waiting {
                return None;
            }
            state.stage = Stage::Moved;
        }
        self.inbox.close();
        let mut chunks = Vec::new();
        while self.inbox.take(&mut chunks, usize::MAX).await == Taken::Some {}
        self.changed.notify_one();
        Some(chunks)
    }

    /// Notes that a response or poll is attached until the guard is dropped.
    pub(super) fn attach(self: &HttpLink) -> Attached<'_> {
        self.state.lock().idle_since = None;
        Attached { link: self }
    }

    pub(crate) fn set_attached(&self) {
        self.state.lock().idle_since = None;
    }

    /// Ends the poll that waits, if any, and puts the caller in its place.
    pub(super) fn supersede(&self) -> CancellationToken {
        let token = CancellationToken::new();
        if let Some(older) = self.state.lock().poll.replace(token.clone()) {
            older.cancel();
        }
        token
    }

    /// Counts a poll that has taken something from the session, and names it.
    pub(super) fn count_taking(&self) -> u64 {
        let mut state = self.state.lock();
        state.takings += 1;
        state.takings
    }

    /// Whether no poll has taken anything since that one.
    pub(crate) fn is_last_taking(&self, taking: u64) -> bool {
        self.state.lock().takings == taking
    }

    /// Ends the poll that waits, if any, without ending the connection.
    pub(crate) fn yield_poll(&self) {
        self.yielding.notify_waiters();
    }

    /// The client has fetched everything: nothing has to be kept for it.
    pub(crate) fn drained(&self) {
        self.state.lock().stage = Stage::Drained;
        self.changed.notify_one();
    }

    /// Called when the session ends: refuses further bytes, and keeps what a long-polling client has yet to fetch.
    pub(crate) async fn end(&self, session: &Session, reason: &CloseReason) {
        self.inbox.discard();
        let timeouts = &session.hub().options().timeouts;
        let patience = match session.connection().transport() {
            _ if matches!(reason, CloseReason::TransportLost(_) | CloseReason::Moved) => return,
            Some(Transport::LongPolling) => timeouts.disconnect,
            Some(Transport::ServerSentEvents) => timeouts.send,
            Some(Transport::WebSockets) | None => return,
        };
        let leaving = matches!(reason, CloseReason::NodeStops | CloseReason::Fenced);
        let fetched = timeout(patience, async {
            if leaving {
                // A client that was told need not send the poll after the last one: a node that leaves waits less for it.
                self.until(|stage| stage == Stage::Drained || session.queued_bytes() == 0)
                    .await;
                let _ = timeout(LAST_POLL, self.until(|stage| stage == Stage::Drained)).await;
            } else {
                self.until(|stage| stage == Stage::Drained).await;
            }
        });
        if fetched.await.is_err() {
            session.discard_outbox();
        }
    }

    async fn until(&self, holds: impl Fn(Stage) -> bool) {
        loop {
            let stage = self.state.lock().stage;
            if holds(stage) {
                return;
            }
            self.changed.notified().await;
        }
    }

    /// Ends when no request has been attached for `patience`.
    pub(crate) async fn lost(&self, patience: Duration) {
        loop {
            match self.idle_since() {
                None => self.changed.notified().await,
                Some(since) => tokio::select! {
                    () = sleep_until(since + patience) => {
                        if self.idle_since() == Some(since) {
                            return;
                        }
                    }
                    () = self.changed.notified() => {}
                },
            }
        }
    }

    /// Waits for the client to choose a transport.
    async fn begun(&self) -> Stage {
        self.until(|stage| stage != Stage::Waiting).await;
        self.state.lock().stage
    }

    fn idle_since(&self) -> Option<Instant> {
        self.state.lock().idle_since
    }
}

/// Ends the attachment when dropped.
pub(super) struct Attached<'a> {
    link: &'a HttpLink,
}

impl Drop for Attached<'_> {
    fn drop(&mut self) {
        self.link.state.lock().idle_since = Some(Instant::now());
        self.link.changed.notify_one();
    }
}

/// Runs a session whose bytes come by POSTs, or by sockets that it outlives. `claim`: the directory does not know it yet.
pub(crate) async fn run_over_http(session: Arc<Session>, claim: bool) {
    let Some(link) = session.http() else { return };
    let patience = session.hub().options().timeouts.disconnect;
    let begun = tokio::select! {
        () = session.closing().cancelled() => None,
        begun = timeout(patience, link.begun()) => begun.ok(),
    };
    match begun {
        Some(Stage::Moved) => session.close(CloseReason::Moved),
        Some(_) => {}
        // Negotiated, perhaps written to, and never connected.
        None => session.close(CloseReason::TransportLost("no transport was chosen in time")),
    }
    let mut inbound = HttpInbound { link, behind: None };
    run(&session, &mut inbound, claim).await;
}

/// Runs a stateful session that was on another node.
pub(crate) async fn run_restored_over_http(session: Arc<Session>, past: Past) {
    let Some(link) = session.http() else { return };
    let mut inbound = HttpInbound { link, behind: None };
    run_restored(&session, &mut inbound, past).await;
}

/// Runs a session whose client only reads.
pub(crate) async fn run_reader(session: Arc<Session>) {
    run(&session, &mut Silent, true).await;
}

struct Silent;

impl Inbound for Silent {
    async fn receive(&mut self) -> Received {
        std::future::pending().await
    }
}

struct HttpInbound<'a> {
    link: &'a HttpLink,
    /// What came together with the news of a new socket.
    behind: Option<Bytes>,
}

impl Inbound for HttpInbound<'_> {
    async fn receive(&mut self) -> Received {
        if let Some(chunk) = self.behind.take() {
            return Received::Data(chunk);
        }
        let mut chunks = Vec::with_capacity(1);
        if self.link.inbox.take(&mut chunks, 0).await == Taken::End {
            return Received::Closed;
        }
        // An empty chunk weighs nothing: the queue gives the next one with it.
        let resumed = chunks.iter().any(Bytes::is_empty);
        let last = chunks.pop().filter(|chunk| !chunk.is_empty());
        match last {
            _ if resumed => {
                self.behind = last;
                Received::Resumed
            }
            Some(chunk) => Received::Data(chunk),
            None => Received::Closed,
        }
    }
}
