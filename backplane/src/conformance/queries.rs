//! Rules about queries: connections of groups and users, and their lists and counts.

use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::sleep;

use super::{Member, Nodes, Witness, eventually, group, open, record};
use crate::backplane::{Claim, End, HubOptions};
use crate::directory::{Members, ParkedCursor};
use crate::sessions::TakeOver;
use crate::topic::{ConnectionId, GroupName, UserId};

impl Member {
    async fn count(&self, of: Members<'_>) -> u64 {
        self.hub.count(of).await.unwrap()
    }

    async fn contains(&self, of: Members<'_>, connection: &ConnectionId) -> bool {
        self.hub.contains(of, connection).await.unwrap()
    }

    async fn page(&self, of: Members<'_>, after: Option<&ConnectionId>, limit: usize) -> Vec<ConnectionId> {
        self.hub.page(of, after, limit).await.unwrap()
    }

    async fn groups_of(&self, connection: &ConnectionId) -> Vec<GroupName> {
        self.hub.groups(connection).await.unwrap()
    }

    async fn user_groups(&self, user: &UserId) -> Vec<GroupName> {
        self.hub.user_groups(user).await.unwrap()
    }

    async fn is_user_in(&self, user: &UserId, name: &str) -> bool {
        let name = group(name);
        let is_in = self.hub.is_user_in(user, &name);
        is_in.await.unwrap()
    }

    async fn join_user(&self, user: &UserId, name: &str, ttl: Option<Duration>, most: usize) {
        let name = group(name);
        let joined = self.hub.join_user(user, &name, ttl, most);
        joined.await.unwrap();
    }

    async fn leave_user(&self, user: &UserId, name: Option<&str>) {
        let name = name.map(group);
        let left = self.hub.leave_user(user, name.as_ref());
        left.await.unwrap();
    }

    /// The groups that a new connection of a user is to join.
    async fn entered_groups(&self, user: Option<&str>) -> Vec<GroupName> {
        let connection = record(user);
        let entered = self.hub.enter(&connection, true).await.unwrap();
        let mut groups = entered.groups;
        groups.sort();
        groups
    }

    async fn parked(&self, of: Option<Members<'_>>) -> Vec<ConnectionId> {
        let (mut found, mut next) = (Vec::new(), Some(ParkedCursor::default()));
        while let Some(from) = next {
            let parked = self.hub.parked(of, from).await.unwrap();
            found.extend(parked.connections);
            next = parked.next;
        }
        found.sort();
        found.dedup();
        found
    }

    /// The numbers of connections of all nodes, parked connections, and groups.
    async fn connection_statistics(&self) -> (u64, u64, u64) {
        let statistics = self.hub.connection_statistics().await.unwrap();
        let owned = statistics.nodes.iter().map(|(_, count)| count).sum();
        (owned, statistics.parked, statistics.groups)
    }
}

fn user(name: &str) -> UserId {
    UserId::parse(name).unwrap()
}

fn groups(names: &[&str]) -> Vec<GroupName> {
    names.iter().map(|name| group(name)).collect()
}

/// Every node counts and finds the connections of groups and users, from their beginning to their end.
pub async fn connections_are_counted_and_found(nodes: &Nodes) {
    let members = open(nodes, HubOptions::default()).await;
    let (first, last) = (&members[0], members.last().unwrap());
    let (g, me) = (group("g"), user("me"));
    let lists = [Members::Group(&g), Members::User(&me)];
    let (one, two) = (first.connect(Some("me")).await, last.connect(Some("me")).await);
    let other = last.connect(None).await;
    for (member, connection) in [(first, &one), (last, &two)] {
        member.join(connection, "g").await;
        member.join(connection, "g").await;
    }
    let mut both = vec![one.clone(), two.clone()];
    both.sort();
    for member in &members {
        for of in lists {
            assert_eq!(member.count(of).await, 2);
            assert!(member.contains(of, &one).await && member.contains(of, &two).await);
            assert!(!member.contains(of, &other).await);
            assert_eq!(member.page(of, None, 10).await, both);
        }
        assert_eq!(member.count(Members::Group(&group("h"))).await, 0);
        assert_eq!(member.count(Members::User(&user("you"))).await, 0);
        assert_eq!(member.page(Members::User(&user("you")), None, 10).await, []);
    }
    first.leave(&one, "g").await;
    assert_eq!(last.count(lists[0]).await, 1);
    assert!(!last.contains(lists[0], &one).await && last.contains(lists[1], &one).await);
    assert!(first.remove(&one).await && last.remove(&two).await);
    for member in &members {
        for of in lists {
            assert_eq!(member.count(of).await, 0);
            assert!(!member.contains(of, &two).await);
        }
    }
}

