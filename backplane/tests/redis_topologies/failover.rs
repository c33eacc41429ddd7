//! The checks that every failover must pass, seen from outside.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hubcast_backplane::conformance::{Member, envelope, eventually, group};
use hubcast_backplane::{BackplaneError, ConnectionId, Delivery, Gap, Offset, Topic};
use parking_lot::Mutex;
use tokio::time::Instant;

/// A message that is published to see whether publishing works.
const PROBE: &str = "probe";

/// A connection whose hub is about to lose its server.
pub(crate) struct Watched {
    publisher: Member,
    receiver: Member,
    connection: ConnectionId,
}

impl Watched {
    /// A connection of the second node that receives what the first one publishes.
    pub(crate) async fn new(members: &[Member]) -> Self {
        let (publisher, receiver) = (members[0].clone(), members[1].clone());
        let connection = receiver.connect(Some("u")).await;
        receiver.join(&connection, "g").await;
        receiver.join(&connection, "left").await;
        receiver.leave(&connection, "left").await;
        let watched = Self {
            publisher,
            receiver,
            connection,
        };
        watched.publish_all("before").await;
        watched
    }

    pub(crate) fn hub(&self) -> &str {
        self.receiver.hub.name().as_str()
    }

    pub(crate) fn gaps(&self) -> Vec<Gap> {
        let deliveries = self.receiver.sink.deliveries().into_iter();
        let gaps = deliveries.filter_map(|delivery| match delivery {
            Delivery::Gap(gap) => Some(gap),
            _ => None,
        });
        gaps.collect()
    }

    /// Publishes on every way to the connection; all of it arrives, in order.
    pub(crate) async fn publish_all(&self, target: &str) {
        let topics = [
            Topic::Group(group("g")),
            Topic::Connection(self.connection.clone()),
            Topic::User(hubcast_backplane::UserId::parse("u").unwrap()),
            Topic::All,
        ];
        let received = || {
            let mut received = self.receiver.sink.received(&self.connection);
            received.retain(|(_, target)| target != PROBE);
            received
        };
        let before = received().len();
        for topic in &topics {
            let offset = self.publisher.publish(topic.clone(), target).await;
            assert!(offset.is_some(), "{topic:?} reaches nobody");
        }
        let end = format!("{target}-end");
        self.publisher.publish(Topic::All, &end).await;
        self.receiver.sink.received_until(&self.connection, &end).await;
        let received = received();
        let targets: Vec<_> = received[before..]
            .iter()
            .map(|(_, target)| target.as_str())
            .collect();
        assert_eq!(targets, [target, target, target, target, &end]);
        assert!(received.is_sorted_by(|(a, _), (b, _)| a < b));
    }

    /// Waits until publishing works in a new epoch and the connection got its gap, then checks that no other message is
    /// missing. Returns the time for which publishing did not work.
    pub(crate) async fn survives(&self, begun: Instant) -> Duration {
        let outage = self
            .publish_until_it_works()
            .await
            .saturating_duration_since(begun);
        let told = eventually("the new epoch is told", async || {
            let epoch = |gap| match gap {
                Gap::NewEpoch(epoch) => Some(epoch),
                Gap::Trimmed(_) => None,
            };
            self.gaps().into_iter().find_map(epoch)
        })
        .await;
        // Until the publisher's node knows of it, too, the former master takes messages, which are lost with it.
        eventually("the publisher's node has left the former master", async || {
            let position = self.publisher.hub.position().await.ok()?;
            (position.epoch == told).then_some(())
        })
        .await;
        eventually("the connection is registered again", async || {
            let found = self.publisher.hub.look_up(&self.connection);
            (found.await.ok()??.owner.as_ref() == Some(self.receiver.node.node())).then_some(())
        })
        .await;
        self.publish_all("after").await;
        let epoch = self.publisher.hub.position().await.unwrap().epoch;
        // Messages that were published meanwhile may be reported as lost besides.
        let mut gaps = self.gaps();
        gaps.retain(|gap| matches!(gap, Gap::NewEpoch(_)));
        assert_eq!(gaps, [Gap::NewEpoch(epoch)]);
        outage
    }

    /// Tries in a row, as a caller would. Every failure comes within its time limit, and as an error.
    async fn publish_until_it_works(&self) -> Instant {
        let give_up = Instant::now() + Duration::from_secs(40);
        while Instant::now() < give_up {
            let (begun, member) = (Instant::now(), &self.publisher);
            let published = member.hub.publish(&[Topic::All], &envelope(PROBE)).await;
            assert!(begun.elapsed() < Duration::from_secs(7), "{:?}", begun.elapsed());
            match published {
                Ok(_) => return Instant::now(),
                Err(BackplaneError::Unavailable { .. } | BackplaneError::Timeout { .. }) => {}
                Err(error) => panic!("{error}"),
            }
        }
        panic!("publishing never works again");
    }

    /// Begins to publish, on and on.
    pub(crate) fn load(&self) -> Load {
        let load = Load::default();
        let (stopped, published) = (Arc::clone(&load.stop), Arc::clone(&load.published));
        let member = self.publisher.clone();
        let topics = [Topic::All, Topic::Group(group("g"))];
        tokio::spawn(async move {
            while !stopped.load(Ordering::Acquire) {
                match member.hub.publish(&topics, &envelope(PROBE)).await {
                    Ok(offsets) => published.lock().extend(offsets.into_iter().flatten()),
                    Err(BackplaneError::Unavailable { .. } | BackplaneError::Timeout { .. }) => {}
                    Err(error) => panic!("{error}"),
                }
                tokio::task::yield_now().await;
            }
        });
        load
    }

    /// Messages that are published now, after the new epoch was reported, are received, each once and in order.
    pub(crate) async fn receives_all_of(&self, load: Load) {
        // Messages that the old server took until it knew of the new one belong to the old epoch.
        let before = std::mem::take(&mut *load.published.lock()).len();
        eventually("publishing goes on", async || {
            (load.published.lock().len() > 100).then_some(())
        })
        .await;
        load.stop.store(true, Ordering::Release);
        let published = load.published.lock().clone();
        self.publish_all("end-of-load").await;
        let mut received: Vec<Offset> = Vec::new();
        for delivery in self.receiver.sink.deliveries() {
            match delivery {
                Delivery::Gap(_) => received.clear(),
                Delivery::Message(message) => received.push(message.offset),
                _ => {}
            }
        }
        assert!(received.is_sorted_by(|a, b| a < b), "order and once");
        let missing = published
            .iter()
            .filter(|offset| received.binary_search(offset).is_err());
        assert_eq!(missing.count(), 0);
        println!(
            "{before} published until the new epoch was told, then {}",
            published.len()
        );
    }

    pub(crate) async fn leave(&self) {
        assert!(self.receiver.remove(&self.connection).await);
    }
}

/// A publisher, with its acknowledged messages.
#[derive(Default)]
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    published: Arc<Mutex<BTreeSet<Offset>>>,
}
