//! The topics that a connection had in each part of the log, derived from the entries of its changes.

use std::collections::HashMap;

use crate::backplane::ConnectionRecord;
use crate::position::{Offset, Position};
use crate::topic::{GroupName, Topic};

/// A change of a connection's topics, as an entry of its own topic records it.
#[derive(Clone, Debug)]
pub(crate) struct Past {
    pub(crate) offset: Offset,
    pub(crate) topics: Vec<Topic>,
    pub(crate) joined: bool,
}

/// The messages that a connection was to receive between two positions, read page by page; this is the cursor.
pub struct Replay {
    pub(crate) connection: ConnectionRecord,
    /// The connection's groups at `upto`.
    groups: Vec<GroupName>,
    /// The position that the replay has reached.
    pub(crate) after: Position,
    pub(crate) upto: Offset,
    /// `None` before the first page.
    pub(crate) memberships: Option<Memberships>,
}

impl Replay {
    /// A replay of the messages after `after` and up to `upto` for a connection that is in these groups at `upto`.
    #[must_use]
    pub fn new(connection: ConnectionRecord, groups: Vec<GroupName>, after: Position, upto: Offset) -> Self {
        Self {
            connection,
            groups,
            after,
            upto,
            memberships: None,
        }
    }

    /// Adds the changes of the connection's groups, in order.
    pub(crate) fn learn(&mut self, changes: &[Past]) {
        let (after, upto) = (self.after.offset, self.upto);
        let memberships = Memberships::new(&self.connection, &self.groups, changes, after, upto);
        self.memberships = Some(memberships);
    }

    /// The groups that the connection was in at an offset of the replay, without reserved ones.
    pub fn groups_at(&self, offset: Offset) -> impl Iterator<Item = &GroupName> {
        let memberships = self.memberships.iter();
        let topics = memberships.flat_map(move |memberships| memberships.at(offset));
        topics.filter_map(|topic| match topic {
            Topic::Group(group) if !group.is_reserved() => Some(group),
            _ => None,
        })
    }

    /// All topics that the connection may have received, each with the offset after which it counts.
    pub(crate) fn topics(&self) -> Vec<(Topic, Offset)> {
        let own = (Topic::Connection(self.connection.id.clone()), 0);
        let shared = self.memberships.as_ref().map(Memberships::shared_topics);
        std::iter::once(own).chain(shared.unwrap_or_default()).collect()
    }

    /// Returns whether the connection received a topic's entry of this offset.
    pub(crate) fn has_received(&self, topic: &Topic, offset: Offset) -> bool {
        let hold = |memberships: &Memberships| memberships.hold(topic, offset);
        matches!(topic, Topic::Connection(_)) || self.memberships.as_ref().is_some_and(hold)
    }
}

/// The topics of one connection between two offsets of the log.
pub(crate) struct Memberships {
    /// For each topic, the spans in which it was received, in order: after the first offset and before the second.
    spans: HashMap<Topic, Vec<(Offset, Offset)>>,
}

impl Memberships {
    /// `changes`: all real changes between `after` and `upto`, in order. `groups`: the connection's groups at `upto`.
    pub(crate) fn new(
        connection: &ConnectionRecord,
        groups: &[GroupName],
        changes: &[Past],
        after: Offset,
        upto: Offset,
    ) -> Self {
        let end = upto.saturating_add(1);
        let mut spans: HashMap<Topic, Vec<(Offset, Offset)>> = HashMap::new();
        let always = std::iter::once(Topic::All).chain(connection.user.clone().map(Topic::User));
        for topic in always {
            spans.insert(topic, vec![(after, end)]);
        }
        for change in changes {
            let of_group = |topic: &&Topic| matches!(topic, Topic::Group(_));
            for topic in change.topics.iter().filter(of_group) {
                let spans = spans.entry(topic.clone()).or_default();
                if change.joined {
                    spans.push((change.offset, end));
                } else if let Some(last) = spans.last_mut() {
                    last.1 = change.offset;
                } else {
                    spans.push((after, change.offset)); // it was a member before
                }
            }
        }
        for group in groups {
            let topic = Topic::Group(group.clone());
            spans.entry(topic).or_insert_with(|| vec![(after, end)]); // nothing changed
        }
        Self { spans }
    }

    /// The topics that are not the connection's own, each with the offset after which it counts.
    pub(crate) fn shared_topics(&self) -> Vec<(Topic, Offset)> {
        let begin =
            |(topic, spans): (&Topic, &Vec<(Offset, Offset)>)| Some((topic.clone(), spans.first()?.0));
        self.spans.iter().filter_map(begin).collect()
    }

    /// Returns whether the connection received a topic's entry of this offset.
    pub(crate) fn hold(&self, topic: &Topic, offset: Offset) -> bool {
        self.spans.get(topic).is_some_and(|spans| cover(spans, offset))
    }

    /// The topics whose entries of this offset the connection received.
    fn at(&self, offset: Offset) -> impl Iterator<Item = &Topic> {
        let spans = self.spans.iter();
        spans.filter_map(move |(topic, spans)| cover(spans, offset).then_some(topic))
    }
}

fn cover(spans: &[(Offset, Offset)], offset: Offset) -> bool {
    let within = |(after, before): &(Offset, Offset)| *after < offset && offset < *before;
    spans.iter().any(within)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;
    use crate::topic::ConnectionId;

    fn group(index: usize) -> GroupName {
        GroupName::parse(format!("g{index}")).unwrap()
    }

    proptest! {
        /// A model: groups are joined and left at random; spans derived from the changes are compared with the true
        /// ones.
        #[test]
        fn the_past_follows_from_the_changes_and_the_present(
            before in proptest::collection::hash_set(0_usize..4, 0..4),
            steps in proptest::collection::vec((0_usize..4, any::<bool>(), any::<bool>()), 0..40),
        ) {
            let record = ConnectionRecord {
                id: ConnectionId::parse("c").unwrap(),
                user: None,
                state: None,
                event: crate::events::EventRecord::default(),
            };
            let (after, mut members, mut changes, mut expected) = (10, before.clone(), Vec::new(), Vec::new());
            for (index, (who, message, join)) in steps.iter().enumerate() {
                let offset = after + 1 + index as Offset;
                if *message {
                    expected.push((*who, offset, members.contains(who)));
                } else if if *join { members.insert(*who) } else { members.remove(who) } {
                    changes.push(Past { offset, topics: vec![Topic::Group(group(*who))], joined: *join });
                }
            }
            let upto = after + steps.len() as Offset;
            let now: Vec<_> = members.iter().map(|index| group(*index)).collect();
            let memberships = Memberships::new(&record, &now, &changes, after, upto);
            for (who, offset, received) in expected {
                let topic = Topic::Group(group(who));
                prop_assert_eq!(memberships.hold(&topic, offset), received, "{} {}", who, offset);
                prop_assert_eq!(memberships.at(offset).any(|held| *held == topic), received, "{} {}", who, offset);
            }
            let topics: HashSet<_> = memberships.shared_topics().into_iter().map(|(topic, _)| topic).collect();
            for who in before {
                prop_assert!(topics.contains(&Topic::Group(group(who))));
            }
        }
    }
}
