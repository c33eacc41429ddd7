//! `hubcast groups`: lists and changes the members of a group of a running gateway.

use std::time::Duration;

use clap::{ArgGroup, Args};
use reqwest::Method;
use serde_json::{Value, json};

use super::api::{self, Api, Request, printable};
use super::connections::{count_groups, parse_limit};
use super::gateway::{GatewayArgs, about_gateway};
use super::output::{self, print};
use super::{Failure, token::parse_lifetime};

/// Flags of `hubcast groups`. clap does not require a flag that is in conflict with a given one, so these conflicts are
/// said too.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
#[command(group = ArgGroup::new("place").args(["group", "all_groups"]))]
#[command(group = ArgGroup::new("member").args(["user", "connection"]))]
#[command(group = ArgGroup::new("change").args(["add", "remove"]))]
#[command(group = ArgGroup::new("view").args(["count", "limit", "after"]).multiple(true).conflicts_with("member"))]
pub(super) struct GroupsArgs {
    /// The group whose connections are listed, or that is changed
    #[arg(long, value_name = "GROUP")]
    group: Option<String>,
    /// Tell how many connections the group has, instead of listing them
    #[arg(long, requires = "group", conflicts_with_all = ["limit", "after"])]
    count: bool,
    /// Add the user or connection to the group
    #[arg(long, requires_all = ["group", "member"])]
    add: bool,
    /// Remove the user or connection from the group
    #[arg(long, requires_all = ["member", "place"])]
    remove: bool,
    /// With --remove: remove from every group
    #[arg(long, requires = "remove", conflicts_with = "add")]
    all_groups: bool,
    /// Tell whether this user is in the group, or add or remove it: with the connections that it has and will have
    #[arg(long, value_name = "ID", allow_hyphen_values = true, requires = "place")]
    user: Option<String>,
    /// The connection that is added or removed
    #[arg(long, value_name = "ID", allow_hyphen_values = true, requires_all = ["place", "change"])]
    connection: Option<String>,
    /// How long an added user stays in the group, such as 90s, 15m, 1h or 7d [default: until it is removed]
    #[arg(long, value_name = "TIME", requires_all = ["add", "user"], conflicts_with_all = ["remove", "connection"])]
    #[arg(value_parser = parse_lifetime)]
    ttl: Option<Duration>,
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
Without --group: how many groups the hub has. With --group alone: the connections in it.

Examples:
  hubcast groups --hub chat
  hubcast groups --hub chat --group tea
  hubcast groups --hub chat --group tea --count --json
  hubcast groups --hub chat --group tea --user ana
  hubcast groups --hub chat --group tea --add --user ana --ttl 1h
  hubcast groups --hub chat --group tea --remove --connection 4yJcZgx0
  hubcast groups --hub chat --all-groups --remove --user ana

",
    about_gateway!()
);

pub(super) fn run(args: &GroupsArgs) -> Result<(), Failure> {
    api::run(&args.gateway, async |api| {
        let group = args.group.as_deref();
        if let Some(member) = args.member() {
            return match (args.add || args.remove, group) {
                (true, _) => change(&api, args, &member).await,
                (false, Some(group)) => is_in(&api, args, member.id, group).await,
                (false, None) => Err(Failure::Usage("say which --group".to_owned())),
            };
        }
        match group {
            Some(group) if args.count => count(&api, args, group).await,
            Some(group) => {
                output::members(&api, &args.gateway, group, args.limit, args.after.as_deref()).await
            }
            None => {
                let groups = count_groups(&api).await?;
                let object = json!({ "hub": args.gateway.hub, "groups": groups });
                print(args.gateway.json, &object, &groups.to_string())
            }
        }
    })
}

/// The user or connection that is added, removed or looked for.
struct Member<'a> {
    kind: &'static str,
    resource: &'static str,
    id: &'a str,
}

impl GroupsArgs {
    fn member(&self) -> Option<Member<'_>> {
        let of = |kind, resource, id| Member { kind, resource, id };
        let user = self.user.as_deref().map(|id| of("user", "users", id));
        user.or_else(|| {
            let connection = self.connection.as_deref();
            connection.map(|id| of("connection", "connections", id))
        })
    }
}

async fn count(api: &Api, args: &GroupsArgs, group: &str) -> Result<(), Failure> {
    let connections = output::count(api, group).await?;
    let object = json!({ "hub": args.gateway.hub, "group": group, "connections": connections });
    print(args.gateway.json, &object, &connections.to_string())
}

async fn is_in(api: &Api, args: &GroupsArgs, user: &str, group: &str) -> Result<(), Failure> {
    let member = api.ask(&["users", user, "groups", group]).await?;
    let object = json!({ "hub": args.gateway.hub, "group": group, "user": user, "member": member });
    let not = if member { "" } else { "not " };
    print(
        args.gateway.json,
        &object,
        &printable(&format!("user {user} is {not}in group {group}")),
    )
}

async fn change(api: &Api, args: &GroupsArgs, member: &Member<'_>) -> Result<(), Failure> {
    let Member { kind, resource, id } = *member;
    let method = if args.add { Method::PUT } else { Method::DELETE };
    let path = match &args.group {
        Some(group) if kind == "user" => vec!["users", id, "groups", group],
        Some(group) => vec!["groups", group, "connections", id],
        None => vec![resource, id, "groups"],
    };
    let ttl = args.ttl.map(|ttl| ttl.as_secs());
    api.act(Request::new(method, &path).query("ttl", ttl)).await?;
    let done = if args.add { "added" } else { "removed" };
    let mut object = json!({ "hub": args.gateway.hub, "group": args.group, kind: id, done: true });
    if let Some(ttl) = ttl {
        object["ttlSeconds"] = Value::from(ttl);
    }
    let place = match &args.group {
        Some(group) => format!("group {group}"),
        None => "all groups".to_owned(),
    };
    let preposition = if args.add { "to" } else { "from" };
    let text = format!("{done} {kind} {id} {preposition} {place}");
    print(args.gateway.json, &object, &printable(&text))
}
