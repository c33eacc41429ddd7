//! What a session has that outlives its socket: its ownership, how far its client is, and answers that go through the
//! log, so that another node can go on with it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use hubcast_backplane::{
    BackplaneError, Call, Checkpoint, Epoch, Listing, NodeId, Position, Topic, Version, wire,
};
use parking_lot::{Mutex, MutexGuard};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::restore::state_of;
use super::{CloseReason, Session};
use crate::auth::Identity;
use crate::protocol::{ClientProtocol, HubMessage, MESSAGE, Outcome, webpubsub};

/// How often, and how long apart, an answer is tried to be written to a backplane that can't be reached.
const ANSWER_ATTEMPTS: (usize, Duration) = (10, Duration::from_secs(1));

/// What the client is told of a call that was lost.
pub(super) const INTERRUPTED: &str =
    "The invocation was interrupted: the node that ran it has stopped, or lost its backplane.";
/// Items that a call sends to a connection elsewhere before it asks how far the client is.
const PACE: u64 = 16;
/// How often it looks for a connection that nobody has.
const LOOK: Duration = Duration::from_millis(200);

/// A session whose client numbers its messages and comes back after a lost socket, here or on another node.
pub(super) struct Stateful {
    version: Version,
    epoch: Epoch,
    progress: Mutex<Progress>,
    /// Ends when the connection does: not when it moves to another node.
    gone: CancellationToken,
    /// Ends when the session has left everything: what it gave up, others may take.
    ended: CancellationToken,
    /// Items that calls sent after the connection moved.
    paced: AtomicU64,
    /// It must not be given up.
    stays: AtomicBool,
}

#[derive(Default)]
struct Progress {
    /// Up to where the client is known to have everything.
    checkpoint: Option<Checkpoint>,
    /// Whether it waits to be written down.
    waiting: bool,
}

/// An invocation of the client, as it is answered.
#[derive(Debug, Clone, Default)]
pub(super) struct Answering {
    /// The client's id for it; without one nobody waits.
    pub(super) invocation_id: Option<String>,
    /// The name by which it was noted, in a stateful session.
    pub(super) call: Option<String>,
}

/// What became of an item of a stream.
pub(super) enum Sent {
    /// It is on its way.
    Yes,
    /// The call has ended, or its connection.
    Unwanted,
    /// It may be on its way or not.
    Unsure,
}

impl From<bool> for Sent {
    fn from(sent: bool) -> Self {
        if sent { Self::Yes } else { Self::Unwanted }
    }
}

impl Stateful {
    pub(super) fn new(version: Version, epoch: Epoch) -> Self {
        Self {
            version,
            epoch,
            progress: Mutex::default(),
            gone: CancellationToken::new(),
            ended: CancellationToken::new(),
            paced: AtomicU64::new(0),
            stays: AtomicBool::new(false),
        }
    }
}

/// The name of a call in the backplane: the number of its message, and the id that its completion needs.
pub(super) fn call_name(number: u64, invocation_id: Option<&str>) -> String {
    match invocation_id {
        Some(id) => format!("{number} {id}"),
        None => number.to_string(),
    }
}

/// The invocation id of a noted call; `None` where nobody waits for a completion.
pub(super) fn invocation_of(call: &str) -> Option<&str> {
    call.split_once(' ').map(|(_, id)| id)
}

impl Session {
    /// Whether the connection outlives its socket.
    pub(crate) fn is_stateful(&self) -> bool {
        self.stateful.get().is_some()
    }

    pub(super) fn set_stateful(&self, stateful: Stateful) {
        let epoch = stateful.epoch.clone();
        if self.stateful.set(stateful).is_ok() {
            self.hub.checkpoints().arrive(&self.hub);
        }
        // A new epoch that began since the connection entered has closed only those that were stateful by then.
        if self.hub.epoch().is_some_and(|now| *now != epoch) {
            self.close(CloseReason::LogLost("the backplane lost messages"));
        }
        if self.closing.is_cancelled() && !self.has_moved() {
            self.gone().cancel(); // it was closed before there was this to end
        }
    }

    /// Ends once the connection has ended, wherever.
    pub(crate) fn gone(&self) -> &CancellationToken {
        self.stateful
            .get()
            .map_or(&self.closing, |stateful| &stateful.gone)
    }

    /// Ends once a stateful session has left everything; at once for another one.
    pub(crate) async fn ended(&self) {
        if let Some(stateful) = self.stateful.get() {
            stateful.ended.cancelled().await;
        }
    }

    pub(super) fn be_ended(&self) {
        if let Some(stateful) = self.stateful.get() {
            stateful.ended.cancel();
        }
    }

