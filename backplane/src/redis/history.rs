//! Reads what several topics had between two places.

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::RedisBackplane;
use super::commands::Repeat;
use super::entry::{Content, Stored};
use super::hub::Hub;
use super::inner::Inner;
use super::link::decode;
use super::replay::{Unknown, read_messages};
use crate::backplane::{LogRead, Message};
use crate::error::BackplaneError;
use crate::history::{History, Page};
use crate::position::{Offset, Position};
use crate::topic::{HubName, Topic};

impl From<Unknown> for Page {
    fn from(unknown: Unknown) -> Self {
        match unknown {
            Unknown::Trimmed => Self::Trimmed,
            Unknown::OtherEpoch(epoch) => Self::OtherEpoch(epoch),
        }
    }
}

impl Inner {
    async fn history(
        &self,
        hub: &Hub,
        topics: &[Topic],
        after: &Position,
        upto: Offset,
        most: usize,
    ) -> Result<Page, BackplaneError> {
        let extent = hub.scripts.extent(&self.commands).await?;
        if extent.epoch != after.epoch {
            return Ok(Page::OtherEpoch(extent.epoch));
        }
        // What is published from here on is another call's: topics are read one after the other.
        let end = upto.min(extent.last);
        let unkept = hub.scripts.options.volatile && after.offset < end;
        if unkept || after.offset > extent.last {
            return Ok(Page::Trimmed);
        }
        let topics = topics.iter().map(|topic| (topic.clone(), after.offset));
        let fresh = self.fresh(hub, topics.collect()).await?;
        let each = (most / fresh.len().max(1)).max(1);
        let (mut entries, mut reached) = (Vec::new(), end);
        for (topic, from) in fresh {
            let found = match self.range(hub, &topic, after, from, reached, each).await? {
                Ok(found) => found,
                Err(unknown) => return Ok(unknown.into()),
            };
            if found.len() >= each {
                reached = found.last().map_or(reached, |last| last.offset);
            }
            entries.extend(found);
        }
        entries.retain(|entry| entry.offset <= reached);
        entries.sort_by_key(|entry| entry.offset);
        Ok(match read_messages(&entries) {
            LogRead::Exact(messages) => Page::Exact {
                messages,
                reached: reached.max(after.offset),
                ends: reached >= end,
            },
            LogRead::Trimmed => Page::Trimmed,
            LogRead::OtherEpoch(epoch) => Page::OtherEpoch(epoch),
        })
    }

    async fn newest(
        &self,
        hub: &Hub,
        topics: &[Topic],
        upto: Offset,
        most: usize,
    ) -> Result<Vec<Message>, BackplaneError> {
        let mut messages = Vec::new();
        for topic in topics {
            let mut command = redis::cmd("XREVRANGE");
            command
                .arg(hub.scripts.keys.stream(&topic.key()))
                .arg(upto)
                .arg("-")
                .arg("COUNT")
                .arg(most);
            let found: redis::Value = decode(self.commands.command(&command, Repeat::Safe).await?)?;
            let found = Stored::read_all(topic, found)?;
            messages.extend(found.into_iter().filter_map(message));
        }
        messages.sort_by_key(|message| message.offset);
        Ok(messages)
    }
}

fn message(entry: Stored) -> Option<Message> {
    match entry.content()? {
        Content::Message(envelope) => Some(Message {
            topic: entry.topic,
            offset: entry.offset,
            envelope,
        }),
        Content::Membership { .. } | Content::Gap => None,
    }
}

impl History for RedisBackplane {
    fn history<'a>(
        &'a self,
        hub: &'a HubName,
        topics: &'a [Topic],
        after: &'a Position,
        upto: Offset,
        most: usize,
    ) -> BoxFuture<'a, Result<Page, BackplaneError>> {
        async move {
            let hub = self.inner.hub(hub)?;
            self.inner.history(&hub, topics, after, upto, most).await
        }
        .boxed()
    }

    fn newest<'a>(
        &'a self,
        hub: &'a HubName,
        topics: &'a [Topic],
        upto: Offset,
        most: usize,
    ) -> BoxFuture<'a, Result<Vec<Message>, BackplaneError>> {
        async move {
            let hub = self.inner.hub(hub)?;
            self.inner.newest(&hub, topics, upto, most).await
        }
        .boxed()
    }
}
