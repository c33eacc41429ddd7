//! Which topics of a hub this node needs, and which of them it is subscribed to.
//!
//! Sets of what has to be done are kept beside the topics: a change costs the same however many topics there are.

use std::collections::{HashMap, HashSet};

use tokio::sync::oneshot;

use crate::position::Offset;
use crate::topic::Topic;

/// A thing that is subscribed to, on one channel.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) enum Subject {
    /// Entries for single connections of this node.
    Lane,
    /// A topic that several nodes may be interested in.
    Topic(Topic),
}

/// One hub's interest on this node.
#[derive(Default)]
pub(super) struct Interests {
    all: HashMap<Subject, Interest>,
    /// Subjects that have to be subscribed to.
    wanted: HashSet<Subject>,
    /// Subjects that nobody is interested in.
    unused: HashSet<Subject>,
}

#[derive(Default)]
struct Interest {
    /// Connections that receive the topic and calls that are about to make one receive it.
    count: usize,
    state: Subscription,
    /// Sweeps in a row that found nobody interested.
    idle: u32,
    /// The newest offset of the topic that was handed on; `None` until a first local connection joined.
    seen: Option<Offset>,
    /// A connection became a member while there was no subscription: the log has what was missed.
    read_log: bool,
    waiting: Vec<oneshot::Sender<()>>,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Subscription {
    #[default]
    Wanted,
    Active,
    /// The server is being told that nobody is interested any more.
    Leaving,
}

impl Interests {
    fn count(&mut self, subject: Subject) -> &mut Interest {
        self.unused.remove(&subject);
        if !self.all.contains_key(&subject) {
            self.wanted.insert(subject.clone());
        }
        let interest = self.all.entry(subject).or_default();
        interest.count += 1;
        interest
    }

    /// The newest offset of a topic that was handed on.
    pub(super) fn seen(&self, topic: &Topic) -> Option<Offset> {
        self.all.get(&Subject::Topic(topic.clone()))?.seen
    }

    /// The same, to be moved on; `None` where no connection receives the topic.
    pub(super) fn seen_mut(&mut self, topic: &Topic) -> Option<&mut Offset> {
        self.all.get_mut(&Subject::Topic(topic.clone()))?.seen.as_mut()
    }

    /// A connection receives the topic from `offset` on. Returns whether the subscription is missing.
    pub(super) fn receive(&mut self, topic: &Topic, offset: Offset) -> bool {
        let interest = self.count(Subject::Topic(topic.clone()));
        interest.seen.get_or_insert(offset);
        let missing = interest.state != Subscription::Active;
        interest.read_log |= missing;
        missing
    }

    /// Topics that several nodes may be interested in.
    pub(super) fn topics(&self) -> impl Iterator<Item = Topic> {
        self.all.keys().filter_map(|subject| match subject {
            Subject::Topic(topic) => Some(topic.clone()),
            Subject::Lane => None,
        })
    }

    /// All topics count as seen up to the start of an epoch.
    pub(super) fn restart(&mut self, start: Offset) {
        let seen = self
            .all
            .values_mut()
            .filter_map(|interest| interest.seen.as_mut());
        seen.for_each(|seen| *seen = start);
    }

    /// Counts one more that is interested. Returns a wait for the subscription to be active, if it is not.
    pub(super) fn gain(&mut self, subject: Subject) -> Option<oneshot::Receiver<()>> {
        let interest = self.count(subject);
        if interest.state == Subscription::Active {
            return None;
        }
        let (active, wait) = oneshot::channel();
        interest.waiting.retain(|waiting| !waiting.is_closed());
        interest.waiting.push(active);
        Some(wait)
    }

    /// Counts one less.
    pub(super) fn lose(&mut self, subject: &Subject) {
        if let Some(interest) = self.all.get_mut(subject) {
            interest.count = interest.count.saturating_sub(1);
            if interest.count == 0 {
                self.unused.insert(subject.clone());
            }
        }
    }

    /// After a connection was lost: nothing is subscribed. Subjects that nobody needs are forgotten.
    pub(super) fn unsubscribed(&mut self) {
        self.all.retain(|_, interest| {
            interest.state = Subscription::Wanted;
            interest.count > 0
        });
        self.unused.clear();
        self.wanted = self.all.keys().cloned().collect();
    }

    /// Subjects that have to be subscribed to.
    pub(super) fn wanted(&self) -> Vec<Subject> {
        self.wanted.iter().cloned().collect()
    }

    /// Notes that subscriptions are active. Returns whether the log must be read for what was missed.
    pub(super) fn subscribed(&mut self, subjects: &[Subject]) -> bool {
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

    /// Subjects that nobody has been interested in for more than one sweep; they count as being left from now on.
    pub(super) fn leave_idle(&mut self) -> Vec<Subject> {
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

    /// Notes that subscriptions ended. Returns whether somebody became interested meanwhile.
    pub(super) fn left_idle(&mut self, subjects: &[Subject]) -> bool {
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
            // The log must be read only for those who became members while there was no subscription.
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
        assert_eq!(interests.seen(&Topic::All), Some(7));
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
