//! The connection on which pushes arrive, and what keeps it alive: subscriptions, probes, reconnecting.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use redis::aio::MultiplexedConnection;
use redis::{PushInfo, PushKind, Value};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::backoff::Backoff;
use super::commands::Repeat;
use super::hub::Hub;
use super::inner::Inner;
use super::keys::Route;
use super::link::{Trouble, connect};
use super::local::Subject;

/// Channels that one command names.
const CHANNELS: usize = 500;

/// One subscribed connection.
struct Session {
    connection: MultiplexedConnection,
    state: Arc<SessionState>,
    bound: Duration,
}

#[derive(Default)]
struct SessionState {
    /// Set when another session takes over: late pushes of this one are of no use.
    over: AtomicBool,
    received: AtomicU64,
    ended: CancellationToken,
}

/// Why a session ended.
enum End {
    Closing,
    /// The connection was lost, or could not be made.
    Lost(String),
    /// The connection lives and nothing arrives on it.
    Deaf,
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closing => f.write_str("closing"),
            Self::Lost(reason) => f.write_str(reason),
            Self::Deaf => f.write_str("nothing arrives on it"),
        }
    }
}

impl Inner {
    /// Keeps this node subscribed until closing.
    pub(super) async fn run_subscriber(self: Arc<Self>) {
        let mut backoff = Backoff::new();
        let mut lost_at = None;
        loop {
            let end = match self.open_session().await {
                Err(end) => end,
                Ok(session) => {
                    backoff = Backoff::new();
                    self.standing.set_subscribed(true);
                    if let Some(lost_at) = lost_at.take() {
                        let outage = Instant::now().saturating_duration_since(lost_at);
                        info!(
                            outage_ms = outage.as_millis() as u64,
                            "backplane connection restored"
                        );
                    }
                    let end = self.serve_session(&session).await;
                    session.state.over.store(true, Ordering::Release);
                    end
                }
            };
            self.standing.set_subscribed(false);
            if matches!(end, End::Closing) || self.closing.is_cancelled() {
                return;
            }
            if lost_at.is_none() {
                lost_at = Some(Instant::now());
                warn!(reason = %end, "backplane connection lost");
            }
            tokio::select! {
                () = self.closing.cancelled() => return,
                () = backoff.wait() => {}
            }
        }
    }

    /// Connects, subscribes to all that this node needs, and makes the lanes read what they missed.
    async fn open_session(self: &Arc<Self>) -> Result<Session, End> {
        let opening = async {
            let session = self.connect_session().await?;
            let own = self.keys.node_channel(&self.options.node);
            session.subscribe(&[own]).await?;
            for hub in self.all_hubs() {
                hub.local.lock().unsubscribed();
            }
            self.subscribe_wanted(&session).await?;
            // The server may be another one: what it forgot is told to it before the lanes go on.
            self.beat().await.map_err(|error| End::Lost(error.to_string()))?;
            for hub in self.all_hubs() {
                hub.set_behind();
            }
            Ok(session)
        };
        tokio::select! {
            () = self.closing.cancelled() => Err(End::Closing),
            opened = opening => opened,
        }
    }

    async fn connect_session(self: &Arc<Self>) -> Result<Session, End> {
        let state = Arc::new(SessionState::default());
        let (inner, seen) = (Arc::downgrade(self), Arc::clone(&state));
        let bound = self.options.command_timeout;
        let opened = connect(self.commands.client(), bound, move |push| {
            if let Some(inner) = inner.upgrade() {
                seen.take(&inner, push);
            }
        });
        match timeout(bound, opened).await {
            Err(_) => Err(End::Lost("connecting took too long".to_owned())),
            Ok(Err(error)) => Err(lost(&error)),
            Ok(Ok(connection)) => Ok(Session {
                connection,
                state,
                bound,
            }),
        }
    }

    async fn serve_session(self: &Arc<Self>, session: &Session) -> End {
        let mut sweeps = ticks(self.options.linger);
        let mut probes = ticks(self.options.probe_interval);
        let mut probe = Probe {
            received: session.received(),
            sent: false,
        };
        loop {
            let outcome = tokio::select! {
                () = self.closing.cancelled() => return End::Closing,
                () = session.state.ended.cancelled() => return End::Lost("the server closed it".to_owned()),
                () = self.wanted.notified() => self.subscribe_wanted(session).await,
                _ = sweeps.tick() => self.leave_idle(session).await,
                _ = probes.tick() => self.probe(session, &mut probe).await,
            };
            if let Err(end) = outcome {
                return end;
            }
        }
    }

