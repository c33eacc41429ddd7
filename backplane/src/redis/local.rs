//! What this node knows of one hub: its own connections, what they are to receive and how far they have.

use std::collections::{HashMap, HashSet};

use tokio::sync::oneshot;

use super::departures::Departures;
use crate::backplane::ConnectionRecord;
use crate::position::{Epoch, Offset};
use crate::sessions::Version;
use crate::topic::{ConnectionId, GroupName, Topic, UserId};

/// One hub's connections and interest on this node.
#[derive(Default)]
pub(super) struct Local {
    connections: HashMap<ConnectionId, Connection>,
    interest: HashMap<Subject, Interest>,
    /// What the server is still to be told of connections that are not here any more.
    pub(super) departures: Departures,
    /// Connections that are to be registered in the epoch.
    unregistered: HashSet<ConnectionId>,
    registering: Option<Epoch>,
}

#[derive(Default)]
struct Connection {
    user: Option<UserId>,
    /// The server said that this node owns it.
    owned: bool,
    /// In which version, once it is known.
    version: Option<Version>,
    /// It is being taken over, and the lane has not come to that place yet.
    taking: bool,
    /// While it is being taken over: what is live is of an earlier ownership of this node.
    former: bool,
    entered: Membership,
    groups: HashMap<GroupName, Membership>,
    /// The newest offset of its own topic that was handed on; `None` until it entered.
    seen: Option<Offset>,
}

/// A membership as the server has it and as the lane has it: the log lies between the two.
#[derive(Clone, Copy, Default)]
struct Membership {
    /// The server was told, and has to be told again when it forgets.
    registered: bool,
    /// The lane has come past the beginning: messages are for the connection.
    live: bool,
}

/// What is subscribed to, one channel each.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) enum Subject {
    /// What is for single connections of this node.
    Lane,
    /// A topic that several nodes may be interested in.
    Topic(Topic),
}

#[derive(Default)]
struct Interest {
    /// Connections that receive the topic and calls that are about to make one receive it.
    count: usize,
    state: Subscription,
    /// Sweeps in a row that found nobody interested.
    idle: u32,
    /// The newest offset of the topic that was handed on; `None` until a first local connection joined.
    seen: Option<Offset>,
    /// A connection became a member while there was no subscription: the log has what was missed.
    read_log: bool,
    waiting: Vec<oneshot::Sender<()>>,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Subscription {
    #[default]
    Wanted,
    Active,
    /// The server is being told that nobody is interested any more.
    Leaving,
}

/// What the server must know of a connection.
pub(super) struct Registration {
    pub(super) id: ConnectionId,
    pub(super) user: Option<UserId>,
    pub(super) entered: bool,
    pub(super) groups: Vec<GroupName>,
}

/// How far a topic was handed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// No local connection receives it.
    Nobody,
    /// Up to this offset.
    UpTo(Offset),
}

impl Local {
    /// Takes a connection in; `false` where it is here already.
    pub(super) fn insert(&mut self, connection: &ConnectionRecord) -> bool {
        if self.connections.contains_key(&connection.id) {
            return false;
        }
        let new = Connection {
            user: connection.user.clone(),
            ..Connection::default()
        };
        self.connections.insert(connection.id.clone(), new);
        true
    }

    /// Begins to take a connection over; `false` while another call claims it, takes it over or gives it up. What this node has of
    /// it from an earlier ownership stays until the lane comes to its end.
    pub(super) fn begin_taking(&mut self, connection: &ConnectionRecord) -> bool {
        if !self.departures.withdraw(&connection.id) {
            return false;
        }
        match self.connections.get_mut(&connection.id) {
            Some(known) if !known.owned => return false,
            Some(known) => {
                (known.owned, known.former, known.taking) = (false, true, true);
            }
            None => {
                self.insert(connection);
                if let Some(new) = self.connections.get_mut(&connection.id) {
                    new.taking = true;
                }
            }
        }
        true
    }

    /// Notes that a connection was not taken over: what is left is the earlier ownership, if the lane has not ended it.
    pub(super) fn end_taking(&mut self, id: &ConnectionId) {
        match self.connections.get_mut(id) {
            Some(known) if known.former => (known.owned, known.former, known.taking) = (true, false, false),
            _ => drop(self.remove(id)),
        }
    }

