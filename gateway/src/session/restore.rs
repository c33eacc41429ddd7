//! Goes on with a stateful session of another node: takes the connection over and replays from the log the messages
//! that its client may lack, with the same numbers.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use hubcast_backplane::{
    BackplaneError, ConnectionEvent, ConnectionId, ConnectionRecord, EventRecord, GroupName, Listing,
    MAX_EVENT_RECORD_BYTES, NodeId, SessionState, TakeOver, Taken, UserId,
};
use prost::Message as _;
use tokio::time::sleep;

use super::completions::invocation_of;
use super::replaying::Replaying;
use super::run_restored_over_http;
use super::stateful::Stateful;
use super::{CloseReason, Session};
use crate::auth::Identity;
use crate::fanout::Insertion;
use crate::hub::{Carried, Connection, Disconnected, HandedOver, HubRuntime, RequestInfo, Stream, Streams};
use crate::protocol::ClientProtocol;
use crate::protocol::Transport;
use crate::telemetry::labels::{ResumeKind, ResumeOutcome};

/// How often a take-over begins anew because others change the connection at the same time.
const ATTEMPTS: usize = 4;
/// How often nodes that still run calls of a moved connection are looked after.
const WATCH: Duration = Duration::from_secs(1);

/// The client that wants a connection back.
#[derive(Clone)]
pub(crate) enum Claimant {
    /// An authenticated client: it must be the connection's user.
    User(Option<UserId>),
    /// The holder of a secret that the connection's client alone was given.
    Holder,
}

/// The outcome of [`restore`].
pub(crate) enum Restored {
    /// The session goes on here.
    Session(Arc<Session>),
    /// The connection belongs to another user.
    OtherUser,
    /// The connection has ended, or can't be continued exactly.
    Unknown,
    /// Another request of the same client brings it back, here or on another node.
    Busy,
    /// There is nothing to take over: the connection is new, or not resumable.
    Absent,
}

/// The data that another node needs to go on with a connection.
#[derive(Clone, PartialEq, prost::Message)]
struct StoredSession {
    /// Place in `ClientProtocol::ALL`.
    #[prost(uint32, tag = "1")]
    protocol: u32,
    #[prost(string, optional, tag = "2")]
    claims: Option<String>,
    #[prost(message, repeated, tag = "3")]
    headers: Vec<Pair>,
    #[prost(message, repeated, tag = "4")]
    query: Vec<Pair>,
    /// See `Carried`.
    #[prost(bytes = "bytes", optional, tag = "9")]
    carried: Option<bytes::Bytes>,
    /// The streams that its client sends to groups.
    #[prost(message, repeated, tag = "20")]
    streams: Vec<KeptStream>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct KeptStream {
    #[prost(string, tag = "1")]
    id: String,
    /// The stored form of the group's name.
    #[prost(string, tag = "2")]
    group: String,
    #[prost(bool, tag = "3")]
    no_echo: bool,
    /// In milliseconds.
    #[prost(uint64, tag = "4")]
    idle_timeout: u64,
}

impl From<Stream> for KeptStream {
    fn from(stream: Stream) -> Self {
        Self {
            id: stream.id,
            group: stream.group.stored().to_owned(),
            no_echo: stream.no_echo,
            idle_timeout: u64::try_from(stream.idle_timeout.as_millis()).unwrap_or(u64::MAX),
        }
    }
}

impl KeptStream {
    fn restored(self) -> Option<Stream> {
        let group = GroupName::from_stored(&self.group).ok()?;
        let idle_timeout = Duration::from_millis(self.idle_timeout);
        Some(Stream::new(self.id, group, self.no_echo, idle_timeout))
    }
}

#[derive(Clone, PartialEq, prost::Message)]
struct Pair {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    value: String,
}

impl Pair {
    fn all<'a>(pairs: impl Iterator<Item = (&'a str, &'a str)>) -> Vec<Self> {
        let pair = |(name, value): (&str, &str)| Self {
            name: name.to_owned(),
            value: value.to_owned(),
        };
        pairs.map(pair).collect()
    }
}

