//! A long run: many connections with traffic, of which some come and go. Prints the memory of nodes and Redis each minute, and
//! after everybody has left: it has to stay flat, and to be given back.

use std::process::ExitCode;

use clap::Args;
use hubcast_tests::built;
use hubcast_tests::usage::{Usage, proportional_set_kib};

use crate::figures::quantile;
use crate::load::{Cast, Load, Pace, Phase};
use crate::plan::Subject;
use crate::stage::{Programs, Stage};

/// The options of a soak.
#[derive(Args, Debug)]
pub(crate) struct SoakArgs {
    /// Rows of the table: minutes, unless `--interval-seconds` says otherwise.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=600))]
    rows: u32,
    /// Seconds from one row to the next.
    #[arg(long, default_value_t = 60.0)]
    interval_seconds: f64,
    /// Connections; a group for each ten of them.
    #[arg(long, default_value_t = 18_000, value_parser = clap::value_parser!(u32).range(10..=18_000))]
    connections: u32,
    /// Messages a second, each to one group.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    rate: u32,
    /// Connections that are replaced by new ones before each row.
    #[arg(long, default_value_t = 900)]
    replaced: u32,
    /// How the receivers are connected.
    #[arg(long, value_enum, default_value = "hubcast")]
    subject: Subject,
    /// Nodes.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=8))]
    nodes: u32,
    /// Seconds after the last connection has left, before memory is measured for the last time.
    #[arg(long, default_value_t = 60.0)]
    rest_seconds: f64,
    /// Cargo's profile for the gateway.
    #[arg(long, default_value = "dist")]
    profile: String,
}

/// The titles of the table.
const HEAD: &str = "\
| after s | connections | nodes MiB PSS | Redis MiB PSS | nodes CPU % | Redis CPU % | deliveries | p50 ms | p99 ms | lost | doubled | out of order |
| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |";

/// Runs it and prints the table. Fails where a connection failed, or a message was lost, doubled or out of order.
pub(crate) async fn run(args: &SoakArgs) -> ExitCode {
    let folder = built::in_profile(&args.profile, false);
    let programs = Programs {
        binary: std::env::var_os("HUBCAST_BIN").map_or_else(|| folder.join("hubcast"), Into::into),
        library: folder.join("examples/recording_gateway"),
    };
    let stage = Stage::start(args.subject, args.nodes, &programs).await;
    match soak(args, &stage) {
        Ok(faults) => {
            println!("\n{faults} messages lost, doubled or out of order");
            ExitCode::from(u8::from(faults > 0))
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn soak(args: &SoakArgs, stage: &Stage) -> Result<u64, String> {
    let cast = Cast {
        nodes: stage.addresses(),
        speaks: args.subject.speaks(),
        publishes: args.subject.publishes(),
        connections: args.connections,
        groups: (args.connections / 10).max(1),
        payload: 100,
        window: 128,
        stalled: 0,
    };
    println!("{HEAD}");
    let mut load = Load::new(cast).map_err(|error| error.to_string())?;
    Row::of(stage, "0", 0).print(None);
    let connected = load.connect();
    if connected.failed > 0 {
        let why = load.first_error().unwrap_or("no answer");
        return Err(format!("{} connections failed: {why}", connected.failed));
    }
    load.connect_publisher()?;
    let mut faults = 0;
    for number in 1..=args.rows {
        let after = f64::from(number) * args.interval_seconds;
        let row = Row::of(stage, &format!("{after:.0}"), load.open());
        load.replace(args.replaced)?;
        let left = || (args.interval_seconds - row.begun.elapsed().as_secs_f64()).max(0.0);
        let phase = load.publish(Pace::Rate(args.rate.into()), left() * 0.9);
        load.idle(left());
        row.again(stage).print(Some(&phase));
        faults += phase.faults();
        if let Some(error) = load.first_error() {
            return Err(error.to_owned());
        }
    }
    let row = Row::of(stage, "all left", 0);
    load.leave();
    load.idle(args.rest_seconds);
    row.again(stage).print(None);
    Ok(faults)
}

/// The state of the processes at a time, or over a while.
struct Row {
    name: String,
    connections: u32,
    begun: tokio::time::Instant,
    usage: [Usage; 2],
    /// Of the nodes and of Redis, in percent of one processor.
    cpu: Option<[f64; 2]>,
    mib: [f64; 2],
}

impl Row {
    fn of(stage: &Stage, name: &str, connections: u32) -> Self {
        let processes = [stage.nodes(), stage.redis()];
        Self {
            name: name.to_owned(),
            connections,
            begun: tokio::time::Instant::now(),
            usage: [0, 1].map(|index: usize| Usage::of(&processes[index])),
            cpu: None,
            mib: [0, 1].map(|index: usize| proportional_set_kib(&processes[index]) / 1024.0),
        }
    }

    /// The state now, and the use of processors since then.
    fn again(&self, stage: &Stage) -> Self {
        let now = Self::of(stage, &self.name, self.connections);
        let micros = self.begun.elapsed().as_secs_f64() * 1e6;
        let used = |index: usize| now.usage[index].micros_since(&self.usage[index]) / micros * 100.0;
        Self {
            cpu: Some([used(0), used(1)]),
            ..now
        }
    }

    fn print(&self, phase: Option<&Phase>) {
        let cpu = self.cpu.map_or_else(
            || "– | –".to_owned(),
            |[nodes, redis]| format!("{nodes:.1} | {redis:.1}"),
        );
        let traffic = phase.map_or_else(
            || "– | – | – | – | – | –".to_owned(),
            |phase| {
                let tally = &phase.tally;
                let latency = |share| f64::from(quantile(&tally.latency, share)) / 1e3;
                format!(
                    "{} | {:.2} | {:.2} | {} | {} | {}",
                    tally.deliveries,
                    latency(0.5),
                    latency(0.99),
                    phase.lost(),
                    tally.doubled,
                    tally.reordered + tally.misrouted,
                )
            },
        );
        let Self {
            name,
            connections,
            mib: [nodes, redis],
            ..
        } = self;
        println!("| {name} | {connections} | {nodes:.1} | {redis:.1} | {cpu} | {traffic} |");
    }
}