    /// Whether changes of a connection's topics are of an ownership that is over, because it is being taken over.
    pub(super) fn is_deaf(&self, id: &ConnectionId) -> bool {
        self.connections
            .get(id)
            .is_some_and(|connection| connection.taking && !connection.former)
    }

    /// Applies that another node has taken a connection over. Returns whether it was this node's until then.
    pub(super) fn taken(&mut self, id: &ConnectionId) -> bool {
        match self.connections.get_mut(id) {
            Some(known) if known.taking => {
                let former = std::mem::take(&mut known.former);
                self.silence(id);
                former
            }
            _ => self.remove(id),
        }
    }

    /// Applies the beginning of an ownership.
    pub(super) fn took(&mut self, id: &ConnectionId, topics: &[Topic], offset: Offset) -> bool {
        self.silence(id);
        if let Some(connection) = self.connections.get_mut(id) {
            (connection.taking, connection.former) = (false, false);
        }
        self.joined(id, topics, offset)
    }

    pub(super) fn contains(&self, id: &ConnectionId) -> bool {
        self.connections.contains_key(id)
    }

    /// Whether the server said that this node owns the connection.
    pub(super) fn is_owned(&self, id: &ConnectionId) -> bool {
        self.connections
            .get(id)
            .is_some_and(|connection| connection.owned)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.connections.is_empty()
    }

    /// The user of a connection that is here.
    pub(super) fn user(&self, id: &ConnectionId) -> Option<Option<UserId>> {
        self.connections.get(id).map(|connection| connection.user.clone())
    }

    /// Forgets a connection and what it received; `false` where it is not here.
    pub(super) fn remove(&mut self, id: &ConnectionId) -> bool {
        self.silence(id);
        self.unregistered.remove(id);
        self.connections.remove(id).is_some()
    }

    /// Forgets a connection that this node owns.
    pub(super) fn remove_owned(&mut self, id: &ConnectionId) -> bool {
        self.is_owned(id) && self.remove(id)
    }

    /// Whether this node owns the connection in this version.
    pub(super) fn is_version(&self, id: &ConnectionId, version: Version) -> bool {
        self.connections
            .get(id)
            .is_some_and(|connection| connection.owned && connection.version == Some(version))
    }

    /// Ends what a connection receives.
    fn silence(&mut self, id: &ConnectionId) {
        let Some(connection) = self.connections.get_mut(id) else {
            return;
        };
        connection.seen = None;
        let mut lost = Vec::new();
        if std::mem::take(&mut connection.entered.live) {
            lost.push(Topic::All);
            lost.extend(connection.user.clone().map(Topic::User));
        }
        for (group, membership) in &mut connection.groups {
            if std::mem::take(&mut membership.live) {
                lost.push(Topic::Group(group.clone()));
            }
        }
        connection.groups.retain(|_, membership| membership.registered);
        for topic in lost {
            self.lose(&Subject::Topic(topic));
        }
    }

    /// Notes that the server has this node as the connection's owner.
    pub(super) fn set_owned(&mut self, id: &ConnectionId) {
        if let Some(connection) = self.connections.get_mut(id) {
            connection.owned = true;
        }
    }

    /// Notes that the server has the connection as entered, in this version.
    pub(super) fn set_entered(&mut self, id: &ConnectionId, version: Version) {
        if let Some(connection) = self.connections.get_mut(id) {
            connection.owned = true;
            connection.version = Some(version);
            connection.entered.registered = true;
        }
    }

    /// Notes that the server has the connection as taken over by this node, with these groups.
    pub(super) fn set_taken(&mut self, id: &ConnectionId, version: Version, groups: &[GroupName]) {
        self.set_entered(id, version);
        let Some(connection) = self.connections.get_mut(id) else {
            return;
        };
        for membership in connection.groups.values_mut() {
            membership.registered = false;
        }
        for group in groups {
            connection.groups.entry(group.clone()).or_default().registered = true;
        }
    }

