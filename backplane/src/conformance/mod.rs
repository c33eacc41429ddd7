//! The rules that every [`Backplane`] obeys, as async functions that panic where it does not.
//!
//! A rule takes the nodes of one cluster. Rules do not disturb each other: each opens hubs of its own. With one node a
//! rule checks what holds within it; rules that need two nodes are listed apart.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

pub mod calls;
pub mod directory;
pub mod events;
pub mod group_states;
pub mod groups;
pub mod history;
pub mod names;
pub mod numbered;
pub mod once;
pub mod opening;
pub mod order;
pub mod ownership;
pub mod presence;
pub mod queries;
pub mod replays;
pub mod requests;
pub mod resume;
pub mod sessions;
pub mod turns;
pub mod whole;

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use crate::backplane::{
    Backplane, ConnectionRecord, Delivery, End, HubOptions, HubSink, Message, NodeService,
};
use crate::error::{BackplaneError, ServiceError};
use crate::events::EventRecord;
use crate::hub::HubBackplane;
use crate::position::Offset;
use crate::sessions::Listing;
use crate::topic::{ConnectionId, GroupName, HubName, NodeId, Topic, UserId};
use crate::wire::Envelope;

/// The nodes of one cluster.
pub type Nodes = [Arc<dyn Backplane>];

/// A sink that keeps its deliveries.
#[derive(Default)]
pub struct Recorder {
    deliveries: Mutex<Vec<Delivery>>,
}

impl HubSink for Recorder {
    fn deliver(&self, deliveries: &[Delivery]) {
        self.deliveries.lock().extend_from_slice(deliveries);
    }
}

impl Recorder {
    /// All deliveries so far.
    #[must_use]
    pub fn deliveries(&self) -> Vec<Delivery> {
        self.deliveries.lock().clone()
    }

    /// The messages that a session of this connection would have sent so far, by offset and target.
    #[must_use]
    pub fn received(&self, connection: &ConnectionId) -> Vec<(Offset, String)> {
        let own = Topic::Connection(connection.clone());
        let (mut topics, mut received) = (HashSet::new(), Vec::new());
        for delivery in self.deliveries.lock().iter() {
            match delivery {
                Delivery::Joined {
                    connection: who,
                    topics: joined,
                    ..
                } if who == connection => {
                    if joined.contains(&own) {
                        topics.clear(); // an ownership begins here, with all topics of an earlier one
                    }
                    topics.extend(joined.iter().cloned());
                }
                Delivery::Taken { connection: who, .. } if who == connection => topics.clear(),
                Delivery::Left {
                    connection: who,
                    topics: left,
                    ..
                } if who == connection => {
                    topics.retain(|topic| !left.contains(topic));
                }
                Delivery::Message(message)
                    if topics.contains(&message.topic)
                        && !message.envelope.except.iter().any(|id| id == connection.as_str()) =>
                {
                    received.push((message.offset, message.envelope.target.clone()));
                }
                _ => {}
            }
        }
        received
    }

    /// Waits until a connection received a message with this target, and returns all messages that it received.
    pub async fn received_until(&self, connection: &ConnectionId, target: &str) -> Vec<(Offset, String)> {
        eventually(&format!("{connection} receives {target}"), async || {
            let received = self.received(connection);
            received
                .iter()
                .any(|(_, found)| found == target)
                .then_some(received)
        })
        .await
    }

    /// The number of gaps so far.
    #[must_use]
    pub fn gaps(&self) -> usize {
        self.deliveries
            .lock()
            .iter()
            .filter(|delivery| matches!(delivery, Delivery::Gap(_)))
            .count()
    }
}

/// A service that records a node's notifications about connections and its own fencing, and fails all requests.
#[derive(Default)]
pub struct Witness {
    orphans: Mutex<Vec<ConnectionRecord>>,
    lost: Mutex<Vec<ConnectionId>>,
    fenced: AtomicUsize,
}

impl Witness {
    /// Sets a new recording service as a node's service.
    #[must_use]
    pub fn of(node: &dyn Backplane) -> Arc<Self> {
        let witness = Arc::new(Self::default());
        node.set_service(Arc::clone(&witness) as Arc<dyn NodeService>);
        witness
    }

    /// The connections whose removal was reported to this node.
    #[must_use]
    pub fn orphans(&self) -> Vec<ConnectionRecord> {
        self.orphans.lock().clone()
    }

    /// The connections that were reported to this node as lost.
    #[must_use]
    pub fn lost(&self) -> Vec<ConnectionId> {
        self.lost.lock().clone()
    }

    /// The number of times that this node was fenced.
    #[must_use]
    pub fn fenced(&self) -> usize {
        self.fenced.load(Ordering::Acquire)
    }
}