/// The state that is kept of a connection for other nodes.
pub(crate) fn state_of(connection: &Connection, protocol: ClientProtocol) -> SessionState {
    let kept = StoredSession {
        protocol: u32::try_from(protocol.index()).unwrap_or(u32::MAX),
        claims: connection.identity().to_json(),
        headers: Pair::all(connection.headers()),
        query: Pair::all(connection.query_pairs()),
        carried: connection.data().get::<Carried>().map(|carried| carried.0),
        streams: connection
            .streams()
            .map(|streams| streams.all().into_iter().map(KeptStream::from).collect())
            .unwrap_or_default(),
    };
    kept.encode_to_vec().into()
}

/// The data of a connection that any node needs to deliver its events: without headers, and as much of the rest as there is room
/// for.
pub(crate) fn event_state(connection: &Connection) -> bytes::Bytes {
    let protocol = connection.protocol().map(ClientProtocol::index);
    let mut kept = StoredSession {
        protocol: protocol
            .and_then(|index| u32::try_from(index).ok())
            .unwrap_or(u32::MAX),
        claims: connection.identity().to_json(),
        query: Pair::all(connection.query_pairs()),
        carried: connection.data().get::<Carried>().map(|carried| carried.0),
        ..StoredSession::default()
    };
    if kept.encoded_len() > MAX_EVENT_RECORD_BYTES {
        kept.query.clear();
    }
    if kept.encoded_len() > MAX_EVENT_RECORD_BYTES {
        kept.claims = None;
    }
    kept.encode_to_vec().into()
}

/// The connection that an event speaks of.
pub(crate) fn connection_of_event(event: &ConnectionEvent) -> Connection {
    let state = &event.record.state;
    connection_of(&ConnectionRecord {
        id: event.connection.clone(),
        user: event.user.clone(),
        state: (!state.is_empty()).then(|| state.clone()),
        event: EventRecord::default(),
    })
}

/// The connection that a record speaks of, as far as it is known.
pub(crate) fn connection_of(record: &ConnectionRecord) -> Connection {
    let kept = record
        .state
        .clone()
        .and_then(|state| StoredSession::decode(state).ok());
    let user = record.user.clone();
    let Some(kept) = kept else {
        return Connection::new(record.id.clone(), Identity::of_user(user), RequestInfo::default());
    };
    let claims = kept.claims.as_deref().map(str::as_bytes);
    let identity = claims
        .and_then(Identity::from_json)
        .unwrap_or_else(|| Identity::of_user(user));
    let pairs = |pairs: Vec<Pair>| pairs.into_iter().map(|pair| (pair.name, pair.value)).collect();
    let request = RequestInfo::from_pairs(pairs(kept.headers), pairs(kept.query));
    let connection = Connection::new(record.id.clone(), identity, request);
    if let Some(carried) = kept.carried {
        connection.data().insert(Carried(carried));
    }
    if !kept.streams.is_empty() {
        let streams = kept.streams.into_iter().filter_map(KeptStream::restored);
        connection.restore_streams(Streams::restored(streams.collect()));
    }
    connection.set_transport(Transport::WebSockets);
    let protocol = usize::try_from(kept.protocol).ok();
    if let Some(protocol) = protocol.and_then(|index| ClientProtocol::ALL.get(index)) {
        connection.set_protocol(*protocol);
    }
    connection
}

