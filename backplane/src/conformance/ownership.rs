//! Rules about the ownership of resumable connections, and about parked ones.

use std::time::Duration;

use tokio::task::JoinSet;

use super::sessions::{of_connection, of_group};
use super::{Member, Nodes, Witness, eventually, group, open, owner, record};
use crate::backplane::{Claim, Delivery, HubOptions};
use crate::error::BackplaneError;
use crate::position::Position;
use crate::sessions::{Checkpoint, Listing, SessionState, TakeOver, Version};
use crate::topic::{ConnectionId, Topic};

/// The directory has the owner of a connection, its version, and whether it is resumable.
pub async fn the_directory_tells_of_ownership(nodes: &Nodes) {
    let members = open(nodes, HubOptions::default()).await;
    let (home, other) = (&members[0], members.last().unwrap());
    let found = async |id: &ConnectionId| {
        let mut listings = Vec::new();
        for member in &members {
            listings.push(super::listing(member, id).await);
        }
        assert!(listings.iter().all(|listing| *listing == listings[0]));
        listings.remove(0)
    };
    assert_eq!(found(&record(None).id).await, None);
    let plain = home.connect(None).await;
    let listing = found(&plain).await.unwrap();
    assert_eq!(
        (listing.owner.as_ref(), listing.state),
        (Some(home.node.node()), None)
    );
    let (connection, entered) = home.connect_resumable(Some("me")).await;
    let id = &connection.id;
    let listing = |owner: Option<&Member>, version| {
        Some(Listing {
            owner: owner.map(|owner| owner.node.node().clone()),
            version,
            user: connection.user.clone(),
            state: connection.state.clone(),
        })
    };
    assert_eq!(found(id).await, listing(Some(home), entered.version));
    assert!(home.park(id).await);
    assert_eq!(found(id).await, listing(None, entered.version));
    let taken = other.take_over(id).await;
    assert!(taken.version > entered.version);
    assert_eq!(found(id).await, listing(Some(other), taken.version));
    assert!(other.remove(id).await);
    assert_eq!(found(id).await, None);
}

/// A take-over with the version of an ownership that is over fails.
pub async fn an_ownership_that_is_over_is_not_taken_over(nodes: &Nodes) {
    let members = open(nodes, HubOptions::default()).await;
    let (home, other) = (&members[0], members.last().unwrap());
    let (connection, entered) = home.connect_resumable(None).await;
    let id = &connection.id;
    let taken = other.take_over(id).await;
    for version in [entered.version, Version(taken.version.0 + 1)] {
        for member in &members {
            let outcome = member.take_over_of(id, version).await;
            assert!(matches!(outcome, TakeOver::Changed), "{outcome:?}");
        }
    }
    home.publish(of_connection(id), "end").await;
    other.sink.received_until(id, "end").await;
    assert_eq!(owner(home, id).await.as_ref(), Some(other.node.node()));
    assert!(other.remove(id).await);
    let outcome = home.take_over_of(id, taken.version).await;
    assert!(matches!(outcome, TakeOver::Gone), "{outcome:?}");
}

/// Of several calls that take a connection over at once, also on one node, exactly one succeeds and receives.
pub async fn a_connection_is_taken_over_once(nodes: &Nodes) {
    let members = open(nodes, HubOptions::default()).await;
    for round in 0..10 {
        let home = &members[round % members.len()];
        let (connection, entered) = home.connect_resumable(None).await;
        let id = &connection.id;
        home.join(id, "g").await;
        if round % 2 == 0 {
            assert!(home.park(id).await);
        }
        let mut attempts = JoinSet::new();
        for (number, member) in members.iter().cycle().take(members.len() * 3).enumerate() {
            let (member, id) = (member.clone(), id.clone());
            let number = number % members.len();
            attempts.spawn(async move { (number, member.take_over_of(&id, entered.version).await) });
        }
        let mut winners = Vec::new();
        for (number, outcome) in attempts.join_all().await {
            match outcome {
                TakeOver::Taken(taken) => winners.push((number, taken)),
                TakeOver::Changed => {}
                TakeOver::Gone => panic!("it exists"),
            }
        }
        assert_eq!(winners.len(), 1, "{winners:?}");
        let winner = &members[winners[0].0];
        assert_eq!(owner(&members[0], id).await.as_ref(), Some(winner.node.node()));
        for topic in [of_connection(id), of_group("g"), Topic::All] {
            let target = format!("{}", topic.key().len());
            members[0].publish(topic, &target).await;
            winner.sink.received_until(id, &target).await;
        }
        assert!(winner.remove(id).await);
    }
}

