//! Rules about the records of a client's messages and calls, and about answers to calls from any node.

use tokio::task::JoinSet;

use super::sessions::{Received, of_connection};
use super::{Member, Nodes, envelope, open, record};
use crate::backplane::HubOptions;
use crate::sessions::{Recorded, RecordedCall, Taken, Version};
use crate::topic::{ConnectionId, NodeId, Topic};

/// Answers a call that `host` runs, on `member`.
async fn answer(
    member: &Member,
    id: &ConnectionId,
    (call, host): (&str, &NodeId),
    target: &str,
    last: bool,
) -> bool {
    let call = RecordedCall { id: call, host };
    member
        .hub
        .reply(id, call, &envelope(target), last)
        .await
        .unwrap()
        .is_some()
}

async fn settle(member: &Member, id: &ConnectionId, (call, host): (&str, &NodeId)) -> bool {
    let call = RecordedCall { id: call, host };
    member.hub.finish(id, call).await.unwrap()
}

fn sorted(taken: &Taken) -> Vec<(String, NodeId)> {
    let mut calls = taken.calls.clone();
    calls.sort();
    calls
}

fn targets(received: &Received) -> Vec<&str> {
    received.iter().map(|(_, target)| target.as_str()).collect()
}

/// A take-over returns the number of messages taken, and the calls with the nodes that run them.
pub async fn what_was_noted_goes_with_the_connection(nodes: &Nodes) {
    let members = open(nodes, HubOptions::default()).await;
    let (home, other) = (&members[0], members.last().unwrap());
    let (connection, entered) = home.connect_resumable(None).await;
    let id = &connection.id;
    for (received, call) in [
        (1, None),
        (2, Some("b")),
        (3, Some("a")),
        (4, Some("c")),
        (5, None),
    ] {
        assert!(
            home.hub
                .record(id, entered.version, received, call)
                .await
                .unwrap()
        );
    }
    assert!(settle(home, id, ("c", home.node.node())).await);
    assert!(home.park(id).await);
    let taken = other.take_over(id).await;
    let host = |member: &Member| member.node.node().clone();
    assert_eq!(taken.received, 5);
    assert_eq!(
        sorted(&taken),
        [("a".to_owned(), host(home)), ("b".to_owned(), host(home))]
    );
    let noted = other.hub.record(id, taken.version, 6, Some("d")).await;
    assert!(noted.unwrap());
    assert!(answer(other, id, ("a", home.node.node()), "m", true).await);
    let again = home.take_over(id).await;
    assert_eq!(again.received, 6);
    assert_eq!(
        sorted(&again),
        [("b".to_owned(), host(home)), ("d".to_owned(), host(other))]
    );
}

/// A call's answers are items and then the last message, in order and between other messages; nothing follows. Any node
/// may answer, whichever node owns the connection, and while it is parked.
pub async fn a_call_is_answered_from_anywhere_until_it_ends(nodes: &Nodes) {
    let members = open(nodes, HubOptions::default()).await;
    let (home, other) = (&members[0], members.last().unwrap());
    let (connection, entered) = home.connect_resumable(None).await;
    let id = &connection.id;
    let host = home.node.node().clone();
    for (received, call) in [(1, "x"), (2, "y")] {
        let noted = home.hub.record(id, entered.version, received, Some(call));
        assert!(noted.await.unwrap());
    }
    assert!(answer(other, id, ("x", &host), "x1", false).await);
    home.publish(Topic::All, "between").await;
    assert!(answer(home, id, ("x", &host), "x2", false).await);
    home.sink.received_until(id, "x2").await;
    assert_eq!(targets(&home.sink.received(id)), ["x1", "between", "x2"]);
    assert!(home.park(id).await);
    assert!(answer(home, id, ("x", &host), "x3", false).await);
    assert!(answer(other, id, ("x", &host), "x4", true).await);
    for last in [false, true] {
        assert!(!answer(home, id, ("x", &host), "late", last).await);
    }
    let taken = other.take_over(id).await;
    assert_eq!(sorted(&taken), [("y".to_owned(), host.clone())]);
    assert!(answer(home, id, ("y", &host), "y1", false).await);
    assert!(answer(home, id, ("y", &host), "y2", true).await);
    assert!(!answer(other, id, ("y", &host), "late", true).await);
    home.publish(of_connection(id), "end").await;
    let whole = other.whole_until(&taken, "end").await;
    let expected = ["x1", "between", "x2", "x3", "x4", "y1", "y2", "end"];
    assert_eq!(targets(&whole), expected);
}

