//! Exact or explicit.

use std::time::Duration;

use super::{Nodes, eventually, open};
use crate::backplane::{HubOptions, LogRead};
use crate::position::{Epoch, Offset, Position};
use crate::topic::Topic;

fn offsets(read: LogRead) -> Vec<Offset> {
    match read {
        LogRead::Exact(messages) => messages.iter().map(|message| message.offset).collect(),
        other => panic!("{other:?}"),
    }
}

/// A topic is read from any position that the log reaches, in pieces.
pub async fn a_log_is_read_from_a_position(nodes: &Nodes) {
    let members = open(nodes, HubOptions::default()).await;
    let (first, last) = (&members[0], members.last().unwrap());
    let begin = first.node.position(&first.hub).await.unwrap();
    let mut all = Vec::new();
    for index in 0..20 {
        all.push(first.publish(Topic::All, &format!("m{index}")).await.unwrap());
    }
    let at = |offset| Position {
        epoch: begin.epoch.clone(),
        offset,
    };
    let read = async |after, limit| {
        last.node
            .read(&last.hub, &Topic::All, &at(after), limit)
            .await
            .unwrap()
    };
    assert_eq!(offsets(read(0, 100).await), all);
    assert_eq!(offsets(read(0, 5).await), all[..5]);
    assert_eq!(offsets(read(all[9], 100).await), all[10..]);
    assert_eq!(offsets(read(all[19], 100).await), []);
    let ahead = read(all[19] + 1, 100).await;
    assert!(
        matches!(ahead, LogRead::Trimmed),
        "nobody was given that position: {ahead:?}"
    );
}

/// A connection's own topic has its messages; changes of membership don't show.
pub async fn changes_of_membership_are_not_read(nodes: &Nodes) {
    let members = open(nodes, HubOptions::default()).await;
    let member = members.last().unwrap();
    let connection = member.connect(None).await;
    let topic = Topic::Connection(connection.clone());
    let mut sent = Vec::new();
    for name in ["a", "b", "c"] {
        member.join(&connection, name).await;
        sent.push(member.publish(topic.clone(), name).await.unwrap());
    }
    let epoch = member.node.position(&member.hub).await.unwrap().epoch;
    let read = async |offset, limit| {
        let after = Position {
            epoch: epoch.clone(),
            offset,
        };
        offsets(
            members[0]
                .node
                .read(&member.hub, &topic, &after, limit)
                .await
                .unwrap(),
        )
    };
    assert_eq!(read(0, 100).await, sent);
    assert_eq!(read(0, 1).await, sent[..1]);
    assert_eq!(read(sent[0], 1).await, sent[1..2]);
}

/// What was trimmed by number is told; what is left is read.
pub async fn a_trimmed_log_is_told(nodes: &Nodes) {
    let options = HubOptions {
        retention_messages: 10,
        ..HubOptions::default()
    };
    let members = open(nodes, options).await;
    let member = &members[0];
    let begin = member.node.position(&member.hub).await.unwrap();
    let mut last = 0;
    for _ in 0..300 {
        last = member.publish(Topic::All, "m").await.unwrap();
    }
    let at = |offset| Position {
        epoch: begin.epoch.clone(),
        offset,
    };
    let trimmed = member
        .node
        .read(&member.hub, &Topic::All, &at(0), 1_000)
        .await
        .unwrap();
    assert!(matches!(trimmed, LogRead::Trimmed), "{trimmed:?}");
    let kept = member
        .node
        .read(&member.hub, &Topic::All, &at(last - 10), 1_000)
        .await
        .unwrap();
    assert_eq!(offsets(kept).len(), 10);
}

/// What was trimmed by time is told, also when something came afterwards.
pub async fn an_expired_log_is_told(nodes: &Nodes) {
    let options = HubOptions {
        retention: Duration::from_millis(200),
        ..HubOptions::default()
    };
    let members = open(nodes, options).await;
    let member = &members[0];
    let begin = member.node.position(&member.hub).await.unwrap();
    let read = async |offset| {
        let after = Position {
            epoch: begin.epoch.clone(),
            offset,
        };
        member
            .node
            .read(&member.hub, &Topic::All, &after, 100)
            .await
            .unwrap()
    };
    let first = member.publish(Topic::All, "m").await.unwrap();
    eventually("the entry expires", async || {
        matches!(read(0).await, LogRead::Trimmed).then_some(())
    })
    .await;
    assert_eq!(offsets(read(first).await), []);
    let second = member.publish(Topic::All, "m").await.unwrap();
    assert!(matches!(read(0).await, LogRead::Trimmed));
    assert_eq!(offsets(read(first).await), [second]);
}

/// A position of another epoch is never compared.
pub async fn another_epoch_is_told(nodes: &Nodes) {
    let members = open(nodes, HubOptions::default()).await;
    let member = members.last().unwrap();
    member.publish(Topic::All, "m").await;
    let current = member.node.position(&member.hub).await.unwrap().epoch;
    let after = Position {
        epoch: Epoch::new("another"),
        offset: 0,
    };
    let read = member
        .node
        .read(&member.hub, &Topic::All, &after, 10)
        .await
        .unwrap();
    assert!(
        matches!(&read, LogRead::OtherEpoch(epoch) if *epoch == current),
        "{read:?}"
    );
}
