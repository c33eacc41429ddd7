//! The local state of one hub: this node's connections, the topics that they receive, and the offsets delivered.

mod followed;
mod memberships;

use std::collections::{HashMap, HashSet};

use bytes::Bytes;

use crate::backplane::ConnectionRecord;
use crate::events::EventRecord;
use crate::group_states::MemberState;
use crate::position::{Epoch, Offset, Position};
use crate::redis::directory::departures::{Departures, Known, Presence};
use crate::redis::feed::interest::{Interests, Subject};
use crate::sessions::Version;
use crate::topic::{ConnectionId, GroupName, Topic, UserId};
use memberships::{Membership, Memberships};

/// One hub's connections and interest on this node.
pub(in crate::redis) struct LocalConnections {
    /// Each in a box: a map has room for up to twice as many as there are.
    connections: HashMap<ConnectionId, Box<Connection>>,
    /// The states of connections in their groups, as far as this node has set them.
    states: HashMap<ConnectionId, HashMap<GroupName, MemberState>>,
    pub(in crate::redis) interests: Interests,
    /// Changes of connections that are not here any more, which the server is still to carry out.
    pub(in crate::redis) departures: Departures,
    /// Connections that are still to be registered in the epoch `registering`.
    unregistered: HashSet<ConnectionId>,
    registering: Epoch,
}

#[derive(Default)]
struct Connection {
    user: Option<UserId>,
    /// The server has this node as the connection's owner.
    owned: bool,
    /// The version of the ownership, once it is known.
    version: Option<Version>,
    /// Other nodes have removed the connection.
    shut_out: bool,
    /// The position at which this node took the connection over, if it did.
    took_at: Option<Box<Position>>,
    /// The connection is being taken over, and the lane has not reached that position yet.
    taking: bool,
    /// While the connection is being taken over: its live memberships are of an earlier ownership of this node.
    former: bool,
    entered: Membership,
    groups: Memberships,
    /// The connection's events; `None` where it has none.
    event: Option<Box<Reported>>,
    /// The newest offset of the connection's own topic that was delivered; `None` until it entered.
    seen: Option<Offset>,
}

/// The data of a connection that its events carry: this node keeps it for a server that forgets it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::redis) struct Reported {
    /// The part that the ids of its events share.
    pub(in crate::redis) base: String,
    pub(in crate::redis) user: Option<UserId>,
    pub(in crate::redis) record: EventRecord,
}

impl Reported {
    /// `None` where the server has no event of the connection.
    pub(in crate::redis) fn new(base: Option<String>, connection: &ConnectionRecord) -> Option<Box<Self>> {
        let reported = |base| Self {
            base,
            user: connection.user.clone(),
            record: connection.event.clone(),
        };
        base.map(reported).map(Box::new)
    }
}

/// The data of a connection that the server must have.
pub(in crate::redis) struct Registration {
    pub(in crate::redis) id: ConnectionId,
    pub(in crate::redis) user: Option<UserId>,
    /// The version in which the node owns the connection, where it is known.
    pub(in crate::redis) version: Option<Version>,
    pub(in crate::redis) entered: bool,
    pub(in crate::redis) groups: Vec<GroupName>,
    pub(in crate::redis) event: Option<Box<Reported>>,
}

/// The offset up to which a topic was delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::redis) enum Seen {
    /// No local connection receives it.
    Nobody,
    /// So many local connections receive it, or are about to; it was delivered up to this offset.
    UpTo { offset: Offset, receivers: usize },
}

impl LocalConnections {
    /// The state of a hub without connections, whose log is in this epoch.
    pub(in crate::redis) fn new(epoch: Epoch) -> Self {
        Self {
            connections: HashMap::new(),
            states: HashMap::new(),
            interests: Interests::default(),
            departures: Departures::default(),
            unregistered: HashSet::new(),
            registering: epoch,
        }
    }

    /// Adds a connection; `false` where it is here already.
    pub(in crate::redis) fn insert(&mut self, connection: &ConnectionRecord) -> bool {
        if self.connections.contains_key(&connection.id) {
            return false;
        }
        let new = Connection {
            user: connection.user.clone(),
            ..Connection::default()
        };
        self.connections.insert(connection.id.clone(), Box::new(new));
        true
    }

