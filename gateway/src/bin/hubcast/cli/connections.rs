//! `hubcast connections`: lists the connections of a running gateway, and ends them.

use clap::{ArgGroup, Args};
use reqwest::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use super::Failure;
use super::api::{self, Api, Request, printable};
use super::gateway::{GatewayArgs, about_gateway};
use super::output::{self, print};

/// Flags of `hubcast connections`. clap does not require a flag that is in conflict with a given one, so these
/// conflicts are said too.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
#[command(group = ArgGroup::new("one").args(["user", "connection", "close"]))]
#[command(group = ArgGroup::new("page").args(["limit", "after"]).multiple(true).conflicts_with("one"))]
pub(super) struct ConnectionsArgs {
    /// List the connections of this group, instead of counting those of the hub
    #[arg(long, value_name = "GROUP", conflicts_with = "one")]
    group: Option<String>,
    /// Tell whether this user is connected
    #[arg(long, value_name = "ID", allow_hyphen_values = true)]
    user: Option<String>,
    /// Tell whether this connection is there
    #[arg(long, value_name = "ID", allow_hyphen_values = true)]
    connection: Option<String>,
    /// Close this connection
    #[arg(long, value_name = "ID", allow_hyphen_values = true)]
    close: Option<String>,
    /// The reason that closed clients are given
    #[arg(long, value_name = "TEXT", requires = "close", conflicts_with_all = ["group", "user", "connection"])]
    reason: Option<String>,
    /// Most connections that are listed
    #[arg(long, value_name = "N", default_value = "100", requires = "group", value_parser = parse_limit)]
    limit: usize,
    /// List the connections after this one, the last of the previous page
    #[arg(long, value_name = "ID", allow_hyphen_values = true, requires = "group")]
    after: Option<String>,
    #[command(flatten)]
    gateway: GatewayArgs,
}

pub(super) const EXAMPLES: &str = concat!(
    "\
Without --group, --user, --connection or --close: how many connections and groups the hub has, and on which nodes.

Examples:
  hubcast connections --hub chat
  hubcast connections --hub chat --group tea --limit 1000
  hubcast connections --hub chat --group tea --after 4yJcZgx0 --json
  hubcast connections --hub chat --user ana
  hubcast connections --hub chat --close 4yJcZgx0 --reason 'be polite'

",
    about_gateway!()
);

pub(super) fn parse_limit(text: &str) -> Result<usize, String> {
    let limit = text.parse().ok().filter(|limit| *limit > 0);
    limit.ok_or_else(|| "write a whole number from 1".to_owned())
}

pub(super) fn run(args: &ConnectionsArgs) -> Result<(), Failure> {
    api::run(&args.gateway, async |api| {
        match (&args.group, &args.user, &args.connection, &args.close) {
            (Some(group), ..) => {
                output::members(&api, &args.gateway, group, args.limit, args.after.as_deref()).await
            }
            (_, Some(user), ..) => is_there(&api, args, "user", &["users", user], user).await,
            (_, _, Some(id), _) => is_there(&api, args, "connection", &["connections", id], id).await,
            (.., Some(id)) => close(&api, args, id).await,
            _ => statistics(&api, &args.gateway).await,
        }
    })
}

async fn is_there(
    api: &Api,
    args: &ConnectionsArgs,
    kind: &str,
    path: &[&str],
    id: &str,
) -> Result<(), Failure> {
    let there = api.ask(path).await?;
    let object = json!({ "hub": args.gateway.hub, kind: id, "connected": there });
    let not = if there { "" } else { "not " };
    let text = format!("{kind} {} is {not}connected", printable(id));
    print(args.gateway.json, &object, &text)
}

/// Closes a connection, and prints whether there was one: closing none is no failure.
async fn close(api: &Api, args: &ConnectionsArgs, id: &str) -> Result<(), Failure> {
    let path = ["connections", id];
    let there = api.ask(&path).await?;
    let request = Request::new(Method::DELETE, &path).query("reason", args.reason.as_deref());
    api.act(request).await?;
    let object = json!({ "hub": args.gateway.hub, "connection": id, "existed": there, "closed": true });
    let id = printable(id);
    let text = if there {
        format!("connection {id} is closed")
    } else {
        format!("there is no connection {id}; nothing was closed")
    };
    print(args.gateway.json, &object, &text)
}

/// The part of the statistics that is printed for people.
#[derive(Deserialize)]
struct Statistics {
    connections: u64,
    parked: u64,
    groups: u64,
    nodes: Vec<Node>,
}

#[derive(Deserialize)]
struct Node {
    node: String,
    connections: u64,
}

async fn statistics(api: &Api, args: &GatewayArgs) -> Result<(), Failure> {
    let object: Value = api.read(Request::new(Method::GET, &[":statistics"])).await?;
    let known = Statistics::deserialize(&object)
        .map_err(|error| Failure::Runtime(format!("the gateway's statistics can't be read: {error}")))?;
    let mut text = format!(
        "connections  {}\nparked       {}\ngroups       {}\n",
        known.connections, known.parked, known.groups
    );
    for node in &known.nodes {
        text.push_str(&format!("node {}  {}\n", printable(&node.node), node.connections));
    }
    print(args.json, &object, &text)
}

/// How many groups the hub has.
pub(super) async fn count_groups(api: &Api) -> Result<u64, Failure> {
    let known: Statistics = api.read(Request::new(Method::GET, &[":statistics"])).await?;
    Ok(known.groups)
}
