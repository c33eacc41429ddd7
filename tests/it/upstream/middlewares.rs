//! Answers that Azure's middlewares gave, byte for byte.
//!
//! Recorded from `Microsoft.Azure.WebPubSub.AspNetCore` (dotnet) and `@azure/web-pubsub-express` (express). Requests are checked
//! against what those two demand, answers are played back.

use axum::body::Body;
use axum::http::{Response as HttpResponse, StatusCode};
use axum::response::{IntoResponse, Response};
use hubcast_tests::webpubsub::{JSON, upgrade};
use serde_json::json;

use super::receiver::{Receiver, Seen};
use super::*;

/// One recorded answer.
fn recorded(case: &str, middleware: &str) -> Value {
    let all = include_str!("middlewares.jsonl");
    let found = all
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    let found = found
        .into_iter()
        .find(|line| line["case"] == case)
        .unwrap_or_else(|| panic!("no case {case}"));
    match &found[middleware] {
        Value::String(same) if same == "same" => panic!("{case}: named by the one before"),
        answer => answer.clone(),
    }
}

fn played(answer: &Value) -> Response {
    let status = answer["status"].as_u64().expect("a status");
    let mut response = HttpResponse::builder().status(u16::try_from(status).expect("a status"));
    for line in answer["headers"].as_array().into_iter().flatten() {
        let (name, value) = line
            .as_str()
            .and_then(|line| line.split_once(": "))
            .expect("a header");
        response = response.header(name, value);
    }
    let body = answer["body"].as_str().unwrap_or_default();
    let body = match body.strip_prefix("hex:") {
        Some("00ff") => vec![0, 0xff],
        Some(other) => panic!("{other}"),
        None => body.as_bytes().to_vec(),
    };
    response.body(Body::from(body)).expect("a response")
}

/// Headers without which the middlewares answer with an error.
fn check_demands(seen: &Seen) -> Result<(), String> {
    let demanded = [
        "ce-awpsversion",
        "ce-type",
        "ce-hub",
        "ce-eventname",
        "ce-connectionid",
        "ce-signature",
        "webhook-request-origin",
    ];
    if let Some(missing) = demanded.into_iter().find(|name| seen.header(name).is_empty()) {
        return Err(format!("{missing} is missing"));
    }
    if seen.header("webhook-request-origin").contains(':') {
        return Err("the origin has a port".to_owned());
    }
    let kind = seen.header("content-type");
    if kind.is_empty() || kind != kind.to_ascii_lowercase() {
        return Err(format!("{kind:?} as content type"));
    }
    if seen.event() == "connect" {
        let body = seen.json();
        for name in ["claims", "query", "headers", "subprotocols", "clientCertificates"] {
            if body.get(name).is_none() {
                return Err(format!("{name} is missing"));
            }
        }
    }
    if seen.event() == "disconnected" && seen.json().get("reason").is_none() {
        return Err("reason is missing".to_owned());
    }
    Ok(())
}

/// A middleware that answers each event by the case of that name.
async fn middleware(name: &'static str) -> Receiver {
    Receiver::start(move |seen| {
        if let Err(problem) = check_demands(&seen) {
            return (StatusCode::IM_A_TEAPOT, problem).into_response();
        }
        match seen.event() {
            "connect" => {
                let case = seen.json()["query"]["case"][0]
                    .as_str()
                    .unwrap_or_default()
                    .to_owned();
                played(&recorded(&case, name))
            }
            "connected" | "disconnected" => StatusCode::OK.into_response(),
            event => {
                let case = format!("user answer {event}");
                played(&recorded(&case, name))
            }
        }
    })
    .await
}

