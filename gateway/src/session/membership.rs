//! Topics and memberships of a session: kept by the registry and the hub.

use hubcast_backplane::{GroupName, Topic};

use super::Session;
use crate::limits::ConnectionPermit;

/// The effect of recording or forgetting a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MembershipChange {
    Made,
    /// It was so before, or is to stay as it is.
    Nothing,
}

/// A connection is in as many groups as it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TooManyGroups;

impl Session {
    /// Records a topic. A session that has left the registry receives nothing new.
    pub(crate) fn note_topic(&self, topic: &Topic) -> MembershipChange {
        match &mut *self.topics.lock() {
            Some(topics) if !topics.contains(topic) => {
                topics.push(topic.clone());
                MembershipChange::Made
            }
            _ => MembershipChange::Nothing,
        }
    }

    /// Forgets a topic.
    pub(crate) fn forget_topic(&self, topic: &Topic) -> MembershipChange {
        let mut topics = self.topics.lock();
        let found = |topics: &Vec<Topic>| topics.iter().position(|noted| noted == topic);
        match topics.as_mut().and_then(|topics| Some((found(topics)?, topics))) {
            Some((index, topics)) => {
                topics.swap_remove(index);
                MembershipChange::Made
            }
            None => MembershipChange::Nothing,
        }
    }

    /// Takes all topics, for good.
    pub(crate) fn take_topics(&self) -> Vec<Topic> {
        self.topics.lock().take().unwrap_or_default()
    }

    /// Returns whether it receives anything.
    pub(crate) fn receives(&self) -> bool {
        self.topics
            .lock()
            .as_ref()
            .is_some_and(|topics| !topics.is_empty())
    }

    /// Returns whether it receives this.
    pub(crate) fn receives_topic(&self, topic: &Topic) -> bool {
        self.topics
            .lock()
            .as_ref()
            .is_some_and(|topics| topics.contains(topic))
    }

    /// Returns whether it receives the messages of a group, of that name.
    pub(crate) fn receives_group(&self, name: &str) -> bool {
        let topics = self.topics.lock();
        let mut topics = topics.iter().flatten();
        topics.any(
            |topic| matches!(topic, Topic::Group(group) if group.as_str() == name && !group.is_reserved()),
        )
    }

    /// The number of groups whose messages it receives, but those that it watches.
    pub(crate) fn received_groups(&self) -> usize {
        let topics = self.topics.lock();
        let groups = topics.iter().flatten();
        groups
            .filter(|topic| matches!(topic, Topic::Group(group) if !group.is_reserved()))
            .count()
    }

    /// Returns whether [`take_topics`](Self::take_topics) was called.
    pub(crate) fn has_left(&self) -> bool {
        self.topics.lock().is_none()
    }

    /// Takes its connection permit, until it leaves the registry.
    pub(crate) fn occupy(&self, permit: ConnectionPermit) {
        if permit.is_free() {
            return;
        }
        *self.permit.lock() = Some(Box::new(permit));
        if self.has_left() {
            self.vacate();
        }
    }

    /// Ends the effect of [`occupy`](Self::occupy).
    pub(crate) fn vacate(&self) {
        let permit = self.permit.lock().take();
        drop(permit); // after the lock
    }

    /// The groups that the connection joined or is joining, but those that it watches.
    pub(crate) fn groups(&self) -> Vec<GroupName> {
        let groups = self.groups.lock();
        groups
            .iter()
            .filter(|group| !group.is_reserved())
            .cloned()
            .collect()
    }

    pub(super) fn set_groups(&self, groups: Vec<GroupName>) {
        *self.groups.lock() = groups;
    }

    /// Records a group, unless the connection is in `limit` groups already.
    pub(crate) fn note_group(&self, group: &GroupName, limit: usize) -> Result<(), TooManyGroups> {
        let mut groups = self.groups.lock();
        if groups.contains(group) {
            return Ok(());
        }
        if groups.len() >= limit {
            return Err(TooManyGroups);
        }
        groups.push(group.clone());
        Ok(())
    }

    pub(crate) fn forget_group(&self, group: &GroupName) {
        self.groups.lock().retain(|noted| noted != group);
    }
}
