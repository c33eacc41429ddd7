//! The states of groups: what a client says of itself, and the groups whose states it follows.
//!
//! A client that follows a group is a member of the reserved group whose messages are the changes
//! ([`GroupName::states_of`]). It gets a snapshot, and the changes that come after the place in the log where that was read;
//! those that are delivered meanwhile wait for it. None of these messages is numbered, so a client that was away gets a
//! new snapshot, and what was sent to it before is not sent again.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hubcast_backplane::group_states::MAX_GROUP_BYTES;
use hubcast_backplane::{Gap, GroupName, MemberState, Offset, StateSet, Topic};
use tokio::time::sleep;

use super::outgoing::Delivered;
use super::requests::{Refusal, lacking, parse};
use super::{CloseReason, Session};
use crate::hub::Snapshot;
use crate::protocol::GroupStateWish;
use crate::protocol::webpubsub::{self, RefusedAs};

/// How long is waited for a backplane that can't be reached, and for a lane that has not come to a new log.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_millis(20));

/// The groups whose states a client follows.
#[derive(Default)]
pub(super) struct Followed {
    groups: HashMap<GroupName, FollowStage>,
    /// The number of the last reading that was begun.
    readings: u64,
}

/// How far a client is with the states of a group.
enum FollowStage {
    /// The client gets a snapshot later, so changes are not for it.
    Waiting,
    /// A snapshot is read; the changes that were delivered since that began wait for it.
    Reading(SnapshotReading),
    /// The client has a snapshot of this place, and gets the changes after it.
    After(Offset),
}

#[derive(Default)]
struct SnapshotReading {
    number: u64,
    changes: Vec<(Offset, Bytes)>,
    bytes: usize,
    /// So many changes came that they were dropped: a newer snapshot has them.
    overrun: bool,
}

/// A snapshot that is to be read.
struct WantedSnapshot {
    group: GroupName,
    number: u64,
}

/// The outcome of sending a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SnapshotOutcome {
    /// It is on its way, or not wanted any more.
    Done,
    /// It is of another log than the changes, or some changes are neither in it nor here.
    Again,
}

impl Followed {
    /// Begins to read a snapshot of each group of which one is wanted.
    fn begin(&mut self, is_wanted: impl Fn(&GroupName) -> bool) -> Vec<WantedSnapshot> {
        let mut wanted = Vec::new();
        for (group, stage) in &mut self.groups {
            if is_wanted(group) {
                self.readings = self.readings.saturating_add(1);
                let number = self.readings;
                *stage = FollowStage::Reading(SnapshotReading {
                    number,
                    ..SnapshotReading::default()
                });
                let group = group.clone();
                wanted.push(WantedSnapshot { group, number });
            }
        }
        wanted
    }
}

impl Session {
    /// Serves a request about states. `Ok` with a group: the client follows it from now on, and gets a snapshot.
    pub(super) async fn serve_states(
        &self,
        wish: GroupStateWish,
        ack_id: Option<u64>,
    ) -> Result<Option<GroupName>, Refusal> {
        match wish {
            GroupStateWish::Set { group, state } => {
                self.set_state(&group, state.as_ref(), ack_id).await?;
                Ok(None)
            }
            GroupStateWish::Subscribe(group) => self.follow_states(&group).await.map(Some),
            GroupStateWish::Unsubscribe(group) => {
                let group = parse(&group)?;
                let reserved = GroupName::states_of(&group);
                let leaving = self.hub.change_local_group(self.id(), &reserved, false);
                leaving.await.map_err(|error| self.refusal(&error))?;
                self.forget_states(&group);
                Ok(None)
            }
        }
    }

