//! Messages that are published in the order of their sender's numbers, each once.

use std::time::Duration;

use crate::position::Offset;

/// A message's place among numbered ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Numbered<'a> {
    /// The sender's name for the messages that are counted together, unique within the hub.
    pub key: &'a str,
    /// The number of this message; the first one has 1.
    pub number: u64,
    /// It is the last one: then what [`Counted::Over`] has from now on.
    pub last: Option<&'a str>,
    /// How long the count is kept from now on.
    pub life: Duration,
}

/// The outcome of [`Log::publish_numbered`](crate::Log::publish_numbered), or the state that
/// [`Log::count`](crate::Log::counted) has found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Counted {
    /// The message was published now, at this offset.
    Now(Offset),
    /// The next message has this number. Nothing was published.
    Expects(u64),
    /// The last message was published, by this call or an earlier one. Nothing was published by this one.
    Over {
        /// The number that it had.
        number: u64,
        /// The text that it was published with.
        last: String,
    },
    /// There is no such count: none was begun, its life is over, or the server has forgotten it. Nothing was published.
    Unknown,
}
