//! Reads what several topics had, in one order: for receivers that hold their own place in the log.

use futures_util::future::BoxFuture;

use crate::backplane::Message;
use crate::error::BackplaneError;
use crate::position::{Epoch, Offset, Position};
use crate::topic::{HubName, Topic};

/// What topics had. Part of [`Backplane`](crate::Backplane).
pub trait History: Send + Sync {
    /// The messages of these topics after `after` and up to `upto` ([`Offset::MAX`] for the log's end), in the order of
    /// their offsets: about `most_bytes`, or as many as there are. Each topic counts after the offset beside it only. Whoever
    /// wants the rest asks again from [`Page::Exact::reached`]. A caller that drops the returned future stops the reading.
    fn history<'a>(
        &'a self,
        hub: &'a HubName,
        topics: &'a [(Topic, Offset)],
        after: &'a Position,
        upto: Offset,
        most_bytes: usize,
    ) -> BoxFuture<'a, Result<Page, BackplaneError>>;

    /// After which offset the last messages of each of these topics come, `most` of each if there are as many, up to `upto`.
    /// Topics without any are left out. Whether there were older ones that the log has forgotten is not told.
    fn newest<'a>(
        &'a self,
        hub: &'a HubName,
        topics: &'a [Topic],
        upto: Offset,
        most: usize,
    ) -> BoxFuture<'a, Result<Vec<(Topic, Offset)>, BackplaneError>>;
}

/// A part of what a reader asked for.
#[derive(Clone, Debug)]
pub enum Page {
    /// These messages, and nothing is missing before or between them.
    Exact {
        /// In order.
        messages: Vec<Message>,
        /// Nothing up to here is missing.
        reached: Offset,
        /// There is nothing more, as far as it was asked for.
        ends: bool,
    },
    /// Messages after the asked position were trimmed away.
    Trimmed,
    /// The position is of another epoch.
    OtherEpoch(Epoch),
}
