//! The checks once all nodes have come to one master.

use hubcast_backplane::conformance::{eventually, group};
use hubcast_backplane::{Members, Topic, UserId};

use super::record::{Check, Due, Owned};
use super::schedule::NODES;
use super::{Connection, Node, Split, persist};
use crate::schedule::{GROUPS, USERS};
use crate::world::name_of;

impl Split {
    /// Waits until the directory agrees with the owners, and every owner has got a last message of every node.
    pub(super) async fn settle(&mut self) {
        for number in 0..NODES {
            eventually("the directory has what the owners have", async || {
                self.directory_is_right(&self.nodes[number]).await
            })
            .await;
        }
        let owners: Vec<_> = self
            .living()
            .map(|connection| connection.present().node)
            .collect();
        self.hear_of_every_node(&owners).await;
    }

    /// Waits until these nodes have got a message that each node publishes now. The losses that a node has to report come
    /// before its next message.
    pub(super) async fn hear_of_every_node(&mut self, owners: &[usize]) {
        let name = self.name("end");
        for (number, node) in self.nodes.iter().enumerate() {
            let publisher = node.publisher(number, &self.clock);
            let sent = publisher
                .publish(&Topic::All, &format!("{name}-{number}"))
                .await
                .unwrap();
            for owner in owners {
                let record = &self.nodes[*owner].record;
                eventually("the end comes", async || record.has(&sent.target).then_some(())).await;
            }
            self.sent.push(sent);
        }
    }

    fn living(&self) -> impl Iterator<Item = &Connection> {
        self.connections.iter().filter(|connection| !connection.ended)
    }

    /// `None` where a node sees another state in the directory, or can't look.
    async fn directory_is_right(&self, seen_by: &Node) -> Option<()> {
        let hub = &seen_by.hub;
        for connection in &self.connections {
            let listing = hub.look_up(&connection.id).await.ok()?;
            if connection.ended {
                listing.is_none().then_some(())?;
                continue;
            }
            let (owner, listing) = (connection.present(), listing?);
            (listing.owner.as_ref() == Some(self.nodes[owner.node].node.node())).then_some(())?;
            let groups = (0..GROUPS).filter(|number| owner.is_member(*number));
            let groups: Vec<_> = groups.map(|number| group(&name_of(number))).collect();
            (hub.groups(&connection.id).await.ok()? == groups).then_some(())?;
        }
        for number in 0..GROUPS {
            let is_in = |connection: &Connection| connection.present().is_member(number);
            self.are_listed(seen_by, Members::Group(&group(&name_of(number))), is_in)
                .await?;
        }
        for number in 0..USERS {
            let user = UserId::parse(format!("u{number}")).unwrap();
            self.are_listed(seen_by, Members::User(&user), |connection| {
                connection.user == number
            })
            .await?;
        }
        let statistics = hub.connection_statistics().await.ok()?;
        let owned: u64 = statistics.nodes.iter().map(|(_, count)| count).sum();
        (owned == self.living().count() as u64 && statistics.parked == 0).then_some(())
    }

    async fn are_listed(
        &self,
        seen_by: &Node,
        of: Members<'_>,
        is_one: impl Fn(&Connection) -> bool,
    ) -> Option<()> {
        let ones = self.living().filter(|connection| is_one(connection));
        let mut expected: Vec<_> = ones.map(|connection| connection.id.clone()).collect();
        expected.sort();
        let page = seen_by.hub.page(of, None, 100).await.ok()?;
        (page == expected).then_some(())
    }

    pub(super) async fn check(&self) {
        let given: Vec<_> = self.nodes.iter().map(|node| node.record.deliveries()).collect();
        let checks: Vec<_> = self
            .nodes
            .iter()
            .zip(&given)
            .map(|(node, deliveries)| Check {
                name: node.node.node().to_string(),
                first: node.first.clone(),
                deliveries,
                sent: &self.sent,
            })
            .collect();
        checks.iter().for_each(Check::order);
        for connection in &self.connections {
            self.check_messages(connection, &checks);
            self.check_owners(connection).await;
        }
        let reported = self.reported.lock();
        let ended = self.connections.iter().filter(|connection| connection.ended);
        let mut ended: Vec<_> = ended.map(|connection| connection.id.to_string()).collect();
        ended.sort();
        assert!(
            reported.keys().eq(&ended) && reported.values().all(|reported| reported == &["end"]),
            "{reported:?} {ended:?}"
        );
    }

    /// Each owner got the messages due to it, or a gap was reported to it or to the owner by then.
    fn check_messages(&self, connection: &Connection, checks: &[Check<'_>]) {
        let user = UserId::parse(format!("u{}", connection.user)).unwrap();
        let own = [
            Topic::All,
            Topic::User(user),
            Topic::Connection(connection.id.clone()),
        ];
        for (number, owner) in connection.ownerships.iter().enumerate() {
            let own = own.iter().map(|topic| (topic.clone(), owner.since, owner.until));
            let groups = owner
                .memberships
                .iter()
                .enumerate()
                .flat_map(|(number, memberships)| {
                    let topic = Topic::Group(group(&name_of(number)));
                    memberships
                        .iter()
                        .map(move |(since, until)| (topic.clone(), *since, *until))
                });
            for (topic, since, until) in own.chain(groups) {
                let due = Due {
                    connection: &connection.id,
                    topic,
                    since,
                    until: until.min(owner.until),
                };
                let stays = |topic: &Topic| match topic {
                    Topic::Group(name) => {
                        let is_in = |number| {
                            group(&name_of(number)) == *name && connection.present().is_member(number)
                        };
                        (0..GROUPS).any(is_in)
                    }
                    _ => true,
                };
                let left = until < owner.until || !stays(&due.topic);
                for lost in checks[owner.node].missing(&due) {
                    // The loss of a message that only another server took is reported to those who receive its topic by
                    // then.
                    if left && checks[owner.node].epoch_at(lost.begun) != lost.epoch {
                        continue;
                    }
                    let owners = connection.ownerships[number..].iter();
                    let owners: Vec<_> = owners.filter(|owner| owner.until > owner.since).collect();
                    let reported = owners.iter().enumerate().any(|(number, owner)| {
                        let taken = owners.get(number + 1).map_or(u64::MAX, |next| next.since);
                        let owned = Owned {
                            since: owner.since,
                            until: owner.until,
                            taken,
                        };
                        let replayed = owner.replayed.as_ref();
                        number > 0 && replayed.is_none_or(|replayed| replayed.contains(&lost.target))
                            || checks[owner.node].was_told(lost, &connection.id, &owned)
                    });
                    assert!(reported, "{} lost {lost:?}, and nobody was told", connection.id);
                }
            }
        }
    }

    /// Only the present owner can act for the connection: calls of other nodes are refused.
    async fn check_owners(&self, connection: &Connection) {
        let present = connection.present();
        for owner in &connection.ownerships {
            let Node { node, hub, .. } = &self.nodes[owner.node];
            let note = async || hub.record(&connection.id, owner.version, 1, None).await;
            let is_owner = persist("it is noted", note).await;
            assert_eq!(
                is_owner,
                owner.version == present.version && !connection.ended,
                "{} owns {}",
                node.node(),
                connection.id
            );
        }
    }
}
