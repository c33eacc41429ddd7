//! Redis in one of its topologies, and the proxies between it and the nodes.

use std::time::Duration;

use tokio::time::sleep;

use super::fault::{Fault, Kind};
use crate::clock::Clock;
use crate::entry_point::HUB_NAME;
use crate::fault_proxy::{Action, FaultProxy, On, Rule};
use crate::redis::cluster::ClusterSet;
use crate::redis::sentinel::{Fronted, SentinelSet};
use crate::redis::{Redis, Setup};

/// How long rules of a proxy hold at most.
const RULES_HOLD: Duration = Duration::from_millis(1_500);
/// How long a master keeps a backlog for replicas that are gone.
const BACKLOG_SECONDS: u64 = 1;

/// How Redis is set up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Topology {
    /// One server, which may get a replica.
    Single,
    /// A master with two replicas and three sentinels.
    Sentinel,
    /// Three masters with a replica each.
    Cluster,
}

/// The servers.
pub(crate) enum Servers {
    /// Each node has a proxy of its own; the last one is the control node's.
    Single(Box<Single>),
    /// Each server has a proxy, which all share.
    Sentinel(SentinelSet),
    Cluster(ClusterSet),
}

pub(crate) struct Single {
    proxies: Vec<FaultProxy>,
    redis: Redis,
    replica: Option<Redis>,
    clock: Clock,
}

impl Topology {
    /// The kinds of faults that it can suffer.
    pub(crate) fn suffers(self, kind: Kind) -> bool {
        let is_of_sets = matches!(kind, Kind::Switch | Kind::KillMaster | Kind::PauseMaster);
        let is_of_one = matches!(
            kind,
            Kind::RedisKept
                | Kind::RedisEmptied
                | Kind::RedisPause
                | Kind::Attach
                | Kind::Detach
                | Kind::Promote
                | Kind::Restore
                | Kind::Evict
                | Kind::Fill
                | Kind::RedisClock
                | Kind::Flush
                // A shared proxy's fault would hurt all nodes and begin a failover.
                | Kind::HoldBriefly
                | Kind::HoldLong
        );
        match self {
            Self::Single => !is_of_sets,
            Self::Sentinel | Self::Cluster => !is_of_one,
        }
    }
}

impl Servers {
    pub(crate) async fn start(topology: Topology, nodes: usize, seed: u64) -> Self {
        match topology {
            Topology::Single => {
                let clock = Clock::new();
                let setup = Setup::default().durable().clock(&clock);
                let redis = Redis::start_with(setup.set("repl-backlog-ttl", BACKLOG_SECONDS)).await;
                let proxy = |number| FaultProxy::start(redis.address(), seed + number as u64);
                Self::Single(Box::new(Single {
                    proxies: (0..=nodes).map(proxy).collect(),
                    redis,
                    replica: None,
                    clock,
                }))
            }
            Topology::Sentinel => Self::Sentinel(SentinelSet::start(2, seed).await),
            Topology::Cluster => Self::Cluster(ClusterSet::start(seed).await),
        }
    }

    /// The URL for a node; that of the control node for a number above all.
    pub(crate) fn url(&self, node: usize) -> String {
        match self {
            Self::Single(single) => single.proxies[node].url(),
            Self::Sentinel(set) => set.url(),
            Self::Cluster(set) => set.url(),
        }
    }

    /// The server that has the hub.
    async fn fronted(&mut self) -> Option<&mut Fronted> {
        match self {
            Self::Single(_) => None,
            Self::Sentinel(set) => {
                let master = set.master().await;
                set.servers.get_mut(master)
            }
            Self::Cluster(set) => {
                let master = set.master_of(HUB_NAME).await;
                set.servers.get_mut(master)
            }
        }
    }

    async fn redis(&mut self) -> &mut Redis {
        if let Self::Single(single) = self {
            return &mut single.redis;
        }
        &mut self.fronted().await.expect("the others are sets").redis
    }

    /// The proxy through which a node reaches the hub.
    async fn proxy(&mut self, node: usize) -> &FaultProxy {
        if let Self::Single(single) = self {
            return &single.proxies[node];
        }
        &self.fronted().await.expect("the others are sets").proxy
    }

