//! The gateway's examples as they are: each is started, does its work, and ends by a signal.

use std::sync::Arc;

use hubcast_tests::application::Application;
use hubcast_tests::event_source::EventSource;
use hubcast_tests::eventually::within;
use hubcast_tests::http::{Request, fetch};
use hubcast_tests::hub_client::{HubClient, Transport};
use serde_json::{Value, json};

/// A client of a hub of an example.
async fn connect(application: &Application, hub: &str) -> HubClient {
    HubClient::connect(&Arc::new(application.entry(hub)), Transport::WebSockets).await
}

/// The first items of a stream.
async fn items(client: &mut HubClient, method: &str, arguments: Value, count: usize) -> Vec<Value> {
    let call = json!({ "type": 4, "invocationId": "s", "target": method, "arguments": arguments });
    client.say(&call).await;
    let mut items = Vec::new();
    while items.len() < count {
        let message = client.next().await.expect("the stream goes on");
        assert_eq!(message["type"], 2, "{message}");
        items.push(message["item"].clone());
    }
    items
}

/// The application has a page, which is sent the official client with it.
async fn has_a_page(application: &Application) {
    let page = fetch(application.address(), &Request::get("/")).await;
    assert_eq!(page.status(), 200);
    assert!(page.text().starts_with("<!doctype html>"), "{}", page.text());
    if page.text().contains("signalr.js") {
        let script = fetch(application.address(), &Request::get("/signalr.js")).await;
        assert_eq!(script.status(), 200);
    }
}

/// Ends as under systemd, Docker or Kubernetes: the client, if there is one, is notified to come back.
async fn ends(mut application: Application, client: Option<HubClient>) {
    application.terminate();
    if let Some(mut client) = client {
        let rest = client.rest().await;
        let last = rest.last().expect("a Close message");
        assert_eq!(
            (&last["type"], &last["allowReconnect"]),
            (&json!(7), &json!(true))
        );
    }
    let status = application.exit().await;
    assert_eq!(status.code(), Some(0), "{}", application.log());
    assert!(!application.log().contains("panicked"), "{}", application.log());
}

#[tokio::test]
async fn chat() {
    let application = Application::of("chat").await;
    let mut client = connect(&application, "chat").await;
    assert_eq!(client.expect("Welcome").await, json!([client.id()]));
    let answer = fetch(application.address(), &Request::post("/announce", "Tea is ready")).await;
    assert_eq!(answer.status(), 202);
    assert_eq!(client.expect("Announced").await, json!(["Tea is ready"]));
    ends(application, Some(client)).await;
}

#[tokio::test]
async fn dashboard() {
    let application = Application::of("dashboard").await;
    has_a_page(&application).await;
    let mut client = connect(&application, "dashboard").await;
    assert!(client.expect("Snapshot").await[0]["samples"].is_array());
    let answer = fetch(application.address(), &Request::post("/orders", "3")).await;
    assert_eq!(answer.status(), 202);
    let counted = async { while client.expect("Sampled").await[0]["orders"] != 3 {} };
    within("the orders are counted", counted).await;
    ends(application, Some(client)).await;
}

#[tokio::test]
async fn functional_tests() {
    let application = Application::of("functional_tests").await;
    let mut client = connect(&application, "testhub").await;
    assert_eq!(client.result("EchoString", json!(["x"])).await, "x");
    ends(application, Some(client)).await;
}

