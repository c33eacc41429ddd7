//! The entries of one hub, kept per topic.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use prost::Message as _;
use tokio::time::Instant;

use crate::backplane::{AWAITED_PER_SECOND, HubOptions, Message};
use crate::history::HistoryPage;
use crate::position::Offset;
use crate::proof::is_complete;
use crate::topic::Topic;
use crate::wire::Envelope;

/// A hub's offset counter and its entries.
pub(super) struct Log {
    options: HubOptions,
    last: Offset,
    topics: HashMap<Topic, Ring>,
    /// All entries that are kept, oldest first, and some that were dropped from their topic since.
    order: VecDeque<Kept>,
    /// Bytes of all entries that are kept.
    bytes: u64,
    /// No topic that was dropped from `topics` had an entry above this.
    forgotten: Offset,
    awaited: Awaited,
}

/// Number of topics whose last member left within this second.
#[derive(Default)]
struct Awaited {
    second: Option<Instant>,
    count: u32,
}

impl Awaited {
    fn may_add(&mut self, now: Instant) -> bool {
        let new = |since: Instant| now.saturating_duration_since(since) >= Duration::from_secs(1);
        if self.second.is_none_or(new) {
            (self.second, self.count) = (Some(now), 0);
        }
        self.count = self.count.saturating_add(1);
        self.count <= AWAITED_PER_SECOND
    }
}

/// An entry in the order of the whole log.
struct Kept {
    topic: Topic,
    offset: Offset,
    since: Instant,
}

struct Ring {
    entries: VecDeque<StoredEntry>,
    /// Bytes of the topic's entries.
    bytes: u64,
    tail: Offset,
    touched: Instant,
    /// The topic has no receiver that could come back: only its tail is kept, no entries.
    passed_by: bool,
}

struct StoredEntry {
    offset: Offset,
    previous: Offset,
    bytes: u64,
    /// `None` for a change of membership.
    envelope: Option<Arc<Envelope>>,
}

/// Bytes that an entry takes beside its message.
const ENTRY_BYTES: u64 = 128;

impl Log {
    pub(super) fn new(options: HubOptions) -> Self {
        Self {
            options,
            last: 0,
            topics: HashMap::new(),
            order: VecDeque::new(),
            bytes: 0,
            forgotten: 0,
            awaited: Awaited::default(),
        }
    }

    pub(super) fn last(&self) -> Offset {
        self.last
    }

    /// The offset that is given out next.
    pub(super) fn next(&self) -> Offset {
        self.last + 1
    }

    pub(super) fn append(&mut self, topic: &Topic, envelope: Option<Arc<Envelope>>) -> Offset {
        self.last += 1;
        let now = Instant::now();
        let bytes = envelope
            .as_ref()
            .map_or(0, |envelope| envelope.encoded_len() as u64)
            + ENTRY_BYTES;
        let ring = self.topics.entry(topic.clone()).or_insert_with(|| Ring::new(now));
        ring.passed_by = false;
        ring.entries.push_back(StoredEntry {
            offset: self.last,
            previous: ring.tail,
            bytes,
            envelope,
        });
        ring.bytes += bytes;
        self.bytes += bytes;
        let most = self.options.retention_messages.max(1);
        while ring.entries.len() > most || exceeds(ring.bytes, self.options.retention_topic_bytes) {
            let Some(freed) = ring.drop_oldest() else { break };
            self.bytes -= freed;
        }
        ring.tail = self.last;
        ring.touched = now;
        self.order.push_back(Kept {
            topic: topic.clone(),
            offset: self.last,
            since: now,
        });
        while exceeds(self.bytes, self.options.retention_bytes) && self.drop_oldest() {}
        self.last
    }

    /// Drops the oldest entry of all; `false` where there is none.
    fn drop_oldest(&mut self) -> bool {
        let Some(oldest) = self.order.pop_front() else {
            return false;
        };
        if let Some(ring) = self.topics.get_mut(&oldest.topic)
            && ring
                .entries
                .front()
                .is_some_and(|stored| stored.offset == oldest.offset)
        {
            self.bytes -= ring.drop_oldest().unwrap_or_default();
        }
        true
    }

    /// Appends a message. `attended`: the topic has members now. Messages of a volatile hub, and messages that no
    /// connection could come back for, are not kept: they only take an offset.
    pub(super) fn publish(&mut self, topic: &Topic, envelope: &Arc<Envelope>, attended: bool) -> Offset {
        if self.options.volatile {
            self.last += 1;
            return self.last;
        }
        let touched = self
            .topics
            .get(topic)
            .filter(|ring| !ring.passed_by)
            .map(|ring| ring.touched);
        if !attended && !self.options.keeps_unread && touched.is_none() {
            return self.pass_by(topic);
        }
        let offset = self.append(topic, Some(Arc::clone(envelope)));
        if !attended && let (Some(touched), Some(ring)) = (touched, self.topics.get_mut(topic)) {
            ring.touched = touched; // the time since the last member left goes on
        }
        offset
    }

