//! Rules about replays: messages that can't be replayed are reported.

use super::sessions::{Ledger, of_connection, of_group};
use super::whole::Whole;
use super::{Nodes, open};
use crate::backplane::HubOptions;
use crate::position::{Epoch, Position};
use crate::topic::{Topic, UserId};

/// Trimmed messages are reported, whichever topic they were of, also when the connection has left the topic since.
pub async fn a_replay_without_all_of_the_log_is_refused(nodes: &Nodes) {
    let options = HubOptions {
        retention_messages: 10,
        ..HubOptions::default()
    };
    let members = open(nodes, options).await;
    let (home, other) = (&members[0], members.last().unwrap());
    for topic in ["all", "user", "group", "left", "own", "changes"] {
        let user = format!("me-{topic}");
        let (connection, entered) = home.connect_resumable(Some(&user)).await;
        let id = &connection.id;
        home.join(id, topic).await;
        assert!(home.park(id).await);
        for number in 0..300 {
            match topic {
                "all" => other.publish(Topic::All, "m").await,
                "user" => {
                    other
                        .publish(Topic::User(UserId::parse(&user).unwrap()), "m")
                        .await
                }
                "group" | "left" => other.publish(of_group(topic), "m").await,
                "own" => other.publish(of_connection(id), "m").await,
                _ if number % 2 == 0 => Some(other.leave(id, topic).await),
                _ => Some(other.join(id, topic).await),
            };
        }
        if topic == "left" {
            other.leave(id, topic).await;
        }
        let taken = other.take_over(id).await;
        let read = other.replay_after(&taken, &taken.checkpoint.position).await;
        assert!(matches!(read, Whole::Trimmed), "{topic}: {read:?}");
        assert_eq!(taken.checkpoint.position.offset, entered.position.offset);
        assert!(other.remove(id).await);
    }
}

/// There is no replay from a position of another epoch, or from one that the log has not reached.
pub async fn a_replay_from_a_place_of_another_log_is_refused(nodes: &Nodes) {
    let members = open(nodes, HubOptions::default()).await;
    let (home, other) = (&members[0], members.last().unwrap());
    let (connection, _) = home.connect_resumable(None).await;
    let taken = other.take_over(&connection.id).await;
    let after = Position {
        epoch: Epoch::new("another"),
        ..taken.checkpoint.position.clone()
    };
    let read = other.replay_after(&taken, &after).await;
    assert!(
        matches!(&read, Whole::OtherEpoch(epoch) if *epoch == taken.position.epoch),
        "{read:?}"
    );
    let ahead = Position {
        offset: taken.position.offset + 100,
        ..taken.position.clone()
    };
    let read = other.replay_after(&taken, &ahead).await;
    assert!(matches!(read, Whole::Trimmed), "{read:?}");
}

/// A volatile hub delivers in order and keeps no messages: only a position at the log's end has missed none.
pub async fn a_volatile_hub_keeps_nothing(nodes: &Nodes) {
    let options = HubOptions {
        volatile: true,
        ..HubOptions::default()
    };
    let members = open(nodes, options).await;
    let (home, other) = (&members[0], members.last().unwrap());
    let (connection, _) = home.connect_resumable(Some("me")).await;
    let id = &connection.id;
    let (g, own) = (of_group("g"), of_connection(id));
    let mut ledger = Ledger::new();
    ledger.say(other, &[(&g, false), (&own, true)]).await;
    home.join(id, "g").await;
    ledger.say(other, &[(&g, true), (&Topic::All, true)]).await;
    home.leave(id, "g").await;
    ledger.say(other, &[(&g, false), (&own, true)]).await;
    ledger.end(other).await;
    assert_eq!(home.sink.received_until(id, "end").await, ledger.expected);
    assert_eq!(home.sink.gaps(), 0);
    let end = home.hub.position().await.unwrap();
    for topic in [Topic::All, g, own, of_group("nobody")] {
        let read = async |offset| {
            let after = Position {
                offset,
                ..end.clone()
            };
            other.read(&topic, &after).await
        };
        assert!(matches!(read(end.offset).await, Whole::Exact(found) if found.is_empty()));
        for offset in [0, end.offset - 1, end.offset + 1] {
            let found = read(offset).await;
            assert!(matches!(found, Whole::Trimmed), "{topic:?}: {found:?}");
        }
    }
    let taken = other.take_over(id).await;
    let read = other.replay_after(&taken, &taken.checkpoint.position).await;
    assert!(matches!(read, Whole::Trimmed), "{read:?}");
}
