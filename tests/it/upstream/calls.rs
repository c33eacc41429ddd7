//! Calls of clients and their answers, in the form of Azure SignalR.

use axum::http::StatusCode;
use axum::response::IntoResponse;
use hubcast_tests::hub_client::{HubClient, Transport};
use hubcast_tests::jwt::ACCESS_KEY;
use hubcast_tests::messagepack;
use hubcast_tests::webpubsub::{JSON, PLAIN};
use serde_json::json;

use super::receiver::{Receiver, completion};
use super::*;

#[tokio::test]
async fn a_call_is_the_clients_own_message_and_its_completion_comes_back() {
    let receiver = echoing().await;
    let gateway = Gateway::start(with(
        "signalr",
        &receiver.url("/api/{hub}/{category}/{event}?code=s3cret"),
    ))
    .await;
    let claims = json!({ "role": ["a", "b"], "asrs.s.uid": "ann", "asrs.u.sub": "x" });
    let entry = EntryPoint::new(&[gateway.address()], &Secrets::default()).at("/hubs/chat");
    let entry = Arc::new(entry.with_bearer(&token("other", &claims)));
    let mut ann = HubClient::connect(&entry, Transport::WebSockets).await;
    assert_eq!(
        ann.result("Echo", json!([1.50, "ä\n"])).await,
        json!([1.5, "ä\n"])
    );
    let seen = receiver.gets("Echo", 1).await;
    let seen = &seen[0];
    assert_eq!(seen.target, "/api/chat/messages/Echo?code=s3cret");
    assert_eq!(seen.header("content-type"), "application/json");
    assert_eq!(
        seen.body,
        r#"{"type":1,"invocationId":"1","target":"Echo","arguments":[1.5,"ä\n"]}"#
    );
    for (name, value) in [
        ("x-asrs-connection-id", ann.id()),
        ("x-asrs-hub", "chat"),
        ("x-asrs-category", "messages"),
        ("x-asrs-event", "Echo"),
        ("x-asrs-user-id", "ann"),
        ("x-asrs-user-claims", "role: a, role: b, sub: x"),
        ("x-asrs-client-query", ""),
    ] {
        assert_eq!(seen.header(name), value, "{name}");
    }
    let signature = seen.header("x-asrs-signature");
    assert!(
        signature.starts_with("sha256=") && signature.len() == 71,
        "{signature}"
    );
    assert_ne!(seen.header("x-hubcast-event-id"), "");
    assert_eq!(seen.header("connection"), "", "connections are kept");
    ann.say(&json!({ "type": 1, "target": "Told", "arguments": [] }))
        .await; // nobody waits
    assert_eq!(receiver.gets("Told", 1).await[0].json().get("invocationId"), None);
    assert_eq!(
        ann.result("Echo", json!([2])).await,
        json!([2]),
        "calls are served in their order"
    );
    let peers: Vec<_> = receiver.seen().iter().map(|seen| seen.peer).collect();
    assert!(
        peers.windows(2).all(|pair| pair[0] == pair[1]),
        "one connection: {peers:?}"
    );
    assert!(!gateway.log().contains("s3cret"), "{}", gateway.log());
}

#[tokio::test]
async fn messagepack_clients_call_in_messagepack() {
    let receiver = Receiver::start(|seen| {
        if seen.event() == "Json" {
            let body = "{\"type\":3,\"invocationId\":\"1\",\"result\":{\"a\":[1,null]}}";
            return ([("content-type", "application/json")], body).into_response();
        }
        let body = match seen.event() {
            "Add" => &b"\x07\x95\x03\x80\xa1\x31\x03\x05"[..],
            _ => &b""[..],
        };
        ([("content-type", "application/x-msgpack")], body).into_response()
    })
    .await;
    let gateway = Gateway::start(with("signalr", &receiver.url("/"))).await;
    for (target, result) in [("Add", "5"), ("Json", "{\"a\": [1, nil]}"), ("Nothing", "nil")] {
        let mut bob =
            HubClient::connect_messagepack(&entry(&gateway, "chat", "bob"), Transport::WebSockets).await;
        let call = messagepack::frame(&messagepack::invocation("1", target, Vec::new()));
        bob.send(&call).await;
        let answer = bob.next_messagepack().await.unwrap();
        assert_eq!(
            answer.as_array().unwrap().last().unwrap().to_string(),
            result,
            "{target}"
        );
        let seen = receiver.gets(target, 1).await;
        assert_eq!(seen[0].header("content-type"), "application/x-msgpack");
        let mut expected = call[1..].to_vec(); // without the length
        expected[0] = 0x96;
        expected.push(0x90); // no streams
        assert_eq!(seen[0].body, expected);
    }
    let connected = receiver.gets("connected", 3).await;
    assert_eq!(
        connected[0].body, r#"{"type":10}"#,
        "JSON, whatever the client speaks"
    );
    assert_eq!(connected[0].header("content-type"), "application/json");
}