/// Only the node that runs a call answers or finishes it, and only while the connection exists.
pub async fn a_call_is_answered_for_its_host_only(nodes: &Nodes) {
    let members = open(nodes, HubOptions::default()).await;
    let (home, other) = (&members[0], members.last().unwrap());
    let (connection, entered) = home.connect_resumable(None).await;
    let id = &connection.id;
    let (host, stranger) = (home.node.node(), NodeId::parse("stranger").unwrap());
    let noted = home.hub.record(id, entered.version, 1, Some("x"));
    assert!(noted.await.unwrap());
    for member in [home, other] {
        assert!(!answer(member, id, ("x", &stranger), "m", false).await);
        assert!(!answer(member, id, ("x", &stranger), "m", true).await);
        assert!(!settle(member, id, ("x", &stranger)).await);
        assert!(!answer(member, id, ("unknown", host), "m", true).await);
        assert!(!settle(member, id, ("unknown", host)).await);
        assert!(!answer(member, &record(None).id, ("x", host), "m", true).await);
    }
    assert!(answer(other, id, ("x", host), "m", false).await, "it still runs");
    home.sink.received_until(id, "m").await;
    assert!(home.remove(id).await);
    assert!(!answer(home, id, ("x", host), "m", true).await);
    assert!(!settle(home, id, ("x", host)).await);
    let bystander = home.connect(None).await;
    home.publish(of_connection(&bystander), "end").await;
    home.sink.received_until(&bystander, "end").await;
    assert_eq!(targets(&home.sink.received(id)), ["m"]);
}

/// Of several callers that finish a call at once, by an answer or without one, exactly one succeeds.
pub async fn a_call_ends_once(nodes: &Nodes) {
    let members = open(nodes, HubOptions::default()).await;
    let (connection, entered) = members[0].connect_resumable(None).await;
    let id = &connection.id;
    let host = members[0].node.node();
    for round in 0..10 {
        let name = format!("call{round}");
        let noted = members[0].hub.record(id, entered.version, round, Some(&name));
        assert!(noted.await.unwrap());
        let mut ends = JoinSet::new();
        for (number, member) in members
            .iter()
            .cycle()
            .take(members.len() * 4)
            .cloned()
            .enumerate()
        {
            let (id, name, host) = (id.clone(), name.clone(), host.clone());
            ends.spawn(async move {
                if number % 2 == 0 {
                    answer(&member, &id, (&name, &host), &name, true).await
                } else {
                    settle(&member, &id, (&name, &host)).await
                }
            });
        }
        let ended = ends.join_all().await.into_iter().filter(|ended| *ended).count();
        assert_eq!(ended, 1);
    }
    members[0].publish(of_connection(id), "end").await;
    let received = members[0].sink.received_until(id, "end").await;
    let mut once = targets(&received);
    once.dedup();
    assert_eq!(once.len(), received.len());
}

/// A client that got no answer repeats the call under the same name, on any node that has its connection by then.
pub async fn a_request_is_called_once(nodes: &Nodes) {
    let members = open(nodes, HubOptions::default()).await;
    let (home, other) = (&members[0], members.last().unwrap());
    let (connection, entered) = home.connect_resumable(None).await;
    let id = &connection.id;
    let once = async |member: &Member, version: Version, name: &str| {
        let call = format!("0 {name}");
        let key = format!("ack:{id}:{name}");
        let noted = member.hub.record_once(id, version, &call, &key);
        noted.await.unwrap()
    };
    assert_eq!(once(home, entered.version, "1").await, Recorded::Now);
    assert_eq!(
        once(home, entered.version, "1").await,
        Recorded::Before { running: true }
    );
    assert_eq!(once(home, entered.version, "2").await, Recorded::Now);
    assert!(answer(home, id, ("0 1", home.node.node()), "answer", true).await);
    assert!(home.park(id).await);
    assert_eq!(once(home, entered.version, "3").await, Recorded::NotOwner);
    let taken = other.take_over(id).await;
    assert_eq!(taken.received, 0);
    for (name, noted) in [
        ("1", Recorded::Before { running: false }),
        ("2", Recorded::Before { running: true }),
        ("3", Recorded::Now),
    ] {
        assert_eq!(once(other, taken.version, name).await, noted, "{name}");
    }
}
