//! Catch-up: reads from a lane's cursor to the end of the log, every topic of this node, merged by offset.

use std::sync::Arc;

use crate::error::BackplaneError;
use crate::position::Offset;
use crate::proof::is_complete;
use crate::redis::directory::history::STREAMS;
use crate::redis::feed::entry::Stored;
use crate::redis::feed::lane::{Lane, Source};
use crate::redis::feed::local::Seen;
use crate::redis::script::hub_scripts::Extent;
use crate::redis::server::commands::Repeat;
use crate::topic::Topic;

/// About how many bytes are read at once.
const PAGE_BYTES: usize = 512 * 1_024;
/// About how many bytes are read at least of each topic, where there are many.
const LEAST_BYTES: usize = 4 * 1_024;
/// Topics whose newest offsets one call asks for.
const TAILS: usize = 500;

impl Lane {
    /// Reads on once. On error nothing is lost: entries that were delivered count, the rest is read the next time.
    pub(in crate::redis) async fn read_on(&mut self) -> Result<(), BackplaneError> {
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
            let to = self.read_page(&topics, extent.last, source).await?;
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

    /// Reads a page, up to `last` at most. Returns how far it reaches.
    async fn read_page(
        &mut self,
        topics: &[Topic],
        last: Offset,
        source: Source,
    ) -> Result<Offset, BackplaneError> {
        let (mut entries, mut reached) = (Vec::new(), last);
        let share = (PAGE_BYTES / topics.len().max(1)).max(LEAST_BYTES);
        for topics in topics.chunks(STREAMS) {
            let topics: Vec<_> = topics.iter().map(|topic| (topic.clone(), self.cursor)).collect();
            let call = self.hub.scripts.read_call(&topics, reached, share);
            let answer = self.inner.commands.script(&call, Repeat::Safe).await?;
            let read = self.hub.scripts.read(&topics, answer)?;
            if read.epoch != self.epoch {
                return Err(BackplaneError::Malformed {
                    what: "a new epoch while reading".to_owned(),
                });
            }
            reached = reached.min(read.reached);
            entries.extend(read.topics.into_iter().flat_map(|topic| topic.entries));
            entries.retain(|entry: &Stored| entry.offset <= reached);
        }
        entries.sort_by_key(|entry| entry.offset);
        self.take_stored(&entries, source);
        Ok(reached)
    }

    /// Reports gaps: topics of which the log no longer has all entries.
    fn find_losses(&mut self, after: Offset, extent: &Extent, tails: Vec<(Topic, Option<Offset>)>) {
        let hub = Arc::clone(&self.hub);
        let mut local = hub.local.lock();
        for (topic, tail) in tails {
            let Seen::UpTo { offset: seen, .. } = local.seen(&topic) else {
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
