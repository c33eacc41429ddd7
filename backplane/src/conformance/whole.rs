//! Reads page by page until nothing is left.

use crate::backplane::{Backplane, ConnectionRecord, Message};
use crate::history::Page;
use crate::position::{Epoch, Offset, Position};
use crate::replay::Replay;
use crate::sessions::Taken;
use crate::topic::{HubName, Topic};

use super::Member;

/// Bytes of a page: few, so that there are several.
const PAGE: usize = 64;

/// All that was asked for.
#[derive(Clone, Debug)]
pub enum Whole {
    /// These messages, and nothing is missing before or between them.
    Exact(Vec<Message>),
    /// Messages were trimmed away.
    Trimmed,
    /// The place is of another epoch.
    OtherEpoch(Epoch),
}

/// What a topic has after a place.
pub async fn read(node: &dyn Backplane, hub: &HubName, topic: &Topic, after: &Position) -> Whole {
    let topics = [(topic.clone(), 0)];
    let (mut after, mut found) = (after.clone(), Vec::new());
    loop {
        let page = node
            .history(hub, &topics, &after, Offset::MAX, PAGE)
            .await
            .unwrap();
        match page {
            Page::Exact {
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
            Page::Trimmed => return Whole::Trimmed,
            Page::OtherEpoch(epoch) => return Whole::OtherEpoch(epoch),
        }
    }
}

/// All that a connection was to receive.
pub async fn replay(node: &dyn Backplane, hub: &HubName, mut replay: Replay) -> Whole {
    let mut found = Vec::new();
    loop {
        match node.replay(hub, &mut replay, PAGE).await.unwrap() {
            Page::Exact { messages, ends, .. } => {
                found.extend(messages);
                if ends {
                    return Whole::Exact(found);
                }
            }
            Page::Trimmed => return Whole::Trimmed,
            Page::OtherEpoch(epoch) => return Whole::OtherEpoch(epoch),
        }
    }
}

/// What a connection that was taken over lacks, where it has everything up to `after`.
#[must_use]
pub fn lacks(taken: &Taken, after: &Position) -> Replay {
    let record: ConnectionRecord = taken.record.clone();
    Replay::new(record, taken.groups.clone(), after.clone(), taken.position.offset)
}

impl Member {
    /// What a topic has after a place.
    pub async fn read(&self, topic: &Topic, after: &Position) -> Whole {
        read(self.node.as_ref(), &self.hub, topic, after).await
    }
}
