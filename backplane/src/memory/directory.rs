//! Queries about the connections of a node that is alone.

use std::collections::{BTreeSet, HashMap};
use std::ops::Bound;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::time::Instant;

use super::hub::{HubState, MemoryHub};
use crate::backplane::{ConnectionRecord, End};
use crate::directory::{
    ConnectionStatistics, Directory, Members, Parked, ParkedCursor, Present, USER_GROUP_TTL,
};
use crate::error::BackplaneError;
use crate::topic::{ConnectionId, GroupName, Topic, UserId};

/// The connections of groups and users, and the groups that users' connections are to join.
#[derive(Default)]
pub(super) struct GroupMembers {
    members: HashMap<Topic, BTreeSet<ConnectionId>>,
    /// Number of the topics that are groups, without reserved ones.
    groups: u64,
    /// Number of parked connections.
    pub(super) parked: u64,
    /// The groups that users' connections are to join, with their expiry.
    user_groups: HashMap<UserId, HashMap<GroupName, Instant>>,
}

impl GroupMembers {
    /// Lists a connection under a topic; `false` where it was listed.
    pub(super) fn list(&mut self, topic: &Topic, id: &ConnectionId) -> bool {
        let groups = &mut self.groups;
        let members = self.members.entry(topic.clone()).or_insert_with(|| {
            *groups += u64::from(is_counted(topic));
            BTreeSet::new()
        });
        members.insert(id.clone())
    }

    /// Removes a connection from a topic's list; `false` where it was not listed.
    pub(super) fn unlist(&mut self, topic: &Topic, id: &ConnectionId) -> bool {
        let Some(members) = self.members.get_mut(topic) else {
            return false;
        };
        let listed = members.remove(id);
        if members.is_empty() {
            self.members.remove(topic);
            self.groups -= u64::from(is_counted(topic));
        }
        listed
    }

    /// Returns whether a topic has a member.
    pub(super) fn has(&self, topic: &Topic) -> bool {
        self.members.contains_key(topic)
    }

    pub(super) fn user_groups(&self, user: &UserId) -> Vec<GroupName> {
        let now = Instant::now();
        let known = self.user_groups.get(user).into_iter().flatten();
        let mut groups: Vec<_> = known
            .filter(|(_, end)| **end > now)
            .map(|(group, _)| group.clone())
            .collect();
        groups.sort();
        groups
    }

    fn join_user(&mut self, user: &UserId, group: &GroupName, ttl: Option<Duration>, most: usize) {
        let now = Instant::now();
        let groups = self.user_groups.entry(user.clone()).or_default();
        groups.retain(|_, end| *end > now);
        while !groups.contains_key(group) && groups.len() >= most.max(1) {
            let first = groups.iter().min_by_key(|(_, end)| **end);
            let Some(first) = first.map(|(group, _)| group.clone()) else {
                break;
            };
            groups.remove(&first);
        }
        let ttl = ttl.map_or(USER_GROUP_TTL, |ttl| ttl.min(USER_GROUP_TTL));
        groups.insert(group.clone(), now + ttl);
    }

    fn leave_user(&mut self, user: &UserId, group: Option<&GroupName>) {
        let Some(groups) = self.user_groups.get_mut(user) else {
            return;
        };
        match group {
            Some(group) => drop(groups.remove(group)),
            None => groups.clear(),
        }
        if groups.is_empty() {
            self.user_groups.remove(user);
        }
    }

    /// Drops expired groups of users.
    pub(super) fn sweep(&mut self, now: Instant) {
        self.user_groups.retain(|_, groups| {
            groups.retain(|_, end| *end > now);
            !groups.is_empty()
        });
    }

    fn of(&self, of: Members<'_>) -> Option<&BTreeSet<ConnectionId>> {
        self.members.get(&match of {
            Members::Group(group) => Topic::Group(group.clone()),
            Members::User(user) => Topic::User(user.clone()),
        })
    }

    fn page(&self, of: Members<'_>, after: Option<&ConnectionId>, limit: usize) -> Vec<ConnectionId> {
        let Some(members) = self.of(of) else {
            return Vec::new();
        };
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let rest = members.range::<ConnectionId, _>((from, Bound::Unbounded));
        rest.take(limit).cloned().collect()
    }
}

/// Returns whether a topic is a group that the statistics counts.
fn is_counted(topic: &Topic) -> bool {
    matches!(topic, Topic::Group(group) if !group.is_reserved())
}

impl HubState {
    fn present(&self, group: &GroupName, after: Option<&ConnectionId>, limit: usize) -> Vec<Present> {
        let page = self.members.page(Members::Group(group), after, limit);
        let present = |connection: ConnectionId| Present {
            user: self
                .connections
                .get(&connection)
                .and_then(|known| known.user.clone()),
            connection,
        };
        page.into_iter().map(present).collect()
    }

