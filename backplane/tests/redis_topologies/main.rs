//! Tests with a master that sentinels watch, and with a Redis Cluster, on real servers: the rules hold there too, and a
//! failover is reported to the nodes that it concerns.
#![cfg(feature = "redis")]
#![allow(clippy::panic, clippy::unwrap_used)]

#[macro_use]
#[path = "../support/rules.rs"]
mod rules;

mod cluster;
mod cluster_set;
mod failover;
mod sentinel;
mod sentinel_set;
#[path = "../support/mod.rs"]
mod support;

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use hubcast_backplane::redis::{RedisBackplane, RedisOptions};
use hubcast_backplane::{Backplane, NodeId};

/// Returns whether the programs that a test needs are installed; prints the ones that are not.
fn can_run(programs: &[&str]) -> bool {
    for program in programs {
        let found = std::process::Command::new(program).arg("--version").output();
        if found.is_err() {
            // Written past the capture of a passing test's output: the count of skipped tests looks for such lines.
            let _nobody_reads_it = writeln!(std::io::stderr(), "topology skipped: there is no {program}");
            return false;
        }
    }
    true
}

/// Options whose times suit tests.
fn options(url: &str, node: &str) -> RedisOptions {
    let mut options = RedisOptions::parse(url).unwrap();
    options.node = NodeId::parse(node).unwrap();
    options.heartbeat_interval = Duration::from_millis(100);
    options.probe_interval = Duration::from_millis(500);
    options.linger = Duration::from_millis(100);
    options
}

async fn nodes(url: &str, count: usize) -> Vec<Arc<dyn Backplane>> {
    nodes_with(url, count, |_| {}).await
}

/// Nodes whose calls end soon where a server hangs.
async fn impatient_nodes(url: &str, count: usize) -> Vec<Arc<dyn Backplane>> {
    nodes_with(url, count, |options| {
        options.command_timeout = Duration::from_secs(1);
    })
    .await
}

async fn nodes_with(url: &str, count: usize, adjust: impl Fn(&mut RedisOptions)) -> Vec<Arc<dyn Backplane>> {
    let mut nodes: Vec<Arc<dyn Backplane>> = Vec::new();
    for number in 0..count {
        let mut options = options(url, &format!("node-{number}"));
        adjust(&mut options);
        nodes.push(Arc::new(RedisBackplane::connect(options).await.unwrap()));
    }
    nodes
}

/// A certificate for this machine, which is its own authority, and its key.
struct Tls {
    _dir: tempfile::TempDir,
    cert: std::path::PathBuf,
    key: std::path::PathBuf,
}

impl Tls {
    fn new() -> Self {
        let dir = tempfile::TempDir::new().unwrap();
        let made =
            rcgen::generate_simple_self_signed(["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
        let (cert, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
        std::fs::write(&cert, made.cert.pem()).unwrap();
        std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        Self { _dir: dir, cert, key }
    }

    /// Settings of a server, one `name value` each.
    fn settings(&self) -> Vec<String> {
        vec![
            format!("tls-cert-file {}", self.cert.display()),
            format!("tls-key-file {}", self.key.display()),
            format!("tls-ca-cert-file {}", self.cert.display()),
            "tls-auth-clients no".to_owned(),
            "tls-replication yes".to_owned(),
        ]
    }
}