    /// Notes whether the server has the connection as a member of a group.
    pub(super) fn set_member(&mut self, id: &ConnectionId, group: &GroupName, member: bool) {
        let Some(connection) = self.connections.get_mut(id) else {
            return;
        };
        let membership = connection.groups.entry(group.clone()).or_default();
        membership.registered = member;
        if !membership.registered && !membership.live {
            connection.groups.remove(group);
        }
    }

    /// Whether the server has the connection as a member of a group.
    pub(super) fn is_member(&self, id: &ConnectionId, group: &GroupName) -> bool {
        let connection = self.connections.get(id);
        let membership = connection.and_then(|connection| connection.groups.get(group));
        membership.is_some_and(|membership| membership.registered)
    }

    /// What the server must know of a connection that this node owns.
    pub(super) fn registration(&self, id: &ConnectionId) -> Option<Registration> {
        let connection = self.connections.get(id).filter(|connection| connection.owned)?;
        let groups = connection.groups.iter();
        let registered = groups.filter(|(_, membership)| membership.registered);
        Some(Registration {
            id: id.clone(),
            user: connection.user.clone(),
            entered: connection.entered.registered,
            groups: registered.map(|(group, _)| group.clone()).collect(),
        })
    }

    /// Begins to register in an epoch, or goes on. Returns the connections that are not registered yet.
    pub(super) fn begin_registration(&mut self, epoch: &Epoch) -> Vec<ConnectionId> {
        if self.registering.as_ref() != Some(epoch) {
            self.registering = Some(epoch.clone());
            let owned = self.connections.iter().filter(|(_, connection)| connection.owned);
            self.unregistered = owned.map(|(id, _)| id.clone()).collect();
        }
        self.unregistered.iter().cloned().collect()
    }

    pub(super) fn awaits_registration(&self, id: &ConnectionId) -> bool {
        self.unregistered.contains(id)
    }

    pub(super) fn end_registration(&mut self, id: &ConnectionId) {
        self.unregistered.remove(id);
    }

    // What the lane asks and says, in the order of the log.

    pub(super) fn seen(&self, topic: &Topic) -> Seen {
        let seen = match topic {
            Topic::Connection(id) => self.connections.get(id).and_then(|connection| connection.seen),
            topic => self
                .interest
                .get(&Subject::Topic(topic.clone()))
                .and_then(|interest| interest.seen),
        };
        seen.map_or(Seen::Nobody, Seen::UpTo)
    }

    pub(super) fn set_seen(&mut self, topic: &Topic, offset: Offset) {
        let seen = match topic {
            Topic::Connection(id) => self
                .connections
                .get_mut(id)
                .map(|connection| &mut connection.seen),
            topic => self
                .interest
                .get_mut(&Subject::Topic(topic.clone()))
                .map(|interest| &mut interest.seen),
        };
        if let Some(Some(seen)) = seen {
            *seen = offset;
        }
    }

    /// Applies the beginning of memberships at `offset`. Returns whether a subscription is missing.
    pub(super) fn joined(&mut self, id: &ConnectionId, topics: &[Topic], offset: Offset) -> bool {
        let Some(connection) = self.connections.get_mut(id) else {
            return false;
        };
        let mut gained = Vec::new();
        for topic in topics {
            match topic {
                Topic::Connection(_) => connection.seen = Some(offset),
                Topic::Group(group) => {
                    let membership = connection.groups.entry(group.clone()).or_default();
                    if !std::mem::replace(&mut membership.live, true) {
                        gained.push(topic);
                    }
                }
                Topic::All | Topic::User(_) if !connection.entered.live => gained.push(topic),
                Topic::All | Topic::User(_) => {}
            }
        }
        if topics.contains(&Topic::All) {
            connection.entered.live = true;
        }
        let mut missing = false;
        for topic in gained {
            let interest = self.interest.entry(Subject::Topic(topic.clone())).or_default();
            interest.count += 1;
            if interest.state != Subscription::Active {
                interest.read_log = true;
                missing = true;
            }
            interest.seen.get_or_insert(offset);
        }
        missing
    }

