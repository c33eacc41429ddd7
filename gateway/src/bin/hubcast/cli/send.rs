//! `hubcast send`: sends a message to clients of a running gateway.

use clap::Args;
use reqwest::Method;
use serde_json::{json, value::RawValue};

use super::Failure;
use super::api::{self, Request, printable};
use super::gateway::{GatewayArgs, about_gateway};
use super::output::print;

/// Flags of `hubcast send`.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct SendArgs {
    /// The name of the clients' method: the one that they gave to `on`
    #[arg(value_name = "TARGET")]
    target: String,
    /// The arguments, each in JSON: '"a text"', 3, true, '{"a":1}'
    #[arg(value_name = "JSON", value_parser = parse_json, allow_negative_numbers = true)]
    arguments: Vec<Box<RawValue>>,
    /// To the connections of this group, not to all
    #[arg(long, value_name = "GROUP", conflicts_with_all = ["user", "connection"])]
    group: Option<String>,
    /// To the connections of this user, not to all
    #[arg(
        long,
        value_name = "ID",
        allow_hyphen_values = true,
        conflicts_with = "connection"
    )]
    user: Option<String>,
    /// To this connection, not to all
    #[arg(long, value_name = "ID", allow_hyphen_values = true)]
    connection: Option<String>,
    /// But not to this connection; may be repeated
    #[arg(long, value_name = "ID", allow_hyphen_values = true)]
    except: Vec<String>,
    /// A name for this message: sent again under it, it reaches the clients only once
    #[arg(long, value_name = "KEY", value_parser = parse_key)]
    idempotency_key: Option<String>,
    #[command(flatten)]
    gateway: GatewayArgs,
}

pub(super) const EXAMPLES: &str = concat!(
    r#"Examples:
  hubcast send --hub chat Announce '"closing at six"'
  hubcast send --hub chat --group tea GroupMessage '"tea"' '"ready!"' --except 4yJcZgx0
  hubcast send --hub orders --user ana Changed '{"order":7,"state":"paid"}' --idempotency-key order-7-paid
  HUBCAST_URL=https://live.example.org hubcast send --hub chat --connection 4yJcZgx0 Ping --json

"#,
    about_gateway!()
);

/// The value stays as it was written: no digit of a number is lost.
fn parse_json(text: &str) -> Result<Box<RawValue>, String> {
    serde_json::from_str(text)
        .map_err(|error| format!("it is not JSON ({error}); a text needs quotes of its own: '\"a text\"'"))
}

fn parse_key(text: &str) -> Result<String, String> {
    if (1..=255).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic()) {
        Ok(text.to_owned())
    } else {
        Err("it must be 1 to 255 visible ASCII characters".to_owned())
    }
}

pub(super) fn run(args: &SendArgs) -> Result<(), Failure> {
    let (path, to, whom) = match (&args.group, &args.user, &args.connection) {
        (Some(name), ..) => (
            vec!["groups", name, ":send"],
            json!({ "group": name }),
            format!("group {name}"),
        ),
        (_, Some(id), _) => (
            vec!["users", id, ":send"],
            json!({ "user": id }),
            format!("user {id}"),
        ),
        (.., Some(id)) => (
            vec!["connections", id, ":send"],
            json!({ "connection": id }),
            format!("connection {id}"),
        ),
        _ => (vec![":send"], json!("all"), "all".to_owned()),
    };
    let target = serde_json::Value::from(args.target.as_str());
    let arguments: Vec<&str> = args.arguments.iter().map(|value| value.get()).collect();
    let request = Request {
        query: args.except.iter().map(|id| ("excluded", id.clone())).collect(),
        body: Some(format!(
            "{{\"target\":{target},\"arguments\":[{}]}}",
            arguments.join(",")
        )),
        idempotency_key: args.idempotency_key.as_deref(),
        ..Request::new(Method::POST, &path)
    };
    api::run(&args.gateway, async |api| api.act(request).await)?;
    let object = json!({
        "hub": args.gateway.hub, "to": to, "target": target, "excluded": args.except,
        "idempotencyKey": args.idempotency_key, "sent": true,
    });
    let text = format!("sent {} to {} of hub {}", args.target, whom, args.gateway.hub);
    print(args.gateway.json, &object, &printable(&text))
}
