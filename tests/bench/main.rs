//! The benchmark: processor time, latency and memory of Hubcast beside floors that do the same work without a protocol, in
//! interleaved passes. Prints tables; judges nothing. It fails only where something could not be measured.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod figures;
mod floor;
mod frame;
mod instructions;
mod load;
mod plan;
mod report;
mod resp;
mod soak;
mod stage;

use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use clap::{Parser, Subcommand, ValueEnum};
use futures_util::FutureExt;
use hubcast_tests::built;
use rustix::process::{Resource, getrlimit, setrlimit};
use serde_json::{Value, json};

use figures::measure;
use floor::FloorArgs;
use instructions::Part;
use load::Pace;
use plan::{Run, Size, Subject};
use report::Report;
use soak::SoakArgs;
use stage::{Programs, Stage};

/// Processor time, latency and memory of Hubcast beside floors that do the same work without a protocol.
///
/// Builds the gateway, starts two nodes and a Redis for every measurement, and is the load generator itself; everything runs on
/// loopback and ends with it. Each pass measures every subject of every run once, every other pass backwards. The tables have
/// medians over the passes and, in brackets, the median of the ratios to the floor of the same pass: compare ratios, never figures
/// of different days. Counts of faults are those of the worst pass.
#[derive(Parser, Debug)]
#[command(
    name = "bench",
    after_help = "Examples, after `cargo run --release -p hubcast-tests --bin bench --`:
  --only W1,W2 --passes 5                              two runs, five passes
  --only W2 --subjects direct,publish,hubcast,volatile what the log costs
  --only W1 --connections 500 --rate 20 --seconds 10   another size
  --only W1 --subjects hubcast --stalled 20            a hundredth of the receivers reads nothing
  --only W3 --subjects hubcast --idle-seconds 60       memory and idle processor time
  --instructions                                       instruction counts, which other work on the machine can't change
  --list                                               what is measured in which run
The programs are built from the present sources; the variable HUBCAST_BIN names another gateway instead."
)]
pub(crate) struct Args {
    #[command(subcommand)]
    program: Option<Program>,
    /// Runs, separated by commas; all unless given.
    #[arg(long, value_enum, ignore_case = true, value_delimiter = ',')]
    only: Vec<Run>,
    /// Subjects, separated by commas; each run has its own choice unless given.
    #[arg(long, value_enum, value_delimiter = ',')]
    subjects: Vec<Subject>,
    /// Passes over everything.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=50))]
    passes: u32,
    /// Seconds of publishing that are measured.
    #[arg(long, default_value_t = 5.0, value_parser = seconds)]
    seconds: f64,
    /// Seconds of publishing before, which are not.
    #[arg(long, default_value_t = 1.0, value_parser = seconds)]
    warmup: f64,
    /// Seconds after connecting, before anything is measured.
    #[arg(long, default_value_t = 2.0, value_parser = seconds)]
    settle: f64,
    /// Seconds of W3 in which nothing happens but pings, which come every 15 seconds; memory is measured after them.
    #[arg(long, default_value_t = 15.0, value_parser = seconds)]
    idle_seconds: f64,
    /// Connections that receive, in place of the run's.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=18_000))]
    connections: Option<u32>,
    /// Groups that they are spread over, in place of the run's.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    groups: Option<u32>,
    /// Messages a second, in place of the run's.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rate: Option<u32>,
    /// Connections that are opened at the same time, in place of the run's.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1_024))]
    connect_window: Option<u32>,
    /// Receivers that read nothing once they are connected: the others must not notice.
    #[arg(long, default_value_t = 0)]
    stalled: u32,
    /// Bytes of text in each message.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u16).range(38..=16_000))]
    payload: u16,
    /// Nodes, where there is a Redis.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=8))]
    nodes: u32,
    /// Cargo's profile for the gateway.
    #[arg(long, default_value = "dist")]
    profile: String,
    /// Also writes medians, ratios and each pass to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Counts the instructions of publishing, delivering and decoding instead, with valgrind.
    #[arg(long, value_enum, value_name = "PART", num_args = 0..=1, default_missing_value = "all")]
    instructions: Option<Part>,
    /// Prints the subjects of each run, and measures nothing.
    #[arg(long)]
    list: bool,
}

#[derive(Subcommand, Debug)]
enum Program {
    /// One node of a floor.
    #[command(hide = true)]
    Floor(FloorArgs),
    /// Many connections with traffic for a long time, of which some come and go: the memory of nodes and Redis each minute,
    /// and after everybody has left.
    Soak(SoakArgs),
}

fn seconds(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if (0.0..=600.0).contains(&seconds) {
        Ok(seconds)
    } else {
        Err("between 0 and 600".to_owned())
    }
}

