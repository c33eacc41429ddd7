//! Handlers that misbehave, and names that would lead elsewhere.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::StatusCode;
use axum::response::IntoResponse;
use futures_util::stream;
use hubcast_tests::webpubsub::JSON;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::receiver::Receiver;
use super::*;

/// A server that answers each connection with bytes, and closes it.
async fn raw(answer: &'static [u8]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let mut head = [0; 16 * 1024];
            let _ = socket.read(&mut head).await;
            let _ = socket.write_all(answer).await;
        }
    });
    format!("http://{address}/")
}

#[tokio::test]
async fn each_broken_answer_is_an_error_that_says_what_it_is() {
    for (answer, error) in [
        (
            &b""[..],
            "Invocation failed, error: the handler: the connection to it broke.",
        ),
        (
            b"nonsense\r\n\r\n",
            "Invocation failed, error: the handler: the connection to it broke.",
        ),
        (
            b"HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\n{\"type\":3",
            "Invocation failed, error: the handler: the connection to it broke.",
        ),
        (
            b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n",
            "Invocation failed, response too large.",
        ),
    ] {
        let gateway =
            Gateway::start(with("signalr", &raw(answer).await).set("upstream.0.categories", "messages"))
                .await;
        let mut ann = signalr(&gateway, "ann").await;
        assert_eq!(ann.call("Echo", json!([])).await["error"], error);
    }
}

#[tokio::test]
async fn addresses_that_lead_nowhere_are_told_without_their_secrets() {
    let receiver = echoing().await;
    let tls = receiver.url("/?code=s3cret").replace("http://", "https://"); // no TLS there
    for (url, logged) in [
        ("http://nowhere.invalid/?code=s3cret", "dns"),
        (&tls, "it does not speak TLS"),
        ("http://127.0.0.1:1/?code=s3cret", "refused"),
    ] {
        let settings = with("signalr", url).set("upstream.0.categories", "messages");
        let settings = settings.set("upstream.0.timeout_seconds", 2);
        let gateway = Gateway::start(settings.set("upstream.0.headers.x_key", "s3cret")).await;
        let mut ann = signalr(&gateway, "ann").await;
        let error = ann.call("Echo", json!([])).await["error"].clone();
        assert_eq!(error, "Invocation failed, status code 500", "{url}");
        let log = gateway.log();
        let handler = url
            .split(['/', ':', '?'])
            .find(|part| part.contains('.'))
            .unwrap();
        let line = log.lines().find(|line| line.contains("did not serve a call"));
        let line = line.unwrap_or_else(|| panic!("{log}"));
        assert!(line.contains(logged) && line.contains(handler), "{url}: {line}");
        assert!(!log.contains("s3cret"), "{log}");
    }
}

#[tokio::test]
async fn an_answer_that_comes_byte_by_byte_ends_with_the_time() {
    let receiver = Receiver::start(|_| {
        let bytes = stream::unfold((), |()| async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            Some((Ok::<_, std::io::Error>(Bytes::from_static(b"x")), ()))
        });
        Body::from_stream(bytes).into_response()
    })
    .await;
    let settings = with("cloudevents", &receiver.url("/")).set("upstream.0.timeout_seconds", 1);
    let gateway = Gateway::start(settings).await;
    let mut ann = client(&gateway, JSON, "ann").await;
    let (name, text) = ann
        .refusal(json!({ "type": "event", "event": "x", "data": 1 }))
        .await;
    assert_eq!(name, "InternalServerError");
    assert!(text.contains("no whole answer within 1s"), "{text}");
}

