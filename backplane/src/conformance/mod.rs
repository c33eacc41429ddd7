//! The rules that every [`Backplane`] obeys, as async functions that panic where it does not.
//!
//! A rule takes the nodes of one cluster, which have nothing to do with other rules: each opens hubs of its own. With
//! one node a rule says what holds within it; rules that say something about two nodes are listed apart.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

pub mod directory;
pub mod groups;
pub mod order;
pub mod requests;
pub mod resume;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use crate::backplane::{Backplane, ConnectionRecord, Delivery, HubOptions, HubSink};
use crate::position::Offset;
use crate::topic::{ConnectionId, GroupName, HubName, Topic, UserId};
use crate::wire::Envelope;

/// The nodes of one cluster.
pub type Nodes = [Arc<dyn Backplane>];

/// A sink that keeps what it is given.
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
    /// Everything so far.
    #[must_use]
    pub fn deliveries(&self) -> Vec<Delivery> {
        self.deliveries.lock().clone()
    }

    /// What a session of this connection would have sent so far, by offset and target.
    #[must_use]
    pub fn received(&self, connection: &ConnectionId) -> Vec<(Offset, String)> {
        let mut topics = HashSet::new();
        let mut received = Vec::new();
        for delivery in self.deliveries.lock().iter() {
            match delivery {
                Delivery::Joined {
                    connection: who,
                    topics: joined,
                    ..
                } if who == connection => {
                    topics.extend(joined.iter().cloned());
                }
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

    /// Waits until a connection received something with this target, and returns all it received.
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

    /// How many times something was told to be missing.
    #[must_use]
    pub fn gaps(&self) -> usize {
        self.deliveries
            .lock()
            .iter()
            .filter(|delivery| matches!(delivery, Delivery::Gap(_)))
            .count()
    }
}

/// One node with a hub and what it was given.
#[derive(Clone)]
pub struct Member {
    /// The node.
    pub node: Arc<dyn Backplane>,
    /// The hub, which all nodes of the rule serve.
    pub hub: HubName,
    /// What the node's hub was given.
    pub sink: Arc<Recorder>,
}

impl Member {
    /// Enters a new connection.
    pub async fn connect(&self, user: Option<&str>) -> ConnectionId {
        let connection = record(user);
        self.node.enter(&self.hub, &connection, true).await.unwrap();
        connection.id
    }

    /// Publishes to one topic.
    pub async fn publish(&self, topic: Topic, target: &str) -> Option<Offset> {
        self.node
            .publish(&self.hub, &[topic], &envelope(target))
            .await
            .unwrap()[0]
    }

    /// Joins a group.
    pub async fn join(&self, connection: &ConnectionId, name: &str) -> Offset {
        self.node.join(&self.hub, connection, &group(name)).await.unwrap()
    }

    /// Leaves a group.
    pub async fn leave(&self, connection: &ConnectionId, name: &str) -> Offset {
        self.node
            .leave(&self.hub, connection, &group(name))
            .await
            .unwrap()
    }

    /// Removes a connection.
    pub async fn remove(&self, connection: &ConnectionId) -> bool {
        self.node
            .remove(&self.hub, connection, Duration::from_secs(60))
            .await
            .unwrap()
    }
}

/// Opens a new hub on every node.
pub async fn open(nodes: &Nodes, options: HubOptions) -> Vec<Member> {
    let hub = HubName::parse(format!("rule-{}", Uuid::new_v4().simple())).unwrap();
    let mut members = Vec::new();
    for node in nodes {
        let sink = Arc::new(Recorder::default());
        node.open_hub(
            hub.clone(),
            options.clone(),
            Arc::clone(&sink) as Arc<dyn HubSink>,
        )
        .await
        .unwrap();
        members.push(Member {
            node: Arc::clone(node),
            hub: hub.clone(),
            sink,
        });
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
    }
}

/// A group's name.
#[must_use]
pub fn group(name: &str) -> GroupName {
    GroupName::parse(name).unwrap()
}

/// A message that is told apart by its target.
#[must_use]
pub fn envelope(target: &str) -> Envelope {
    Envelope {
        target: target.to_owned(),
        ..Envelope::default()
    }
}
