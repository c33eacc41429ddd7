//! A connection on which one master's pushes arrive, with its subscriptions and the probes that check it.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use redis::aio::MultiplexedConnection;
use redis::{PushInfo, PushKind, RedisResult, Value};
use tokio::sync::Notify;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

use crate::redis::feed::hub::Hub;
use crate::redis::feed::interest::Subject;
use crate::redis::feed::subscriber::Round;
use crate::redis::inner::Inner;
use crate::redis::keys::Route;
use crate::redis::script::frame::split;
use crate::redis::server::commands::Repeat;
use crate::redis::server::connector::Take;
use crate::redis::server::info::server_info;
use crate::redis::server::link::{Link, SharedLink};
use crate::redis::server::location::Address;
use crate::redis::server::replies::Trouble;
use crate::redis::server::run::Run;
use crate::redis::server::slots::{COUNT, Slots};
use crate::redis::server::topology::Shard;

/// Most channels in one command, or in one round trip of a cluster.
const CHANNELS: usize = 500;

/// One subscribed connection.
pub(in crate::redis) struct Subscription {
    connection: MultiplexedConnection,
    /// The same connection for batches of changes. In a cluster there is none: a server that loses a slot ends
    /// subscriptions by itself, which would be taken for the answer of a command.
    link: Option<SharedLink>,
    pub(in crate::redis) address: Address,
    shard: Arc<Shard>,
    state: Arc<SubscriptionState>,
    bound: Duration,
    /// The run of the server that the connection leads to.
    run: Run,
    /// The channel for probes of this node to itself: its own channel, where that lives on this server.
    probe: String,
}

#[derive(Default)]
struct SubscriptionState {
    /// Set when another subscription replaces this one, whose late pushes are dropped.
    over: AtomicBool,
    received: AtomicU64,
    /// Number of subscriptions that this node has ended and whose end was not confirmed yet.
    leaving: AtomicI64,
    ended: CancellationToken,
}

/// The reason why a subscription ended.
pub(in crate::redis) enum End {
    /// The node is closing, or the masters or their slots have changed.
    Over,
    /// The connection was lost, or could not be opened.
    Lost(String),
    /// The connection lives, but no push arrives on it.
    Silent,
    /// The server lives but is not the master any more, or is in another run.
    Replaced,
}

/// The state at the last probe.
struct Probe {
    received: u64,
    sent: bool,
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Over => f.write_str("over"),
            Self::Lost(reason) => f.write_str(reason),
            Self::Silent => f.write_str("nothing arrives on it"),
            Self::Replaced => f.write_str("the server is not the master any more, or in another run"),
        }
    }
}

impl Subscription {
    /// Connects, subscribes to all channels that this node needs on this server, and makes the lanes catch up.
    pub(in crate::redis) async fn open(inner: &Arc<Inner>, shard: &Arc<Shard>) -> Result<Self, End> {
        for hub in inner.hubs_of(shard) {
            hub.pushes.pause();
        }
        let subscription = Self::connect(inner, shard).await?;
        subscription
            .subscribe(std::slice::from_ref(&subscription.probe))
            .await?;
        inner.rpc.resubscribed();
        let hubs = inner.hubs_of(shard);
        for hub in &hubs {
            hub.local.lock().interests.unsubscribed();
        }
        inner.subscribe_wanted(&subscription).await?;
        // The server may be another one: connections that it forgot are registered again before the lanes go on.
        let reported = inner.renew_soon(&hubs).await;
        reported.map_err(|error| End::Lost(error.to_string()))?;
        for hub in inner.hubs_of(shard) {
            hub.pushes.resume();
        }
        subscription.link.iter().for_each(|link| shard.pool.share(link));
        Ok(subscription)
    }

