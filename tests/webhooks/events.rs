//! Connection events under faults: each connection is told as connected once and as disconnected once.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use futures_util::future::join_all;
use futures_util::{StreamExt, stream};
use http_body_util::Full;
use hubcast_tests::cluster::{Cluster, Plan};
use hubcast_tests::entry_point::EntryPoint;
use hubcast_tests::hub_client::{HubClient, Transport};
use hubcast_tests::jwt::token_for;
use hubcast_tests::random::Random;
use hubcast_tests::resumable::Resumable;
use hyper::header::HeaderMap;
use hyper::{Response, StatusCode};
use serde_json::json;
use tokio::time::Instant;

use crate::receiver::{Receiver, status};

/// The options of this run.
#[derive(Args)]
pub(crate) struct Options {
    /// Clients; half of them have stateful reconnect.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(6..=18_000))]
    clients: u32,
    /// Seconds for which the application refuses connections.
    #[arg(long, default_value_t = 60)]
    away_seconds: u64,
    /// Percentage of events that the application answers with 500.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u8).range(0..=90))]
    failing_percent: u8,
    /// Seconds after the last client left, within which all events must have come.
    #[arg(long, default_value_t = 300)]
    bound_seconds: u64,
    /// The seed of the failures.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

const NODES: usize = 3;
/// Clients that connect or move at the same time.
const AT_ONCE: usize = 64;

/// The events that the application has taken, with 2xx.
#[derive(Default)]
struct Taken {
    /// By `ce-source` and `ce-id`: how often.
    ids: HashMap<String, u32>,
    /// The kinds of events of each connection, in the order in which they were first taken.
    connections: BTreeMap<String, Vec<String>>,
}

/// The numbers of events that came.
#[derive(Default)]
struct Arrivals {
    taken: Mutex<Taken>,
    refused: AtomicU64,
}

/// One client.
enum Client {
    Ordinary(HubClient),
    Stateful(Box<Resumable>),
}

/// The result of a run.
pub(crate) struct Outcome {
    clients: usize,
    resumed: usize,
    moved_after_kill: usize,
    /// Time from the application's return until it had taken all that waited.
    caught_up: Duration,
    kinds: BTreeMap<String, usize>,
    ids: usize,
    repeated: usize,
    refused: u64,
    missing: usize,
    disordered: usize,
    node_mib: Vec<f64>,
}

impl Outcome {
    /// Returns whether each connection was told as connected once and, after that, as disconnected once, by event id.
    pub(crate) fn is_exact(&self) -> bool {
        self.missing == 0 && self.disordered == 0 && self.ids == 2 * self.clients
    }

