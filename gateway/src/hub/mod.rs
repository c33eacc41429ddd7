//! Hubs: named sets of methods that clients call, and of clients that are called.

mod admission;
mod checkpoints;
mod clients;
mod connecting;
mod connection;
mod connection_events;
mod context;
mod delivering;
mod disconnected;
mod dispatch;
mod entry;
mod error;
mod event;
mod filter;
mod handed_off_calls;
mod handle;
mod hook;
mod hubs;
mod identities;
mod known;
mod members;
mod method;
mod of_connection;
mod opening;
mod outcome;
mod peers;
mod permits;
mod presence;
mod publish;
mod recoveries;
mod regroup;
mod rest;
mod runtime;
mod settings;
mod shared;
mod snapshots;
mod state;
mod streams;
mod upload;
mod watching;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use hubcast_backplane::HubName;

use crate::error::Error;
use crate::options::Options;

use admission::Permit;
pub use clients::{Arguments, CallerClients, Clients, Recipient, Recipients};
pub(crate) use connecting::{Accepted, ConnectHandler, Connecting, GroupHook, Owed, TurnedAway};
pub use connection::Connection;
pub(crate) use connection::{Chosen, RequestInfo};
pub(crate) use connection_events::event_record;
pub use connection_events::{ConnectionEvent, ConnectionEventPage, MAX_EVENTS};
pub(crate) use context::Calls;
pub use context::Context;
pub(crate) use delivering::{Delivering, EventHandler, deliver_events};
pub use disconnected::Disconnected;
pub(crate) use disconnected::{BY_CLIENT, BY_SERVER};
pub(crate) use dispatch::{Dispatched, MethodFailure, dispatch, stream_error};
pub(crate) use entry::{Entry, Target};
use entry::{Problem, needed};
pub use error::HubError;
pub use event::{Event, Question};
pub(crate) use filter::ReplyKind;
pub use filter::{Filter, Invoked, Next, NextHook, Reply};
pub(crate) use handed_off_calls::NoCalls;
pub use handle::{Groups, HubHandle};
pub use hook::{Connected, FromHook, Hook, HookOutcome, Resumed};
use hook::{ErasedHook, erase_hook};
pub(crate) use hubs::{Hubs, NotDeclared, Template, begin_delivery};
pub use members::{ConnectionStatistics, InGroup, MAX_PAGE, MAX_REASON_BYTES, OfUser, Page};
pub use method::{BindError, Call, FromInvocation, Method, StreamMethod, marker};
pub use of_connection::OfConnection;
pub(crate) use opening::CheckedHub;
pub(crate) use outcome::ValueStream;
pub use outcome::{IntoOutcome, IntoStream};
pub(crate) use peers::{Closing, Drained, HandedOver, Peers, Question as PeerQuestion};
pub(crate) use permits::Permitted;
pub(crate) use publish::{LONGEST_LIFE, Outgoing, with_metadata};
pub(crate) use regroup::{RegroupWish, Regrouping, RegroupingError};
pub use rest::Rest;
pub(crate) use runtime::{HubRuntime, guarded};
pub use settings::HubSettings;
use settings::SettingsChange;
pub(crate) use shared::Shared;
pub(crate) use snapshots::Snapshot;
pub(crate) use state::Carried;
pub(crate) use state::States;
pub use state::{ConnectionData, Needed, State};
pub(crate) use streams::{CANCELLED, ENDED, Stream, Streams, end_error};
pub(crate) use upload::{RawUpload, UploadEvent};
pub use upload::{Upload, UploadError};
pub use watching::{Member, MemberPage};

/// A hub under construction: plain async functions by the names that clients call them by.
///
/// ```
/// use hubcast::{Context, Hub, HubError};
///
/// async fn send_message(context: Context, user: String, text: String) -> Result<(), HubError> {
///     context.clients().all().send("ReceiveMessage", (user, text)).await?;
///     Ok(())
/// }
///
/// async fn add(a: i64, b: i64) -> i64 {
///     a + b
/// }
///
/// let hub = Hub::new("chat").method("SendMessage", send_message).method("Add", add);
/// ```
pub struct Hub {
    name: String,
    targets: HashMap<String, Entry>,
    /// The method for names that no other has.
    fallback: Option<Entry>,
    /// The first problem of the hub, reported when the gateway is built.
    problem: Option<Problem>,
    filters: Vec<Box<dyn Filter>>,
    connected: Option<ErasedHook<Connected>>,
    resumed: Option<ErasedHook<Resumed>>,
    disconnected: Option<ErasedHook<Disconnected>>,
    connecting: Option<Arc<dyn ConnectHandler>>,
    groups_changed: Option<GroupHook>,
    events: Option<Arc<dyn EventHandler>>,
    /// The states that the hooks take, by the hook's name.
    hooks_need: HashMap<&'static str, Vec<Needed>>,
    configure: Vec<SettingsChange>,
    /// The permits that clients must have to connect.
    required: Vec<Permit>,
    states: States,
}