/// The paths, hubs and errors that the tests of ASP.NET Core's TypeScript client expect of a server.
#[tokio::test]
async fn functional_tests_as_aspnet_core() {
    let application = Application::of("functional_tests").await;
    let address = application.address();
    let negotiate = async |path: &str| {
        let target = format!("{path}/negotiate?negotiateVersion=1");
        fetch(address, &Request::post(&target, "")).await
    };
    let of_hub = negotiate("/testHub").await; // paths have no case there
    let cookies = of_hub.head.list("set-cookie").join(";");
    assert!(
        cookies.contains("testcookie=testvalue") && cookies.contains("expiredcookie"),
        "{cookies}"
    );
    let transports = |json: &Value| {
        let offered = json["availableTransports"].as_array().unwrap().iter();
        offered
            .map(|one| one["transport"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    let every = ["WebSockets", "ServerSentEvents", "LongPolling"];
    assert_eq!(transports(&of_hub.json()), every);

    // A hub without WebSockets offers none, and takes none.
    let without = negotiate("/testhub-nowebsockets").await.json();
    assert_eq!(transports(&without), every[1..]);
    let token = without["connectionToken"].as_str().unwrap();
    let socket = Request::upgrade(&format!("/testhub-nowebsockets?id={token}"));
    let refused = fetch(address, &socket).await;
    let text = "WebSockets transport not supported by this end point type";
    assert_eq!(refused.outcome(), (404, text));
    let poll = fetch(
        address,
        &Request::get(&format!("/testhub-nowebsockets?id={token}")),
    )
    .await;
    assert_eq!(poll.status(), 200, "{}", poll.text());

    assert_eq!(negotiate("/authorizedhub").await.outcome(), (401, ""));
    let bad = negotiate("/bad-negotiate").await;
    assert_eq!(bad.outcome(), (400, "Some response from server"));
    let target = "/redirect/negotiate?numRedirects=0&baseUrl=http://there";
    let mut numbers = Vec::new();
    for _ in 0..2 {
        let there = fetch(address, &Request::post(target, "")).await.json()["url"].clone();
        let number = there
            .as_str()
            .and_then(|url| url.strip_prefix("http://there/testHub?numRedirects="));
        numbers.push(
            number
                .and_then(|number| number.parse::<u64>().ok())
                .expect("a number"),
        );
    }
    assert!(numbers[0] < numbers[1], "{numbers:?}");
    let nobody = fetch(address, &Request::get("/clientresult/nobody")).await;
    assert_eq!(nobody.text(), "Connection 'nobody' does not exist.");

    let entry = Arc::new(application.entry("aspnet-testhub"));
    let mut client = HubClient::connect(&entry, Transport::WebSockets).await;
    let sent = json!({
        "ByteArray": "AQID", "DateTime": "2000-01-01T00:00:00Z", "Guid": "00010203-0405-0607-0706-050403020100",
        "IntArray": [1, 2, 3], "String": "hello world",
    });
    assert_eq!(client.result("SendComplexObject", json!([])).await, sent);
    assert_eq!(client.result("EchoComplexObject", json!([sent])).await, sent);
    ends(application, Some(client)).await;
}

#[tokio::test]
async fn llm_sse() {
    let application = Application::of("llm_sse").await;
    has_a_page(&application).await;
    let answer = fetch(application.address(), &Request::post("/ask", "Why?")).await;
    assert_eq!(answer.status(), 200, "{}", answer.text());
    let target = format!("/sse/model?rewind=100&group={}", answer.text());
    let request = Request::get(&target).header("Accept", "text/event-stream");
    let (head, mut source) = EventSource::start(application.address(), &request).await;
    assert_eq!(head.status, 200);
    for (number, word) in ["You ", "ask ", "and "].iter().enumerate() {
        let event = source.event().await;
        assert_eq!(
            (event.name.as_str(), event.data),
            ("token", json!([number, word]))
        );
    }
    ends(application, None).await;
}

#[tokio::test]
async fn llm_tokens() {
    let application = Application::of("llm_tokens").await;
    has_a_page(&application).await;
    let mut client = connect(&application, "model").await;
    assert_eq!(items(&mut client, "Ask", json!(["Why?"]), 3).await.len(), 3);
    ends(application, Some(client)).await;
}

#[tokio::test]
async fn ticker() {
    let application = Application::of("ticker").await;
    let mut client = connect(&application, "prices").await;
    for price in items(&mut client, "Prices", json!(["ACME", 10]), 3).await {
        assert_eq!(price["symbol"], "ACME");
        assert!(price["cents"].is_u64(), "{price}");
    }
    ends(application, Some(client)).await;
}

#[tokio::test]
async fn whiteboard() {
    let application = Application::of("whiteboard").await;
    has_a_page(&application).await;
    let mut painter = connect(&application, "whiteboard").await;
    let mut watcher = connect(&application, "whiteboard").await;
    for client in [&mut painter, &mut watcher] {
        assert_eq!(client.result("Join", json!(["main"])).await["drawn"], json!([]));
    }
    let stroke = json!({ "points": [[1.0, 2.0], [3.0, 4.0]], "width": 3.0 });
    painter.result("Stamp", json!([stroke])).await;
    assert_eq!(watcher.expect("Drawn").await[0]["strokes"], json!([stroke]));
    painter.close().await;
    ends(application, Some(watcher)).await;
}

/// Each example has its test here.
#[test]
fn every_example_is_tried() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../gateway/examples");
    let tried = [
        "chat",
        "dashboard",
        "functional_tests",
        "llm_sse",
        "llm_tokens",
        "ticker",
        "whiteboard",
    ];
    let mut examples = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let is_source = path.extension().is_some_and(|extension| extension == "rs");
        if is_source || path.join("main.rs").exists() {
            examples.push(path.file_stem().unwrap().to_str().unwrap().to_owned());
        }
    }
    examples.sort();
    assert_eq!(examples, tried);
}