/// A list that changes while it is read in pages has each connection that is in it all the time, once and in order.
pub async fn pages_have_everybody_once(nodes: &Nodes) {
    let members = open(nodes, HubOptions::default()).await;
    let g = group("g");
    let of = Members::Group(&g);
    let (mut stay, mut go) = (Vec::new(), Vec::new());
    for number in 0..90 {
        let member = &members[number % members.len()];
        let connection = member.connect(None).await;
        member.join(&connection, "g").await;
        if number % 3 == 0 {
            go.push((member, connection));
        } else {
            stay.push(connection);
        }
    }
    let (mut found, mut pages): (Vec<ConnectionId>, _) = (Vec::new(), 0);
    loop {
        let member = &members[pages % members.len()];
        let page = member.page(of, found.last(), 7).await;
        if page.is_empty() {
            break;
        }
        assert!(page.len() == 7 || pages > 8, "{pages}: {page:?}");
        found.extend(page);
        pages += 1;
        if let Some((member, connection)) = go.pop() {
            member.leave(&connection, "g").await;
            let newcomer = member.connect(None).await;
            member.join(&newcomer, "g").await;
        }
    }
    assert!(found.is_sorted() && found.windows(2).all(|pair| pair[0] != pair[1]));
    assert!(stay.iter().all(|connection| found.contains(connection)));
    // A page may begin after an id that is not listed.
    let nobody = ConnectionId::parse("-").unwrap();
    assert_eq!(members[0].page(of, Some(&nobody), 1_000).await, {
        members[0].page(of, None, 1_000).await
    });
}

/// Every node can list the groups of a connection.
pub async fn a_connection_tells_its_groups(nodes: &Nodes) {
    let members = open(nodes, HubOptions::default()).await;
    let (first, last) = (&members[0], members.last().unwrap());
    let connection = last.connect(Some("me")).await;
    assert_eq!(first.groups_of(&connection).await, []);
    for name in ["b", "a", "c", "a b:c}"] {
        last.join(&connection, name).await;
    }
    last.leave(&connection, "c").await;
    assert_eq!(first.groups_of(&connection).await, groups(&["a", "a b:c}", "b"]));
    assert!(last.remove(&connection).await);
    assert_eq!(first.groups_of(&connection).await, []);
    assert_eq!(first.groups_of(&record(None).id).await, []);
}

/// A statistics counts all connections and groups of a hub, and of no other.
pub async fn a_census_counts_connections_and_groups(nodes: &Nodes) {
    let members = open(nodes, HubOptions::default()).await;
    let other = open(nodes, HubOptions::default()).await;
    let (first, last) = (&members[0], members.last().unwrap());
    assert_eq!(first.connection_statistics().await, (0, 0, 0));
    let (one, two) = (first.connect(None).await, last.connect(Some("me")).await);
    let (parked, _) = last.connect_resumable(None).await;
    for (member, connection, name) in [
        (first, &one, "g"),
        (last, &two, "g"),
        (last, &two, "h"),
        (last, &parked.id, "i"),
    ] {
        member.join(connection, name).await;
    }
    assert!(last.park(&parked.id).await);
    for member in &members {
        assert_eq!(member.connection_statistics().await, (2, 1, 3));
    }
    let statistics = first.hub.connection_statistics().await.unwrap();
    let of = |member: &Member| {
        let node = member.node.node();
        statistics
            .nodes
            .iter()
            .find(|(found, _)| found == node)
            .map(|(_, count)| *count)
    };
    let expected = if members.len() > 1 {
        (Some(1), Some(1))
    } else {
        (Some(2), Some(2))
    };
    assert_eq!((of(first), of(last)), expected);
    assert_eq!(other[0].connection_statistics().await, (0, 0, 0));
    last.leave(&two, "h").await;
    assert!(first.remove(&one).await);
    assert_eq!(last.connection_statistics().await, (1, 1, 2));
    first.take_over(&parked.id).await;
    assert_eq!(last.connection_statistics().await, (2, 0, 2));
    assert!(first.remove(&parked.id).await && last.remove(&two).await);
    assert_eq!(last.connection_statistics().await, (0, 0, 0));
}