impl Hub {
    /// A hub without methods. Names are ASCII letters, digits, `_`, `-` and `.`.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            targets: HashMap::new(),
            fallback: None,
            problem: None,
            filters: Vec::new(),
            connected: None,
            resumed: None,
            disconnected: None,
            connecting: None,
            groups_changed: None,
            events: None,
            hooks_need: HashMap::new(),
            configure: Vec::new(),
            required: Vec::new(),
            states: States::default(),
        }
    }

    /// Adds a method. Clients call it by `name`, in any case.
    ///
    /// `method` is an async function of up to eight parameters. Each is taken from the invocation by its type: a
    /// [`Context`] anywhere, everything else that serde can deserialize from the next argument. It returns a value that
    /// serde can serialize, or a `Result` of one and [`HubError`].
    #[must_use]
    pub fn method<M>(self, name: impl Into<String>, method: impl Method<M>) -> Self
    where
        M: 'static,
    {
        let needed = needed(|needed| method.needs(needed));
        self.target(name.into(), Target::Plain(method::erase(method)), needed)
    }

    /// Adds the method for calls of names that the hub does not have. It learns the name from [`Call::target`], by a
    /// parameter of its own type. A second one takes the place of the first.
    ///
    /// ```
    /// use hubcast::Hub;
    /// use hubcast::hub::{BindError, Call, FromInvocation, Rest, marker};
    /// use hubcast::testing::HubTester;
    ///
    /// struct Name(String);
    ///
    /// impl FromInvocation<marker::Context> for Name {
    ///     const ARGUMENTS: usize = 0;
    ///
    ///     fn from_invocation(call: &mut Call) -> Result<Self, BindError> {
    ///         Ok(Self(call.target().to_owned()))
    ///     }
    /// }
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let hub = Hub::new("any").fallback(async |Name(name): Name, rest: Rest| format!("{name}/{}", rest.0.len()));
    /// let tester = HubTester::new(hub).await?;
    /// let mut client = tester.connect().await;
    /// assert_eq!(client.invoke::<String>("Sing", ("a", "b")).await?, "Sing/2");
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn fallback<M>(mut self, method: impl Method<M>) -> Self
    where
        M: 'static,
    {
        self.fallback = Some(Entry {
            name: "fallback".to_owned(),
            needed: needed(|needed| method.needs(needed)),
            target: Target::Plain(method::erase(method)),
            required: Vec::new(),
        });
        self
    }

    /// Adds a method that answers with a stream of items, for clients' `stream` calls. Parameters are those of a
    /// [`method`](Self::method). It returns a `Stream` of values or of results, or a `Result` of such a stream.
    ///
    /// Items are taken as fast as the client reads them. The stream is dropped as soon as the client cancels it or is
    /// gone.
    ///
    /// ```
    /// use futures_util::stream::{self, Stream};
    /// use hubcast::{Hub, HubError};
    ///
    /// async fn countdown(from: u32) -> Result<impl Stream<Item = u32>, HubError> {
    ///     if from > 1_000 {
    ///         return Err(HubError::new("that would take too long"));
    ///     }
    ///     Ok(stream::iter((0..from).rev()))
    /// }
    ///
    /// let hub = Hub::new("launch").stream("Countdown", countdown);
    /// ```
    #[must_use]
    pub fn stream<M>(self, name: impl Into<String>, method: impl StreamMethod<M>) -> Self
    where
        M: 'static,
    {
        let needed = needed(|needed| method.needs(needed));
        self.target(name.into(), Target::Stream(method::erase_stream(method)), needed)
    }

    /// Runs after a client's handshake and before its first invocation. An error closes the connection, and the client
    /// does not reconnect by itself. A second hook takes the place of the first.
    ///
    /// `hook` is an async function of up to eight parameters, in any order: [`Context`], [`State`], and types that
    /// implement [`FromHook`]. It can't request client results.
    ///
    /// ```
    /// use std::sync::atomic::{AtomicUsize, Ordering};
    /// use hubcast::hub::{Disconnected, State};
    /// use hubcast::{Context, Hub, HubError};
    ///
    /// async fn welcome(context: Context, online: State<AtomicUsize>) -> Result<(), HubError> {
    ///     let online = online.fetch_add(1, Ordering::Relaxed) + 1;
    ///     Ok(context.clients().all().send("Online", (online,)).await?)
    /// }
    ///
    /// async fn part(context: Context, why: Disconnected, online: State<AtomicUsize>) {
    ///     online.fetch_sub(1, Ordering::Relaxed);
    ///     println!("{} left: {why}", context.connection_id());
    /// }
    ///
    /// let hub = Hub::new("lobby").state(AtomicUsize::new(0)).on_connected(welcome).on_disconnected(part);
    /// ```
    #[must_use]
    pub fn on_connected<M>(mut self, hook: impl Hook<Connected, M>) -> Self {
        let needed = needed(|needed| hook.needs(needed));
        self.hooks_need.insert("on_connected", needed);
        self.connected = Some(erase_hook(hook));
        self
    }

    /// Runs on a node that goes on with a connection of another one, before it handles messages: a client with stateful
    /// reconnect came back here, because its socket broke or its node stopped. Id, user, claims, groups and the first
    /// request's headers and query are as they were. [`ConnectionData`] is not: it is lost, and this is the place to
    /// fill it anew. Neither [`on_connected`](Self::on_connected) nor [`on_disconnected`](Self::on_disconnected) runs for
    /// a move. An error is logged. A second hook takes the place of the first.
    ///
    /// Parameters are those of [`on_connected`](Self::on_connected).
    ///
    /// ```
    /// use hubcast::{Context, Hub};
    ///
    /// struct Name(String);
    ///
    /// async fn know(context: Context) {
    ///     let name = context.connection().query("name").unwrap_or("somebody").to_owned();
    ///     context.connection().data().insert(Name(name));
    /// }
    ///
    /// let hub = Hub::new("lobby").on_connected(know).on_resumed(know);
    /// ```
    #[must_use]
    pub fn on_resumed<M>(mut self, hook: impl Hook<Resumed, M>) -> Self {
        let needed = needed(|needed| hook.needs(needed));
        self.hooks_need.insert("on_resumed", needed);
        self.resumed = Some(erase_hook(hook));
        self
    }

    /// Runs once after a connection has ended, wherever it ended: if its node died, another node that serves the hub runs it, after
    /// `backplane.lease_seconds`, with a context that knows only the ids of connection and user. It runs again, on another
    /// node, only if a node is killed while it runs; whoever must count exactly once counts the ids of
    /// [connection events](crate::hub::HubHandle::events). The end of a connection with stateful reconnect is when its
    /// client has not come back to any node within `hubs.resume_window_seconds`; then identity and request are known, too. A connection whose `on_connected` failed ends like any
    /// other. An error is logged. A second hook takes the place of the first.
    ///
    /// Parameters are those of [`on_connected`](Self::on_connected) and [`Disconnected`], the reason.
    #[must_use]
    pub fn on_disconnected<M>(mut self, hook: impl Hook<Disconnected, M>) -> Self {
        let needed = needed(|needed| hook.needs(needed));
        self.hooks_need.insert("on_disconnected", needed);
        self.disconnected = Some(erase_hook(hook));
        self
    }

    /// Changes settings for this hub alone: sizes, times, parallel invocations, detailed errors, and so on.
    ///
    /// ```
    /// use std::time::Duration;
    /// use hubcast::Hub;
    ///
    /// let hub = Hub::new("board").configure(|settings| {
    ///     settings.limits.message_bytes = 256 * 1024;
    ///     settings.hubs.parallel_invocations = 4;
    ///     settings.timeouts.keep_alive = Duration::from_secs(5);
    /// });
    /// ```
    #[must_use]
    pub fn configure(mut self, change: impl Fn(&mut HubSettings) + Send + Sync + 'static) -> Self {
        self.configure.push(Box::new(change));
        self
    }

    /// Gives the hub something that its methods take as [`State`]: one value for each type.
    #[must_use]
    pub fn state<T: Send + Sync + 'static>(self, value: T) -> Self {
        self.shared_state(Arc::new(value))
    }

    /// As [`state`](Self::state), for a value that others hold too.
    #[must_use]
    pub fn shared_state<T: Send + Sync + 'static>(mut self, value: Arc<T>) -> Self {
        self.states.insert(value);
        self
    }

    /// Adds a filter around methods and hooks, inside of those added before.
    #[must_use]
    pub fn filter(mut self, filter: impl Filter) -> Self {
        self.filters.push(Box::new(filter));
        self
    }

    /// Has code decide about each client before it is accepted.
    pub(crate) fn on_connect(mut self, handler: Arc<dyn ConnectHandler>) -> Self {
        self.connecting = Some(handler);
        self
    }

    /// Has code be told of connections that begin and end, until it has taken that.
    pub(crate) fn on_events(mut self, handler: Arc<dyn EventHandler>) -> Self {
        self.events = Some(handler);
        self
    }

    /// The code to which events of connections are delivered.
    pub(crate) fn event_handler(&self) -> Option<&Arc<dyn EventHandler>> {
        self.events.as_ref().filter(|handler| handler.delivers())
    }

    /// Has code be told which groups connections of this node join and leave: `true` for a join.
    pub(crate) fn on_group_change(mut self, hook: GroupHook) -> Self {
        self.groups_changed = Some(hook);
        self
    }

    /// The code that is told of groups.
    pub(crate) fn groups_changed(&self) -> Option<&GroupHook> {
        self.groups_changed.as_ref()
    }

    /// The code that decides at present about clients.
    pub(crate) fn connecting(&self) -> Option<&Arc<dyn ConnectHandler>> {
        self.connecting.as_ref().filter(|handler| handler.is_asked())
    }

    /// The name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    fn target(mut self, name: String, target: Target, needed: Vec<Needed>) -> Self {
        let entry = Entry {
            name: name.clone(),
            target,
            required: Vec::new(),
            needed,
        };
        if self.targets.insert(name.to_lowercase(), entry).is_some() {
            self.problem.get_or_insert(Problem::DefinedTwice(name));
        }
        self
    }

    /// The name, checked, as is everything else that can be.
    pub(crate) fn check(&self) -> Result<HubName, Error> {
        match &self.problem {
            Some(Problem::DefinedTwice(name)) => {
                return Err(Error::DefinedTwice {
                    kind: "method",
                    name: name.clone(),
                });
            }
            Some(Problem::NoSuchMethod(name)) => return Err(Error::NoSuchMethod(name.clone())),
            None => {}
        }
        let methods = self.targets.values().chain(&self.fallback);
        let methods = methods.map(|entry| (&*entry.name, &entry.needed));
        let hooks = self.hooks_need.iter().map(|(name, needed)| (*name, needed));
        for (name, needed) in methods.chain(hooks) {
            if let Some(missing) = needed.iter().find(|needed| !self.states.holds(**needed)) {
                return Err(Error::MissingState {
                    method: name.to_owned(),
                    state: missing.name,
                });
            }
        }
        Ok(HubName::parse(&self.name)?)
    }

    /// The gateway's options with this hub's own changes.
    pub(crate) fn options(&self, base: &Options) -> Options {
        let mut settings = HubSettings {
            limits: base.limits.clone(),
            timeouts: base.timeouts.clone(),
            hubs: base.hubs.clone(),
        };
        self.configure.iter().for_each(|change| change(&mut settings));
        let HubSettings {
            limits,
            timeouts,
            hubs,
        } = settings;
        Options {
            limits,
            timeouts,
            hubs,
            ..base.clone()
        }
    }

    /// The method that a client means.
    pub(crate) fn find(&self, target: &str) -> Option<&Entry> {
        self.targets.get(&target.to_lowercase())
    }

    /// The method for names that no other has.
    pub(crate) fn fallback_entry(&self) -> Option<&Entry> {
        self.fallback.as_ref()
    }

    pub(crate) fn states(&self) -> &States {
        &self.states
    }

    pub(crate) fn filters(&self) -> &[Box<dyn Filter>] {
        &self.filters
    }

    pub(crate) fn connected(&self) -> Option<&ErasedHook<Connected>> {
        self.connected.as_ref()
    }

    pub(crate) fn resumed(&self) -> Option<&ErasedHook<Resumed>> {
        self.resumed.as_ref()
    }

    pub(crate) fn disconnected(&self) -> Option<&ErasedHook<Disconnected>> {
        self.disconnected.as_ref()
    }
}

impl fmt::Debug for Hub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hub")
            .field("name", &self.name)
            .field("methods", &self.targets.len())
            .finish_non_exhaustive()
    }
}
