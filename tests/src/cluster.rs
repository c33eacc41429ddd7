//! Several gateways, their Redis, and a load balancer before them.

use std::fmt::Display;
use std::sync::Arc;

use crate::balancer::{Balancer, Rules};
use crate::entry_point::{EntryPoint, HUB, Secrets};
use crate::eventually::{eventually, eventually_equals};
use crate::gateway::{Gateway, Settings};
use crate::ports::free_port;
use crate::redis::Redis;

/// The plan of a cluster: its nodes and what stands around them.
pub struct Plan {
    nodes: usize,
    alone: bool,
    balanced: Option<Rules>,
    durable: bool,
    settings: Settings,
}

impl Plan {
    /// One gateway without Redis.
    pub fn one_node() -> Self {
        Self {
            nodes: 1,
            alone: true,
            balanced: None,
            durable: false,
            settings: Settings::default(),
        }
    }

    /// So many gateways that share a Redis.
    pub fn nodes(nodes: usize) -> Self {
        Self {
            nodes,
            alone: false,
            ..Self::one_node()
        }
    }

    /// With a load balancer before them.
    pub fn balanced(self) -> Self {
        self.balanced_by(Rules::default())
    }

    /// With a load balancer before them that does more than that.
    pub fn balanced_by(self, rules: Rules) -> Self {
        Self {
            balanced: Some(rules),
            ..self
        }
    }

    /// With a Redis that keeps its data over a restart.
    pub fn durable(self) -> Self {
        Self {
            durable: true,
            ..self
        }
    }

    /// Sets a configuration key of every gateway.
    pub fn set(self, key: &str, value: impl Display) -> Self {
        Self {
            settings: self.settings.set(key, value),
            ..self
        }
    }

    /// Sets an environment variable of every gateway.
    pub fn variable(self, name: &str, value: impl Display) -> Self {
        Self {
            settings: self.settings.variable(name, value),
            ..self
        }
    }

    /// Makes every gateway log all it can.
    pub fn trace(self) -> Self {
        Self {
            settings: self.settings.trace(),
            ..self
        }
    }

    /// With nodes that notice within seconds that another one is gone.
    pub fn with_short_leases(self) -> Self {
        self.set("backplane.lease_seconds", 2)
            .set("backplane.heartbeat_seconds", 0.4)
    }

    /// Starts it all and waits until it is ready.
    pub async fn start(self) -> Cluster {
        let redis = match (self.alone, self.durable) {
            (true, _) => None,
            (false, false) => Some(Redis::start().await),
            (false, true) => Some(Redis::start_durable().await),
        };
        let mut nodes = Vec::new();
        for i in 0..self.nodes {
            let mut settings = self.settings.clone().set("node_id", format!("node-{i}"));
            if let Some(redis) = &redis {
                settings = settings.redis(&redis.url()).port(free_port());
            }
            nodes.push(Gateway::launch(settings).await);
        }
        let mut tasks = Vec::new();
        for node in &mut nodes {
            node.ready().await;
            tasks.push(node.metrics().await.sum("hubcast_tasks"));
        }
        let balancer = match self.balanced {
            Some(rules) => {
                let addresses: Vec<_> = nodes.iter().map(Gateway::address).collect();
                Some(Balancer::start(&addresses, rules).await)
            }
            None => None,
        };
        Cluster {
            balancer,
            nodes,
            redis,
            tasks,
            secrets: Secrets::default(),
        }
    }
}

/// A running cluster. Fields are dropped, and so processes killed, from the outside to the inside.
pub struct Cluster {
    balancer: Option<Balancer>,
    /// The gateways; some may have been killed.
    pub nodes: Vec<Gateway>,
    redis: Option<Redis>,
    tasks: Vec<f64>,
    /// Secrets that must not be logged.
    pub secrets: Secrets,
}

impl Cluster {
    /// The demo hub as clients see it: through the balancer if there is one.
    pub fn hub_url(&self) -> String {
        match &self.balancer {
            Some(balancer) => format!("http://{}{HUB}", balancer.address()),
            None => self.nodes[0].hub_url(),
        }
    }

    /// The balancer.
    pub fn balancer(&self) -> &Balancer {
        self.balancer.as_ref().expect("this cluster has a balancer")
    }

    /// The shared Redis.
    pub fn redis(&mut self) -> &mut Redis {
        self.redis.as_mut().expect("this cluster has a Redis")
    }

