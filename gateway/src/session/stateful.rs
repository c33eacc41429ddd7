//! The part of a session that outlives its socket: its ownership, and the client's offset, so that another node can go
//! on with it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use hubcast_backplane::{BackplaneError, Checkpoint, Epoch, Position, Version};
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::mode::Mode;
use super::restore::state_of;
use super::{CloseReason, PushError, Session};
use crate::auth::Identity;
use crate::protocol::{ClientProtocol, HubMessage};

/// A session whose client numbers its messages and comes back after a lost socket, here or on another node.
pub(super) struct Stateful {
    version: Version,
    epoch: Epoch,
    progress: Mutex<CheckpointProgress>,
    /// Ends when the connection does: not when it moves to another node.
    gone: CancellationToken,
    /// Set when the session has left everything: other nodes may take it over.
    is_ended: AtomicBool,
    ended: Notify,
    /// Items that calls sent after the connection moved.
    pub(super) paced: AtomicU64,
    /// Set when the session must not be given up.
    stays: AtomicBool,
}

/// The outcome of writing something down that the connection's owner alone may write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ownership {
    /// It was written, or there was no need to.
    Kept,
    /// The connection is another node's by now, or no node's.
    Lost,
}

impl Ownership {
    /// `recorded`: the backplane found this node to be the owner.
    fn from_recorded(recorded: bool) -> Self {
        if recorded { Self::Kept } else { Self::Lost }
    }
}

/// The outcome of giving a connection up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Parking {
    /// It goes on, on another node or when its client comes back.
    GoesOn,
    /// It goes on nowhere: the server has forgotten it, or does not know all that was taken from the client.
    Over,
}

#[derive(Default)]
struct CheckpointProgress {
    /// Up to where the client is known to have everything.
    checkpoint: Option<Checkpoint>,
    /// True if it waits to be written down.
    waiting: bool,
}

impl Stateful {
    pub(super) fn new(version: Version, epoch: Epoch) -> Self {
        Self {
            version,
            epoch,
            progress: Mutex::default(),
            gone: CancellationToken::new(),
            is_ended: AtomicBool::new(false),
            ended: Notify::new(),
            paced: AtomicU64::new(0),
            stays: AtomicBool::new(false),
        }
    }
}

impl Session {
    /// Returns whether the connection outlives its socket.
    pub(crate) fn is_stateful(&self) -> bool {
        self.stateful().is_some()
    }

    pub(super) fn set_stateful(&self, stateful: Stateful) {
        let Mode::Resumable(resumable) = &self.mode else {
            return;
        };
        let epoch = stateful.epoch.clone();
        if resumable.stateful.set(stateful).is_ok() {
            self.hub.checkpoints().arrive(&self.hub);
        }
        // A new epoch that began since the connection entered has closed only those that were stateful by then.
        if self.hub.sink().epoch().is_some_and(|now| *now != epoch) {
            self.close(CloseReason::LogLost("the backplane lost messages"));
        }
        if self.closing.is_cancelled() && !self.has_moved() {
            self.gone().cancel(); // it was closed before there was this to end
        }
    }

    /// Ends once the connection has ended, wherever.
    pub(crate) fn gone(&self) -> &CancellationToken {
        self.stateful().map_or(&self.closing, |stateful| &stateful.gone)
    }

    /// Ends once a stateful session has left everything; at once for another one.
    pub(crate) async fn ended(&self) {
        let Some(stateful) = self.stateful() else { return };
        let ended = stateful.ended.notified(); // before the look
        if !stateful.is_ended.load(Ordering::Acquire) {
            ended.await;
        }
    }

    pub(super) fn be_ended(&self) {
        if let Some(stateful) = self.stateful() {
            stateful.is_ended.store(true, Ordering::Release);
            stateful.ended.notify_waiters();
        }
    }

    /// The ownership that this session speaks for, if it is stateful.
    pub(crate) fn version(&self) -> Option<Version> {
        self.stateful().map(|stateful| stateful.version)
    }

    /// Goes on where another session of the connection ended: `kept` are the frames that the client may lack, with
    /// offsets in the log, the first of them with the number after `sequence`. Where it is not all, `more` follows.
    pub(super) fn go_on(
        &self,
        sequence: u64,
        kept: VecDeque<(Bytes, u64)>,
        more: bool,
    ) -> Result<(), PushError> {
        self.outbox
            .go_on(sequence.saturating_add(1), kept, more, |sequence_id| {
                self.encode(&HubMessage::Sequence { sequence_id })
            })
    }

