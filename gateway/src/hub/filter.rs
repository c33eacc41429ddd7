//! Code around every invocation, connect and disconnect of a hub.

use std::fmt;

use futures_util::future::BoxFuture;

use super::{Context, Disconnected, HubError, ValueStream};
use crate::protocol::Value;

/// Runs around the methods and hooks of a hub: logs, measures, checks, changes errors. Filters are asked in the order in
/// which they were added; each decides whether `next` runs.
///
/// ```
/// use futures_util::future::BoxFuture;
/// use hubcast::{Filter, Hub, HubError, Invoked, Next, Reply};
///
/// struct ReadOnly;
///
/// impl Filter for ReadOnly {
///     fn invoke<'a>(&'a self, invoked: &'a Invoked, next: Next<'a>) -> BoxFuture<'a, Result<Reply, HubError>> {
///         Box::pin(async move {
///             if invoked.method().starts_with("Set") {
///                 return Err(HubError::new("this hub can't be changed now"));
///             }
///             next.run(invoked).await
///         })
///     }
/// }
///
/// let hub = Hub::new("board").filter(ReadOnly);
/// ```
pub trait Filter: Send + Sync + 'static {
    /// Runs around a method. For a streaming method `next` ends when its stream begins.
    fn invoke<'a>(&'a self, invoked: &'a Invoked, next: Next<'a>) -> BoxFuture<'a, Result<Reply, HubError>> {
        next.run(invoked)
    }

    /// Runs around the hook for a new connection. An error closes the connection.
    fn connected<'a>(
        &'a self,
        context: &'a Context,
        next: NextHook<'a>,
    ) -> BoxFuture<'a, Result<(), HubError>> {
        next.run(context)
    }

    /// Runs before the hook for a connection that has ended.
    fn disconnected<'a>(&'a self, context: &'a Context, reason: &'a Disconnected) -> BoxFuture<'a, ()> {
        let _ = (context, reason);
        Box::pin(std::future::ready(()))
    }
}

/// An invocation that a filter looks at.
#[derive(Debug)]
pub struct Invoked {
    method: String,
    context: Context,
    arguments: Vec<Value>,
}

impl Invoked {
    pub(crate) fn new(method: String, context: Context, arguments: Vec<Value>) -> Self {
        Self {
            method,
            context,
            arguments,
        }
    }

    /// The method's name as the hub defines it.
    #[must_use]
    pub fn method(&self) -> &str {
        &self.method
    }

    /// Who calls.
    #[must_use]
    pub fn context(&self) -> &Context {
        &self.context
    }

    /// The arguments as the client encoded them, without uploads.
    #[must_use]
    pub fn arguments(&self) -> &[Value] {
        &self.arguments
    }
}

/// What a method answers, on its way through the filters.
pub struct Reply(pub(crate) ReplyKind);

pub(crate) enum ReplyKind {
    Value(Value),
    Stream(ValueStream),
}

impl Reply {
    /// The result, encoded for the caller; `None` for a stream.
    #[must_use]
    pub fn value(&self) -> Option<&Value> {
        match &self.0 {
            ReplyKind::Value(value) => Some(value),
            ReplyKind::Stream(_) => None,
        }
    }
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Reply").field(&self.value()).finish()
    }
}

/// The rest of the way to a method. Dropped without `run`, the method does not run.
pub struct Next<'a> {
    filters: &'a [Box<dyn Filter>],
    running: BoxFuture<'a, Result<Reply, HubError>>,
}

impl<'a> Next<'a> {
    pub(crate) fn new(
        filters: &'a [Box<dyn Filter>],
        running: BoxFuture<'a, Result<Reply, HubError>>,
    ) -> Self {
        Self { filters, running }
    }

    /// Goes on.
    pub fn run(self, invoked: &'a Invoked) -> BoxFuture<'a, Result<Reply, HubError>> {
        match self.filters.split_first() {
            Some((filter, rest)) => filter.invoke(
                invoked,
                Next {
                    filters: rest,
                    running: self.running,
                },
            ),
            None => self.running,
        }
    }
}

impl fmt::Debug for Next<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Next")
            .field("filters", &self.filters.len())
            .finish_non_exhaustive()
    }
}

/// The rest of the way to the hook for a new connection.
pub struct NextHook<'a> {
    filters: &'a [Box<dyn Filter>],
    running: BoxFuture<'a, Result<(), HubError>>,
}

impl<'a> NextHook<'a> {
    pub(crate) fn new(filters: &'a [Box<dyn Filter>], running: BoxFuture<'a, Result<(), HubError>>) -> Self {
        Self { filters, running }
    }

    /// Goes on.
    pub fn run(self, context: &'a Context) -> BoxFuture<'a, Result<(), HubError>> {
        match self.filters.split_first() {
            Some((filter, rest)) => filter.connected(
                context,
                NextHook {
                    filters: rest,
                    running: self.running,
                },
            ),
            None => self.running,
        }
    }
}

impl fmt::Debug for NextHook<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NextHook")
            .field("filters", &self.filters.len())
            .finish_non_exhaustive()
    }
}
