//! Finds messages that a former master acknowledged while another one had replaced it already.
//!
//! A node that still has connections to the former master does not know of the failover. Other nodes have begun the new
//! master's epoch, and reported its gap to their clients, before such a message was published: they can't see that it
//! is missing.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::topic::Topic;

/// Time for which acknowledged messages are remembered: a node does not overlook a failover for longer.
const LIFE: Duration = Duration::from_secs(60);
/// Most topics that are remembered one by one. Beyond that, all connections get the gap, through [`Topic::All`].
const MOST: usize = 1_000;

/// Topics of messages that the server has acknowledged in one epoch, with the time of the last one.
#[derive(Default)]
pub(in crate::redis) struct Acknowledged {
    /// The log's epoch in the last answer; empty before the first.
    pub(in crate::redis) epoch: String,
    topics: HashMap<String, Instant>,
}

impl Acknowledged {
    /// Records that a message of this topic was acknowledged now.
    pub(in crate::redis) fn note(&mut self, topic: &str) {
        let now = Instant::now();
        if let Some(last) = self.topics.get_mut(topic) {
            *last = now;
            return;
        }
        if self.topics.len() >= MOST {
            self.topics.retain(|_, last| last.elapsed() < LIFE);
        }
        let topic = if self.topics.len() < MOST {
            topic.to_owned()
        } else {
            Topic::All.key()
        };
        self.topics.insert(topic, now);
    }

    /// Records the epoch of an answer, which has lasted for `age` at most. Where the epoch has changed, returns the
    /// topics of messages that were acknowledged in the former epoch after this one had begun.
    pub(in crate::redis) fn enter(&mut self, epoch: &str, age: Duration) -> Vec<Topic> {
        if self.epoch == epoch {
            return Vec::new();
        }
        let before = std::mem::replace(&mut self.epoch, epoch.to_owned());
        let topics = std::mem::take(&mut self.topics);
        if before.is_empty() {
            return Vec::new();
        }
        let after_begin = |last: &Instant| last.elapsed() < age;
        topics
            .into_iter()
            .filter(|(_, last)| after_begin(last))
            .filter_map(|(topic, _)| Topic::from_key(&topic))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn pass(seconds: u64) {
        tokio::time::advance(Duration::from_secs(seconds)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_acknowledged_after_the_new_epoch_began_is_told() {
        let mut acknowledged = Acknowledged::default();
        assert_eq!(acknowledged.enter("a", Duration::ZERO), []);
        acknowledged.note("u:before");
        pass(10).await;
        acknowledged.note("a");
        pass(3).await;
        assert_eq!(acknowledged.enter("b", Duration::from_secs(6)), [Topic::All]);
        assert_eq!(acknowledged.enter("b", Duration::from_secs(7)), []);
    }

    #[tokio::test(start_paused = true)]
    async fn an_epoch_that_begins_now_hides_nothing() {
        let mut acknowledged = Acknowledged::default();
        acknowledged.enter("a", Duration::ZERO);
        acknowledged.note("a");
        pass(1).await;
        assert_eq!(acknowledged.enter("b", Duration::from_millis(5)), []);
    }

    #[tokio::test(start_paused = true)]
    async fn of_too_many_topics_everybody_is_told() {
        let mut acknowledged = Acknowledged::default();
        acknowledged.enter("a", Duration::ZERO);
        for number in 0..2 * MOST {
            acknowledged.note(&format!("u:{number}"));
        }
        let reported = acknowledged.enter("b", Duration::from_secs(5));
        assert!(
            reported.contains(&Topic::All) && reported.len() <= MOST + 1,
            "{}",
            reported.len()
        );
    }
}