impl NodeService for Witness {
    fn serve(&self, _payload: Bytes) -> BoxFuture<'static, Result<Bytes, ServiceError>> {
        std::future::pending().boxed()
    }

    fn orphan_removed(&self, _hub: &HubName, connection: ConnectionRecord, _report: Bytes) {
        self.orphans.lock().push(connection);
    }

    fn connection_lost(&self, _hub: &HubName, connection: &ConnectionId) {
        self.lost.lock().push(connection.clone());
    }

    fn fenced(&self) {
        self.fenced.fetch_add(1, Ordering::AcqRel);
    }
}

/// One node with a hub, and the deliveries of that hub.
#[derive(Clone)]
pub struct Member {
    /// The node.
    pub node: Arc<dyn Backplane>,
    /// Its hub, which all nodes of the rule serve.
    pub hub: Arc<dyn HubBackplane>,
    /// The sink that has the deliveries of the node's hub.
    pub sink: Arc<Recorder>,
}

impl Member {
    /// Opens a hub on a node, with a recorder as its sink.
    pub async fn open(node: &Arc<dyn Backplane>, name: &HubName, options: HubOptions) -> Self {
        let sink = Arc::new(Recorder::default());
        let opened = node.open_hub(name.clone(), options, Arc::clone(&sink) as Arc<dyn HubSink>);
        Self {
            node: Arc::clone(node),
            hub: opened.await.unwrap(),
            sink,
        }
    }

    /// Enters a new connection.
    pub async fn connect(&self, user: Option<&str>) -> ConnectionId {
        let connection = record(user);
        self.hub.enter(&connection, true).await.unwrap();
        connection.id
    }

    /// Publishes to one topic.
    pub async fn publish(&self, topic: Topic, target: &str) -> Option<Offset> {
        self.hub.publish(&[topic], &envelope(target)).await.unwrap()[0]
    }

    /// The messages with this target that a connection of this node received up to now.
    pub async fn received_so_far(&self, connection: &ConnectionId, target: &str) -> Vec<Message> {
        let end = Uuid::new_v4().to_string();
        self.publish(Topic::Connection(connection.clone()), &end).await;
        let received = self.sink.received_until(connection, &end).await;
        let offsets: HashSet<_> = received.into_iter().map(|(offset, _)| offset).collect();
        let messages = self
            .sink
            .deliveries()
            .into_iter()
            .filter_map(|delivery| match delivery {
                Delivery::Message(message) if offsets.contains(&message.offset) => Some(message),
                _ => None,
            });
        messages
            .filter(|message| message.envelope.target == target)
            .collect()
    }

    /// Joins a group.
    pub async fn join(&self, connection: &ConnectionId, name: &str) -> Offset {
        self.hub.join(connection, &group(name)).await.unwrap()
    }

    /// Leaves a group.
    pub async fn leave(&self, connection: &ConnectionId, name: &str) -> Offset {
        self.hub.leave(connection, &group(name)).await.unwrap()
    }

    /// Removes a connection.
    pub async fn remove(&self, connection: &ConnectionId) -> bool {
        self.hub
            .remove(connection, End::unreported(Duration::from_secs(60)))
            .await
            .unwrap()
    }
}

/// Opens a new hub on every node.
pub async fn open(nodes: &Nodes, options: HubOptions) -> Vec<Member> {
    let name = HubName::parse(format!("rule-{}", Uuid::new_v4().simple())).unwrap();
    let mut members = Vec::new();
    for node in nodes {
        members.push(Member::open(node, &name, options.clone()).await);
    }
    members
}

/// Waits for a condition.
pub async fn eventually<T>(what: &str, mut probe: impl AsyncFnMut() -> Option<T>) -> T {
    let found = timeout(Duration::from_secs(30), async {
        loop {
            if let Some(value) = probe().await {
                return value;
            }
            sleep(Duration::from_millis(5)).await;
        }
    });
    found.await.unwrap_or_else(|_| panic!("never happened: {what}"))
}

/// A connection with an id of its own.
#[must_use]
pub fn record(user: Option<&str>) -> ConnectionRecord {
    let id = ConnectionId::parse(Uuid::new_v4().simple().to_string()).unwrap();
    ConnectionRecord {
        id,
        user: user.map(|user| UserId::parse(user).unwrap()),
        state: None,
        event: EventRecord::default(),
    }
}

/// The directory's listing of a connection, as soon as the directory is settled.
pub async fn listing(member: &Member, connection: &ConnectionId) -> Option<Listing> {
    eventually("the directory knows", async || {
        match member.hub.look_up(connection).await {
            Err(BackplaneError::Unsettled) => None,
            found => Some(found.unwrap()),
        }
    })
    .await
}

/// The node that owns a connection.
pub async fn owner(member: &Member, connection: &ConnectionId) -> Option<NodeId> {
    listing(member, connection).await?.owner
}

/// A group's name.
#[must_use]
pub fn group(name: &str) -> GroupName {
    GroupName::parse(name).unwrap()
}

/// A message that is identified by its target.
#[must_use]
pub fn envelope(target: &str) -> Envelope {
    Envelope {
        target: target.to_owned(),
        ..Envelope::default()
    }
}
