//! The chaos run: stateful clients behind a balancer, steady traffic both ways, and one fault after the other. It shows
//! whether every message came once and in order, or the client was notified that it had to start anew.

mod client;
mod fault;
mod kinds;
mod ledger;
mod link;
mod member;
mod members;
mod numbers;
mod plain;
mod pubsub;
mod readers;
mod record;
mod report;
mod rollout;
mod run;
mod schedule;
mod servers;
mod stage;
mod traffic;
mod transports;
mod uploads;

use std::time::Duration;

use clap::Parser;

pub use report::Report;
pub use rollout::{RolloutOptions, rollout};
pub use servers::Topology;

use fault::Kind;

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
    /// Clients of each other kind: SignalR over WebSockets, server-sent events and long polling without stateful reconnect,
    /// `EventSource`, WebSockets without a subprotocol, reliable Web PubSub.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=1_000))]
    pub others: u32,
    /// Kinds of faults that come in turn until the time is over: `all`, `node`, `redis`, `links`, or names of single ones,
    /// with commas. Without, the numbers of `--kills` and the like decide.
    #[arg(long, value_delimiter = ',', value_parser = known_faults)]
    pub faults: Vec<String>,
    /// Seconds for which faults come, with `--faults`.
    #[arg(long, default_value_t = 60)]
    pub seconds: u64,
    /// Minutes instead of seconds.
    #[arg(long)]
    pub minutes: Option<u64>,
    /// How Redis is set up.
    #[arg(long, value_enum, default_value = "single")]
    pub topology: Topology,
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
    /// Nodes that are drained.
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
    /// The nodes' log level.
    #[arg(long, default_value = "warn")]
    pub log: String,
    /// Folder that the nodes' logs are written to at the end.
    #[arg(long)]
    pub logs: Option<std::path::PathBuf>,
}

/// The kinds of faults of a name; none for a name that is unknown.
fn kinds_of(name: &str) -> Vec<Kind> {
    let all = Kind::ALL.into_iter().filter(|kind| *kind != Kind::None);
    let is_of_node = |kind: &Kind| (Kind::Kill..=Kind::NodeClock).contains(kind);
    let is_of_links = |kind: &Kind| *kind >= Kind::Delay;
    match name {
        "all" => all.collect(),
        "node" => all.filter(is_of_node).collect(),
        "links" => all.filter(is_of_links).collect(),
        "redis" => all
            .filter(|kind| !is_of_node(kind) && !is_of_links(kind))
            .collect(),
        _ => all.filter(|kind| kind.names().1 == name).collect(),
    }
}

fn known_faults(name: &str) -> Result<String, String> {
    if kinds_of(name).is_empty() {
        let names = Kind::ALL[1..].iter().map(|kind| kind.names().1);
        let names = ["all", "node", "redis", "links"].into_iter().chain(names);
        return Err(format!("one of {}", names.collect::<Vec<_>>().join(", ")));
    }
    Ok(name.to_owned())
}

impl Options {
    /// The kinds of faults that come in turn, as far as the topology can suffer them.
    fn kinds(&self) -> Vec<Kind> {
        let mut kinds: Vec<_> = self.faults.iter().flat_map(|name| kinds_of(name)).collect();
        kinds.retain(|kind| self.topology.suffers(*kind));
        kinds.sort_unstable();
        kinds.dedup();
        kinds
    }

    fn time(&self) -> Duration {
        Duration::from_secs(self.minutes.map_or(self.seconds, |minutes| 60 * minutes))
    }

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
