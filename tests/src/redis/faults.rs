//! Damage that operators and machines do to a server.

use std::net::SocketAddr;

use redis::FromRedisValue;
use tokio::time::{Duration, timeout};

use super::{Redis, Setup};
use crate::eventually::eventually;

/// The bound on one command: a server that does not answer is for tests to notice.
const PATIENCE: Duration = Duration::from_secs(20);

/// The data of a server at one moment.
#[derive(Debug, Clone)]
pub struct Snapshot(Vec<u8>);

impl Redis {
    /// Sends one command on a connection of its own.
    pub async fn command<T: FromRedisValue>(&self, words: &[&str]) -> redis::RedisResult<T> {
        let asking = async {
            let client = redis::Client::open(self.url())?;
            let mut connection = client.get_multiplexed_async_connection().await?;
            let (name, arguments) = words.split_first().expect("a command has a name");
            redis::cmd(name).arg(arguments).query_async(&mut connection).await
        };
        timeout(PATIENCE, asking).await.unwrap_or_else(|_| {
            let error = (redis::ErrorKind::Io, "no answer in time");
            Err(error.into())
        })
    }

    /// Sends one command that must succeed.
    pub async fn does(&self, words: &[&str]) {
        let done: redis::RedisResult<redis::Value> = self.command(words).await;
        done.unwrap_or_else(|error| panic!("{words:?}: {error}"));
    }

    /// A field of `INFO`; `None` if it is not there, or Redis does not answer.
    pub async fn info(&self, field: &str) -> Option<String> {
        let info: String = self.command(&["INFO"]).await.ok()?;
        let lines = info.lines().filter_map(|line| line.split_once(':'));
        let mut values = lines.filter(|(name, _)| *name == field);
        values.next().map(|(_, value)| value.trim().to_owned())
    }

    async fn number(&self, field: &str) -> Option<u64> {
        self.info(field).await?.parse().ok()
    }

    /// Waits until a field of `INFO` has a value.
    pub async fn says(&self, field: &str, value: &str) {
        let what = format!("redis-server says {field}:{value}");
        eventually(&what, async || (self.info(field).await? == value).then_some(())).await;
    }

    /// Becomes a replica of another server, and waits until it has all of it.
    pub async fn follow(&self, master: SocketAddr) {
        let port = master.port().to_string();
        self.does(&["REPLICAOF", &master.ip().to_string(), &port]).await;
        self.says("master_link_status", "up").await;
    }

    /// Starts a replica of this server, and waits until it has all of it. To detach it, drop it.
    pub async fn attach_replica(&self) -> Self {
        // Settings of its own, for when it is promoted.
        let replica = Self::start_with(self.setup.clone().set("repl-diskless-sync-delay", 0)).await;
        self.does(&["CONFIG", "SET", "repl-diskless-sync-delay", "0"])
            .await;
        replica.follow(self.address()).await;
        replica
    }

    /// A replica becomes a master.
    pub async fn promote(&self) {
        self.does(&["REPLICAOF", "NO", "ONE"]).await;
        self.says("role", "master").await;
    }

    /// Keeps all data of this moment.
    pub async fn snapshot(&self) -> Snapshot {
        self.does(&["SAVE"]).await;
        let file = self.directory.path().join("dump.rdb");
        Snapshot(std::fs::read(file).expect("it has been saved"))
    }

    /// Kills the server, and starts it under the same address with the data of an earlier moment.
    pub async fn restore(&mut self, snapshot: &Snapshot) {
        self.forget();
        let file = self.directory.path().join("dump.rdb");
        std::fs::write(file, &snapshot.0).expect("the snapshot can be written");
        // With an append-only file it would not read the snapshot.
        let volatile = Setup {
            durable: false,
            ..self.setup.clone()
        };
        self.process = volatile.spawn(self.port, self.directory.path());
        self.ready().await;
        if self.setup.durable {
            self.does(&["CONFIG", "SET", "appendfsync", "always"]).await;
            self.does(&["CONFIG", "SET", "appendonly", "yes"]).await;
            self.says("aof_rewrite_in_progress", "0").await;
            self.says("aof_last_bgrewrite_status", "ok").await;
        }
    }

    /// Kills the server, and deletes its files. [`restart`](Self::restart) starts it empty.
    pub fn forget(&mut self) {
        self.kill();
        let _it_wrote_nothing = std::fs::remove_dir_all(self.directory.path().join("appendonlydir"));
        let _it_wrote_nothing = std::fs::remove_file(self.directory.path().join("dump.rdb"));
    }

    /// Gives up keys by this policy until there is room for so many bytes, and then keeps the rest. Returns how many keys.
    pub async fn evict(&self, policy: &str, bytes: u64) -> u64 {
        let before = self.number("evicted_keys").await.unwrap_or(0);
        let used = self.number("used_memory").await.unwrap_or(0);
        self.does(&["CONFIG", "SET", "maxmemory-policy", policy]).await;
        let most = used.saturating_sub(bytes).max(1).to_string();
        self.does(&["CONFIG", "SET", "maxmemory", &most]).await;
        // Room is made before a command that may need it. Where nothing is left to give up, it fails.
        let _full: redis::RedisResult<redis::Value> = self.command(&["SET", "evict", "1", "PX", "1"]).await;
        self.has_room_again().await;
        self.number("evicted_keys").await.unwrap_or(0) - before
    }

    /// Refuses everything that takes memory, until [`has_room_again`](Self::has_room_again).
    pub async fn is_full(&self) {
        self.does(&["CONFIG", "SET", "maxmemory-policy", "noeviction"])
            .await;
        self.does(&["CONFIG", "SET", "maxmemory", "1"]).await;
    }

    /// Takes memory again.
    pub async fn has_room_again(&self) {
        self.does(&["CONFIG", "SET", "maxmemory", "0"]).await;
        self.does(&["CONFIG", "SET", "maxmemory-policy", "noeviction"])
            .await;
    }

    /// Cuts its clients of a type: `normal`, `pubsub`, `replica`.
    pub async fn cut_clients(&self, kind: &str) {
        self.does(&["CLIENT", "KILL", "TYPE", kind]).await;
    }

    /// Forgets the scripts that clients call by their hash.
    pub async fn forget_scripts(&self) {
        self.does(&["SCRIPT", "FLUSH", "SYNC"]).await;
    }

    /// Forgets all data while it lives.
    pub async fn flush(&self) {
        self.does(&["FLUSHALL", "SYNC"]).await;
    }
}
