//! The demo hub, written with the public library alone.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::stream::{self, Stream, StreamExt};
use hubcast::hub::Upload;
use hubcast::protocol::Value;
use hubcast::{Context, Hub, HubError};
use serde::Serialize;
use tokio::time::sleep;

/// Whatever a client answers, passed on.
type ClientAnswer = serde_json::Value;

/// Longest wait between two items of a counter.
const MAX_DELAY: Duration = Duration::from_secs(60);

/// The hub behind the demo page.
pub(crate) fn hub() -> Hub {
    Hub::new("demo")
        .method("Echo", echo)
        .method("SendMessage", send_message)
        .method("JoinGroup", join_group)
        .method("LeaveGroup", leave_group)
        .method("SendToGroup", send_to_group)
        .method("SendToOthersInGroup", send_to_others_in_group)
        .method("SendToUser", send_to_user)
        .method("SendToConnection", send_to_connection)
        .stream("Counter", counter)
        .method("Sum", sum)
        .stream("Scale", scale)
        .method("AskCaller", ask_caller)
        .method("AskConnection", ask_connection)
        .method("Throw", throw)
        .method("WhoAmI", who_am_i)
        .method("Abort", abort)
}

async fn echo(value: Value) -> Value {
    value
}

async fn send_message(context: Context, user: String, text: String) -> Result<(), HubError> {
    Ok(context
        .clients()
        .all()
        .send("ReceiveMessage", (user, text))
        .await?)
}

async fn join_group(context: Context, group: String) -> Result<(), HubError> {
    Ok(context.join(group).await?)
}

async fn leave_group(context: Context, group: String) -> Result<(), HubError> {
    Ok(context.leave(group).await?)
}

async fn send_to_group(context: Context, group: String, text: String) -> Result<(), HubError> {
    Ok(context
        .clients()
        .group(&group)
        .send("GroupMessage", (&group, text))
        .await?)
}

async fn send_to_others_in_group(context: Context, group: String, text: String) -> Result<(), HubError> {
    Ok(context
        .clients()
        .others_in_group(&group)
        .send("GroupMessage", (&group, text))
        .await?)
}

async fn send_to_user(context: Context, user: String, text: String) -> Result<(), HubError> {
    Ok(context.clients().user(user).send("UserMessage", (text,)).await?)
}

async fn send_to_connection(context: Context, connection: String, text: String) -> Result<(), HubError> {
    Ok(context
        .clients()
        .client(connection)
        .send("DirectMessage", (text,))
        .await?)
}

async fn counter(count: u32, delay_ms: u64) -> impl Stream<Item = u32> {
    let delay = Duration::from_millis(delay_ms).min(MAX_DELAY);
    stream::unfold(0, move |next| async move {
        if next >= count {
            return None;
        }
        if next > 0 && !delay.is_zero() {
            sleep(delay).await;
        }
        Some((next, next.saturating_add(1)))
    })
}

async fn sum(mut numbers: Upload<f64>) -> Result<f64, HubError> {
    let mut sum = 0.0;
    while let Some(number) = numbers.next().await {
        sum += number?;
    }
    Ok(sum)
}

async fn scale(numbers: Upload<f64>, factor: f64) -> impl Stream<Item = Result<f64, HubError>> {
    numbers.map(move |number| Ok(number? * factor))
}

async fn ask_caller(context: Context) -> Result<ClientAnswer, HubError> {
    Ok(context.clients().caller().invoke("GetAnswer", ()).await?)
}

async fn ask_connection(context: Context, connection: String) -> Result<ClientAnswer, HubError> {
    Ok(context
        .clients()
        .client(connection)
        .invoke("GetAnswer", ())
        .await?)
}

async fn throw(text: String) -> Result<(), HubError> {
    Err(HubError::new(text))
}

async fn abort(context: Context) {
    context.abort();
}

/// The node's data about its caller.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct WhoAmI {
    connection_id: String,
    user_id: Option<String>,
    transport: Option<&'static str>,
    protocol: Option<&'static str>,
    node: String,
    headers: BTreeMap<String, String>,
    query: BTreeMap<String, String>,
}

async fn who_am_i(context: Context) -> WhoAmI {
    let connection = context.connection();
    let owned = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
    WhoAmI {
        connection_id: connection.id().to_string(),
        user_id: connection.user().map(ToString::to_string),
        transport: connection.transport().map(|transport| transport.name()),
        protocol: connection.protocol().map(|protocol| protocol.name()),
        node: context.node().to_owned(),
        headers: connection.headers().map(owned).collect(),
        query: connection.query_pairs().map(owned).collect(),
    }
}
