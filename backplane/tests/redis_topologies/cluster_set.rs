//! A Redis Cluster whose servers end with its value.

use std::collections::BTreeMap;

use hubcast_backplane::conformance::eventually;
use redis::RedisResult;
use tokio::process::Command;

use crate::support::{RedisServer, free_port};

pub(crate) struct ClusterSet {
    pub(crate) servers: Vec<RedisServer>,
}

/// A server as the cluster sees it.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) id: String,
    pub(crate) port: u16,
    /// The id of its master; `None` for a master.
    master: Option<String>,
    slots: Vec<(u16, u16)>,
}

impl ClusterSet {
    /// Three masters with that many replicas each.
    pub(crate) async fn start(replicas: usize) -> Self {
        let mut servers = Vec::new();
        for _ in 0..3 * (1 + replicas) {
            let bus = format!("--cluster-port {}", free_port());
            let arguments = [
                "--cluster-enabled yes",
                "--cluster-node-timeout 1000",
                "--repl-diskless-sync-delay 0",
                &bus,
            ];
            servers.push(RedisServer::start_with(&arguments).await);
        }
        let created = Command::new("redis-cli")
            .args(["--cluster", "create"])
            .args(
                servers
                    .iter()
                    .map(|server| format!("127.0.0.1:{}", server.port())),
            )
            .args(["--cluster-replicas", &replicas.to_string(), "--cluster-yes"])
            .kill_on_drop(true)
            .output()
            .await
            .unwrap();
        let reported = String::from_utf8_lossy(&created.stdout);
        assert!(created.status.success(), "{reported}");
        let set = Self { servers };
        set.settled().await;
        set
    }

    /// Waits until every server that runs takes the cluster for whole and all replicas follow.
    pub(crate) async fn settled(&self) {
        for server in &self.servers {
            eventually("the cluster is whole", async || {
                let info: String = ask(server.port(), &["CLUSTER", "INFO"]).await.ok()?;
                let replication: String = ask(server.port(), &["INFO", "replication"]).await.ok()?;
                let follows =
                    replication.contains("role:master") || replication.contains("master_link_status:up");
                (info.contains("cluster_state:ok") && follows).then_some(())
            })
            .await;
        }
    }

    pub(crate) fn url(&self) -> String {
        let hosts: Vec<_> = self
            .servers
            .iter()
            .map(|server| format!("127.0.0.1:{}", server.port()))
            .collect();
        format!("redis+cluster://{}", hosts.join(","))
    }

    /// The running servers, as one of them sees the cluster.
    pub(crate) async fn seen(&self) -> Vec<Seen> {
        eventually("a server tells of the others", async || {
            for server in &self.servers {
                let nodes: RedisResult<String> = ask(server.port(), &["CLUSTER", "NODES"]).await;
                if let Ok(nodes) = nodes {
                    return Some(nodes.lines().filter_map(Seen::read).collect());
                }
            }
            None
        })
        .await
    }

    /// The master that has the keys of a tag.
    pub(crate) async fn master_of(&self, tag: &str) -> Seen {
        let slot = self.slot_of(tag).await;
        let has = |seen: &Seen| {
            seen.slots
                .iter()
                .any(|(first, last)| (*first..=*last).contains(&slot))
        };
        eventually("some master has the slot", async || {
            self.seen().await.into_iter().find(has)
        })
        .await
    }

    pub(crate) async fn slot_of(&self, tag: &str) -> u16 {
        for server in &self.servers {
            let slot: RedisResult<u16> =
                ask(server.port(), &["CLUSTER", "KEYSLOT", &format!("{{{tag}}}")]).await;
            if let Ok(slot) = slot {
                return slot;
            }
        }
        panic!("no server tells a slot");
    }

    pub(crate) async fn replica_of(&self, master: &Seen) -> Seen {
        let follows = |seen: &Seen| seen.master.as_ref() == Some(&master.id);
        eventually("the replica is known", async || {
            self.seen().await.into_iter().find(follows)
        })
        .await
    }

    /// Waits until the replica of a master has all of its data: one without it would assign offsets twice.
    pub(crate) async fn replicated(&self, master: &Seen) {
        let replica = self.replica_of(master).await;
        let server = |seen: &Seen| self.servers.iter().find(|server| server.port() == seen.port);
        server(&replica)
            .unwrap()
            .has_all_of(server(master).unwrap())
            .await;
    }

    pub(crate) async fn kill(&mut self, seen: &Seen) {
        let server = self.servers.iter_mut().find(|server| server.port() == seen.port);
        server.unwrap().kill().await;
    }

    /// Moves a slot with its keys to another master, as `redis-cli --cluster reshard` does.
    pub(crate) async fn move_slot(&self, slot: u16, from: &Seen, to: &Seen) {
        let slot = slot.to_string();
        let set_slot = ["CLUSTER", "SETSLOT", &slot];
        let tell = async |port: u16, words: &[&str]| {
            let words: Vec<_> = set_slot.iter().chain(words).copied().collect();
            ask::<()>(port, &words).await.unwrap();
        };
        tell(to.port, &["IMPORTING", &from.id]).await;
        tell(from.port, &["MIGRATING", &to.id]).await;
        loop {
            let keys: Vec<String> = ask(from.port, &["CLUSTER", "GETKEYSINSLOT", &slot, "100"])
                .await
                .unwrap();
            if keys.is_empty() {
                break;
            }
            let port = to.port.to_string();
            let mut words = vec!["MIGRATE", "127.0.0.1", &port, "", "0", "5000", "KEYS"];
            words.extend(keys.iter().map(String::as_str));
            ask::<String>(from.port, &words).await.unwrap();
        }
        for seen in [to, from] {
            tell(seen.port, &["NODE", &to.id]).await;
        }
    }
}

impl Seen {
    /// Reads a line of `CLUSTER NODES`; nothing for a server that is gone.
    fn read(line: &str) -> Option<Self> {
        let parts: Vec<_> = line.split(' ').collect();
        let [id, address, flags, master, _, _, _, _, slots @ ..] = parts.as_slice() else {
            return None;
        };
        let (_, port) = address.split('@').next()?.rsplit_once(':')?;
        let range = |slots: &&str| {
            let (first, last) = slots.split_once('-').unwrap_or((slots, slots));
            Some((first.parse().ok()?, last.parse().ok()?))
        };
        (!flags.contains("fail")).then(|| Self {
            id: (*id).to_owned(),
            port: port.parse().unwrap(),
            master: Some((*master).to_owned()).filter(|master| master != "-"),
            slots: slots.iter().filter_map(range).collect(),
        })
    }
}

/// Sends a command to one server.
pub(crate) async fn ask<T: redis::FromRedisValue>(port: u16, words: &[&str]) -> RedisResult<T> {
    let client = redis::Client::open(format!("redis://127.0.0.1:{port}"))?;
    let mut connection = client.get_multiplexed_async_connection().await?;
    let mut command = redis::cmd(words[0]);
    command.arg(&words[1..]);
    command.query_async(&mut connection).await
}

/// The masters of these tags, each once.
pub(crate) async fn masters_of(set: &ClusterSet, tags: &[&str]) -> BTreeMap<u16, Seen> {
    let mut masters = BTreeMap::new();
    for tag in tags {
        let master = set.master_of(tag).await;
        masters.insert(master.port, master);
    }
    masters
}
