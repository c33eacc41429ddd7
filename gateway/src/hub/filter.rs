//! Code around every invocation, connect and disconnect of a hub.

use std::fmt;

use futures_util::future::BoxFuture;

use super::{Context, Disconnected, HubError, ValueStream};
use crate::protocol::Value;

/// Runs around the methods and hooks of a hub: logs, measures, checks, changes answers and errors. Filters run in the
/// order in which they were added; each decides whether `next` runs. A filter's return value is the one that the filter
/// before it sees, and in the end the client.
///
/// A filter runs after the method was found, its restriction was checked and its arguments were read as the parameters'
/// types: arguments that do not fit are refused without it.
///
/// ```
/// use futures_util::future::BoxFuture;
/// use hubcast::hub::{Filter, Invoked, Next, Reply};
/// use hubcast::{Hub, HubError};
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
    /// Runs around a method. For a streaming method `next` ends when its stream begins: items pass no filter.
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

    /// Runs before the hook for a connection that has ended, which runs in any case.
    fn disconnected<'a>(&'a self, context: &'a Context, reason: &'a Disconnected) -> BoxFuture<'a, ()> {
        let _ = (context, reason);
        Box::pin(std::future::ready(()))
    }
}

/// An invocation that a filter looks at.
///
/// ```
/// use futures_util::future::BoxFuture;
/// use hubcast::hub::{Filter, Invoked, Next, Reply};
/// use hubcast::HubError;
///
/// /// Only members of a room may call methods whose first argument is a room.
/// struct MembersOnly;
///
/// impl Filter for MembersOnly {
///     fn invoke<'a>(&'a self, invoked: &'a Invoked, next: Next<'a>) -> BoxFuture<'a, Result<Reply, HubError>> {
///         let room = invoked.arguments().first().and_then(|room| room.decode::<String>().ok());
///         let groups = invoked.context().groups();
///         match room {
///             Some(room) if invoked.method() != "Join" && !groups.iter().any(|group| group.as_str() == room) => {
///                 Box::pin(std::future::ready(Err(HubError::new("join the room first"))))
///             }
///             _ => next.run(invoked),
///         }
///     }
/// }
/// ```
pub struct Invoked {
    method: String,
    context: Context,
    arguments: Vec<Value>,
    uploads: usize,
}

impl Invoked {
    pub(crate) fn new(method: &str, context: &Context, arguments: &[Value], uploads: usize) -> Self {
        Self {
            method: method.to_owned(),
            context: context.clone(),
            arguments: arguments.to_vec(),
            uploads,
        }
    }

    /// The method's name as the hub defines it.
    #[must_use]
    pub fn method(&self) -> &str {
        &self.method
    }

    /// The context of the call.
    #[must_use]
    pub fn context(&self) -> &Context {
        &self.context
    }

    /// The arguments as the client encoded them, without uploads.
    #[must_use]
    pub fn arguments(&self) -> &[Value] {
        &self.arguments
    }

    /// How many uploads the client sends along.
    ///
    /// Their items can't be seen: they come after the invocation has begun, straight into the queue of the method's
    /// [`Upload`](crate::hub::Upload), and get their type only when the method takes them from there.
    #[must_use]
    pub fn uploads(&self) -> usize {
        self.uploads
    }
}

/// Leaves the arguments out, which may be secrets.
impl fmt::Debug for Invoked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Invoked")
            .field("method", &self.method)
            .field("context", &self.context)
            .finish_non_exhaustive()
    }
}

/// The answer of a method, on its way through the filters: a result, or a stream that has begun.
///
/// ```
/// use futures_util::future::BoxFuture;
/// use hubcast::protocol::Value;
/// use hubcast::hub::{Filter, Invoked, Next, Reply};
/// use hubcast::HubError;
///
/// /// Answers every result in an object of its own, as `{"ok": …}`.
/// struct Wrapped;
///
/// impl Filter for Wrapped {
///     fn invoke<'a>(&'a self, invoked: &'a Invoked, next: Next<'a>) -> BoxFuture<'a, Result<Reply, HubError>> {
///         Box::pin(async move {
///             let reply = next.run(invoked).await?;
///             let Some(value) = reply.value() else { return Ok(reply) };
///             let wrapped = std::collections::BTreeMap::from([("ok", value.decode::<serde_json::Value>()?)]);
///             Ok(Reply::from(Value::encode(&wrapped)?))
///         })
///     }
/// }
/// ```
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

/// Another result than the method's, or one without the method: for a method that streams this is an error.
impl From<Value> for Reply {
    fn from(value: Value) -> Self {
        Self(ReplyKind::Value(value))
    }
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Reply").field(&self.value()).finish()
    }
}

/// The rest of the way to a method. Dropped without `run`, the method does not run.
///
/// ```
/// use futures_util::future::BoxFuture;
/// use hubcast::hub::{Filter, Invoked, Next, Reply};
/// use hubcast::HubError;
///
/// struct Timed;
///
/// impl Filter for Timed {
///     fn invoke<'a>(&'a self, invoked: &'a Invoked, next: Next<'a>) -> BoxFuture<'a, Result<Reply, HubError>> {
///         Box::pin(async move {
///             let began = tokio::time::Instant::now();
///             let reply = next.run(invoked).await;
///             println!("{} took {:?}", invoked.method(), began.elapsed());
///             reply
///         })
///     }
/// }
/// ```
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

    /// Goes on to the next filter, after the last one to the method.
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

/// The rest of the way to the hook for a new connection. Dropped without `run`, the hook does not run.
///
/// ```
/// use futures_util::future::BoxFuture;
/// use hubcast::hub::{Disconnected, Filter, NextHook};
/// use hubcast::{Context, HubError};
///
/// struct Doorman;
///
/// impl Filter for Doorman {
///     fn connected<'a>(&'a self, context: &'a Context, next: NextHook<'a>) -> BoxFuture<'a, Result<(), HubError>> {
///         if context.connection().header("user-agent").is_some_and(|agent| agent.contains("bot")) {
///             return Box::pin(async { Err(HubError::new("no robots")) });
///         }
///         next.run(context)
///     }
///
///     fn disconnected<'a>(&'a self, context: &'a Context, reason: &'a Disconnected) -> BoxFuture<'a, ()> {
///         Box::pin(async move { println!("{} left: {reason}", context.connection_id()) })
///     }
/// }
/// ```
pub struct NextHook<'a> {
    filters: &'a [Box<dyn Filter>],
    running: BoxFuture<'a, Result<(), HubError>>,
}

impl<'a> NextHook<'a> {
    pub(crate) fn new(filters: &'a [Box<dyn Filter>], running: BoxFuture<'a, Result<(), HubError>>) -> Self {
        Self { filters, running }
    }

    /// Goes on to the next filter, after the last one to the hook, if the hub has one.
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
