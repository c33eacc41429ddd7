//! Reads past messages of several topics from the log in this process.

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::MemoryBackplane;
use super::hub::Hub;
use crate::error::BackplaneError;
use crate::history::{History, Page};
use crate::position::{Offset, Position};
use crate::topic::{HubName, Topic};

impl Hub {
    fn history(&self, topics: &[(Topic, Offset)], after: &Position, upto: Offset, most_bytes: usize) -> Page {
        if after.epoch != self.epoch {
            return Page::OtherEpoch(self.epoch.clone());
        }
        self.state.lock().log.page(topics, after.offset, upto, most_bytes)
    }
}

impl History for MemoryBackplane {
    fn history<'a>(
        &'a self,
        hub: &'a HubName,
        topics: &'a [(Topic, Offset)],
        after: &'a Position,
        upto: Offset,
        most_bytes: usize,
    ) -> BoxFuture<'a, Result<Page, BackplaneError>> {
        async move { Ok(self.hub(hub)?.history(topics, after, upto, most_bytes)) }.boxed()
    }

    fn newest<'a>(
        &'a self,
        hub: &'a HubName,
        topics: &'a [Topic],
        upto: Offset,
        most: usize,
    ) -> BoxFuture<'a, Result<Vec<(Topic, Offset)>, BackplaneError>> {
        async move {
            let hub = self.hub(hub)?;
            let state = hub.state.lock();
            let newest = |topic: &Topic| Some((topic.clone(), state.log.newest(topic, upto, most)?));
            Ok(topics.iter().filter_map(newest).collect())
        }
        .boxed()
    }
}