/// A living owner that is shut out gets a delivery of that, and can change the connection no more.
pub async fn an_owner_that_is_shut_out_is_told_and_refused(nodes: &Nodes) {
    let members = open(nodes, HubOptions::default()).await;
    let (home, other) = (&members[0], members.last().unwrap());
    let (connection, entered) = home.connect_resumable(Some("me")).await;
    let id = &connection.id;
    home.join(id, "g").await;
    assert!(home.hub.record(id, entered.version, 1, None).await.unwrap());
    let taken = other.take_over(id).await;
    let bystander = home.connect(None).await;
    if members.len() > 1 {
        let reported = eventually("the former owner is told", async || {
            home.sink
                .deliveries()
                .into_iter()
                .find_map(|delivery| match delivery {
                    Delivery::Taken { connection, offset } => Some((connection, offset)),
                    _ => None,
                })
        });
        assert_eq!(reported.await, (id.clone(), taken.position.offset));
        let joined = home.hub.join(id, &group("h")).await;
        assert!(
            matches!(joined, Err(BackplaneError::NotOwner { .. })),
            "{joined:?}"
        );
        let left = home.hub.leave(id, &group("g")).await;
        assert!(matches!(left, Err(BackplaneError::NotOwner { .. })), "{left:?}");
        assert!(!home.remove(id).await);
        assert!(home.hub.release(id).await.is_err());
    }
    an_ownership_is_refused(home, id, entered.version).await;
    for topic in [of_connection(id), of_group("g"), Topic::All] {
        home.publish(topic, "m").await;
    }
    home.publish(Topic::All, "end").await;
    let received = other.sink.received_until(id, "end").await;
    assert_eq!(received.len(), 4, "{received:?}");
    home.sink.received_until(&bystander, "end").await;
    assert_eq!(
        home.sink.received(id).len(),
        if members.len() > 1 { 0 } else { 4 }
    );
    let again = home.take_over(id).await;
    assert_eq!((again.received, again.calls.len()), (1, 0));
    assert_eq!(again.checkpoint.position.offset, entered.position.offset);
}

/// The calls of a session of an older ownership are refused.
async fn an_ownership_is_refused(member: &Member, id: &ConnectionId, version: Version) {
    let hub = &member.hub;
    assert!(!hub.record(id, version, 9, Some("call")).await.unwrap());
    let position = Position {
        offset: 1,
        ..hub.position().await.unwrap()
    };
    let checkpoint = Checkpoint {
        sequence: 9,
        position,
    };
    let written = [(id.clone(), version, checkpoint.clone())];
    hub.checkpoint(&written).await.unwrap();
    assert!(!hub.park(id, version, Some(&checkpoint)).await.unwrap());
}

/// A connection without state ends with its node: it is neither parked nor taken over, and trying does it no harm.
pub async fn a_connection_without_state_stays_where_it_is(nodes: &Nodes) {
    let members = open(nodes, HubOptions::default()).await;
    let (home, other) = (&members[0], members.last().unwrap());
    let connection = home.connect(None).await;
    let version = home.version(&connection).await;
    an_ownership_is_refused(home, &connection, version).await;
    assert!(!home.park(&connection).await);
    for member in &members {
        let outcome = member.take_over_of(&connection, version).await;
        assert!(matches!(outcome, TakeOver::Gone), "{outcome:?}");
        let listing = super::listing(member, &connection).await;
        assert_eq!(listing.unwrap().state, None);
    }
    home.join(&connection, "g").await;
    other.publish(of_group("g"), "one").await;
    other.publish(of_connection(&connection), "two").await;
    other.publish(Topic::All, "end").await;
    assert_eq!(home.sink.received_until(&connection, "end").await.len(), 3);
    assert!(home.remove(&connection).await);
}

/// Only a take-over gives a parked connection an owner; a claim of its id is refused.
pub async fn a_parked_connection_is_nobodys(nodes: &Nodes) {
    let members = open(nodes, HubOptions::default()).await;
    let (home, other) = (&members[0], members.last().unwrap());
    let (connection, entered) = home.connect_resumable(Some("me")).await;
    let id = &connection.id;
    home.join(id, "g").await;
    assert!(home.park(id).await);
    for member in &members {
        let hub = &member.hub;
        assert_eq!(hub.claim(&connection).await.unwrap(), Claim::Closed);
        for claim in [false, true] {
            let entered = hub.enter(&connection, claim).await;
            assert!(
                matches!(entered, Err(BackplaneError::NotOwner { .. })),
                "{entered:?}"
            );
        }
        let released = hub.release(id).await;
        assert!(
            matches!(released, Err(BackplaneError::NotOwner { .. })),
            "{released:?}"
        );
        assert!(!member.remove(id).await);
        an_ownership_is_refused(member, id, entered.version).await;
        assert_eq!(owner(member, id).await, None);
    }
    // An older session that parks the connection does no harm.
    let taken = other.take_over(id).await;
    an_ownership_is_refused(home, id, entered.version).await;
    assert_eq!(taken.groups, [group("g")]);
    home.publish(of_group("g"), "end").await;
    other.sink.received_until(id, "end").await;
    assert!(other.remove(id).await);
}

