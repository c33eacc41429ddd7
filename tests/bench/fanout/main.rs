//! Fan-out over two nodes and a Redis: what a delivery costs, how long it takes, and whether each one came once and in
//! order. Prints a table and one line of JSON; judges nothing.
//!
//! Everything (nodes, Redis and the clients) shares this machine: compare ratios of runs next to each other, never
//! absolute figures of different days.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod publisher;
mod receiver;
mod report;
mod tally;
mod usage;

use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use hubcast_tests::gateway::{Gateway, Settings};
use hubcast_tests::redis::Redis;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use publisher::Publisher;
use receiver::Receiver;
use report::{Connected, Published, Report};
use tally::{Tally, micros};
use usage::{Usage, proportional_set_kib};

/// Fan-out over two nodes and a Redis.
#[derive(Parser, Debug, Clone)]
#[command(name = "bench-fanout")]
pub(crate) struct Args {
    /// Connections that receive, spread over the nodes.
    #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u32).range(1..=18_000))]
    conns: u32,
    /// Groups that the connections are spread over; 0 broadcasts to all.
    #[arg(long, default_value_t = 0)]
    groups: u32,
    /// Messages per second; 0 only connects and measures idle connections.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(0..=100_000))]
    rate: u32,
    /// Seconds of publishing.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=600))]
    duration: u32,
    /// Seconds of publishing before, which don't count.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(0..=60))]
    warmup: u32,
    /// Seconds after connecting, before idle memory is measured.
    #[arg(long, default_value_t = 2)]
    settle: u32,
    /// Bytes of text in each message.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(32..=16_000))]
    payload: u32,
    /// Connections that are opened at the same time.
    #[arg(long, default_value_t = 64)]
    connect_window: u32,
    /// Hubs that keep nothing: messages are pushed only.
    #[arg(long)]
    volatile: bool,
    /// Both, one after the other: what the guarantee costs.
    #[arg(long)]
    compare: bool,
    /// Gateway nodes.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=8))]
    nodes: u32,
}

// One thread for all receivers: they share two processors with what they measure.
#[tokio::main(flavor = "current_thread")]
async fn main() {
    let args = Args::parse();
    let hubs = match (args.compare, args.volatile) {
        (true, _) => vec![Keeps::Nothing, Keeps::Log],
        (false, true) => vec![Keeps::Nothing],
        (false, false) => vec![Keeps::Log],
    };
    for keeps in hubs {
        println!("{}", keeps.name());
        run(args.clone(), keeps).await;
    }
}

/// The retention of the hubs' messages.
#[derive(Clone, Copy)]
enum Keeps {
    /// The log, from which sessions resume and gaps are repaired.
    Log,
    Nothing,
}

impl Keeps {
    fn name(self) -> &'static str {
        match self {
            Self::Log => "resumable: each message is kept in the log",
            Self::Nothing => "volatile: messages are pushed and not kept",
        }
    }
}

async fn run(args: Args, keeps: Keeps) {
    let redis = Redis::start().await;
    let mut nodes = Vec::new();
    for _ in 0..args.nodes {
        let settings = Settings::default()
            .redis(&redis.url())
            .set("log.level", "warn")
            .set("hubs.volatile", matches!(keeps, Keeps::Nothing));
        nodes.push(Gateway::start(settings).await);
    }
    let ids: Vec<_> = nodes.iter().map(Gateway::id).collect();
    let bench = Bench {
        tally: Arc::new(Tally::new(args.conns)),
        base: Instant::now(),
        args,
        nodes,
        ids,
        redis,
    };
    let (connected, receivers) = bench.connect().await;
    let published = bench.publish().await;
    println!(
        "{}",
        Report {
            args: &bench.args,
            connected,
            published
        }
        .render()
    );
    drop(receivers);
}

struct Bench {
    args: Args,
    nodes: Vec<Gateway>,
    ids: Vec<u32>,
    redis: Redis,
    tally: Arc<Tally>,
    /// The moment that all stamps count from.
    base: Instant,
}

