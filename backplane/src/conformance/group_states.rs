//! Rules about the states of members in their groups, which are changed and announced in one step.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Member, Nodes, group, open, record};
use crate::backplane::{ConnectionRecord, End, HubOptions};
use crate::error::BackplaneError;
use crate::group_states::{MAX_GROUP_BYTES, MemberState, StateSet, TARGET};
use crate::position::Offset;
use crate::topic::{ConnectionId, GroupName, UserId};

fn state(pairs: &[(&str, &str)]) -> MemberState {
    let pairs = pairs
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    MemberState::new(&pairs.collect::<BTreeMap<_, _>>()).unwrap()
}

/// An item without its time, as text.
fn item(id: &ConnectionId, user: Option<&str>, state: Option<&MemberState>) -> String {
    let user = user.map(|user| UserId::parse(user).unwrap());
    untimed(&crate::group_states::item(id, user.as_ref(), state, 0))
}

/// An item without its time.
fn untimed(item: &[u8]) -> String {
    let text = String::from_utf8(item.to_vec()).unwrap();
    let (item, time) = text.rsplit_once(r#","updatedAt":"#).unwrap();
    assert!(time.trim_end_matches('}').parse::<u64>().is_ok(), "{text}");
    item.to_owned()
}

/// The items of an array without their times, in order.
fn items(array: &[u8]) -> Vec<String> {
    const HEAD: &str = r#"{"connectionId""#;
    let text = String::from_utf8(array.to_vec()).unwrap();
    let text = text.strip_prefix('[').unwrap().strip_suffix(']').unwrap();
    let items = text.split(HEAD).filter(|item| !item.is_empty());
    let items = items.map(|item| untimed(format!("{HEAD}{}", item.trim_end_matches(',')).as_bytes()));
    sorted(items.collect())
}

fn sorted(mut items: Vec<String>) -> Vec<String> {
    items.sort();
    items
}

impl Member {
    /// Enters a connection that receives the changes of a group's states.
    async fn subscriber(&self, name: &str) -> ConnectionId {
        let subscriber = record(None);
        let entered = [GroupName::states_of(&group(name))];
        self.hub.enter_with(&subscriber, &entered, true).await.unwrap();
        subscriber.id
    }

    async fn set(&self, id: &ConnectionId, name: &str, state: Option<&MemberState>) -> StateSet {
        self.hub.set_state(id, &group(name), state, None).await.unwrap()
    }

    /// The items of a group's states.
    async fn items(&self, name: &str) -> Vec<String> {
        let states = self.hub.states(&group(name)).await.unwrap();
        items(&states.items)
    }

    /// Returns whether setting a state is refused because the connection is not this node's.
    async fn disowns(&self, id: &ConnectionId, state: &MemberState) -> bool {
        let set = self.hub.set_state(id, &group("g"), Some(state), None).await;
        matches!(set, Err(BackplaneError::NotOwner { .. }))
    }

    /// The changes of states that a connection of this node received up to now, with their offsets.
    async fn changes(&self, subscriber: &ConnectionId) -> Vec<(Offset, String)> {
        let messages = self.received_so_far(subscriber, TARGET).await;
        messages
            .iter()
            .flat_map(|message| {
                let items = items(&message.envelope.arguments[0]);
                items.into_iter().map(|item| (message.offset, item))
            })
            .collect()
    }
}

/// A state is announced and read wherever it was set; it ends when it is cleared, when its connection leaves, and when
/// that ends.
pub async fn states_live_as_long_as_their_memberships(nodes: &Nodes) {
    let members = open(nodes, HubOptions::default()).await;
    let (first, last) = (&members[0], members.last().unwrap());
    let subscriber = first.subscriber("g").await;
    let ann = last.connect(Some("ann")).await;
    let bob = first.connect(None).await;
    for (member, id) in [(last, &ann), (first, &bob)] {
        member.join(id, "g").await;
        member.join(id, "h").await;
    }
    let (here, gone) = (state(&[("at", "1"), ("name", "a\"n\n")]), state(&[]));
    let mut expected = Vec::new();
    for (member, id, user, set) in [
        (last, &ann, Some("ann"), Some(&here)),
        (first, &bob, None, Some(&gone)),
        (last, &ann, Some("ann"), Some(&gone)),
        (first, &bob, None, None),
        (first, &bob, None, Some(&here)),
    ] {
        let StateSet::Now(offset) = member.set(id, "g", set).await else {
            panic!("a state was not set");
        };
        expected.push((offset, item(id, user, set)));
    }
    assert_eq!(first.changes(&subscriber).await, expected);
    assert_eq!(first.set(&bob, "h", None).await, StateSet::Nothing);
    let both = sorted(vec![
        item(&ann, Some("ann"), Some(&gone)),
        item(&bob, None, Some(&here)),
    ]);
    for member in &members {
        assert_eq!(member.items("g").await, both);
        assert_eq!(member.items("h").await, [""; 0]);
    }
    last.leave(&ann, "g").await;
    last.leave(&ann, "g").await;
    assert!(first.remove(&bob).await);
    let ends = [item(&ann, Some("ann"), None), item(&bob, None, None)];
    let changes = first.changes(&subscriber).await.split_off(expected.len());
    let changes: Vec<_> = changes.into_iter().map(|(_, change)| change).collect();
    assert_eq!(changes, ends);
    assert_eq!(last.items("g").await, [""; 0]);
    // A connection that joins anew has no state.
    last.join(&ann, "g").await;
    assert_eq!(last.items("g").await, [""; 0]);
}

/// The states that are read belong to a place in the log: changes after it are not in them, those before it are.
pub async fn states_have_a_place_in_the_log(nodes: &Nodes) {
    let members = open(nodes, HubOptions::default()).await;
    let (first, last) = (&members[0], members.last().unwrap());
    let subscriber = first.subscriber("g").await;
    let connection = last.connect(None).await;
    last.join(&connection, "g").await;
    let (before, after) = (state(&[("n", "1")]), state(&[("n", "2")]));
    let StateSet::Now(set) = last.set(&connection, "g", Some(&before)).await else {
        panic!("a state was not set");
    };
    let read = first.hub.states(&group("g")).await.unwrap();
    assert!(read.position.offset >= set);
    assert_eq!(read.position.epoch, first.hub.epoch());
    assert_eq!(items(&read.items), [item(&connection, None, Some(&before))]);
    last.set(&connection, "g", Some(&after)).await;
    let changes = first.changes(&subscriber).await;
    let later: Vec<_> = changes
        .iter()
        .filter(|(offset, _)| *offset > read.position.offset)
        .collect();
    assert!(matches!(later.as_slice(), [(_, change)] if *change == item(&connection, None, Some(&after))));
}

/// A state belongs to a member; reserved groups have none.
pub async fn only_members_have_states(nodes: &Nodes) {
    let members = open(nodes, HubOptions::default()).await;
    let last = members.last().unwrap();
    let connection = last.connect(None).await;
    let some = state(&[("a", "b")]);
    assert_eq!(last.set(&connection, "g", Some(&some)).await, StateSet::NotMember);
    assert_eq!(last.set(&connection, "g", None).await, StateSet::NotMember);
    last.join(&connection, "g").await;
    assert!(matches!(
        last.set(&connection, "g", Some(&some)).await,
        StateSet::Now(_)
    ));
    last.leave(&connection, "g").await;
    assert_eq!(last.set(&connection, "g", Some(&some)).await, StateSet::NotMember);
    let reserved = GroupName::states_of(&group("g"));
    last.hub.join(&connection, &reserved).await.unwrap();
    let set = last
        .hub
        .set_state(&connection, &reserved, Some(&some), None)
        .await;
    assert_eq!(set.unwrap(), StateSet::NotMember);
    assert!(last.remove(&connection).await);
    assert!(last.disowns(&connection, &some).await);
}

/// A request that is repeated sets nothing.
pub async fn a_state_is_set_once(nodes: &Nodes) {
    let members = open(nodes, HubOptions::default()).await;
    let (first, last) = (&members[0], members.last().unwrap());
    let subscriber = first.subscriber("g").await;
    let connection = last.connect(None).await;
    let (one, two) = (state(&[("n", "1")]), state(&[("n", "2")]));
    let of = group("g");
    let set = async |state, once| {
        let set = last.hub.set_state(&connection, &of, Some(state), Some(once));
        set.await.unwrap()
    };
    assert_eq!(set(&one, "a").await, StateSet::NotMember);
    last.join(&connection, "g").await;
    // A request that was refused was not carried out.
    assert!(matches!(set(&one, "a").await, StateSet::Now(_)));
    assert!(matches!(set(&two, "b").await, StateSet::Now(_)));
    assert_eq!(set(&one, "a").await, StateSet::Before);
    assert_eq!(last.items("g").await, [item(&connection, None, Some(&two))]);
    assert_eq!(first.changes(&subscriber).await.len(), 2);
}

/// The states of one group are bounded together; what is cleared makes room.
pub async fn states_of_a_group_are_bounded(nodes: &Nodes) {
    let members = open(nodes, HubOptions::default()).await;
    let last = members.last().unwrap();
    let large = state(&[("x", &"x".repeat(8_000))]);
    let mut connections = Vec::new();
    let full = loop {
        let connection = last.connect(None).await;
        last.join(&connection, "g").await;
        let set = last.set(&connection, "g", Some(&large)).await;
        connections.push(connection);
        if !matches!(set, StateSet::Now(_)) {
            break set;
        }
    };
    assert_eq!(full, StateSet::GroupFull);
    let count = connections.len() - 1;
    assert!(count * 8_000 <= MAX_GROUP_BYTES && (count + 1) * 8_100 > MAX_GROUP_BYTES);
    assert_eq!(last.items("g").await.len(), count);
    // A member may replace its own, and another group has room of its own.
    assert!(matches!(
        last.set(&connections[0], "g", Some(&large)).await,
        StateSet::Now(_)
    ));
    last.join(&connections[count], "h").await;
    assert!(matches!(
        last.set(&connections[count], "h", Some(&large)).await,
        StateSet::Now(_)
    ));
    last.set(&connections[0], "g", None).await;
    assert!(last.remove(&connections[1]).await);
    for connection in [&connections[0], &connections[count]] {
        let set = last.set(connection, "g", Some(&large)).await;
        assert!(matches!(set, StateSet::Now(_)), "{set:?}");
    }
}

/// A connection that is parked or goes on on another node keeps its states; one that does not come back loses them.
pub async fn states_move_with_their_connections(nodes: &Nodes) {
    let members = open(nodes, HubOptions::default()).await;
    let (first, last) = (&members[0], members.last().unwrap());
    let subscriber = first.subscriber("g").await;
    let connection = ConnectionRecord {
        state: Some("state".into()),
        ..record(None)
    };
    let entered = [group("g")];
    let entered = last.hub.enter_with(&connection, &entered, true);
    entered.await.unwrap();
    let id = &connection.id;
    let set = state(&[("a", "b")]);
    assert!(matches!(last.set(id, "g", Some(&set)).await, StateSet::Now(_)));
    assert!(last.park(id).await);
    assert_eq!(first.items("g").await, [item(id, None, Some(&set))]);
    first.take_over(id).await;
    assert_eq!(last.items("g").await, [item(id, None, Some(&set))]);
    let other = state(&[("a", "c")]);
    assert!(matches!(first.set(id, "g", Some(&other)).await, StateSet::Now(_)));
    assert!(first.park(id).await);
    let end = End::unreported(Duration::from_secs(60));
    assert!(last.hub.remove_parked(id, end).await.unwrap().is_some());
    let expected = [
        item(id, None, Some(&set)),
        item(id, None, Some(&other)),
        item(id, None, None),
    ];
    let changes = first.changes(&subscriber).await;
    let changes: Vec<_> = changes.into_iter().map(|(_, change)| change).collect();
    assert_eq!(changes, expected);
    assert_eq!(first.items("g").await, [""; 0]);
}