    /// Applies the end of memberships.
    pub(super) fn left(&mut self, id: &ConnectionId, topics: &[Topic]) {
        for topic in topics {
            let Some(connection) = self.connections.get_mut(id) else {
                return;
            };
            let Topic::Group(group) = topic else { continue };
            let Some(membership) = connection.groups.get_mut(group) else {
                continue;
            };
            let was_live = std::mem::replace(&mut membership.live, false);
            if !membership.registered {
                connection.groups.remove(group);
            }
            if was_live {
                self.lose(&Subject::Topic(topic.clone()));
            }
        }
    }

    /// Every topic that may have something for this node.
    pub(super) fn topics(&self) -> Vec<Topic> {
        let shared = self.interest.keys().filter_map(|subject| match subject {
            Subject::Topic(topic) => Some(topic.clone()),
            Subject::Lane => None,
        });
        let own = self.connections.keys().map(|id| Topic::Connection(id.clone()));
        shared.chain(own).collect()
    }

    /// Begins a new epoch: all topics count as seen up to its start.
    pub(super) fn restart(&mut self, start: Offset) {
        let shared = self.interest.values_mut().map(|interest| &mut interest.seen);
        let own = self
            .connections
            .values_mut()
            .map(|connection| &mut connection.seen);
        shared.chain(own).flatten().for_each(|seen| *seen = start);
    }

    // Interest, as calls have it and as the subscriber carries it out.

    /// Counts one more that is interested. Returns what to wait for until the subscription is active, if it is not.
    pub(super) fn gain(&mut self, subject: Subject) -> Option<oneshot::Receiver<()>> {
        let interest = self.interest.entry(subject).or_default();
        interest.count += 1;
        if interest.state == Subscription::Active {
            return None;
        }
        let (active, wait) = oneshot::channel();
        interest.waiting.retain(|waiting| !waiting.is_closed());
        interest.waiting.push(active);
        Some(wait)
    }

    /// Counts one less.
    pub(super) fn lose(&mut self, subject: &Subject) {
        if let Some(interest) = self.interest.get_mut(subject) {
            interest.count = interest.count.saturating_sub(1);
        }
    }

    /// After a connection was lost: nothing is subscribed. What nobody needs is forgotten.
    pub(super) fn unsubscribed(&mut self) {
        self.interest.retain(|_, interest| {
            interest.state = Subscription::Wanted;
            interest.count > 0
        });
    }

    /// What has to be subscribed to.
    pub(super) fn wanted(&self) -> Vec<Subject> {
        let wanted = self
            .interest
            .iter()
            .filter(|(_, interest)| interest.state == Subscription::Wanted);
        wanted.map(|(subject, _)| subject.clone()).collect()
    }

    /// Notes that subscriptions are active. Returns whether the log must be read for what was missed.
    pub(super) fn subscribed(&mut self, subjects: &[Subject]) -> bool {
        let mut read_log = false;
        for subject in subjects {
            let Some(interest) = self.interest.get_mut(subject) else {
                continue;
            };
            interest.state = Subscription::Active;
            interest.idle = 0;
            read_log |= std::mem::take(&mut interest.read_log);
            for waiting in interest.waiting.drain(..) {
                let _ = waiting.send(()); // the caller may have stopped waiting
            }
        }
        read_log
    }

    /// What nobody has been interested in for more than one sweep; it counts as being left from now on.
    pub(super) fn leave_idle(&mut self) -> Vec<Subject> {
        let mut leaving = Vec::new();
        for (subject, interest) in &mut self.interest {
            interest.idle = if interest.count == 0 { interest.idle + 1 } else { 0 };
            if interest.idle > 1 && interest.state == Subscription::Active {
                interest.state = Subscription::Leaving;
                leaving.push(subject.clone());
            }
        }
        leaving
    }

    /// Notes that subscriptions ended. Returns whether somebody became interested meanwhile.
    pub(super) fn left_idle(&mut self, subjects: &[Subject]) -> bool {
        let mut again = false;
        for subject in subjects {
            let Some(interest) = self.interest.get_mut(subject) else {
                continue;
            };
            if interest.count == 0 {
                self.interest.remove(subject);
            } else {
                // The log must be read only for those who became members while there was no subscription.
                interest.state = Subscription::Wanted;
                if !interest.read_log {
                    interest.seen = None;
                }
                again = true;
            }
        }
        again
    }
}