    /// Does what a fault does to servers and links, and undoes it.
    pub(crate) async fn suffer(&mut self, fault: &Fault) {
        match fault {
            Fault::Redis { keeps_data, down } => {
                let redis = self.redis().await;
                if *keeps_data {
                    redis.kill();
                } else {
                    redis.forget();
                }
                sleep(*down).await;
                redis.restart().await;
            }
            Fault::RedisPause { stopped } => {
                let redis = self.redis().await;
                redis.pause();
                sleep(*stopped).await;
                redis.resume();
            }
            Fault::Restore { age } => {
                let redis = self.redis().await;
                let snapshot = redis.snapshot().await;
                sleep(*age).await; // traffic that will be forgotten
                redis.restore(&snapshot).await;
            }
            Fault::Evict { policy, bytes } => {
                self.redis().await.evict(policy, *bytes).await;
            }
            Fault::Fill { full } => {
                let redis = self.redis().await;
                redis.is_full().await;
                sleep(*full).await;
                redis.has_room_again().await;
            }
            Fault::CutLinks { pushes } => {
                let kind = if *pushes { "pubsub" } else { "normal" };
                self.redis().await.cut_clients(kind).await;
            }
            Fault::ForgetScripts => self.redis().await.forget_scripts().await,
            Fault::Flush => self.redis().await.flush().await,
            Fault::Attach | Fault::Detach | Fault::Promote | Fault::RedisClock { .. } => {
                if let Self::Single(single) = self {
                    single.suffer(fault).await;
                }
            }
            Fault::Switch | Fault::KillMaster | Fault::PauseMaster => self.fail_over(fault).await,
            _ => self.suffer_on_links(fault).await,
        }
    }

    async fn suffer_on_links(&mut self, fault: &Fault) {
        let Some(node) = fault.node() else { return };
        let proxy = self.proxy(node).await;
        let scripts =
            |key: &'static str| On::request(move |command| command.is_script() && command.has_key(key));
        let some = |on, action, percent, times| {
            proxy.rule(Rule {
                percent,
                times,
                ..Rule::always(on, action)
            });
        };
        match fault {
            Fault::Delay { most, .. } => {
                let late = Action::Delay(Duration::ZERO, *most);
                some(On::request(|_| true), late, 20, None);
                some(On::Push, late, 20, None);
            }
            Fault::Swallow { key, times, .. } => {
                let action = Action::Swallow(Duration::from_millis(300));
                some(scripts(key), action, 50, Some(*times));
            }
            Fault::CutScripts { times, .. } => some(scripts(""), Action::Cut, 20, Some(*times)),
            Fault::Truncate { times, .. } => some(On::Push, Action::Truncate, 20, Some(*times)),
            Fault::Hold { held, cut, .. } => {
                proxy.hold();
                sleep(*held).await;
                if *cut {
                    proxy.cut();
                }
                proxy.release();
                return;
            }
            _ => return,
        }
        sleep(RULES_HOLD).await;
        proxy.clear();
    }

    async fn fail_over(&mut self, fault: &Fault) {
        let master = match self {
            Self::Single(_) => return,
            Self::Sentinel(set) => set.master().await,
            Self::Cluster(set) => set.master_of(HUB_NAME).await,
        };
        match fault {
            Fault::KillMaster => self.redis().await.kill(),
            Fault::PauseMaster => self.redis().await.pause(),
            _ => {}
        }
        match (&*self, fault) {
            (Self::Sentinel(set), Fault::Switch) => set.switch().await,
            (Self::Cluster(set), Fault::Switch) => set.switch(HUB_NAME).await,
            (Self::Sentinel(set), _) => set.has_another_than(master).await,
            (Self::Cluster(set), _) => set.has_another_than(HUB_NAME, master).await,
            (Self::Single(_), _) => {}
        }
        let servers = match self {
            Self::Single(_) => return,
            Self::Sentinel(set) => &mut set.servers,
            Self::Cluster(set) => &mut set.servers,
        };
        match fault {
            Fault::KillMaster => servers[master].redis.restart().await,
            Fault::PauseMaster => servers[master].redis.resume(),
            _ => {}
        }
    }

    /// Waits until every server is where it belongs, so that the next fault finds a whole set.
    pub(crate) async fn is_settled(&self) {
        match self {
            Self::Single(_) => {}
            Self::Sentinel(set) => set.is_settled().await,
            Self::Cluster(set) => set.is_settled().await,
        }
    }
}

impl Single {
    async fn suffer(&mut self, fault: &Fault) {
        match fault {
            Fault::Attach => self.replica = Some(self.redis.attach_replica().await),
            Fault::Detach => {
                if self.replica.take().is_none() {
                    drop(self.redis.attach_replica().await);
                }
                // Redis looks once a second whether the backlog's time is up.
                sleep(Duration::from_millis(1_000 * BACKLOG_SECONDS + 1_500)).await;
            }
            Fault::Promote => {
                let replica = match self.replica.take() {
                    Some(replica) if replica.info("master_link_status").await.as_deref() == Some("up") => {
                        replica
                    }
                    _ => self.redis.attach_replica().await,
                };
                replica.promote().await;
                let master = std::mem::replace(&mut self.redis, replica);
                for proxy in &self.proxies {
                    proxy.lead_to(self.redis.address());
                }
                drop(master);
            }
            Fault::RedisClock { ahead } => self.clock.is_ahead_by(*ahead),
            _ => {}
        }
    }
}