    fn parked(&self, of: Option<Members<'_>>) -> Vec<ConnectionId> {
        let within = of.map(|of| self.members.of(of));
        let listed = |id: &ConnectionId| within.is_none_or(|ids| ids.is_some_and(|ids| ids.contains(id)));
        self.connections
            .iter()
            .filter(|(id, connection)| connection.parked.is_some() && listed(id))
            .map(|(id, _)| id.clone())
            .collect()
    }

    fn remove_parked(&mut self, id: &ConnectionId, end: &End) -> Option<ConnectionRecord> {
        let connection = self.connections.get(id)?;
        connection.parked?;
        let record = connection.record(id);
        self.take(id, &end.reason);
        self.tombstones.insert(id.clone(), Instant::now() + end.tombstone);
        Some(record)
    }
}

impl MemoryHub {
    fn with_state<'a, T: Send + 'a>(
        &'a self,
        work: impl FnOnce(&mut HubState) -> T + Send + 'a,
    ) -> BoxFuture<'a, Result<T, BackplaneError>> {
        async move { Ok(work(&mut self.state.lock())) }.boxed()
    }
}

impl Directory for MemoryHub {
    fn count<'a>(&'a self, of: Members<'a>) -> BoxFuture<'a, Result<u64, BackplaneError>> {
        self.with_state(move |state| state.members.of(of).map_or(0, |members| members.len() as u64))
    }

    fn contains<'a>(
        &'a self,
        of: Members<'a>,
        connection: &'a ConnectionId,
    ) -> BoxFuture<'a, Result<bool, BackplaneError>> {
        self.with_state(move |state| {
            state
                .members
                .of(of)
                .is_some_and(|members| members.contains(connection))
        })
    }

    fn page<'a>(
        &'a self,
        of: Members<'a>,
        after: Option<&'a ConnectionId>,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<ConnectionId>, BackplaneError>> {
        self.with_state(move |state| state.members.page(of, after, limit))
    }

    fn present<'a>(
        &'a self,
        group: &'a GroupName,
        after: Option<&'a ConnectionId>,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<Present>, BackplaneError>> {
        self.with_state(move |state| state.present(group, after, limit))
    }

    fn groups<'a>(
        &'a self,
        connection: &'a ConnectionId,
    ) -> BoxFuture<'a, Result<Vec<GroupName>, BackplaneError>> {
        self.with_state(move |state| {
            let known = state.connections.get(connection);
            let mut groups: Vec<_> = known
                .into_iter()
                .flat_map(|known| known.groups.iter().filter(|group| !group.is_reserved()).cloned())
                .collect();
            groups.sort();
            groups
        })
    }

    fn connection_statistics(&self) -> BoxFuture<'_, Result<ConnectionStatistics, BackplaneError>> {
        let node = self.node.clone();
        self.with_state(move |state| ConnectionStatistics {
            nodes: vec![(node, state.connections.len() as u64 - state.members.parked)],
            parked: state.members.parked,
            groups: state.members.groups,
        })
    }

    fn join_user<'a>(
        &'a self,
        user: &'a UserId,
        group: &'a GroupName,
        ttl: Option<Duration>,
        most: usize,
    ) -> BoxFuture<'a, Result<(), BackplaneError>> {
        self.with_state(move |state| state.members.join_user(user, group, ttl, most))
    }

    fn leave_user<'a>(
        &'a self,
        user: &'a UserId,
        group: Option<&'a GroupName>,
    ) -> BoxFuture<'a, Result<(), BackplaneError>> {
        self.with_state(move |state| state.members.leave_user(user, group))
    }

    fn user_groups<'a>(&'a self, user: &'a UserId) -> BoxFuture<'a, Result<Vec<GroupName>, BackplaneError>> {
        self.with_state(move |state| state.members.user_groups(user))
    }

    fn is_user_in<'a>(
        &'a self,
        user: &'a UserId,
        group: &'a GroupName,
    ) -> BoxFuture<'a, Result<bool, BackplaneError>> {
        self.with_state(move |state| {
            let groups = state.members.user_groups.get(user);
            groups
                .and_then(|groups| groups.get(group))
                .is_some_and(|end| *end > Instant::now())
        })
    }

    fn parked<'a>(
        &'a self,
        of: Option<Members<'a>>,
        _from: ParkedCursor,
    ) -> BoxFuture<'a, Result<Parked, BackplaneError>> {
        self.with_state(move |state| Parked {
            connections: state.parked(of),
            next: None,
        })
    }

    fn remove_parked<'a>(
        &'a self,
        connection: &'a ConnectionId,
        end: End,
    ) -> BoxFuture<'a, Result<Option<ConnectionRecord>, BackplaneError>> {
        async move { Ok(self.removing(|state| state.remove_parked(connection, &end)).await) }.boxed()
    }
}
