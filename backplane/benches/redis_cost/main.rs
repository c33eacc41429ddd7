//! The cost of a published message for Redis, beside a bare `PUBLISH` at the same rate.
//!
//! `cargo bench -p hubcast-backplane --bench redis_cost -- --rates 2000,10000 --seconds 4 --passes 5` starts a
//! redis-server for each run (`--commands`: prints the commands per message; `--batch-interval MICROS`: as the option of the
//! nodes). Two nodes have a connection in each of 200 groups; one of them publishes to the groups in
//! turn, each message at its own time, whether or not earlier ones were answered. The bare `PUBLISH` has two subscribers
//! of 200 channels and goes through one multiplexed connection, at the same times, with a payload of the same size.
//!
//! CPU times are the processes' own: of Redis from `INFO cpu`, of this process (publisher and both nodes) from
//! `/proc/self/schedstat` of its threads. Medians over the passes, which run all subjects in turn. Nothing is judged.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod subject;

use std::collections::BTreeMap;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use redis::aio::MultiplexedConnection;
use tokio::runtime::Handle;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::subject::{Kind, Subject};

/// Groups that are published to in turn.
const GROUPS: usize = 200;

/// The settings of a benchmark.
struct Settings {
    rates: Vec<u64>,
    seconds: u64,
    passes: usize,
    kinds: Vec<Kind>,
    interval: Duration,
    commands: bool,
}

/// The figures of one run.
#[derive(Clone, Copy, Debug)]
struct Figures {
    redis: f64,
    node: f64,
    p50: f64,
    p99: f64,
    calls: f64,
}

/// A redis-server that ends with its value.
struct Server {
    child: Child,
    port: u16,
}

impl Server {
    async fn start() -> Self {
        let port = std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let child = Command::new("redis-server")
            .args([
                "--bind",
                "127.0.0.1",
                "--save",
                "",
                "--appendonly",
                "no",
                "--port",
            ])
            .arg(port.to_string())
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server can be started");
        let server = Self { child, port };
        for _ in 0..500 {
            if tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_ok() {
                return server;
            }
            sleep(Duration::from_millis(10)).await;
        }
        panic!("redis-server does not answer on port {port}");
    }

    fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/?protocol=resp3", self.port)
    }

    async fn connection(&self) -> MultiplexedConnection {
        let client = redis::Client::open(self.url()).unwrap();
        client.get_multiplexed_async_connection().await.unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn info(connection: &mut MultiplexedConnection, section: &str) -> String {
    redis::cmd("INFO")
        .arg(section)
        .query_async(connection)
        .await
        .unwrap()
}

/// CPU time of the server in microseconds.
async fn redis_cpu(connection: &mut MultiplexedConnection) -> f64 {
    let info = info(connection, "cpu").await;
    let field = |name: &str| -> f64 {
        let line = info
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.unwrap().trim().parse().unwrap()
    };
    (field("used_cpu_sys") + field("used_cpu_user")) * 1e6
}

/// CPU time of this process in microseconds.
fn own_cpu() -> f64 {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let of_task = |task: std::io::Result<std::fs::DirEntry>| {
        let stat = std::fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
        stat.split(' ').next()?.parse::<f64>().ok()
    };
    tasks.filter_map(of_task).sum::<f64>() / 1e3
}

/// Calls and microseconds of each command.
async fn commands(connection: &mut MultiplexedConnection) -> BTreeMap<String, (f64, f64)> {
    let info = info(connection, "commandstats").await;
    let read = |line: &str| {
        let (name, rest) = line.strip_prefix("cmdstat_")?.split_once(':')?;
        let field = |name: &str| -> Option<f64> {
            rest.split(',')
                .find_map(|part| part.strip_prefix(name)?.strip_prefix('=')?.parse().ok())
        };
        Some((name.to_owned(), (field("calls")?, field("usec")?)))
    };
    info.lines().filter_map(read).collect()
}

/// Calls `publish` at the times that the rate gives, from a thread of its own. Returns how long each took in
/// microseconds.
async fn pace(subject: &Arc<Subject>, rate: u64, seconds: u64) -> Vec<f64> {
    let handle = Handle::current();
    let took = Arc::new(Mutex::new(Vec::new()));
    let (subject, times) = (Arc::clone(subject), Arc::clone(&took));
    let pacing = move || {
        let mut calls = JoinSet::new();
        let (begun, each) = (Instant::now(), Duration::from_secs_f64(1.0 / rate as f64));
        for number in 0..rate * seconds {
            let due = begun + each * u32::try_from(number).unwrap();
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            let (subject, times) = (Arc::clone(&subject), Arc::clone(&times));
            let call = async move {
                subject.publish(usize::try_from(number).unwrap() % GROUPS).await;
                times.lock().push(due.elapsed().as_secs_f64() * 1e6);
            };
            calls.spawn_on(call, &handle);
        }
        calls
    };
    let calls = tokio::task::spawn_blocking(pacing).await.unwrap();
    calls.join_all().await;
    Arc::into_inner(took).unwrap().into_inner()
}

async fn run(kind: Kind, rate: u64, settings: &Settings) -> Figures {
    let server = Server::start().await;
    let subject = Arc::new(Subject::open(kind, &server, settings.interval).await);
    let mut connection = server.connection().await;
    let warm = pace(&subject, rate, 1).await.len();
    subject.wait_for(2 * warm).await;
    let stats_before = commands(&mut connection).await;
    let (redis, own) = (redis_cpu(&mut connection).await, own_cpu());
    let mut took = pace(&subject, rate, settings.seconds).await;
    let (redis, own) = (redis_cpu(&mut connection).await - redis, own_cpu() - own);
    let stats = commands(&mut connection).await;
    let messages = took.len();
    subject.wait_for(2 * (warm + messages)).await;
    let count = messages as f64;
    let script = |stats: &BTreeMap<String, (f64, f64)>| stats.get("evalsha").map_or(0.0, |(calls, _)| *calls);
    if settings.commands {
        println!("  {kind} at {rate}/s, commands per message:");
        for (name, (calls, micros)) in &stats {
            let (calls_before, micros_before) = stats_before.get(name).copied().unwrap_or_default();
            let (calls, micros) = ((calls - calls_before) / count, (micros - micros_before) / count);
            if calls > 0.004 {
                println!("    {name:<12} {calls:6.2} calls {micros:6.2} µs");
            }
        }
    }
    took.sort_by(f64::total_cmp);
    let at = |part: f64| took.get((count * part) as usize).copied().unwrap_or_default();
    let figures = Figures {
        redis: redis / count,
        node: own / count,
        p50: at(0.5),
        p99: at(0.99),
        calls: (script(&stats) - script(&stats_before)) / count,
    };
    subject.close().await;
    figures
}

fn median(figures: &[Figures], of: impl Fn(&Figures) -> f64) -> f64 {
    let mut values: Vec<_> = figures.iter().map(of).collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

fn settings() -> Settings {
    let arguments: Vec<String> = std::env::args().collect();
    let value = |name: &str, default: &str| {
        let place = arguments.iter().position(|argument| argument == name);
        place
            .and_then(|place| arguments.get(place + 1))
            .map_or_else(|| default.to_owned(), Clone::clone)
    };
    Settings {
        rates: value("--rates", "2000,10000")
            .split(',')
            .map(|rate| rate.parse().expect("--rates N,N"))
            .collect(),
        seconds: value("--seconds", "4").parse().expect("--seconds N"),
        passes: value("--passes", "3").parse().expect("--passes N"),
        kinds: value("--kinds", "publish,volatile,resumable,by-client")
            .split(',')
            .map(|kind| Kind::parse(kind).expect("--kinds publish,volatile,resumable,by-client"))
            .collect(),
        interval: Duration::from_micros(
            value("--batch-interval", "0")
                .parse()
                .expect("--batch-interval MICROS"),
        ),
        commands: arguments.iter().any(|argument| argument == "--commands"),
    }
}

#[tokio::main(worker_threads = 2)]
async fn main() {
    let settings = settings();
    let mut runs: BTreeMap<(u64, Kind), Vec<Figures>> = BTreeMap::new();
    for _ in 0..settings.passes {
        for rate in &settings.rates {
            for kind in &settings.kinds {
                let figures = run(*kind, *rate, &settings).await;
                runs.entry((*rate, *kind)).or_default().push(figures);
            }
        }
    }
    println!(
        "| messages/s | subject | Redis CPU µs per message | beside PUBLISH | node CPU µs per message | calls of Redis per message | p50 / p99 µs |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- |");
    for ((rate, kind), figures) in &runs {
        let redis = median(figures, |figures| figures.redis);
        let bare = runs
            .get(&(*rate, Kind::Publish))
            .map(|bare| median(bare, |bare| bare.redis));
        println!(
            "| {rate} | {kind} | {redis:.1} | {} | {:.1} | {:.2} | {:.0} / {:.0} |",
            bare.map_or_else(|| "?".to_owned(), |bare| format!("{:.2}", redis / bare)),
            median(figures, |figures| figures.node),
            median(figures, |figures| figures.calls),
            median(figures, |figures| figures.p50),
            median(figures, |figures| figures.p99),
        );
    }
}