/// A parked connection stays listed in its groups and under its user, on whichever node it resumes, until its time is
/// up.
pub async fn a_parked_connection_counts(nodes: &Nodes) {
    let _witnesses: Vec<_> = nodes.iter().map(|node| Witness::of(node.as_ref())).collect();
    let options = HubOptions {
        resume_window: Duration::from_millis(600),
        ..HubOptions::default()
    };
    let members = open(nodes, options).await;
    let (first, last) = (&members[0], members.last().unwrap());
    let (g, h, me) = (group("g"), group("h"), user("me"));
    let (connection, _) = first.connect_resumable(Some("me")).await;
    let id = &connection.id;
    first.join(id, "g").await;
    assert!(first.park(id).await);
    for member in &members {
        for of in [Members::Group(&g), Members::User(&me)] {
            assert_eq!(member.count(of).await, 1);
            assert!(member.contains(of, id).await);
        }
    }
    last.join(id, "h").await;
    assert_eq!(first.count(Members::Group(&h)).await, 1);
    last.take_over(id).await;
    assert_eq!(first.count(Members::Group(&g)).await, 1);
    assert_eq!(first.groups_of(id).await, groups(&["g", "h"]));
    assert!(last.park(id).await);
    eventually("its time is up", async || {
        let gone = last.count(Members::Group(&g)).await == 0 && last.count(Members::User(&me)).await == 0;
        gone.then_some(())
    })
    .await;
    assert_eq!(last.connection_statistics().await, (0, 0, 0));
}

/// A connection that enters while its user is in a group is to join it, on every node; present ones stay as they are.
pub async fn a_users_groups_await_its_connections(nodes: &Nodes) {
    let members = open(nodes, HubOptions::default()).await;
    let (first, last) = (&members[0], members.last().unwrap());
    let me = user("me");
    let present = last.connect(Some("me")).await;
    assert_eq!(last.user_groups(&me).await, []);
    for name in ["b", "a", "b"] {
        first.join_user(&me, name, None, 10).await;
    }
    for member in &members {
        assert_eq!(member.user_groups(&me).await, groups(&["a", "b"]));
        assert!(member.is_user_in(&me, "a").await && !member.is_user_in(&me, "c").await);
        assert_eq!(member.entered_groups(Some("me")).await, groups(&["a", "b"]));
        assert_eq!(member.entered_groups(Some("you")).await, []);
        assert_eq!(member.entered_groups(None).await, []);
    }
    assert_eq!(first.groups_of(&present).await, [], "that is its owner's to do");
    last.leave_user(&me, Some("a")).await;
    last.leave_user(&me, Some("never joined")).await;
    assert_eq!(first.entered_groups(Some("me")).await, groups(&["b"]));
    first.join_user(&me, "c", Some(Duration::from_secs(60)), 10).await;
    first.leave_user(&me, None).await;
    assert_eq!(last.user_groups(&me).await, []);
    assert!(!last.is_user_in(&me, "b").await);
    assert_eq!(last.entered_groups(Some("me")).await, []);
}

/// A user's time in a group ends, unless it is given more.
pub async fn a_users_time_in_a_group_ends(nodes: &Nodes) {
    let members = open(nodes, HubOptions::default()).await;
    let (first, last) = (&members[0], members.last().unwrap());
    let me = user("me");
    let short = Duration::from_millis(300);
    for name in ["short", "renewed", "shortened"] {
        first.join_user(&me, name, Some(short), 10).await;
    }
    last.join_user(&me, "renewed", Some(Duration::from_secs(60)), 10)
        .await;
    first.join_user(&me, "year", None, 10).await;
    first.join_user(&me, "ages", Some(Duration::MAX), 10).await;
    first
        .join_user(&me, "instant", Some(Duration::from_nanos(1)), 10)
        .await;
    sleep(short + Duration::from_millis(50)).await;
    assert_eq!(last.user_groups(&me).await, groups(&["ages", "renewed", "year"]));
    assert!(!first.is_user_in(&me, "short").await);
    assert_eq!(
        first.entered_groups(Some("me")).await,
        groups(&["ages", "renewed", "year"])
    );
}

