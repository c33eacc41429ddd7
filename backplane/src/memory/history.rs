//! Reads past messages of several topics from the log in this process.

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::hub::MemoryHub;
use crate::error::BackplaneError;
use crate::history::{History, HistoryPage};
use crate::position::{Offset, Position};
use crate::topic::Topic;

impl History for MemoryHub {
    fn history<'a>(
        &'a self,
        topics: &'a [(Topic, Offset)],
        after: &'a Position,
        upto: Offset,
        most_bytes: usize,
    ) -> BoxFuture<'a, Result<HistoryPage, BackplaneError>> {
        async move {
            if after.epoch != self.epoch {
                return Ok(HistoryPage::OtherEpoch(self.epoch.clone()));
            }
            let state = self.state.lock();
            Ok(state.log.page(topics, after.offset, upto, most_bytes))
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
            let state = self.state.lock();
            let newest = |topic: &Topic| Some((topic.clone(), state.log.newest(topic, upto, most)?));
            Ok(topics.iter().filter_map(newest).collect())
        }
        .boxed()
    }
}