    /// The ownership that this session speaks for, if it is stateful.
    pub(crate) fn version(&self) -> Option<Version> {
        self.stateful.get().map(|stateful| stateful.version)
    }

    /// Goes on where another session of the connection ended: `kept` is what the client may lack, with places in the
    /// log, the first of them with the number after `sequence`. Where it is not all, `more` follows. `false` where the session
    /// has ended.
    pub(super) fn go_on(&self, sequence: u64, kept: VecDeque<(Bytes, u64)>, more: bool) -> bool {
        self.outbox
            .go_on(sequence.saturating_add(1), kept, more, |sequence_id| {
                self.encode(&HubMessage::Sequence { sequence_id })
            })
    }

    /// The client has received numbered messages up to this one.
    pub(super) fn acknowledge(self: &Arc<Self>, sequence_id: u64) {
        let Some(stateful) = self.stateful.get() else {
            return;
        };
        let progress = stateful.progress.lock();
        let acknowledged = if self.connection.protocol() == Some(ClientProtocol::ReliableWebPubSub) {
            self.outbox.acknowledge_place(sequence_id) // its sequence ids are places
        } else {
            self.outbox.acknowledge(sequence_id)
        };
        let Some((sequence, offset)) = acknowledged else {
            return;
        };
        self.gets_further();
        let position = Position {
            epoch: stateful.epoch.clone(),
            offset,
        };
        self.reach(progress, Checkpoint { sequence, position });
    }

    /// The sink was given everything up to `position`: where the client has all that came of it, this is a checkpoint.
    pub(crate) fn advance(self: &Arc<Self>, position: &Position) {
        let Some(stateful) = self
            .stateful
            .get()
            .filter(|stateful| stateful.epoch == position.epoch)
        else {
            return;
        };
        let progress = stateful.progress.lock();
        // Asked for after `position`: what was given up to there is acknowledged, or counted as waiting.
        let Some(sequence) = self.outbox.all_acknowledged() else {
            return;
        };
        let newer = |checkpoint: &Checkpoint| checkpoint.position.offset < position.offset;
        if !progress.checkpoint.as_ref().is_none_or(newer) {
            return;
        }
        let position = position.clone();
        self.reach(progress, Checkpoint { sequence, position });
    }

    fn reach(self: &Arc<Self>, mut progress: MutexGuard<'_, Progress>, checkpoint: Checkpoint) {
        progress.checkpoint = Some(checkpoint);
        if !std::mem::replace(&mut progress.waiting, true) {
            drop(progress);
            self.hub.checkpoints().add(&self.hub, self);
        }
    }

    /// The checkpoint that waits to be written down.
    pub(crate) fn take_checkpoint(&self) -> Option<(Version, Checkpoint)> {
        let stateful = self.stateful.get()?;
        let mut progress = stateful.progress.lock();
        let waiting = std::mem::take(&mut progress.waiting) && !self.closing.is_cancelled();
        Some((stateful.version, progress.checkpoint.clone().filter(|_| waiting)?))
    }

    /// Notes in the backplane that this many of the client's messages were taken, and a call. `false` when the connection
    /// is another node's by now.
    pub(super) async fn note(&self, received: u64, call: Option<&str>) -> Result<bool, BackplaneError> {
        let Some(stateful) = self.stateful.get() else {
            return Ok(true);
        };
        let backplane = self.hub.shared().backplane();
        backplane
            .note(self.hub.name(), self.id(), stateful.version, received, call)
            .await
    }

    /// Whether the backplane still has this node as the owner of a stateful session, in its version.
    pub(super) async fn is_still_owned(&self) -> Result<bool, BackplaneError> {
        let Some(version) = self.version() else {
            return Ok(true);
        };
        let backplane = self.hub.shared().backplane();
        let listing = backplane.look_up(self.hub.name(), self.id()).await?;
        Ok(listing.is_some_and(|listing| listing.version == version && listing.owner.is_some()))
    }

    /// Has the connection never given up: the backplane does not know all that was taken from its client.
    pub(super) fn keep_here(&self) {
        if let Some(stateful) = self.stateful.get() {
            stateful.stays.store(true, Ordering::Release);
        }
    }