    fn pass_by(&mut self, topic: &Topic) -> Offset {
        self.last += 1;
        let (last, now) = (self.last, Instant::now());
        let ring = self.topics.entry(topic.clone()).or_insert_with(|| Ring::new(now));
        (ring.tail, ring.touched, ring.passed_by) = (last, now, true);
        last
    }

    /// Records that a topic has lost its last member: connections that left may come back for messages from now on.
    pub(super) fn note_left(&mut self, topic: &Topic) {
        let now = Instant::now();
        let awaited = self.topics.get(topic).is_some_and(|ring| !ring.passed_by);
        if !awaited && !self.awaited.may_add(now) {
            return;
        }
        let ring = self.topics.entry(topic.clone()).or_insert_with(|| Ring::new(now));
        (ring.touched, ring.passed_by) = (now, false);
    }

    /// Drops a topic that will never be used again.
    pub(super) fn delete(&mut self, topic: &Topic) {
        if let Some(ring) = self.topics.remove(topic) {
            self.bytes -= ring.bytes;
        }
    }

    /// Drops entries that are older than the retention.
    pub(super) fn sweep(&mut self, now: Instant) {
        let retention = self.options.retention;
        while self
            .order
            .front()
            .is_some_and(|oldest| now.saturating_duration_since(oldest.since) > retention)
        {
            self.drop_oldest();
        }
        let Self {
            options,
            topics,
            forgotten,
            ..
        } = self;
        let tail_life = options.tail_life();
        topics.retain(|_, ring| {
            let idle = now.saturating_duration_since(ring.touched);
            if ring.entries.is_empty() {
                ring.entries = VecDeque::new(); // gives its memory back
            }
            if idle > tail_life {
                *forgotten = ring.tail.max(*forgotten);
            }
            idle <= tail_life
        });
    }

    /// The messages of these topics after `after` and up to `upto`, each topic's after the offset beside it: about
    /// `most_bytes`.
    pub(super) fn page(
        &self,
        topics: &[(Topic, Offset)],
        after: Offset,
        upto: Offset,
        most_bytes: usize,
    ) -> HistoryPage {
        let end = upto.min(self.last);
        // No reader was ever given such a position; or the messages since then were not kept.
        if after > self.last || (self.options.volatile && after < end) {
            return HistoryPage::Trimmed;
        }
        let (mut messages, mut reached) = (Vec::new(), end);
        for (topic, from) in topics {
            let Some((found, far)) = self.read(topic, after.max(*from), reached, most_bytes) else {
                return HistoryPage::Trimmed;
            };
            reached = reached.min(far);
            messages.extend(found);
            messages.retain(|message: &Message| message.offset <= reached);
        }
        messages.sort_by_key(|message| message.offset);
        let mut bytes = 0;
        let over = messages.iter().position(|message| {
            bytes += message.envelope.encoded_len();
            bytes > most_bytes
        });
        if let Some(last) = over
            && last + 1 < messages.len()
        {
            messages.truncate(last + 1);
            reached = messages.last().map_or(reached, |last| last.offset);
        }
        HistoryPage::Exact {
            messages,
            reached: reached.max(after),
            ends: reached >= end,
        }
    }

    /// A topic's messages after `after`, and the offset that they reach; `None` where some are missing.
    fn read(
        &self,
        topic: &Topic,
        after: Offset,
        upto: Offset,
        most_bytes: usize,
    ) -> Option<(Vec<Message>, Offset)> {
        let ring = self.topics.get(topic);
        let entries = ring.map(|ring| {
            let start = ring.entries.partition_point(|stored| stored.offset <= after);
            ring.entries.range(start..)
        });
        let first = entries.clone().and_then(|mut entries| entries.next());
        let first = first.map(|stored| stored.previous);
        if !is_complete(after, first, ring.map(|ring| ring.tail), self.forgotten) {
            return None;
        }
        let (mut messages, mut bytes) = (Vec::new(), 0);
        for stored in entries.into_iter().flatten() {
            if stored.offset > upto {
                break;
            }
            let Some(envelope) = &stored.envelope else {
                continue;
            };
            messages.push(Message {
                topic: topic.clone(),
                offset: stored.offset,
                envelope: Arc::clone(envelope),
            });
            bytes += envelope.encoded_len();
            if bytes > most_bytes {
                return Some((messages, stored.offset));
            }
        }
        Some((messages, upto))
    }

