//! The processes: Redis, the nodes behind a balancer, and one more node that is never hurt.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::Command;

use tokio::time::sleep;

use super::Options;
use super::schedule::Fault;
use crate::balancer::{Balancer, Rules};
use crate::gateway::{Gateway, Settings};
use crate::ports::free_port;
use crate::redis::Redis;

/// Everything that runs. Fields are dropped, and so processes killed, from the outside to the inside.
pub(crate) struct Stage {
    balancer: Balancer,
    nodes: Vec<Gateway>,
    control: Gateway,
    redis: Redis,
    /// Where Redis keeps what it wrote down.
    data: PathBuf,
}

impl Stage {
    pub(crate) async fn start(options: &Options) -> Self {
        let redis = Redis::start_durable().await;
        let settings = Settings::default()
            .redis(&redis.url())
            .set("hubs.stateful_reconnect", true)
            // Several Pings within the clients' patience, also on a machine that is busy.
            .set(
                "timeouts.keep_alive_seconds",
                f64::from(options.server_timeout) / 4.0,
            )
            // The balancer must know before clients come back.
            .set("drain.notice_seconds", 0.5)
            .set("drain.deadline_seconds", 10)
            .set("limits.groups_per_connection", options.clients.max(1_000))
            .set("log.level", options.log.as_str());
        let mut nodes = Vec::new();
        for node in 0..options.nodes {
            let settings = settings.clone().port(free_port());
            nodes.push(Gateway::start(settings.set("node_id", format!("node-{node}"))).await);
        }
        let control = Gateway::start(settings.set("node_id", "control")).await;
        let addresses: Vec<_> = nodes.iter().map(Gateway::address).collect();
        Self {
            balancer: Balancer::start(&addresses, Rules::default()).await,
            nodes,
            control,
            data: data_directory(&redis).await,
            redis,
        }
    }

    /// Where clients connect.
    pub(crate) fn address(&self) -> SocketAddr {
        self.balancer.address()
    }

    /// Where those connect that must not be hurt.
    pub(crate) fn control(&self) -> SocketAddr {
        self.control.address()
    }

    /// Does what a fault does to processes, and undoes it. Cuts are the clients' matter, except where the kernel can break
    /// a node's sockets.
    pub(crate) async fn suffer(&mut self, fault: &Fault) {
        match fault {
            Fault::Kill { node, down } => {
                self.nodes[*node].kill();
                sleep(*down).await;
                self.nodes[*node].restart().await;
            }
            Fault::Drain { node } => {
                self.nodes[*node].terminate();
                self.nodes[*node].exit().await;
                self.nodes[*node].restart().await;
            }
            Fault::Pause { node, stopped } => {
                self.nodes[*node].pause();
                sleep(*stopped).await;
                self.nodes[*node].resume();
            }
            Fault::Redis { keeps_data, down } => {
                self.redis.kill();
                if !keeps_data {
                    std::fs::remove_dir_all(&self.data).expect("Redis has written down its data");
                }
                sleep(*down).await;
                self.redis.restart().await;
            }
            Fault::CutClients { .. } | Fault::CutNode { .. } => {}
        }
    }

    /// Breaks every socket that a node serves. `false`: this kernel or user can't.
    pub(crate) fn break_sockets(&self, node: usize) -> bool {
        // An idle node has none to break; a pair of sockets of our own tells whether it could be done.
        let Ok(listener) = TcpListener::bind("127.0.0.1:0") else {
            return false;
        };
        let Ok(own) = listener.local_addr() else {
            return false;
        };
        let _pair = (TcpStream::connect(own), listener.accept());
        break_sockets_at(own) && {
            break_sockets_at(self.nodes[node].address());
            true
        }
    }

    /// Whether every node says that it is ready.
    pub(crate) async fn is_ready(&self) -> bool {
        for node in self.nodes.iter().chain([&self.control]) {
            if node.readiness().await != Some(200) {
                return false;
            }
        }
        true
    }

    /// For each connection token, the nodes that its sockets reached, in order.
    pub(crate) fn reached(&self) -> BTreeMap<String, Vec<String>> {
        let mut reached: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for request in self.balancer.requests_with("?id=") {
            if let (101, Some((_, token))) = (request.status, request.target.split_once("?id=")) {
                reached.entry(token.to_owned()).or_default().push(request.node);
            }
        }
        reached
    }

    /// How often which node refused a socket, and with what. `<NOSRV>`: the balancer knew none.
    pub(crate) fn refusals(&self) -> String {
        let mut refusals: BTreeMap<String, u32> = BTreeMap::new();
        for request in self.balancer.requests_with("?id=") {
            if request.status != 101 {
                let refusal = format!("{} from {}", request.status, request.node);
                *refusals.entry(refusal).or_default() += 1;
            }
        }
        let counts: Vec<_> = refusals
            .iter()
            .map(|(refusal, count)| format!("{count} × {refusal}"))
            .collect();
        counts.join(", ")
    }

    /// Lines of the nodes' logs that tell of a panic.
    pub(crate) fn panics(&self) -> Vec<String> {
        let logs = self.nodes.iter().chain([&self.control]).map(Gateway::log);
        let lines = logs.flat_map(|log| log.lines().map(str::to_owned).collect::<Vec<_>>());
        lines.filter(|line| line.contains("panicked")).collect()
    }
}

/// Breaks every accepted socket of an address, and says whether there was one that could be broken.
fn break_sockets_at(address: SocketAddr) -> bool {
    let mut command = Command::new("ss");
    command.args(["-K", "-H", "state", "established", "sport", "="]);
    command.arg(format!(":{}", address.port()));
    command.output().is_ok_and(|output| !output.stdout.is_empty())
}

async fn data_directory(redis: &Redis) -> PathBuf {
    let mut connection = redis.connection().await;
    let answer: Vec<String> = redis::cmd("CONFIG")
        .arg("GET")
        .arg("dir")
        .query_async(&mut connection)
        .await
        .expect("redis-server answers");
    PathBuf::from(&answer[1]).join("appendonlydir")
}
