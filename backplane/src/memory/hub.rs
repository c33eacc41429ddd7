//! One hub: its log, its connections and its lane.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::connections::TopicsChange;
use super::directory::GroupMembers;
use super::events::{EventLog, Reported};
use super::group_states::HeldStates;
use super::lane::Item;
use super::log::Log;
use super::sessions::Session;
use crate::backplane::{Claim, ConnectionRecord, Delivery, HubOptions};
use crate::error::BackplaneError;
use crate::events::NOT_RESUMED;
use crate::hub::HubBackplane;
use crate::position::{Epoch, Offset};
use crate::sessions::Version;
use crate::topic::{ConnectionId, GroupName, HubName, NodeId, Topic, UserId};
use crate::wire::Envelope;

/// Deliveries that may wait for the sink before publishers wait for it.
const LANE_CAPACITY: usize = 4_096;

pub(super) struct MemoryHub {
    pub(super) name: HubName,
    pub(super) node: NodeId,
    pub(super) epoch: Epoch,
    pub(super) options: HubOptions,
    pub(super) state: Mutex<HubState>,
    pub(super) lane: mpsc::Sender<Item>,
}

pub(super) struct HubState {
    pub(super) log: Log,
    pub(super) connections: HashMap<ConnectionId, StoredConnection>,
    /// Number of connections that receive each topic; connections' own topics are not listed.
    pub(super) interest: HashMap<Topic, usize>,
    /// The connections by group and user.
    pub(super) members: GroupMembers,
    /// The states of members in their groups.
    pub(super) states: HeldStates,
    /// Whether joins and leaves are announced: see `HubOptions::presence`.
    pub(super) presence: bool,
    /// The messages about presence and states of the change under way.
    pub(super) deliveries: Vec<Delivery>,
    pub(super) tombstones: HashMap<ConnectionId, Instant>,
    versions: u64,
    /// Requests whose message is published once: content and expiry.
    pub(super) requests: HashMap<String, (Bytes, Instant)>,
    /// How far numbered messages are: number, the last one's text and expiry.
    pub(super) counts: HashMap<String, Count>,
    /// The hub's connection events, if it has any.
    pub(super) events: Option<EventLog>,
}

/// How far a sender's numbered messages are.
pub(super) struct Count {
    /// The number of the next message, or of the last one.
    pub(super) number: u64,
    /// The last one's text, once it was published.
    pub(super) last: Option<String>,
    pub(super) ends: Instant,
}

pub(super) struct StoredConnection {
    pub(super) user: Option<UserId>,
    pub(super) entered: bool,
    pub(super) groups: HashSet<GroupName>,
    pub(super) version: Version,
    /// The time until which a parked connection may be taken over; `None` while it has an owner.
    pub(super) parked: Option<Instant>,
    /// The records of a resumable connection; `None` for others.
    pub(super) session: Option<Session>,
    /// The events of a connection that has entered; `None` where the hub has none.
    pub(super) reported: Option<Reported>,
}

impl HubBackplane for MemoryHub {
    fn name(&self) -> &HubName {
        &self.name
    }
}

impl MemoryHub {
    pub(super) fn new(
        name: HubName,
        node: NodeId,
        epoch: Epoch,
        options: HubOptions,
    ) -> (Self, mpsc::Receiver<Item>) {
        let (lane, items) = mpsc::channel(LANE_CAPACITY);
        let state = HubState {
            log: Log::new(options.clone()),
            presence: options.presence,
            deliveries: Vec::new(),
            versions: 0,
            requests: HashMap::new(),
            counts: HashMap::new(),
            events: options.events.clone().map(EventLog::new),
            connections: HashMap::new(),
            interest: HashMap::new(),
            members: GroupMembers::default(),
            states: HeldStates::default(),
            tombstones: HashMap::new(),
        };
        (
            Self {
                name,
                node,
                epoch,
                options,
                state: Mutex::new(state),
                lane,
            },
            items,
        )
    }

    /// Appends a call's answer to a connection's topic, if `allowed` returns true.
    pub(super) async fn answer(
        &self,
        id: &ConnectionId,
        envelope: &Arc<Envelope>,
        allowed: impl FnOnce(&mut Session) -> bool,
    ) -> Result<Option<Offset>, BackplaneError> {
        let room = self.room().await?;
        let mut state = self.state.lock();
        let Some(connection) = state.connections.get_mut(id) else {
            return Ok(None);
        };
        let owned = connection.parked.is_none();
        if !connection.session.as_mut().is_some_and(allowed) {
            return Ok(None);
        }
        let topic = Topic::Connection(id.clone());
        let offset = state.log.append(&topic, Some(Arc::clone(envelope)));
        if owned {
            room.send(Item::message(&topic, offset, envelope));
        }
        Ok(Some(offset))
    }

    /// Waits until the sink was given all entries up to now. Returns the log's last offset.
    pub(super) async fn await_sink(&self) -> Result<Offset, BackplaneError> {
        let room = self.room().await?;
        let (done, given) = oneshot::channel();
        let offset = {
            let state = self.state.lock();
            room.send(Item {
                done: Some(done),
                ..Item::default()
            });
            state.log.last()
        };
        given.await.map_err(|_| BackplaneError::Closed)?;
        Ok(offset)
    }

    /// Deliveries that wait for the sink.
    pub(super) fn waiting(&self) -> usize {
        self.lane.max_capacity() - self.lane.capacity()
    }

    /// Drops expired tombstones, requests, entries and events.
    pub(super) fn sweep(&self) {
        let now = Instant::now();
        let mut state = self.state.lock();
        state.log.sweep(now);
        state.tombstones.retain(|_, end| *end > now);
        state.members.sweep(now);
        state.requests.retain(|_, (_, end)| *end > now);
        state.counts.retain(|_, count| count.ends > now);
        if let Some(events) = &mut state.events {
            events.sweep(now);
        }
    }

