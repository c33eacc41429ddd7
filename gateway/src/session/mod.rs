//! A connection's state on the node that owns it, the same for all transports.

mod client_results;
mod close;
mod completions;
mod end;
mod expiry;
mod follow;
mod frames;
mod group_states;
mod handed_off_calls;
mod handshake;
mod inbound;
mod inbox;
mod invocations;
mod link;
mod membership;
mod messages;
mod missed;
mod mode;
mod outbox;
mod outgoing;
mod pace;
mod parked;
mod reader;
mod record;
mod replaying;
mod requests;
mod restore;
mod run;
mod running;
mod sequence;
mod signal;
mod slots;
mod stateful;
mod stream_out;
mod streams;
mod transport_error;
mod uploads;
mod writing;

use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use hubcast_backplane::{ConnectionId, ConnectionRecord, EventRecord};
use parking_lot::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::hub::{Connection, Context, Disconnected, HubError, HubRuntime, event_record};
use crate::limits::ConnectionPermit;
use client_results::ClientResults;
use group_states::Followed;
use membership::Memberships;
use mode::Mode;
use pace::Pace;
use parked::ParkedPlace;

pub(crate) use client_results::ClientResultError;
pub(crate) use close::CloseReason;
pub(crate) use expiry::{is_over, watch_expiry};
pub(crate) use frames::{Carriage, Frames};
pub(crate) use handed_off_calls::read_carried;
pub(crate) use inbound::{Inbound, Received};
pub(crate) use inbox::InboxEntry;
pub(crate) use link::{
    Begun, Detached, Ended, HttpLink, Posting, break_off, receive_part, run_over_http, run_reader,
    run_restored_over_http,
};
pub(crate) use membership::{MembershipChange, TooManyGroups, push_tightly};
pub(crate) use outbox::{Appended, BurstPolicy, ByteQueue, NotWhole, PushError, Sent, Taken, Writing};
pub(crate) use outgoing::Delivered;
pub(crate) use parked::Parked;
pub(crate) use reader::{Begin, Reading};
pub(crate) use restore::{
    Claimant, Past, Restored, connection_of, connection_of_event, event_state, restore, state_of,
};
pub(crate) use run::{run, run_restored};
pub(crate) use slots::Slots;
pub(crate) use stateful::Ownership;
pub(crate) use transport_error::TransportError;

/// The version of both hub protocols from which on stateful reconnect works.
const STATEFUL_VERSION: i32 = 2;

/// A connection on this node.
///
/// One task runs it (see [`run`]). Others reach it through this handle: they push to its outbox, or close it.
pub(crate) struct Session {
    hub: Arc<HubRuntime>,
    connection: Arc<Connection>,
    outbox: ByteQueue,
    /// Ends when the session does.
    closing: CancellationToken,
    /// The task that runs it: a wait for `closing` itself would take room in it.
    runner: AtomicWaker,
    /// Set when no data of it can be fetched any more, and it is only about to leave the directory.
    over: AtomicBool,
    reason: OnceLock<Box<CloseReason>>,
    /// The time when it came to this node.
    begun: Instant,
    memberships: Mutex<Memberships>,
    /// The permits that it holds of limits for several connections; `None` where nothing is counted.
    permit: Mutex<Option<Box<ConnectionPermit>>>,
    /// Set while its client is away and may come back.
    parked: Mutex<Option<Box<ParkedPlace>>>,
    /// How fast its client is read, if that is bounded.
    pace: Option<Mutex<Pace>>,
    client_results: ClientResults,
    mode: Mode,
    /// The groups whose states its client follows; `None` where there are none.
    followed: Mutex<Option<Box<Followed>>>,
    /// Set when its client came back, and has not got any further since.
    came_back: AtomicBool,
    /// Set once it is looked at when its token ends.
    watched: AtomicBool,
}

impl Session {
    fn in_mode(hub: Arc<HubRuntime>, connection: Connection, mode: Mode) -> Arc<Self> {
        let outbox = ByteQueue::held(hub.options().limits.outbox_bytes, Arc::clone(hub.bursts()));
        let pace = Pace::new(&hub.options().limits).map(Mutex::new);
        Arc::new(Self {
            hub,
            connection: Arc::new(connection),
            outbox,
            closing: CancellationToken::new(),
            runner: AtomicWaker::new(),
            over: AtomicBool::new(false),
            reason: OnceLock::new(),
            begun: Instant::now(),
            memberships: Mutex::default(),
            permit: Mutex::default(),
            parked: Mutex::default(),
            pace,
            client_results: ClientResults::default(),
            mode,
            followed: Mutex::default(),
            came_back: AtomicBool::new(false),
            watched: AtomicBool::new(false),
        })
    }

    pub(crate) fn id(&self) -> &ConnectionId {
        self.connection.id()
    }

    pub(crate) fn hub(&self) -> &Arc<HubRuntime> {
        &self.hub
    }

    pub(crate) fn connection(&self) -> &Arc<Connection> {
        &self.connection
    }

