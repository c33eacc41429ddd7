//! A session's life: handshake, messages, end.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use axum::extract::ws::close_code;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::time::{Instant, Sleep, sleep_until};

use super::completions::{Answering, call_name};
use super::end::end;
use super::handed_off_calls::CallRelay;
use super::invocations::Invocations;
use super::reader::MOVE;
use super::sequence::ReceiveSequence;
use super::{CloseReason, Inbound, Past, Received, Session, TransportError, handshake};
use crate::limits::Held;
use crate::protocol::{ClientDecoder, ClientProtocol, HubMessage, Outcome};

/// How long numbered messages are held back for a client that does not speak after its handshake.
const RELEASE_PATIENCE: Duration = Duration::from_secs(1);

/// The least weight of a frame, in bytes.
const FRAME_BYTES: usize = 16;

const UNFINISHED: &str = "OperationCanceledException: A message did not get on (timeouts.receive_seconds, \
     limits.least_bytes_per_second).";

/// Runs a session from its handshake to the end of its membership. `claim`: the directory does not know it yet.
/// When this returns, the outbox is closed and everything about the connection is gone from node and cluster.
pub(crate) async fn run(session: &Arc<Session>, inbound: &mut impl Inbound, claim: bool) {
    // Futures that run once are boxed, so that the task of an idle connection is small. So is the conversation: a task
    // has room for it wherever it is moved to.
    let beginning = Box::pin(async {
        match handshake::shake(session, inbound, claim).await {
            Ok(decoder) => {
                let conversation = Conversation::new(session, decoder, ReceiveSequence::default());
                Some(Box::new(conversation))
            }
            Err(reason) => {
                // With a protocol chosen the registration was begun, and may have happened even if it seemed to fail.
                let registered = !claim || session.connection.protocol().is_some();
                end(session, reason, None, registered).await;
                None
            }
        }
    });
    if let Some(mut conversation) = beginning.await {
        let reason = conversation.hold(inbound, true).await;
        Box::pin(conversation.end(reason)).await;
    }
}

/// Goes on with a session of another node.
pub(crate) async fn run_restored(session: &Arc<Session>, inbound: &mut impl Inbound, past: Past) {
    let mut conversation = Conversation::restored(session, past);
    if session.connection.streams().is_some() {
        let renewing = Arc::clone(session);
        conversation
            .invocations
            .begin_alone(session, async move { renewing.renew_streams().await });
    }
    Box::pin(session.hub.resumed(session.context())).await;
    let reason = conversation.hold(inbound, false).await;
    Box::pin(conversation.end(reason)).await;
}

/// The reasons why a client is not read that something other than the clock ends. Seldom there are some.
struct Obstacle<'a>(Option<BoxFuture<'a, Overcome>>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Overcome {
    /// The client has read most of what was sent to it.
    Backlog,
    /// The backplane is back.
    Outage,
}

impl Obstacle<'_> {
    /// Never ends where there is none.
    fn overcome(&mut self) -> impl Future<Output = Overcome> {
        poll_fn(|cx| match &mut self.0 {
            Some(overcoming) => overcoming.poll_unpin(cx),
            None => Poll::Pending,
        })
    }
}

/// Between handshake and end.
pub(super) struct Conversation<'a> {
    pub(super) session: &'a Arc<Session>,
    pub(super) decoder: ClientDecoder,
    pub(super) protocol: ClientProtocol,
    pub(super) invocations: Invocations,
    /// The client's silence counts from its first Ping on.
    pub(super) pings: bool,
    pub(super) heard: Instant,
    ping_due: Instant,
    pub(super) counted: ReceiveSequence,
    /// How many of them were applied.
    pub(super) applied: u64,
    /// How many of them the backplane knows of.
    pub(super) noted: u64,
    /// A call that may have been recorded, and was not begun.
    pub(super) unsure: Option<Box<str>>,
    /// While the backplane is away, the client is not read until then.
    hold_until: Option<Instant>,
    /// A new socket's first numbered message has no number before the client's Sequence.
    pub(super) awaits_sequence: bool,
    /// A body broke off: its unfinished message is forgotten once the whole ones before it were handled.
    pub(super) broke_off: bool,
    /// Takes messages for calls of an earlier session.
    pub(super) carrier: Option<CallRelay>,
    /// The time when the place of a client that holds its own is moved next.
    move_due: Option<Instant>,
    /// A message of which only the beginning has come.
    pub(super) tail: Held,
    /// The time when held-back messages are sent even if the client stays silent.
    release_due: Option<Instant>,
    /// Armed for the next deadline or an earlier time: messages push deadlines back, and re-arming at each would cost.
    timer: Pin<Box<Sleep>>,
}

