//! What nodes were given, what was published to them, and how the two must agree.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hubcast_backplane::{ConnectionId, Delivery, Epoch, Gap, HubSink, Message, Offset, Position, Topic};
use parking_lot::Mutex;

/// Orders what happens: a later event has a higher number.
#[derive(Clone, Default)]
pub(crate) struct Clock(Arc<AtomicU64>);

impl Clock {
    pub(crate) fn now(&self) -> u64 {
        self.0.fetch_add(1, Ordering::AcqRel)
    }
}

/// What one node's hub was given, and when.
#[derive(Default)]
pub(crate) struct Record {
    clock: Clock,
    deliveries: Mutex<Vec<(u64, Delivery)>>,
}

impl HubSink for Record {
    fn deliver(&self, deliveries: &[Delivery]) {
        let at = self.clock.now();
        let given = deliveries.iter().map(|delivery| (at, delivery.clone()));
        self.deliveries.lock().extend(given);
    }
}

/// A message that was acknowledged.
#[derive(Debug)]
pub(crate) struct Sent {
    /// The node that published it.
    pub(crate) by: usize,
    pub(crate) topic: Topic,
    pub(crate) target: String,
    /// Before it was published, and after it was acknowledged.
    pub(crate) begun: u64,
    pub(crate) acked: u64,
    /// The epoch that it lies in, where none began at its node meanwhile.
    pub(crate) epoch: Option<Epoch>,
}

/// For how long, at least, a connection received a topic at a node.
pub(crate) struct Due<'a> {
    pub(crate) connection: &'a ConnectionId,
    pub(crate) topic: Topic,
    pub(crate) since: u64,
    pub(crate) until: u64,
}

/// When a connection was a node's, until its client left and until another one had taken it over.
pub(crate) struct Owned {
    pub(crate) since: u64,
    pub(crate) until: u64,
    pub(crate) taken: u64,
}

/// A message as a node's hub was given it.
struct Given<'a> {
    index: usize,
    epoch: Epoch,
    offset: Offset,
    target: &'a str,
}

impl Record {
    pub(crate) fn new(clock: &Clock) -> Self {
        Self {
            clock: clock.clone(),
            deliveries: Mutex::default(),
        }
    }

    pub(crate) fn deliveries(&self) -> Vec<(u64, Delivery)> {
        self.deliveries.lock().clone()
    }

    /// The place of who got everything so far, where `first` is the epoch in which the node came; nothing where an epoch has just
    /// begun.
    pub(crate) fn place(&self, first: &Epoch) -> Option<Position> {
        let (mut epoch, mut place) = (first, None);
        let deliveries = self.deliveries.lock();
        for (_, delivery) in deliveries.iter() {
            match delivery {
                Delivery::Gap(Gap::NewEpoch(new)) => (epoch, place) = (new, None),
                Delivery::Message(Message { offset, .. }) | Delivery::Joined { offset, .. } => {
                    place = Some(*offset);
                }
                _ => {}
            }
        }
        place.map(|offset| Position {
            epoch: epoch.clone(),
            offset,
        })
    }

    pub(crate) fn has(&self, target: &str) -> bool {
        let is_it = |delivery: &Delivery| matches!(delivery, Delivery::Message(message) if message.envelope.target == target);
        self.deliveries.lock().iter().any(|(_, delivery)| is_it(delivery))
    }
}

/// Checks all that one node was given: since `first`, the epoch in which it came.
pub(crate) struct Check<'a> {
    pub(crate) name: String,
    pub(crate) first: Epoch,
    pub(crate) deliveries: &'a [(u64, Delivery)],
    pub(crate) sent: &'a [Sent],
}

