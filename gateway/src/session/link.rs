//! A connection that is many requests: the common part of SSE and long polling.

use std::future::poll_fn;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use parking_lot::Mutex;
use tokio::sync::OwnedMutexGuard;
use tokio::time::{Instant, sleep, timeout};

use super::inbox::Inbox;
use super::signal::Signal;
use super::{
    CloseReason, Inbound, InboxEntry, Past, PushError, Received, Session, TransportError, run, run_restored,
};

/// How long the next part of a body from another node is waited for.
const NEXT_PART: Duration = Duration::from_secs(30);

/// The requests of one connection.
pub(crate) struct HttpLink {
    /// Bodies of POSTs on their way to the session.
    inbox: Inbox,
    /// Held by the POST whose body is being read: the next one begins when that is over. Absent before the first one.
    posting: OnceLock<Arc<tokio::sync::Mutex<()>>>,
    /// A body of which other nodes send one part after the other.
    in_parts: Mutex<Option<Box<InParts>>>,
    state: Mutex<LinkState>,
    /// A response or poll was attached or detached, or the state moved on.
    changed: Signal,
    /// The task of the poll or socket that holds `polling`.
    attached: AtomicWaker,
    /// Held by the poll that waits for data: the next one begins when it has answered.
    pub(crate) polling: tokio::sync::Mutex<()>,
}

struct LinkState {
    stage: Stage,
    /// The time since which no response or poll is attached; `None` while one is.
    idle_since: Option<Instant>,
    /// The number of the newest poll or socket.
    turn: Turn,
    /// How often the waiting poll was to answer with nothing.
    yields: u64,
    /// How many polls have taken something from the session.
    takings: u64,
}

/// The number of a poll, or of a socket that the connection outlives. A newer one supersedes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Turn(u64);

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

/// The data that came in for a connection that is taken over.
pub(crate) type Detached = Vec<InboxEntry>;

impl HttpLink {
    pub(crate) fn new(inbox_bytes: usize) -> Self {
        Self {
            inbox: Inbox::new(inbox_bytes),
            posting: OnceLock::new(),
            in_parts: Mutex::default(),
            state: Mutex::new(LinkState {
                stage: Stage::Waiting,
                idle_since: Some(Instant::now()),
                turn: Turn(0),
                yields: 0,
                takings: 0,
            }),
            changed: Signal::default(),
            attached: AtomicWaker::new(),
            polling: tokio::sync::Mutex::new(()),
        }
    }

    /// Hands bytes to the session, waiting for room.
    pub(crate) async fn receive(&self, bytes: Bytes) -> Result<(), Ended> {
        self.push(InboxEntry::Bytes(bytes)).await
    }

    async fn push(&self, entry: InboxEntry) -> Result<(), Ended> {
        self.inbox.push(entry).await.map_err(|_| Ended)
    }

    fn take_parts(&self, which: impl FnOnce(&InParts) -> bool) -> Option<Box<InParts>> {
        let mut in_parts = self.in_parts.lock();
        let found = in_parts.as_deref().is_some_and(which);
        found.then(|| in_parts.take()).flatten()
    }

    /// Notifies the session that the next bytes come from a new socket.
    pub(crate) async fn resume(&self) -> Result<(), Ended> {
        self.push(InboxEntry::NewSocket).await
    }

    /// Hands on what came before this node owned the connection.
    pub(crate) fn receive_early(&self, early: Detached) -> Result<(), PushError> {
        early.into_iter().try_for_each(|entry| self.inbox.try_push(entry))
    }

    /// Lets the session begin.
    pub(crate) fn begin(&self) -> Begun {
        let mut state = self.state.lock();
        let first = state.stage == Stage::Waiting;
        if first {
            state.stage = Stage::Running;
            if state.idle_since.is_some() {
                state.idle_since = Some(Instant::now()); // the time for the next poll counts from here
            }
        }
        drop(state);
        self.changed.give();
        if first { Begun::Now } else { Begun::Before }
    }

    /// Takes the connection away from a session that has not begun, with what came in so far.
    pub(crate) fn detach(&self) -> Option<Detached> {
        {
            let mut state = self.state.lock();
            if state.stage != Stage::Waiting {
                return None;
            }
            state.stage = Stage::Moved;
        }
        let early = self.inbox.close();
        self.changed.give();
        Some(early)
    }