impl<'a> Conversation<'a> {
    fn new(session: &'a Arc<Session>, decoder: ClientDecoder, counted: ReceiveSequence) -> Self {
        let options = session.hub.options();
        let now = Instant::now();
        let protocol = decoder.protocol();
        Self {
            session,
            protocol,
            decoder,
            invocations: Invocations::default(),
            pings: protocol.answers_pings() && session.http().is_none(), // else its sockets look for themselves
            heard: now,
            ping_due: now + options.timeouts.keep_alive,
            applied: counted.highest(),
            noted: counted.highest(),
            counted,
            unsure: None,
            hold_until: None,
            awaits_sequence: false,
            broke_off: false,
            carrier: None,
            move_due: session.is_reader().then(|| now + MOVE),
            tail: Held::new(session.hub.terms()),
            release_due: session.is_stateful().then(|| now + RELEASE_PATIENCE),
            timer: Box::pin(sleep_until(now + options.timeouts.keep_alive)),
        }
    }

    fn restored(session: &'a Arc<Session>, past: Past) -> Box<Self> {
        let protocol = session.connection.protocol();
        let protocol = protocol.unwrap_or(handshake::BEFORE_HANDSHAKE);
        let decoder = ClientDecoder::new(protocol, session.hub.options().limits.message_bytes);
        let mut conversation = Self::new(session, decoder, ReceiveSequence::after(past.received));
        conversation.carrier = CallRelay::new(session, past.hosts);
        conversation.release_due = None; // its client counts already
        conversation.awaits_sequence = protocol.numbers_messages();
        Box::new(conversation)
    }

    /// Ends the session, which is in the directory.
    async fn end(mut self: Box<Self>, reason: CloseReason) {
        self.note_all().await;
        end(self.session, reason, Some(self.invocations), true).await;
    }

    async fn hold(&mut self, inbound: &mut impl Inbound, new: bool) -> CloseReason {
        if let Some(transport) = self.session.connection.transport() {
            self.session
                .hub
                .shared()
                .metrics()
                .connections(transport, self.protocol)
                .inc();
        }
        // Without a hook it is two round trips less.
        if new
            && self.session.hub.greets()
            && let Err(reason) = Box::pin(self.connected()).await
        {
            return reason;
        }
        loop {
            let handled = if let Some(handling) = self.handle_decoded() {
                handling.await
            } else {
                self.step(inbound).await
            };
            if let Err(reason) = handled {
                return reason;
            }
        }
    }

    /// The hub's hook runs before any message of the client is handled. A node that dies meanwhile must be noticed.
    async fn connected(&mut self) -> Result<(), CloseReason> {
        let call = self.note(0, Some(call_name(0, None))).await?;
        let outcome = tokio::select! {
            biased;
            () = self.session.closing.cancelled() => return Err(self.asked_to_close()),
            outcome = self.session.hub.connected(self.session.context().connecting()) => outcome,
        };
        outcome.map_err(|error| self.session.hook_failed(&error))?;
        let done = Answering {
            invocation_id: None,
            call,
        };
        self.session.complete(done, Outcome::Void).await;
        Ok(())
    }

    /// Returns whether the client is not read because the backplane is away: its calls wait, in order, instead of
    /// failing one by one.
    fn is_held(&mut self) -> bool {
        if self.session.hub.shared().is_connected() {
            self.hold_until = None;
            return false;
        }
        let outage = self.session.hub.options().timeouts.outage;
        let now = Instant::now();
        now < *self.hold_until.get_or_insert(now + outage)
    }

    fn asked_to_close(&self) -> CloseReason {
        self.session.reason().cloned().unwrap_or(CloseReason::Aborted)
    }

    /// A client whose calls are all running, that does not read its answers, or that sends too fast, is not read.
    pub(super) fn may_read(&mut self) -> bool {
        self.invocations.may_read()
            && !self.is_backed_up()
            && self.session.pace_resumes().is_none()
            && !self.is_held()
    }