    async fn connect(inner: &Arc<Inner>, shard: &Arc<Shard>) -> Result<Self, End> {
        let probe = probe_channel(inner, &shard.slots)
            .ok_or_else(|| End::Lost("the server serves no slots".to_owned()))?;
        let opened = shard.endpoint.connect(|| {
            let state = Arc::new(SubscriptionState::default());
            let (inner, seen) = (Arc::downgrade(inner), Arc::clone(&state));
            let take: Take = Box::new(move |push| {
                if let Some(inner) = inner.upgrade() {
                    seen.take(&inner, push);
                }
            });
            (state, take)
        });
        let master = &shard.pool.master;
        let opened = tokio::select! {
            opened = opened => opened.map_err(|error| lost(&error))?,
            () = master.is_replaced() => return Err(End::Replaced),
        };
        if !master.confirms(&opened.info.run).await {
            return Err(End::Replaced);
        }
        let link = || {
            Arc::new(Link::over(
                &shard.endpoint,
                &opened,
                opened.listener.ended.clone(),
            ))
        };
        Ok(Self {
            link: (!shard.endpoint.sharded).then(link),
            connection: opened.connection,
            address: opened.address,
            shard: Arc::clone(shard),
            state: opened.listener,
            bound: shard.endpoint.connector.bound(),
            run: opened.info.run,
            probe,
        })
    }

    /// Drops all pushes that arrive from now on, and sends no batches any more.
    pub(in crate::redis) fn end(&self) {
        self.state.over.store(true, Ordering::Release);
        self.link.iter().for_each(|link| self.shard.pool.unshare(link));
    }

    fn received(&self) -> u64 {
        self.state.received.load(Ordering::Acquire)
    }

    async fn subscribe(&self, channels: &[String]) -> Result<(), End> {
        let mut connection = self.connection.clone();
        if self.shard.endpoint.sharded {
            self.bounded(each("SSUBSCRIBE", channels, &mut connection)).await
        } else {
            self.bounded(connection.subscribe(channels)).await
        }
    }

    async fn unsubscribe(&self, channels: &[String]) -> Result<(), End> {
        let mut connection = self.connection.clone();
        if self.shard.endpoint.sharded {
            let count = i64::try_from(channels.len()).unwrap_or(i64::MAX);
            self.state.leaving.fetch_add(count, Ordering::AcqRel);
            self.bounded(each("SUNSUBSCRIBE", channels, &mut connection))
                .await
        } else {
            self.bounded(connection.unsubscribe(channels)).await
        }
    }

    /// Checks that the server at the other end still is the master, in the same run: a demoted one goes on pushing the
    /// messages of its master.
    async fn prove(&self) -> Result<(), End> {
        let mut connection = self.connection.clone();
        let info = self
            .bounded(server_info(&mut connection, self.shard.endpoint.sharded))
            .await?;
        if info.is_master && self.run.goes_on_as(&info.run) {
            Ok(())
        } else {
            Err(End::Replaced)
        }
    }

    /// Resolves when the commands' connections lead to another run.
    async fn replaced(&self) {
        self.shard.pool.master.leaves(&self.run).await;
    }

    async fn bounded<T>(&self, call: impl Future<Output = RedisResult<T>>) -> Result<T, End> {
        match timeout(self.bound, call).await {
            Err(_) => Err(End::Lost("no answer to a subscription".to_owned())),
            Ok(outcome) => outcome.map_err(|error| lost(&error)),
        }
    }
}

impl Inner {
    pub(in crate::redis) async fn serve_subscription(
        self: &Arc<Self>,
        subscription: &Subscription,
        round: &Round,
        wanted: &Notify,
    ) -> End {
        let mut sweeps = ticks(self.options.linger);
        let mut probes = ticks(self.options.probe_interval);
        let mut proofs = ticks(self.options.heartbeat_interval);
        let mut probe = Probe {
            received: subscription.received(),
            sent: false,
        };
        loop {
            let step = async {
                tokio::select! {
                    () = subscription.state.ended.cancelled() => Err(End::Lost("the server closed it, or did not answer on it".to_owned())),
                    () = wanted.notified() => self.subscribe_wanted(subscription).await,
                    _ = sweeps.tick() => self.leave_idle(subscription).await,
                    _ = probes.tick() => self.probe(subscription, &mut probe).await,
                    _ = proofs.tick() => subscription.prove().await,
                }
            };
            // Work that is left unfinished is done anew by the next round.
            let outcome = tokio::select! {
                () = round.over.cancelled() => return End::Over,
                () = subscription.replaced() => return End::Replaced,
                outcome = step => outcome,
            };
            if let Err(end) = outcome {
                return end;
            }
        }
    }

