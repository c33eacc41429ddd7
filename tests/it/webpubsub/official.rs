//! The official Web PubSub clients for JavaScript and Python, unchanged: what they can do, and how they come back.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use hubcast_tests::cluster::{Cluster, Plan};
use hubcast_tests::jwt::{ACCESS_KEY, now, token_with};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::clients::{Program, python, say};

/// The bound on each line of a program, whose own waits are shorter.
const BOUND: Duration = Duration::from_secs(120);
/// How many messages are sent while the clients lose their sockets or nodes.
const MESSAGES: u64 = 300;
/// How often a receiver's socket is cut.
const ROUNDS: u64 = 12;

/// The protocols by the names that the programs know. The Python client has the first two.
const ALL: [&str; 4] = ["json", "reliable", "protobuf", "reliable-protobuf"];

pub(super) fn javascript() -> Program {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/js/webpubsub.mjs");
    Ok(vec!["node".into(), script])
}

fn python_client() -> Program {
    python("webpubsub_client.py")
}

pub(super) fn plan(nodes: usize) -> Plan {
    let plan = match nodes {
        1 => Plan::one_node(),
        _ => Plan::nodes(nodes).balanced().with_short_leases(),
    };
    plan.set("hubs.names", "chat").set("auth.allow_anonymous", false)
}

pub(super) fn token(cluster: &Cluster, user: &str) -> String {
    let roles: Vec<_> = ["a", "b"]
        .iter()
        .flat_map(|group| ["joinLeaveGroup", "sendToGroup"].map(|role| format!("webpubsub.{role}.{group}")))
        .collect();
    let claims = json!({ "sub": user, "role": roles, "exp": now() + 3_600 });
    let token = token_with(&claims, ACCESS_KEY);
    cluster.secrets.add(&token);
    token
}

pub(super) fn address(cluster: &Cluster) -> SocketAddr {
    let url = cluster.hub_url();
    let host = url.trim_start_matches("http://").split('/').next();
    host.and_then(|host| host.parse().ok())
        .expect("a host and a port")
}

/// A program that runs one client and speaks in lines of JSON.
pub(super) struct Client {
    _program: Child,
    input: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Client {
    /// `None`, said aloud, where this machine can't run it.
    pub(super) fn start(program: Program, address: SocketAddr, token: &str, script: Value) -> Option<Self> {
        let program = match program {
            Ok(program) => program,
            Err(reason) => {
                say(&format!("a Web PubSub client skipped: {reason}"));
                return None;
            }
        };
        let mut config = script;
        config["url"] = json!(format!("ws://{address}/client/hubs/chat?access_token={token}"));
        let mut command = Command::new(&program[0]);
        command
            .args(&program[1..])
            .arg(config.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null()) // the clients log each lost socket
            .kill_on_drop(true);
        let mut program = command.spawn().expect("the client can be started");
        let output = program.stdout.take().expect("standard output is piped");
        Some(Self {
            input: program.stdin.take().expect("standard input is piped"),
            lines: BufReader::new(output).lines(),
            _program: program,
        })
    }

    pub(super) async fn line(&mut self) -> Value {
        let line = timeout(BOUND, self.lines.next_line())
            .await
            .expect("the client goes on")
            .expect("its output can be read")
            .expect("it says something");
        serde_json::from_str(&line).unwrap_or_else(|_| panic!("no JSON: {line}"))
    }

    pub(super) async fn command(&mut self, command: &str) {
        let line = format!("{command}\n");
        self.input
            .write_all(line.as_bytes())
            .await
            .expect("the client reads");
    }
}

/// Does what the client can do, in each of these protocols.
async fn does_everything(program: fn() -> Program, nodes: usize, protocols: &[&str]) {
    let mut cluster = plan(nodes).start().await;
    for protocol in protocols {
        // The hub has no method of that name: the client gets an error.
        let script = json!({ "protocol": protocol, "script": "basic", "event": "InternalServerError" });
        let token = token(&cluster, "ana");
        let Some(mut client) = Client::start(program(), address(&cluster), &token, script) else {
            return;
        };
        let result = client.line().await;
        assert_eq!(result["ok"], true, "{protocol}: {result}");
        assert_eq!(result["userId"], "ana");
        assert_eq!(result["forbidden"], "Forbidden");
    }
    cluster.is_tidy().await;
    cluster.logs_are_clean();
}

#[tokio::test]
async fn the_javascript_client_does_everything_on_one_node() {
    does_everything(javascript, 1, &ALL).await;
}

#[tokio::test]
async fn the_javascript_client_does_everything_on_three_nodes() {
    does_everything(javascript, 3, &ALL).await;
}

#[tokio::test]
async fn the_python_client_does_everything_on_one_node() {
    does_everything(python_client, 1, &ALL[..2]).await;
}

#[tokio::test]
async fn the_python_client_does_everything_on_three_nodes() {
    does_everything(python_client, 3, &ALL[..2]).await;
}

/// Passes connections on, and cuts them all on request.
struct Cutter {
    address: SocketAddr,
    cuts: watch::Sender<u32>,
    task: JoinHandle<()>,
}

impl Cutter {
    async fn before(upstream: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let (cuts, cut) = watch::channel(0);
        let task = tokio::spawn(async move {
            while let Ok((mut inner, _)) = listener.accept().await {
                let mut cut = cut.clone();
                cut.mark_unchanged();
                tokio::spawn(async move {
                    let Ok(mut outer) = TcpStream::connect(upstream).await else {
                        return;
                    };
                    tokio::select! {
                        _ = copy_bidirectional(&mut inner, &mut outer) => {}
                        _ = cut.changed() => {
                            let _ = inner.set_zero_linger();
                            let _ = outer.set_zero_linger();
                        }
                    }
                });
            }
        });
        Self { address, cuts, task }
    }

