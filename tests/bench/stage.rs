//! The processes of one subject: Redis, and nodes of a gateway or a floor.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;

use hubcast_tests::eventually::eventually;
use hubcast_tests::gateway::{Gateway, Settings};
use hubcast_tests::process::Process;
use hubcast_tests::redis::Redis;
use tempfile::TempDir;

use crate::floor::Writes;
use crate::plan::{Server, Subject};

/// The gateways' programs.
#[derive(Debug)]
pub(crate) struct Programs {
    pub(crate) binary: PathBuf,
    /// A gateway that is embedded in an application.
    pub(crate) library: PathBuf,
}

/// The processes of a run. They end when it is dropped.
pub(crate) struct Stage {
    nodes: Vec<Node>,
    redis: Option<Redis>,
    /// The files that embedded gateways write.
    records: TempDir,
}

enum Node {
    Gateway(Gateway),
    Floor {
        process: Process,
        address: SocketAddr,
        _directory: TempDir,
    },
}

impl Stage {
    /// Starts the programs of a subject. Without Redis there is one node, for several would not be one cluster.
    pub(crate) async fn start(subject: Subject, nodes: u32, programs: &Programs) -> Self {
        let records = tempfile::tempdir().expect("a temporary directory");
        let server = subject.server();
        let has_redis = !matches!(server, Server::Gateway { has_redis: false, .. });
        let redis = if has_redis {
            Some(Redis::start().await)
        } else {
            None
        };
        let mut stage = Self {
            nodes: Vec::new(),
            redis,
            records,
        };
        for number in 0..if has_redis { nodes } else { 1 } {
            let node = match (server, &stage.redis) {
                (Server::Redis, _) => break,
                (Server::Floor(writes), Some(redis)) => Node::floor(writes, redis).await,
                (server, redis) => {
                    let mut settings = settings(server, redis.as_ref(), programs);
                    if let Server::Gateway { is_library: true, .. } = server {
                        let record = stage.records.path().join(number.to_string());
                        settings = settings
                            .set("node_id", format!("node-{number}"))
                            .set("record", record.display());
                    }
                    Node::Gateway(Gateway::start(settings).await)
                }
            };
            stage.nodes.push(node);
        }
        stage
    }

    /// The addresses that clients connect to.
    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        match &self.redis {
            Some(redis) if self.nodes.is_empty() => vec![redis.address()],
            _ => self.nodes.iter().map(Node::address).collect(),
        }
    }

    /// The ids of the nodes' processes.
    pub(crate) fn nodes(&self) -> Vec<u32> {
        self.nodes.iter().map(Node::id).collect()
    }

    /// The id of Redis' process, if there is one.
    pub(crate) fn redis(&self) -> Vec<u32> {
        self.redis.iter().map(Redis::id).collect()
    }
}

/// The settings of a gateway's node. Limits on one client's rate would hold the publisher back.
pub(crate) fn settings(server: Server, redis: Option<&Redis>, programs: &Programs) -> Settings {
    let Server::Gateway {
        is_library,
        is_volatile,
        ..
    } = server
    else {
        panic!("{server:?} is no gateway");
    };
    let program = if is_library {
        &programs.library
    } else {
        &programs.binary
    };
    let settings = Settings::default()
        .program(program)
        .set("log.level", "warn")
        .set("limits.messages_per_second", 0)
        .set("limits.bytes_per_second", 0)
        .set("hubs.volatile", is_volatile);
    match redis {
        Some(redis) => settings.redis(&redis.url()),
        None => settings,
    }
}

impl Node {
    async fn floor(writes: Writes, redis: &Redis) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let this = std::env::current_exe().expect("this program has a path");
        let mut command = Command::new(this);
        command
            .arg("floor")
            .arg(writes.name())
            .arg(redis.address().to_string());
        let mut process = Process::start("floor", &mut command, directory.path());
        let address = eventually("the floor listens", async || {
            assert!(
                process.exited().is_none(),
                "the floor has ended: {}",
                process.errors()
            );
            let output = process.output();
            output.strip_prefix("listening on http://")?.trim().parse().ok()
        })
        .await;
        Self::Floor {
            process,
            address,
            _directory: directory,
        }
    }

    fn address(&self) -> SocketAddr {
        match self {
            Self::Gateway(gateway) => gateway.address(),
            Self::Floor { address, .. } => *address,
        }
    }

    fn id(&self) -> u32 {
        match self {
            Self::Gateway(gateway) => gateway.id(),
            Self::Floor { process, .. } => process.id(),
        }
    }
}