/// Takes a connection over that is on another node, was given up, or whose node died. Must run in a task of its own: a
/// client that goes away in between leaves no trace.
pub(crate) async fn restore(
    hub: Arc<HubRuntime>,
    id: ConnectionId,
    claimant: Claimant,
) -> Result<Restored, BackplaneError> {
    let backplane = hub.backplane();
    for _ in 0..ATTEMPTS {
        let Some(listing) = backplane.look_up(&id).await? else {
            return Ok(Restored::Absent);
        };
        if listing.state.is_none() {
            return Ok(Restored::Absent);
        }
        if let Claimant::User(user) = &claimant
            && listing.user != *user
        {
            return Ok(Restored::OtherUser);
        }
        let release = release(&hub, &id, &listing).await?;
        if matches!(release, Release::Ended) {
            return Ok(Restored::Unknown);
        }
        let record = listing.to_record(id.clone());
        let session = Session::resumable(Arc::clone(&hub), connection_of(&record));
        session.keep(); // messages that come meanwhile are numbered
        if hub.registry().insert(&session) == Insertion::IdInUse {
            return Ok(Restored::Busy);
        }
        let restoring = Restoring { session, release };
        let taken = match backplane.take_over(&id, listing.version).await {
            Ok(TakeOver::Taken(taken)) => taken,
            Ok(TakeOver::Changed) => {
                restoring.abandon();
                continue;
            }
            Ok(TakeOver::Gone) => {
                restoring.abandon();
                return Ok(Restored::Unknown);
            }
            Err(error) => {
                restoring.abandon();
                return Err(error);
            }
        };
        return restoring.finish(*taken).await;
    }
    Ok(Restored::Busy)
}

enum Release {
    /// The node may still run calls.
    Given(NodeId),
    Parked,
    /// The owner does not answer, or does not know the connection.
    ShutOut(NodeId),
    Ended,
}

/// Has the owner give the connection up.
async fn release(
    hub: &Arc<HubRuntime>,
    id: &ConnectionId,
    listing: &Listing,
) -> Result<Release, BackplaneError> {
    let Some(owner) = &listing.owner else {
        return Ok(Release::Parked);
    };
    if owner == hub.shared().backplane().node() {
        return Ok(Release::ShutOut(owner.clone())); // it is not here, or the caller would have found it
    }
    Ok(
        match hub
            .shared()
            .peers()
            .hand_over(hub, owner, id, listing.user.as_ref())
            .await?
        {
            HandedOver::Given { recoveries } => {
                hub.recoveries().take_over(id, recoveries);
                Release::Given(owner.clone())
            }
            HandedOver::Ended => Release::Ended,
            HandedOver::Silent => Release::ShutOut(owner.clone()),
        },
    )
}

/// The state in which a session left another node.
pub(crate) struct Past {
    /// How many of the client's messages were taken.
    pub(crate) received: u64,
    /// Nodes where the client's calls still run.
    pub(crate) hosts: Vec<NodeId>,
}

/// The outcome of going on with a session.
enum Continued {
    Exactly,
    /// The log does not prove that nothing is missing, calls were lost, or the session has to end.
    Not,
}

/// A session on its way here.
struct Restoring {
    session: Arc<Session>,
    release: Release,
}

impl Restoring {
    fn kind(&self) -> ResumeKind {
        match self.release {
            Release::Given(_) => ResumeKind::HandedOver,
            Release::Parked | Release::Ended => ResumeKind::Parked,
            Release::ShutOut(_) => ResumeKind::ShutOut,
        }
    }

    /// The messages and calls that the former node left for the session here.
    fn past(&self, taken: &Taken) -> Past {
        let hosts: BTreeSet<_> = match &self.release {
            Release::ShutOut(_) => BTreeSet::new(), // its calls were answered with errors
            Release::Given(owner) => std::iter::once(owner)
                .chain(taken.calls.iter().map(|(_, host)| host))
                .collect(),
            Release::Parked | Release::Ended => taken.calls.iter().map(|(_, host)| host).collect(),
        };
        Past {
            received: taken.received,
            hosts: hosts.into_iter().cloned().collect(),
        }
    }

    /// Forgets the session: the connection is not this node's.
    fn abandon(&self) {
        self.session.close(CloseReason::Moved);
        self.session.hub.registry().remove(&self.session);
    }

