//! The record of deliveries and published messages, and the checks that the two agree.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hubcast_backplane::{ConnectionId, Delivery, Epoch, Gap, HubSink, Message, Offset, Position, Topic};
use parking_lot::Mutex;

/// Numbers events in their order: a later event has a higher number.
#[derive(Clone, Default)]
pub(crate) struct Clock(Arc<AtomicU64>);

impl Clock {
    pub(crate) fn now(&self) -> u64 {
        self.0.fetch_add(1, Ordering::AcqRel)
    }
}

/// The deliveries of one node's hub, with their times.
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
    /// The times before it was published and after it was acknowledged.
    pub(crate) begun: u64,
    pub(crate) acked: u64,
    /// The message's epoch, where no other one began at its node meanwhile.
    pub(crate) epoch: Option<Epoch>,
}

/// The shortest span in which a connection received a topic at a node.
pub(crate) struct Due<'a> {
    pub(crate) connection: &'a ConnectionId,
    pub(crate) topic: Topic,
    pub(crate) since: u64,
    pub(crate) until: u64,
}

/// The span in which a node owned a connection, until its client left and until another node had taken it over.
pub(crate) struct Owned {
    pub(crate) since: u64,
    pub(crate) until: u64,
    pub(crate) taken: u64,
}

/// A message as it was delivered to a node's hub.
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

    /// The position of a client that got all messages so far, where `first` is the epoch in which the node started;
    /// `None` where an epoch has just begun.
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

/// Checks all deliveries of one node since `first`, the epoch in which it started.
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

    /// Within an epoch all messages come in the log's order, once, and after the delivery that begins the epoch.
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

    /// Messages that one node published one after the other come in that order.
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

    /// The messages of a topic that a connection should have got from this node and did not.
    pub(crate) fn missing(&self, due: &Due<'_>) -> Vec<&Sent> {
        let got = self.of_connection(due.connection);
        let is_due =
            |sent: &&Sent| sent.topic == due.topic && sent.begun > due.since && sent.acked < due.until;
        let due = self.sent.iter().filter(is_due);
        due.filter(|sent| !got.contains(sent.target.as_str())).collect()
    }

    /// Returns whether this node got a gap for a lost message, while it owned a connection or until another node took
    /// that over and replayed later entries. The gap must come before any later message of the same publisher.
    pub(crate) fn was_told(&self, lost: &Sent, connection: &ConnectionId, owned: &Owned) -> bool {
        let tells = |delivery: &Delivery| match delivery {
            Delivery::Gap(Gap::NewEpoch(_)) => true,
            Delivery::Gap(Gap::Trimmed(topic)) => *topic == lost.topic,
            _ => false,
        };
        let &Owned { since, until, taken } = owned;
        // The new owner's lane reaches the take-over before its call returns, the former owner's lane perhaps later.
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
        let mut reported = deliveries.iter().enumerate().skip(begin);
        let reported = reported.find(|(_, (at, delivery))| *at >= lost.begun && tells(delivery));
        let before = reported.map_or(self.deliveries.len(), |(index, _)| index);
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
        reported.is_some()
    }

    /// The targets of messages that a session of the connection got.
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
