//! Instruction counts: figures of the user's side of the work that other work on the machine can't change. `valgrind` runs the
//! codec's operations, and a whole node that is sent messages one by one.
//!
//! Everything is counted twice, with few and with many repetitions: the difference has neither start nor end in it.

use std::path::Path;
use std::process::{Command, ExitCode};

use clap::ValueEnum;
use hubcast_tests::built;
use hubcast_tests::gateway::Gateway;
use hubcast_tests::redis::Redis;

use crate::Args;
use crate::load::{Cast, Load, Pace};
use crate::plan::{Server, Subject};
use crate::report::number;
use crate::stage::{Programs, settings};

const CALLGRIND: [&str; 3] = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null"];
/// Messages or deliveries in all repetitions of an operation.
const REPETITIONS: [u32; 2] = [1_000, 11_000];
/// Messages, and members of the group that they go to.
const MESSAGES: [u32; 2] = [50, 250];
const MEMBERS: [u32; 2] = [1, 51];

const SUBJECTS: [Subject; 4] = [
    Subject::MemoryVolatile,
    Subject::Memory,
    Subject::Hubcast,
    Subject::MessagePack,
];

/// The part whose instructions are counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Part {
    /// Both
    All,
    /// Operations of the codec, the fan-out and the outbox, without a server
    Engine,
    /// A node that is sent messages by a client
    Node,
}

/// Counts, and prints a table for each part.
pub(crate) async fn count(args: &Args, part: Part) -> ExitCode {
    if Command::new("valgrind").arg("--version").output().is_err() {
        eprintln!("instructions are counted by valgrind, which is not installed");
        return ExitCode::FAILURE;
    }
    if part != Part::Engine {
        nodes(args).await;
    }
    if part != Part::Node {
        engine(args);
    }
    ExitCode::SUCCESS
}

fn engine(args: &Args) {
    let engine = built::bench("engine", &args.profile);
    println!("\n| operation | instructions |\n| --- | --- |");
    for (operation, elements) in operations(&engine) {
        let [few, many] = REPETITIONS.map(|times| (times / elements).max(1));
        let [less, more] = [few, many].map(|times| operation_count(&engine, &operation, times));
        println!(
            "| {operation} | {} |",
            number((more - less) / f64::from(many - few), 0)
        );
    }
}

async fn nodes(args: &Args) {
    let programs = Programs::build(args, &[]);
    let subjects = if args.subjects.is_empty() {
        &SUBJECTS[..]
    } else {
        &args.subjects
    };
    println!("\n| one node | publish a message | deliver it to one member |\n| --- | --- | --- |");
    for subject in subjects {
        if !matches!(
            subject.server(),
            Server::Gateway {
                is_library: false,
                ..
            }
        ) {
            eprintln!(
                "{}: instructions are counted for the gateway's binary only",
                subject.name()
            );
            continue;
        }
        let [alone, together] = MEMBERS.map(f64::from);
        let each = [
            message_count(args, *subject, &programs, MEMBERS[0]).await,
            message_count(args, *subject, &programs, MEMBERS[1]).await,
        ];
        let delivery = (each[1] - each[0]) / (together - alone);
        let publishing = each[0] - delivery * alone;
        println!(
            "| {} | {} | {} |",
            subject.name(),
            number(publishing, 0),
            number(delivery, 0)
        );
    }
}

/// Instructions of one message to so many members.
async fn message_count(args: &Args, subject: Subject, programs: &Programs, members: u32) -> f64 {
    let few = node_count(args, subject, programs, members, MESSAGES[0]).await;
    let many = node_count(args, subject, programs, members, MESSAGES[1]).await;
    (many - few) / f64::from(MESSAGES[1] - MESSAGES[0])
}

/// The names of the operations, and how many messages or deliveries each has.
fn operations(engine: &Path) -> Vec<(String, u32)> {
    let output = Command::new(engine)
        .arg("--operations")
        .output()
        .expect("the bench can be started");
    let text = String::from_utf8(output.stdout).expect("names are text");
    let operation = |line: &str| {
        let (name, elements) = line.split_once(' ')?;
        Some((name.to_owned(), elements.parse().ok()?))
    };
    let operations = text.lines().map(operation).collect::<Option<_>>();
    operations.expect("a name and a number on each line")
}

fn operation_count(engine: &Path, operation: &str, times: u32) -> f64 {
    let output = Command::new(CALLGRIND[0])
        .args(&CALLGRIND[1..])
        .arg(engine)
        .args(["--count", operation, &times.to_string()])
        .output()
        .expect("valgrind can be started");
    collected(&String::from_utf8_lossy(&output.stderr))
}

/// Instructions of a node's whole life, in which this many messages came to a group of so many members.
async fn node_count(args: &Args, subject: Subject, programs: &Programs, members: u32, messages: u32) -> f64 {
    let server = subject.server();
    let redis = match server {
        Server::Gateway { has_redis: true, .. } => Some(Redis::start().await),
        _ => None,
    };
    let settings = settings(server, redis.as_ref(), programs)
        .variable("TOKIO_WORKER_THREADS", 1)
        .under(&CALLGRIND);
    let mut node = Gateway::start(settings).await;
    let cast = Cast {
        nodes: vec![node.address()],
        speaks: subject.speaks(),
        publishes: subject.publishes(),
        connections: members,
        groups: 1,
        payload: args.payload.into(),
        window: 1,
        stalled: 0,
    };
    let mut load = Load::new(cast).expect("a generator");
    load.connect();
    load.connect_publisher().unwrap_or_else(|error| panic!("{error}"));
    let phase = load.publish(Pace::Count(messages), 0.0);
    assert_eq!(phase.tally.deliveries, phase.expected, "{:?}", load.first_error());
    drop(load);
    node.terminate();
    node.exit().await;
    collected(&node.log())
}

/// The sum that callgrind says at its end.
fn collected(errors: &str) -> f64 {
    let line = errors.lines().find_map(|line| line.split_once("Collected :"));
    let count = line.and_then(|(_, count)| count.trim().parse().ok());
    count.unwrap_or_else(|| panic!("callgrind says no sum: {errors}"))
}
