//! Rules about the names of groups and users: any text works everywhere, and comes back as it is.

use std::time::Duration;

use super::sessions::{of_connection, of_group, resumable};
use super::{Member, Nodes, eventually, group, open, record};
use crate::backplane::{Delivery, End, HubOptions};
use crate::directory::Members;
use crate::events::{EventOptions, EventPlace};
use crate::history::HistoryPage;
use crate::position::Offset;
use crate::presence;
use crate::sessions::TakeOver;
use crate::topic::{GroupName, Topic, UserId};

/// Names with what separates, marks or escapes something in keys, channels, entries, JSON or patterns.
const NAMES: [&str; 14] = [
    "a\nb",
    "\n",
    "a\r\n",
    "\0",
    "\u{1}g",
    "\u{2}0a",
    "\u{7f}\u{85}\u{9f}\u{1b}[31m",
    "\"\\\u{8}/</script>",
    "}{g}:{",
    "%0a%%1*?[a-z]",
    " ",
    "g:u:c:a",
    "\u{2028}\u{200b}\u{feff}ü漢🙂\u{10ffff}",
    "*",
];

/// Connections of such users join such groups, receive, are counted, move and end, and all is told by the same names.
pub async fn any_text_is_a_name(nodes: &Nodes) {
    for name in NAMES {
        a_name_comes_back_as_it_is(nodes, name).await;
    }
}

/// Names that differ in what is escaped are different names, and none is the reserved group of another.
pub async fn similar_names_are_different(nodes: &Nodes) {
    let members = open(nodes, HubOptions::default()).await;
    let (first, last) = (&members[0], members.last().unwrap());
    let names = ["\u{1}g", "g", "\u{2}01g", "\u{2}0201g", "\\u0001g", "%01g"];
    let mut connections = Vec::new();
    for name in names {
        let connection = first.connect(Some(name)).await;
        first.join(&connection, name).await;
        connections.push(connection);
    }
    for name in names {
        last.publish(of_group(name), &format!("group {name:?}")).await;
        last.publish(
            Topic::User(UserId::parse(name).unwrap()),
            &format!("user {name:?}"),
        )
        .await;
    }
    last.publish(Topic::Group(GroupName::presence_of(&group("g"))), "reserved")
        .await;
    last.publish(Topic::All, "end").await;
    for (name, connection) in names.iter().zip(&connections) {
        let received = first.sink.received_until(connection, "end").await;
        let received: Vec<_> = received.into_iter().map(|(_, target)| target).collect();
        assert_eq!(
            received,
            [
                format!("group {name:?}"),
                format!("user {name:?}"),
                "end".to_owned()
            ]
        );
    }
}

/// One name of a group and a user through everything that a connection does.
///
/// # Panics
/// Where it does not come back as it is.
pub async fn a_name_comes_back_as_it_is(nodes: &Nodes, name: &str) {
    let options = HubOptions {
        presence: true,
        events: Some(EventOptions::default()),
        ..HubOptions::default()
    };
    let members = open(nodes, options).await;
    let (first, last) = (&members[0], members.last().unwrap());
    let (g, user) = (group(name), UserId::parse(name).unwrap());
    assert_eq!((g.as_str(), user.as_str()), (name, name));
    let watcher = record(None);
    let watched = [GroupName::presence_of(&g)];
    last.hub.enter_with(&watcher, &watched, true).await.unwrap();
    last.hub.join_user(&user, &g, None, 10).await.unwrap();
    let connection = resumable(Some(name));
    let id = &connection.id;
    let entered = first.hub.enter(&connection, true).await.unwrap();
    assert_eq!(entered.groups, std::slice::from_ref(&g));
    first.join(id, name).await;
    last.publish(of_group(name), "to the group").await;
    last.publish(Topic::User(user.clone()), "to the user").await;
    let received = first.sink.received_until(id, "to the user").await;
    assert_eq!(received.len(), 2, "{received:?}");
    it_is_listed(last, &g, &user, id).await;
    it_moves(first, last, &connection, &g).await;
    let after = entered.position;
    let topics = [(Topic::Group(g.clone()), after.offset)];
    let page = last
        .hub
        .history(&topics, &after, Offset::MAX, 1 << 20)
        .await
        .unwrap();
    assert!(matches!(page, HistoryPage::Exact { messages, .. } if messages.len() == 2));
    last.leave(id, name).await;
    last.join(id, name).await;
    assert!(last.remove(id).await);
    it_was_told(last, &watcher.id, &g, &connection).await;
    let page = last
        .hub
        .follow_events(Some(EventPlace::START), 10, Duration::ZERO);
    let events = page.await.unwrap().events;
    let users: Vec<_> = events
        .iter()
        .filter(|event| event.connection == *id)
        .map(|event| &event.user)
        .collect();
    assert_eq!(users, [&Some(user.clone()), &Some(user.clone())]);
    it_is_removed_while_parked(first, last, &user).await;
}

