//! Measures and proves webhooks with real processes: that events reach the application exactly once by id whatever fails, that
//! a handler that hangs harms no other hub, and the price of a call that an application answers.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod calls;
mod events;
mod isolation;
mod latency;
mod receiver;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use rustix::process::{Resource, getrlimit, setrlimit};

/// Webhooks under faults and under load. Everything runs on loopback and ends with this program.
#[derive(Parser)]
#[command(name = "webhooks")]
struct Args {
    #[command(subcommand)]
    part: Part,
}

#[derive(Subcommand)]
enum Part {
    /// Connections come, move and go on three nodes, one node is killed with -9, and the application is away for a while and
    /// answers 500 at random. Each connection must be told as connected once and as disconnected once, by event id. Exits
    /// with 1 where one is missing or not in order.
    Events(events::Options),
    /// Compares the latency of calls in one hub while the handler of another hub answers at once, and while it hangs. Prints
    /// the errors that callers of the hanging handler get, and the memory of the node.
    Isolation(isolation::Options),
    /// Compares a call from a client through the gateway and a webhook with the same HTTP request sent directly, and prints
    /// calls per second of the gateway's processor time.
    Calls(calls::Options),
}

#[tokio::main]
async fn main() -> ExitCode {
    more_files();
    let part = Args::parse().part;
    tokio::select! {
        code = run(part) => code,
        _ = tokio::signal::ctrl_c() => ExitCode::from(130),
    }
}

async fn run(part: Part) -> ExitCode {
    match part {
        Part::Events(options) => {
            let outcome = events::run(&options).await;
            println!("{}", outcome.render());
            ExitCode::from(u8::from(!outcome.is_exact()))
        }
        Part::Isolation(options) => {
            isolation::run(&options).await;
            ExitCode::SUCCESS
        }
        Part::Calls(options) => {
            calls::run(&options).await;
            ExitCode::SUCCESS
        }
    }
}

/// Allows as many open files as the system does: each connection is one here, and one in its gateway.
fn more_files() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // Without it fewer connections can be opened, which shows.
    let _ = setrlimit(Resource::Nofile, limit);
}