    async fn subscribe_wanted(&self, session: &Session) -> Result<(), End> {
        for hub in self.all_hubs() {
            let wanted = hub.local.lock().wanted();
            for subjects in wanted.chunks(CHANNELS) {
                session.subscribe(&channels(&hub, subjects)).await?;
                let read_log = hub.local.lock().subscribed(subjects);
                if read_log {
                    hub.set_behind();
                }
            }
        }
        Ok(())
    }

    async fn leave_idle(&self, session: &Session) -> Result<(), End> {
        for hub in self.all_hubs() {
            let idle = hub.local.lock().leave_idle();
            for subjects in idle.chunks(CHANNELS) {
                session.unsubscribe(&channels(&hub, subjects)).await?;
                if hub.local.lock().left_idle(subjects) {
                    self.wanted.notify_one();
                }
            }
        }
        Ok(())
    }

    /// Notices a session that lives and is deaf: nothing came since the last time, not even what this node published
    /// to itself then.
    async fn probe(&self, session: &Session, probe: &mut Probe) -> Result<(), End> {
        let received = session.received();
        let quiet = received == probe.received;
        if quiet && probe.sent {
            return Err(End::Deaf);
        }
        *probe = Probe {
            received,
            sent: false,
        };
        if quiet {
            let mut command = redis::cmd("PUBLISH");
            command.arg(self.keys.node_channel(&self.options.node)).arg("");
            // A probe that the server refused says nothing about the receiving side.
            probe.sent = self.commands.command(&command, Repeat::Safe).await.is_ok();
        }
        Ok(())
    }
}

struct Probe {
    received: u64,
    sent: bool,
}

impl Session {
    fn received(&self) -> u64 {
        self.state.received.load(Ordering::Acquire)
    }

    async fn subscribe(&self, channels: &[String]) -> Result<(), End> {
        let mut connection = self.connection.clone();
        self.bounded(connection.subscribe(channels)).await
    }

    async fn unsubscribe(&self, channels: &[String]) -> Result<(), End> {
        let mut connection = self.connection.clone();
        self.bounded(connection.unsubscribe(channels)).await
    }

    async fn bounded(&self, call: impl Future<Output = redis::RedisResult<()>>) -> Result<(), End> {
        match timeout(self.bound, call).await {
            Err(_) => Err(End::Lost("no answer to a subscription".to_owned())),
            Ok(outcome) => outcome.map_err(|error| lost(&error)),
        }
    }
}

impl SessionState {
    /// Takes a push, inside of the connection's driver: never waits.
    fn take(&self, inner: &Arc<Inner>, push: PushInfo) {
        match push.kind {
            PushKind::Disconnection => self.ended.cancel(),
            PushKind::Message if !self.over.load(Ordering::Acquire) => {
                self.received.fetch_add(1, Ordering::AcqRel);
                if let Ok([Value::BulkString(channel), Value::BulkString(payload)]) =
                    <[Value; 2]>::try_from(push.data)
                {
                    route(inner, &channel, payload.into());
                }
            }
            _ => {}
        }
    }
}

fn route(inner: &Arc<Inner>, channel: &[u8], payload: Bytes) {
    match inner.keys.route(channel) {
        Some(Route::Node) => inner.take_node_message(payload),
        Some(Route::Hub(name)) => {
            if let Some(hub) = inner.find_hub(name) {
                hub.push(payload);
            }
        }
        None => {}
    }
}

fn channels(hub: &Hub, subjects: &[Subject]) -> Vec<String> {
    subjects.iter().map(|subject| hub.channel(subject)).collect()
}

fn lost(error: &redis::RedisError) -> End {
    End::Lost(match Trouble::of(error) {
        Trouble::Lost(reason) | Trouble::NotNow(reason) => reason,
        Trouble::Final(error) => error.to_string(),
        Trouble::NoScript => "the server forgot the scripts".to_owned(),
    })
}

fn ticks(period: Duration) -> tokio::time::Interval {
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}
