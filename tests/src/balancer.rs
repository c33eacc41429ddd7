//! A real HAProxy that spreads requests, not clients.

use std::net::SocketAddr;
use std::process::Command;

use tempfile::TempDir;

use crate::eventually::eventually;
use crate::http::{Request, try_fetch};
use crate::ports::free_port;
use crate::process::Process;

/// Plain round robin for each HTTP request, also for those that come on one connection. No cookies, no hashing, no stick
/// tables: if anything of a client stays with one node, it is not because of the balancer.
pub struct Balancer {
    address: SocketAddr,
    process: Process,
    _directory: TempDir,
}

/// Faults and refusals that a balancer adds.
#[derive(Debug, Clone, Copy, Default)]
pub struct Rules {
    /// Refuses WebSockets, as some proxies do.
    pub no_websockets: bool,
    /// Refuses event streams.
    pub no_event_streams: bool,
    /// Gives a cookie to clients that negotiate and have none.
    pub sets_cookie: bool,
    /// Looks whether nodes live, instead of whether they are ready: all of them stay in use while Redis is away.
    pub checks_life: bool,
    /// Sends requests to nodes that listen when none says that it is ready, instead of refusing them.
    pub serves_unready: bool,
}

/// One request as the balancer saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Balanced {
    /// Counts the requests.
    number: u64,
    /// The node that got it: `node0`, `node1`, …; none if it was refused here.
    pub node: String,
    /// The method.
    pub method: String,
    /// The path with its query.
    pub target: String,
    /// The status of the answer.
    pub status: u16,
    /// The cookies that it came with.
    pub cookies: String,
}

impl Balancer {
    /// Starts one in front of these nodes and waits until it sends requests to all of them.
    pub async fn start(nodes: &[SocketAddr], rules: Rules) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let path = directory.path().join("haproxy.cfg");
        std::fs::write(&path, configuration(address, nodes, rules))
            .expect("the configuration can be written");
        let mut command = Command::new("haproxy");
        command.arg("-db").arg("-f").arg(&path);
        let process = Process::start("haproxy", &mut command, directory.path());
        let mut balancer = Self {
            address,
            process,
            _directory: directory,
        };
        eventually("the balancer answers", async || {
            let ended = balancer.process.exited();
            assert!(
                ended.is_none(),
                "haproxy has ended: {}{}",
                balancer.process.output(),
                balancer.process.errors()
            );
            let response = try_fetch(address, &Request::get("/readyz")).await.ok()?;
            (response.status() == 200).then_some(())
        })
        .await;
        balancer
    }

    /// The address where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The requests so far whose target contains `text`, in the order in which they came. Those that were refused here
    /// may be missing for a moment.
    pub fn requests_with(&self, text: &str) -> Vec<Balanced> {
        let output = self.process.output();
        let mut requests: Vec<_> = output
            .lines()
            .filter_map(Balanced::parse)
            .filter(|request| request.target.contains(text))
            .collect();
        requests.sort_by_key(|request| request.number);
        requests
    }
}

impl Balanced {
    fn parse(line: &str) -> Option<Self> {
        let mut fields = line.strip_prefix("request ")?.split(' ');
        let mut field = || fields.next().map(str::to_owned);
        let number = field()?.parse().ok()?;
        let (node, status, method, target) = (field()?, field()?, field()?, field()?);
        let cookies: Vec<_> = fields.collect();
        Some(Self {
            number,
            node,
            method,
            target,
            status: status.trim_start_matches('+').parse().ok()?,
            cookies: cookies.join(" "),
        })
    }
}

impl Rules {
    fn lines(self) -> String {
        let rules = [
            (
                self.no_websockets,
                "http-request deny deny_status 403 if { req.hdr(Upgrade) -i websocket }",
            ),
            (
                self.no_event_streams,
                "http-request deny deny_status 403 if { req.hdr(Accept) -m sub text/event-stream }",
            ),
            (
                self.sets_cookie,
                "http-after-response add-header Set-Cookie balancer=met \
                 if { capture.req.uri -m sub negotiate } !{ capture.req.hdr(0) -m found }",
            ),
        ];
        let chosen = rules.iter().filter(|(chosen, _)| *chosen);
        chosen.map(|(_, rule)| format!("    {rule}\n")).collect()
    }
}

fn configuration(address: SocketAddr, nodes: &[SocketAddr], rules: Rules) -> String {
    let check = if rules.checks_life { "/healthz" } else { "/readyz" };
    let unready = match rules.serves_unready {
        true => "    use_backend unready if { nbsrv(gateways) eq 0 }\n",
        false => "",
    };
    let rules = rules.lines();
    let servers = nodes.iter().enumerate();
    let servers: String = servers
        .map(|(i, node)| format!("    server node{i} {node}\n"))
        .collect();
    format!(
        "global
    maxconn 8000
    log stdout len 4096 format raw local0

defaults
    mode http
    option http-no-delay
    # Passes on that a client has given up a request: a poll would otherwise go on until its time is over.
    option abortonclose
    option redispatch 1
    retries 3
    timeout connect 2s
    # A node whose port is closed is noticed at once, a busy machine is not taken for dead nodes.
    timeout check 500ms
    timeout client 120s
    timeout server 120s
    timeout tunnel 1h

frontend edge
    bind {address}
    log global
    # Written as soon as the answer begins: a stream's end may be far away.
    option logasap
    http-request capture req.hdr(Cookie) len 200
    log-format \"request %rt %s %ST %HM %HU %[capture.req.hdr(0)]\"
{rules}{unready}    default_backend gateways

backend gateways
    balance roundrobin
    option httpchk GET {check}
    http-check expect status 200
    retry-on conn-failure empty-response
    http-request disable-l7-retry unless {{ req.hdr(Upgrade) -i websocket }}
    default-server check inter 100ms fall 1 rise 1
{servers}
backend unready
    balance roundrobin
    retry-on conn-failure empty-response
    http-request disable-l7-retry unless {{ req.hdr(Upgrade) -i websocket }}
{servers}"
    )
}