#[tokio::test]
async fn recorded_answers_to_user_events_are_read_as_they_are() {
    for name in ["dotnet", "express"] {
        let receiver = middleware(name).await;
        let gateway = Gateway::start(with("cloudevents", &receiver.url("/"))).await;
        let mut ann = client(&gateway, JSON, "ann").await;
        for (event, data_type, data) in [
            ("text", "text", json!("täxt")),
            ("json", "json", json!({ "x": 1 })),
            ("binary", "binary", json!("AP8=")),
            ("state", "text", json!("s")),
        ] {
            ann.ask(json!({ "type": "event", "event": event, "dataType": "text", "data": "q" }))
                .await;
            let message = ann.next().await.unwrap();
            assert_eq!(
                (&message["dataType"], &message["data"]),
                (&json!(data_type), &data),
                "{name} {event}"
            );
            assert_eq!(ann.next().await.unwrap()["success"], true);
        }
        for event in ["noanswer", "emptytext"] {
            ann.done(json!({ "type": "event", "event": event, "dataType": "text", "data": "q" }))
                .await;
        }
        let state = receiver.of("noanswer")[0].header("ce-connectionstate").to_owned();
        let expected = if name == "dotnet" {
            "eyJuIjoiTWc9PSJ9"
        } else {
            "eyJuIjoyfQ=="
        };
        assert_eq!(state, expected, "opaque, and given back");
        for status in ["401", "500"] {
            let event = json!({ "type": "event", "event": status, "dataType": "text", "data": "q" });
            let (refused, text) = ann.refusal(event).await;
            assert_eq!(refused, "InternalServerError");
            assert!(text.contains(&format!("status {status}")), "{text}");
            assert_eq!(receiver.of(status).len(), 1, "a message is not repeated");
        }
        for _ in 0..15 {
            ann.refusal(json!({ "type": "event", "event": "500", "data": 1 }))
                .await;
        }
        ann.done(json!({ "type": "event", "event": "noanswer", "data": 1 }))
            .await; // those trip no breaker
    }
}

#[tokio::test]
async fn recorded_answers_to_connect_let_in_and_refuse() {
    for name in ["dotnet", "express"] {
        let receiver = middleware(name).await;
        let settings = with("cloudevents", &receiver.url("/"))
            .set("upstream.0.system_events", "connect, connected, disconnected");
        let gateway = Gateway::start(settings).await;
        let at = |case: &str| {
            let case: String = case.bytes().map(|byte| format!("%{byte:02x}")).collect();
            with_query(&target("ann", &json!({})), &format!("case={case}"))
        };
        let ann = WebPubSub::connect(gateway.address(), &at("connect full"), JSON).await;
        assert_eq!(ann.connected["userId"], "newuser");
        receiver.gets("connected", 1).await;
        drop(ann);
        receiver.gets("disconnected", 1).await;
        if name == "dotnet" {
            let refused = upgrade(gateway.address(), &at("connect without ce-signature"), JSON).await;
            assert_eq!(refused.status(), 401);
        }
        let refused = upgrade(gateway.address(), &at("connect without ce-awpsversion"), JSON).await;
        assert_eq!(
            refused.status(),
            if name == "dotnet" { 500 } else { 404 },
            "{name}"
        );
    }
}

#[tokio::test]
async fn recorded_answers_to_the_validation_are_understood() {
    for (case, middleware, works) in [
        ("OPTIONS host", "dotnet", true),
        ("OPTIONS host", "express", true),
        ("OPTIONS host:port", "dotnet", false),
        ("OPTIONS no ce-awpsversion", "dotnet", false),
        ("OPTIONS no ce-awpsversion", "express", false),
    ] {
        let receiver =
            Receiver::with(move |_| Box::pin(std::future::ready(played(&recorded(case, middleware))))).await;
        let settings = with("cloudevents", &receiver.url("/")).set("server.public_host", "127.0.0.1:8080");
        let gateway = Gateway::start(settings).await;
        let mut ann = client(&gateway, JSON, "ann").await;
        let answer = ann
            .answer(json!({ "type": "event", "event": "x", "data": 1 }))
            .await;
        let text = answer["error"]["message"].as_str().unwrap_or_default();
        let sent = !receiver.seen().iter().all(|seen| seen.method == "GET");
        assert_eq!(sent, works, "{case} {middleware}: {text}");
    }
}