impl Args {
    /// A run's size, with what the arguments change in it.
    fn size(&self, run: Run) -> Size {
        let mut size = run.size();
        size.connections = self.connections.unwrap_or(size.connections);
        size.groups = self.groups.unwrap_or(size.groups).min(size.connections);
        size.window = self.connect_window.unwrap_or(size.window);
        if let (Some(rate), Some(Pace::Rate(_))) = (self.rate, size.pace) {
            size.pace = Some(Pace::Rate(rate.into()));
        }
        size
    }

    /// Runs with their subjects, in order.
    fn cells(&self) -> Vec<(Run, Subject)> {
        let runs = if self.only.is_empty() {
            Run::value_variants()
        } else {
            &self.only
        };
        let subjects = |run: Run| {
            let subjects = if self.subjects.is_empty() {
                run.subjects()
            } else {
                &self.subjects
            };
            subjects.iter().filter(move |subject| run.suits(**subject))
        };
        runs.iter()
            .flat_map(|run| subjects(*run).map(|subject| (*run, *subject)))
            .collect()
    }
}

fn main() -> ExitCode {
    let args = Args::parse();
    raise_file_limit();
    if let Some(Program::Floor(floor)) = &args.program {
        // As the gateway: one worker for each processor.
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        let Err(error) = runtime.block_on(floor::serve(floor)) else {
            return ExitCode::SUCCESS;
        };
        eprintln!("{error}");
        return ExitCode::FAILURE;
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        if let Some(Program::Soak(soak)) = &args.program {
            soak::run(soak).await
        } else if args.list {
            list(&args);
            ExitCode::SUCCESS
        } else if let Some(part) = args.instructions {
            instructions::count(&args, part).await
        } else {
            run(&args).await
        }
    })
}

fn list(args: &Args) {
    let mut last = None;
    for (run, subject) in args.cells() {
        if last.replace(run) != Some(run) {
            println!("{}: {}", run.name(), args.size(run));
        }
        println!("  {}", subject.name());
    }
}

async fn run(args: &Args) -> ExitCode {
    let cells = args.cells();
    let programs = Programs::build(args, &cells);
    let (mut report, mut failed) = (Report::default(), 0);
    for pass in 1..=args.passes {
        let mut order = cells.clone();
        if pass % 2 == 0 {
            order.reverse();
        }
        for (run, subject) in order {
            let measured = async {
                let stage = Stage::start(subject, args.nodes, &programs).await;
                measure(args, run, subject, &stage)
            };
            // A program that does not start or dies has panicked with what it said; the other measurements go on.
            let measured = AssertUnwindSafe(measured).catch_unwind().await;
            let measured = measured.unwrap_or_else(|_| Err("see above".to_owned()));
            let said = measured
                .as_ref()
                .map_or_else(|error| format!("failed: {error}"), report::line);
            eprintln!("pass {pass}, {}, {}: {said}", run.name(), subject.name());
            failed += usize::from(measured.is_err());
            report.add(run, subject, measured.ok());
        }
    }
    println!("{}", report.tables(|run| args.size(run)));
    if let Some(file) = &args.json {
        let written = std::fs::write(file, format!("{:#}\n", json(args, &report)));
        written.unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    }
    if failed > 0 {
        eprintln!(
            "{failed} of {} measurements failed",
            cells.len() * args.passes as usize
        );
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

/// The report, with what is needed to measure it again.
fn json(args: &Args, report: &Report) -> Value {
    let commit = Command::new("git")
        .args(["describe", "--always", "--dirty"])
        .output();
    let commit = commit
        .ok()
        .map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    json!({
        "commit": commit.filter(|commit| !commit.is_empty()),
        "profile": args.profile,
        "processors": std::thread::available_parallelism().ok().map(usize::from),
        "load": load.split_whitespace().next().and_then(|load| load.parse::<f64>().ok()),
        "passes": args.passes,
        "seconds": args.seconds,
        "payload": args.payload,
        "results": report.json(),
    })
}

impl Programs {
    /// Builds what these cells need. The gateway of an application is built only where it is measured.
    fn build(args: &Args, cells: &[(Run, Subject)]) -> Self {
        let is_library = |subject: &Subject| matches!(subject, Subject::Library | Subject::InProcess);
        let needs_library = cells.iter().any(|(_, subject)| is_library(subject));
        let folder = built::in_profile(&args.profile, needs_library);
        Self {
            binary: std::env::var_os("HUBCAST_BIN").map_or_else(|| folder.join("hubcast"), PathBuf::from),
            library: folder.join("examples/recording_gateway"),
        }
    }
}

/// Sockets need more files than a shell allows at first.
fn raise_file_limit() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        eprintln!("the limit of open files can't be raised: {error}");
    }
}
