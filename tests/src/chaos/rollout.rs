//! A rolling restart with surge, as an orchestrator plays it: new nodes come up beside the old ones, then the old ones drain. How
//! often did each client move, how many came back in a second, and which lack a message?

mod rolled;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use clap::Parser;
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use super::client::{Client, Role};
use super::fault::Kind;
use super::kinds::ClientKind;
use super::ledger::Ledger;
use super::traffic::{Published, User, group_name};
use super::uploads::Outcome;
use super::{plain, pubsub, readers};
use crate::balancer::{Balancer, Rules};
use crate::eventually::eventually;
use crate::gateway::{Gateway, Settings};
use crate::http::{Request, try_fetch};
use crate::ports::free_port;
use crate::redis::Redis;
use crate::rest::{Rest, dated};

use rolled::Rolled;

/// Plays a rolling restart and counts what clients have of it.
#[derive(Parser, Debug, Clone)]
#[command(name = "rollout")]
pub struct RolloutOptions {
    /// Nodes before, and as many after: all of them are processes at once when `--surge` is as many.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=8))]
    pub nodes: u32,
    /// New nodes that come up before as many old ones drain.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=8))]
    pub surge: u32,
    /// Clients, a quarter of each kind: stateful SignalR, SignalR over WebSockets, `EventSource`, reliable Web PubSub.
    #[arg(long, default_value_t = 3_000, value_parser = clap::value_parser!(u32).range(4..=6_000))]
    pub clients: u32,
    /// `drain.rate_per_second` of the nodes.
    #[arg(long, default_value_t = 100)]
    pub rate: u32,
    /// Seconds of `drain.deadline_seconds`.
    #[arg(long, default_value_t = 120)]
    pub deadline: u32,
    /// Groups that the clients are spread over.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub groups: u32,
    /// Messages per second that a back end publishes through the balancer, over all groups.
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub messages: u32,
}

const KINDS: [ClientKind; 4] = [
    ClientKind::Stateful,
    ClientKind::WebSocket,
    ClientKind::EventSource,
    ClientKind::WebPubSub,
];
/// Between the starts of two clients.
const STAGGER: Duration = Duration::from_millis(5);
/// How long a client bears silence.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long it may take until all clients have come, or have everything.
const BOUND: Duration = Duration::from_secs(180);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("nobody panics while holding it")
}

/// A client, and when it came in.
struct Rider {
    user: User,
    came: Mutex<Vec<Instant>>,
    refused: Arc<Mutex<BTreeMap<String, u64>>>,
}

impl Role for Rider {
    fn groups(&self) -> Vec<String> {
        self.user.groups()
    }
    fn begins(&self, id: Option<&str>) {
        self.user.begins(id);
    }
    fn connects(&self) {
        lock(&self.came).push(Instant::now());
    }
    fn refused(&self, why: &str) {
        let what = format!("{}: {why}", self.user.kind.name());
        *lock(&self.refused).entry(what).or_default() += 1;
    }
    fn joined(&self) {
        self.user.joined();
    }
    fn message(&self, group: &str, text: &str) {
        self.user.message(group, text);
    }
    fn ends(&self) {
        self.user.ends();
    }
}

/// The whole run. Progress goes to standard error.
pub async fn rollout(options: RolloutOptions) -> Rolled {
    let mut stage = Stage::start(&options).await;
    let ledger = Arc::new(Ledger::new());
    let published = Arc::new(Published::new(options.groups as usize));
    let refused = Arc::default();
    let mut running = JoinSet::new();
    let mut riders = Vec::new();
    for index in 0..options.clients as usize {
        let kind = KINDS[index % KINDS.len()];
        let group = index / KINDS.len() % options.groups as usize;
        let rider = Arc::new(Rider {
            user: User::new(index, kind, group, &published, &ledger),
            came: Mutex::default(),
            refused: Arc::clone(&refused),
        });
        riders.push(Arc::clone(&rider));
        start(&mut running, rider, stage.balancer.address(), &ledger);
        sleep(STAGGER).await;
    }
    let everybody = |what: &'static str, is: fn(&Rider, &Published) -> bool| {
        let (riders, published) = (riders.clone(), Arc::clone(&published));
        async move { wait(what, &riders, |rider| is(rider, &published)).await }
    };
    everybody("clients have joined", |rider, _| rider.user.has(0)).await;
    ledger.say(&format!("{} clients have joined", riders.len()));
    let stop = Arc::new(AtomicBool::new(false));
    let publishing = publish(
        Rest::at(stage.balancer.address()),
        Arc::clone(&published),
        options.clone(),
        Arc::clone(&stop),
    );
    let publishing = tokio::spawn(publishing);
    sleep(Duration::from_secs(2)).await;
    let before: Vec<_> = riders.iter().map(|rider| lock(&rider.came).len()).collect();
    lock(&refused).clear();
    ledger.fault(Kind::Drain);
    let took = stage.roll(&options, &ledger).await;
    sleep(Duration::from_secs(3)).await;
    stop.store(true, Ordering::Relaxed);
    let _ended = publishing.await;
    let has_all = |rider: &Rider, published: &Published| rider.user.has(published.newest(rider.user.group()));
    everybody("clients have everything", has_all).await;
    Rolled::count(
        options,
        &Seen {
            stage: &stage,
            riders: &riders,
            before: &before,
            refused: &refused,
            published: &published,
            ledger: &ledger,
        },
        took,
    )
}

