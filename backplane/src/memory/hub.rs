//! One hub: its log, its connections and its lane.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::log::Log;
use crate::backplane::{Claim, ConnectionRecord, Delivery, HubOptions, HubSink, LogRead, Message};
use crate::error::BackplaneError;
use crate::position::Offset;
use crate::topic::{ConnectionId, GroupName, NodeId, Topic, UserId};
use crate::wire::Envelope;

/// Deliveries that may wait for the sink before publishers wait for it.
const LANE_CAPACITY: usize = 4_096;
/// Most deliveries that the sink is given at once.
const BATCH: usize = 256;

pub(super) struct Hub {
    node: NodeId,
    state: Mutex<State>,
    lane: mpsc::Sender<Item>,
}

struct State {
    log: Log,
    connections: HashMap<ConnectionId, Connection>,
    /// How many connections receive a topic; their own topics are not listed.
    interest: HashMap<Topic, usize>,
    tombstones: HashMap<ConnectionId, Instant>,
}

struct Connection {
    user: Option<UserId>,
    entered: bool,
    groups: HashSet<GroupName>,
}

/// What waits for the sink.
pub(super) struct Item {
    delivery: Delivery,
    /// Told once the sink was given the delivery.
    done: Option<oneshot::Sender<()>>,
}

impl Hub {
    pub(super) fn new(node: NodeId, options: HubOptions) -> (Self, mpsc::Receiver<Item>) {
        let (lane, items) = mpsc::channel(LANE_CAPACITY);
        let state = State {
            log: Log::new(options),
            connections: HashMap::new(),
            interest: HashMap::new(),
            tombstones: HashMap::new(),
        };
        (
            Self {
                node,
                state: Mutex::new(state),
                lane,
            },
            items,
        )
    }

    pub(super) async fn publish(
        &self,
        topic: &Topic,
        envelope: &Arc<Envelope>,
    ) -> Result<Option<Offset>, BackplaneError> {
        // Waiting for room comes before the lock: entries then reach the lane in the order of their offsets.
        let room = self.lane.reserve().await.map_err(|_| BackplaneError::Closed)?;
        let mut state = self.state.lock();
        let receivers = match topic {
            Topic::Connection(id) => match state.connections.get(id) {
                None => return Ok(None),
                Some(connection) => connection.entered,
            },
            topic => state.interest.contains_key(topic),
        };
        let offset = state.log.append(topic, Some(Arc::clone(envelope)));
        if receivers {
            let message = Message {
                topic: topic.clone(),
                offset,
                envelope: Arc::clone(envelope),
            };
            room.send(Item {
                delivery: Delivery::Message(message),
                done: None,
            });
        }
        Ok(Some(offset))
    }

    pub(super) fn claim(&self, connection: &ConnectionRecord) -> Claim {
        self.state.lock().claim(&self.node, connection)
    }

    pub(super) async fn enter(
        &self,
        connection: &ConnectionRecord,
        claim: bool,
    ) -> Result<Offset, BackplaneError> {
        self.change(&connection.id, |state| {
            if claim && state.claim(&self.node, connection) != Claim::Claimed {
                return None;
            }
            state.enter(&connection.id)
        })
        .await
    }

    pub(super) async fn join(&self, id: &ConnectionId, group: &GroupName) -> Result<Offset, BackplaneError> {
        self.change(id, |state| {
            if state.connections.get_mut(id)?.groups.insert(group.clone()) {
                state.gain(Topic::Group(group.clone()));
            }
            Some(Change::Joined(vec![Topic::Group(group.clone())]))
        })
        .await
    }

    pub(super) async fn leave(&self, id: &ConnectionId, group: &GroupName) -> Result<Offset, BackplaneError> {
        self.change(id, |state| {
            if state.connections.get_mut(id)?.groups.remove(group) {
                state.lose(&Topic::Group(group.clone()));
            }
            Some(Change::Left(vec![Topic::Group(group.clone())]))
        })
        .await
    }

    /// Gives a connection that was not entered up.
    pub(super) fn release(&self, id: &ConnectionId) -> Result<(), BackplaneError> {
        let removed = self.state.lock().take(id);
        if removed {
            Ok(())
        } else {
            Err(BackplaneError::NotOwner {
                connection: id.clone(),
            })
        }
    }

    pub(super) fn remove(&self, id: &ConnectionId, tombstone: Duration) -> bool {
        let mut state = self.state.lock();
        let removed = state.take(id);
        if removed {
            state.tombstones.insert(id.clone(), Instant::now() + tombstone);
        }
        removed
    }