impl Check<'_> {
    fn messages(&self) -> Vec<Given<'_>> {
        let (mut epoch, mut messages) = (self.first.clone(), Vec::new());
        for (index, (_, delivery)) in self.deliveries.iter().enumerate() {
            match delivery {
                Delivery::Gap(Gap::NewEpoch(new)) => epoch = new.clone(),
                Delivery::Message(message) => messages.push(Given {
                    index,
                    epoch: epoch.clone(),
                    offset: message.offset,
                    target: &message.envelope.target,
                }),
                _ => {}
            }
        }
        messages
    }

    /// The epoch that the node was in.
    pub(crate) fn epoch_at(&self, time: u64) -> Option<Epoch> {
        let before = self.deliveries.iter().take_while(|(at, _)| *at < time);
        let begun = before.filter_map(|(_, delivery)| match delivery {
            Delivery::Gap(Gap::NewEpoch(epoch)) => Some(epoch),
            _ => None,
        });
        begun.last().or(Some(&self.first)).cloned()
    }

    /// Within an epoch everything comes in the log's order, once; and each message after the news of its epoch.
    pub(crate) fn order(&self) {
        let of: HashMap<_, _> = self
            .sent
            .iter()
            .map(|sent| (sent.target.as_str(), sent))
            .collect();
        let (mut last, mut given) = (BTreeMap::new(), HashSet::new());
        for message in self.messages() {
            let (name, target) = (&self.name, message.target);
            let before = last.insert(message.epoch.as_str().to_owned(), message.offset);
            assert!(
                before < Some(message.offset),
                "{name} got {target} at {}, after {before:?}",
                message.offset
            );
            assert!(
                given.insert((message.epoch.clone(), target)),
                "{name} got {target} twice in one epoch"
            );
            if let Some(epoch) = of.get(target).and_then(|sent| sent.epoch.as_ref()) {
                assert_eq!(
                    message.epoch, *epoch,
                    "{name} got {target} in another epoch than it was published in"
                );
            }
        }
        self.publishers();
    }

    /// What one node published one after the other comes in that order.
    fn publishers(&self) {
        let of: HashMap<_, _> = self
            .sent
            .iter()
            .map(|sent| (sent.target.as_str(), sent))
            .collect();
        let mut newest: HashMap<(usize, Epoch), &Sent> = HashMap::new();
        for message in self.messages() {
            let Some(sent) = of.get(message.target).filter(|sent| sent.epoch.is_some()) else {
                continue;
            };
            let before = newest.entry((sent.by, message.epoch)).or_insert(sent);
            assert!(
                before.begun < sent.acked,
                "{} got {} after {}",
                self.name,
                sent.target,
                before.target
            );
            if sent.begun > before.begun {
                *before = sent;
            }
        }
    }

    /// The messages of a topic that a connection did not get from this node, and should have.
    pub(crate) fn missing(&self, due: &Due<'_>) -> Vec<&Sent> {
        let got = self.of_connection(due.connection);
        let is_due =
            |sent: &&Sent| sent.topic == due.topic && sent.begun > due.since && sent.acked < due.until;
        let due = self.sent.iter().filter(is_due);
        due.filter(|sent| !got.contains(sent.target.as_str())).collect()
    }

    /// Whether this node was told that a message may be lost, while it owned a connection or until another one took that over: who
    /// does so replays what came then. It was told before it was given anything that the message's publisher published later.
    pub(crate) fn was_told(&self, lost: &Sent, connection: &ConnectionId, owned: &Owned) -> bool {
        let tells = |delivery: &Delivery| match delivery {
            Delivery::Gap(Gap::NewEpoch(_)) => true,
            Delivery::Gap(Gap::Trimmed(topic)) => *topic == lost.topic,
            _ => false,
        };
        let &Owned { since, until, taken } = owned;
        // The lane comes to a take-over sooner than who takes over, and later than who took over.
        let begins = |(at, delivery): &(u64, Delivery)| {
            *at < since
                && matches!(delivery, Delivery::Joined { connection: who, topics, .. } if who == connection && topics.contains(&Topic::All))
        };
        let ends = |(at, delivery): &(u64, Delivery)| {
            *at > since && matches!(delivery, Delivery::Taken { connection: who, .. } if who == connection)
        };
        let is_over = |(at, _): &(u64, Delivery)| *at >= taken;
        let begin = self.deliveries.iter().rposition(begins).unwrap_or(0);
        let end = self.deliveries.iter().position(ends);
        let end = end.or_else(|| self.deliveries.iter().position(is_over));
        let deliveries = &self.deliveries[..end.unwrap_or(self.deliveries.len())];
        let since = since.max(lost.begun);
        let mut told = deliveries.iter().enumerate().skip(begin);
        let told = told.find(|(_, (at, delivery))| *at >= lost.begun && tells(delivery));
        let before = told.map_or(self.deliveries.len(), |(index, _)| index);
        let later = self.sent.iter();
        let later = later.filter(|sent| sent.by == lost.by && sent.begun > lost.acked);
        let later: HashSet<_> = later.map(|sent| sent.target.as_str()).collect();
        for message in self.messages() {
            let at = self.deliveries[message.index].0;
            assert!(
                !(since..until).contains(&at) || message.index > before || !later.contains(message.target),
                "{} was not told of the lost {lost:?} before it got {}",
                self.name,
                message.target
            );
        }
        told.is_some()
    }

    /// The targets that a session of the connection was given.
    fn of_connection(&self, connection: &ConnectionId) -> HashSet<&str> {
        let own = Topic::Connection(connection.clone());
        let (mut topics, mut got) = (HashSet::new(), HashSet::new());
        for (_, delivery) in self.deliveries {
            match delivery {
                Delivery::Joined {
                    connection: who,
                    topics: joined,
                    ..
                } if who == connection => {
                    if joined.contains(&own) {
                        topics.clear(); // an ownership begins here
                    }
                    topics.extend(joined.iter());
                }
                Delivery::Taken { connection: who, .. } if who == connection => topics.clear(),
                Delivery::Left {
                    connection: who,
                    topics: left,
                    ..
                } if who == connection => {
                    topics.retain(|topic| !left.contains(topic));
                }
                Delivery::Message(message) if topics.contains(&message.topic) => {
                    got.insert(message.envelope.target.as_str());
                }
                _ => {}
            }
        }
        got
    }
}