fn start(running: &mut JoinSet<()>, rider: Arc<Rider>, address: SocketAddr, ledger: &Arc<Ledger>) {
    let kind = rider.user.kind;
    let client = Client {
        name: rider.user.name(),
        address,
        server_timeout: PATIENCE,
        is_hurt: true,
        role: rider,
        ledger: Arc::clone(ledger),
    };
    match kind {
        ClientKind::Stateful => drop(running.spawn(client.start().1)),
        ClientKind::WebPubSub => drop(running.spawn(pubsub::start(client).1)),
        ClientKind::EventSource | ClientKind::PlainSocket => {
            drop(running.spawn(readers::start(client, kind).1));
        }
        _ => drop(running.spawn(plain::start(client, kind).1)),
    }
}

/// Waits for all clients, a bounded time: a late client is a finding.
async fn wait(what: &str, riders: &[Arc<Rider>], is: impl Fn(&Rider) -> bool) {
    let deadline = Instant::now() + BOUND;
    loop {
        let late = riders.iter().filter(|rider| !is(rider)).count();
        if late == 0 {
            return;
        }
        if Instant::now() > deadline {
            eprintln!("not all {what}: {late} are late");
            return;
        }
        sleep(Duration::from_millis(100)).await;
    }
}

/// A back end that knows the balancer alone.
async fn publish(rest: Rest, published: Arc<Published>, options: RolloutOptions, stop: Arc<AtomicBool>) {
    let groups = options.groups as usize;
    let mut pace = interval(Duration::from_secs(1) / options.messages);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for group in (0..groups).cycle() {
        pace.tick().await;
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let number = published.issue(group);
        let name = group_name(group);
        let message = json!({ "target": "GroupMessage", "arguments": [name, format!("p:{number}")] });
        let request = rest.message(&dated(&format!("/groups/{name}/:send")), &message);
        let sent = try_fetch(rest.address(), &request).await;
        let is_done = sent.is_ok_and(|answer| answer.status() == 202);
        published.ended(group, if is_done { Outcome::Done } else { Outcome::Failed });
    }
}

/// The processes. Fields are dropped, and so processes killed, from the outside to the inside.
struct Stage {
    balancer: Balancer,
    old: Vec<Gateway>,
    new: Vec<Gateway>,
    settings: Vec<Settings>,
    _redis: Redis,
}

impl Stage {
    async fn start(options: &RolloutOptions) -> Self {
        let redis = Redis::start().await;
        let ports: Vec<_> = (0..2 * options.nodes).map(|_| free_port()).collect();
        let settings = |(node, port): (usize, &u16)| {
            Settings::default()
                .redis(&redis.url())
                .port(*port)
                .set("node_id", format!("node-{node}"))
                .set("log.level", "warn")
                // The balancer must know before clients come back.
                .set("drain.notice_seconds", 1)
                .set("drain.deadline_seconds", options.deadline)
                .set("drain.rate_per_second", options.rate)
                // All clients are on this machine.
                .set("limits.connections", 20_000)
                .set("limits.connections_per_address", 0)
                .set("limits.tcp_connections", 0)
                .set("limits.tcp_connections_per_address", 0)
        };
        let mut settings: Vec<_> = ports.iter().enumerate().map(settings).collect();
        let mut old = Vec::new();
        for settings in settings.drain(..options.nodes as usize) {
            old.push(Gateway::start(settings).await);
        }
        let addresses: Vec<_> = ports
            .iter()
            .map(|port| SocketAddr::from(([127, 0, 0, 1], *port)))
            .collect();
        Self {
            balancer: Balancer::start(&addresses, Rules::default()).await,
            old,
            new: Vec::new(),
            settings,
            _redis: redis,
        }
    }

    /// Replaces all nodes, so many at a time. Returns how long nodes drained.
    async fn roll(&mut self, options: &RolloutOptions, ledger: &Ledger) -> Duration {
        let mut took = Duration::ZERO;
        while !self.old.is_empty() {
            let count = (options.surge as usize).min(self.old.len());
            for settings in self.settings.drain(..count) {
                self.new.push(Gateway::start(settings).await);
            }
            self.is_balanced_over(self.old.len() + self.new.len()).await;
            ledger.say(&format!(
                "{count} new nodes serve beside {} old ones",
                self.old.len()
            ));
            let begun = Instant::now();
            let mut leaving: Vec<_> = self.old.drain(..count).collect();
            leaving.iter().for_each(Gateway::terminate);
            for node in &mut leaving {
                while node.is_running() {
                    sleep(Duration::from_millis(20)).await; // it ends by its own deadline
                }
                let status = node.exit().await;
                assert!(status.success(), "a node leaves in peace: {}", node.log());
            }
            took += begun.elapsed();
            ledger.say(&format!(
                "{count} old nodes have left after {:.1} s",
                begun.elapsed().as_secs_f64()
            ));
        }
        took
    }

    /// Waits until the balancer sends requests to so many nodes.
    async fn is_balanced_over(&self, nodes: usize) {
        let mut round = 0;
        eventually("the balancer knows all nodes", async || {
            round += 1;
            let mark = format!("/healthz?nodes={nodes}&round={round};");
            for _ in 0..nodes {
                let _answer = try_fetch(self.balancer.address(), &Request::get(&mark)).await;
            }
            let mut seen: Vec<_> = self
                .balancer
                .requests_with(&mark)
                .into_iter()
                .map(|request| request.node)
                .collect();
            seen.sort();
            seen.dedup();
            (seen.len() == nodes).then_some(())
        })
        .await;
    }
}

/// Everything that was seen.
struct Seen<'a> {
    stage: &'a Stage,
    riders: &'a [Arc<Rider>],
    /// How often each had come in before.
    before: &'a [usize],
    refused: &'a Mutex<BTreeMap<String, u64>>,
    published: &'a Published,
    ledger: &'a Ledger,
}