    /// Begins to take a connection over; `false` while another call claims it, takes it over or gives it up.
    /// Memberships of an earlier ownership of this node stay until the lane reaches its end.
    pub(in crate::redis) fn begin_taking(&mut self, connection: &ConnectionRecord) -> bool {
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

    /// Records that a take-over failed: an earlier ownership is left, if the lane has not ended it.
    pub(in crate::redis) fn end_taking(&mut self, id: &ConnectionId) {
        match self.connections.get_mut(id) {
            Some(known) if known.former => (known.owned, known.former, known.taking) = (true, false, false),
            _ => drop(self.remove(id)),
        }
    }

    pub(in crate::redis) fn contains(&self, id: &ConnectionId) -> bool {
        self.connections.contains_key(id)
    }

    /// Whether the server has this node as the connection's owner.
    pub(in crate::redis) fn is_owned(&self, id: &ConnectionId) -> bool {
        self.connections
            .get(id)
            .is_some_and(|connection| connection.owned)
    }

    pub(in crate::redis) fn is_empty(&self) -> bool {
        self.connections.is_empty()
    }

    /// The user of a connection that is here.
    pub(in crate::redis) fn user(&self, id: &ConnectionId) -> Option<Option<UserId>> {
        self.connections.get(id).map(|connection| connection.user.clone())
    }

    /// Forgets a connection and its topics; `false` where it is not here.
    pub(in crate::redis) fn remove(&mut self, id: &ConnectionId) -> bool {
        self.silence(id);
        self.unregistered.remove(id);
        self.states.remove(id);
        self.connections.remove(id).is_some()
    }

    /// Forgets a connection that the server has as another node's, or as closed; a take-over under way goes on. Returns
    /// whether this node owned it until now.
    pub(in crate::redis) fn lose(&mut self, id: &ConnectionId) -> bool {
        match self.connections.get_mut(id) {
            Some(known) if known.taking => {
                self.unregistered.remove(id);
                std::mem::take(&mut known.former)
            }
            _ => self.remove(id),
        }
    }

    /// Forgets a connection that this node owns.
    pub(in crate::redis) fn remove_owned(&mut self, id: &ConnectionId) -> bool {
        self.is_owned(id) && self.remove(id)
    }

    /// Whether this node owns the connection in this version.
    pub(in crate::redis) fn is_version(&self, id: &ConnectionId, version: Version) -> bool {
        self.connections
            .get(id)
            .is_some_and(|connection| connection.owned && connection.version == Some(version))
    }

    /// Ends all topics of a connection.
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
        connection.groups.change_all(|group, membership| {
            if std::mem::take(&mut membership.live) {
                lost.push(Topic::Group(group.clone()));
            }
        });
        for topic in lost {
            self.interests.lose(&Subject::Topic(topic));
        }
    }

    /// Records that the server has this node as the connection's owner.
    pub(in crate::redis) fn set_owned(&mut self, id: &ConnectionId) {
        if let Some(connection) = self.connections.get_mut(id) {
            connection.owned = true;
        }
    }

    /// Records that the server has the connection as entered, in this version and with these events.
    pub(in crate::redis) fn set_entered(
        &mut self,
        id: &ConnectionId,
        version: Version,
        event: Option<Box<Reported>>,
    ) {
        if let Some(connection) = self.connections.get_mut(id) {
            connection.event = event;
            connection.owned = true;
            connection.version = Some(version);
            connection.entered.registered = true;
        }
    }

    /// Records that the server has the connection as taken over by this node, with these groups.
    pub(in crate::redis) fn set_taken(
        &mut self,
        id: &ConnectionId,
        version: Version,
        place: Position,
        groups: &[GroupName],
        event: Option<Box<Reported>>,
    ) {
        self.set_entered(id, version, event);
        let Some(connection) = self.connections.get_mut(id) else {
            return;
        };
        connection.took_at = Some(Box::new(place));
        self.states.remove(id); // they may have changed on other nodes
        connection
            .groups
            .change_all(|_, membership| membership.registered = false);
        for group in groups {
            connection
                .groups
                .change(group, |membership| membership.registered = true);
        }
    }