impl Bench {
    /// Opens all connections and looks at what they cost while they are idle.
    async fn connect(&self) -> (Connected, JoinSet<()>) {
        let base_kib: u64 = self.ids.iter().map(|id| proportional_set_kib(*id)).sum();
        let before = Usage::of(&self.ids);
        let started = Instant::now();
        let window = Arc::new(Semaphore::new(self.args.connect_window as usize));
        let mut opening = JoinSet::new();
        for index in 0..self.args.conns {
            let permit = Arc::clone(&window).acquire_owned().await.unwrap();
            let address = self.nodes[index as usize % self.nodes.len()].address();
            // Members of a group are on all nodes.
            let group = (self.args.groups > 0).then(|| index / self.args.nodes % self.args.groups);
            let began = Instant::now();
            opening.spawn(async move {
                let receiver =
                    timeout(Duration::from_secs(30), Receiver::connect(address, index, group)).await;
                drop(permit);
                (receiver, began.elapsed())
            });
        }
        let mut latency = micros();
        let (mut failed, mut receivers) = (0, JoinSet::new());
        while let Some(opened) = opening.join_next().await {
            let (receiver, took) = opened.unwrap();
            latency.saturating_record(u64::try_from(took.as_micros()).unwrap());
            if let Ok(Ok(receiver)) = receiver {
                receivers.spawn(receiver.run(Arc::clone(&self.tally), self.base));
            } else {
                failed += 1;
            }
        }
        let seconds = started.elapsed().as_secs_f64();
        sleep(Duration::from_secs(self.args.settle.into())).await;
        let kib: u64 = self.ids.iter().map(|id| proportional_set_kib(*id)).sum();
        let cpu = Usage::of(&self.ids).since(before);
        let open = self.args.conns - failed;
        let connected = Connected {
            failed,
            per_second: f64::from(open) / seconds,
            cpu_micros_each: cpu.micros() / f64::from(open.max(1)),
            p99_millis: latency.value_at_quantile(0.99) as f64 / 1e3,
            idle_kib_each: (kib as f64 - base_kib as f64) / f64::from(open.max(1)),
            base_mib_per_node: base_kib as f64 / 1024.0 / f64::from(self.args.nodes),
        };
        (connected, receivers)
    }

    /// Publishes at the wanted rate and waits until everything has arrived, or nothing does any more.
    async fn publish(&self) -> Option<Published> {
        if self.args.rate == 0 {
            return None;
        }
        let mut publisher = Publisher::connect(self.nodes[0].address(), &self.args, self.base).await;
        let mut expected = 0;
        for (counts, seconds) in [(false, self.args.warmup), (true, self.args.duration)] {
            let messages = self.args.rate * seconds;
            let first = publisher.sent();
            let (nodes_before, redis_before) = (Usage::of(&self.ids), Usage::of(&[self.redis.id()]));
            self.tally.begin(counts);
            let started = Instant::now();
            publisher = tokio::task::spawn_blocking(move || publisher.publish(messages))
                .await
                .unwrap();
            expected += self.expected(first, messages);
            self.drain(expected).await;
            if counts {
                let seconds = self
                    .tally
                    .last_delivery()
                    .saturating_duration_since(started)
                    .as_secs_f64();
                let totals = self.tally.totals();
                return Some(Published {
                    messages,
                    deliveries: totals.deliveries,
                    lost: self
                        .expected(first, messages)
                        .saturating_sub(totals.deliveries - totals.duplicated),
                    duplicated: totals.duplicated,
                    reordered: totals.reordered,
                    deliveries_per_second: totals.deliveries as f64 / seconds.max(1e-9),
                    node_cpu_micros: Usage::of(&self.ids).since(nodes_before).micros(),
                    redis_cpu_micros: Usage::of(&[self.redis.id()]).since(redis_before).micros(),
                    latency: totals.latency,
                });
            }
        }
        None
    }

    /// How many deliveries these messages make: message `i` goes to group `i` modulo the number of groups.
    fn expected(&self, first: u32, messages: u32) -> u64 {
        if self.args.groups == 0 {
            return u64::from(messages) * u64::from(self.args.conns);
        }
        let members = |group: u32| {
            let is_member = |index: &u32| index / self.args.nodes % self.args.groups == group;
            (0..self.args.conns).filter(is_member).count() as u64
        };
        let members: Vec<u64> = (0..self.args.groups).map(members).collect();
        (first..first + messages)
            .map(|i| members[(i % self.args.groups) as usize])
            .sum()
    }

    async fn drain(&self, expected: u64) {
        let mut idle = 0;
        let mut seen = self.tally.delivered();
        while seen < expected && idle < 50 {
            sleep(Duration::from_millis(100)).await;
            let now = self.tally.delivered();
            idle = if now == seen { idle + 1 } else { 0 };
            seen = now;
        }
    }
}
