//! Reads past entries of several topics between two positions, a page at a time: no more than a page is in memory, here
//! or in an answer of the server.

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use crate::backplane::Message;
use crate::error::BackplaneError;
use crate::history::{History, HistoryPage};
use crate::position::{Epoch, Offset, Position};
use crate::proof::is_complete;
use crate::redis::feed::entry::{Content, Stored};
use crate::redis::feed::hub::Hub;
use crate::redis::hub::RedisHub;
use crate::redis::inner::Inner;
use crate::redis::script::calls::log::Newest;
use crate::redis::script::invocation::Invocation;
use crate::redis::server::replies::decode;
use crate::topic::Topic;

/// Topics that one call reads.
pub(in crate::redis) const STREAMS: usize = 100;
/// Bytes that a call reads of each of many topics.
const LEAST: usize = 4 * 1_024;
/// Bytes of entries that one call looks at to find the newest ones.
const LOOKED_AT: usize = 1 << 20;

/// Entries of several topics, in the order of their offsets.
pub(in crate::redis) struct Entries {
    pub(in crate::redis) entries: Vec<Stored>,
    /// The offset up to which the entries are complete.
    pub(in crate::redis) reached: Offset,
    /// True if there are no more entries up to the requested end.
    pub(in crate::redis) ends: bool,
}

/// The reason why entries may be missing.
pub(in crate::redis) enum Unknown {
    Trimmed,
    OtherEpoch(Epoch),
}

impl From<Unknown> for HistoryPage {
    fn from(unknown: Unknown) -> Self {
        match unknown {
            Unknown::Trimmed => Self::Trimmed,
            Unknown::OtherEpoch(epoch) => Self::OtherEpoch(epoch),
        }
    }
}

impl Entries {
    /// Drops the entries beyond about `most_bytes`.
    fn cut(&mut self, most_bytes: usize) {
        let mut bytes = 0;
        let over = self.entries.iter().position(|entry| {
            bytes += entry.entry.len();
            bytes > most_bytes
        });
        if let Some(last) = over
            && last + 1 < self.entries.len()
        {
            self.entries.truncate(last + 1);
            self.reached = self.entries.last().map_or(self.reached, |last| last.offset);
            self.ends = false;
        }
    }

    /// The messages among the entries, as a page.
    pub(in crate::redis) fn page(self) -> HistoryPage {
        let mut messages = Vec::with_capacity(self.entries.len());
        for entry in self.entries {
            match entry.content() {
                Some(Content::Message(envelope)) => messages.push(Message {
                    topic: entry.topic,
                    offset: entry.offset,
                    envelope,
                }),
                Some(Content::Membership { .. }) => {}
                Some(Content::Gap) | None => return HistoryPage::Trimmed,
            }
        }
        HistoryPage::Exact {
            messages,
            reached: self.reached,
            ends: self.ends,
        }
    }
}

impl Inner {
    /// The entries of these topics after `after`, each topic's after the offset beside it, if the log has all of them.
    pub(in crate::redis) async fn entries(
        &self,
        hub: &Hub,
        topics: &[(Topic, Offset)],
        after: &Position,
        upto: Offset,
        most_bytes: usize,
    ) -> Result<Result<Entries, Unknown>, BackplaneError> {
        let share = (most_bytes / topics.len().max(1)).max(LEAST);
        let (mut entries, mut reached, mut end) = (Vec::new(), upto, upto);
        let mut rest = topics;
        loop {
            let (some, others) = rest.split_at(rest.len().min(STREAMS));
            let some: Vec<_> = some
                .iter()
                .map(|(topic, from)| (topic.clone(), (*from).max(after.offset)))
                .collect();
            let call = hub.scripts.read_call(&some, reached, share);
            let read = hub.scripts.read(&some, self.commands.read(&call).await?)?;
            if read.epoch != after.epoch {
                return Ok(Err(Unknown::OtherEpoch(read.epoch)));
            }
            // Entries that are published from here on are left to another call: topics are read one after the other.
            end = end.min(read.last);
            let unkept = hub.scripts.options.volatile && after.offset < end;
            if unkept || after.offset > read.last {
                return Ok(Err(Unknown::Trimmed));
            }
            for ((_, from), topic) in some.iter().zip(read.topics) {
                if !is_complete(*from, topic.first, topic.tail, read.forgotten) {
                    return Ok(Err(Unknown::Trimmed));
                }
                entries.extend(topic.entries);
            }
            reached = reached.min(read.reached);
            rest = others;
            if rest.is_empty() {
                break;
            }
        }
        entries.retain(|entry: &Stored| entry.offset <= reached);
        entries.sort_by_key(|entry| entry.offset);
        let mut found = Entries {
            entries,
            reached: reached.max(after.offset),
            ends: reached >= end,
        };
        found.cut(most_bytes);
        Ok(Ok(found))
    }

    async fn newest(
        &self,
        hub: &Hub,
        topic: &Topic,
        upto: Offset,
        most: usize,
    ) -> Result<Option<Offset>, BackplaneError> {
        let (mut oldest, mut wanted) = (None, most);
        while wanted > 0 {
            let before = oldest.map_or(upto, |oldest: Offset| oldest.saturating_sub(1));
            let call = Invocation::of(Newest {
                log: hub.scripts.keys.log(),
                stream: hub.scripts.keys.stream(&topic.key()),
                upto: before,
                most: wanted,
                most_bytes: LOOKED_AT,
            });
            let (_, found, count): (String, Offset, usize) = decode(self.commands.read(&call).await?)?;
            if count == 0 {
                break;
            }
            oldest = Some(found);
            wanted = wanted.saturating_sub(count);
        }
        Ok(oldest.map(|oldest| oldest.saturating_sub(1)))
    }
}

impl History for RedisHub {
    fn history<'a>(
        &'a self,
        topics: &'a [(Topic, Offset)],
        after: &'a Position,
        upto: Offset,
        most_bytes: usize,
    ) -> BoxFuture<'a, Result<HistoryPage, BackplaneError>> {
        async move {
            let found = self
                .inner
                .entries(&self.hub, topics, after, upto, most_bytes)
                .await?;
            Ok(found.map_or_else(HistoryPage::from, Entries::page))
        }
        .boxed()
    }

    fn newest<'a>(
        &'a self,
        topics: &'a [Topic],
        upto: Offset,
        most: usize,
    ) -> BoxFuture<'a, Result<Vec<(Topic, Offset)>, BackplaneError>> {
        async move {
            let mut newest = Vec::new();
            for topic in topics {
                if let Some(before) = self.inner.newest(&self.hub, topic, upto, most).await? {
                    newest.push((topic.clone(), before));
                }
            }
            Ok(newest)
        }
        .boxed()
    }
}
