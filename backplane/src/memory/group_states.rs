//! The states of members in their groups.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::time::Instant;

use super::hub::{HubState, MemoryHub};
use super::lane::Item;
use crate::error::BackplaneError;
use crate::group_states::{
    GroupStates, MAX_GROUP_BYTES, MemberState, StateSet, StatesSnapshot, array, item, message,
};
use crate::position::Position;
use crate::topic::{ConnectionId, GroupName, Topic, UserId};

/// The items of members that have a state, by group.
#[derive(Default)]
pub(super) struct HeldStates(HashMap<GroupName, BTreeMap<ConnectionId, Bytes>>);

impl HeldStates {
    /// The bytes of a group's states without that of one member.
    fn bytes_of_others(&self, group: &GroupName, id: &ConnectionId) -> usize {
        let held = self.0.get(group).into_iter().flatten();
        held.filter(|(member, _)| *member != id)
            .map(|(_, item)| item.len())
            .sum()
    }

    fn set(&mut self, group: &GroupName, id: &ConnectionId, item: Bytes) {
        self.0.entry(group.clone()).or_default().insert(id.clone(), item);
    }

    /// Forgets a member's state; `false` where it had none.
    fn clear(&mut self, group: &GroupName, id: &ConnectionId) -> bool {
        let Some(held) = self.0.get_mut(group) else {
            return false;
        };
        let had = held.remove(id).is_some();
        if held.is_empty() {
            self.0.remove(group);
        }
        had
    }
}

/// The present time in milliseconds since 1970.
fn now() -> u128 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.as_ref().map_or(0, Duration::as_millis)
}

impl HubState {
    /// Deletes the state of a member that leaves its group, and announces that.
    pub(super) fn end_state(&mut self, topic: &Topic, id: &ConnectionId, user: Option<&UserId>) {
        if let Topic::Group(group) = topic
            && self.states.clear(group, id)
        {
            let cleared = item(id, user, None, now());
            self.append_own(GroupName::states_of(group), message(&cleared));
        }
    }

    /// `None` where the connection has no owner.
    fn set_state(
        &mut self,
        id: &ConnectionId,
        group: &GroupName,
        state: Option<&MemberState>,
    ) -> Option<StateSet> {
        let connection = self.connections.get(id).filter(|known| known.parked.is_none())?;
        if !connection.groups.contains(group) || group.is_reserved() {
            return Some(StateSet::NotMember);
        }
        let item = item(id, connection.user.as_ref(), state, now());
        if state.is_some() {
            let bytes = self.states.bytes_of_others(group, id).saturating_add(item.len());
            if bytes > MAX_GROUP_BYTES {
                return Some(StateSet::GroupFull);
            }
            self.states.set(group, id, item.clone());
        } else if !self.states.clear(group, id) {
            return Some(StateSet::Nothing);
        }
        Some(StateSet::Now(
            self.append_own(GroupName::states_of(group), message(&item)),
        ))
    }
}

impl GroupStates for MemoryHub {
    fn set_state<'a>(
        &'a self,
        connection: &'a ConnectionId,
        group: &'a GroupName,
        state: Option<&'a MemberState>,
        once: Option<&'a str>,
    ) -> BoxFuture<'a, Result<StateSet, BackplaneError>> {
        async move {
            let room = self.room().await?;
            let mut held = self.state.lock();
            let now = Instant::now();
            if once.is_some_and(|once| held.requests.get(once).is_some_and(|(_, end)| *end > now)) {
                return Ok(StateSet::Before);
            }
            let set = held
                .set_state(connection, group, state)
                .ok_or_else(|| BackplaneError::NotOwner {
                    connection: connection.clone(),
                })?;
            if let (StateSet::Now(_) | StateSet::Nothing, Some(once)) = (set, once) {
                let known = (Bytes::new(), now + self.options.retention);
                held.requests.insert(once.to_owned(), known);
            }
            let deliveries = std::mem::take(&mut held.deliveries);
            if !deliveries.is_empty() {
                room.send(Item {
                    deliveries,
                    ..Item::default()
                });
            }
            Ok(set)
        }
        .boxed()
    }

    fn states<'a>(&'a self, group: &'a GroupName) -> BoxFuture<'a, Result<StatesSnapshot, BackplaneError>> {
        async move {
            let state = self.state.lock();
            let held = state.states.0.get(group);
            Ok(StatesSnapshot {
                position: Position {
                    epoch: self.epoch.clone(),
                    offset: state.log.last(),
                },
                items: array(held.into_iter().flatten().map(|(_, item)| item)),
            })
        }
        .boxed()
    }
}
