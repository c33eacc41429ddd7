//! A master with replicas and sentinels, of which each ends with its value.

use std::net::Ipv4Addr;
use std::process::Stdio;
use std::time::Duration;

use hubcast_backplane::conformance::eventually;
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use crate::Tls;
use crate::support::{RedisServer, free_port};

/// The name under which the sentinels know the master.
pub(crate) const MASTER: &str = "mymaster";

#[derive(Default)]
pub(crate) struct Settings<'a> {
    pub(crate) replicas: usize,
    pub(crate) sentinels: usize,
    pub(crate) password: Option<&'a str>,
    pub(crate) sentinel_password: Option<&'a str>,
    pub(crate) tls: Option<&'a Tls>,
    /// The number of the newest failover that the sentinels know of at first.
    pub(crate) failover: usize,
}

pub(crate) struct SentinelSet {
    /// The servers; the first one was the master at first.
    pub(crate) servers: Vec<RedisServer>,
    sentinels: Vec<Sentinel>,
}

struct Sentinel {
    _child: Child,
    port: u16,
    _dir: TempDir,
}

impl SentinelSet {
    pub(crate) async fn start(settings: &Settings<'_>) -> Self {
        let mut arguments = Vec::new();
        if let Some(password) = settings.password {
            arguments.extend([
                format!("--requirepass {password}"),
                format!("--masterauth {password}"),
            ]);
        }
        if let Some(tls) = settings.tls {
            arguments.extend(["--port 0".to_owned(), "--tls-port PORT".to_owned()]);
            arguments.extend(tls.settings().iter().map(|setting| format!("--{setting}")));
        }
        arguments.push("--repl-diskless-sync-delay 0".to_owned());
        let mut servers = vec![start_server(&arguments).await];
        let port = servers[0].port();
        arguments.push(format!("--replicaof 127.0.0.1 {port}"));
        for _ in 0..settings.replicas {
            servers.push(start_server(&arguments).await);
        }
        let mut sentinels = Vec::new();
        for _ in 0..settings.sentinels {
            sentinels.push(Sentinel::start(port, settings).await);
        }
        Self { servers, sentinels }
    }

    /// Waits until every sentinel knows the others and every replica.
    pub(crate) async fn settled(&self) {
        for sentinel in &self.sentinels {
            eventually("the sentinels know all", async || {
                let others = sentinel.count("num-other-sentinels").await?;
                let replicas = sentinel.count("num-slaves").await?;
                (others + 1 == self.sentinels.len() && replicas + 1 == self.servers.len()).then_some(())
            })
            .await;
        }
        for replica in &self.servers[1..] {
            eventually("the replicas follow", async || {
                let info: String = redis::cmd("INFO")
                    .arg("replication")
                    .query_async(&mut replica.look().await)
                    .await
                    .ok()?;
                info.contains("master_link_status:up").then_some(())
            })
            .await;
        }
    }

    /// Waits until the replicas have all data of the first server: one without it would assign offsets twice.
    pub(crate) async fn replicated(&self) {
        for replica in &self.servers[1..] {
            replica.has_all_of(&self.servers[0]).await;
        }
    }

    /// Waits until some sentinel names another server as the master, whether the others do already or not.
    pub(crate) async fn failover_begins(&self) {
        let first = self.servers[0].port().to_string();
        eventually("a sentinel names another master", async || {
            for sentinel in &self.sentinels {
                let mut command = redis::cmd("SENTINEL");
                command.arg("GET-MASTER-ADDR-BY-NAME").arg(MASTER);
                let (_, port): (String, String) =
                    command.query_async(&mut sentinel.look().await?).await.ok()?;
                if port != first {
                    return Some(());
                }
            }
            None
        })
        .await;
    }

    /// One more sentinel, which takes another server for the master, by a failover of this number.
    pub(crate) async fn add_sentinel(&mut self, master: &RedisServer, failover: usize) {
        let settings = Settings {
            failover,
            ..Settings::default()
        };
        self.sentinels
            .push(Sentinel::start(master.port(), &settings).await);
    }

    /// Makes all sentinels forget the master, so that none of them acts.
    pub(crate) async fn forget_master(&self) {
        for sentinel in &self.sentinels {
            sentinel.command(&["REMOVE", MASTER]).await.unwrap();
        }
    }

