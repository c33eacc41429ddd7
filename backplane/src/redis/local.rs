//! What this node knows of one hub: its own connections, what they are to receive and how far they have.

use std::collections::{HashMap, HashSet};

use super::departures::{Departures, Known, Presence};
use super::interest::{Interests, Subject};
use crate::backplane::ConnectionRecord;
use crate::position::{Epoch, Offset, Position};
use crate::sessions::Version;
use crate::topic::{ConnectionId, GroupName, Topic, UserId};

/// One hub's connections and interest on this node.
pub(super) struct Local {
    connections: HashMap<ConnectionId, Connection>,
    pub(super) interests: Interests,
    /// Changes that the server is still to be told, of connections that are not here any more.
    pub(super) departures: Departures,
    /// Connections that are to be registered in the epoch.
    unregistered: HashSet<ConnectionId>,
    registering: Epoch,
}

#[derive(Default)]
struct Connection {
    user: Option<UserId>,
    /// The server said that this node owns it.
    owned: bool,
    /// In which version, once it is known.
    version: Option<Version>,
    /// Other nodes have removed it.
    shut_out: bool,
    /// Where this node took it over, if it did.
    took_at: Option<Box<Position>>,
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

/// What the server must know of a connection.
pub(super) struct Registration {
    pub(super) id: ConnectionId,
    pub(super) user: Option<UserId>,
    /// In which the node owns it, where it knows that.
    pub(super) version: Option<Version>,
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
    /// Of a hub whose log is in this epoch.
    pub(super) fn new(epoch: Epoch) -> Self {
        Self {
            connections: HashMap::new(),
            interests: Interests::default(),
            departures: Departures::default(),
            unregistered: HashSet::new(),
            registering: epoch,
        }
    }

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

    /// Begins to take a connection over; `false` while another call claims it, takes it over or gives it up. What this
    /// node has of it from an earlier ownership stays until the lane comes to its end.
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

    /// Applies that another node has taken a connection over, at a place that the lane has come to. Returns whether it
    /// was this node's until then. A lane that begins an epoch once more comes to places that are older than this
    /// node's ownership.
    pub(super) fn taken(&mut self, id: &ConnectionId, epoch: &Epoch, offset: Offset) -> bool {
        match self.connections.get_mut(id) {
            Some(known)
                if !known.taking
                    && known
                        .took_at
                        .as_ref()
                        .is_some_and(|took| is_after(took, epoch, offset)) =>
            {
                false
            }
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

    /// Forgets a connection that the server has as another node's, or as closed; one that is being taken over goes on.
    /// Returns whether it was this node's until now.
    pub(super) fn lose(&mut self, id: &ConnectionId) -> bool {
        match self.connections.get_mut(id) {
            Some(known) if known.taking => {
                self.unregistered.remove(id);
                std::mem::take(&mut known.former)
            }
            _ => self.remove(id),
        }
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
            self.interests.lose(&Subject::Topic(topic));
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
    pub(super) fn set_taken(
        &mut self,
        id: &ConnectionId,
        version: Version,
        place: Position,
        groups: &[GroupName],
    ) {
        self.set_entered(id, version);
        let Some(connection) = self.connections.get_mut(id) else {
            return;
        };
        connection.took_at = Some(Box::new(place));
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

    /// The server's share of a connection that this node owns, to register it again.
    pub(super) fn registration(&self, id: &ConnectionId) -> Option<Registration> {
        let connection = self.connections.get(id).filter(|connection| connection.owned)?;
        let groups = connection.groups.iter();
        let registered = groups.filter(|(_, membership)| membership.registered);
        Some(Registration {
            id: id.clone(),
            user: connection.user.clone(),
            version: connection.version,
            entered: connection.entered.registered,
            groups: registered.map(|(group, _)| group.clone()).collect(),
        })
    }

    /// Begins to register in an epoch, once more where it had ended, or goes on. Returns the connections that are not
    /// registered yet.
    pub(super) fn begin_registration(&mut self, epoch: &Epoch, again: bool) -> Vec<ConnectionId> {
        if self.registering != *epoch || (again && self.unregistered.is_empty()) {
            self.registering = epoch.clone();
            let connections = self.connections.iter();
            let owned = connections.filter(|(_, connection)| connection.owned && !connection.shut_out);
            self.unregistered = owned.map(|(id, _)| id.clone()).collect();
        }
        self.unregistered.iter().cloned().collect()
    }

    pub(super) fn awaits_registration(&self, id: &ConnectionId) -> bool {
        self.unregistered.contains(id)
    }

    /// What this node can tell of the server's entry of a connection that it owns.
    pub(super) fn known(&self, id: &ConnectionId) -> Known {
        let connection = self.connections.get(id);
        let presence = if connection.is_some_and(|connection| connection.shut_out) {
            Presence::ShutOut
        } else if self.awaits_registration(id) {
            Presence::Unknown
        } else {
            Presence::Known(self.registering.clone())
        };
        Known {
            presence,
            version: connection.and_then(|connection| connection.version),
        }
    }

    /// The other nodes have removed what this node had. It does not register that again, and does not tell of it.
    pub(super) fn be_shut_out(&mut self) {
        let owned = self
            .connections
            .values_mut()
            .filter(|connection| connection.owned);
        owned.for_each(|connection| connection.shut_out = true);
        self.unregistered.clear();
        self.departures.be_shut_out();
    }

    pub(super) fn end_registration(&mut self, id: &ConnectionId) {
        self.unregistered.remove(id);
    }

    // What the lane asks and says, in the order of the log.

    pub(super) fn seen(&self, topic: &Topic) -> Seen {
        let seen = match topic {
            Topic::Connection(id) => self.connections.get(id).and_then(|connection| connection.seen),
            topic => self.interests.seen(topic),
        };
        seen.map_or(Seen::Nobody, Seen::UpTo)
    }

    pub(super) fn set_seen(&mut self, topic: &Topic, offset: Offset) {
        let seen = match topic {
            Topic::Connection(id) => self
                .connections
                .get_mut(id)
                .and_then(|connection| connection.seen.as_mut()),
            topic => self.interests.seen_mut(topic),
        };
        if let Some(seen) = seen {
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
            missing |= self.interests.receive(topic, offset);
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
                self.interests.lose(&Subject::Topic(topic.clone()));
            }
        }
    }

    /// Every topic that may have something for this node.
    pub(super) fn topics(&self) -> Vec<Topic> {
        let own = self.connections.keys().map(|id| Topic::Connection(id.clone()));
        self.interests.topics().chain(own).collect()
    }

    /// Begins a new epoch: all topics count as seen up to its start.
    pub(super) fn restart(&mut self, start: Offset) {
        self.interests.restart(start);
        let own = self
            .connections
            .values_mut()
            .filter_map(|connection| connection.seen.as_mut());
        own.for_each(|seen| *seen = start);
    }
}

/// Whether a place is later than another one, also of another epoch of the same hub.
fn is_after(place: &Position, epoch: &Epoch, offset: Offset) -> bool {
    if place.epoch == *epoch {
        return place.offset > offset;
    }
    began(&place.epoch) > began(epoch)
}

/// When an epoch began, in the server's time (microseconds): its name ends with that (`begin_epoch` in `log.lua`).
fn began(epoch: &Epoch) -> u64 {
    let began = epoch.as_str().rsplit('-').next();
    began.and_then(|began| began.parse().ok()).unwrap_or(0)
}