/// A user's groups are bounded: those that would end first make room.
pub async fn a_users_groups_are_bounded(nodes: &Nodes) {
    let members = open(nodes, HubOptions::default()).await;
    let member = members.last().unwrap();
    let me = user("me");
    let seconds = |seconds| Some(Duration::from_secs(seconds));
    for (name, ttl) in [("a", seconds(100)), ("b", seconds(50)), ("c", None)] {
        member.join_user(&me, name, ttl, 3).await;
    }
    member.join_user(&me, "a", seconds(20), 3).await;
    assert_eq!(member.user_groups(&me).await, groups(&["a", "b", "c"]));
    member.join_user(&me, "d", seconds(10), 3).await;
    assert_eq!(member.user_groups(&me).await, groups(&["b", "c", "d"]));
    member.join_user(&me, "e", None, 2).await;
    assert_eq!(member.user_groups(&me).await, groups(&["c", "e"]));
}

/// Parked connections are listed: all of a hub, or those of a group or a user.
pub async fn parked_connections_are_listed(nodes: &Nodes) {
    let members = open(nodes, HubOptions::default()).await;
    let (first, last) = (&members[0], members.last().unwrap());
    let (g, me) = (group("g"), user("me"));
    assert_eq!(first.parked(None).await, []);
    let (mut all, mut in_group, mut of_user) = (Vec::new(), Vec::new(), Vec::new());
    // More than a server gives at once.
    for number in 0..700 {
        let member = &members[number % members.len()];
        let name = (number % 5 == 0).then_some("me");
        let (connection, _) = member.connect_resumable(name).await;
        let id = connection.id;
        if number % 7 == 0 {
            member.join(&id, "g").await;
        }
        if number % 35 == 1 {
            continue; // it has an owner
        }
        assert!(member.park(&id).await);
        for (list, is_in) in [
            (&mut all, true),
            (&mut in_group, number % 7 == 0),
            (&mut of_user, number % 5 == 0),
        ] {
            if is_in {
                list.push(id.clone());
            }
        }
    }
    for list in [&mut all, &mut in_group, &mut of_user] {
        list.sort();
    }
    assert_eq!(last.parked(None).await, all);
    assert_eq!(last.parked(Some(Members::Group(&g))).await, in_group);
    assert_eq!(last.parked(Some(Members::User(&me))).await, of_user);
    assert_eq!(last.parked(Some(Members::Group(&group("h")))).await, []);
}

/// Of several calls that remove a parked connection early, one succeeds; connections that are not parked stay.
pub async fn a_parked_connection_is_removed_once(nodes: &Nodes) {
    let witnesses: Vec<_> = nodes.iter().map(|node| Witness::of(node.as_ref())).collect();
    let members = open(nodes, HubOptions::default()).await;
    let (first, last) = (&members[0], members.last().unwrap());
    let remove = async |member: &Member, id: &ConnectionId| {
        let removed = member
            .hub
            .remove_parked(id, End::unreported(Duration::from_secs(60)));
        removed.await.unwrap()
    };
    let plain = first.connect(None).await;
    let (owned, _) = first.connect_resumable(None).await;
    for member in &members {
        for id in [&plain, &owned.id, &record(None).id] {
            assert_eq!(remove(member, id).await, None);
        }
    }
    assert!(first.remove(&plain).await && first.park(&owned.id).await);
    let taken = last.take_over(&owned.id).await;
    assert_eq!(remove(first, &owned.id).await, None, "it is not parked any more");
    for _ in 0..5 {
        let (connection, entered) = first.connect_resumable(Some("me")).await;
        let id = &connection.id;
        first.join(id, "g").await;
        assert!(first.park(id).await);
        let mut removals = JoinSet::new();
        for member in members.iter().cycle().take(8) {
            let (member, id) = (member.clone(), id.clone());
            removals.spawn(async move {
                let removed = member
                    .hub
                    .remove_parked(&id, End::unreported(Duration::from_secs(60)));
                removed.await.unwrap()
            });
        }
        let removed: Vec<_> = removals.join_all().await.into_iter().flatten().collect();
        assert_eq!(removed, std::slice::from_ref(&connection));
        assert_eq!(last.count(Members::Group(&group("g"))).await, 0);
        assert_eq!(last.count(Members::User(&user("me"))).await, 0);
        let outcome = last.take_over_of(id, entered.version).await;
        assert!(matches!(outcome, TakeOver::Gone), "{outcome:?}");
        let claim = last.hub.claim(&connection).await.unwrap();
        assert_eq!(claim, Claim::Closed);
    }
    assert_eq!(last.connection_statistics().await, (1, 0, 0));
    assert!(witnesses.iter().all(|witness| witness.orphans().is_empty()));
    assert!(last.hub.park(&owned.id, taken.version, None).await.unwrap());
}