    /// Records that a response or poll is attached until the guard is dropped.
    pub(crate) fn attach(&self) -> Attached<'_> {
        self.state.lock().idle_since = None;
        Attached { link: self }
    }

    pub(crate) fn set_attached(&self) {
        self.state.lock().idle_since = None;
    }

    /// Ends the poll that waits, if any, and puts the caller in its place.
    pub(crate) fn supersede(&self) -> Turn {
        let turn = {
            let mut state = self.state.lock();
            state.turn = Turn(state.turn.0.wrapping_add(1));
            state.turn
        };
        self.attached.wake();
        turn
    }

    pub(crate) fn is_superseded(&self, turn: Turn) -> bool {
        self.state.lock().turn != turn
    }

    /// Ends when a newer poll or socket has come. For the one that holds `polling`.
    pub(crate) fn superseded(&self, turn: Turn) -> impl Future<Output = ()> {
        self.until_attached(move |link| link.is_superseded(turn))
    }

    /// Ends when the waiting poll is to answer with nothing, so that the client polls again, elsewhere. For the poll that
    /// holds `polling`.
    pub(crate) fn yielded(&self) -> impl Future<Output = ()> {
        let yields = self.state.lock().yields;
        self.until_attached(move |link| link.state.lock().yields != yields)
    }

    fn until_attached(&self, holds: impl Fn(&Self) -> bool) -> impl Future<Output = ()> {
        poll_fn(move |cx| {
            self.attached.register(cx.waker());
            match holds(self) {
                true => Poll::Ready(()),
                false => Poll::Pending,
            }
        })
    }

    /// Counts a poll that has taken something from the session, and names it.
    pub(crate) fn count_taking(&self) -> u64 {
        let mut state = self.state.lock();
        state.takings += 1;
        state.takings
    }

    /// Returns whether no poll has taken anything since that one.
    pub(crate) fn is_last_taking(&self, taking: u64) -> bool {
        self.state.lock().takings == taking
    }

    /// Ends the poll that waits, if any, without ending the connection.
    pub(crate) fn yield_poll(&self) {
        {
            let mut state = self.state.lock();
            state.yields = state.yields.wrapping_add(1);
        }
        self.attached.wake();
    }

    /// The client has fetched everything: nothing has to be kept for it.
    pub(crate) fn drained(&self) {
        self.state.lock().stage = Stage::Drained;
        self.changed.give();
    }

    /// Called when the session ends: refuses further bytes.
    pub(super) fn refuse_more(&self) {
        drop(self.inbox.close());
        drop(self.in_parts.lock().take());
    }

    /// Waits until the client has fetched everything, or `suffices`, which is asked anew when a request ends.
    pub(super) async fn until_drained(&self, suffices: impl Fn() -> bool) {
        self.until(|stage| stage == Stage::Drained || suffices()).await;
    }

    /// Ready when a request was attached or detached, or the state moved on. For the task that runs the session.
    pub(super) fn poll_changed(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.changed.poll(cx)
    }

    async fn until(&self, holds: impl Fn(Stage) -> bool) {
        loop {
            let stage = self.state.lock().stage;
            if holds(stage) {
                return;
            }
            self.changed.given().await;
        }
    }

    /// Waits for the client to choose a transport.
    async fn begun(&self) -> Stage {
        self.until(|stage| stage != Stage::Waiting).await;
        self.state.lock().stage
    }

    /// The time since which no response or poll is attached.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        self.state.lock().idle_since
    }
}

/// The connection has ended: it takes nothing more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ended;

/// The moment at which a session began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Begun {
    /// It begins with this request.
    Now,
    /// An earlier request has begun it.
    Before,
}

/// One POST's turn: its body is handed on while it comes. If it ends before the body does, what the session has of an
/// unfinished message is forgotten.
pub(crate) struct Posting {
    session: Arc<Session>,
    _turn: OwnedMutexGuard<()>,
    begun: bool,
}

/// A body that comes by another node, in parts.
struct InParts {
    /// The other node's number for the body.
    body: u64,
    /// Absent while a part is handed on.
    posting: Option<Posting>,
    /// Counts the parts.
    parts: u64,
    /// No more parts will come.
    broken: bool,
}

impl Posting {
    /// Waits for the turn.
    pub(crate) async fn begin(session: &Arc<Session>) -> Result<Self, Ended> {
        let link = session.http().ok_or(Ended)?;
        tokio::select! {
            biased;
            () = session.closing().cancelled() => Err(Ended),
            turn = Arc::clone(link.posting.get_or_init(Arc::default)).lock_owned() => Ok(Self {
                session: Arc::clone(session),
                _turn: turn,
                begun: false,
            }),
        }
    }