    /// The offset after which the last `most` messages of a topic up to `upto` come.
    pub(super) fn newest(&self, topic: &Topic, upto: Offset, most: usize) -> Option<Offset> {
        let entries = &self.topics.get(topic)?.entries;
        let messages = entries
            .iter()
            .rev()
            .filter(|stored| stored.envelope.is_some() && stored.offset <= upto);
        let oldest = messages.take(most).last()?;
        Some(oldest.offset.saturating_sub(1))
    }
}

impl Ring {
    fn new(now: Instant) -> Self {
        Self {
            entries: VecDeque::new(),
            bytes: 0,
            tail: 0,
            touched: now,
            passed_by: false,
        }
    }

    /// Drops the topic's oldest entry; returns the bytes that this frees.
    fn drop_oldest(&mut self) -> Option<u64> {
        let oldest = self.entries.pop_front()?;
        self.bytes -= oldest.bytes;
        Some(oldest.bytes)
    }
}

/// Returns whether a number of bytes is over a bound; 0: no bound.
fn exceeds(bytes: u64, bound: u64) -> bool {
    bound > 0 && bytes > bound
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(retention_messages: usize) -> Log {
        Log::new(HubOptions {
            retention_messages,
            retention: Duration::from_secs(10),
            ..HubOptions::default()
        })
    }

    /// The offsets of a topic's messages after an offset; `None` where some are missing.
    fn offsets(log: &Log, topic: &Topic, after: Offset) -> Option<Vec<Offset>> {
        match log.page(&[(topic.clone(), 0)], after, Offset::MAX, 1_000) {
            HistoryPage::Exact { messages, .. } => {
                Some(messages.iter().map(|message| message.offset).collect())
            }
            _ => None,
        }
    }

    fn append(log: &mut Log, topic: &Topic) -> Offset {
        log.append(topic, Some(Arc::new(Envelope::default())))
    }

    #[tokio::test(start_paused = true)]
    async fn the_oldest_entry_goes_first_and_its_loss_is_told() {
        let mut log = log(2);
        for _ in 0..3 {
            append(&mut log, &Topic::All);
        }
        assert_eq!(offsets(&log, &Topic::All, 1), Some(vec![2, 3]));
        assert_eq!(offsets(&log, &Topic::All, 0), None);
        assert_eq!(offsets(&log, &Topic::All, 4), None, "ahead of the log");
    }

    #[tokio::test(start_paused = true)]
    async fn an_active_topic_keeps_nothing_that_is_too_old() {
        let mut log = log(100);
        for _ in 0..3 {
            append(&mut log, &Topic::All);
            tokio::time::advance(Duration::from_secs(4)).await;
        }
        log.sweep(Instant::now());
        assert_eq!(offsets(&log, &Topic::All, 0), None, "1 is 12 s old");
        assert_eq!(offsets(&log, &Topic::All, 1), Some(vec![2, 3]));
    }

    #[tokio::test(start_paused = true)]
    async fn bytes_are_bounded_for_a_topic_and_for_the_hub() {
        let options = |topic, hub| HubOptions {
            retention_topic_bytes: topic * ENTRY_BYTES,
            retention_bytes: hub * ENTRY_BYTES,
            ..HubOptions::default()
        };
        let mut log = Log::new(options(2, 0));
        for _ in 0..3 {
            append(&mut log, &Topic::All);
        }
        assert_eq!(offsets(&log, &Topic::All, 1), Some(vec![2, 3]));
        assert_eq!(offsets(&log, &Topic::All, 0), None);
        let mut log = Log::new(options(0, 2));
        let user = Topic::User(crate::topic::UserId::parse("u").unwrap());
        for topic in [&user, &Topic::All, &Topic::All] {
            append(&mut log, topic);
        }
        assert_eq!(offsets(&log, &Topic::All, 0), Some(vec![2, 3]));
        assert_eq!(offsets(&log, &user, 0), None, "the oldest of all went first");
        assert_eq!(log.bytes, 2 * ENTRY_BYTES);
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_topic_is_forgotten_in_two_steps() {
        let mut log = log(10);
        append(&mut log, &Topic::All);
        tokio::time::advance(Duration::from_secs(11)).await;
        log.sweep(Instant::now());
        assert_eq!(offsets(&log, &Topic::All, 0), None);
        assert_eq!(offsets(&log, &Topic::All, 1), Some(vec![]));
        tokio::time::advance(log.options.tail_life()).await;
        log.sweep(Instant::now());
        assert!(log.topics.is_empty());
        assert_eq!(offsets(&log, &Topic::All, 0), None);
        assert_eq!(offsets(&log, &Topic::All, 1), Some(vec![]));
    }
}
