//! The hubs and routes that the tests of ASP.NET Core's TypeScript client expect, by the same names and with the same errors.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Query, Request, State};
use axum::http::{HeaderValue, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{get, post};
use futures_util::stream::{self, Stream, TryStreamExt};
use hubcast::hub::{HubHandle, Upload};
use hubcast::protocol::Transport;
use hubcast::protocol::{Binary, Timestamp, Value};
use hubcast::{Context, Error, Gateway, Hub, HubError};
use serde::{Deserialize, Serialize};
use serde_json::json;

/// The paths there, and the hubs here.
const PATHS: [(&str, &str); 4] = [
    ("/testhub", "aspnet-testhub"),
    ("/testhub-nowebsockets", "aspnet-testhub-nowebsockets"),
    ("/authorizedhub", "aspnet-authorizedhub"),
    ("/uncreatable", "aspnet-uncreatable"),
];

/// Clients are told the name of an error's type and its text.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct InvalidOperationException(String);

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ComplexObject {
    byte_array: Binary,
    date_time: Timestamp,
    guid: String,
    int_array: Vec<i32>,
    string: String,
}

async fn send_complex_object() -> Result<ComplexObject, HubError> {
    Ok(ComplexObject {
        byte_array: Binary(vec![1, 2, 3]),
        date_time: "2000-01-01T00:00:00Z".parse()?,
        guid: "00010203-0405-0607-0706-050403020100".to_owned(),
        int_array: vec![1, 2, 3],
        string: "hello world".to_owned(),
    })
}

async fn throw_exception(message: String) -> Result<(), HubError> {
    Err(InvalidOperationException(message))?
}

async fn stream_throw_exception(message: String) -> Result<stream::Empty<String>, HubError> {
    Err(InvalidOperationException(message))?
}

/// Gives nothing, and tells its client when it is cancelled.
async fn infinite_stream(context: Context) -> impl Stream<Item = String> {
    tokio::spawn(async move {
        context.cancelled().cancelled().await;
        // A client that has left needs no word.
        let _ = context.clients().caller().send("StreamCanceled", ()).await;
    });
    stream::pending()
}

async fn streaming_concat(stream: Upload<String>) -> Result<String, HubError> {
    Ok(stream.try_collect::<Vec<_>>().await?.concat())
}

fn test_hub(name: &str) -> Hub {
    Hub::new(name)
        .configure(|settings| settings.hubs.detailed_errors = true)
        .method("Echo", async |message: String| message)
        .method("GetCallerConnectionId", async |context: Context| {
            context.connection_id().to_string()
        })
        .method("GetNumRedirects", async |context: Context| {
            let redirects = context.connection().query("numRedirects");
            redirects.and_then(|text| text.parse::<u64>().ok())
        })
        .method("ThrowException", throw_exception)
        .method("InvokeWithString", async |context: Context, message: String| {
            context.clients().caller().send("Message", (message,)).await
        })
        .method("SendCustomObject", async |context: Context, object: Value| {
            let caller = context.clients().caller();
            caller.send_values("CustomObject", vec![object]).await
        })
        .stream("Stream", async || stream::iter(["a", "b", "c"]))
        .stream("InfiniteStream", infinite_stream)
        .method("StreamingConcat", streaming_concat)
        .stream("EmptyStream", async || stream::empty::<i32>())
        .stream("StreamThrowException", stream_throw_exception)
        .method("GetActiveTransportName", async |context: Context| {
            context.connection().transport().map(Transport::name)
        })
        .method("EchoComplexObject", async |object: ComplexObject| object)
        .method("SendComplexObject", send_complex_object)
        .method("GetContentTypeHeader", async |context: Context| {
            context.connection().header("content-type").map(str::to_owned)
        })
        .method("GetHeader", async |context: Context, name: String| {
            context.connection().header(&name).map(str::to_owned)
        })
        .method("GetCookie", async |context: Context, name: String| {
            context.connection().cookie(&name).map(str::to_owned)
        })
}

/// The hubs of [`PATHS`].
pub(crate) fn hubs() -> [Hub; 4] {
    let [(_, all), (_, no_web_sockets), (_, authorized), (_, uncreatable)] = PATHS;
    [
        test_hub(all),
        test_hub(no_web_sockets).configure(|settings| {
            settings.hubs.transports = vec![Transport::ServerSentEvents, Transport::LongPolling];
        }),
        Hub::new(authorized)
            .admit(|identity| !identity.is_anonymous())
            .method("Echo", async |message: String| message),
        Hub::new(uncreatable)
            .configure(|settings| settings.hubs.detailed_errors = true)
            .on_connected(async || {
                Err::<(), _>(HubError::from(InvalidOperationException(
                    "Unable to resolve service for type 'System.Object' while attempting to activate \
                     'FunctionalTests.UncreatableHub'."
                        .to_owned(),
                )))
            }),
    ]
}

/// Routes besides hubs that the tests ask for.
pub(crate) fn routes(gateway: &Gateway) -> Result<Router, Error> {
    let [(_, test_hub), ..] = PATHS;
    Ok(Router::new()
        .route("/redirect/negotiate", post(redirect))
        .route("/bad-negotiate/negotiate", post(bad_negotiate))
        .route("/clientresult/{id}", get(client_result))
        .with_state(gateway.hub(test_hub)?))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Redirect {
    base_url: String,
}

/// Sends the client to the hub, with a number that grows, on all nodes of this machine.
async fn redirect(Query(query): Query<Redirect>) -> impl IntoResponse {
    static LAST: AtomicU64 = AtomicU64::new(0);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
    let number = LAST.fetch_max(now, Ordering::Relaxed).saturating_add(1).max(now);
    Json(json!({ "url": format!("{}/testHub?numRedirects={number}", query.base_url) }))
}

async fn bad_negotiate() -> (StatusCode, &'static str) {
    (StatusCode::BAD_REQUEST, "Some response from server")
}

/// Asks a client for a number.
async fn client_result(State(hub): State<HubHandle>, Path(id): Path<String>) -> String {
    match hub.clients().client(&id).invoke::<i32>("Result", ()).await {
        Ok(number) => number.to_string(),
        Err(error) => error.to_string(),
    }
}

/// Serves the paths of the original from the hubs here, with its cookies, and its 401 without words.
pub(crate) async fn as_there(mut request: Request, next: Next) -> Response {
    let path = request.uri().path();
    let negotiates = path.ends_with("/negotiate");
    let (first, rest) = match path.get(1..).and_then(|tail| tail.find('/')) {
        Some(end) => path.split_at(end + 1),
        None => (path, ""),
    };
    let known = PATHS.iter().find(|(there, _)| there.eq_ignore_ascii_case(first));
    if let Some((_, hub)) = known {
        let query = request
            .uri()
            .query()
            .map(|query| format!("?{query}"))
            .unwrap_or_default();
        if let Ok(uri) = format!("/hubs/{hub}{rest}{query}").parse::<Uri>() {
            *request.uri_mut() = uri;
        }
    }
    let mut response = next.run(request).await;
    if negotiates && known.is_some() {
        for cookie in [
            "testCookie=testValue; Path=/",
            "testCookie2=testValue2; Path=/",
            "expiredCookie=doesntmatter; Path=/; Expires=Thu, 01 Jan 1970 00:00:00 GMT",
        ] {
            let cookie = HeaderValue::from_static(cookie);
            response.headers_mut().append(header::SET_COOKIE, cookie);
        }
    }
    if response.status() == StatusCode::UNAUTHORIZED && known.is_some() {
        *response.body_mut() = Body::empty();
        response.headers_mut().remove(header::CONTENT_LENGTH);
        response.headers_mut().remove(header::CONTENT_TYPE);
    }
    response
}
