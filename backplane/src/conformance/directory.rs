//! Rules about the directory: a connection has one owner, and a closed one stays closed.

use std::time::Duration;

use tokio::task::JoinSet;

use super::{Nodes, eventually, open, owner as owner_of, record};
use crate::backplane::{Claim, End, HubOptions};
use crate::error::BackplaneError;
use crate::topic::Topic;

/// A message to a connection that does not exist is not appended.
pub async fn a_message_to_an_unknown_connection_is_refused(nodes: &Nodes) {
    let members = open(nodes, HubOptions::default()).await;
    let unknown = Topic::Connection(record(None).id);
    assert_eq!(members[0].publish(unknown.clone(), "x").await, None);
    assert_eq!(members[0].hub.position().await.unwrap().offset, 0);
    let connection = members[0].connect(None).await;
    assert!(
        members[0]
            .publish(Topic::Connection(connection.clone()), "x")
            .await
            .is_some()
    );
    assert!(members[0].remove(&connection).await);
    assert_eq!(members[0].publish(Topic::Connection(connection), "x").await, None);
}

/// A message to a connection reaches the node that owns it, and no other.
pub async fn a_direct_message_reaches_the_owner_only(nodes: &Nodes) {
    let members = open(nodes, HubOptions::default()).await;
    let mut connections = Vec::new();
    for member in &members {
        connections.push(member.connect(None).await);
    }
    let last = connections.last().unwrap();
    members[0]
        .publish(Topic::Connection(last.clone()), "direct")
        .await
        .unwrap();
    members[0].publish(Topic::All, "end").await;
    for (member, connection) in members.iter().zip(&connections) {
        let received = member.sink.received_until(connection, "end").await;
        let direct = received.iter().filter(|(_, target)| target == "direct").count();
        assert_eq!(direct, usize::from(connection == last));
    }
}

/// One claim wins; every other returns the owner of the connection.
pub async fn a_connection_is_claimed_once(nodes: &Nodes) {
    let members = open(nodes, HubOptions::default()).await;
    let connection = record(Some("u"));
    let mut claims = JoinSet::new();
    for member in members.iter().cycle().take(8) {
        let (member, connection) = (member.clone(), connection.clone());
        claims.spawn(async move {
            (
                member.node.node().clone(),
                member.hub.claim(&connection).await.unwrap(),
            )
        });
    }
    let claims = claims.join_all().await;
    let winners: Vec<_> = claims
        .iter()
        .filter(|(_, claim)| *claim == Claim::Claimed)
        .collect();
    assert_eq!(winners.len(), 1, "{claims:?}");
    let owner = winners[0].0.clone();
    assert!(
        claims
            .iter()
            .all(|(_, claim)| *claim == Claim::Claimed || *claim == Claim::Owned(owner.clone()))
    );
    for member in &members {
        let located = owner_of(member, &connection.id).await;
        assert_eq!(located.as_ref(), Some(&owner));
    }
}

/// A connection that was released may be claimed by any node.
pub async fn a_released_connection_may_be_claimed_again(nodes: &Nodes) {
    let members = open(nodes, HubOptions::default()).await;
    let (first, last) = (&members[0], members.last().unwrap());
    let connection = record(None);
    assert_eq!(first.hub.claim(&connection).await.unwrap(), Claim::Claimed);
    first.hub.release(&connection.id).await.unwrap();
    assert_eq!(owner_of(last, &connection.id).await, None);
    assert_eq!(last.hub.claim(&connection).await.unwrap(), Claim::Claimed);
    last.hub.enter(&connection, false).await.unwrap();
    let again = last.hub.enter(&connection, true).await;
    assert!(matches!(again, Err(BackplaneError::NotOwner { .. })), "{again:?}");
}

/// The id of a removed connection is refused until its tombstone ends.
pub async fn a_closed_connection_stays_closed(nodes: &Nodes) {
    let members = open(nodes, HubOptions::default()).await;
    let (first, last) = (&members[0], members.last().unwrap());
    let connection = record(None);
    first.hub.enter(&connection, true).await.unwrap();
    let tombstone = Duration::from_millis(300);
    assert!(
        first
            .hub
            .remove(&connection.id, End::unreported(tombstone))
            .await
            .unwrap()
    );
    assert_eq!(last.hub.claim(&connection).await.unwrap(), Claim::Closed);
    let entered = last.hub.enter(&connection, true).await;
    assert!(
        matches!(entered, Err(BackplaneError::NotOwner { .. })),
        "{entered:?}"
    );
    eventually("the tombstone ends", async || {
        let claim = last.hub.claim(&connection).await.unwrap();
        (claim == Claim::Claimed).then_some(())
    })
    .await;
}

/// Of several callers that remove a connection, exactly one succeeds.
pub async fn a_connection_is_removed_once(nodes: &Nodes) {
    let members = open(nodes, HubOptions::default()).await;
    let member = members.last().unwrap();
    let connection = member.connect(Some("u")).await;
    member.join(&connection, "g").await;
    let mut removals = JoinSet::new();
    for member in members.iter().cycle().take(8) {
        let (member, connection) = (member.clone(), connection.clone());
        removals.spawn(async move { member.remove(&connection).await });
    }
    let removed = removals
        .join_all()
        .await
        .into_iter()
        .filter(|removed| *removed)
        .count();
    assert_eq!(removed, 1);
    assert_eq!(owner_of(member, &connection).await, None);
}