    async fn set_state(
        &self,
        group: &str,
        state: Option<&BTreeMap<String, String>>,
        ack_id: Option<u64>,
    ) -> Result<(), Refusal> {
        if !self.connection.identity().permissions().may_send_to_group(group) {
            return Err(lacking("send", group));
        }
        let bad = |text: String| (RefusedAs::BadRequest, text);
        let group = parse(group)?;
        let state = state.map(MemberState::new).transpose();
        let state = state.map_err(|error| bad(format!("{error}: set less")))?;
        let once = ack_id.map(|ack_id| self.request_key(ack_id));
        let backplane = self.hub.backplane();
        let setting = backplane.set_state(self.id(), &group, state.as_ref(), once.as_deref());
        match setting.await.map_err(|error| self.refusal(&error.into()))? {
            StateSet::Now(offset) => {
                if self.receives_topic(&Topic::Group(GroupName::states_of(&group))) {
                    self.connection.note_sent(offset); // its own change comes before the ack
                }
                Ok(())
            }
            StateSet::Nothing => Ok(()),
            StateSet::Before => {
                self.follow_all().await; // it was done on whatever node, at a place that is not known here
                let text = webpubsub::duplicate(ack_id.unwrap_or_default());
                Err((RefusedAs::Duplicate, text))
            }
            StateSet::NotMember => Err(bad(format!(
                "The connection is not in the group {group:?}: join it first. A state lasts as long as the membership."
            ))),
            StateSet::GroupFull => Err(bad(format!(
                "The states of all members of the group {group:?} would take more than {MAX_GROUP_BYTES} bytes: set less, \
                 or use more groups."
            ))),
        }
    }

    async fn follow_states(&self, group: &str) -> Result<GroupName, Refusal> {
        if !self.connection.identity().permissions().may_join(group) {
            return Err(lacking("join", group));
        }
        let group = parse(group)?;
        let is_new = self.await_states(&group);
        let joining = GroupName::states_of(&group);
        let joining = self.hub.change_local_group(self.id(), &joining, true);
        if let Err(error) = joining.await {
            if is_new {
                self.forget_states(&group);
            }
            return Err(self.refusal(&error));
        }
        Ok(group)
    }

    /// Records that the client follows a group and gets a snapshot later; `false` where it followed it before.
    fn await_states(&self, group: &GroupName) -> bool {
        let mut followed = self.followed.lock();
        let followed = followed.get_or_insert_default();
        let is_new = !followed.groups.contains_key(group);
        if is_new {
            followed.groups.insert(group.clone(), FollowStage::Waiting);
        }
        is_new
    }

    fn forget_states(&self, group: &GroupName) {
        let mut held = self.followed.lock();
        if let Some(followed) = held.as_mut() {
            followed.groups.remove(group);
            if followed.groups.is_empty() {
                *held = None;
            }
        }
    }

    /// Takes over the groups that the client followed on another node. It gets snapshots on its next socket.
    pub(super) fn take_over_states(&self, groups: &[GroupName]) {
        for group in groups.iter().filter_map(GroupName::with_states) {
            self.await_states(&group);
        }
    }

    /// Sends a change of a state, or keeps it for the end of a snapshot that is being read.
    pub(super) fn deliver_state(&self, group: &GroupName, frame: Bytes, place: Offset) -> Delivered {
        let mut followed = self.followed.lock();
        let stage = followed
            .as_mut()
            .and_then(|followed| followed.groups.get_mut(group));
        match stage {
            None | Some(FollowStage::Waiting) => Delivered::No,
            Some(FollowStage::After(snapshot)) if place <= *snapshot => Delivered::No,
            Some(FollowStage::After(_)) => self.append(frame, None),
            Some(FollowStage::Reading(reading)) => {
                reading.bytes = reading.bytes.saturating_add(frame.len());
                if reading.bytes > MAX_GROUP_BYTES {
                    (reading.changes, reading.overrun) = (Vec::new(), true);
                } else if !reading.overrun {
                    reading.changes.push((place, frame));
                }
                Delivered::No
            }
        }
    }

