//! The question before a client is let in, in the form of Azure Web PubSub.

use axum::http::StatusCode;
use axum::response::{AppendHeaders, IntoResponse};
use hubcast_tests::eventually::eventually;
use hubcast_tests::http::{Connection, Request, fetch};
use hubcast_tests::hub_client::Transport;
use hubcast_tests::webpubsub::{JSON, RELIABLE, upgrade};
use hubcast_tests::websocket::WebSocket;
use serde_json::json;

use super::receiver::{Receiver, allowed};
use super::*;

fn asking(url: &str) -> Settings {
    with("cloudevents", url).set("upstream.0.system_events", "connect, connected, disconnected")
}

#[tokio::test]
async fn a_handler_is_asked_with_all_that_is_known_and_decides_who_the_client_is() {
    let receiver = Receiver::start(|seen| match seen.event() {
        "connect" => (
            AppendHeaders([
                ("ce-connectionState", "c3RhdGU="),
                ("set-cookie", "node=7; Path=/"),
            ]),
            json!({
                "userId": "eve", "roles": ["webpubsub.sendToGroup.tea"], "groups": ["tea"],
                "subprotocol": RELIABLE,
            })
            .to_string(),
        )
            .into_response(),
        _ => StatusCode::OK.into_response(),
    })
    .await;
    let gateway = Gateway::start(asking(&receiver.url("/hook/{event}"))).await;
    let claims = json!({ "role": ["webpubsub.joinLeaveGroup"], "level": 7 });
    let target = with_query(&target("ann", &claims), "room=1&room=2");
    let headers = [
        (
            "sec-websocket-protocol",
            "custom, json.webpubsub.azure.v1, json.reliable.webpubsub.azure.v1",
        ),
        ("x-own", "1"),
        ("cookie", "a=b"),
    ];
    let mut socket = WebSocket::open(gateway.address(), &target, &headers)
        .await
        .unwrap();
    let connected = next(&mut socket).await;
    assert_eq!(connected["userId"], "eve");
    assert!(
        connected["reconnectionToken"].is_string(),
        "the handler chose the reliable protocol: {connected}"
    );

    let seen = receiver.gets("connect", 1).await;
    let seen = &seen[0];
    let id = connected["connectionId"].as_str().unwrap();
    assert_eq!(seen.target, "/hook/connect");
    for (name, value) in [
        ("ce-specversion", "1.0"),
        ("ce-awpsversion", "1.0"),
        ("ce-type", "azure.webpubsub.sys.connect"),
        ("ce-source", &format!("/hubs/chat/client/{id}")),
        ("ce-hub", "chat"),
        ("ce-connectionid", id),
        ("ce-eventname", "connect"),
        ("ce-userid", "ann"),
        ("ce-subprotocol", ""),
        ("ce-connectionstate", ""),
        ("webhook-request-origin", "chat.example.org"),
        ("content-type", "application/json; charset=utf-8"),
        ("connection", ""),
    ] {
        assert_eq!(seen.header(name), value, "{name}");
    }
    assert!(seen.header("ce-time").ends_with('Z') && seen.header("ce-signature").starts_with("sha256="));
    let body = seen.json();
    assert_eq!(body["claims"]["level"], json!(["7"]));
    assert_eq!(body["claims"]["role"], json!(["webpubsub.joinLeaveGroup"]));
    assert_eq!(body["query"], json!({ "room": ["1", "2"] }), "without the token");
    assert_eq!(body["headers"]["x-own"], json!(["1"]));
    assert_eq!(body["headers"]["cookie"], json!(["a=b"]));
    assert_eq!(body["subprotocols"], json!(["custom", JSON, RELIABLE]));
    assert_eq!(body["clientCertificates"], json!([]));

    let connected = receiver.gets("connected", 1).await;
    assert_eq!(connected[0].header("ce-userid"), "eve");
    assert_eq!(connected[0].header("ce-subprotocol"), RELIABLE);
    assert_eq!(connected[0].header("ce-connectionstate"), "c3RhdGU=");
    assert_eq!(connected[0].header("cookie"), "node=7");
    assert_eq!(connected[0].body, "{}");

    // Its roles are the handler's, and so are its groups.
    socket.text(r#"{"type":"joinGroup","group":"x","ackId":1}"#).await;
    assert_eq!(next(&mut socket).await["error"]["name"], "Forbidden");
    socket
        .text(r#"{"type":"sendToGroup","group":"tea","data":"hi","ackId":2}"#)
        .await;
    let mut kinds = Vec::new();
    for _ in 0..2 {
        kinds.push(next(&mut socket).await["type"].clone());
    }
    kinds.sort_by_key(ToString::to_string);
    assert_eq!(kinds, ["ack", "message"]);
    socket.text("{}").await; // a mistake that ends it
    let ended = receiver.gets("disconnected", 1).await;
    assert!(ended[0].json()["reason"].is_string());
    assert_eq!(ended[0].header("ce-connectionstate"), "c3RhdGU=");
    assert_ne!(ended[0].header("ce-id"), connected[0].header("ce-id"));
}

async fn next(socket: &mut WebSocket) -> Value {
    loop {
        match socket.next().await.expect("a message") {
            hubcast_tests::websocket::Message::Text(text) => {
                return serde_json::from_str(&text).expect("JSON");
            }
            hubcast_tests::websocket::Message::Close(_) => panic!("the socket was closed"),
            _ => {}
        }
    }
}

#[tokio::test]
async fn a_refusal_has_the_handlers_status_and_nothing_of_its_text() {
    let receiver = Receiver::start(|seen| {
        let query = seen.json()["query"]["with"][0].clone();
        let status = query.as_str().unwrap_or("200").parse().unwrap();
        (StatusCode::from_u16(status).unwrap(), "s3cret detail")
    })
    .await;
    let gateway = Gateway::start(asking(&receiver.url("/"))).await;
    for (status, expected) in [
        (400, 400),
        (401, 401),
        (403, 403),
        (404, 404),
        (500, 500),
        (503, 500),
        (302, 500),
    ] {
        let target = with_query(&target("ann", &json!({})), &format!("with={status}"));
        let answer = upgrade(gateway.address(), &target, JSON).await;
        assert_eq!(answer.status(), expected, "{status}");
        assert!(!answer.text().contains("s3cret"), "{}", answer.text());
        assert_eq!(
            receiver.of("connect").len(),
            1,
            "{status}: a question is asked once"
        );
        receiver.forget();
    }
    assert!(receiver.of("connected").is_empty());
}

#[tokio::test]
async fn answers_that_can_not_be_used_refuse_the_client() {
    let receiver = Receiver::start(|seen| {
        let answer = seen.json()["query"]["with"][0]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        let state = if answer == "state" {
            "x".repeat(9_000)
        } else {
            String::new()
        };
        let body = if answer == "state" { String::new() } else { answer };
        (AppendHeaders([("ce-connectionState", state)]), body).into_response()
    })
    .await;
    let settings = asking(&receiver.url("/")).set("upstream.0.allow_groups", "room-*");
    let gateway = Gateway::start(settings).await;
    for answer in [
        "{",
        "5",
        "[]",
        "{\"userId\":7}",
        "{\"userId\":\"\"}",
        "{\"roles\":\"a\"}",
        "{\"roles\":[1]}",
        "{\"groups\":{}}",
        "{\"roles\":[\"admin\"]}",
        "{\"groups\":[\"tea\"]}",
        "{\"groups\":[\"\"]}",
        "{\"subprotocol\":\"x\"}",
        "state",
    ] {
        let encoded: String = answer.bytes().map(|byte| format!("%{byte:02x}")).collect();
        let target = with_query(&target("ann", &json!({})), &format!("with={encoded}"));
        let refused = upgrade(gateway.address(), &target, JSON).await;
        assert_eq!(refused.status(), 500, "{answer}");
    }
    assert!(
        gateway.log().contains("which allow_roles does not have"),
        "{}",
        gateway.log()
    );
    for answer in [
        "",
        "null",
        " {}\n",
        "{\"userId\":null,\"groups\":null,\"subprotocol\":null,\"roles\":null}",
        "{\"UserId\":null,\"subProtocol\":\"json.webpubsub.azure.v1\",\"more\":1}",
        "{\"groups\":[\"room-1\"]}",
    ] {
        let encoded: String = answer.bytes().map(|byte| format!("%{byte:02x}")).collect();
        let target = with_query(&target("ann", &json!({})), &format!("with={encoded}"));
        let ann = WebPubSub::connect(gateway.address(), &target, JSON).await;
        assert_eq!(ann.connected["userId"], "ann", "{answer}");
    }
}

#[tokio::test]
async fn a_subprotocol_of_the_applications_own_is_agreed_on_if_it_chooses_it() {
    let receiver = Receiver::start(|seen| match seen.event() {
        "connect" if seen.json()["subprotocols"][0] == "own.v1" => "{\"subprotocol\":\"own.v1\"}",
        _ => "",
    })
    .await;
    let gateway = Gateway::start(asking(&receiver.url("/"))).await;
    let headers = [("sec-websocket-protocol", "own.v1")];
    let mut socket = WebSocket::open(gateway.address(), &target("ann", &json!({})), &headers)
        .await
        .unwrap();
    assert_eq!(next(&mut socket).await["type"], "connected");
    assert_eq!(
        receiver.gets("connected", 1).await[0].header("ce-subprotocol"),
        "own.v1"
    );
    let answer = upgrade(gateway.address(), &target("ann", &json!({})), "other.v1").await;
    assert_eq!(answer.status(), 400, "nobody knows it");
}

#[tokio::test]
async fn who_can_not_wait_for_the_handler_is_refused() {
    let receiver = Receiver::start(|seen| match seen.event() {
        "connect" => StatusCode::UNAUTHORIZED,
        _ => StatusCode::OK,
    })
    .await;
    let gateway = Gateway::start(asking(&receiver.url("/"))).await;
    let entry = entry(&gateway, "chat", "ann");
    let refused = entry.negotiate_with("negotiateVersion=1").await;
    assert_eq!(refused.status(), 403);
    assert!(refused.text().contains("connect"), "{}", refused.text());
    assert_eq!(entry.websocket_with("").await.err(), Some(403));
    let quiet = super::entry(&gateway, "quiet", "ann");
    drop(HubClient::connect(&quiet, Transport::WebSockets).await);
    // An event stream can wait.
    let stream = Request::get("/sse/chat").bearer(Some(&token("ann", &json!({}))));
    assert_eq!(fetch(gateway.address(), &stream).await.status(), 401);
    assert_eq!(receiver.of("connect").len(), 1);
}

#[tokio::test]
async fn a_client_that_was_let_in_and_never_came_is_told_as_ended() {
    let receiver = Receiver::start(|_| ()).await;
    let gateway = Gateway::start(asking(&receiver.url("/"))).await;
    let target = target("ann", &json!({}));
    let request = Request::upgrade(&target).header("sec-websocket-protocol", JSON);
    let mut connection = Connection::open(gateway.address()).await.unwrap();
    connection.send(&request.bytes(gateway.address())).await.unwrap();
    receiver.gets("connect", 1).await;
    drop(connection);
    let ended = receiver.gets("disconnected", 1).await;
    assert_eq!(ended[0].header("ce-userid"), "ann");
}

#[tokio::test]
async fn a_handler_that_does_not_allow_the_gateway_is_sent_nothing() {
    let receiver = Receiver::with(|seen| {
        let origin = if seen.target == "/good" {
            "a.example, CHAT.example.org"
        } else {
            "other.example.org"
        };
        Box::pin(std::future::ready(allowed(origin)))
    })
    .await;
    let gateway = Gateway::start(asking(&receiver.url("/bad"))).await;
    let refused = upgrade(gateway.address(), &target("ann", &json!({})), JSON).await;
    assert_eq!(refused.status(), 500);
    assert!(receiver.seen().is_empty(), "{:?}", receiver.seen());
    let asked = &receiver.asked()[0];
    assert_eq!(
        asked.header("webhook-request-origin"),
        "chat.example.org",
        "without port"
    );
    assert_eq!(asked.header("ce-awpsversion"), "1.0");
    let log = gateway.log();
    assert!(
        log.contains("it allows other.example.org") && log.contains("server.public_host"),
        "{log}"
    );

    let gateway = Gateway::start(asking(&receiver.url("/good"))).await;
    drop(client(&gateway, JSON, "ann").await);
    drop(client(&gateway, JSON, "ann").await);
    receiver.gets("disconnected", 2).await;
    let asked = receiver.asked();
    assert_eq!(
        asked.iter().filter(|seen| seen.target == "/good").count(),
        1,
        "its word is kept"
    );
    eventually("all is told", async || (receiver.seen().len() == 6).then_some(())).await;
}