    async fn finish(self, taken: Taken) -> Result<Restored, BackplaneError> {
        let hub = &self.session.hub;
        let metrics = hub.shared().metrics();
        match self.go_on(&taken).await {
            Ok(Continued::Exactly) => {
                metrics.resumes(self.kind(), ResumeOutcome::Exact).inc();
                tracing::info!(hub = %hub.name(), connection_id = %self.session.id(), kind = ?self.kind(), "session resumed");
                let past = self.past(&taken);
                let running = run_restored_over_http(Arc::clone(&self.session), past);
                hub.shared().tasks().spawn(running);
                Ok(Restored::Session(self.session))
            }
            // It was shut out, or has to give the connection up, before it had gone on.
            Ok(Continued::Not) if self.session.has_moved() => {
                self.session.park().await;
                self.abandon();
                self.session.be_ended();
                Ok(Restored::Busy)
            }
            outcome => {
                metrics.resumes(self.kind(), ResumeOutcome::Lost).inc();
                tracing::info!(hub = %hub.name(), connection_id = %self.session.id(), kind = ?self.kind(), "a session could not be resumed exactly; the client starts anew");
                self.end(taken.record).await;
                outcome.map(|_| Restored::Unknown)
            }
        }
    }

    /// Ends the connection for good: its client starts anew.
    async fn end(&self, record: ConnectionRecord) {
        let (session, hub) = (&self.session, &self.session.hub);
        session.close(CloseReason::LogLost("the session could not be continued"));
        hub.registry().remove(session);
        let reason = if session.is_closed() {
            Disconnected::ByServer
        } else {
            Disconnected::NodeDied
        };
        match hub.backplane().remove(session.id(), hub.end(Some(&reason))).await {
            Ok(true) => hub.ended_elsewhere(record, reason).await,
            Ok(false) => {}
            Err(error) => {
                tracing::warn!(connection_id = %session.id(), %error, "a connection could not be removed");
            }
        }
    }

    /// Fills the outbox.
    async fn go_on(&self, taken: &Taken) -> Result<Continued, BackplaneError> {
        let (session, hub) = (&self.session, &self.session.hub);
        let living = hub.shared().backplane().nodes().await?;
        let died = |host: &NodeId| {
            matches!(&self.release, Release::ShutOut(owner) if owner == host) || !living.contains(host)
        };
        let (lost, elsewhere): (Vec<_>, Vec<_>) =
            taken.calls.iter().cloned().partition(|(_, host)| died(host));
        if lost.iter().any(|(call, _)| invocation_of(call).is_none()) {
            return Ok(Continued::Not); // no completion is wanted, so its failure could not be reported
        }
        let mut replaying = Replaying::of(session, taken);
        let Some((kept, ends)) = replaying.next_page().await? else {
            return Ok(Continued::Not);
        };
        session.take_over_states(&taken.groups);
        session.set_groups(&taken.groups);
        if session.go_on(taken.checkpoint.sequence, kept, !ends).is_err() {
            return Ok(Continued::Not);
        }
        // Not before the outbox has its numbers: from here on there are checkpoints.
        let stateful = Stateful::new(taken.version, taken.position.epoch.clone());
        session.set_stateful(stateful);
        // Where it was closed meanwhile so that its client knows, it goes on until it has said so.
        if session.closing.is_cancelled() && !session.is_closed() {
            return Ok(Continued::Not);
        }
        for (call, host) in lost {
            session.interrupt(&call, &host).await;
        }
        if !elsewhere.is_empty() {
            hub.shared().tasks().spawn(watch(Arc::clone(session), elsewhere));
        }
        if ends {
            replaying.end();
        } else {
            hub.shared().tasks().spawn(replaying.run());
        }
        Ok(Continued::Exactly)
    }
}

/// Looks after calls that run on nodes where the connection was before. Those of a node that dies are answered; the
/// session ends if one of them has no client to be answered.
async fn watch(session: Arc<Session>, mut calls: Vec<(String, NodeId)>) {
    while !calls.is_empty() {
        tokio::select! {
            () = session.closing.cancelled() => return,
            () = sleep(WATCH) => {}
        }
        let Ok(living) = session.hub.shared().backplane().nodes().await else {
            continue;
        };
        let (running, lost): (Vec<_>, Vec<_>) =
            calls.into_iter().partition(|(_, host)| living.contains(host));
        calls = running;
        for (call, host) in lost {
            session.interrupt(&call, &host).await;
        }
    }
}