    pub(super) fn is_owned(&self, id: &ConnectionId) -> bool {
        self.state.lock().connections.contains_key(id)
    }

    pub(super) fn read(&self, topic: &Topic, after: Offset, limit: usize) -> LogRead {
        self.state.lock().log.read(topic, after, limit)
    }

    pub(super) fn last(&self) -> Offset {
        self.state.lock().log.last()
    }

    pub(super) fn sweep(&self) {
        let now = Instant::now();
        let mut state = self.state.lock();
        state.log.sweep(now);
        state.tombstones.retain(|_, end| *end > now);
    }

    /// Applies a change of membership, logs it in the same step and waits until the sink was given it.
    async fn change(
        &self,
        id: &ConnectionId,
        apply: impl FnOnce(&mut State) -> Option<Change>,
    ) -> Result<Offset, BackplaneError> {
        let room = self.lane.reserve().await.map_err(|_| BackplaneError::Closed)?;
        let (done, given) = oneshot::channel();
        let offset = {
            let mut state = self.state.lock();
            let change = apply(&mut state).ok_or_else(|| BackplaneError::NotOwner {
                connection: id.clone(),
            })?;
            let offset = state.log.append(&Topic::Connection(id.clone()), None);
            room.send(Item {
                delivery: change.delivery(id.clone(), offset),
                done: Some(done),
            });
            offset
        };
        given.await.map_err(|_| BackplaneError::Closed)?;
        Ok(offset)
    }
}

enum Change {
    Joined(Vec<Topic>),
    Left(Vec<Topic>),
}

impl Change {
    fn delivery(self, connection: ConnectionId, offset: Offset) -> Delivery {
        match self {
            Self::Joined(topics) => Delivery::Joined {
                connection,
                topics,
                offset,
            },
            Self::Left(topics) => Delivery::Left {
                connection,
                topics,
                offset,
            },
        }
    }
}

impl State {
    fn claim(&mut self, node: &NodeId, connection: &ConnectionRecord) -> Claim {
        if self
            .tombstones
            .get(&connection.id)
            .is_some_and(|end| *end > Instant::now())
        {
            return Claim::Closed;
        }
        if self.connections.contains_key(&connection.id) {
            return Claim::Owned(node.clone());
        }
        let new = Connection {
            user: connection.user.clone(),
            entered: false,
            groups: HashSet::new(),
        };
        self.connections.insert(connection.id.clone(), new);
        Claim::Claimed
    }

    fn enter(&mut self, id: &ConnectionId) -> Option<Change> {
        let connection = self.connections.get_mut(id)?;
        let first = !std::mem::replace(&mut connection.entered, true);
        let user = connection.user.clone().map(Topic::User);
        let mut topics: Vec<_> = std::iter::once(Topic::All).chain(user).collect();
        if first {
            topics.iter().for_each(|topic| self.gain(topic.clone()));
        }
        topics.push(Topic::Connection(id.clone()));
        Some(Change::Joined(topics))
    }

    /// Takes a connection out of everything.
    fn take(&mut self, id: &ConnectionId) -> bool {
        let Some(connection) = self.connections.remove(id) else {
            return false;
        };
        if connection.entered {
            self.lose(&Topic::All);
            if let Some(user) = connection.user {
                self.lose(&Topic::User(user));
            }
        }
        connection
            .groups
            .into_iter()
            .for_each(|group| self.lose(&Topic::Group(group)));
        self.log.delete(&Topic::Connection(id.clone()));
        true
    }

    fn gain(&mut self, topic: Topic) {
        *self.interest.entry(topic).or_default() += 1;
    }

    fn lose(&mut self, topic: &Topic) {
        if let Some(count) = self.interest.get_mut(topic) {
            *count -= 1;
            if *count == 0 {
                self.interest.remove(topic);
            }
        }
    }
}

/// Hands deliveries to the sink, in the order they came in, until cancelled.
pub(super) async fn run_lane(
    sink: Arc<dyn HubSink>,
    mut items: mpsc::Receiver<Item>,
    closing: CancellationToken,
) {
    let mut batch = Vec::with_capacity(BATCH);
    loop {
        let received = tokio::select! {
            biased;
            () = closing.cancelled() => 0,
            received = items.recv_many(&mut batch, BATCH) => received,
        };
        if received == 0 {
            return;
        }
        let (deliveries, done): (Vec<_>, Vec<_>) =
            batch.drain(..).map(|item| (item.delivery, item.done)).unzip();
        sink.deliver(&deliveries);
        for done in done.into_iter().flatten() {
            let _ = done.send(()); // the caller may have stopped waiting
        }
    }
}