    /// Removes parked connections whose time is up.
    pub(super) async fn remove_expired(&self, tombstone: Duration) -> Vec<ConnectionRecord> {
        let now = Instant::now();
        let up = |(id, connection): (&ConnectionId, &StoredConnection)| {
            let over = connection.parked.is_some_and(|end| end <= now);
            over.then(|| connection.record(id))
        };
        self.removing(|state| {
            let expired: Vec<_> = state.connections.iter().filter_map(up).collect();
            for connection in &expired {
                state.take(&connection.id, NOT_RESUMED);
                state.tombstones.insert(connection.id.clone(), now + tombstone);
            }
            expired
        })
        .await
    }
}

impl StoredConnection {
    /// The topics that the connection receives beside its own.
    pub(super) fn topics(&self) -> Vec<Topic> {
        let user = self.user.clone().map(Topic::User);
        let groups = self.groups.iter().cloned().map(Topic::Group);
        std::iter::once(Topic::All).chain(user).chain(groups).collect()
    }

    pub(super) fn record(&self, id: &ConnectionId) -> ConnectionRecord {
        ConnectionRecord {
            id: id.clone(),
            user: self.user.clone(),
            state: self.session.as_ref().map(|session| session.state.clone()),
            event: self
                .reported
                .as_ref()
                .map(|reported| reported.record.clone())
                .unwrap_or_default(),
        }
    }
}

impl HubState {
    pub(super) fn claim(&mut self, node: &NodeId, connection: &ConnectionRecord) -> Claim {
        if self
            .tombstones
            .get(&connection.id)
            .is_some_and(|end| *end > Instant::now())
        {
            return Claim::Closed;
        }
        match self.connections.get(&connection.id) {
            Some(known) if known.parked.is_some() => return Claim::Closed,
            Some(_) => return Claim::Owned(node.clone()),
            None => {}
        }
        self.versions += 1;
        let new = StoredConnection {
            user: connection.user.clone(),
            entered: false,
            groups: HashSet::new(),
            version: Version(self.versions),
            parked: None,
            session: None,
            reported: None,
        };
        self.connections.insert(connection.id.clone(), new);
        Claim::Claimed
    }

    pub(super) fn enter(&mut self, id: &ConnectionId, joined: &[GroupName]) -> Option<TopicsChange> {
        let connection = self.connections.get_mut(id)?;
        let first = !std::mem::replace(&mut connection.entered, true);
        let user = connection.user.clone().map(Topic::User);
        let mut topics: Vec<_> = std::iter::once(Topic::All).chain(user).collect();
        if let Some(user) = topics.get(1) {
            self.list(user, id);
        }
        if first {
            topics.iter().for_each(|topic| self.gain(topic.clone()));
        }
        for group in joined {
            let topic = Topic::Group(group.clone());
            let known = self.connections.get_mut(id)?;
            if known.groups.insert(group.clone()) {
                self.gain(topic.clone());
            }
            self.list(&topic, id);
            topics.push(topic);
        }
        topics.push(Topic::Connection(id.clone()));
        Some(TopicsChange::new(true, topics, false, true))
    }

    /// Makes this node the owner of a connection, with a new version.
    pub(super) fn adopt(&mut self, id: &ConnectionId) {
        self.versions += 1;
        let version = Version(self.versions);
        let Some(connection) = self.connections.get_mut(id) else {
            return;
        };
        connection.version = version;
        let topics = connection.topics();
        if connection.parked.take().is_some() {
            self.members.parked -= 1;
            topics.into_iter().for_each(|topic| self.gain(topic));
        }
    }

    /// Removes a connection that is not parked, with its memberships.
    pub(super) fn take_owned(&mut self, id: &ConnectionId, reason: &str) -> bool {
        let owned = self
            .connections
            .get(id)
            .is_some_and(|known| known.parked.is_none());
        owned && self.take(id, reason)
    }

    /// Removes a connection, with its memberships, for a reason that its event names.
    pub(super) fn take(&mut self, id: &ConnectionId, reason: &str) -> bool {
        let Some(connection) = self.connections.remove(id) else {
            return false;
        };
        let topics = connection.topics();
        for topic in &topics {
            self.unlist(topic, id, connection.user.as_ref());
        }
        if connection.parked.is_none() {
            let gained = |topic: &&Topic| connection.entered || matches!(topic, Topic::Group(_));
            topics.iter().filter(gained).for_each(|topic| self.lose(topic));
        } else {
            self.members.parked -= 1;
        }
        self.log.delete(&Topic::Connection(id.clone()));
        self.report_disconnected(id, &connection, reason);
        true
    }

    /// Parks a connection: it has no owner any more. `false` when it is not resumable or has another version.
    pub(super) fn park(&mut self, id: &ConnectionId, version: Version, until: Instant) -> bool {
        let Some(connection) = self.connections.get_mut(id) else {
            return false;
        };
        if connection.version != version || connection.session.is_none() || connection.parked.is_some() {
            return false;
        }
        connection.parked = Some(until);
        self.members.parked += 1;
        let topics = connection.topics();
        topics.iter().for_each(|topic| self.lose(topic));
        true
    }

    pub(super) fn gain(&mut self, topic: Topic) {
        *self.interest.entry(topic).or_default() += 1;
    }

    pub(super) fn lose(&mut self, topic: &Topic) {
        if let Some(count) = self.interest.get_mut(topic) {
            *count -= 1;
            if *count == 0 {
                self.interest.remove(topic);
            }
        }
    }
}