async fn it_is_listed(member: &Member, g: &GroupName, user: &UserId, id: &crate::ConnectionId) {
    let hub = &member.hub;
    for of in [Members::Group(g), Members::User(user)] {
        assert_eq!(hub.count(of).await.unwrap(), 1);
        assert!(hub.contains(of, id).await.unwrap());
        assert_eq!(hub.page(of, None, 10).await.unwrap(), std::slice::from_ref(id));
    }
    assert_eq!(hub.groups(id).await.unwrap(), std::slice::from_ref(g));
    let present = hub.present(g, None, 10).await.unwrap();
    assert_eq!(present[0].user.as_ref(), Some(user));
    assert_eq!(hub.connection_statistics().await.unwrap().groups, 1);
    assert_eq!(hub.user_groups(user).await.unwrap(), std::slice::from_ref(g));
    assert!(hub.is_user_in(user, g).await.unwrap());
    hub.leave_user(user, Some(g)).await.unwrap();
    assert!(hub.user_groups(user).await.unwrap().is_empty());
    let listing = super::listing(member, id).await.unwrap();
    assert_eq!(listing.user.as_ref(), Some(user));
}

async fn it_moves(first: &Member, last: &Member, connection: &crate::ConnectionRecord, g: &GroupName) {
    let id = &connection.id;
    assert!(first.park(id).await);
    let taken = last.hub.take_over(id, last.version(id).await).await.unwrap();
    let TakeOver::Taken(taken) = taken else {
        panic!("{taken:?}");
    };
    assert_eq!((&taken.record, &taken.groups), (connection, &vec![g.clone()]));
    first.publish(Topic::Group(g.clone()), "after the move").await;
    last.sink.received_until(id, "after the move").await;
}

/// The watcher was given each change of the group by its name.
async fn it_was_told(
    member: &Member,
    watcher: &crate::ConnectionId,
    g: &GroupName,
    of: &crate::ConnectionRecord,
) {
    member.publish(of_connection(watcher), "end").await;
    member.sink.received_until(watcher, "end").await;
    let reported = |joined| presence::message(joined, g, &of.id, of.user.as_ref()).arguments;
    let expected = [reported(true), reported(false), reported(true), reported(false)];
    let heard: Vec<_> = member
        .sink
        .deliveries()
        .into_iter()
        .filter_map(|delivery| match delivery {
            Delivery::Message(message) if message.envelope.target == presence::TARGET => Some(message),
            _ => None,
        })
        .map(|message| message.envelope.arguments.clone())
        .collect();
    assert_eq!(heard, expected);
}

async fn it_is_removed_while_parked(first: &Member, last: &Member, user: &UserId) {
    let (connection, _) = first.connect_resumable(Some(user.as_str())).await;
    assert!(first.park(&connection.id).await);
    let removed = eventually("the parked connection is removed", async || {
        let end = End::unreported(Duration::from_secs(60));
        last.hub.remove_parked(&connection.id, end).await.unwrap()
    });
    assert_eq!(removed.await.user.as_ref(), Some(user));
}
