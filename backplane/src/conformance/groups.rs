//! Membership is part of the log.

use super::{Nodes, group, open, record};
use crate::backplane::{Delivery, HubOptions};
use crate::error::BackplaneError;
use crate::position::Offset;
use crate::topic::{Topic, UserId};

/// While others publish without pause, a member receives exactly the messages between its join and its leave.
pub async fn a_member_receives_exactly_from_its_join_to_its_leave(nodes: &Nodes) {
    let members = open(
        nodes,
        HubOptions {
            retention_messages: 100_000,
            ..HubOptions::default()
        },
    )
    .await;
    let (publisher, member) = (members[0].clone(), members.last().unwrap());
    let connection = member.connect(None).await;
    let (stop, mut stopped) = tokio::sync::oneshot::channel::<()>();
    let publishing = tokio::spawn(async move {
        let mut published = Vec::new();
        while stopped.try_recv().is_err() {
            published.push(publisher.publish(Topic::Group(group("g")), "m").await.unwrap());
        }
        published
    });
    let mut memberships: Vec<(Offset, Offset)> = Vec::new();
    let mut seed = 7_u64;
    for _ in 0..20 {
        let joined = member.join(&connection, "g").await;
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        for _ in 0..seed >> 61 {
            member.publish(Topic::All, "pause").await;
        }
        memberships.push((joined, member.leave(&connection, "g").await));
    }
    stop.send(()).unwrap();
    let published = publishing.await.unwrap();
    member.publish(Topic::All, "end").await;
    let received = member.sink.received_until(&connection, "end").await;
    let received = received
        .into_iter()
        .filter(|(_, target)| target == "m")
        .map(|(offset, _)| offset);
    let is_member = |offset: &Offset| memberships.iter().any(|(from, to)| (from..to).contains(&offset));
    let expected: Vec<_> = published.into_iter().filter(is_member).collect();
    assert!(!expected.is_empty());
    assert_eq!(received.collect::<Vec<_>>(), expected);
}

/// When a join or a leave has returned, the sink was given it.
pub async fn a_change_returns_after_the_sink_was_told(nodes: &Nodes) {
    for member in open(nodes, HubOptions::default()).await {
        let connection = member.connect(None).await;
        let joined = member.join(&connection, "g").await;
        let left = member.leave(&connection, "g").await;
        let reported: Vec<_> = member
            .sink
            .deliveries()
            .iter()
            .filter_map(|delivery| match delivery {
                Delivery::Joined { topics, offset, .. } => Some((topics.clone(), *offset)),
                Delivery::Left { topics, offset, .. } => Some((topics.clone(), *offset)),
                _ => None,
            })
            .collect();
        let topics = vec![Topic::Group(group("g"))];
        assert_eq!(reported[1..], [(topics.clone(), joined), (topics, left)]);
        assert_eq!(reported[0].0, [Topic::All, Topic::Connection(connection.clone())]);
    }
}

/// Joining twice, and leaving a group that was not joined, changes nothing.
pub async fn repeated_changes_are_harmless(nodes: &Nodes) {
    let members = open(nodes, HubOptions::default()).await;
    let member = members.last().unwrap();
    let connection = member.connect(None).await;
    member.leave(&connection, "g").await;
    member.join(&connection, "g").await;
    member.join(&connection, "g").await;
    members[0].publish(Topic::Group(group("g")), "one").await;
    member.sink.received_until(&connection, "one").await;
    member.leave(&connection, "g").await;
    members[0].publish(Topic::Group(group("g")), "two").await;
    members[0].publish(Topic::All, "end").await;
    let received = member.sink.received_until(&connection, "end").await;
    let targets: Vec<_> = received.iter().map(|(_, target)| target.as_str()).collect();
    assert_eq!(targets, ["one", "end"]);
}

/// A user's messages reach all connections of the user and no others.
pub async fn a_user_receives_on_every_connection(nodes: &Nodes) {
    let members = open(nodes, HubOptions::default()).await;
    let (first, last) = (&members[0], members.last().unwrap());
    let (one, two) = (first.connect(Some("me")).await, last.connect(Some("me")).await);
    let other = last.connect(Some("you")).await;
    first
        .publish(Topic::User(UserId::parse("me").unwrap()), "mine")
        .await;
    first.publish(Topic::All, "end").await;
    assert_eq!(first.sink.received_until(&one, "end").await.len(), 2);
    assert_eq!(last.sink.received_until(&two, "end").await.len(), 2);
    assert_eq!(last.sink.received_until(&other, "end").await.len(), 1);
}

/// A message without a receiver on a node is not delivered there.
pub async fn a_node_without_members_receives_nothing(nodes: &Nodes) {
    let members = open(nodes, HubOptions::default()).await;
    let (first, last) = (&members[0], members.last().unwrap());
    first.publish(Topic::All, "early").await;
    first.publish(Topic::Group(group("g")), "early").await;
    let connection = last.connect(None).await;
    first.publish(Topic::Group(group("g")), "late").await;
    first.publish(Topic::All, "end").await;
    last.sink.received_until(&connection, "end").await;
    let messages = last
        .sink
        .deliveries()
        .into_iter()
        .filter_map(|delivery| match delivery {
            Delivery::Message(message) => Some(message.envelope.target.clone()),
            _ => None,
        });
    assert_eq!(messages.collect::<Vec<_>>(), ["end"]);
}

/// A group whose last member left works again for the next one.
pub async fn a_group_may_be_empty_for_a_while(nodes: &Nodes) {
    let members = open(nodes, HubOptions::default()).await;
    let (first, last) = (&members[0], members.last().unwrap());
    for round in 0..3 {
        let connection = last.connect(None).await;
        last.join(&connection, "g").await;
        let target = format!("m{round}");
        first.publish(Topic::Group(group("g")), &target).await;
        last.sink.received_until(&connection, &target).await;
        assert!(last.remove(&connection).await);
        first.publish(Topic::Group(group("g")), "nobody").await;
    }
    assert_eq!(last.sink.gaps(), 0);
}

/// Only the owner of a connection changes its memberships.
pub async fn a_connection_that_is_not_here_can_not_join(nodes: &Nodes) {
    let members = open(nodes, HubOptions::default()).await;
    let unknown = record(None);
    for member in &members {
        let joined = member.hub.join(&unknown.id, &group("g")).await;
        assert!(
            matches!(joined, Err(BackplaneError::NotOwner { .. })),
            "{joined:?}"
        );
        let entered = member.hub.enter(&unknown, false).await;
        assert!(
            matches!(entered, Err(BackplaneError::NotOwner { .. })),
            "{entered:?}"
        );
    }
}
