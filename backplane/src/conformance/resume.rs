//! Rules about reading from a position: the result is exact, or the loss is explicit.

use std::time::Duration;

use super::whole::Whole;
use super::{Nodes, eventually, open};
use crate::backplane::HubOptions;
use crate::position::{Epoch, Offset, Position};
use crate::topic::Topic;

fn offsets(read: Whole) -> Vec<Offset> {
    match read {
        Whole::Exact(messages) => messages.iter().map(|message| message.offset).collect(),
        other => panic!("{other:?}"),
    }
}

/// A topic is read from any position that the log reaches, in pieces.
pub async fn a_log_is_read_from_a_position(nodes: &Nodes) {
    let members = open(nodes, HubOptions::default()).await;
    let (first, last) = (&members[0], members.last().unwrap());
    let begin = first.hub.position().await.unwrap();
    let mut all = Vec::new();
    for index in 0..20 {
        all.push(first.publish(Topic::All, &format!("m{index}")).await.unwrap());
    }
    let at = |offset| Position {
        epoch: begin.epoch.clone(),
        offset,
    };
    let read = async |after| last.read(&Topic::All, &at(after)).await;
    assert_eq!(offsets(read(0).await), all);
    assert_eq!(offsets(read(all[9]).await), all[10..]);
    assert_eq!(offsets(read(all[19]).await), []);
    let ahead = read(all[19] + 1).await;
    assert!(
        matches!(ahead, Whole::Trimmed),
        "nobody was given that position: {ahead:?}"
    );
}

/// A connection's own topic has its messages; changes of membership are left out.
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
    let epoch = member.hub.position().await.unwrap().epoch;
    let read = async |offset| {
        let after = Position {
            epoch: epoch.clone(),
            offset,
        };
        offsets(members[0].read(&topic, &after).await)
    };
    assert_eq!(read(0).await, sent);
    assert_eq!(read(sent[0]).await, sent[1..]);
}

/// Messages trimmed by number are reported; the ones that are left can be read.
pub async fn a_trimmed_log_is_told(nodes: &Nodes) {
    let options = HubOptions {
        retention_messages: 10,
        ..HubOptions::default()
    };
    let members = open(nodes, options).await;
    let member = &members[0];
    let begin = member.hub.position().await.unwrap();
    let mut last = 0;
    for _ in 0..300 {
        last = member.publish(Topic::All, "m").await.unwrap();
    }
    let at = |offset| Position {
        epoch: begin.epoch.clone(),
        offset,
    };
    let trimmed = member.read(&Topic::All, &at(0)).await;
    assert!(matches!(trimmed, Whole::Trimmed), "{trimmed:?}");
    let kept = member.read(&Topic::All, &at(last - 10)).await;
    assert_eq!(offsets(kept).len(), 10);
}

/// Messages trimmed by age are reported, also when newer ones came afterwards.
pub async fn an_expired_log_is_told(nodes: &Nodes) {
    let options = HubOptions {
        retention: Duration::from_millis(200),
        ..HubOptions::default()
    };
    let members = open(nodes, options).await;
    let member = &members[0];
    let begin = member.hub.position().await.unwrap();
    let read = async |offset| {
        let after = Position {
            epoch: begin.epoch.clone(),
            offset,
        };
        member.read(&Topic::All, &after).await
    };
    let first = member.publish(Topic::All, "m").await.unwrap();
    eventually("the entry expires", async || {
        matches!(read(0).await, Whole::Trimmed).then_some(())
    })
    .await;
    assert_eq!(offsets(read(first).await), []);
    let second = member.publish(Topic::All, "m").await.unwrap();
    assert!(matches!(read(0).await, Whole::Trimmed));
    assert_eq!(offsets(read(first).await), [second]);
}

/// A position of another epoch is never compared.
pub async fn another_epoch_is_told(nodes: &Nodes) {
    let members = open(nodes, HubOptions::default()).await;
    let member = members.last().unwrap();
    member.publish(Topic::All, "m").await;
    let current = member.hub.position().await.unwrap().epoch;
    let after = Position {
        epoch: Epoch::new("another"),
        offset: 0,
    };
    let read = member.read(&Topic::All, &after).await;
    assert!(
        matches!(&read, Whole::OtherEpoch(epoch) if *epoch == current),
        "{read:?}"
    );
}
