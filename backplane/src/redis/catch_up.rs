//! Reads on from a lane's cursor to the end of the log: every topic of this node, merged by offset.

use std::sync::Arc;

use super::hub_scripts::Extent;
use super::lane::{Lane, Source};
use super::local::Seen;
use crate::error::BackplaneError;
use crate::position::Offset;
use crate::proof::is_complete;
use crate::topic::Topic;

/// Offsets that are read at once: the most entries that are held in memory.
const WINDOW: Offset = 2_000;
/// Streams that one call reads.
const STREAMS: usize = 100;
/// Topics whose newest offsets one call asks for.
const TAILS: usize = 500;

impl Lane {
    /// Reads on once. On error nothing is lost: what was handed on counts, the rest is read the next time.
    pub(super) async fn read_on(&mut self) -> Result<(), BackplaneError> {
        let mut extent = self.hub.scripts.extent(&self.inner.commands).await?;
        if extent.epoch != self.epoch {
            self.restart(&extent);
        }
        let after = self.cursor;
        let (forgotten, tails) = self.tails().await?;
        extent.forgotten = extent.forgotten.max(forgotten);
        let fresh = |(topic, tail): &(Topic, Option<Offset>)| (*tail > Some(after)).then(|| topic.clone());
        let topics: Vec<_> = tails.iter().filter_map(fresh).collect();
        let source = Source::Log {
            after,
            forgotten: extent.forgotten,
        };
        while self.cursor < extent.last {
            let to = if topics.is_empty() {
                extent.last
            } else {
                extent.last.min(self.cursor + WINDOW)
            };
            self.read_window(&topics, to, source).await?;
            self.cursor = self.cursor.max(to);
            self.flush();
        }
        self.find_losses(after, &extent, tails);
        self.flush();
        Ok(())
    }

    /// The newest offset of every topic of this node, and the offset above which no topic without one has an entry.
    async fn tails(&self) -> Result<(Offset, Vec<(Topic, Option<Offset>)>), BackplaneError> {
        let topics = self.hub.local.lock().topics();
        let mut found = Vec::with_capacity(topics.len());
        let mut forgotten = 0;
        for topics in topics.chunks(TAILS) {
            let (bound, tails) = self.hub.scripts.tails(&self.inner.commands, topics).await?;
            forgotten = forgotten.max(bound);
            found.extend(topics.iter().cloned().zip(tails));
        }
        Ok((forgotten, found))
    }

    async fn read_window(
        &mut self,
        topics: &[Topic],
        to: Offset,
        source: Source,
    ) -> Result<(), BackplaneError> {
        let mut entries = Vec::new();
        for topics in topics.chunks(STREAMS) {
            let call = self
                .hub
                .scripts
                .window(&self.inner.commands, topics, self.cursor + 1, to);
            let (epoch, mut found) = call.await?;
            if epoch != self.epoch {
                return Err(BackplaneError::Malformed {
                    what: "a new epoch while reading".to_owned(),
                });
            }
            entries.append(&mut found);
        }
        entries.sort_by_key(|entry| entry.offset);
        self.take_stored(&entries, source);
        Ok(())
    }

    /// Tells of topics that had entries which the log no longer has.
    fn find_losses(&mut self, after: Offset, extent: &Extent, tails: Vec<(Topic, Option<Offset>)>) {
        let hub = Arc::clone(&self.hub);
        let mut local = hub.local.lock();
        for (topic, tail) in tails {
            let Seen::UpTo(seen) = local.seen(&topic) else {
                continue;
            };
            if tail.is_some_and(|tail| tail > extent.last) {
                continue; // its entries name their predecessors and are still to come
            }
            let upto = if tail.is_some() { seen } else { seen.max(after) };
            if !is_complete(upto, None, tail, extent.forgotten) {
                local.set_seen(&topic, tail.unwrap_or(extent.last).max(seen));
                self.lost(topic);
            }
        }
    }
}
