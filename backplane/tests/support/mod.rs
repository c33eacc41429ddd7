//! A real redis-server for one test.
#![allow(
    clippy::panic,
    clippy::unwrap_used,
    dead_code,
    unreachable_pub,
    reason = "each test binary uses a part"
)]

pub mod dying;
pub mod frozen;
pub mod reporter;
pub mod way;

use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use hubcast_backplane::conformance::eventually;
use hubcast_backplane::redis::{RedisBackplane, RedisOptions};
use hubcast_backplane::{Backplane, NodeId};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep};

/// A server that ends with its value.
pub struct RedisServer {
    child: Option<Child>,
    port: u16,
    dir: TempDir,
    arguments: Vec<String>,
}

impl RedisServer {
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// Starts a server with more arguments, each of them `--name value…`.
    pub async fn start_with(arguments: &[&str]) -> Self {
        let mut server = Self {
            child: None,
            port: 0,
            dir: TempDir::new().unwrap(),
            arguments: arguments
                .iter()
                .flat_map(|argument| argument.split(' '))
                .map(str::to_owned)
                .collect(),
        };
        for _ in 0..10 {
            server.port = free_port();
            if server.restart().await {
                return server;
            }
        }
        panic!("redis-server does not start");
    }

    /// Starts the server again on its port, with the data that it persisted. Returns whether it accepts connections.
    pub async fn restart(&mut self) -> bool {
        let mut command = Command::new("redis-server");
        command
            .args(["--bind", "127.0.0.1", "--save", ""])
            .arg("--dir")
            .arg(self.dir.path());
        if !self.arguments.iter().any(|argument| argument == "--tls-port") {
            command.arg("--port").arg(self.port.to_string());
        }
        let port = self.port.to_string();
        command.args(
            self.arguments
                .iter()
                .map(|argument| argument.replace("PORT", &port)),
        );
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let deadline = Instant::now() + Duration::from_secs(10);
        while Instant::now() < deadline {
            if child.try_wait().unwrap().is_some() {
                return false; // another process took the port
            }
            if TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).await.is_ok() {
                self.child = Some(child);
                return true;
            }
            sleep(Duration::from_millis(5)).await;
        }
        false
    }

    /// Ends the server at once.
    pub async fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().await.unwrap();
        }
    }

    /// Sends a signal, such as `STOP` or `CONT`.
    pub async fn signal(&self, name: &str) {
        let id = self.child.as_ref().and_then(Child::id).unwrap();
        let sent = Command::new("kill")
            .args([format!("-{name}"), id.to_string()])
            .status()
            .await;
        assert!(sent.unwrap().success());
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Options whose times suit tests.
    pub fn options(&self, node: &str) -> RedisOptions {
        let mut options = RedisOptions::parse(&self.url()).unwrap();
        options.node = NodeId::parse(node).unwrap();
        options.heartbeat_interval = Duration::from_millis(100);
        options.probe_interval = Duration::from_millis(500);
        options.linger = Duration::from_millis(100);
        options.outage_wait = Duration::from_secs(2);
        options
    }

    pub async fn node(&self, name: &str) -> Arc<RedisBackplane> {
        Arc::new(RedisBackplane::connect(self.options(name)).await.unwrap())
    }

    pub async fn nodes(&self, count: usize) -> Vec<Arc<dyn Backplane>> {
        let mut nodes: Vec<Arc<dyn Backplane>> = Vec::new();
        for number in 0..count {
            nodes.push(self.node(&format!("node-{number}")).await);
        }
        nodes
    }

    /// A connection for the test itself.
    pub async fn look(&self) -> redis::aio::MultiplexedConnection {
        let client = redis::Client::open(self.url()).unwrap();
        client.get_multiplexed_async_connection().await.unwrap()
    }

    /// Every key, sorted.
    pub async fn keys(&self) -> Vec<String> {
        let mut keys: Vec<String> = redis::cmd("KEYS")
            .arg("*")
            .query_async(&mut self.look().await)
            .await
            .unwrap();
        keys.sort();
        keys
    }

    /// A section of the server's `INFO`.
    pub async fn info(&self, section: &str) -> String {
        redis::cmd("INFO")
            .arg(section)
            .query_async(&mut self.look().await)
            .await
            .unwrap()
    }

    /// Makes it a replica of another server, and waits until it has the other's data.
    pub async fn follow(&self, master: &Self) {
        self.command(&format!("REPLICAOF 127.0.0.1 {}", master.port))
            .await;
        hubcast_backplane::conformance::eventually("the replica follows", async || {
            let reported = self.info("replication").await;
            reported.contains("master_link_status:up").then_some(())
        })
        .await;
    }

    /// Waits until it has all present data of its master.
    pub async fn has_all_of(&self, master: &Self) {
        let offset = async |server: &Self| -> u64 {
            let reported = server.info("replication").await;
            let offset = reported
                .lines()
                .find_map(|line| line.strip_prefix("master_repl_offset:"));
            offset.unwrap().trim().parse().unwrap()
        };
        let all = offset(master).await;
        hubcast_backplane::conformance::eventually("the replica has it all", async || {
            (offset(self).await >= all).then_some(())
        })
        .await;
    }

    /// Makes it a master.
    pub async fn promote(&self) {
        self.command("REPLICAOF NO ONE").await;
    }

    /// Sends a command whose answer does not matter.
    /// Has the server delete keys to make room, as it does where not all of them are to stay.
    pub async fn evict(&self, keys: &[String]) {
        for key in keys {
            self.command(&format!("PEXPIRE {key} 100000")).await; // a key without an expiry stays
        }
        self.command("CONFIG SET maxmemory-policy volatile-ttl").await;
        self.command("CONFIG SET maxmemory 1").await;
        eventually("the server evicts", async || {
            let mut any = redis::cmd("SET");
            let _full = any.arg("any").arg("x");
            let _ = any.query_async::<()>(&mut self.look().await).await;
            let left = self.keys().await;
            (!left.iter().any(|key| keys.contains(key))).then_some(())
        })
        .await;
        self.command("CONFIG SET maxmemory 0").await;
    }

    pub async fn command(&self, words: &str) {
        let mut words = words.split(' ');
        let mut command = redis::cmd(words.next().unwrap());
        command.arg(words.collect::<Vec<_>>());
        command.exec_async(&mut self.look().await).await.unwrap();
    }
}

pub fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}