    /// Gives the connection up for another node. `false` where it goes on nowhere: the server has forgotten it, or does not
    /// know all that was taken from the client.
    pub(super) async fn park(&self) -> bool {
        let Some(stateful) = self.stateful.get() else {
            return true;
        };
        if stateful.stays.load(Ordering::Acquire) {
            return false;
        }
        let checkpoint = stateful.progress.lock().checkpoint.clone();
        let backplane = self.hub.shared().backplane();
        let parked = backplane.park(self.hub.name(), self.id(), stateful.version, checkpoint.as_ref());
        match parked.await {
            Ok(true) => true,
            Ok(false) => self.is_elsewhere(stateful.version).await,
            Err(error) => {
                tracing::warn!(connection_id = %self.id(), %error, "a connection could not be given up; whoever takes it over asks this node first");
                true
            }
        }
    }

    /// Whether the directory has the connection in a newer ownership than this session's.
    async fn is_elsewhere(&self, version: Version) -> bool {
        let backplane = self.hub.shared().backplane();
        match backplane.look_up(self.hub.name(), self.id()).await {
            Ok(Some(listing)) => listing.version != version,
            Ok(None) | Err(BackplaneError::Unsettled) => false,
            Err(error) => {
                tracing::debug!(connection_id = %self.id(), %error, "it is not known where a connection went");
                true
            }
        }
    }

    /// The connection was to move, and goes on nowhere.
    pub(super) fn be_gone(&self) {
        self.gone().cancel();
    }

    /// Takes a newer token of the same user, also for the nodes that the connection may move to. `false` when it has just
    /// moved. One that ends before the present one changes nothing.
    pub(crate) async fn renew(&self, identity: Identity) -> Result<bool, BackplaneError> {
        if self.connection.is_stale(&identity) {
            return Ok(true);
        }
        self.connection.renew(identity);
        let (Some(stateful), Some(protocol)) = (self.stateful.get(), self.connection.protocol()) else {
            return Ok(true);
        };
        let state = state_of(&self.connection, protocol);
        let backplane = self.hub.shared().backplane();
        backplane
            .restate(self.hub.name(), self.id(), stateful.version, state)
            .await
    }

    /// Tells the client how a call ended. Of a stateful session this works also after it moved.
    pub(super) async fn complete(&self, answering: Answering, outcome: Outcome) {
        if self.reason() == Some(&CloseReason::Aborted) {
            return; // the call, or another one, has ended the connection: its Close is all that the client is told
        }
        let outcome = self.result_as_message(&answering, outcome).await;
        match (answering.invocation_id, answering.call) {
            (Some(invocation_id), None) => {
                self.follow().await;
                self.push(&completion(invocation_id, outcome));
            }
            (None, None) => {}
            (invocation_id, Some(call)) => {
                let host = self.hub.shared().backplane().node();
                self.complete_call(&call, host, invocation_id, outcome).await;
            }
        }
    }

    /// Publishes a result to the client itself, where its protocol has no other way to tell it.
    async fn result_as_message(&self, answering: &Answering, outcome: Outcome) -> Outcome {
        let protocol = self.connection.protocol();
        let asked = answering
            .invocation_id
            .as_deref()
            .is_some_and(webpubsub::is_invoke);
        let Outcome::Result(result) = &outcome else {
            return outcome;
        };
        if asked || result.is_null() || !protocol.is_some_and(ClientProtocol::results_are_messages) {
            return outcome;
        }
        let topics = [Topic::Connection(self.id().clone())];
        let published = self
            .hub
            .publish(None, &topics, MESSAGE, vec![result.clone()], Vec::new());
        match published.await {
            Ok(()) => Outcome::Void,
            Err(error) => Outcome::Error(error.client_text().unwrap_or_else(|| INTERRUPTED.to_owned())),
        }
    }

    /// Tells the client of a call that was lost with `host`. Where it waits for no answer, the connection ends: it could not
    /// be told in another way.
    pub(super) async fn interrupt(&self, call: &str, host: &NodeId) {
        match invocation_of(call) {
            Some(id) => {
                let outcome = Outcome::Error(INTERRUPTED.to_owned());
                self.complete_call(call, host, Some(id.to_owned()), outcome).await;
            }
            None => self.end_call(call, host, Some(lost_envelope())).await,
        }
    }

    /// Ends a call that `host` runs. Once, whoever else tries.
    pub(super) async fn complete_call(
        &self,
        call: &str,
        host: &NodeId,
        invocation_id: Option<String>,
        outcome: Outcome,
    ) {
        let envelope = invocation_id.and_then(|id| self.envelope(&completion(id, outcome)));
        self.end_call(call, host, envelope).await;
    }