    /// Records whether the server has the connection as a member of a group.
    pub(in crate::redis) fn set_member(&mut self, id: &ConnectionId, group: &GroupName, member: bool) {
        if let Some(connection) = self.connections.get_mut(id) {
            connection
                .groups
                .change(group, |membership| membership.registered = member);
        }
        if !member {
            self.set_state(id, group, None);
        }
    }

    /// Records the state that the server has for the connection in a group.
    pub(in crate::redis) fn set_state(
        &mut self,
        id: &ConnectionId,
        group: &GroupName,
        state: Option<&MemberState>,
    ) {
        if let Some(state) = state.filter(|_| self.connections.contains_key(id)) {
            let states = self.states.entry(id.clone()).or_default();
            states.insert(group.clone(), state.clone());
        } else if let Some(states) = self.states.get_mut(id) {
            states.remove(group);
            if states.is_empty() {
                self.states.remove(id);
            }
        }
    }

    /// The connection's states in its groups, as far as this node has set them.
    pub(in crate::redis) fn states(&self, id: &ConnectionId) -> Vec<(GroupName, MemberState)> {
        let states = self.states.get(id).filter(|_| self.is_owned(id));
        let states = states.into_iter().flatten();
        states
            .map(|(group, state)| (group.clone(), state.clone()))
            .collect()
    }

    /// Whether the server has the connection as a member of a group.
    pub(in crate::redis) fn is_member(&self, id: &ConnectionId, group: &GroupName) -> bool {
        let connection = self.connections.get(id);
        let membership = connection.and_then(|connection| connection.groups.get(group));
        membership.is_some_and(|membership| membership.registered)
    }

    /// The data that registers a connection of this node again.
    pub(in crate::redis) fn registration(&self, id: &ConnectionId) -> Option<Registration> {
        let connection = self.connections.get(id).filter(|connection| connection.owned)?;
        Some(Registration {
            id: id.clone(),
            user: connection.user.clone(),
            version: connection.version,
            entered: connection.entered.registered,
            groups: connection.groups.registered().cloned().collect(),
            event: connection.event.clone(),
        })
    }

    /// Records the state that the server has for the connection's events.
    pub(in crate::redis) fn set_event_state(&mut self, id: &ConnectionId, state: Bytes) {
        if let Some(event) = self
            .connections
            .get_mut(id)
            .and_then(|known| known.event.as_mut())
        {
            event.record.state = state;
        }
    }

    /// Begins to register in an epoch (with `again`, once more where that had ended), or goes on. Returns the
    /// connections that are not registered yet.
    pub(in crate::redis) fn begin_registration(&mut self, epoch: &Epoch, again: bool) -> Vec<ConnectionId> {
        if self.registering != *epoch || (again && self.unregistered.is_empty()) {
            self.registering = epoch.clone();
            let connections = self.connections.iter();
            let owned = connections.filter(|(_, connection)| connection.owned && !connection.shut_out);
            self.unregistered = owned.map(|(id, _)| id.clone()).collect();
        }
        self.unregistered.iter().cloned().collect()
    }

    pub(in crate::redis) fn awaits_registration(&self, id: &ConnectionId) -> bool {
        self.unregistered.contains(id)
    }

    /// This node's knowledge of the directory entry of a connection that it owns.
    pub(in crate::redis) fn known(&self, id: &ConnectionId) -> Known {
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
            event: connection.and_then(|connection| connection.event.clone()),
        }
    }

    /// Records that the other nodes have removed this node's connections: it neither registers them again nor reports
    /// their ends.
    pub(in crate::redis) fn be_shut_out(&mut self) {
        let owned = self
            .connections
            .values_mut()
            .filter(|connection| connection.owned);
        owned.for_each(|connection| connection.shut_out = true);
        self.unregistered.clear();
        self.departures.be_shut_out();
    }

    /// Has a connection registered once more: a part of it was not.
    pub(in crate::redis) fn await_registration(&mut self, id: &ConnectionId) {
        if self.connections.contains_key(id) {
            self.unregistered.insert(id.clone());
        }
    }

    pub(in crate::redis) fn end_registration(&mut self, id: &ConnectionId) {
        self.unregistered.remove(id);
    }
}
