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

/// The topics that a session receives, and its groups. Small while there are few of them.
#[derive(Debug, Default)]
pub(super) struct Memberships {
    /// It was taken out of the registry, and receives nothing more.
    has_left: bool,
    /// It receives [`Topic::All`].
    all: bool,
    /// It receives the topic of its user.
    user: bool,
    /// It receives its own topic.
    own: bool,
    groups: Vec<Member>,
}

/// The connection in a group.
#[derive(Debug)]
struct Member {
    group: GroupName,
    /// It joined, or is joining.
    noted: bool,
    /// It receives the messages of the group.
    receives: bool,
}

/// A connection is in as many groups as it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TooManyGroups;

impl Memberships {
    fn group(&mut self, group: &GroupName) -> Option<&mut Member> {
        self.groups.iter_mut().find(|member| member.group == *group)
    }

    /// The membership in a group, which begins as none.
    fn group_or_new(&mut self, group: &GroupName) -> Option<&mut Member> {
        let known = self.groups.iter().position(|member| member.group == *group);
        let index = known.unwrap_or_else(|| {
            let member = Member {
                group: group.clone(),
                noted: false,
                receives: false,
            };
            push_tightly(&mut self.groups, member);
            self.groups.len() - 1
        });
        self.groups.get_mut(index)
    }

    /// Forgets memberships that are none.
    fn tidy(&mut self) {
        self.groups.retain(|member| member.noted || member.receives);
        if self.groups.is_empty() {
            self.groups = Vec::new();
        }
    }

    fn received(&self) -> impl Iterator<Item = &GroupName> {
        let received = self.groups.iter().filter(|member| member.receives);
        received.map(|member| &member.group)
    }
}

/// Adds to a list of which there are many, mostly with few items: it gets little more room than it needs.
pub(crate) fn push_tightly<T>(list: &mut Vec<T>, item: T) {
    if list.len() == list.capacity() {
        list.reserve_exact(list.len() / 4 + 1);
    }
    list.push(item);
}

impl Session {
    /// Records a topic, of those that such a connection can receive. A session that has left the registry receives
    /// nothing new.
    pub(crate) fn note_topic(&self, topic: &Topic) -> MembershipChange {
        let mut memberships = self.memberships.lock();
        if memberships.has_left {
            return MembershipChange::Nothing;
        }
        self.set_received(&mut memberships, topic, true)
    }

    /// Forgets a topic.
    pub(crate) fn forget_topic(&self, topic: &Topic) -> MembershipChange {
        let mut memberships = self.memberships.lock();
        let changed = self.set_received(&mut memberships, topic, false);
        memberships.tidy();
        changed
    }

    fn set_received(&self, memberships: &mut Memberships, topic: &Topic, receives: bool) -> MembershipChange {
        let before = match topic {
            Topic::All => &mut memberships.all,
            Topic::User(user) if self.connection.user() == Some(user) => &mut memberships.user,
            Topic::Connection(id) if self.id() == id => &mut memberships.own,
            Topic::User(_) | Topic::Connection(_) => return MembershipChange::Nothing, // another's
            Topic::Group(group) => {
                let member = if receives {
                    memberships.group_or_new(group)
                } else {
                    memberships.group(group)
                };
                match member {
                    Some(member) => &mut member.receives,
                    None => return MembershipChange::Nothing,
                }
            }
        };
        if std::mem::replace(before, receives) == receives {
            MembershipChange::Nothing
        } else {
            MembershipChange::Made
        }
    }

    /// Takes all topics, for good.
    pub(crate) fn take_topics(&self) -> Vec<Topic> {
        let mut memberships = self.memberships.lock();
        memberships.has_left = true;
        let of_user = std::mem::take(&mut memberships.user);
        let user = self.connection.user().filter(|_| of_user);
        let own = std::mem::take(&mut memberships.own).then(|| self.id().clone());
        let all = std::mem::take(&mut memberships.all).then_some(Topic::All);
        let groups = memberships.received().cloned().map(Topic::Group);
        let topics = all
            .into_iter()
            .chain(user.cloned().map(Topic::User))
            .chain(own.map(Topic::Connection))
            .chain(groups)
            .collect();
        memberships
            .groups
            .iter_mut()
            .for_each(|member| member.receives = false);
        memberships.tidy();
        topics
    }

    /// Returns whether it receives anything.
    pub(crate) fn receives(&self) -> bool {
        let memberships = self.memberships.lock();
        memberships.all || memberships.user || memberships.own || memberships.received().next().is_some()
    }

    /// Returns whether it receives this.
    pub(crate) fn receives_topic(&self, topic: &Topic) -> bool {
        let memberships = self.memberships.lock();
        match topic {
            Topic::All => memberships.all,
            Topic::User(user) => memberships.user && self.connection.user() == Some(user),
            Topic::Connection(id) => memberships.own && self.id() == id,
            Topic::Group(group) => memberships.received().any(|received| received == group),
        }
    }

    /// Returns whether it receives the messages of a group, of that name.
    pub(crate) fn receives_group(&self, name: &str) -> bool {
        let memberships = self.memberships.lock();
        let mut groups = memberships.received();
        groups.any(|group| group.as_str() == name && !group.is_reserved())
    }

    /// The number of groups whose messages it receives, but those that it watches.
    pub(crate) fn received_groups(&self) -> usize {
        let memberships = self.memberships.lock();
        let groups = memberships.received();
        groups.filter(|group| !group.is_reserved()).count()
    }

    /// Returns whether [`take_topics`](Self::take_topics) was called.
    pub(crate) fn has_left(&self) -> bool {
        self.memberships.lock().has_left
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
        let memberships = self.memberships.lock();
        let groups = memberships.groups.iter();
        let noted = groups.filter(|member| member.noted && !member.group.is_reserved());
        noted.map(|member| member.group.clone()).collect()
    }

    pub(super) fn set_groups(&self, groups: &[GroupName]) {
        let mut memberships = self.memberships.lock();
        memberships
            .groups
            .iter_mut()
            .for_each(|member| member.noted = false);
        memberships.tidy();
        if memberships.groups.is_empty() {
            memberships.groups.reserve_exact(groups.len());
        }
        for group in groups {
            if let Some(member) = memberships.group_or_new(group) {
                member.noted = true;
            }
        }
    }

    /// Records a group, unless the connection is in `limit` groups already.
    pub(crate) fn note_group(&self, group: &GroupName, limit: usize) -> Result<(), TooManyGroups> {
        let mut memberships = self.memberships.lock();
        if memberships.group(group).is_some_and(|member| member.noted) {
            return Ok(());
        }
        let noted = memberships.groups.iter().filter(|member| member.noted);
        if noted.count() >= limit {
            return Err(TooManyGroups);
        }
        if let Some(member) = memberships.group_or_new(group) {
            member.noted = true;
        }
        Ok(())
    }

    pub(crate) fn forget_group(&self, group: &GroupName) {
        let mut memberships = self.memberships.lock();
        if let Some(member) = memberships.group(group) {
            member.noted = false;
        }
        memberships.tidy();
    }
}