    /// The hubs that live on a master.
    fn hubs_of(&self, shard: &Shard) -> Vec<Arc<Hub>> {
        let mut hubs = self.all_hubs();
        hubs.retain(|hub| shard.slots == Slots::All || shard.slots.contain(&hub.channel(&Subject::Lane)));
        hubs
    }

    async fn subscribe_wanted(&self, subscription: &Subscription) -> Result<(), End> {
        for hub in self.hubs_of(&subscription.shard) {
            let wanted = hub.local.lock().interests.wanted();
            for subjects in wanted.chunks(CHANNELS) {
                subscription.subscribe(&channels(&hub, subjects)).await?;
                let read_log = hub.local.lock().interests.subscribed(subjects);
                if read_log {
                    hub.pushes.request_catch_up();
                }
            }
        }
        Ok(())
    }

    async fn leave_idle(&self, subscription: &Subscription) -> Result<(), End> {
        for hub in self.hubs_of(&subscription.shard) {
            let idle = hub.local.lock().interests.leave_idle();
            for subjects in idle.chunks(CHANNELS) {
                subscription.unsubscribe(&channels(&hub, subjects)).await?;
                if hub.local.lock().interests.left_idle(subjects) {
                    self.wanted.notify_one();
                }
            }
        }
        Ok(())
    }

    /// Notices a subscription that lives but gets no pushes: none came since the last probe, not even that probe
    /// itself.
    async fn probe(&self, subscription: &Subscription, probe: &mut Probe) -> Result<(), End> {
        let received = subscription.received();
        let quiet = received == probe.received;
        if quiet && probe.sent {
            return Err(End::Silent);
        }
        *probe = Probe {
            received,
            sent: false,
        };
        if quiet {
            let mut command = redis::cmd(self.commands.publish());
            command.arg(&subscription.probe).arg("");
            // A probe that the server refused says nothing about the receiving side.
            probe.sent = self.commands.command(&command, Repeat::Safe).await.is_ok();
        }
        Ok(())
    }
}

impl SubscriptionState {
    /// Takes a push, inside of the connection's driver: never waits.
    fn take(&self, inner: &Arc<Inner>, push: PushInfo) {
        match push.kind {
            PushKind::Disconnection => self.ended.cancel(),
            // The server ends subscriptions by itself where a slot moves to another server.
            PushKind::SUnsubscribe if self.leaving.fetch_sub(1, Ordering::AcqRel) <= 0 => self.ended.cancel(),
            PushKind::Message | PushKind::SMessage if !self.over.load(Ordering::Acquire) => {
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

/// Sends a command for each channel in one round trip: the connection expects one answer for each command, and the
/// server sends one for each channel.
async fn each(command: &str, channels: &[String], connection: &mut MultiplexedConnection) -> RedisResult<()> {
    let mut commands = redis::Pipeline::with_capacity(channels.len());
    for channel in channels {
        commands.cmd(command).arg(channel).ignore();
    }
    commands.exec_async(connection).await
}

/// A channel of this node that lives in these slots: the node's own, or one made for probes.
fn probe_channel(inner: &Inner, slots: &Slots) -> Option<String> {
    let node = &inner.options.node;
    let others = (0..u32::from(COUNT) * 8).map(|number| inner.keys.probe_channel(node, number));
    std::iter::once(inner.keys.node_channel(node))
        .chain(others)
        .find(|channel| slots.contain(channel))
}

fn route(inner: &Arc<Inner>, channel: &[u8], payload: Bytes) {
    match inner.keys.route(channel) {
        Some(Route::Node) => inner.take_node_message(payload),
        Some(Route::Hub(name)) => {
            if let Some(hub) = inner.find_hub(name) {
                hub.push(split(payload));
            }
        }
        None => {}
    }
}

fn channels(hub: &Hub, subjects: &[Subject]) -> Vec<String> {
    subjects.iter().map(|subject| hub.channel(subject)).collect()
}

fn lost(error: &redis::RedisError) -> End {
    End::Lost(Trouble::of(error).reason())
}

fn ticks(period: Duration) -> tokio::time::Interval {
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}
