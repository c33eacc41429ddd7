//! Rules about order: all messages go one path, in one order.

use std::sync::Arc;

use tokio::task::JoinSet;

use super::{Nodes, envelope, eventually, group, open};
use crate::backplane::{Delivery, HubOptions};
use crate::position::Offset;
use crate::topic::{Topic, UserId};
use crate::wire::{Encoding, Envelope};

/// A node that publishes receives its own messages, in the order in which it published them.
pub async fn a_publisher_receives_its_own_messages_in_order(nodes: &Nodes) {
    for member in open(nodes, HubOptions::default()).await {
        let connection = member.connect(None).await;
        let mut expected = Vec::new();
        for index in 0..20 {
            let target = format!("m{index}");
            expected.push((member.publish(Topic::All, &target).await.unwrap(), target));
        }
        assert_eq!(member.sink.received_until(&connection, "m19").await, expected);
        assert!(member.remove(&connection).await);
    }
}

/// While several nodes publish at the same time, all nodes see the same order.
pub async fn concurrent_publishers_have_one_order_on_all_nodes(nodes: &Nodes) {
    let members = open(nodes, HubOptions::default()).await;
    let mut connections = Vec::new();
    for member in &members {
        let connection = member.connect(None).await;
        member.join(&connection, "g").await;
        connections.push(connection);
    }
    let mut publishers = JoinSet::new();
    for (number, member) in members
        .iter()
        .cycle()
        .take(4.max(members.len()))
        .cloned()
        .enumerate()
    {
        publishers.spawn(async move {
            for index in 0..50 {
                let topic = if index % 2 == 0 {
                    Topic::All
                } else {
                    Topic::Group(group("g"))
                };
                member.publish(topic, &format!("{number}-{index}")).await;
            }
        });
    }
    let count = publishers.len() * 50;
    publishers.join_all().await;
    let mut orders = Vec::new();
    for (member, connection) in members.iter().zip(&connections) {
        let all = eventually("all messages arrive", async || {
            Some(member.sink.received(connection)).filter(|received| received.len() >= count)
        });
        orders.push(all.await);
    }
    assert!(orders[0].is_sorted_by(|(a, _), (b, _)| a < b));
    assert!(orders.iter().all(|order| *order == orders[0]));
}

/// Every offset is assigned once, and none is left out.
pub async fn offsets_have_no_holes(nodes: &Nodes) {
    let members = open(nodes, HubOptions::default()).await;
    let member = &members[0];
    let connection = member.connect(None).await;
    let mut offsets = vec![member.hub.position().await.unwrap().offset];
    offsets.push(member.join(&connection, "g").await);
    offsets.push(member.publish(Topic::Group(group("nobody")), "x").await.unwrap());
    offsets.push(
        member
            .publish(Topic::Connection(connection.clone()), "x")
            .await
            .unwrap(),
    );
    offsets.push(member.leave(&connection, "g").await);
    assert!(offsets.iter().copied().eq(1..=5), "{offsets:?}");
    assert_eq!(member.hub.position().await.unwrap().offset, 5);
}

/// One call publishes to several topics in their order.
pub async fn several_topics_are_published_to_in_order(nodes: &Nodes) {
    let members = open(nodes, HubOptions::default()).await;
    let member = members.last().unwrap();
    let connection = member.connect(Some("u")).await;
    let topics = [
        Topic::User(UserId::parse("u").unwrap()),
        Topic::Connection(super::record(None).id),
        Topic::Connection(connection.clone()),
        Topic::All,
    ];
    let receipts = members[0].hub.publish(&topics, &envelope("m")).await.unwrap();
    let first = receipts[0].unwrap();
    assert_eq!(receipts, [Some(first), None, Some(first + 1), Some(first + 2)]);
    let offsets: Vec<Offset> = eventually("three messages", async || {
        Some(member.sink.received(&connection)).filter(|received| received.len() >= 3)
    })
    .await
    .into_iter()
    .map(|(offset, _)| offset)
    .collect();
    assert_eq!(offsets, [first, first + 1, first + 2]);
}

/// A message arrives as it was published, its exclusions included.
pub async fn an_envelope_arrives_unchanged(nodes: &Nodes) {
    let members = open(nodes, HubOptions::default()).await;
    let member = members.last().unwrap();
    let (kept, left_out) = (member.connect(None).await, member.connect(None).await);
    let sent = Envelope {
        target: "t".to_owned(),
        arguments: vec![
            b"\x93\x01\x02\x00".as_slice().into(),
            b"\n \xff".as_slice().into(),
        ],
        encoding: Encoding::MessagePack.into(),
        except: vec![left_out.to_string()],
        traceparent: "00-1".to_owned(),
        tracestate: "a=b".to_owned(),
        ..Envelope::default()
    };
    members[0].hub.publish(&[Topic::All], &sent).await.unwrap();
    member.sink.received_until(&kept, "t").await;
    assert!(member.sink.received(&left_out).is_empty());
    let found = member
        .sink
        .deliveries()
        .into_iter()
        .find_map(|delivery| match delivery {
            Delivery::Message(message) => Some(message.envelope),
            _ => None,
        });
    assert_eq!(found.map(Arc::unwrap_or_clone), Some(sent));
}
