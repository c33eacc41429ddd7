//! States of members in their groups, when a server forgets them or a node dies.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use hubcast_backplane::conformance::whole::{self, Whole};
use hubcast_backplane::conformance::{Member, Recorder, Witness, eventually, group, open};
use hubcast_backplane::redis::RedisBackplane;
use hubcast_backplane::{Backplane, GroupName, HubName, HubOptions, MemberState, StateSet, Topic};

use crate::support::RedisServer;
use crate::support::dying::Dying;

fn state(value: &str) -> MemberState {
    MemberState::new(&BTreeMap::from([("at".to_owned(), value.to_owned())])).unwrap()
}

async fn items(member: &Member) -> String {
    let states = member.hub.states(&group("g")).await.unwrap();
    String::from_utf8(states.items.to_vec()).unwrap()
}

/// A server that lost everything is given the states once more by their connections' owner, one that kept them is not.
#[tokio::test]
async fn states_outlive_a_server_that_forgets() {
    let server = RedisServer::start().await;
    let members = open(&server.nodes(2).await, HubOptions::default()).await;
    let (home, other) = (&members[0], &members[1]);
    let connection = home.connect(Some("ann")).await;
    home.join(&connection, "g").await;
    let of = group("g");
    for value in ["1", "2"] {
        let state = state(value);
        let set = home.hub.set_state(&connection, &of, Some(&state), None);
        assert!(matches!(set.await, Ok(StateSet::Now(_))));
    }
    let before = items(other).await;
    assert!(before.contains(r#""state":{"at":"2"}"#), "{before}");
    let log = format!("hubcast:{{{}}}:log", home.hub.name());
    server.command(&format!("DEL {log}")).await;
    let registered = format!("hubcast:{{{}}}:registered", home.hub.name());
    let field = async |key: &str, field: &str| {
        let mut command = redis::cmd("HGET");
        let asked = command.arg(key).arg(field);
        let value: redis::RedisResult<Option<String>> = asked.query_async(&mut server.look().await).await;
        value.unwrap()
    };
    eventually("the node has registered", async || {
        let noted = field(&registered, home.node.node().as_str()).await;
        (noted.is_some() && noted == field(&log, "epoch").await).then_some(())
    })
    .await;
    assert_eq!(
        items(other).await,
        before,
        "a state that is there is left as it is"
    );
    server.command("FLUSHALL").await;
    eventually("the state is there again", async || {
        items(other).await.contains(r#""state":{"at":"2"}"#).then_some(())
    })
    .await;
    assert!(home.remove(&connection).await);
    let keys = server.keys().await;
    assert!(!keys.iter().any(|key| key.contains(":states:")), "{keys:?}");
}

/// The states of a dead node's connections end in the step that removes them, also by a survivor that does not serve the
/// hub: with its last entries kept as the hub keeps them.
#[tokio::test]
async fn states_end_with_their_node() {
    let server = RedisServer::start().await;
    let mut options = server.options("survivor");
    options.lease = Duration::from_millis(600);
    let survivor = RedisBackplane::connect(options).await.unwrap();
    let _witness = Witness::of(&survivor);
    let hub = HubName::parse("states").unwrap();
    let reporting = HubOptions {
        keeps_unread: true,
        ..HubOptions::default()
    };
    let dying = Dying::new(&server, &hub, reporting.clone());
    let (position, id) = dying
        .live(async |member| {
            let position = member.hub.position().await.unwrap();
            let id = member.connect(Some("ann")).await;
            member.join(&id, "g").await;
            let (of, state) = (group("g"), state("1"));
            let set = member.hub.set_state(&id, &of, Some(&state), None);
            assert!(matches!(set.await, Ok(StateSet::Now(_))));
            (position, id)
        })
        .await;
    eventually("the connection is removed", async || {
        let keys = server.keys().await;
        let is_left = keys
            .iter()
            .any(|key| key.ends_with(":group:g") || key.contains(":states:"));
        (!is_left).then_some(())
    })
    .await;
    let sink = Arc::new(Recorder::default());
    let hub = survivor.open_hub(hub, reporting, sink).await.unwrap();
    let topic = Topic::Group(GroupName::states_of(&group("g")));
    let Whole::Exact(messages) = whole::read(hub.as_ref(), &topic, &position).await else {
        panic!("the log has it all")
    };
    let announced: Vec<_> = messages
        .iter()
        .map(|message| String::from_utf8_lossy(&message.envelope.arguments[0]).into_owned())
        .collect();
    let who = format!(r#"[{{"connectionId":"{id}","userId":"ann","#);
    let expected = [
        format!(r#"{who}"state":{{"at":"1"}},"updatedAt":"#),
        format!(r#"{who}"updatedAt":"#),
    ];
    assert_eq!(announced.len(), expected.len(), "{announced:?}");
    for (announced, expected) in announced.iter().zip(expected) {
        assert!(announced.starts_with(&expected), "{announced}");
    }
}
