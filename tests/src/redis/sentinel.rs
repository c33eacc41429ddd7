//! A master with replicas and the sentinels that watch them. All of them, and the nodes, reach a server through its
//! fault proxy.

use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;
use tokio::time::sleep;

use super::{Redis, Setup};
use crate::eventually::{BOUND, eventually, eventually_within};
use crate::fault_proxy::FaultProxy;
use crate::ports::free_port;
use crate::process::Process;

/// The name under which the sentinels know the master.
const MASTER: &str = "mymaster";

/// A server, and the proxy whose address it announces.
pub struct Fronted {
    /// The proxy before the server.
    pub proxy: FaultProxy,
    /// The server.
    pub redis: Redis,
}

/// Servers and sentinels.
pub struct SentinelSet {
    /// The servers; the first one was the master at first.
    pub servers: Vec<Fronted>,
    sentinels: Vec<Sentinel>,
}

struct Sentinel {
    port: u16,
    _process: Process,
    _directory: TempDir,
}

impl SentinelSet {
    /// One master with that many replicas, and three sentinels.
    pub async fn start(replicas: u32, seed: u64) -> Self {
        let mut servers: Vec<Fronted> = Vec::new();
        for number in 0..=replicas {
            let port = free_port();
            let proxy = FaultProxy::start(([127, 0, 0, 1], port).into(), seed + u64::from(number));
            let setup = Setup::default()
                .set("repl-diskless-sync-delay", 0)
                .set("replica-announce-ip", "127.0.0.1")
                .set("replica-announce-port", proxy.address().port());
            let redis = Redis::start_at(port, setup).await;
            if let Some(master) = servers.first() {
                redis.follow(master.proxy.address()).await;
            }
            servers.push(Fronted { proxy, redis });
        }
        let master = servers[0].proxy.address().port();
        let sentinels = (0..3).map(|_| Sentinel::start(master)).collect();
        let set = Self { servers, sentinels };
        set.is_settled().await;
        set
    }

    /// Waits until every sentinel knows the others and every server, and all replicas follow.
    pub async fn is_settled(&self) {
        for sentinel in &self.sentinels {
            eventually("the sentinels know all", async || {
                let others = sentinel.field("num-other-sentinels").await?;
                let replicas = sentinel.field("num-slaves").await?;
                let all = [self.sentinels.len() - 1, self.servers.len() - 1].map(|count| count.to_string());
                ([others, replicas] == all).then_some(())
            })
            .await;
        }
        eventually_within(BOUND * 4, "every replica follows the master", async || {
            let master = self.master().await;
            for (_, server) in self.servers.iter().enumerate().filter(|(i, _)| *i != master) {
                if server.redis.info("master_link_status").await? != "up" {
                    return None;
                }
            }
            Some(())
        })
        .await;
    }

    /// The URL for nodes.
    pub fn url(&self) -> String {
        let hosts: Vec<_> = self
            .sentinels
            .iter()
            .map(|sentinel| format!("127.0.0.1:{}", sentinel.port))
            .collect();
        format!("redis+sentinel://{}/{MASTER}", hosts.join(","))
    }

    /// The index of the server that most sentinels take for the master, which takes itself for it as well.
    pub async fn master(&self) -> usize {
        eventually("the sentinels agree on a master", async || {
            let mut named = Vec::new();
            for sentinel in &self.sentinels {
                named.push(sentinel.field("port").await?);
            }
            let agreed = named.windows(2).all(|pair| pair[0] == pair[1]);
            let is_named = |server: &Fronted| server.proxy.address().port().to_string() == named[0];
            let master = self.servers.iter().position(is_named).filter(|_| agreed)?;
            (self.servers[master].redis.info("role").await? == "master").then_some(master)
        })
        .await
    }

    /// Has the sentinels make a replica the master while the master lives.
    pub async fn switch(&self) {
        let before = self.master().await;
        eventually("the sentinels have carried out a failover", async || {
            // Refused while one is under way; one that they gave up is begun anew.
            let _ = self.sentinels[0].ask(&["FAILOVER", MASTER]).await;
            sleep(Duration::from_millis(100)).await;
            (self.master().await != before).then_some(())
        })
        .await;
    }

    /// Waits until another server is the master.
    pub async fn has_another_than(&self, before: usize) {
        eventually("another server is the master", async || {
            (self.master().await != before).then_some(())
        })
        .await;
    }
}

impl Sentinel {
    fn start(master: u16) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let port = free_port();
        let configuration = format!(
            "port {port}\nbind 127.0.0.1\ndir {}\n\
             sentinel monitor {MASTER} 127.0.0.1 {master} 2\n\
             sentinel down-after-milliseconds {MASTER} 1000\n\
             sentinel failover-timeout {MASTER} 3000\n",
            directory.path().display(),
        );
        let file = directory.path().join("sentinel.conf");
        std::fs::write(&file, configuration).expect("the configuration can be written");
        let mut command = Command::new("redis-server");
        command.arg(&file).arg("--sentinel");
        Self {
            port,
            _process: Process::start("sentinel", &mut command, directory.path()),
            _directory: directory,
        }
    }

    async fn ask(&self, words: &[&str]) -> Option<redis::Value> {
        let client = redis::Client::open(format!("redis://127.0.0.1:{}", self.port)).ok()?;
        let mut connection = client.get_multiplexed_async_connection().await.ok()?;
        let mut command = redis::cmd("SENTINEL");
        command.arg(words).query_async(&mut connection).await.ok()
    }

    /// A field of what it knows of the master.
    async fn field(&self, name: &str) -> Option<String> {
        let told = self.ask(&["MASTER", MASTER]).await?;
        let told: Vec<(String, String)> = redis::from_redis_value(told).ok()?;
        told.into_iter()
            .find(|(field, _)| field == name)
            .map(|(_, value)| value)
    }
}
