//! The hubs: methods that do one thing each, well or badly.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::stream::{self, Stream, StreamExt, TryStreamExt};
use hubcast::auth::Identity;
use hubcast::hub::{State, Upload, UploadError};
use hubcast::protocol::{Binary, Encoding, Value};
use hubcast::{Context, Hub, HubError};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::time::sleep;

/// Any JSON, which hub code need not know.
type Json = serde_json::Value;

/// Several types in one value.
#[derive(Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ComplexObject {
    text: String,
    integer: i64,
    float: f64,
    flag: bool,
    bytes: Binary,
    date: String,
    missing: Option<String>,
    list: Vec<ComplexObject>,
}

fn sample() -> ComplexObject {
    ComplexObject {
        text: "Grüße, 世界 🙂".to_owned(),
        integer: 9_007_199_254_740_991, // the largest that JavaScript tells apart
        bytes: Binary((0..=255).collect()),
        date: "2026-01-02T03:04:05.678Z".to_owned(),
        list: vec![ComplexObject::default()],
        ..ComplexObject::default()
    }
}

/// Counts of earlier calls, for tests to read.
#[derive(Default)]
struct Seen {
    cancelled: AtomicUsize,
    endless_streams: AtomicUsize,
    lost_upload: Mutex<Option<UploadReport>>,
}

fn values(hub: Hub) -> Hub {
    // Passed on as it was written: MessagePack timestamps and other extensions stay unchanged.
    hub.method("Echo", async |value: Value| value)
        .method("EchoString", async |text: String| text)
        .method("EchoInteger", async |number: i64| number)
        .method("EchoUnsigned", async |number: u64| number)
        .method("EchoFloat", async |number: f64| number)
        .method("EchoBoolean", async |flag: bool| flag)
        .method("EchoBinary", async |bytes: Binary| bytes)
        // A MessagePack timestamp becomes RFC 3339 text; a client's text stays text.
        .method("EchoDate", async |date: Value| date.transcode(Encoding::Json))
        .method("EchoComplexObject", async |object: ComplexObject| object)
        .method("SendComplexObject", async || sample())
        .method("EchoTwo", echo_two)
        .method("Nothing", async || ())
        .method("Wait", wait)
}

async fn echo_two(first: Value, second: Value) -> Result<Value, HubError> {
    let encoding = first.encoding();
    Ok(Value::array(&[first, second], encoding)?)
}

async fn wait(ms: u64) {
    sleep(Duration::from_millis(ms.min(60_000))).await;
}

async fn throw_exception(message: String) -> Result<(), HubError> {
    Err(HubError::new(message))
}

async fn throw_hidden(message: String) -> Result<(), HubError> {
    Err(std::io::Error::other(message))?
}

#[expect(clippy::panic, reason = "clients must survive it")]
async fn panics(message: String) {
    panic!("{message}");
}

async fn stream_throw_exception(message: String) -> impl Stream<Item = Result<&'static str, HubError>> {
    stream::iter([Ok("a"), Ok("b"), Err(HubError::new(message))])
}

async fn count(to: u64, delay_ms: u64) -> impl Stream<Item = u64> {
    stream::iter(0..to).then(move |number| async move {
        wait(delay_ms).await;
        number
    })
}