    fn cut(&self) {
        self.cuts.send_modify(|count| *count += 1);
    }
}

impl Drop for Cutter {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The messages that a receiver saw, by their sequence ids.
#[derive(Default)]
struct Received {
    numbers: BTreeMap<u64, u64>,
    count: u64,
}

impl Received {
    /// Takes a line. Only messages may come: a client does not report a recovery.
    fn take(&mut self, line: &Value) {
        let (Some(number), Some(sequence)) = (line["got"]["n"].as_u64(), line["sequenceId"].as_u64()) else {
            panic!("the client noticed something: {line}");
        };
        self.count += 1;
        self.numbers.insert(sequence, number);
    }

    /// Every message came once, and their sequence ids have the order in which they were sent.
    fn is_exact(&self) {
        let seen: Vec<_> = self.numbers.values().copied().collect();
        assert_eq!(seen, (1..=MESSAGES).collect::<Vec<_>>());
        assert_eq!(self.count, MESSAGES, "none came twice");
    }
}

pub(super) async fn ready(mut client: Client) -> Client {
    loop {
        let line = client.line().await;
        if line["ready"] == true {
            return client;
        }
        assert_eq!(line["event"], "connected", "{line}");
    }
}

fn traffic(protocol: &str, group: &str) -> Value {
    json!({ "protocol": protocol, "script": "traffic", "group": group })
}

/// Reads the sender's lines until all was sent. It may have repeated requests: they were done once.
async fn all_sent(mut sender: Client, count: u64) -> Client {
    loop {
        let line = sender.line().await;
        if let Some(sent) = line["sent"].as_u64() {
            assert_eq!(sent, count);
            return sender;
        }
        assert!(line.get("got").is_none() && line.get("ok").is_none(), "{line}");
    }
}

/// A sender and a receiver lose their sockets again and again, and come back to whatever node.
async fn survives_cuts(program: fn() -> Program, protocol: &str) {
    let mut cluster = plan(3).start().await;
    let (ours, theirs) = (
        Cutter::before(address(&cluster)).await,
        Cutter::before(address(&cluster)).await,
    );
    let (ana, bob) = (token(&cluster, "ana"), token(&cluster, "bob"));
    let Some(receiver) = Client::start(program(), ours.address, &ana, traffic(protocol, "a")) else {
        return;
    };
    let sender =
        Client::start(javascript(), theirs.address, &bob, traffic("reliable", "b")).expect("node is there");
    let (mut receiver, mut sender) = (ready(receiver).await, ready(sender).await);
    let mut received = Received::default();
    for round in 0..ROUNDS {
        let (before, batch) = (received.count, MESSAGES / ROUNDS);
        sender.command(&format!("send a {batch}")).await;
        let sending = tokio::spawn(all_sent(sender, batch));
        while received.count < before + batch {
            received.take(&receiver.line().await);
            if received.count == before + batch / 4 {
                ours.cut();
            }
            if received.count == before + batch / 2 && round % 3 == 0 {
                theirs.cut();
            }
        }
        sender = sending.await.expect("the sender sends all");
    }
    received.is_exact();
    let resumed = cluster.sum("hubcast_session_resumes_total").await;
    assert!(resumed >= (ROUNDS - 1) as f64, "sessions went on: {resumed}");
    for client in [&mut sender, &mut receiver] {
        client.command("stop").await;
    }
    cluster.logs_are_clean();
}

#[tokio::test]
async fn the_javascript_client_misses_nothing_when_its_socket_is_cut() {
    survives_cuts(javascript, "reliable").await;
}

#[tokio::test]
async fn the_python_client_misses_nothing_when_its_socket_is_cut() {
    survives_cuts(python_client, "reliable").await;
}

/// Each node in turn is killed, or drained, while clients talk through the balancer.
async fn survives_nodes(program: fn() -> Program, protocol: &str, drain: bool) {
    let mut cluster = plan(3).start().await;
    let (ana, bob) = (token(&cluster, "ana"), token(&cluster, "bob"));
    let Some(receiver) = Client::start(program(), address(&cluster), &ana, traffic(protocol, "a")) else {
        return;
    };
    let sender = Client::start(javascript(), address(&cluster), &bob, traffic("reliable", "b"))
        .expect("node is there");
    let (mut receiver, mut sender) = (ready(receiver).await, ready(sender).await);
    sender.command(&format!("send a {MESSAGES}")).await;
    let sending = tokio::spawn(all_sent(sender, MESSAGES));
    let mut received = Received::default();
    for node in 0..3 {
        let until = (node as u64 + 1) * MESSAGES / 4;
        while received.count < until {
            received.take(&receiver.line().await);
        }
        if drain {
            cluster.nodes[node].terminate();
            assert!(cluster.nodes[node].exit().await.success());
        } else {
            cluster.nodes[node].kill();
        }
        cluster.nodes[node].restart().await;
        cluster.balances_over(&[0, 1, 2]).await;
    }
    while received.count < MESSAGES {
        received.take(&receiver.line().await);
    }
    received.is_exact();
    sending.await.expect("the sender sends all");
    cluster.logs_are_clean();
}

#[tokio::test]
async fn the_javascript_client_misses_nothing_when_nodes_are_killed() {
    survives_nodes(javascript, "reliable", false).await;
}

#[tokio::test]
async fn the_python_client_misses_nothing_when_nodes_are_killed() {
    survives_nodes(python_client, "reliable", false).await;
}

#[tokio::test]
async fn the_javascript_client_misses_nothing_when_nodes_are_drained() {
    survives_nodes(javascript, "reliable", true).await;
}

/// The protocol of the official client is replaced here, as it allows for: the package with it is not published.
#[tokio::test]
async fn the_javascript_client_misses_nothing_in_protobuf_when_its_socket_is_cut() {
    survives_cuts(javascript, "reliable-protobuf").await;
}

#[tokio::test]
async fn the_javascript_client_misses_nothing_in_protobuf_when_nodes_are_killed() {
    survives_nodes(javascript, "reliable-protobuf", false).await;
}

/// A stream goes on over a `kill -9` of its sender's node, and each receiver has all of it once and in order.
#[tokio::test]
async fn a_stream_of_the_javascript_client_goes_on_when_its_node_is_killed() {
    const FRAGMENTS: u64 = 200;
    let mut cluster = plan(3).start().await;
    let (ana, bob) = (token(&cluster, "ana"), token(&cluster, "bob"));
    let script = json!({ "protocol": "reliable", "script": "streams", "group": "a" });
    let mut receivers = Vec::new();
    for _ in 0..2 {
        let Some(receiver) = Client::start(javascript(), address(&cluster), &ana, script.clone()) else {
            return;
        };
        receivers.push(ready(receiver).await);
    }
    // The sender is on a node of its own choice: it tells by which it comes back.
    let mut script = traffic("reliable", "b");
    script["pauseMs"] = json!(5);
    let sender = Client::start(javascript(), address(&cluster), &bob, script).expect("node is there");
    let mut sender = ready(sender).await;
    sender.command(&format!("stream a {FRAGMENTS}")).await;
    for node in 0..3_u64 {
        while sender.line().await["written"] != (node + 1) * FRAGMENTS / 4 {}
        let node = usize::try_from(node).expect("a small number");
        cluster.nodes[node].kill();
        cluster.nodes[node].restart().await;
        cluster.balances_over(&[0, 1, 2]).await;
    }
    let streamed = async {
        loop {
            let line = sender.line().await;
            if line.get("written").is_none() {
                break line;
            }
        }
    };
    assert_eq!(streamed.await, json!({ "streamed": FRAGMENTS }));
    for receiver in &mut receivers {
        for number in 1..=FRAGMENTS {
            let line = receiver.line().await;
            assert_eq!(line, json!({ "item": { "n": number }, "number": number }));
        }
        assert_eq!(receiver.line().await, json!({ "over": true }));
    }
    sender.command("stop").await;
    for receiver in &mut receivers {
        receiver.command("stop").await;
    }
    cluster.logs_are_clean();
}
