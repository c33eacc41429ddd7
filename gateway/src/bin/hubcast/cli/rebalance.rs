//! `hubcast rebalance`: has nodes with many connections let some go.

use std::time::Duration;

use clap::Args;
use reqwest::Method;
use serde::Deserialize;
use serde_json::Value;

use super::api::{self, Request, printable};
use super::gateway::{GatewayArgs, about_gateway};
use super::output::print;
use super::{Failure, token::parse_lifetime};

/// Flags of `hubcast rebalance`.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct RebalanceArgs {
    /// How long a connection must have been on its node before it may leave it, such as 90s, 15m or 1h
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = parse_lifetime)]
    settled: Duration,
    #[command(flatten)]
    gateway: GatewayArgs,
}

pub(super) const EXAMPLES: &str = concat!(
    "\
Nodes that have more connections of the hub than the mean, by a tenth and by 20, let those above the mean go: in no order, at the
rate that nodes leave with (drain.rate_per_second). Clients with stateful reconnect go on where they come, others are told that they
may reconnect. Clients come back wherever the load balancer sends them: with one that looks at connections (leastconn) once is
enough, with plain round robin each time makes the difference smaller. Returns as soon as it has begun; nothing leaves twice
within --settled, and a node that still lets connections go is left alone.

Examples:
  hubcast rebalance --hub chat
  hubcast rebalance --hub chat --settled 30m --json

",
    about_gateway!()
);

#[derive(Deserialize)]
struct RebalanceAnswer {
    connections: u64,
    mean: u64,
    nodes: Vec<NodeShare>,
}

#[derive(Deserialize)]
struct NodeShare {
    node: String,
    connections: u64,
    leaving: u64,
}

pub(super) fn run(args: &RebalanceArgs) -> Result<(), Failure> {
    api::run(&args.gateway, async |api| {
        let settled = Some(args.settled.as_secs());
        let request = Request::new(Method::POST, &[":rebalance"]).query("settled", settled);
        let object: Value = api.read(request).await?;
        let reported = RebalanceAnswer::deserialize(&object)
            .map_err(|error| Failure::Runtime(format!("the gateway's answer can't be read: {error}")))?;
        let mut text = format!(
            "connections  {}\nmean         {}\n",
            reported.connections, reported.mean
        );
        for node in &reported.nodes {
            let name = printable(&node.node);
            text.push_str(&format!(
                "node {name}  {}  {} leave\n",
                node.connections, node.leaving
            ));
        }
        if reported.nodes.iter().all(|node| node.leaving == 0) {
            text.push_str("no node has so many more than the others that connections should leave\n");
        }
        print(args.gateway.json, &object, &text)
    })
}
