//! Reads the messages of several topics in one order: for receivers that keep their own position in the log.

use futures_util::future::BoxFuture;

use crate::backplane::Message;
use crate::error::BackplaneError;
use crate::position::{Epoch, Offset, Position};
use crate::topic::Topic;

/// Access to past messages of topics. Part of [`HubBackplane`](crate::HubBackplane).
pub trait History: Send + Sync {
    /// The messages of these topics after `after` and up to `upto` ([`Offset::MAX`] for the log's end), in the order of
    /// their offsets: about `most_bytes`, or all that there are. Each topic counts only after the offset beside it. To
    /// get the rest, call again from [`HistoryPage::Exact::reached`]. A caller that drops the returned future stops the
    /// reading.
    fn history<'a>(
        &'a self,
        topics: &'a [(Topic, Offset)],
        after: &'a Position,
        upto: Offset,
        most_bytes: usize,
    ) -> BoxFuture<'a, Result<HistoryPage, BackplaneError>>;

    /// For each of these topics, the offset after which its last `most` messages up to `upto` come (fewer where there
    /// are not as many). Topics without messages are left out. The result does not show whether the log has forgotten
    /// older ones.
    fn newest<'a>(
        &'a self,
        topics: &'a [Topic],
        upto: Offset,
        most: usize,
    ) -> BoxFuture<'a, Result<Vec<(Topic, Offset)>, BackplaneError>>;
}

/// The answer to one call of [`History::history`] or [`Sessions::replay`](crate::Sessions::replay).
#[derive(Clone, Debug)]
pub enum HistoryPage {
    /// The messages are complete: none is missing before or between them.
    Exact {
        /// The messages, in the order of their offsets.
        messages: Vec<Message>,
        /// The offset up to which the messages are complete.
        reached: Offset,
        /// True if this is the last page.
        ends: bool,
    },
    /// Messages after the requested position are no longer in the log.
    Trimmed,
    /// The requested position is of another epoch than the log's present one, which is given.
    OtherEpoch(Epoch),
}