    /// The data that the connection's events carry.
    fn event(&self) -> EventRecord {
        let handled = self.hub.hub().event_handler().is_some();
        if !handled && !self.hub.options().hubs.events {
            return EventRecord::default();
        }
        EventRecord {
            state: if handled {
                event_state(&self.connection)
            } else {
                Bytes::new()
            },
            ..event_record(&self.connection)
        }
    }

    pub(crate) fn record(&self) -> ConnectionRecord {
        ConnectionRecord {
            id: self.id().clone(),
            user: self.connection.user().cloned(),
            state: None,
            event: self.event(),
        }
    }

    pub(crate) fn context(&self) -> Context {
        Context::new(
            Arc::clone(&self.hub),
            Arc::clone(&self.connection),
            self.gone().clone(),
        )
    }

    /// The hub's hook for new connections has failed.
    fn hook_failed(&self, error: &HubError) -> CloseReason {
        tracing::error!(hub = %self.hub.name(), connection_id = %self.id(), %error, "on_connected failed");
        let detail = error.client_suffix(self.hub.options().hubs.detailed_errors);
        CloseReason::ConnectFailed {
            detail: detail.map(|text| text.trim_start().to_owned()),
        }
    }

    /// Returns whether the session has been here for so long, and its client is here.
    pub(crate) fn has_settled(&self, time: Duration) -> bool {
        self.begun.elapsed() >= time && !self.closing.is_cancelled() && self.parked.lock().is_none()
    }

    /// Has the session end. The first reason counts.
    pub(crate) fn close(&self, reason: CloseReason) {
        let _ = self.reason.set(Box::new(reason));
        self.closing.cancel(); // first: a session that becomes stateful meanwhile checks it
        self.runner.wake();
        if !self.has_moved() {
            self.gone().cancel();
        }
    }

    /// Has the session leave this node: a stateful one goes on elsewhere, others end for this reason.
    pub(crate) fn leave(&self, reason: CloseReason) {
        self.close(if self.is_stateful() {
            CloseReason::Moved
        } else {
            reason
        });
    }

    /// Ends once the session is to end.
    pub(crate) fn closing(&self) -> &CancellationToken {
        &self.closing
    }

    /// Ends once the session is to end. For the task that runs it.
    fn is_to_close(&self) -> impl Future<Output = ()> {
        poll_fn(|cx| {
            self.runner.register(cx.waker());
            match self.closing.is_cancelled() {
                true => Poll::Ready(()),
                false => Poll::Pending,
            }
        })
    }

    /// Records that its client has a new socket.
    pub(crate) fn comes_back(&self) {
        self.came_back.store(true, Ordering::Release);
    }

    /// Records that its client has read something new, or sent something.
    pub(super) fn gets_further(&self) {
        if self.came_back.load(Ordering::Acquire) && self.came_back.swap(false, Ordering::AcqRel) {
            self.hub.recoveries().progress(self.id());
        }
    }

    /// Returns whether requests no longer find the session.
    pub(crate) fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }

    fn be_over(&self) {
        self.over.store(true, Ordering::Release);
    }

    /// Returns whether the connection goes on on another node, or will.
    pub(crate) fn has_moved(&self) -> bool {
        self.reason() == Some(&CloseReason::Moved)
    }

    pub(crate) fn reason(&self) -> Option<&CloseReason> {
        self.reason.get().map(|reason| &**reason)
    }

    /// Charges a client's message to its rates. `counts`: it is a message, or as much trouble as one.
    pub(crate) fn measure(&self, counts: bool, bytes: usize) {
        let reached = self
            .pace
            .as_ref()
            .and_then(|pace| pace.lock().take(counts, bytes));
        if let Some(limit) = reached {
            self.hub.shared().metrics().limited.get(limit).inc();
        }
    }

    /// The time when a client is read again that sends too fast.
    pub(crate) fn pace_resumes(&self) -> Option<Instant> {
        self.pace.as_ref()?.lock().resumes()
    }
}

impl Session {
    /// Leaves the directory, then runs the hub's hook, if hub code saw the connection: the node that removes it runs
    /// the hook. It takes as long as the backplane can't be reached.
    async fn leave_cluster(&self, reason: Option<Disconnected>) {
        let (hub, backplane) = (&self.hub, self.hub.backplane());
        let removed = backplane.remove(self.id(), hub.end(reason.as_ref()));
        match (removed.await, reason) {
            (Ok(true), Some(reason)) => hub.ended(self.context(), reason).await,
            // Others gave it up while this node stood still. Its client is notified that it is over: no node may go on
            // with it.
            (Ok(false), Some(reason)) if self.is_stateful() => {
                if let Err(error) = hub.remove_parked(self.id(), reason).await {
                    tracing::warn!(connection_id = %self.id(), %error, "a connection that nobody owns could not be removed");
                }
            }
            // Who removed it knew of no streams.
            (Ok(false), Some(_)) => hub.end_streams(&self.connection).await,
            (Ok(_), _) => {}
            (Err(error), _) => {
                tracing::warn!(connection_id = %self.id(), %error, "a connection could not be removed from the directory");
            }
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if self.is_stateful() {
            self.hub.checkpoints().depart();
        }
    }
}
