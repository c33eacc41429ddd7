//! Replays the messages that one connection was to receive between two positions: all of its topics, merged by offset.

use crate::error::BackplaneError;
use crate::history::HistoryPage;
use crate::position::Position;
use crate::redis::directory::history::Unknown;
use crate::redis::feed::entry::{Content, Stored};
use crate::redis::feed::hub::Hub;
use crate::redis::inner::Inner;
use crate::replay::{Past, Replay};
use crate::topic::Topic;
use crate::wire::membership::Change;

/// Bytes of a connection's own topic that one call reads to find changes of its groups.
const LOOKED_AT: usize = 256 * 1_024;

impl Inner {
    /// The next page of a replay.
    pub(in crate::redis) async fn replay(
        &self,
        hub: &Hub,
        replay: &mut Replay,
        most_bytes: usize,
    ) -> Result<HistoryPage, BackplaneError> {
        if hub.scripts.options.volatile {
            return self.replay_nothing(hub, &replay.after).await;
        }
        if replay.memberships.is_none() {
            match self.changes(hub, replay).await? {
                Ok(changes) => replay.learn(&changes),
                Err(unknown) => return Ok(unknown.into()),
            }
        }
        let topics = replay.topics();
        let found = self
            .entries(hub, &topics, &replay.after, replay.upto, most_bytes)
            .await?;
        Ok(match found {
            Ok(mut found) => {
                replay.after.offset = found.reached;
                found
                    .entries
                    .retain(|entry| replay.has_received(&entry.topic, entry.offset));
                found.page()
            }
            Err(unknown) => unknown.into(),
        })
    }

    /// The changes of the connection's groups.
    async fn changes(
        &self,
        hub: &Hub,
        replay: &Replay,
    ) -> Result<Result<Vec<Past>, Unknown>, BackplaneError> {
        let own = [(Topic::Connection(replay.connection.id.clone()), 0)];
        let (mut after, mut changes) = (replay.after.clone(), Vec::new());
        loop {
            let found = match self.entries(hub, &own, &after, replay.upto, LOOKED_AT).await? {
                Ok(found) => found,
                Err(unknown) => return Ok(Err(unknown)),
            };
            let Some(some) = found.entries.iter().map(past).collect::<Option<Vec<_>>>() else {
                return Ok(Err(Unknown::Trimmed)); // an entry that this version can't read
            };
            changes.extend(some.into_iter().flatten());
            after.offset = found.reached;
            if found.ends {
                return Ok(Ok(changes));
            }
        }
    }

    /// Replays in a volatile hub, which is complete only at its end.
    async fn replay_nothing(&self, hub: &Hub, after: &Position) -> Result<HistoryPage, BackplaneError> {
        let extent = hub.scripts.extent(&self.commands).await?;
        Ok(if extent.epoch != after.epoch {
            HistoryPage::OtherEpoch(extent.epoch)
        } else if after.offset == extent.last {
            HistoryPage::Exact {
                messages: Vec::new(),
                reached: extent.last,
                ends: true,
            }
        } else {
            HistoryPage::Trimmed
        })
    }
}

/// The change of membership of an entry, `Some(None)` for another entry; `None` for one that this version can't read.
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