    fn wanted(&self, is_wanted: impl Fn(&GroupName) -> bool) -> Vec<WantedSnapshot> {
        let mut followed = self.followed.lock();
        let followed = followed.as_mut();
        followed.map_or_else(Vec::new, |followed| followed.begin(is_wanted))
    }

    /// Sends a client that has begun to follow a group the snapshot.
    pub(super) async fn send_states(&self, group: &GroupName) {
        for wanted in self.wanted(|followed| followed == group) {
            self.send_snapshot(&wanted).await;
        }
    }

    /// The client has lost its socket: it gets snapshots when it has a new one, in place of the changes until then.
    pub(super) fn pause_states(&self) {
        if let Some(followed) = self.followed.lock().as_mut() {
            for stage in followed.groups.values_mut() {
                *stage = FollowStage::Waiting;
            }
        }
    }

    /// Sends snapshots to a client that has a new socket: it may lack changes.
    pub(crate) fn resume_states(self: &Arc<Self>) {
        self.read_anew(self.wanted(|_| true));
    }

    /// Changes may be missing that this node was to deliver.
    pub(crate) fn states_may_lack(self: &Arc<Self>, gap: &Gap) {
        self.read_anew(match gap {
            Gap::NewEpoch(_) => self.wanted(|_| true),
            Gap::Trimmed(Topic::Group(reserved)) => match reserved.with_states() {
                Some(group) => self.wanted(|followed| *followed == group),
                None => return,
            },
            Gap::Trimmed(_) => return,
        });
    }

    fn read_anew(self: &Arc<Self>, wanted: Vec<WantedSnapshot>) {
        if wanted.is_empty() {
            return;
        }
        let session = Arc::clone(self);
        self.hub.shared().tasks().spawn(async move {
            for wanted in wanted {
                session.send_snapshot(&wanted).await;
            }
        });
    }

    async fn send_snapshot(&self, wanted: &WantedSnapshot) {
        tokio::select! {
            () = self.closing.cancelled() => {}
            () = self.read_and_send(wanted) => {}
        }
    }

    async fn read_and_send(&self, wanted: &WantedSnapshot) {
        loop {
            let pause = match self.hub.snapshot(&wanted.group).await {
                Ok(snapshot) if self.begin_with(wanted, &snapshot) == SnapshotOutcome::Done => return,
                Ok(_) => PAUSES.1,
                Err(error) if error.is_transient() => {
                    tracing::debug!(connection_id = %self.id(), %error, "the states of a group can't be read yet");
                    PAUSES.0
                }
                Err(error) => {
                    tracing::warn!(connection_id = %self.id(), %error, "the states of a group can't be read");
                    return self.close(CloseReason::LogLost("the states of a group can't be read"));
                }
            };
            sleep(pause).await;
        }
    }

    /// Sends a snapshot, then the changes that came after it. From here on changes are sent as they come.
    fn begin_with(&self, wanted: &WantedSnapshot, snapshot: &Snapshot) -> SnapshotOutcome {
        let is_same_log = self.hub.backplane().epoch() == snapshot.position.epoch;
        let mut followed = self.followed.lock();
        let stage = followed
            .as_mut()
            .and_then(|followed| followed.groups.get_mut(&wanted.group));
        let Some(stage) = stage else {
            return SnapshotOutcome::Done;
        };
        let reading = match stage {
            FollowStage::Reading(reading) if reading.number == wanted.number => reading,
            _ => return SnapshotOutcome::Done,
        };
        if !is_same_log || reading.overrun {
            let number = reading.number;
            *reading = SnapshotReading {
                number,
                ..SnapshotReading::default()
            };
            return SnapshotOutcome::Again;
        }
        let changes = std::mem::take(&mut reading.changes);
        let place = snapshot.position.offset;
        *stage = FollowStage::After(place);
        self.push_frame(snapshot.frame.clone());
        for (_, change) in changes.into_iter().filter(|(changed, _)| *changed > place) {
            self.push_frame(change);
        }
        SnapshotOutcome::Done
    }
}