/// A connection moves many times; each time only its present owner has it.
pub async fn a_connection_may_move_again_and_again(nodes: &Nodes) {
    let members = open(nodes, HubOptions::default()).await;
    let (connection, entered) = members[0].connect_resumable(None).await;
    let id = &connection.id;
    members[0].join(id, "g").await;
    let mut version = entered.version;
    for round in 0..12_usize {
        let (from, to) = (
            &members[round * 2 % members.len()],
            &members[(round + 1) * 2 % members.len()],
        );
        if round % 4 < 2 {
            assert!(from.hub.park(id, version, None).await.unwrap());
        }
        let taken = to.take_over(id).await;
        assert!(taken.version > version);
        version = taken.version;
        for topic in [of_connection(id), of_group("g"), Topic::All] {
            from.publish(topic, &format!("{round}")).await;
        }
        let target = format!("end{round}");
        from.publish(Topic::All, &target).await;
        let received = to.sink.received_until(id, &target).await;
        let new = received
            .iter()
            .filter(|(offset, _)| *offset > taken.position.offset);
        assert_eq!(new.count(), 4, "{received:?}");
    }
}

/// A parked connection that no node takes over is removed when its time is up, by exactly one node, which is notified.
pub async fn a_parked_connection_is_removed_when_its_time_is_up(nodes: &Nodes) {
    let witnesses: Vec<_> = nodes.iter().map(|node| Witness::of(node.as_ref())).collect();
    let window = Duration::from_millis(600);
    let options = HubOptions {
        resume_window: window,
        ..HubOptions::default()
    };
    let members = open(nodes, options).await;
    let (home, other) = (&members[0], members.last().unwrap());
    let mut connections = Vec::new();
    for _ in 0..20 {
        let (connection, _) = home.connect_resumable(Some("me")).await;
        home.join(&connection.id, "g").await;
        assert!(home.park(&connection.id).await);
        connections.push(connection);
    }
    let kept = connections.pop().unwrap();
    let taken = other.take_over(&kept.id).await;
    let reported = || {
        let orphans = witnesses.iter().flat_map(|witness| witness.orphans());
        let mut orphans: Vec<_> = orphans.collect();
        orphans.sort_by(|a, b| a.id.as_str().cmp(b.id.as_str()));
        orphans
    };
    eventually("the parked connections are removed", async || {
        (reported().len() >= connections.len()).then_some(())
    })
    .await;
    connections.sort_by(|a, b| a.id.as_str().cmp(b.id.as_str()));
    for connection in &connections {
        for member in &members {
            let id = &connection.id;
            assert_eq!(member.hub.claim(connection).await.unwrap(), Claim::Closed);
            let outcome = member.take_over_of(id, taken.version).await;
            assert!(matches!(outcome, TakeOver::Gone), "{outcome:?}");
            assert_eq!(member.publish(of_connection(id), "m").await, None);
            let joined = member.hub.join(id, &group("g")).await;
            assert!(
                matches!(joined, Err(BackplaneError::NotOwner { .. })),
                "{joined:?}"
            );
        }
    }
    home.publish(of_group("g"), "end").await;
    other.sink.received_until(&kept.id, "end").await;
    assert!(other.park(&kept.id).await, "it has an owner and stays");
    assert_eq!(reported(), connections, "each once, with its user and state");
}

/// Only the owner can replace a connection's state, which moves with the connection; while it is parked, any node that
/// knows the state.
pub async fn another_state_moves_with_its_connection(nodes: &Nodes) {
    let members = open(nodes, HubOptions::default()).await;
    let (home, other) = (&members[0], members.last().unwrap());
    let (connection, entered) = home.connect_resumable(None).await;
    let restate = async |member: &Member, version, state: &'static [u8]| {
        let state = SessionState::from_static(state);
        let restated = member.hub.restate(&connection.id, version, state);
        restated.await.unwrap()
    };
    assert!(restate(home, entered.version, b"newer").await);
    assert!(home.park(&connection.id).await);
    assert!(!restate(home, entered.version, b"too late").await);
    let restate_parked = async |member: &Member, former: &'static [u8], state: &'static [u8]| {
        let (former, state) = (
            SessionState::from_static(former),
            SessionState::from_static(state),
        );
        let version = entered.version;
        let restated = member.hub.restate_parked(&connection.id, version, former, state);
        restated.await.unwrap()
    };
    assert!(!restate_parked(other, b"never", b"of nothing").await);
    assert!(restate_parked(other, b"newer", b"while it is away").await);
    assert!(!restate_parked(home, b"newer", b"at the same time").await);
    let taken = other.take_over(&connection.id).await;
    assert_eq!(taken.record.state.as_deref(), Some(&b"while it is away"[..]));
    assert!(!restate_parked(home, b"while it is away", b"it has an owner").await);
    assert!(!restate(home, entered.version, b"too old").await);
    assert!(restate(other, taken.version, b"newest").await);
}