    /// Makes the sentinels watch a server as the master.
    pub(crate) async fn name_master(&self, server: &RedisServer) {
        let port = server.port().to_string();
        for sentinel in &self.sentinels {
            let monitor = ["MONITOR", MASTER, "127.0.0.1", &port, "1"];
            sentinel.command(&monitor).await.unwrap();
        }
    }

    /// The number of the newest failover that the sentinels know of.
    pub(crate) async fn failovers(&self) -> usize {
        let mut newest = 0;
        for sentinel in &self.sentinels {
            newest = newest.max(sentinel.count("config-epoch").await.unwrap());
        }
        newest
    }

    /// The sentinels' hosts and ports.
    pub(crate) fn hosts(&self) -> String {
        let hosts: Vec<_> = self
            .sentinels
            .iter()
            .map(|sentinel| format!("127.0.0.1:{}", sentinel.port))
            .collect();
        hosts.join(",")
    }

    pub(crate) fn url(&self) -> String {
        format!("redis+sentinel://{}/{MASTER}", self.hosts())
    }

    /// Makes the sentinels promote a replica while the master lives.
    pub(crate) async fn switch(&self) {
        eventually("the sentinels agree to a failover", async || {
            self.sentinels[0].command(&["FAILOVER", MASTER]).await
        })
        .await;
    }
}

async fn start_server(arguments: &[String]) -> RedisServer {
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    RedisServer::start_with(&arguments).await
}

impl Sentinel {
    async fn start(master: u16, settings: &Settings<'_>) -> Self {
        let dir = TempDir::new().unwrap();
        let quorum = settings.sentinels / 2 + 1;
        let mut lines = vec![
            "bind 127.0.0.1".to_owned(),
            format!("dir {}", dir.path().display()),
            format!("sentinel monitor {MASTER} 127.0.0.1 {master} {quorum}"),
            format!("sentinel down-after-milliseconds {MASTER} 1000"),
            format!("sentinel failover-timeout {MASTER} 3000"),
            format!("sentinel config-epoch {MASTER} {}", settings.failover),
        ];
        if let Some(password) = settings.password {
            lines.push(format!("sentinel auth-pass {MASTER} {password}"));
        }
        if let Some(password) = settings.sentinel_password {
            lines.push(format!("requirepass {password}"));
        }
        if let Some(tls) = settings.tls {
            lines.extend(tls.settings());
        }
        for _ in 0..10 {
            let port = free_port();
            let ports = match settings.tls {
                Some(_) => format!("port 0\ntls-port {port}\n"),
                None => format!("port {port}\n"),
            };
            let file = dir.path().join("sentinel.conf");
            std::fs::write(&file, lines.join("\n") + "\n" + &ports).unwrap();
            let mut child = Command::new("redis-server")
                .arg(&file)
                .arg("--sentinel")
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .kill_on_drop(true)
                .spawn()
                .unwrap();
            let listens = eventually("the sentinel listens or ends", async || {
                if child.try_wait().unwrap().is_some() {
                    return Some(false); // another process took the port
                }
                let connected = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await;
                connected.is_ok().then_some(true)
            })
            .await;
            if listens {
                return Self {
                    _child: child,
                    port,
                    _dir: dir,
                };
            }
        }
        panic!("the sentinel does not start");
    }

    /// A number that the sentinel has of the master.
    async fn count(&self, name: &str) -> Option<usize> {
        let mut command = redis::cmd("SENTINEL");
        command.arg("MASTER").arg(MASTER);
        let reported: Vec<String> = command.query_async(&mut self.look().await?).await.ok()?;
        let at = reported.iter().position(|field| field == name)?;
        reported.get(at + 1)?.parse().ok()
    }

    async fn command(&self, words: &[&str]) -> Option<()> {
        let mut command = redis::cmd("SENTINEL");
        command.arg(words);
        command.exec_async(&mut self.look().await?).await.ok()
    }

    async fn look(&self) -> Option<redis::aio::MultiplexedConnection> {
        let client = redis::Client::open(format!("redis://127.0.0.1:{}", self.port)).unwrap();
        let opened = client.get_multiplexed_async_connection();
        tokio::time::timeout(Duration::from_secs(2), opened)
            .await
            .ok()?
            .ok()
    }
}
