//! Reads page by page until the end.

use crate::backplane::{ConnectionRecord, Message};
use crate::history::HistoryPage;
use crate::hub::HubBackplane;
use crate::position::{Epoch, Offset, Position};
use crate::replay::Replay;
use crate::sessions::Taken;
use crate::topic::Topic;

use super::Member;

/// Bytes of a page: few, so that there are several pages.
const PAGE: usize = 64;

/// The result of reading all pages.
#[derive(Clone, Debug)]
pub enum Whole {
    /// The messages are complete: none is missing before or between them.
    Exact(Vec<Message>),
    /// Messages were trimmed away.
    Trimmed,
    /// The position is of another epoch.
    OtherEpoch(Epoch),
}

/// The messages of a topic after a position.
pub async fn read(hub: &dyn HubBackplane, topic: &Topic, after: &Position) -> Whole {
    let topics = [(topic.clone(), 0)];
    let (mut after, mut found) = (after.clone(), Vec::new());
    loop {
        let page = hub.history(&topics, &after, Offset::MAX, PAGE).await.unwrap();
        match page {
            HistoryPage::Exact {
                messages,
                reached,
                ends,
            } => {
                found.extend(messages);
                if ends {
                    return Whole::Exact(found);
                }
                assert!(reached > after.offset, "each page comes further");
                after.offset = reached;
            }
            HistoryPage::Trimmed => return Whole::Trimmed,
            HistoryPage::OtherEpoch(epoch) => return Whole::OtherEpoch(epoch),
        }
    }
}

/// All messages that a connection was to receive.
pub async fn replay(hub: &dyn HubBackplane, mut replay: Replay) -> Whole {
    let mut found = Vec::new();
    loop {
        match hub.replay(&mut replay, PAGE).await.unwrap() {
            HistoryPage::Exact { messages, ends, .. } => {
                found.extend(messages);
                if ends {
                    return Whole::Exact(found);
                }
            }
            HistoryPage::Trimmed => return Whole::Trimmed,
            HistoryPage::OtherEpoch(epoch) => return Whole::OtherEpoch(epoch),
        }
    }
}

/// The replay for a connection that was taken over and has all messages up to `after`.
#[must_use]
pub fn lacks(taken: &Taken, after: &Position) -> Replay {
    let record: ConnectionRecord = taken.record.clone();
    Replay::new(record, taken.groups.clone(), after.clone(), taken.position.offset)
}

impl Member {
    /// The messages of a topic after a position.
    pub async fn read(&self, topic: &Topic, after: &Position) -> Whole {
        read(self.hub.as_ref(), topic, after).await
    }
}