    /// Hands on some bytes, waiting for room.
    pub(crate) async fn receive(&mut self, bytes: Bytes) -> Result<(), Ended> {
        let link = self.session.http().ok_or(Ended)?;
        self.begun = true;
        if bytes.is_empty() {
            return Ok(());
        }
        link.receive(bytes).await
    }

    /// The body came whole.
    pub(crate) fn end(mut self) {
        self.begun = false;
    }
}

impl Drop for Posting {
    fn drop(&mut self) {
        if self.begun
            && let Some(link) = self.session.http()
        {
            let _ = link.inbox.try_push(InboxEntry::BrokenOff); // refused only when the session needs it no more
        }
    }
}

/// Takes a part of a body that comes by another node, which gave it a number if there are several.
pub(crate) async fn receive_part(
    session: &Arc<Session>,
    part: Bytes,
    body: Option<u64>,
    more: bool,
) -> Result<(), Ended> {
    let link = session.http().ok_or(Ended)?;
    let going_on = {
        let mut in_parts = link.in_parts.lock();
        let same = in_parts.as_mut().filter(|parts| Some(parts.body) == body);
        same.and_then(|parts| parts.posting.take())
    };
    let mut posting = match going_on {
        Some(posting) => posting,
        None => Posting::begin(session).await?,
    };
    posting.receive(part).await?;
    let Some(body) = body.filter(|_| more) else {
        if let Some(body) = body {
            drop(link.take_parts(|parts| parts.body == body));
        }
        posting.end();
        return Ok(());
    };
    let begun = {
        let mut in_parts = link.in_parts.lock();
        let before = in_parts.as_ref().filter(|parts| parts.body == body);
        if before.is_some_and(|parts| parts.broken) {
            *in_parts = None;
            return Ok(()); // the part that it began goes with `posting`
        }
        let parts = before.map_or(1, |parts| parts.parts.saturating_add(1));
        *in_parts = Some(Box::new(InParts {
            body,
            posting: Some(posting),
            parts,
            broken: false,
        }));
        parts == 1
    };
    if session.closing().is_cancelled() {
        drop(link.in_parts.lock().take()); // the session has looked for it, perhaps
    } else if begun {
        let (session, tasks) = (Arc::clone(session), session.hub().shared().tasks());
        tasks.spawn(async move { give_up(&session, body).await });
    }
    Ok(())
}

/// A body that came by another node in parts will not come whole.
pub(crate) fn break_off(session: &Session, body: u64) {
    let Some(link) = session.http() else { return };
    let mut in_parts = link.in_parts.lock();
    let taken = match in_parts.as_mut().filter(|parts| parts.body == body) {
        // The last part is being handed on.
        Some(parts) if parts.posting.is_none() => {
            parts.broken = true;
            None
        }
        Some(_) => in_parts.take(),
        None => None,
    };
    drop(in_parts);
    drop(taken);
}

/// Ends a body whose next part does not come: its node has died.
async fn give_up(session: &Session, body: u64) {
    let Some(link) = session.http() else { return };
    let parts = || {
        let in_parts = link.in_parts.lock();
        in_parts.as_ref().filter(|at| at.body == body).map(|at| at.parts)
    };
    while let Some(seen) = parts() {
        tokio::select! {
            () = session.closing().cancelled() => return,
            () = sleep(NEXT_PART) => {}
        }
        if parts() == Some(seen) {
            drop(link.take_parts(|at| at.body == body && at.parts == seen));
            return;
        }
    }
}

/// Ends the attachment when dropped.
pub(crate) struct Attached<'a> {
    link: &'a HttpLink,
}

impl Drop for Attached<'_> {
    fn drop(&mut self) {
        drop(self.link.attached.take()); // the waker of a task keeps that task's memory
        self.link.state.lock().idle_since = Some(Instant::now());
        self.link.changed.give();
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
        None => session.close(CloseReason::TransportLost(TransportError::NotChosen)),
    }
    let mut inbound = HttpInbound { link };
    run(&session, &mut inbound, claim).await;
}

/// Runs a stateful session that was on another node.
pub(crate) async fn run_restored_over_http(session: Arc<Session>, past: Past) {
    let Some(link) = session.http() else { return };
    let mut inbound = HttpInbound { link };
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
}

impl Inbound for HttpInbound<'_> {
    async fn receive(&mut self) -> Received {
        match self.link.inbox.take().await {
            Some(entry) => entry.into(),
            None => Received::Closed,
        }
    }
}
