//! A real redis-server, alone, watched by sentinels or as a part of a cluster, and all that may go wrong with it.

pub mod cluster;
mod faults;
pub mod sentinel;

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use redis::AsyncCommands;
use redis::aio::MultiplexedConnection;
use tempfile::TempDir;

use crate::clock::Clock;
use crate::eventually::eventually;
use crate::ports::free_port;
use crate::process::Process;

pub use faults::Snapshot;

/// How a server is started.
#[derive(Debug, Clone, Default)]
pub struct Setup {
    durable: bool,
    arguments: Vec<String>,
    clock: Option<Clock>,
}

impl Setup {
    /// The server writes every change to disk before it answers.
    pub fn durable(self) -> Self {
        Self {
            durable: true,
            ..self
        }
    }

    /// A setting of its configuration, such as `repl-backlog-ttl`.
    pub fn set(mut self, name: &str, value: impl std::fmt::Display) -> Self {
        self.arguments.extend([format!("--{name}"), value.to_string()]);
        self
    }

    /// A clock that is not the machine's.
    pub fn clock(self, clock: &Clock) -> Self {
        Self {
            clock: Some(clock.clone()),
            ..self
        }
    }
}

/// One redis-server on a port of its own. It keeps nothing on disk unless configured to.
pub struct Redis {
    port: u16,
    setup: Setup,
    directory: TempDir,
    process: Process,
}

impl Redis {
    /// Starts a server that forgets everything when it ends.
    pub async fn start() -> Self {
        Self::start_with(Setup::default()).await
    }

    /// Starts a server that writes every change to disk before it answers.
    pub async fn start_durable() -> Self {
        Self::start_with(Setup::default().durable()).await
    }

    /// Starts a server that is set up in another way.
    pub async fn start_with(setup: Setup) -> Self {
        Self::start_at(free_port(), setup).await
    }

    /// Starts one on this port.
    pub async fn start_at(port: u16, setup: Setup) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let process = setup.spawn(port, directory.path());
        let mut redis = Self {
            port,
            setup,
            directory,
            process,
        };
        redis.ready().await;
        redis
    }

    /// Its address, as gateways take it.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Its address.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Kills it. Its address refuses connections from then on.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Stops it from running, with its sockets open.
    pub fn pause(&self) {
        self.process.pause();
    }

    /// Lets it run again.
    pub fn resume(&self) {
        self.process.resume();
    }

    /// Starts it again after [`kill`](Self::kill) under the same address: with what it had if it is durable, empty if not.
    pub async fn restart(&mut self) {
        self.process = self.setup.spawn(self.port, self.directory.path());
        self.ready().await;
    }

    async fn ready(&mut self) {
        let url = self.url();
        let process = &mut self.process;
        eventually("redis-server answers", async || {
            assert!(
                process.exited().is_none(),
                "redis-server has ended: {}{}",
                process.output(),
                process.errors()
            );
            let client = redis::Client::open(url.clone()).expect("a valid address");
            let mut connection = client.get_multiplexed_async_connection().await.ok()?;
            connection.ping::<String>().await.ok()
        })
        .await;
    }

    /// A connection for looking inside.
    pub async fn connection(&self) -> MultiplexedConnection {
        let client = redis::Client::open(self.url()).expect("a valid address");
        client
            .get_multiplexed_async_connection()
            .await
            .expect("redis-server answers")
    }

    /// Every key, sorted.
    pub async fn keys(&self) -> Vec<String> {
        let mut keys: Vec<String> = self
            .connection()
            .await
            .keys("*")
            .await
            .expect("redis-server answers");
        keys.sort();
        keys
    }

    /// Every key that has no expiry, sorted.
    pub async fn lasting_keys(&self) -> Vec<String> {
        let mut connection = self.connection().await;
        let mut lasting = Vec::new();
        for key in self.keys().await {
            let ttl: i64 = connection.ttl(&key).await.expect("redis-server answers");
            if ttl == -1 {
                lasting.push(key);
            }
        }
        lasting
    }

    /// Every key with the members, fields or text it holds, for looking for traces of something.
    pub async fn contents(&self) -> Vec<(String, String)> {
        let mut connection = self.connection().await;
        let mut contents = Vec::new();
        for key in self.keys().await {
            let kind: String = connection.key_type(&key).await.expect("redis-server answers");
            let command = match kind.as_str() {
                "string" => redis::cmd("GET").arg(&key).to_owned(),
                "set" => redis::cmd("SMEMBERS").arg(&key).to_owned(),
                "hash" => redis::cmd("HGETALL").arg(&key).to_owned(),
                "zset" => redis::cmd("ZRANGE").arg(&key).arg(0).arg(-1).to_owned(),
                "list" => redis::cmd("LRANGE").arg(&key).arg(0).arg(-1).to_owned(),
                "stream" => redis::cmd("XRANGE").arg(&key).arg("-").arg("+").to_owned(),
                _ => continue, // expired meanwhile
            };
            let value: redis::Value = command
                .query_async(&mut connection)
                .await
                .expect("redis-server answers");
            contents.push((key, readable(&value)));
        }
        contents
    }
}

fn readable(value: &redis::Value) -> String {
    match value {
        redis::Value::BulkString(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        redis::Value::Array(items) | redis::Value::Set(items) => {
            items.iter().map(readable).collect::<Vec<_>>().join(" ")
        }
        redis::Value::Map(pairs) => pairs
            .iter()
            .map(|(k, v)| format!("{}={}", readable(k), readable(v)))
            .collect::<Vec<_>>()
            .join(" "),
        other => format!("{other:?}"),
    }
}

impl Setup {
    fn spawn(&self, port: u16, directory: &Path) -> Process {
        let mut command = Command::new("redis-server");
        command.args(["--port", &port.to_string()]);
        command.args(["--bind", "127.0.0.1", "--save", "", "--daemonize", "no"]);
        command.arg("--dir").arg(directory);
        if self.durable {
            command.args(["--appendonly", "yes", "--appendfsync", "always"]);
        }
        command.args(&self.arguments);
        if let Some(clock) = &self.clock {
            clock.give_to(&mut command);
        }
        Process::start("redis", &mut command, directory)
    }
}
