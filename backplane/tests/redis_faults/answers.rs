//! Tests of commands that were carried out and whose answers are lost.

use std::sync::Arc;
use std::time::Duration;

use hubcast_backplane::conformance::sessions::of_connection;
use hubcast_backplane::conformance::{Member, Witness, eventually, open, owner};
use hubcast_backplane::{Backplane, HubOptions, TakeOver};

use crate::many;
use crate::support::RedisServer;
use crate::support::way::Way;

pub(crate) async fn two_nodes(server: &RedisServer, options: HubOptions) -> (Way, Vec<Member>) {
    let way = Way::to(server.port()).await;
    let nodes = [
        way.node("cut").await,
        server.node("other").await as Arc<dyn Backplane>,
    ];
    (way, open(&nodes, options).await)
}

/// A node that parks a connection gets the outcome although the answer was lost.
#[tokio::test]
async fn a_connection_is_given_up_without_an_answer() {
    let server = RedisServer::start().await;
    let (way, members) = two_nodes(&server, many()).await;
    let (connection, entered) = members[0].connect_resumable(None).await;
    let (home, id) = (&members[0], &connection.id);
    way.lose(":parked");
    assert!(home.hub.park(id, entered.version, None).await.unwrap());
    assert!(way.has_lost());
    assert_eq!(owner(&members[1], id).await, None);
    assert!(!home.hub.park(id, entered.version, None).await.unwrap());
    let taken = members[1].take_over(id).await;
    members[0].publish(of_connection(id), "end").await;
    assert_eq!(members[1].whole_until(&taken, "end").await.len(), 1);
}

/// A take-over whose answer is lost is repeated, and returns the outcome of the first time.
#[tokio::test]
async fn a_connection_is_taken_over_without_an_answer() {
    let server = RedisServer::start().await;
    let (way, members) = two_nodes(&server, many()).await;
    let (connection, entered) = members[1].connect_resumable(None).await;
    let id = &connection.id;
    members[1].join(id, "g").await;
    way.lose(":calls:");
    let taken = members[0].take_over_of(id, entered.version).await;
    let TakeOver::Taken(taken) = taken else {
        panic!("{taken:?}")
    };
    assert!(way.has_lost());
    assert_eq!(
        owner(&members[1], id).await.as_ref(),
        Some(members[0].node.node())
    );
    members[1].publish(of_connection(id), "end").await;
    members[0].whole_until(&taken, "end").await;
    let taken = members[1].take_over(id).await;
    members[1].publish(of_connection(id), "end").await;
    members[1].whole_until(&taken, "end").await;
}

/// A removal at the window's end that has to be repeated still returns the connection's user.
#[tokio::test]
async fn an_orphan_is_told_in_full_without_an_answer() {
    let server = RedisServer::start().await;
    let options = HubOptions {
        resume_window: Duration::from_millis(50),
        ..many()
    };
    let (way, members) = two_nodes(&server, options).await;
    let (connection, _) = members[0].connect_resumable(Some("me")).await;
    way.lose(":closed:");
    let witness = Witness::of(members[0].node.as_ref());
    assert!(members[0].park(&connection.id).await);
    eventually("it is removed", async || {
        (!witness.orphans().is_empty()).then_some(())
    })
    .await;
    assert!(way.has_lost());
    assert_eq!(witness.orphans(), [connection]);
}