#[tokio::test]
async fn errors_have_the_documented_texts() {
    let receiver = Receiver::start(|seen| match seen.event() {
        "Said" => completion(&seen, ",\"error\":\"not today\""),
        "Other" => "{\"type\":3,\"invocationId\":\"7\"}\u{1e}".into_response(),
        "Text" => "hello".into_response(),
        "Void" => StatusCode::NO_CONTENT.into_response(),
        "Large" => "x".repeat(200).into_response(),
        "Moved" => (StatusCode::FOUND, [("location", "http://127.0.0.1:1/")]).into_response(),
        status => StatusCode::from_u16(status.parse().unwrap_or(200))
            .unwrap()
            .into_response(),
    })
    .await;
    let settings = with("signalr", &receiver.url("/")).set("upstream.0.answer_bytes", 100);
    let gateway = Gateway::start(settings).await;
    let mut ann = signalr(&gateway, "ann").await;
    for (target, error) in [
        ("Said", "not today"),
        ("401", "Invocation failed, status code 401"),
        ("500", "Invocation failed, status code 500"),
        ("201", "Invocation failed, status code 201"),
        ("Moved", "Invocation failed, status code 302"),
        ("Large", "Invocation failed, response too large."),
        (
            "Text",
            "Invocation failed, error: the handler's answer is not a Completion of the client's protocol.",
        ),
        (
            "Other",
            "Invocation failed, error: the handler's answer is the Completion of another invocation.",
        ),
    ] {
        assert_eq!(ann.call(target, json!([])).await["error"], error, "{target}");
    }
    assert_eq!(ann.result("Void", json!([])).await, json!(null));
    let stream = json!({ "type": 4, "invocationId": "s", "target": "Stream", "arguments": [] });
    ann.say(&stream).await;
    let refused = ann.next().await.unwrap();
    assert!(
        refused["error"]
            .as_str()
            .unwrap()
            .contains("non-streaming 'Stream'"),
        "{refused}"
    );
    assert!(receiver.of("Stream").is_empty());
}

#[tokio::test]
async fn a_hub_without_a_handler_for_a_call_says_so() {
    let receiver = echoing().await;
    let settings = with("signalr", &receiver.url("/")).set("upstream.0.events", "Echo, connected");
    let gateway = Gateway::start(settings).await;
    let mut ann = signalr(&gateway, "ann").await;
    assert_eq!(ann.result("Echo", json!([])).await, json!([]));
    for target in ["Nothing", "JoinGroup", "echo"] {
        let error = ann.call(target, json!(["a"])).await["error"].clone();
        assert!(
            error.as_str().unwrap().contains("Method does not exist"),
            "{error}"
        );
    }
    let mut quiet = HubClient::connect(&entry(&gateway, "quiet", "ann"), Transport::WebSockets).await;
    let error = quiet.call("JoinGroup", json!(["a"])).await["error"].clone();
    assert!(
        error.as_str().unwrap().contains("hubcast.join"),
        "the hub without a handler has its methods: {error}"
    );
    drop(ann);
    receiver.gets("connected", 1).await;
    assert!(receiver.of("disconnected").is_empty(), "nobody asked for it");
}

#[tokio::test]
async fn clients_without_signalr_call_such_a_handler_too() {
    let receiver = echoing().await;
    let gateway = Gateway::start(with("signalr", &receiver.url("/"))).await;
    let mut ann = client(&gateway, JSON, "ann").await;
    ann.done(json!({ "type": "event", "event": "Echo", "dataType": "text", "data": "hi" }))
        .await;
    let seen = receiver.gets("Echo", 1).await;
    assert_eq!(seen[0].json()["arguments"], json!(["hi"]));
    assert_eq!(seen[0].header("content-type"), "application/json");
    assert_eq!(
        ann.message().await["data"],
        json!(["hi"]),
        "the result is a message"
    );
    let mut plain = client(&gateway, PLAIN, "bob").await;
    plain.socket().text("hello").await;
    let seen = receiver.gets("message", 1).await;
    assert_eq!(seen[0].json()["arguments"], json!(["hello"]));
}

#[tokio::test]
async fn both_access_keys_sign_and_a_handler_may_have_its_own() {
    let receiver = echoing().await;
    let second = "another access key of at least 32 bytes!";
    let settings = with("signalr", &receiver.url("/")).set("access_key_secondary", second);
    let gateway = Gateway::start(settings.clone()).await;
    let mut ann = signalr(&gateway, "ann").await;
    ann.result("Echo", json!([])).await;
    let expected = [ACCESS_KEY, second]
        .map(|key| format!("sha256={}", hmac(key, ann.id())))
        .join(",");
    assert_eq!(
        receiver.gets("Echo", 1).await[0].header("x-asrs-signature"),
        expected
    );
    let gateway = Gateway::start(settings.set("upstream.0.keys", "own")).await;
    let mut bob = signalr(&gateway, "bob").await;
    bob.result("Mine", json!([])).await;
    let seen = receiver.gets("Mine", 1).await;
    assert_eq!(
        seen[0].header("x-asrs-signature"),
        format!("sha256={}", hmac("own", bob.id()))
    );
}

/// The HMAC by a program that is not ours.
fn hmac(key: &str, text: &str) -> String {
    let script =
        "import hmac,sys; print(hmac.new(sys.argv[1].encode(), sys.argv[2].encode(), 'sha256').hexdigest())";
    let output = std::process::Command::new("python3")
        .args(["-c", script, key, text])
        .output();
    String::from_utf8(output.expect("python3 runs").stdout)
        .expect("hex")
        .trim()
        .to_owned()
}
