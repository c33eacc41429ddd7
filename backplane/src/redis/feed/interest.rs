//! The topics of a hub that this node needs, and those that it is subscribed to.
//!
//! Sets of the pending work are kept beside the topics: a change costs the same however many topics there are.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};

use tokio::sync::oneshot;

use crate::position::Offset;
use crate::topic::{GroupName, Topic};

/// The subject of one channel that a node subscribes to.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(in crate::redis) enum Subject {
    /// Entries for single connections of this node.
    Lane,
    /// The entries of a topic that several nodes may be interested in.
    Topic(Topic),
}

/// One hub's interest on this node.
#[derive(Default)]
pub(in crate::redis) struct Interests {
    all: HashMap<Subject, Interest>,
    /// Subjects that have to be subscribed to.
    wanted: HashSet<Subject>,
    /// Subjects that no connection or call is interested in.
    unused: HashSet<Subject>,
}

#[derive(Default)]
struct Interest {
    /// Number of connections that receive the topic, and of calls that are about to make one receive it.
    count: usize,
    state: Subscription,
    /// Number of sweeps in a row that found no interest.
    idle: u32,
    /// The newest offset of the topic that was delivered; `None` until a first local connection joined.
    seen: Option<Offset>,
    /// A connection became a member while there was no subscription: missed entries must be read from the log.
    read_log: bool,
    waiting: Vec<oneshot::Sender<()>>,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Subscription {
    #[default]
    Wanted,
    Active,
    /// The end of the subscription is on its way to the server.
    Leaving,
}

impl Interests {
    fn count(&mut self, subject: Subject) -> &mut Interest {
        let interest = match self.all.entry(subject) {
            Entry::Vacant(new) => {
                self.wanted.insert(new.key().clone());
                new.insert(Interest::default())
            }
            Entry::Occupied(known) => {
                if known.get().count == 0 {
                    self.unused.remove(known.key());
                }
                known.into_mut()
            }
        };
        interest.count += 1;
        interest
    }

    /// The newest offset of a topic that was delivered, and how many connections receive the topic or are about to.
    pub(in crate::redis) fn seen(&self, topic: &Topic) -> Option<(Offset, usize)> {
        let interest = self.all.get(&Subject::Topic(topic.clone()))?;
        interest.seen.map(|seen| (seen, interest.count))
    }

    /// As [`seen`](Self::seen), mutable; `None` where no connection receives the topic.
    pub(in crate::redis) fn seen_mut(&mut self, topic: &Topic) -> Option<&mut Offset> {
        self.all.get_mut(&Subject::Topic(topic.clone()))?.seen.as_mut()
    }

    /// The same name, in the memory that the topic has it in: the many members of a group share it.
    pub(in crate::redis) fn shared_name(&self, group: &GroupName) -> GroupName {
        let subject = Subject::Topic(Topic::Group(group.clone()));
        match self.all.get_key_value(&subject) {
            Some((Subject::Topic(Topic::Group(known)), _)) => known.clone(),
            _ => group.clone(),
        }
    }

    /// Counts a connection that receives the topic after `offset`. Returns whether the subscription is missing.
    pub(in crate::redis) fn receive(&mut self, topic: &Topic, offset: Offset) -> bool {
        let interest = self.count(Subject::Topic(topic.clone()));
        interest.seen.get_or_insert(offset);
        let missing = interest.state != Subscription::Active;
        interest.read_log |= missing;
        missing
    }

    /// Topics that several nodes may be interested in.
    pub(in crate::redis) fn topics(&self) -> impl Iterator<Item = Topic> {
        self.all.keys().filter_map(|subject| match subject {
            Subject::Topic(topic) => Some(topic.clone()),
            Subject::Lane => None,
        })
    }

    /// Sets all topics to seen up to the start of an epoch.
    pub(in crate::redis) fn restart(&mut self, start: Offset) {
        let seen = self
            .all
            .values_mut()
            .filter_map(|interest| interest.seen.as_mut());
        seen.for_each(|seen| *seen = start);
    }

    /// Counts one more interest. Returns a receiver that resolves when the subscription is active, if it is not.
    pub(in crate::redis) fn gain(&mut self, subject: Subject) -> Option<oneshot::Receiver<()>> {
        let interest = self.count(subject);
        if interest.state == Subscription::Active {
            return None;
        }
        let (active, wait) = oneshot::channel();
        interest.waiting.retain(|waiting| !waiting.is_closed());
        interest.waiting.push(active);
        Some(wait)
    }

