//! User events in the form of Azure Web PubSub, and the answers to them.

use axum::http::StatusCode;
use axum::response::{AppendHeaders, IntoResponse};
use hubcast_tests::webpubsub::{JSON, PLAIN, RELIABLE, SUBPROTOCOLS};
use serde_json::json;

use super::receiver::Receiver;
use super::*;

#[tokio::test]
async fn data_goes_out_as_it_is_and_answers_come_back_as_messages() {
    let receiver = Receiver::start(|seen| {
        let kind = seen.header("content-type").to_owned();
        ([("content-type", kind)], seen.body).into_response()
    })
    .await;
    let gateway = Gateway::start(with("cloudevents", &receiver.url("/{event}"))).await;
    for protocol in SUBPROTOCOLS {
        let mut ann = client(&gateway, protocol, "ann").await;
        for (data_type, data, content_type, body) in [
            ("text", json!("hä"), "text/plain", "hä".as_bytes()),
            ("json", json!({ "a": [1] }), "application/json", br#"{"a":[1]}"#),
            ("binary", json!("AP8="), "application/octet-stream", &[0, 255]),
            (
                "protobuf",
                json!("CgFBEgFC"),
                "application/x-protobuf",
                b"\x0a\x01A\x12\x01B",
            ),
        ] {
            let metadata = json!({ "Trace": "a b", "n": "1" });
            let event = json!({ "type": "event", "event": "echo", "dataType": data_type, "data": data, "metadata": metadata });
            ann.ask(event).await;
            let message = ann.next().await.unwrap();
            assert_eq!(
                message["from"], "server",
                "the answer comes before the ack: {message}"
            );
            let answered = if data_type == "protobuf" {
                "binary"
            } else {
                data_type
            };
            assert_eq!(
                (&message["dataType"], &message["data"]),
                (&json!(answered), &data)
            );
            assert_eq!(ann.next().await.unwrap()["success"], true);
            let seen = receiver.gets("echo", 1).await;
            let last = seen.last().unwrap();
            assert_eq!(last.target, "/echo");
            assert_eq!(last.header("content-type"), content_type);
            assert_eq!(last.body, body);
            assert_eq!(last.header("ce-type"), "azure.webpubsub.user.echo");
            assert_eq!(last.header("ce-subprotocol"), protocol);
            assert_eq!(last.header("x-webpubsub-metadata-trace"), "a b");
            assert_eq!(last.header("x-webpubsub-metadata-n"), "1");
            receiver.forget();
        }
    }
}

#[tokio::test]
async fn invokes_and_plain_sockets_and_signalr_clients_are_answered_too() {
    let receiver = Receiver::start(|seen| match seen.event() {
        "none" => StatusCode::NO_CONTENT.into_response(),
        "text" => "täxt".into_response(),
        "bytes" => vec![0_u8, 255].into_response(),
        _ => axum::Json(seen.json()).into_response(),
    })
    .await;
    let gateway = Gateway::start(with("cloudevents", &receiver.url("/"))).await;
    for protocol in [JSON, RELIABLE] {
        let mut ann = client(&gateway, protocol, "ann").await;
        for (event, expected) in [
            ("json", json!({ "dataType": "json", "data": [1] })),
            ("text", json!({ "dataType": "text", "data": "täxt" })),
            ("bytes", json!({ "dataType": "binary", "data": "AP8=" })),
            ("none", json!({})),
        ] {
            let invoke = json!({ "type": "invoke", "invocationId": event, "target": "event", "event": event, "dataType": "json", "data": [1] });
            ann.say(&invoke).await;
            let answer = ann.invoked(event).await;
            assert_eq!(answer["success"], true, "{answer}");
            for key in ["dataType", "data"] {
                assert_eq!(answer.get(key), expected.get(key), "{event} {answer}");
            }
        }
    }
    let mut bob = signalr(&gateway, "bob").await;
    assert_eq!(
        bob.result("json", json!([1, "x"])).await,
        json!([1, "x"]),
        "all arguments are one array"
    );
    assert_eq!(bob.result("text", json!([])).await, "täxt");
    assert_eq!(bob.result("bytes", json!([])).await, "AP8=");
    assert_eq!(bob.result("none", json!([])).await, json!(null));
    let mut plain = client(&gateway, PLAIN, "eve").await;
    plain.socket().text("\"hello\"").await;
    assert_eq!(plain.message().await["arguments"], json!(["hello"]));
    let seen = receiver.gets("message", 1).await;
    assert_eq!(seen[0].header("content-type"), "text/plain");
    plain.socket().binary(&[0, 255]).await;
    assert_eq!(
        receiver.gets("message", 2).await[1].header("content-type"),
        "application/octet-stream"
    );
}

#[tokio::test]
async fn state_and_cookies_belong_to_the_connection_also_on_another_node() {
    let receiver = Receiver::start(|seen| match seen.event() {
        "set" => (
            AppendHeaders([("ce-connectionState", "b25l"), ("set-cookie", "at=1")]),
            "",
        )
            .into_response(),
        "huge" => (AppendHeaders([("ce-connectionState", "x".repeat(8_193))]), "").into_response(),
        _ => StatusCode::OK.into_response(),
    })
    .await;
    let cluster = hubcast_tests::cluster::Plan::nodes(2)
        .set("hubs.names", "chat")
        .set("server.public_host", "chat.example.org")
        .set("upstream.0.form", "cloudevents")
        .set("upstream.0.url", receiver.url("/"))
        .start()
        .await;
    let [one, two] = [cluster.nodes[0].address(), cluster.nodes[1].address()];
    let mut ann = WebPubSub::connect(one, &target("ann", &json!({})), RELIABLE).await;
    cluster.secrets.add(ann.token());
    let event = |event: &str| json!({ "type": "event", "event": event, "data": 1 });
    ann.done(event("set")).await;
    ann.done(event("look")).await;
    let seen = receiver.gets("look", 1).await;
    assert_eq!(
        (seen[0].header("ce-connectionstate"), seen[0].header("cookie")),
        ("b25l", "at=1")
    );
    let (name, text) = ann.refusal(event("huge")).await;
    assert_eq!(name, "InternalServerError");
    assert!(text.contains("8193 bytes"), "{text}");
    ann.come_back(two).await;
    ann.done(event("look")).await;
    let seen = receiver.gets("look", 2).await;
    assert_eq!(
        seen[1].header("ce-connectionstate"),
        "b25l",
        "the refused one changed nothing"
    );
    let mut bob = WebPubSub::connect(two, &target("bob", &json!({})), JSON).await;
    bob.done(event("other")).await;
    assert_eq!(
        receiver.gets("other", 1).await[0].header("ce-connectionstate"),
        ""
    );
}

#[tokio::test]
async fn groups_are_told_to_handlers_that_name_those_events() {
    let receiver = Receiver::start(|_| ()).await;
    let other = Receiver::start(|_| ()).await;
    let settings =
        with("cloudevents", &receiver.url("/")).set("upstream.0.system_events", "connected, joined, left");
    let settings = settings
        .set("upstream.0.events", "echo")
        .set("upstream.1.form", "cloudevents");
    let gateway = Gateway::start(settings.set("upstream.1.url", other.url("/"))).await;
    let claims = json!({ "role": "webpubsub.joinLeaveGroup", "webpubsub.group": "begin" });
    let mut ann = WebPubSub::connect(gateway.address(), &target("ann", &claims), JSON).await;
    ann.join("tea").await;
    ann.leave("tea").await;
    let left = receiver.gets("left", 1).await;
    assert_eq!(left[0].header("ce-type"), "azure.webpubsub.gp.left");
    assert_eq!(left[0].body, r#"{"group":"tea"}"#);
    let all: Vec<_> = receiver
        .seen()
        .iter()
        .map(|seen| (seen.event().to_owned(), seen.body.clone()))
        .collect();
    let expected = [
        ("connected", "{}"),
        ("joined", "{\"group\":\"begin\"}"),
        ("joined", "{\"group\":\"tea\"}"),
    ];
    for (seen, (event, body)) in all.iter().zip(expected) {
        assert_eq!(
            (seen.0.as_str(), &seen.1[..]),
            (event, body.as_bytes()),
            "{all:?}"
        );
    }
    ann.done(json!({ "type": "event", "event": "joined", "data": 1 }))
        .await;
    assert_eq!(
        other.gets("joined", 1).await[0].header("ce-type"),
        "azure.webpubsub.user.joined"
    );
}