    pub(crate) fn render(&self) -> String {
        let mut text = String::new();
        let mut line = |name: &str, value: String| {
            let _ = writeln!(text, "{name:<44} {value}");
        };
        line("connections", self.clients.to_string());
        line("resumed on another node", self.resumed.to_string());
        line(
            "resumed after their node was killed",
            self.moved_after_kill.to_string(),
        );
        for (kind, count) in &self.kinds {
            line(&format!("told as {kind}"), count.to_string());
        }
        line("event ids", self.ids.to_string());
        line("events that came again under their id", self.repeated.to_string());
        line("events answered with 500", self.refused.to_string());
        line("connections that lack an event", self.missing.to_string());
        line("connections told out of order", self.disordered.to_string());
        line(
            "caught up after the application's return",
            format!("{:.1} s", self.caught_up.as_secs_f64()),
        );
        let memory: Vec<_> = self.node_mib.iter().map(|mib| format!("{mib:.0}")).collect();
        line("largest memory of each node, MiB", memory.join(", "));
        text
    }
}

pub(crate) async fn run(options: &Options) -> Outcome {
    let arrivals = Arc::new(Arrivals::default());
    let mut receiver = receiver(Arc::clone(&arrivals), options).await;
    let mut cluster = Plan::nodes(NODES)
        .with_short_leases()
        .set("hubs.names", "chat")
        .set("hubs.resume_window_seconds", 30)
        .set("timeouts.client_timeout_seconds", 600)
        .set("server.public_host", "chat.example.org")
        .set("upstream.0.hubs", "chat")
        .set("upstream.0.form", "cloudevents")
        .set("upstream.0.system_events", "connected, disconnected")
        .set("upstream.0.url", receiver.url("/"))
        .start()
        .await;
    let mut memory = vec![0_f64; NODES];
    let clients = usize::try_from(options.clients).expect("a small number");
    let entries: Vec<_> = (0..NODES).map(|node| entry_on(&cluster, node)).collect();

    say(&format!("{clients} clients connect to {NODES} nodes in turn"));
    let mut open: Vec<_> = stream::iter(0..clients)
        .map(|number| connect(&entries, number))
        .buffered(AT_ONCE)
        .collect()
        .await;

    say("the clients with stateful reconnect move to another node");
    let resumed = move_to_next(&mut open, &entries).await;

    say(&format!(
        "the application goes away for {} s, and a node is killed",
        options.away_seconds
    ));
    receiver.go_away();
    let back = Instant::now() + Duration::from_secs(options.away_seconds);
    note_memory(&mut memory, &mut cluster);
    let killed = NODES - 1;
    cluster.nodes[killed].kill();
    let moved_after_kill = leave_killed(&mut open, &entries, killed).await;
    tokio::time::sleep_until(back).await;

    say("the application comes back, and all clients leave");
    receiver.come_back().await;
    let returned = Instant::now();
    note_memory(&mut memory, &mut cluster);
    close_all(open).await;
    wait_for_all(
        &arrivals,
        clients,
        options.bound_seconds,
        &mut memory,
        &mut cluster,
    )
    .await;
    let caught_up = returned.elapsed();
    outcome(&arrivals, clients, resumed, moved_after_kill, caught_up, memory)
}

async fn receiver(arrivals: Arc<Arrivals>, options: &Options) -> Receiver {
    let (random, failing) = (
        Mutex::new(Random::new(options.seed)),
        u64::from(options.failing_percent),
    );
    Receiver::start(move |_, headers, _| {
        let fails = random
            .lock()
            .expect("nobody panics while holding it")
            .between(1, 100)
            <= failing;
        let answer = arrivals.answer(&headers, fails);
        Box::pin(std::future::ready(answer))
    })
    .await
}

impl Arrivals {
    fn answer(&self, headers: &HeaderMap, fails: bool) -> Response<Full<Bytes>> {
        if fails {
            self.refused.fetch_add(1, Ordering::Relaxed);
            return status(StatusCode::INTERNAL_SERVER_ERROR);
        }
        let header = |name: &str| {
            let value = headers.get(name).and_then(|value| value.to_str().ok());
            value
                .unwrap_or_else(|| panic!("no {name} in {headers:?}"))
                .to_owned()
        };
        let mut taken = self.taken.lock().expect("nobody panics while holding it");
        let id = format!("{} {}", header("ce-source"), header("ce-id"));
        let times = taken.ids.entry(id).or_default();
        *times += 1;
        if *times == 1 {
            let kinds = taken.connections.entry(header("ce-connectionid")).or_default();
            kinds.push(header("ce-eventname"));
        }
        status(StatusCode::OK)
    }
}

fn entry_on(cluster: &Cluster, node: usize) -> Arc<EntryPoint> {
    let entry = cluster.entry_on(node).at("/hubs/chat");
    Arc::new(entry.with_bearer(&token_for("ann")))
}

async fn connect(entries: &[Arc<EntryPoint>], number: usize) -> (usize, Client) {
    // Of each six clients, two are on each node: one of each kind.
    let node = number / 2 % NODES;
    let client = match number % 2 {
        0 => Client::Ordinary(HubClient::connect(&entries[node], Transport::WebSockets).await),
        _ => Client::Stateful(Box::new(Resumable::connect(&entries[node]).await)),
    };
    (node, client)
}

/// Moves a client with stateful reconnect to the next node that is not `killed`. Returns whether it is such a client.
async fn resume(
    node: &mut usize,
    client: &mut Client,
    entries: &[Arc<EntryPoint>],
    killed: Option<usize>,
) -> bool {
    let Client::Stateful(client) = client else {
        return false;
    };
    *node = (*node + 1) % NODES;
    if Some(*node) == killed {
        *node = (*node + 1) % NODES;
    }
    client.lose();
    client.turn_to(&entries[*node]);
    client.resume().await;
    true
}

async fn move_to_next(open: &mut [(usize, Client)], entries: &[Arc<EntryPoint>]) -> usize {
    let mut moved = 0;
    for some in open.chunks_mut(AT_ONCE) {
        let moving = some
            .iter_mut()
            .map(|(node, client)| resume(node, client, entries, None));
        moved += join_all(moving).await.into_iter().filter(|moved| *moved).count();
    }
    moved
}

/// Clients of the killed node with stateful reconnect come back to the other nodes; the others are over.
async fn leave_killed(open: &mut Vec<(usize, Client)>, entries: &[Arc<EntryPoint>], killed: usize) -> usize {
    let mut moved = 0;
    for some in open.chunks_mut(AT_ONCE) {
        let of_killed = some.iter_mut().filter(|(node, _)| *node == killed);
        let moving = of_killed.map(|(node, client)| resume(node, client, entries, Some(killed)));
        moved += join_all(moving).await.into_iter().filter(|moved| *moved).count();
    }
    open.retain(|(node, _)| *node != killed);
    moved
}

async fn close_all(open: Vec<(usize, Client)>) {
    let leave = |(_, client): (usize, Client)| async move {
        match client {
            Client::Ordinary(client) => client.close().await,
            Client::Stateful(mut client) => {
                client.say(&json!({ "type": 7 })).await;
                while client.next().await.is_some() {}
            }
        }
    };
    stream::iter(open).for_each_concurrent(AT_ONCE, leave).await;
}

async fn wait_for_all(
    arrivals: &Arrivals,
    clients: usize,
    bound: u64,
    memory: &mut [f64],
    cluster: &mut Cluster,
) {
    let deadline = Instant::now() + Duration::from_secs(bound);
    loop {
        let come = arrivals
            .taken
            .lock()
            .expect("nobody panics while holding it")
            .ids
            .len();
        if come >= 2 * clients || Instant::now() >= deadline {
            return;
        }
        note_memory(memory, cluster);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn note_memory(memory: &mut [f64], cluster: &mut Cluster) {
    for (most, node) in memory.iter_mut().zip(&mut cluster.nodes) {
        if node.is_running() {
            *most = most.max(node.resident_bytes() as f64 / f64::from(1 << 20));
        }
    }
}

fn outcome(
    arrivals: &Arrivals,
    clients: usize,
    resumed: usize,
    moved_after_kill: usize,
    caught_up: Duration,
    node_mib: Vec<f64>,
) -> Outcome {
    let taken = arrivals.taken.lock().expect("nobody panics while holding it");
    let mut kinds: BTreeMap<String, usize> = BTreeMap::new();
    for kind in taken.connections.values().flatten() {
        *kinds.entry(kind.clone()).or_default() += 1;
    }
    let of_each = taken.connections.values();
    let whole = |kinds: &&Vec<String>| {
        let kinds: HashSet<_> = kinds.iter().map(String::as_str).collect();
        kinds == HashSet::from(["connected", "disconnected"])
    };
    Outcome {
        clients,
        resumed,
        moved_after_kill,
        caught_up,
        ids: taken.ids.len(),
        repeated: taken.ids.values().filter(|times| **times > 1).count(),
        refused: arrivals.refused.load(Ordering::Relaxed),
        missing: clients - of_each.clone().filter(whole).count().min(clients),
        disordered: of_each
            .filter(|kinds| kinds.first().is_some_and(|kind| kind != "connected"))
            .count(),
        kinds,
        node_mib,
    }
}

fn say(text: &str) {
    eprintln!("{text}");
}
