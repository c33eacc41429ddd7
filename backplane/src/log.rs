//! The log of one hub: messages that are appended to it, and its position.

use std::time::Duration;

use futures_util::future::BoxFuture;

use crate::error::BackplaneError;
use crate::numbered::{Counted, Numbered};
use crate::once::{Once, Published};
use crate::position::{Epoch, Offset, Position};
use crate::topic::Topic;
use crate::wire::Envelope;

/// The log of a hub. Part of [`HubBackplane`](crate::HubBackplane).
///
/// Every message that reaches more than its own caller goes through [`publish`](Log::publish) and comes back to the nodes
/// that have receivers, this one included, through their [`HubSink`](crate::HubSink): one path, one order.
pub trait Log: Send + Sync {
    /// The epoch of the log as this node knows it. A newer epoch may have begun.
    fn epoch(&self) -> Epoch;

    /// The position of the hub's newest entry.
    fn position(&self) -> BoxFuture<'_, Result<Position, BackplaneError>>;

    /// Appends a message to each of the topics, in order, and pushes it to the nodes with receivers.
    ///
    /// The returned offsets are in the order of `topics`. A message to a [`Topic::Connection`] that does not exist is
    /// not appended: its offset is `None`. Messages to groups and users without connections are appended; connections
    /// that join later do not receive them.
    ///
    /// On error, topics before the failing one may have been published to.
    fn publish<'a>(
        &'a self,
        topics: &'a [Topic],
        envelope: &'a Envelope,
    ) -> BoxFuture<'a, Result<Vec<Option<Offset>>, BackplaneError>>;

    /// As [`Log::publish`] to one topic, but where a request with this key was published to the hub within its
    /// retention, on any node, nothing is published again. The check and the publish are one step. After an error the
    /// same request may be repeated.
    fn publish_once<'a>(
        &'a self,
        topic: &'a Topic,
        envelope: &'a Envelope,
        once: &'a Once,
    ) -> BoxFuture<'a, Result<Published, BackplaneError>>;

    /// Reads how far the numbered messages of a sender are, on whatever node they were published, and keeps the count for
    /// `life` from now on. `begins`: begins it, unless it is under way.
    fn counted<'a>(
        &'a self,
        key: &'a str,
        life: Duration,
        begins: bool,
    ) -> BoxFuture<'a, Result<Counted, BackplaneError>>;

    /// As [`Log::publish`] to one topic, which is no connection's, where the message is the next one of its count. The check,
    /// the count and the publish are one step. After an error the same call may be repeated.
    fn publish_numbered<'a>(
        &'a self,
        topic: &'a Topic,
        envelope: &'a Envelope,
        numbered: Numbered<'a>,
    ) -> BoxFuture<'a, Result<Counted, BackplaneError>>;

    /// Waits until the sink was given all entries up to an offset that a publish of this node has returned, for at most
    /// as long as a command may take. Returns at once where a new epoch has begun since.
    ///
    /// # Errors
    /// [`BackplaneError::Timeout`] where the sink did not reach the offset in time.
    fn passed(&self, offset: Offset) -> BoxFuture<'_, Result<(), BackplaneError>>;
}
