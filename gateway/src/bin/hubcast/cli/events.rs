//! `hubcast events`: prints the connection events of a hub of a running gateway.

use std::time::Duration;

use clap::Args;
use hubcast::hub::{ConnectionEvent, ConnectionEventPage};
use reqwest::Method;
use serde_json::Value;

use super::Failure;
use super::api::{self, Api, Request, printable};
use super::gateway::{GatewayArgs, about_gateway};
use super::output::print;

/// Events of one request.
const PAGE: usize = 500;
/// Seconds that the gateway waits for an event before it answers that there is none.
const WAIT: u64 = 20;
/// Tries in a row, a second apart, to reach a gateway that is away while its events are followed.
const TRIES: usize = 60;

/// Flags of `hubcast events`.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct EventsArgs {
    /// Go on with the events that come, until the command is interrupted
    #[arg(long)]
    follow: bool,
    /// Begin after this place, the first word of a line [default: the first event that is kept; with --follow the next
    /// one]
    #[arg(long, value_name = "PLACE")]
    after: Option<String>,
    #[command(flatten)]
    gateway: GatewayArgs,
}

pub(super) const EXAMPLES: &str = concat!(
    "\
Each connection that has entered, and each that has ended, is one event, whichever node it was on and however it ended. The hub
must have them switched on (hubs.events). A line has the place of the event, its time, `connected` or `disconnected`, the connection,
its user, and why it ended; with --json, an object with all of it. Go on after the last place that was handled to miss nothing.

Examples:
  hubcast events --hub chat
  hubcast events --hub chat --follow
  hubcast events --hub chat --follow --after 1764370000000-0 --json

",
    about_gateway!()
);

pub(super) fn run(args: &EventsArgs) -> Result<(), Failure> {
    api::run(&args.gateway, async |api| {
        let mut after = match (&args.after, args.follow) {
            (Some(after), _) => Some(after.clone()),
            (None, true) => None, // the first answer says where the end is
            (None, false) => Some("0".to_owned()),
        };
        let mut failures = 0;
        loop {
            let page = match read(&api, args, after.as_deref()).await {
                Ok(page) => page,
                Err(Failure::Runtime(text)) if args.follow && failures < TRIES && after.is_some() => {
                    failures += 1;
                    eprintln!("hubcast: {text}; trying again");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    continue;
                }
                Err(failure) => return Err(failure),
            };
            failures = 0;
            if page.trimmed {
                eprintln!("hubcast: events before these were dropped; the stream keeps no more of them");
            }
            for event in &page.events {
                show(args, event)?;
            }
            if page.events.is_empty() && !args.follow {
                return Ok(());
            }
            after = Some(page.next);
        }
    })
}

async fn read(api: &Api, args: &EventsArgs, after: Option<&str>) -> Result<ConnectionEventPage, Failure> {
    let request = Request::new(Method::GET, &[":events"])
        .query("after", after)
        .query("limit", Some(PAGE))
        .query("wait", args.follow.then_some(WAIT));
    api.read(request).await
}

fn show(args: &EventsArgs, event: &ConnectionEvent) -> Result<(), Failure> {
    let object: Value = serde_json::to_value(event).map_err(|error| Failure::Runtime(error.to_string()))?;
    let words = [
        Some(event.place.clone()),
        Some(event.time.to_string()),
        Some(event.kind.clone()),
        Some(event.connection_id.clone()),
        event
            .user_id
            .clone()
            .or_else(|| event.reason.is_some().then(|| "-".to_owned())),
        event.reason.clone(),
    ];
    let words: Vec<String> = words.into_iter().flatten().map(|word| printable(&word)).collect();
    print(args.gateway.json, &object, &words.join("  "))
}
