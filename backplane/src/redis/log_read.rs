//! Reads what one topic's log has after a place.

use super::RedisBackplane;
use super::entry::Content;
use super::hub_scripts::TopicRead;
use crate::backplane::{LogRead, Message};
use crate::error::BackplaneError;
use crate::position::{Offset, Position};
use crate::proof::is_complete;
use crate::topic::{HubName, Topic};

impl RedisBackplane {
    /// The messages of a topic after a place, `limit` at most.
    pub(super) async fn read_log(
        &self,
        hub: &HubName,
        topic: &Topic,
        after: &Position,
        limit: usize,
    ) -> Result<LogRead, BackplaneError> {
        let hub = self.inner.hub(hub)?;
        let mut messages: Vec<Message> = Vec::new();
        let mut offset = after.offset;
        loop {
            let wanted = limit - messages.len();
            let read = hub
                .scripts
                .read(&self.inner.commands, topic, offset, wanted)
                .await?;
            if read.epoch != after.epoch {
                return Ok(LogRead::OtherEpoch(read.epoch));
            }
            let unkept = hub.scripts.options.volatile && offset < read.last;
            if unkept || !is_exact(&read, offset) {
                return Ok(LogRead::Trimmed);
            }
            let found = read.entries.len();
            for entry in read.entries {
                offset = entry.offset;
                match entry.content() {
                    Some(Content::Message(envelope)) => {
                        messages.push(Message {
                            topic: topic.clone(),
                            offset,
                            envelope,
                        });
                    }
                    Some(Content::Membership { .. }) => {}
                    Some(Content::Gap) | None => return Ok(LogRead::Trimmed),
                }
            }
            // Changes of membership are no messages: there may be more behind them.
            if found < wanted || messages.len() >= limit {
                return Ok(LogRead::Exact(messages));
            }
        }
    }
}

/// Whether a read vouches for everything after `after`, which must not be ahead of the log.
fn is_exact(read: &TopicRead, after: Offset) -> bool {
    let first = read.entries.first().map(|entry| entry.previous);
    after <= read.last && is_complete(after, first, read.tail, read.forgotten)
}
