//! A Redis Cluster: three masters with a replica each. Nodes reach a server through its fault proxy.

use std::process::Command;

use super::sentinel::Fronted;
use super::{Redis, Setup};
use crate::eventually::eventually;
use crate::fault_proxy::FaultProxy;
use crate::ports::free_port;

/// The servers.
pub struct ClusterSet {
    /// Masters and replicas, as they were started.
    pub servers: Vec<Fronted>,
}

const MASTERS: usize = 3;

impl ClusterSet {
    /// Starts the servers and makes them a cluster.
    pub async fn start(seed: u64) -> Self {
        let mut servers = Vec::new();
        for number in 0..2 * MASTERS {
            let (port, bus) = (free_port(), free_port());
            let proxy = FaultProxy::start(([127, 0, 0, 1], port).into(), seed + number as u64);
            let setup = Setup::default()
                .set("cluster-enabled", "yes")
                .set("cluster-node-timeout", 1_000)
                .set("cluster-port", bus)
                .set("cluster-announce-bus-port", bus)
                .set("cluster-announce-port", proxy.address().port())
                .set("repl-diskless-sync-delay", 0);
            let redis = Redis::start_at(port, setup).await;
            servers.push(Fronted { proxy, redis });
        }
        let mut command = Command::new("redis-cli");
        command.args(["--cluster", "create"]);
        command.args(servers.iter().map(|server| server.proxy.address().to_string()));
        command.args(["--cluster-replicas", "1", "--cluster-yes"]);
        let created = tokio::task::spawn_blocking(move || command.output()).await;
        let output = created.expect("it ends").expect("redis-cli can be started");
        let told = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{told}");
        let set = Self { servers };
        set.is_settled().await;
        set
    }

    /// Waits until every server takes the cluster for whole and all replicas follow.
    pub async fn is_settled(&self) {
        for server in &self.servers {
            eventually("the cluster is whole", async || {
                let info: String = server.redis.command(&["CLUSTER", "INFO"]).await.ok()?;
                let role = server.redis.info("role").await?;
                let follows = role == "master" || server.redis.info("master_link_status").await? == "up";
                (info.contains("cluster_state:ok") && follows).then_some(())
            })
            .await;
        }
    }

    /// The URL for nodes.
    pub fn url(&self) -> String {
        let hosts: Vec<_> = self
            .servers
            .iter()
            .map(|server| server.proxy.address().to_string())
            .collect();
        format!("redis+cluster://{}", hosts.join(","))
    }

    /// The index of the master that has the keys of a hub.
    pub async fn master_of(&self, hub: &str) -> usize {
        let tag = format!("{{{hub}}}");
        eventually("some master has the hub", async || {
            for (index, server) in self.servers.iter().enumerate() {
                let slot: u16 = match server.redis.command(&["CLUSTER", "KEYSLOT", &tag]).await {
                    Ok(slot) => slot,
                    Err(_) => continue,
                };
                let nodes: String = server.redis.command(&["CLUSTER", "NODES"]).await.ok()?;
                let own = nodes.lines().find(|line| line.contains("myself"))?;
                if own.contains("master") && has_slot(own, slot) {
                    return Some(index);
                }
            }
            None
        })
        .await
    }

    /// Makes the replica of a hub's master the master, while the master lives.
    pub async fn switch(&self, hub: &str) {
        let master = self.master_of(hub).await;
        let port = self.servers[master].proxy.address().port().to_string();
        eventually("the replica takes over", async || {
            for server in &self.servers {
                if server.redis.info("role").await? == "slave"
                    && server.redis.info("master_port").await? == port
                {
                    server
                        .redis
                        .command::<redis::Value>(&["CLUSTER", "FAILOVER"])
                        .await
                        .ok()?;
                    return Some(());
                }
            }
            None
        })
        .await;
        self.has_another_than(hub, master).await;
    }

    /// Waits until another server is the hub's master.
    pub async fn has_another_than(&self, hub: &str, before: usize) {
        eventually("another server has the hub", async || {
            (self.master_of(hub).await != before).then_some(())
        })
        .await;
    }
}

/// Returns whether a line of `CLUSTER NODES` has a slot.
fn has_slot(line: &str, slot: u16) -> bool {
    line.split(' ').skip(8).any(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let bounds = (first.parse::<u16>(), last.parse::<u16>());
        matches!(bounds, (Ok(first), Ok(last)) if (first..=last).contains(&slot))
    })
}
