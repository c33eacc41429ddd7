//! The processes: Redis, the nodes behind a balancer, and one more node that is never hurt by itself.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use super::Options;
use super::fault::Fault;
use super::record;
use super::servers::Servers;
use crate::balancer::{Balancer, Rules};
use crate::clock::Clock;
use crate::gateway::{Gateway, Settings};
use crate::ports::free_port;
use crate::rest::Rest;

/// Everything that runs. Fields are dropped, and so processes killed, from the outside to the inside.
pub(crate) struct Stage {
    balancer: Balancer,
    nodes: Vec<Gateway>,
    control: Gateway,
    servers: Servers,
    /// The nodes' clocks.
    clocks: Vec<Clock>,
    /// How many times each node said by now that it was shut out.
    shut_out: Vec<usize>,
    directory: TempDir,
    begun: Instant,
}

/// The record's name.
const RECORD: &str = "record";
/// How a node says that the others took it for dead.
const SHUT_OUT: &str = "took this one for dead";
/// How long a stateful client may take to come back.
pub(crate) const RESUME_WINDOW: Duration = Duration::from_secs(30);

impl Stage {
    pub(crate) async fn start(options: &Options) -> Self {
        let count = options.nodes as usize;
        let servers = Servers::start(options.topology, count, options.seed).await;
        let directory = tempfile::tempdir().expect("a temporary directory");
        let settings = Settings::default()
            .recording(&directory.path().join(RECORD))
            .set("hubs.resume_window_seconds", RESUME_WINDOW.as_secs())
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
        let clocks: Vec<_> = (0..count).map(|_| Clock::new()).collect();
        for (node, clock) in clocks.iter().enumerate() {
            let settings = settings
                .clone()
                .clock(clock)
                .redis(&servers.url(node))
                .port(free_port());
            nodes.push(Gateway::start(settings.set("node_id", format!("node-{node}"))).await);
        }
        let control = settings.redis(&servers.url(count)).set("node_id", "control");
        let control = Gateway::start(control).await;
        let addresses: Vec<_> = nodes.iter().map(Gateway::address).collect();
        // While Redis is away no node is ready, and the nodes are to be tested, not the balancer.
        let rules = Rules {
            serves_unready: true,
            ..Rules::default()
        };
        Self {
            balancer: Balancer::start(&addresses, rules).await,
            shut_out: vec![0; nodes.len() + 1],
            nodes,
            control,
            servers,
            clocks,
            directory,
            begun: Instant::now(),
        }
    }

    /// The address where clients connect.
    pub(crate) fn address(&self) -> SocketAddr {
        self.balancer.address()
    }

    /// The address for clients that must not be hurt.
    pub(crate) fn control(&self) -> SocketAddr {
        self.control.address()
    }

    fn note(&self, line: &str) {
        let file = File::options().create(true).append(true).open(self.record());
        file.and_then(|mut file| file.write_all(line.as_bytes()))
            .expect("the record can be written");
    }

    /// Does what a fault does to processes, and undoes it. Cuts are the clients' matter, except where the kernel can break
    /// a node's sockets.
    pub(crate) async fn suffer(&mut self, fault: &Fault) {
        if fault.kind().forgets() {
            self.note(&record::forgot(self.begun.elapsed()));
        }
        match fault {
            Fault::Kill { node, down } => {
                self.nodes[*node].kill();
                self.note(&record::killed(*node, self.begun.elapsed()));
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
            Fault::NodeClock { node, ahead } => self.clocks[*node].is_ahead_by(*ahead),
            Fault::CutClients { .. } | Fault::CutNode { .. } => {}
            _ => self.servers.suffer(fault).await,
        }
    }

    /// Waits until the servers are as they were before any fault.
    pub(crate) async fn servers_are_settled(&self) {
        self.servers.is_settled().await;
    }

    /// How many nodes were shut out since the last time, although nothing justifies that. The number after all nodes is the
    /// control node's.
    pub(crate) fn healthy_nodes_shut_out(&mut self, may_be: impl Fn(usize) -> bool) -> u64 {
        let nodes = self.nodes.iter().chain([&self.control]);
        let mut healthy = 0;
        for (node, (gateway, before)) in nodes.zip(&mut self.shut_out).enumerate() {
            let times = gateway.log().matches(SHUT_OUT).count();
            if times > *before && !may_be(node) {
                healthy += 1;
            }
            *before = times;
        }
        healthy
    }

    /// The file in which nodes write down whose connections begin and end.
    pub(crate) fn record(&self) -> PathBuf {
        self.directory.path().join(RECORD)
    }

    /// A back end that calls the control node.
    pub(crate) fn rest(&self) -> Rest {
        Rest::on(&self.control)
    }

    /// Breaks every socket that a node serves. `false`: this kernel or user can't.
    pub(crate) fn break_sockets(&self, node: usize) -> bool {
        // An idle node has none to break; a pair of sockets of our own shows whether it could be done.
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

    /// A node that does not say that it is ready, and what it says; the last one is the control.
    pub(crate) async fn unready(&self) -> Option<String> {
        for (number, node) in self.nodes.iter().chain([&self.control]).enumerate() {
            let said = node.readyz().await;
            if said.as_ref().is_none_or(|response| response.status() != 200) {
                let said = said.map(|response| response.text().to_owned());
                return Some(format!(
                    "node {number}: {}",
                    said.as_deref().unwrap_or("no answer")
                ));
            }
        }
        None
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

    /// How often which node refused a request of a connection, and with what. `<NOSRV>`: the balancer knew none.
    pub(crate) fn refusals(&self) -> String {
        let mut refusals: BTreeMap<String, u32> = BTreeMap::new();
        for request in self.balancer.requests_with("?id=") {
            if request.status >= 400 {
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

    /// Writes the nodes' logs and the record of hooks into a folder, for the study of a finding.
    pub(crate) fn write_logs(&self, folder: &std::path::Path) -> std::io::Result<()> {
        std::fs::create_dir_all(folder)?;
        std::fs::copy(self.record(), folder.join(RECORD))?;
        for (number, node) in self.nodes.iter().chain([&self.control]).enumerate() {
            std::fs::write(folder.join(format!("node-{number}.log")), node.log())?;
        }
        Ok(())
    }

    /// Lines of the nodes' logs that report a panic.
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
