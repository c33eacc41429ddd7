//! The chaos run: stateful clients behind a balancer, steady traffic both ways, and one fault after the other. It shows
//! whether every message came once and in order, or the client was told that it had to start anew.

mod client;
mod ledger;
mod link;
mod member;
mod numbers;
mod report;
mod run;
mod schedule;
mod stage;
mod traffic;
mod uploads;

use clap::Parser;

pub use report::Report;

/// Hurts a cluster under traffic and counts what that does to its clients.
#[derive(Parser, Debug, Clone)]
#[command(name = "chaos")]
pub struct Options {
    /// Nodes behind the balancer.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=16))]
    pub nodes: u32,
    /// Stateful clients.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=5_000))]
    pub clients: u32,
    /// Groups that the clients are spread over.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=5_000))]
    pub groups: u32,
    /// Messages per second that are published, over all groups.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub rate: u32,
    /// Milliseconds that a client waits between two pairs of calls.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=60_000))]
    pub upload_ms: u32,
    /// Decides on the faults and their order.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Nodes that are killed.
    #[arg(long, default_value_t = 3)]
    pub kills: u32,
    /// Nodes that are asked to leave.
    #[arg(long, default_value_t = 3)]
    pub drains: u32,
    /// Nodes that are stopped for a while.
    #[arg(long, default_value_t = 3)]
    pub pauses: u32,
    /// Times that Redis is killed; every second time it forgets everything.
    #[arg(long, default_value_t = 2)]
    pub redis_restarts: u32,
    /// Times that sockets are cut; every second time all of a node.
    #[arg(long, default_value_t = 4)]
    pub cuts: u32,
    /// Milliseconds of undisturbed traffic after each fault.
    #[arg(long, default_value_t = 2_000)]
    pub gap_ms: u64,
    /// Seconds of silence after which a client gives its socket up. Nodes send Pings four times as often.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=120))]
    pub server_timeout: u32,
    /// Seconds within which the clients must have moved on after a fault.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=600))]
    pub bound: u32,
    /// What nodes log.
    #[arg(long, default_value = "warn")]
    pub log: String,
}

impl Options {
    fn counts(&self) -> schedule::Counts {
        schedule::Counts {
            nodes: self.nodes as usize,
            kills: self.kills,
            drains: self.drains,
            pauses: self.pauses,
            redis_restarts: self.redis_restarts,
            cuts: self.cuts,
        }
    }
}

/// The whole run. Progress goes to standard error.
pub async fn run(options: Options) -> Report {
    eprintln!("seed {}: the same seed gives the same faults", options.seed);
    let mut run = run::Run::start(options).await;
    run.hurt().await;
    run.finish().await
}
