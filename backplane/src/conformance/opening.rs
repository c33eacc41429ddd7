//! Rules about opening hubs.

use std::sync::Arc;

use super::{Nodes, Recorder, listing, open};
use crate::backplane::{HubOptions, HubSink};
use crate::directory::Members;
use crate::error::BackplaneError;
use crate::topic::{Topic, UserId};

/// The second try to open a hub on a node is an error, and the opened hub goes on.
pub async fn a_hub_is_opened_once(nodes: &Nodes) {
    let member = open(nodes, HubOptions::default()).await.remove(0);
    let connection = member.connect(None).await;
    let other = Arc::new(Recorder::default());
    let sink = Arc::clone(&other) as Arc<dyn HubSink>;
    let again = member
        .node
        .open_hub(member.hub.name().clone(), HubOptions::default(), sink)
        .await;
    assert!(matches!(again.err(), Some(BackplaneError::Config { .. })));
    member.publish(Topic::All, "one").await;
    member.sink.received_until(&connection, "one").await;
    assert!(other.deliveries().is_empty());
}

/// Hubs of one node share nothing: neither messages, nor connections, nor their offsets.
pub async fn hubs_share_nothing(nodes: &Nodes) {
    let first = open(nodes, HubOptions::default()).await.remove(0);
    let second = open(nodes, HubOptions::default()).await.remove(0);
    assert_ne!(first.hub.name(), second.hub.name());
    let connection = first.connect(Some("ann")).await;
    let witness = second.connect(Some("bob")).await;
    let before = second.hub.position().await.unwrap();
    first.publish(Topic::All, "one").await;
    first.sink.received_until(&connection, "one").await;
    assert_eq!(second.hub.position().await.unwrap(), before);
    assert_eq!(listing(&second, &connection).await, None);
    let ann = UserId::parse("ann").unwrap();
    assert_eq!(second.hub.count(Members::User(&ann)).await.unwrap(), 0);
    second.publish(Topic::All, "two").await;
    let received = second.sink.received_until(&witness, "two").await;
    assert_eq!(received.len(), 1, "{received:?}");
}
