//! A connection's whole life, in which the answer to one change after the other is lost: the life stays the same.

use std::collections::BTreeMap;
use std::time::Duration;

use hubcast_backplane::conformance::events::delivering;
use hubcast_backplane::conformance::sessions::{of_connection, of_group};
use hubcast_backplane::conformance::{Member, envelope, group};
use hubcast_backplane::{
    Checkpoint, ConnectionRecord, HubOptions, MemberState, Numbered, Once, Position, RecordedCall, TakeOver,
    Topic, UserId,
};

use crate::answers::two_nodes;
use crate::many;
use crate::support::RedisServer;

/// Every operation of `batch.lua` that a life has, in the order of their first use.
const OPERATIONS: [&str; 20] = [
    "user_join",
    "enter",
    "restate_events",
    "claim",
    "release",
    "join",
    "leave",
    "set_state",
    "publish",
    "publish_direct",
    "publish_once",
    "count",
    "publish_numbered",
    "record",
    "reply",
    "finish",
    "restate",
    "checkpoint",
    "park",
    "take_over",
];

/// The answers that a life got, in order.
#[derive(Default)]
struct Transcript(Vec<String>);

impl Transcript {
    fn note(&mut self, answer: impl std::fmt::Debug) {
        self.0.push(format!("{answer:?}"));
    }
}

/// Lives once; `cut` is the node whose answers are lost, and later the one that takes over.
async fn live(members: &[Member], connection: &ConnectionRecord, other: &ConnectionRecord) -> Transcript {
    let (cut, home) = (&members[0], &members[1]);
    let (hub, node, id) = (&cut.hub, cut.node.as_ref(), &connection.id);
    let user = UserId::parse("u").unwrap();
    let mut reported = Transcript::default();
    reported.note(hub.join_user(&user, &group("of-user"), None, 9).await.is_ok());
    let entered = hub.enter(connection, true).await.unwrap();
    reported.note((entered.position.offset, &entered.groups));
    reported.note(hub.restate_events(id, "held".into()).await.unwrap());
    reported.note(hub.claim(other).await.unwrap());
    reported.note(hub.release(&other.id).await.is_ok());
    reported.note(cut.join(id, "g").await);
    reported.note(cut.join(id, "h").await);
    reported.note(cut.leave(id, "h").await);
    let state = MemberState::new(&BTreeMap::from([("k".to_owned(), "v".to_owned())])).unwrap();
    for once in [None, Some("s"), Some("s")] {
        let set = hub.set_state(id, &group("g"), Some(&state), once).await;
        reported.note(set.unwrap());
    }
    reported.note(cut.publish(Topic::All, "to all").await);
    reported.note(cut.publish(of_group("g"), "to g").await);
    reported.note(cut.publish(of_connection(id), "to it").await);
    let once = Once {
        key: "k".to_owned(),
        content: "c".into(),
    };
    for _ in 0..2 {
        reported.note(
            hub.publish_once(&Topic::All, &envelope("once"), &once)
                .await
                .unwrap(),
        );
    }
    let life = Duration::from_secs(60);
    reported.note(hub.counted("k", life, true).await.unwrap());
    for (number, last) in [(1, None), (2, Some("over")), (3, None)] {
        let numbered = Numbered {
            key: "k",
            number,
            last,
            life,
        };
        let (topic, message) = (of_group("g"), envelope("numbered"));
        reported.note(hub.publish_numbered(&topic, &message, numbered).await.unwrap());
    }
    for (number, call) in [(1, "1 a"), (2, "2")] {
        reported.note(hub.record(id, entered.version, number, Some(call)).await.unwrap());
    }
    let host = node.node();
    let call = RecordedCall { id: "1 a", host };
    for last in [false, true, true] {
        reported.note(hub.reply(id, call, &envelope("reply"), last).await.unwrap());
    }
    for _ in 0..2 {
        reported.note(hub.finish(id, RecordedCall { id: "2", host }).await.unwrap());
    }
    let state = connection.state.clone().unwrap();
    reported.note(hub.restate(id, entered.version, state).await.unwrap());
    let checkpoint = Checkpoint {
        sequence: 2,
        position: Position {
            epoch: entered.position.epoch.clone(),
            offset: entered.position.offset,
        },
    };
    let checkpoints = [(id.clone(), entered.version, checkpoint)];
    reported.note(hub.checkpoint(&checkpoints).await.is_ok());
    reported.note(hub.park(id, entered.version, None).await.unwrap());
    let TakeOver::Taken(taken) = hub.take_over(id, entered.version).await.unwrap() else {
        panic!("it is parked");
    };
    reported.note((
        taken.version.0 - entered.version.0, // versions begin anywhere
        taken.position.offset,
        &taken.groups,
        taken.checkpoint.sequence,
    ));
    reported.note((taken.received, &taken.calls));
    let end = home.publish(Topic::All, "end").await;
    reported.note(end);
    reported.note(cut.whole_until(&taken, "end").await);
    reported.note(cut.remove(id).await);
    reported.note(cut.remove(id).await);
    reported.note(home.publish(of_connection(id), "to nobody").await);
    for event in home.all_events().await {
        reported.note((event.connection, event.user, event.kind, event.record));
    }
    reported
}

fn options() -> HubOptions {
    HubOptions {
        presence: true,
        events: delivering().events,
        ..many()
    }
}

fn connection(name: &str) -> ConnectionRecord {
    let mut record = hubcast_backplane::conformance::sessions::resumable(Some("u"));
    record.id = hubcast_backplane::ConnectionId::parse(name).unwrap();
    record
}

#[tokio::test]
async fn a_life_is_the_same_whichever_answer_is_lost() {
    let expected = {
        let server = RedisServer::start().await;
        let (_way, members) = two_nodes(&server, options()).await;
        live(&members, &connection("c"), &connection("d")).await.0
    };
    let last = ["remove"];
    for operation in OPERATIONS.iter().chain(&last) {
        let server = RedisServer::start().await;
        let (way, members) = two_nodes(&server, options()).await;
        way.lose(&format!("${}\r\n{operation}\r\n", operation.len()));
        let reported = live(&members, &connection("c"), &connection("d")).await.0;
        assert!(way.has_lost(), "{operation} was not met");
        assert_eq!(reported, expected, "when the answer to {operation} was lost");
    }
}
