//! Rules about presence messages, which are appended in the step that changes the group.

use std::time::Duration;

use super::whole::Whole;
use super::{Member, Nodes, Witness, eventually, group, open, record};
use crate::backplane::{ConnectionRecord, End, HubOptions};
use crate::presence;
use crate::sessions::TakeOver;
use crate::topic::{ConnectionId, GroupName, UserId};

fn reporting() -> HubOptions {
    HubOptions {
        presence: true,
        ..HubOptions::default()
    }
}

/// The presence message of a change.
fn reported(joined: bool, name: &str, connection: &ConnectionId, user: Option<&str>) -> String {
    let user = user.map(|user| UserId::parse(user).unwrap());
    let message = presence::message(joined, &group(name), connection, user.as_ref());
    text(&message.arguments[0])
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

impl Member {
    /// Enters a connection that watches groups.
    async fn watcher(&self, names: &[&str]) -> ConnectionId {
        let watcher = record(None);
        let watched: Vec<_> = names
            .iter()
            .map(|name| GroupName::presence_of(&group(name)))
            .collect();
        let entered = self.hub.enter_with(&watcher, &watched, true);
        entered.await.unwrap();
        watcher.id
    }

    /// The presence messages that a connection of this node received up to now.
    async fn heard(&self, watcher: &ConnectionId) -> Vec<String> {
        let messages = self.received_so_far(watcher, presence::TARGET).await;
        messages
            .iter()
            .map(|message| text(&message.envelope.arguments[0]))
            .collect()
    }

    /// Enters a connection with groups.
    async fn enter_with(&self, connection: &ConnectionRecord, names: &[&str]) {
        let groups: Vec<_> = names.iter().map(|name| group(name)).collect();
        let entered = self.hub.enter_with(connection, &groups, true);
        entered.await.unwrap();
    }
}

/// Each change has one message, in order; calls that change nothing have none.
pub async fn every_change_is_told_once(nodes: &Nodes) {
    let members = open(nodes, reporting()).await;
    let (first, last) = (&members[0], members.last().unwrap());
    let watcher = first.watcher(&["g", "h"]).await;
    let one = last.connect(Some("ann")).await;
    last.leave(&one, "g").await;
    for _ in 0..2 {
        last.join(&one, "g").await;
    }
    let two = record(None);
    last.enter_with(&two, &["h"]).await;
    last.join(&two.id, "unwatched").await;
    for _ in 0..2 {
        last.leave(&one, "g").await;
    }
    last.join(&one, "g").await;
    assert!(last.remove(&one).await && last.remove(&two.id).await);
    let expected = [
        reported(true, "g", &one, Some("ann")),
        reported(true, "h", &two.id, None),
        reported(false, "g", &one, Some("ann")),
        reported(true, "g", &one, Some("ann")),
        reported(false, "g", &one, Some("ann")),
        reported(false, "h", &two.id, None),
    ];
    assert_eq!(first.heard(&watcher).await, expected);
    // A connection that no longer watches gets no messages, and watching itself has none.
    let watched = GroupName::presence_of(&group("g"));
    first.hub.leave(&watcher, &watched).await.unwrap();
    let three = first.connect(None).await;
    first.join(&three, "g").await;
    assert_eq!(first.heard(&watcher).await, expected);
}

/// A hub without presence has no messages.
pub async fn a_hub_that_does_not_tell_is_silent(nodes: &Nodes) {
    let members = open(nodes, HubOptions::default()).await;
    let (first, last) = (&members[0], members.last().unwrap());
    let watcher = first.watcher(&["g"]).await;
    let connection = record(None);
    last.enter_with(&connection, &["g"]).await;
    last.leave(&connection.id, "g").await;
    last.join(&connection.id, "g").await;
    assert!(last.remove(&connection.id).await);
    assert_eq!(first.heard(&watcher).await, [""; 0]);
}

/// A volatile hub has presence messages, too.
pub async fn a_volatile_hub_tells(nodes: &Nodes) {
    let options = HubOptions {
        volatile: true,
        ..reporting()
    };
    let members = open(nodes, options).await;
    let (first, last) = (&members[0], members.last().unwrap());
    let watcher = first.watcher(&["g"]).await;
    let connection = last.connect(None).await;
    last.join(&connection, "g").await;
    assert_eq!(
        first.heard(&watcher).await,
        [reported(true, "g", &connection, None)]
    );
}

/// Names arrive unchanged.
pub async fn names_are_told_as_they_are(nodes: &Nodes) {
    let members = open(nodes, reporting()).await;
    let (first, last) = (&members[0], members.last().unwrap());
    let long = "ü".repeat(512);
    let names = [r#"a"b\c/d%0\"#, "äöü 日本 🦀\u{2028}", "{}[]:,", &long, r"\u0041"];
    let watcher = first.watcher(&names).await;
    let mut expected = Vec::new();
    for name in names {
        let user = name.to_owned();
        let connection = last.connect(Some(&user)).await;
        last.join(&connection, name).await;
        expected.push(reported(true, name, &connection, Some(&user)));
    }
    assert_eq!(first.heard(&watcher).await, expected);
}

/// A connection that is parked or moves stays where it is; one that is removed while it is parked leaves.
pub async fn a_move_is_not_told(nodes: &Nodes) {
    let members = open(nodes, reporting()).await;
    let (home, other) = (&members[0], members.last().unwrap());
    let watcher = home.watcher(&["g"]).await;
    let (connection, _) = home.connect_resumable(Some("ann")).await;
    let id = &connection.id;
    home.join(id, "g").await;
    let mut expected = vec![reported(true, "g", id, Some("ann"))];
    for taker in [other, home] {
        let version = taker.version(id).await;
        let taken = taker.hub.take_over(id, version).await;
        assert!(matches!(taken, Ok(TakeOver::Taken(_))), "{taken:?}");
        assert!(taker.park(id).await);
    }
    assert_eq!(home.heard(&watcher).await, expected);
    other.leave(id, "g").await;
    other.join(id, "g").await;
    for there in [true, false] {
        let removed = other
            .hub
            .remove_parked(id, End::unreported(Duration::from_secs(60)));
        assert_eq!(removed.await.unwrap().is_some(), there);
    }
    expected.extend([false, true, false].map(|joined| reported(joined, "g", id, Some("ann"))));
    assert_eq!(home.heard(&watcher).await, expected);
}

/// A parked connection whose time is up leaves, once.
pub async fn an_end_by_time_is_told(nodes: &Nodes) {
    let options = HubOptions {
        resume_window: Duration::from_millis(300),
        ..reporting()
    };
    let members = open(nodes, options).await;
    let (home, other) = (&members[0], members.last().unwrap());
    let watcher = home.watcher(&["g", "h"]).await;
    let mut expected = Vec::new();
    for _ in 0..3 {
        let (connection, _) = other.connect_resumable(None).await;
        other.join(&connection.id, "g").await;
        assert!(other.park(&connection.id).await);
        expected.extend([true, false].map(|joined| reported(joined, "g", &connection.id, None)));
    }
    let _witnesses: Vec<_> = nodes.iter().map(|node| Witness::of(node.as_ref())).collect();
    let heard = eventually("the parked connections leave", async || {
        let heard = home.heard(&watcher).await;
        (heard.len() >= expected.len()).then_some(heard)
    });
    let mut heard = heard.await;
    for list in [&mut heard, &mut expected] {
        list.sort(); // their times are up together
    }
    assert_eq!(heard, expected);
}

/// A watching connection that is parked, or moves, misses no message.
pub async fn a_watcher_that_moves_misses_nothing(nodes: &Nodes) {
    let members = open(nodes, reporting()).await;
    let (home, other) = (&members[0], members.last().unwrap());
    let (watcher, entered) = home.connect_resumable(None).await;
    let watched = GroupName::presence_of(&group("g"));
    let joined = home.hub.join(&watcher.id, &watched).await.unwrap();
    assert!(home.park(&watcher.id).await);
    let connection = other.connect(None).await;
    other.join(&connection, "g").await;
    let version = other.version(&watcher.id).await;
    let taken = other.hub.take_over(&watcher.id, version).await;
    let Ok(TakeOver::Taken(taken)) = taken else {
        panic!("{taken:?}")
    };
    assert_eq!(taken.groups, [watched]);
    other.leave(&connection, "g").await;
    assert!(joined > entered.position.offset);
    let replayed = other.replay_after(&taken, &entered.position);
    let Whole::Exact(replayed) = replayed.await else {
        panic!("the log has it all")
    };
    let replayed: Vec<_> = replayed
        .iter()
        .map(|message| text(&message.envelope.arguments[0]))
        .collect();
    assert_eq!(replayed, [reported(true, "g", &connection, None)]);
    let left = reported(false, "g", &connection, None);
    assert_eq!(other.heard(&watcher.id).await.last(), Some(&left));
}

/// Reserved groups are neither counted nor listed.
pub async fn who_watches_is_not_listed(nodes: &Nodes) {
    for member in open(nodes, reporting()).await {
        let before = member.hub.connection_statistics().await.unwrap().groups;
        let watcher = member.watcher(&["g"]).await;
        let statistics = member.hub.connection_statistics().await.unwrap();
        assert_eq!(statistics.groups, before);
        assert_eq!(member.hub.groups(&watcher).await.unwrap(), []);
        let own = format!("own-{watcher}");
        member.join(&watcher, &own).await;
        assert_eq!(member.hub.groups(&watcher).await.unwrap(), [group(&own)]);
        assert!(member.remove(&watcher).await);
        let statistics = member.hub.connection_statistics().await.unwrap();
        assert_eq!(statistics.groups, before);
    }
}

/// The connections of a group are listed with their users, in pages.
pub async fn pages_tell_users(nodes: &Nodes) {
    let members = open(nodes, HubOptions::default()).await;
    let mut expected = Vec::new();
    for number in 0..7 {
        let member = &members[number % members.len()];
        let user = (number % 3 > 0).then(|| format!("u{number}"));
        let connection = member.connect(user.as_deref()).await;
        member.join(&connection, "g").await;
        expected.push((connection, user));
    }
    expected.sort();
    for member in &members {
        let (mut found, mut after) = (Vec::new(), None);
        loop {
            let g = group("g");
            let page = member.hub.present(&g, after.as_ref(), 3);
            let page = page.await.unwrap();
            let Some(last) = page.last() else { break };
            after = Some(last.connection.clone());
            let entry = |present: crate::Present| {
                let user = present.user.map(|user| user.stored().to_owned());
                (present.connection, user)
            };
            found.extend(page.into_iter().map(entry));
        }
        assert_eq!(found, expected);
        let empty = group("nobody");
        let nobody = member.hub.present(&empty, None, 3);
        assert_eq!(nobody.await.unwrap(), []);
    }
}
