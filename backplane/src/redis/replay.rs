//! Reads what one connection was to receive between two places: every topic that it had, merged by offset.

use super::entry::{Content, Stored};
use super::hub::Hub;
use super::inner::Inner;
use crate::backplane::{ConnectionRecord, LogRead, Message};
use crate::error::BackplaneError;
use crate::position::{Epoch, Offset, Position};
use crate::proof::is_complete;
use crate::replay::{Memberships, Past};
use crate::topic::{GroupName, Topic};
use crate::wire::membership::Change;

/// Entries that one call reads.
const PAGE: usize = 1_000;
/// Topics whose newest offsets one call asks for.
const TAILS: usize = 500;

/// Why a range can't be vouched for.
pub(super) enum Unknown {
    Trimmed,
    OtherEpoch(Epoch),
}

impl From<Unknown> for LogRead {
    fn from(unknown: Unknown) -> Self {
        match unknown {
            Unknown::Trimmed => Self::Trimmed,
            Unknown::OtherEpoch(epoch) => Self::OtherEpoch(epoch),
        }
    }
}

impl Inner {
    pub(super) async fn replay(
        &self,
        hub: &Hub,
        connection: &ConnectionRecord,
        groups: &[GroupName],
        after: &Position,
        upto: Offset,
    ) -> Result<LogRead, BackplaneError> {
        if hub.scripts.options.volatile {
            return self.replay_nothing(hub, after).await;
        }
        let own = Topic::Connection(connection.id.clone());
        let own = match self
            .range(hub, &own, after, after.offset, upto, usize::MAX)
            .await?
        {
            Ok(entries) => entries,
            Err(unknown) => return Ok(unknown.into()),
        };
        let Some(changes) = own.iter().map(past).collect::<Option<Vec<_>>>() else {
            return Ok(LogRead::Trimmed); // an entry that this version can't read
        };
        let changes: Vec<_> = changes.into_iter().flatten().collect();
        let memberships = Memberships::new(connection, groups, &changes, after.offset, upto);
        let mut entries = own;
        for (topic, from) in self.fresh(hub, memberships.shared_topics()).await? {
            match self.range(hub, &topic, after, from, upto, usize::MAX).await? {
                Ok(found) => entries.extend(found.into_iter().filter(|e| memberships.hold(&topic, e.offset))),
                Err(unknown) => return Ok(unknown.into()),
            }
        }
        entries.sort_by_key(|entry| entry.offset);
        Ok(read_messages(&entries))
    }

    /// A volatile hub vouches for its end only.
    async fn replay_nothing(&self, hub: &Hub, after: &Position) -> Result<LogRead, BackplaneError> {
        let extent = hub.scripts.extent(&self.commands).await?;
        Ok(if extent.epoch != after.epoch {
            LogRead::OtherEpoch(extent.epoch)
        } else if after.offset == extent.last {
            LogRead::Exact(Vec::new())
        } else {
            LogRead::Trimmed
        })
    }

    /// Leaves out topics that have nothing new.
    pub(super) async fn fresh(
        &self,
        hub: &Hub,
        topics: Vec<(Topic, Offset)>,
    ) -> Result<Vec<(Topic, Offset)>, BackplaneError> {
        let mut fresh = Vec::new();
        for topics in topics.chunks(TAILS) {
            let names: Vec<_> = topics.iter().map(|(topic, _)| topic.clone()).collect();
            let (_, tails) = hub.scripts.tails(&self.commands, &names).await?;
            let new =
                |((_, from), tail): &(&(Topic, Offset), Option<Offset>)| tail.is_none_or(|tail| tail > *from);
            fresh.extend(
                topics
                    .iter()
                    .zip(tails)
                    .filter(new)
                    .map(|(topic, _)| topic.clone()),
            );
        }
        Ok(fresh)
    }

    /// A topic's entries after `from` and up to `upto`, where the log has them all; the first `most` of them.
    pub(super) async fn range(
        &self,
        hub: &Hub,
        topic: &Topic,
        position: &Position,
        from: Offset,
        upto: Offset,
        most: usize,
    ) -> Result<Result<Vec<Stored>, Unknown>, BackplaneError> {
        let mut entries = Vec::new();
        let mut offset = from;
        loop {
            let page = PAGE.min(most - entries.len());
            let read = hub.scripts.read(&self.commands, topic, offset, page).await?;
            if read.epoch != position.epoch {
                return Ok(Err(Unknown::OtherEpoch(read.epoch)));
            }
            let first = read.entries.first().map(|entry| entry.previous);
            if offset > read.last || !is_complete(offset, first, read.tail, read.forgotten) {
                return Ok(Err(Unknown::Trimmed));
            }
            let found = read.entries.len();
            let past = read.entries.last().is_some_and(|entry| entry.offset >= upto);
            offset = read.entries.last().map_or(offset, |entry| entry.offset);
            entries.extend(read.entries.into_iter().filter(|entry| entry.offset <= upto));
            if found < page || past || entries.len() >= most {
                return Ok(Ok(entries));
            }
        }
    }
}

/// The change of membership that an entry is, if it is one; `None` for an unreadable one.
fn past(entry: &Stored) -> Option<Option<Past>> {
    Some(match entry.content()? {
        Content::Membership {
            topics,
            change,
            redundant: false,
            ..
        } if change != Change::Taken => Some(Past {
            offset: entry.offset,
            topics,
            joined: change == Change::Joined,
        }),
        Content::Membership { .. } | Content::Message(_) | Content::Gap => None,
    })
}

pub(super) fn read_messages(entries: &[Stored]) -> LogRead {
    let mut messages = Vec::with_capacity(entries.len());
    for entry in entries {
        match entry.content() {
            Some(Content::Message(envelope)) => messages.push(Message {
                topic: entry.topic.clone(),
                offset: entry.offset,
                envelope,
            }),
            Some(Content::Membership { .. }) => {}
            Some(Content::Gap) | None => return LogRead::Trimmed,
        }
    }
    LogRead::Exact(messages)
}