    fn obstacle(&self) -> Obstacle<'a> {
        let (session, is_backed_up, is_held) = (self.session, self.is_backed_up(), self.hold_until.is_some());
        if !is_backed_up && !is_held {
            return Obstacle(None);
        }
        let overcoming = async move {
            tokio::select! {
                biased;
                () = session.outbox.at_most(session.high_water()), if is_backed_up => Overcome::Backlog,
                () = session.hub.shared().connected(), if is_held => Overcome::Outage,
            }
        };
        Obstacle(Some(overcoming.boxed()))
    }

    fn is_backed_up(&self) -> bool {
        self.session.outbox.queued_bytes() > self.session.high_water()
    }

    /// Waits for one thing to happen.
    async fn step(&mut self, inbound: &mut impl Inbound) -> Result<(), CloseReason> {
        let session = self.session;
        let reading = self.may_read() && !self.broke_off;
        let mut obstacle = self.obstacle();
        self.set_timer();
        let received = tokio::select! {
            biased;
            () = session.is_to_close() => return Err(self.asked_to_close()),
            // Before the invocations: a stream that always has an item would fill the room that the client has just
            // made, and nothing would be read any more, not even the wish to cancel it.
            overcome = obstacle.overcome() => {
                if overcome == Overcome::Backlog {
                    self.heard = Instant::now();
                }
                return Ok(());
            }
            () = self.invocations.next() => {
                self.heard = Instant::now(); // while a method runs the client's messages wait, so its silence does not count
                return Ok(());
            }
            received = inbound.receive(), if reading => received,
            () = session.requests_change() => return Ok(()),
            () = self.timer.as_mut() => return Box::pin(self.tick(reading)).await,
        };
        self.receive(received)
    }

    fn set_timer(&mut self) {
        let deadline = self.deadline();
        if deadline < self.timer.deadline() {
            self.timer.as_mut().reset(deadline);
        }
    }

    fn receive(&mut self, received: Received) -> Result<(), CloseReason> {
        let session = self.session;
        match received {
            Received::Data(bytes) => {
                session
                    .hub
                    .shared()
                    .metrics()
                    .received_bytes
                    .inc_by(bytes.len() as u64);
                self.tail.pass(bytes.len());
                if bytes.len() < FRAME_BYTES {
                    session.measure(false, FRAME_BYTES); // else empty frames would cost nothing
                }
                self.decoder.push(bytes);
            }
            Received::Alive { bytes } => {
                session.measure(true, bytes);
                self.heard = Instant::now();
            }
            Received::BrokenOff if !session.is_stateful() => self.broke_off = true,
            Received::NewSocket | Received::BrokenOff => self.resumed(),
            Received::Closed => return Err(CloseReason::ByClient),
            Received::Bad(frame) => return Err(CloseReason::BadFrame(frame)),
            Received::Lost(error) => return Err(CloseReason::TransportLost(error)),
        }
        Ok(())
    }

    /// The time of the next look at the clock.
    fn deadline(&self) -> Instant {
        let silence = self
            .pings
            .then(|| self.heard + self.session.hub.options().timeouts.client_timeout);
        [
            silence,
            self.release_due,
            self.counted.ack_due,
            self.move_due,
            self.tail.late_at(),
            self.streams_due(),
            self.session.pace_resumes(),
            self.hold_until.filter(|until| *until > Instant::now()),
            self.session.lost_at(),
        ]
        .into_iter()
        .flatten()
        .fold(self.ping_due, Instant::min)
    }

    /// The time when a stream of the client has been silent for too long, unless its message is just being handled.
    fn streams_due(&self) -> Option<Instant> {
        let due = self.session.streams_due()?;
        (!self.invocations.is_requesting()).then_some(due)
    }

    async fn tick(&mut self, reading: bool) -> Result<(), CloseReason> {
        let now = Instant::now();
        let timeouts = &self.session.hub.options().timeouts;
        if !reading {
            self.heard = now;
        }
        if self.pings && self.heard + timeouts.client_timeout <= now {
            return Err(CloseReason::ClientTimeout);
        }
        if self.session.lost_at().is_some_and(|lost| lost <= now) {
            return Err(CloseReason::TransportLost(TransportError::NoRequest));
        }
        if reading && self.tail.is_late() {
            return Err(CloseReason::Protocol {
                detail: UNFINISHED.to_owned(),
                code: close_code::POLICY,
            });
        }
        if self.ping_due <= now {
            self.ping_due = now + timeouts.keep_alive;
            if !self
                .session
                .connection
                .transport()
                .is_some_and(|transport| transport.keeps_itself_alive())
            {
                self.session.push(&HubMessage::Ping);
            }
        }
        if self.streams_due().is_some_and(|due| due <= now) {
            let session = Arc::clone(self.session);
            self.invocations
                .begin_alone(self.session, async move { session.expire_streams().await });
        }
        if self.release_due.is_some_and(|due| due <= now) {
            self.release();
        }
        if self.move_due.is_some_and(|due| due <= now) {
            self.move_due = Some(now + MOVE);
            self.session.move_place().await;
        }
        if let Some(sequence_id) = self.counted.ack(now) {
            // The client forgets what is acknowledged: the next node must know that it was taken.
            if self.noted < sequence_id {
                self.note(sequence_id, None).await?;
            }
            self.session.push(&HubMessage::Ack { sequence_id });
        }
        let deadline = self.deadline();
        self.timer.as_mut().reset(deadline);
        Ok(())
    }

    pub(super) fn release(&mut self) {
        if self.release_due.take().is_some() {
            self.session.release();
        }
    }
}