    /// The client has received numbered messages up to this one.
    pub(super) fn acknowledge(self: &Arc<Self>, sequence_id: u64) {
        let Some(stateful) = self.stateful() else {
            return;
        };
        let progress = stateful.progress.lock();
        let acknowledged = if self
            .connection
            .protocol()
            .is_some_and(ClientProtocol::is_reliable)
        {
            self.outbox.acknowledge_place(sequence_id) // its sequence ids are offsets
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
            .stateful()
            .filter(|stateful| stateful.epoch == position.epoch)
        else {
            return;
        };
        let progress = stateful.progress.lock();
        // Asked for after `position`: messages up to there are acknowledged, or counted as waiting.
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

    fn reach(self: &Arc<Self>, mut progress: MutexGuard<'_, CheckpointProgress>, checkpoint: Checkpoint) {
        progress.checkpoint = Some(checkpoint);
        if !std::mem::replace(&mut progress.waiting, true) {
            drop(progress);
            self.hub.checkpoints().add(&self.hub, self);
        }
    }

    /// The checkpoint that waits to be written down.
    pub(crate) fn take_checkpoint(&self) -> Option<(Version, Checkpoint)> {
        let stateful = self.stateful()?;
        let mut progress = stateful.progress.lock();
        let waiting = std::mem::take(&mut progress.waiting) && !self.closing.is_cancelled();
        Some((stateful.version, progress.checkpoint.clone().filter(|_| waiting)?))
    }

    /// Records in the backplane that this many of the client's messages were taken, and a call.
    pub(super) async fn note(&self, received: u64, call: Option<&str>) -> Result<Ownership, BackplaneError> {
        let Some(stateful) = self.stateful() else {
            return Ok(Ownership::Kept);
        };
        let backplane = self.hub.backplane();
        let recording = backplane.record(self.id(), stateful.version, received, call);
        recording.await.map(Ownership::from_recorded)
    }

    /// Returns whether the backplane still has this node as the owner of a stateful session, in its version.
    pub(super) async fn is_still_owned(&self) -> Result<bool, BackplaneError> {
        let Some(version) = self.version() else {
            return Ok(true);
        };
        let backplane = self.hub.backplane();
        let listing = backplane.look_up(self.id()).await?;
        Ok(listing.is_some_and(|listing| listing.version == version && listing.owner.is_some()))
    }

    /// Has the connection never given up: the backplane does not know all that was taken from its client.
    pub(super) fn keep_here(&self) {
        if let Some(stateful) = self.stateful() {
            stateful.stays.store(true, Ordering::Release);
        }
    }

    /// Gives the connection up for another node.
    pub(super) async fn park(&self) -> Parking {
        let Some(stateful) = self.stateful() else {
            return Parking::GoesOn;
        };
        if stateful.stays.load(Ordering::Acquire) {
            return Parking::Over;
        }
        let checkpoint = stateful.progress.lock().checkpoint.clone();
        let backplane = self.hub.backplane();
        let parked = backplane.park(self.id(), stateful.version, checkpoint.as_ref());
        match parked.await {
            Ok(true) => Parking::GoesOn,
            Ok(false) if self.is_elsewhere(stateful.version).await => Parking::GoesOn,
            Ok(false) => Parking::Over,
            Err(error) => {
                tracing::warn!(connection_id = %self.id(), %error, "a connection could not be given up; whoever takes it over asks this node first");
                Parking::GoesOn
            }
        }
    }

    /// Returns whether the directory has the connection in a newer ownership than this session's.
    async fn is_elsewhere(&self, version: Version) -> bool {
        let backplane = self.hub.backplane();
        match backplane.look_up(self.id()).await {
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

    /// Takes a newer token of the same user, also for the nodes that the connection may move to.
    pub(crate) async fn renew(&self, identity: &Identity) -> Result<Ownership, BackplaneError> {
        self.connection.renew(identity);
        self.write_state().await
    }

    /// Writes the connection's state down anew, for the nodes that it may move to.
    pub(crate) async fn write_state(&self) -> Result<Ownership, BackplaneError> {
        let (Some(stateful), Some(protocol)) = (self.stateful(), self.connection.protocol()) else {
            return Ok(Ownership::Kept);
        };
        let state = state_of(&self.connection, protocol);
        let backplane = self.hub.backplane();
        let restating = backplane.restate(self.id(), stateful.version, state);
        restating.await.map(Ownership::from_recorded)
    }
}