    /// Counts one interest less.
    pub(in crate::redis) fn lose(&mut self, subject: &Subject) {
        if let Some(interest) = self.all.get_mut(subject) {
            interest.count = interest.count.saturating_sub(1);
            if interest.count == 0 {
                self.unused.insert(subject.clone());
            }
        }
    }

    /// Resets all subscriptions after the connection was lost. Subjects without interest are forgotten.
    pub(in crate::redis) fn unsubscribed(&mut self) {
        self.all.retain(|_, interest| {
            interest.state = Subscription::Wanted;
            interest.count > 0
        });
        self.unused.clear();
        self.wanted = self.all.keys().cloned().collect();
    }

    /// Subjects that have to be subscribed to.
    pub(in crate::redis) fn wanted(&self) -> Vec<Subject> {
        self.wanted.iter().cloned().collect()
    }

    /// Records that subscriptions are active. Returns whether missed entries must be read from the log.
    pub(in crate::redis) fn subscribed(&mut self, subjects: &[Subject]) -> bool {
        let mut read_log = false;
        for subject in subjects {
            self.wanted.remove(subject);
            let Some(interest) = self.all.get_mut(subject) else {
                continue;
            };
            interest.state = Subscription::Active;
            interest.idle = 0;
            read_log |= std::mem::take(&mut interest.read_log);
            for waiting in interest.waiting.drain(..) {
                let _ = waiting.send(()); // the caller may have stopped waiting
            }
        }
        read_log
    }

    /// Subjects without interest for more than one sweep; their subscriptions count as ending from now on.
    pub(in crate::redis) fn leave_idle(&mut self) -> Vec<Subject> {
        let mut leaving = Vec::new();
        for subject in &self.unused {
            let Some(interest) = self.all.get_mut(subject) else {
                continue;
            };
            interest.idle += 1;
            if interest.idle > 1 && interest.state == Subscription::Active {
                interest.state = Subscription::Leaving;
                leaving.push(subject.clone());
            }
        }
        leaving
    }

    /// Records that subscriptions ended. Returns whether there is new interest in one of them.
    pub(in crate::redis) fn left_idle(&mut self, subjects: &[Subject]) -> bool {
        let mut again = false;
        for subject in subjects {
            let Some(interest) = self.all.get_mut(subject) else {
                continue;
            };
            if interest.count == 0 {
                self.all.remove(subject);
                self.unused.remove(subject);
                continue;
            }
            // The log must be read only for connections that became members while there was no subscription.
            interest.state = Subscription::Wanted;
            interest.idle = 0;
            if !interest.read_log {
                interest.seen = None;
            }
            self.wanted.insert(subject.clone());
            again = true;
        }
        again
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topic() -> Subject {
        Subject::Topic(Topic::All)
    }

    #[test]
    fn a_subject_is_subscribed_to_while_somebody_needs_it() {
        let mut interests = Interests::default();
        let wait = interests.gain(topic());
        assert!(wait.is_some());
        assert_eq!(interests.wanted(), [topic()]);
        assert!(!interests.subscribed(&[topic()]));
        assert_eq!(interests.wanted(), []);
        assert!(interests.gain(topic()).is_none(), "it is active");
        interests.lose(&topic());
        assert_eq!((interests.leave_idle(), interests.leave_idle()), (vec![], vec![]));
        interests.lose(&topic());
        assert_eq!(interests.leave_idle(), []);
        assert_eq!(interests.leave_idle(), [topic()]);
        assert!(!interests.left_idle(&[topic()]));
        assert!(interests.all.is_empty() && interests.unused.is_empty());
    }

    #[test]
    fn who_comes_while_a_subscription_ends_is_subscribed_anew_and_reads_the_log() {
        let mut interests = Interests::default();
        interests.gain(topic());
        interests.subscribed(&[topic()]);
        interests.lose(&topic());
        interests.leave_idle();
        assert_eq!(interests.leave_idle(), [topic()]);
        assert!(interests.receive(&Topic::All, 7), "there is no subscription");
        assert!(interests.left_idle(&[topic()]));
        assert_eq!(interests.wanted(), [topic()]);
        assert_eq!(interests.seen(&Topic::All), Some((7, 1)));
        assert!(interests.subscribed(&[topic()]), "the log has what was missed");
    }

    #[test]
    fn after_a_lost_connection_everything_that_is_needed_is_wanted() {
        let mut interests = Interests::default();
        interests.gain(topic());
        interests.gain(Subject::Lane);
        interests.subscribed(&[topic(), Subject::Lane]);
        interests.lose(&topic());
        interests.unsubscribed();
        assert_eq!(interests.wanted(), [Subject::Lane]);
        assert_eq!(interests.topics().count(), 0);
    }
}
