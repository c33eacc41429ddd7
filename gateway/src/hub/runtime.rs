//! A hub of a running node: its methods, its local sessions, and the services for them.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use hubcast_backplane::{
    BackplaneError, ConnectionId, ConnectionRecord, End, GroupName, HubBackplane, HubName, Listing,
};
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::checkpoints::Checkpoints;
use super::handed_off_calls::HandedOffCalls;
use super::known::Known;
use super::recoveries::Recoveries;
use super::snapshots::SnapshotReads;
use super::{
    CheckedHub, Connected, Context, Disconnected, Hub, HubError, NextHook, PeerQuestion, Resumed, Shared,
};
use crate::error::Error;
use crate::fanout::{Registry, Sink};
use crate::limits::Terms;
use crate::options::Options;
use crate::protocol::Value;
use crate::session::BurstPolicy;
use crate::session::{ClientResultError, Session, TooManyGroups, connection_of};
use crate::telemetry::labels::LimitLabel;

/// How often, and how long apart, a connection is looked for that the directory says is here.
const SETTLE: (usize, Duration) = (20, Duration::from_millis(5));
/// How long, and at what interval, a directory is asked that can't be trusted yet.
const UNSETTLED: (Duration, Duration) = (Duration::from_secs(10), Duration::from_millis(200));
/// How far nodes' views of the cluster's time may be apart, and more.
const VIEWS: Duration = Duration::from_secs(30);

/// A hub on this node.
pub(crate) struct HubRuntime {
    hub: Hub,
    /// The gateway's, as far as the hub has none of its own.
    options: Options,
    backplane: Arc<dyn HubBackplane>,
    /// The sink of the hub's log.
    sink: Arc<Sink>,
    checkpoints: Checkpoints,
    handed_off_calls: HandedOffCalls,
    known: Known,
    recoveries: Recoveries,
    snapshot_reads: SnapshotReads,
    /// Held while connections leave for nodes that have fewer.
    rebalancing: Arc<Mutex<()>>,
    bursts: Arc<BurstPolicy>,
    terms: Arc<Terms>,
    shared: Arc<Shared>,
}

impl HubRuntime {
    /// The policy by which more than `limits.outbox_bytes` may wait for one of its clients.
    pub(crate) fn bursts(&self) -> &Arc<BurstPolicy> {
        &self.bursts
    }

    /// Held while connections leave for nodes that have fewer.
    pub(crate) fn rebalancing(&self) -> &Arc<Mutex<()>> {
        &self.rebalancing
    }

    /// How slowly its clients may send a message or body that they have begun.
    pub(crate) fn terms(&self) -> Arc<Terms> {
        Arc::clone(&self.terms)
    }

    /// Opens the hub in the backplane. Its log is delivered from then on; nobody receives it yet.
    ///
    /// # Errors
    /// A backplane that can't be reached.
    pub(crate) async fn open(checked: CheckedHub, shared: Arc<Shared>) -> Result<Self, Error> {
        let sink = Arc::new(Sink::new(checked.name.clone(), Arc::clone(&shared)));
        let log = checked.log();
        let CheckedHub { name, hub, options } = checked;
        let opening = shared.backplane().open_hub(name, log, Arc::clone(&sink) as _);
        let backplane = opening.await?;
        let bursts = BurstPolicy {
            patience: options.timeouts.send,
            budget: Arc::clone(shared.budget()),
        };
        Ok(Self {
            bursts: Arc::new(bursts),
            terms: Arc::new(shared.terms_of(&options)),
            hub,
            options,
            backplane,
            sink,
            checkpoints: Checkpoints::default(),
            rebalancing: Arc::default(),
            handed_off_calls: HandedOffCalls::default(),
            known: Known::default(),
            recoveries: Recoveries::default(),
            snapshot_reads: SnapshotReads::default(),
            shared,
        })
    }

    pub(crate) fn options(&self) -> &Options {
        &self.options
    }

    pub(crate) fn name(&self) -> &HubName {
        self.backplane.name()
    }

    /// The hub's log, connections and directory.
    pub(crate) fn backplane(&self) -> &dyn HubBackplane {
        &*self.backplane
    }

    /// The sink of the hub's log, which has the sessions.
    pub(crate) fn sink(&self) -> &Sink {
        &self.sink
    }

    pub(crate) fn hub(&self) -> &Hub {
        &self.hub
    }

    pub(crate) fn registry(&self) -> &Registry {
        self.sink.registry()
    }

    pub(crate) fn checkpoints(&self) -> &Checkpoints {
        &self.checkpoints
    }

    pub(crate) fn known(&self) -> &Known {
        &self.known
    }

    pub(crate) fn snapshot_reads(&self) -> &SnapshotReads {
        &self.snapshot_reads
    }

    pub(crate) fn recoveries(&self) -> &Recoveries {
        &self.recoveries
    }