#[tokio::test]
async fn a_head_that_comes_byte_by_byte_and_a_handshake_that_never_comes_end_with_the_time() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            tokio::spawn(async move {
                for byte in b"HTTP/1.1 200 OK\r\nx: ".iter().chain([b'y'; 1_000].iter()) {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    if socket.write_all(&[*byte]).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let late = "Invocation failed, error: the handler: it gave no whole answer within 1s (timeout_seconds).";
    let away = "Invocation failed, status code 500"; // the end of its time and that of the connection are one moment
    for (url, told) in [
        (format!("http://{address}/?code=s3cret"), vec![late]),
        (
            format!("https://{}/?code=s3cret", silent.local_addr().unwrap()),
            vec![late, away],
        ),
    ] {
        let settings = with("signalr", &url).set("upstream.0.categories", "messages");
        let gateway = Gateway::start(settings.set("upstream.0.timeout_seconds", 1)).await;
        let error = signalr(&gateway, "ann").await.call("Echo", json!([])).await["error"].clone();
        assert!(told.contains(&error.as_str().unwrap()), "{url}: {error}");
        let log = gateway.log();
        assert!(
            log.contains("did not serve a call") && !log.contains("s3cret"),
            "{log}"
        );
    }
}

#[tokio::test]
async fn answers_to_events_that_can_not_be_used_are_errors() {
    let receiver = Receiver::start(|seen| match seen.event() {
        "json" => ([("content-type", "application/json")], "{").into_response(),
        "text" => ([("content-type", "text/plain")], vec![0xff_u8]).into_response(),
        "large" => vec![0_u8; 300].into_response(),
        "moved" => (
            StatusCode::TEMPORARY_REDIRECT,
            [("location", "http://169.254.169.254/")],
        )
            .into_response(),
        _ => StatusCode::IM_A_TEAPOT.into_response(),
    })
    .await;
    let gateway =
        Gateway::start(with("cloudevents", &receiver.url("/")).set("upstream.0.answer_bytes", 200)).await;
    let mut ann = client(&gateway, JSON, "ann").await;
    for (event, part) in [
        ("json", "not JSON"),
        ("text", "not UTF-8"),
        ("large", "larger than 200 bytes"),
        ("moved", "status 307, a redirect"),
        ("other", "status 418"),
    ] {
        let (name, text) = ann
            .refusal(json!({ "type": "event", "event": event, "data": 1 }))
            .await;
        assert_eq!(name, "InternalServerError");
        assert!(text.contains(part), "{event}: {text}");
        assert_eq!(receiver.of(event).len(), 1);
    }
    ann.is_heard().await;
}

#[tokio::test]
async fn names_never_choose_where_a_request_goes() {
    let receiver = echoing().await;
    let gateway = Gateway::start(with("signalr", &receiver.url("/api/{event}/x"))).await;
    let mut ann = signalr(&gateway, "ann").await;
    for target in ["..", ".", ""] {
        let error = ann.call(target, json!([])).await["error"].clone();
        assert!(
            error
                .as_str()
                .unwrap()
                .contains("can't be a part of the handler's URL"),
            "{target:?} {error}"
        );
    }
    for (target, path) in [
        ("../../admin", "/api/..%2F..%2Fadmin/x"),
        ("@evil.example/", "/api/%40evil.example%2F/x"),
        ("%2e%2e", "/api/%252e%252e/x"),
        ("a?b#c", "/api/a%3Fb%23c/x"),
    ] {
        ann.result(target, json!([])).await;
        assert_eq!(receiver.seen().last().unwrap().target, path);
    }
    for target in ["a\r\nX-ASRS-User-Id: eve", "\u{0}", " Echo", "Echo "] {
        let error = ann.call(target, json!([])).await["error"].clone();
        assert!(
            error.as_str().unwrap().contains("can't stand in a header"),
            "{target:?} {error}"
        );
    }
}

#[tokio::test]
async fn a_handler_sees_no_other_user_and_no_other_name_than_the_client_has() {
    let receiver = Receiver::start(|seen| match seen.header("ce-type") {
        "" => echo(&seen),
        _ => ().into_response(),
    })
    .await;
    let gateway = Gateway::start(
        with("cloudevents", &receiver.url("/")).set("upstream.0.system_events", "connect, joined, left"),
    )
    .await;
    // A user whom no header tells from another one is in none; connect has it in the body.
    for (user, header) in [
        ("a\u{1}b", ""),
        ("ann ", ""),
        ("änn", "not ASCII"),
        ("a b", "a b"),
    ] {
        let mut ann = client(&gateway, JSON, user).await;
        ann.done(json!({ "type": "event", "event": "x", "data": 1 }))
            .await;
        let seen = receiver.gets("x", 1).await;
        assert_eq!(seen[0].header("ce-userid"), header, "{user:?}");
        let asked = receiver.gets("connect", 1).await;
        assert_eq!(asked[0].header("ce-userid"), header, "{user:?}");
        assert_eq!(asked[0].json()["claims"]["sub"], json!([user]));
        receiver.forget();
    }
    // Groups are in the body, whatever their names.
    let target = target("ann", &json!({ "role": ["webpubsub.joinLeaveGroup"] }));
    let mut ann = WebPubSub::connect(gateway.address(), &target, JSON).await;
    let group = "te\u{1}a\r\n ";
    for (request, event) in [("joinGroup", "joined"), ("leaveGroup", "left")] {
        ann.done(json!({ "type": request, "group": group })).await;
        let seen = receiver.gets(event, 1).await;
        assert_eq!(seen[0].json()["group"], group);
    }
    for (event, part) in [
        ("a\u{1}b", "control characters"),
        (" x", "blanks at its ends"),
        ("häl", "not ASCII"),
    ] {
        let event = json!({ "type": "event", "event": event, "data": 1 });
        let (_, text) = ann.refusal(event).await;
        assert!(text.contains(part), "{text}");
    }

    let gateway = Gateway::start(with("signalr", &receiver.url("/"))).await;
    for (user, header) in [("a\u{1}b", ""), (" ann", ""), ("änn", "not ASCII")] {
        receiver.forget();
        let mut ann = signalr(&gateway, user).await;
        ann.result("Echo", json!([])).await;
        assert_eq!(
            receiver.of("Echo")[0].header("x-asrs-user-id"),
            header,
            "{user:?}"
        );
    }
}