    async fn end_call(&self, call: &str, host: &NodeId, envelope: Option<wire::Envelope>) {
        let call = Call { id: call, host };
        for _ in 0..ANSWER_ATTEMPTS.0 {
            let backplane = self.hub.shared().backplane();
            let (hub, id) = (self.hub.name(), self.id());
            let answered = match &envelope {
                Some(envelope) => backplane.answer(hub, id, call, envelope, true).await,
                None => backplane.settle(hub, id, call).await.map(|_| None),
            };
            match answered {
                Ok(place) => return self.connection.note_sent(place.unwrap_or_default()),
                Err(error) if error.is_transient() => {
                    tracing::debug!(connection_id = %self.id(), %error, "a completion has to wait");
                }
                Err(error) => {
                    tracing::warn!(connection_id = %self.id(), %error, "a completion could not be written");
                    break;
                }
            }
            sleep(ANSWER_ATTEMPTS.1).await;
        }
        if self.has_moved() {
            self.end_elsewhere().await;
        }
        self.close(CloseReason::LogLost(
            "an answer could not be written to the backplane",
        ));
    }

    /// Has the node that the connection moved to tell its client that something is lost.
    async fn end_elsewhere(&self) {
        let topics = [Topic::Connection(self.id().clone())];
        let backplane = self.hub.shared().backplane();
        let told = backplane
            .publish(self.hub.name(), &topics, &lost_envelope())
            .await;
        if let Err(error) = told {
            tracing::warn!(connection_id = %self.id(), %error, "a client can't be told that an answer is lost");
        }
    }

    /// Sends an item of a stream to the client, not before it has read what is before it.
    pub(super) async fn send_item(&self, answering: &Answering, item: &HubMessage) -> Sent {
        let Some(call) = &answering.call else {
            self.follow().await;
            return Sent::from(self.push_waiting(item).await);
        };
        self.outbox.at_most(self.high_water()).await;
        if self.has_moved() && !self.pace().await {
            return Sent::Unwanted;
        }
        let Some(envelope) = self.envelope(item) else {
            return Sent::Yes;
        };
        let backplane = self.hub.shared().backplane();
        let call = Call {
            id: call,
            host: backplane.node(),
        };
        match backplane
            .answer(self.hub.name(), self.id(), call, &envelope, false)
            .await
        {
            Ok(place) => {
                self.connection.note_sent(place.unwrap_or_default());
                Sent::from(place.is_some())
            }
            Err(error) => {
                tracing::warn!(connection_id = %self.id(), %error, "an item of a stream could not be written");
                Sent::Unsure
            }
        }
    }

    /// Waits, now and then, until the client reads on, wherever it is. `false` when the connection has ended.
    async fn pace(&self) -> bool {
        let Some(stateful) = self.stateful.get() else {
            return true;
        };
        if !stateful
            .paced
            .fetch_add(1, Ordering::Relaxed)
            .is_multiple_of(PACE)
        {
            return true;
        }
        loop {
            let backplane = self.hub.shared().backplane();
            match backplane.look_up(self.hub.name(), self.id()).await {
                Ok(None) => return false,
                Ok(Some(Listing {
                    owner: Some(owner), ..
                })) => {
                    if self.hub.shared().peers().drained(self, &owner).await {
                        return true;
                    }
                }
                // Nobody has it: its client is on its way, or the window ends.
                Ok(Some(_)) | Err(_) => {}
            }
            sleep(LOOK).await;
        }
    }

    /// Waits until the client has read most of what was sent to it.
    pub(crate) async fn drained(&self) {
        self.outbox.at_most(self.high_water()).await;
    }

    /// Sends the client a message that answers nothing, in its place among the others that it receives. `false` where it
    /// could not be sent.
    pub(super) async fn send(&self, message: &HubMessage) -> bool {
        let Some(envelope) = self.envelope(message) else {
            return false;
        };
        let topics = [Topic::Connection(self.id().clone())];
        let backplane = self.hub.shared().backplane();
        match backplane.publish(self.hub.name(), &topics, &envelope).await {
            Ok(receipts) => receipts.iter().any(Option::is_some),
            Err(error) => {
                tracing::warn!(connection_id = %self.id(), %error, "a message could not be written");
                false
            }
        }
    }

    /// A message to this client alone, on its way through the log.
    fn envelope(&self, message: &HubMessage) -> Option<wire::Envelope> {
        Some(wire::Envelope {
            frame: self.encode_bare(message)?,
            ..wire::Envelope::default()
        })
    }
}

/// Ends whoever receives it, because something of theirs was lost.
fn lost_envelope() -> wire::Envelope {
    wire::Envelope {
        close: Some(wire::Close {
            reason: None,
            lost: true,
        }),
        ..wire::Envelope::default()
    }
}

fn completion(invocation_id: String, outcome: Outcome) -> HubMessage {
    HubMessage::Completion {
        headers: Vec::new(),
        invocation_id,
        outcome,
    }
}
