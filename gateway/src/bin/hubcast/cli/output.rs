//! The output of commands: lines for people, or one JSON object for scripts.

use std::io::{self, Write};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::api::{Api, Request, printable};
use super::{Failure, gateway::GatewayArgs};

/// Prints the object or the text, as the command line says.
pub(super) fn print(json: bool, object: &Value, text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    if json {
        writeln!(stdout, "{object}")?;
    } else {
        writeln!(stdout, "{}", text.trim_end())?;
    }
    Ok(())
}

/// A connection in a list.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Member {
    connection_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_id: Option<String>,
}

/// A page of a list.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ConnectionPage {
    value: Vec<Member>,
    next_link: Option<String>,
}

/// Most connections that a gateway lists at once.
const MAX_PAGE: usize = 200;

/// Prints connections of a group: at most `limit`, those after `after`.
pub(super) async fn members(
    api: &Api,
    args: &GatewayArgs,
    group: &str,
    limit: usize,
    after: Option<&str>,
) -> Result<(), Failure> {
    let mut members = Vec::new();
    let mut next = after.map(str::to_owned);
    loop {
        let page = page(api, group, (limit - members.len()).min(MAX_PAGE), next).await?;
        members.extend(page.value);
        next = page.next_link.as_deref().and_then(continuation);
        if next.is_none() || members.len() >= limit {
            break;
        }
    }
    let object = serde_json::json!({
        "hub": args.hub, "group": group, "connections": members, "next": next,
    });
    let mut text = String::new();
    for member in &members {
        let user = member.user_id.as_deref().unwrap_or_default();
        text.push_str(&format!(
            "{}  {}\n",
            printable(&member.connection_id),
            printable(user)
        ));
    }
    if members.is_empty() {
        text.push_str("no connections\n");
    }
    if let Some(next) = &next {
        text.push_str(&format!("more: --after {}\n", printable(next)));
    }
    print(args.json, &object, &text)
}

/// Counts the connections of a group, page by page.
pub(super) async fn count(api: &Api, group: &str) -> Result<usize, Failure> {
    let (mut count, mut next) = (0, None);
    loop {
        let page = page(api, group, MAX_PAGE, next).await?;
        count += page.value.len();
        next = page.next_link.as_deref().and_then(continuation);
        if next.is_none() {
            return Ok(count);
        }
    }
}

async fn page(api: &Api, group: &str, size: usize, after: Option<String>) -> Result<ConnectionPage, Failure> {
    let path = ["groups", group, "connections"];
    let request = Request::new(reqwest::Method::GET, &path)
        .query("maxpagesize", Some(size))
        .query("continuationToken", after);
    api.read(request).await
}

/// The beginning of the next page. Its URL is the gateway's, as this client reached it, so it isn't followed.
fn continuation(link: &str) -> Option<String> {
    let url: reqwest::Url = link.parse().ok()?;
    let mut pairs = url.query_pairs();
    let token = pairs.find(|(name, _)| name == "continuationToken");
    token.map(|(_, value)| value.into_owned())
}