    /// The demo hub on every node in turn.
    pub fn entry(&self) -> Arc<EntryPoint> {
        let addresses: Vec<_> = self.nodes.iter().map(Gateway::address).collect();
        Arc::new(EntryPoint::new(&addresses, &self.secrets))
    }

    /// The demo hub on one node.
    pub fn entry_on(&self, node: usize) -> Arc<EntryPoint> {
        Arc::new(EntryPoint::new(&[self.nodes[node].address()], &self.secrets))
    }

    /// The sum of a metric over all running nodes.
    pub async fn sum(&mut self, metric: &str) -> f64 {
        let mut sum = 0.0;
        for node in &mut self.nodes {
            if node.is_running() {
                sum += node.metrics().await.sum(metric);
            }
        }
        sum
    }

    /// Waits until so many connections are open.
    pub async fn has_connections(&mut self, expected: u32) {
        let what = "the number of connections";
        eventually_equals(what, &f64::from(expected), async || {
            self.sum("hubcast_connections").await
        })
        .await;
    }

    /// Waits until nothing is left of any client: no connection, no task, no waiting byte, no key in Redis. And checks
    /// that no node panicked, or wrote down a secret.
    pub async fn is_tidy(&mut self) {
        self.has_connections(0).await;
        for metric in ["hubcast_outbox_bytes", "hubcast_held_bytes"] {
            let what = format!("{metric} when nobody is there");
            eventually_equals(&what, &0.0, async || self.sum(metric).await).await;
        }
        for (node, before) in self.nodes.iter_mut().zip(&self.tasks) {
            if node.is_running() {
                let what = "as many tasks as in the beginning";
                eventually_equals(what, before, async || node.metrics().await.sum("hubcast_tasks")).await;
            }
        }
        self.redis_is_tidy().await;
        self.logs_are_clean();
    }

    /// Checks that no node panicked, or wrote down a secret.
    pub fn logs_are_clean(&self) {
        for (i, node) in self.nodes.iter().enumerate() {
            let log = node.log();
            let panicked = log.lines().find(|line| line.contains("panicked"));
            assert_eq!(panicked, None, "node {i} panicked: {log}");
            for secret in self.secrets.all() {
                let line = log.lines().find(|line| line.contains(&secret));
                assert_eq!(line, None, "node {i} wrote down a secret");
            }
        }
    }

    /// Waits until Redis holds nothing of any connection.
    pub async fn redis_is_tidy(&self) {
        if let Some(redis) = &self.redis {
            let what = "Redis holds only what belongs to no connection";
            eventually_equals(what, &Vec::new(), async || leftovers(redis).await).await;
        }
    }

    /// Waits until the balancer knows that exactly these nodes are ready: requests only reach them.
    pub async fn balances_over(&self, nodes: &[usize]) {
        let balancer = self.balancer();
        let expected: Vec<String> = nodes.iter().map(|node| format!("node{node}")).collect();
        let mut round = 0;
        eventually("the balancer knows who is ready", async || {
            round += 1;
            let mark = format!("/healthz?round={round};");
            for _ in 0..self.nodes.len() * 2 {
                let _ = crate::http::try_fetch(balancer.address(), &crate::http::Request::get(&mark)).await;
            }
            let mut seen: Vec<_> = balancer
                .requests_with(&mark)
                .into_iter()
                .map(|request| request.node)
                .collect();
            seen.sort();
            seen.dedup();
            (seen == expected).then_some(())
        })
        .await;
    }
}

/// The keys in Redis that are left of connections that are gone. The list of nodes, the cluster's secret and the head
/// of a hub's log may stay; every other key must be gone, or expire, and memberships must be gone at once.
async fn leftovers(redis: &Redis) -> Vec<String> {
    let name = |key: &str| key.split_once("}:").map_or(key, |(_, name)| name).to_owned();
    let of_connections = |key: &String| MEMBERSHIP_KEYS.iter().any(|prefix| name(key).starts_with(prefix));
    let mut left: Vec<_> = redis.keys().await.into_iter().filter(of_connections).collect();
    left.extend(redis.lasting_keys().await);
    left.retain(|key| !PERMANENT_KEYS.contains(&name(key).as_str()));
    left.sort();
    left.dedup();
    left
}

const PERMANENT_KEYS: [&str; 6] = ["cluster", "beats", "secret", "hubs", "log", "registered"];
const MEMBERSHIP_KEYS: [&str; 5] = ["connection:", "groups:", "group:", "user:", "node:"];