/// One of the endless streams that run, until it is dropped.
struct Running(State<Seen>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.endless_streams.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn infinite_stream(seen: State<Seen>) -> impl Stream<Item = u64> {
    seen.endless_streams.fetch_add(1, Ordering::Relaxed);
    stream::unfold((Running(seen), 0), |(running, number)| async move {
        sleep(Duration::from_millis(20)).await;
        Some((number, (running, number + 1)))
    })
}

/// Ends when its client cancels it, or leaves.
async fn wait_for_cancel(context: Context, seen: State<Seen>) -> Result<(), HubError> {
    context.cancelled().cancelled().await;
    seen.cancelled.fetch_add(1, Ordering::Relaxed);
    Err(HubError::new("cancelled"))
}

#[derive(Clone, Serialize)]
struct UploadReport {
    items: Vec<String>,
    /// `completed`, `failed: ` and the client's text, `mistyped`, or `lost` with its connection.
    ended: String,
}

async fn upload_report(seen: State<Seen>, mut source: Upload<String>) -> UploadReport {
    let (mut items, mut ended) = (Vec::new(), "completed".to_owned());
    while let Some(item) = source.next().await {
        match item {
            Ok(item) => items.push(item),
            Err(UploadError::Client(text)) => ended = format!("failed: {text}"),
            Err(UploadError::Item(_)) => ended = "mistyped".to_owned(),
            Err(_) => ended = "lost".to_owned(),
        }
    }
    let report = UploadReport { items, ended };
    if report.ended == "lost" {
        *seen.lost_upload.lock() = Some(report.clone()); // the answer reaches no client
    }
    report
}

async fn uploading_stream(source: Upload<String>) -> Result<String, HubError> {
    Ok(source.try_collect::<Vec<_>>().await?.concat())
}

/// Answers after the first item; later items are ignored.
async fn first_of(mut source: Upload<Json>) -> Result<Json, HubError> {
    Ok(source.next().await.transpose()?.unwrap_or(Json::Null))
}

fn reads_connection(hub: Hub) -> Hub {
    hub.method("GetCallerConnectionId", async |context: Context| {
        context.connection_id().to_string()
    })
    .method("GetUser", async |context: Context| {
        context.user().map(ToString::to_string)
    })
    .method("GetRoles", async |context: Context| {
        let identity = context.connection().identity();
        identity.roles().map(str::to_owned).collect::<Vec<_>>()
    })
    .method("GetActiveTransportName", async |context: Context| {
        context.connection().transport().map(|transport| transport.name())
    })
    .method("GetProtocolName", async |context: Context| {
        context.connection().protocol().map(|protocol| protocol.name())
    })
    .method("GetHeader", async |context: Context, name: String| {
        context.connection().header(&name).map(str::to_owned)
    })
    .method("GetQuery", async |context: Context, name: String| {
        context.connection().query(&name).map(str::to_owned)
    })
    .method("GetCookie", async |context: Context, name: String| {
        context.connection().cookie(&name).map(str::to_owned)
    })
    .method("Abort", async |context: Context| context.abort())
}

/// Requests a client result from the connection `id`, or the caller. The client's error, or none, is the error of the
/// call.
async fn ask(context: Context, id: Option<String>, patience_ms: u64) -> Result<Json, HubError> {
    let client = match id {
        Some(id) => context.clients().client(id),
        None => context.clients().caller(),
    };
    let patience = Duration::from_millis(patience_ms.min(60_000));
    let client = client.patience(patience);
    Ok(client.invoke("GetAnswer", ("question",)).await?)
}

/// `whom` is `all`, `others`, `group`, `othersInGroup`, `user` or `connection`; `name` says which.
async fn send_to(context: Context, whom: String, name: String, value: Value) -> Result<(), HubError> {
    let clients = context.clients();
    let chosen = match whom.as_str() {
        "all" => clients.all(),
        "others" => clients.others(),
        "group" => clients.group(&name),
        "othersInGroup" => clients.others_in_group(&name),
        "user" => clients.user(&name),
        "connection" => clients.clients([&name]),
        _ => return Err(HubError::new("send to whom?")),
    };
    Ok(chosen.send_values("Received", vec![value]).await?)
}

fn is_admin(identity: &Identity) -> bool {
    identity.has_role("admin")
}

/// The hub with all methods for clients.
pub(crate) fn test_hub() -> Hub {
    everything(Hub::new("testhub"))
}

/// As [`test_hub`], where several invocations of a client run at the same time: so it can cancel them.
pub(crate) fn parallel_hub() -> Hub {
    everything(Hub::new("parallelhub")).configure(|settings| settings.hubs.parallel_invocations = 4)
}

/// A hub for clients whose token has the role `admin`.
pub(crate) fn authorized_hub() -> Hub {
    reads_connection(values(Hub::new("authorizedhub"))).admit(is_admin)
}

/// A hub that accepts no client: its hook for new clients fails.
pub(crate) fn uncreatable_hub() -> Hub {
    values(Hub::new("uncreatable")).on_connected(async || Err::<(), _>(HubError::new("nobody may connect")))
}

fn everything(hub: Hub) -> Hub {
    reads_connection(values(hub))
        .state(Seen::default())
        .method("InvokeWithString", async |context: Context, text: String| {
            context.clients().caller().send("Message", (text,)).await
        })
        // The messages of plain WebSockets come here.
        .method("Message", async |frame: Value| frame)
        .method("ThrowException", throw_exception)
        .method("ThrowHidden", throw_hidden)
        .method("Panic", panics)
        .stream("Stream", async || stream::iter(["a", "b", "c"]))
        .stream("EmptyStream", async || stream::empty::<u32>())
        .stream("StreamThrowException", stream_throw_exception)
        .stream("Count", count)
        .stream("InfiniteStream", infinite_stream)
        .method("GetInfiniteStreams", async |seen: State<Seen>| {
            seen.endless_streams.load(Ordering::Relaxed)
        })
        .stream("StreamEcho", async |items: Upload<Json>| items.into_values())
        .method("UploadingStream", uploading_stream)
        .method("UploadReport", upload_report)
        .method("GetLostUpload", async |seen: State<Seen>| {
            seen.lost_upload.lock().clone()
        })
        .method("FirstOf", first_of)
        .method("Ask", ask)
        .method("JoinGroup", async |context: Context, group: String| {
            context.join(group).await
        })
        .method("LeaveGroup", async |context: Context, group: String| {
            context.leave(group).await
        })
        .method("SendTo", send_to)
        .method("WaitForCancel", wait_for_cancel)
        .method("GetCancelled", async |seen: State<Seen>| {
            seen.cancelled.load(Ordering::Relaxed)
        })
        .method("OnlyAdmins", async || "you are one")
        .restrict("OnlyAdmins", is_admin)
}