    pub(crate) fn handed_off_calls(&self) -> &HandedOffCalls {
        &self.handed_off_calls
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// The directory's entry of a connection. While the directory can't be trusted, it is asked again, for a bounded
    /// time.
    pub(crate) async fn look_up(&self, connection: &ConnectionId) -> Result<Option<Listing>, BackplaneError> {
        let until = Instant::now() + UNSETTLED.0;
        loop {
            match self.backplane().look_up(connection).await {
                Err(BackplaneError::Unsettled) if Instant::now() < until => sleep(UNSETTLED.1).await,
                outcome => return outcome,
            }
        }
    }

    /// The session of a connection that the directory says is here: it may be about to be registered.
    pub(crate) async fn find_settled(&self, connection: &ConnectionId) -> Option<Arc<Session>> {
        for _ in 0..SETTLE.0 {
            if let Some(session) = self.registry().find(connection) {
                return Some(session).filter(|session| !session.is_over());
            }
            sleep(SETTLE.1).await;
        }
        None // it has just ended
    }

    /// Has a client's method give a result, wherever the client is. `translated` are the arguments in the other encoding,
    /// where the caller wrote both.
    pub(crate) async fn ask(
        self: &Arc<Self>,
        connection: &ConnectionId,
        target: &str,
        arguments: Vec<Value>,
        translated: Vec<Value>,
        patience: Duration,
    ) -> Result<Value, Error> {
        if let Err(source) = arguments
            .iter()
            .chain(&translated)
            .try_for_each(Value::check_readable)
        {
            let target = target.to_owned();
            return Err(Error::Transcode { target, source });
        }
        let no_answer = || Error::NoAnswer {
            connection: connection.to_string(),
            waited: patience,
        };
        if let Some(session) = self.registry().find(connection) {
            let asking = timeout(patience, session.ask(target.to_owned(), arguments, translated));
            return asking
                .await
                .map_err(|_| no_answer())?
                .map_err(|error| client_result_error(connection, &error));
        }
        let Some(listing) = self.look_up(connection).await? else {
            return Err(Error::NoSuchConnection(connection.to_string()));
        };
        let Some(owner) = listing.owner else {
            return Err(client_result_error(connection, &ClientResultError::Disconnected)); // it may come back
        };
        let question = PeerQuestion {
            target,
            arguments: &arguments,
            translated: &translated,
            patience,
        };
        match self.shared.peers().ask(self, &owner, connection, question).await {
            Ok(answer) => answer.map_err(|error| client_result_error(connection, &error)),
            Err(BackplaneError::Timeout { .. }) => Err(no_answer()),
            Err(BackplaneError::NodeUnreachable { .. }) => {
                Err(client_result_error(connection, &ClientResultError::Disconnected))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Joins or leaves, wherever the connection is: its owner does it, so that subscription, membership and order agree.
    pub(crate) async fn change_group(
        self: &Arc<Self>,
        connection: &ConnectionId,
        group: &GroupName,
        join: bool,
    ) -> Result<(), Error> {
        if self.registry().find(connection).is_some() {
            match self.change_local_group(connection, group, join).await {
                Err(Error::Backplane(BackplaneError::NotOwner { .. })) => {} // it has just moved
                changed => return changed,
            }
        }
        let Some(listing) = self.look_up(connection).await? else {
            return Ok(());
        };
        let Some(owner) = listing.owner else {
            return self.change_parked_group(connection, group, join).await;
        };
        self.shared
            .peers()
            .change_group(self, &owner, connection, group, join)
            .await
    }

    /// Joins or leaves for a connection that no node owns at this moment.
    async fn change_parked_group(
        self: &Arc<Self>,
        connection: &ConnectionId,
        group: &GroupName,
        join: bool,
    ) -> Result<(), Error> {
        let backplane = self.backplane();
        let changed = if join {
            backplane.join(connection, group).await
        } else {
            backplane.leave(connection, group).await
        };
        match changed {
            // The connection has ended, or its client is just coming back somewhere.
            Err(BackplaneError::NotOwner { .. }) => match self.look_up(connection).await? {
                Some(listing) if listing.owner.is_some() => {
                    Box::pin(self.change_group(connection, group, join)).await
                }
                _ => Ok(()),
            },
            changed => changed.map(drop).map_err(Into::into),
        }
    }

    pub(crate) async fn change_local_group(
        &self,
        connection: &ConnectionId,
        group: &GroupName,
        join: bool,
    ) -> Result<(), Error> {
        let Some(session) = self.registry().find(connection) else {
            return Ok(());
        };
        let backplane = self.backplane();
        let group = &self.registry().shared_name(group);
        let was_member = session.groups().contains(group);
        if !join {
            backplane.leave(connection, group).await?;
            session.forget_group(group);
            if was_member {
                self.announce_group(&session, group, false);
            }
            return Ok(());
        }
        let limit = self.options.limits.groups_per_connection;
        if let Err(TooManyGroups) = session.note_group(group, limit) {
            self.shared
                .metrics()
                .limited
                .get(LimitLabel::GroupsPerConnection)
                .inc();
            return Err(Error::TooManyGroups { limit });
        }
        match backplane.join(connection, group).await {
            Ok(_) => {
                if !was_member {
                    self.announce_group(&session, group, true);
                }
                Ok(())
            }
            Err(error) => {
                session.forget_group(group);
                Err(error.into())
            }
        }
    }

    /// Runs the hub's code for changes of groups.
    fn announce_group(&self, session: &Session, group: &GroupName, joined: bool) {
        if let Some(hook) = self.hub.groups_changed().filter(|_| !group.is_reserved()) {
            hook(session.context(), group, joined);
        }
    }

    /// Returns whether code of the hub runs for a new connection.
    pub(crate) fn greets(&self) -> bool {
        self.hub.connected().is_some() || !self.hub.filters().is_empty()
    }

    /// Runs the hub's hook for a new connection, through its filters.
    pub(crate) async fn connected(&self, context: Context) -> Result<(), HubError> {
        let running = Box::pin(async {
            match self.hub.connected() {
                Some(hook) => hook(&context, &Connected).await,
                None => Ok(()),
            }
        });
        guarded(async { NextHook::new(self.hub.filters(), running).run(&context).await }).await
    }

    /// Runs the hub's hook for a connection that was on another node.
    pub(crate) async fn resumed(&self, context: Context) {
        let Some(hook) = self.hub.resumed() else { return };
        if let Err(error) = guarded(async { hook(&context, &Resumed).await }).await {
            let id = context.connection_id();
            tracing::error!(hub = %self.name(), connection_id = %id, %error, "on_resumed failed");
        }
    }

    /// Runs the hub's filters and its hook for a connection that has ended. One that fails does not keep the others from
    /// running.
    async fn disconnected(self: &Arc<Self>, context: Context, reason: Disconnected) {
        let log = |outcome: Result<(), HubError>| {
            if let Err(error) = outcome {
                let id = context.connection_id();
                tracing::error!(hub = %self.name(), connection_id = %id, %error, "on_disconnected failed");
            }
        };
        for filter in self.hub.filters() {
            let filtered = async {
                filter.disconnected(&context, &reason).await;
                Ok(())
            };
            log(guarded(filtered).await);
        }
        if let Some(hook) = self.hub.disconnected() {
            log(guarded(async { hook(&context, &reason).await }).await);
        }
    }

    /// How a connection is removed of whose end hub code hears, unless it never heard of the connection.
    pub(crate) fn end(&self, reason: Option<&Disconnected>) -> End {
        End {
            tombstone: self.tombstone(),
            report: reason.map(Disconnected::to_note),
            reason: reason.map_or_else(|| "server".to_owned(), Disconnected::to_event),
        }
    }

    /// Runs the hub's hook for a connection that this node has removed, or speaks for.
    pub(crate) async fn ended(self: &Arc<Self>, context: Context, reason: Disconnected) {
        let id = context.connection_id().clone();
        self.end_streams(context.connection()).await;
        self.disconnected(context, reason).await;
        self.backplane().end_reported(&id);
    }

    /// Speaks for a connection that no node ran when it ended.
    pub(crate) async fn ended_elsewhere(self: &Arc<Self>, record: ConnectionRecord, reason: Disconnected) {
        let connection = Arc::new(connection_of(&record));
        let cancelled = CancellationToken::new();
        cancelled.cancel();
        let context = Context::new(Arc::clone(self), connection, cancelled);
        self.ended(context, reason).await;
    }

    /// How long the id of an ended connection stays refused: as long as its token could still create it, in any node's view
    /// of the time.
    fn tombstone(&self) -> Duration {
        self.options.timeouts.disconnect.saturating_add(VIEWS)
    }
}

/// Runs user code so that a panic is an error of that code alone.
pub(crate) async fn guarded<T>(running: impl Future<Output = Result<T, HubError>>) -> Result<T, HubError> {
    match AssertUnwindSafe(running).catch_unwind().await {
        Ok(outcome) => outcome,
        Err(panic) => Err(panicked(&*panic)),
    }
}

#[derive(Debug, thiserror::Error)]
#[error("hub code panicked: {0}")]
struct Panicked(String);

/// The error of hub code that panicked.
pub(super) fn panicked(panic: &(dyn Any + Send)) -> HubError {
    let text = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    Panicked(text.unwrap_or("no message").to_owned()).into()
}

fn client_result_error(connection: &ConnectionId, error: &ClientResultError) -> Error {
    match error {
        ClientResultError::Disconnected => Error::Disconnected(connection.to_string()),
        ClientResultError::Client(_) | ClientResultError::NoResult => Error::Client(error.to_string()),
    }
}
