//! What several topics had, from the log in this process.

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::MemoryBackplane;
use super::hub::Hub;
use crate::backplane::{LogRead, Message};
use crate::error::BackplaneError;
use crate::history::{History, Page};
use crate::position::{Offset, Position};
use crate::topic::{HubName, Topic};

impl Hub {
    fn history(&self, topics: &[Topic], after: &Position, upto: Offset, most: usize) -> Page {
        if after.epoch != self.epoch {
            return Page::OtherEpoch(self.epoch.clone());
        }
        let state = self.state.lock();
        let end = upto.min(state.log.last());
        let each = (most / topics.len().max(1)).max(1);
        let (mut messages, mut reached) = (Vec::new(), end);
        for topic in topics {
            let found = match state.log.read(topic, after.offset, each) {
                LogRead::Exact(found) => found,
                LogRead::Trimmed => return Page::Trimmed,
                LogRead::OtherEpoch(epoch) => return Page::OtherEpoch(epoch),
            };
            if found.len() >= each {
                reached = found.last().map_or(reached, |last| last.offset.min(reached));
            }
            messages.extend(found);
        }
        messages.retain(|message| message.offset <= reached);
        messages.sort_by_key(|message| message.offset);
        Page::Exact {
            messages,
            reached: reached.max(after.offset),
            ends: reached >= end,
        }
    }

    fn newest(&self, topics: &[Topic], upto: Offset, most: usize) -> Vec<Message> {
        let state = self.state.lock();
        let newest = |topic| state.log.newest(topic, upto, most);
        let mut messages: Vec<_> = topics.iter().flat_map(newest).collect();
        messages.sort_by_key(|message| message.offset);
        messages
    }
}

impl History for MemoryBackplane {
    fn history<'a>(
        &'a self,
        hub: &'a HubName,
        topics: &'a [Topic],
        after: &'a Position,
        upto: Offset,
        most: usize,
    ) -> BoxFuture<'a, Result<Page, BackplaneError>> {
        async move { Ok(self.hub(hub)?.history(topics, after, upto, most)) }.boxed()
    }

    fn newest<'a>(
        &'a self,
        hub: &'a HubName,
        topics: &'a [Topic],
        upto: Offset,
        most: usize,
    ) -> BoxFuture<'a, Result<Vec<Message>, BackplaneError>> {
        async move { Ok(self.hub(hub)?.newest(topics, upto, most)) }.boxed()
    }
}
