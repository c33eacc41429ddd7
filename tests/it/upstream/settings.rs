//! Handlers of the configuration: read again while the node runs, and checked before.

use std::path::Path;
use std::process::{Command, Output};

use axum::http::StatusCode;
use axum::response::IntoResponse;
use hubcast_tests::eventually::eventually;
use serde_json::json;

use super::receiver::{Receiver, allowed};
use super::*;

fn write(path: &Path, url: &str, rest: &str) {
    let text = format!("[hubs.chat]\n[[upstream]]\nform = \"signalr\"\nurl = \"{url}\"\n{rest}\n");
    std::fs::write(path, text).expect("the file can be written");
}

pub(super) fn hang_up(gateway: &Gateway) {
    let done = Command::new("kill")
        .args(["-HUP", &gateway.id().to_string()])
        .status();
    assert!(done.expect("kill runs").success());
}

#[tokio::test]
async fn handlers_change_while_the_node_runs_and_a_broken_file_changes_nothing() {
    let (one, two) = (echoing().await, echoing().await);
    let file = tempfile::NamedTempFile::new().unwrap();
    write(file.path(), &one.url("/"), "");
    let settings = Settings::default().variable("HUBCAST_CONFIG", file.path().display());
    let gateway = Gateway::start(settings).await;
    let mut ann = signalr(&gateway, "ann").await;
    ann.result("First", json!([])).await;
    one.gets("First", 1).await;

    let told = |text: &'static str, count: usize| {
        let gateway = &gateway;
        async move {
            let seen = async || (gateway.log().matches(text).count() >= count).then_some(());
            eventually(text, seen).await;
        }
    };
    write(file.path(), &two.url("/"), "");
    hang_up(&gateway);
    told("were read again", 1).await;
    ann.result("Second", json!([])).await;
    two.gets("Second", 1).await;

    for (number, broken) in [
        "retries = 1",
        "timeout_seconds = 0",
        "[[",
        "categories = [\"connections\"]",
    ]
    .into_iter()
    .enumerate()
    {
        write(file.path(), &one.url("/"), broken);
        hang_up(&gateway);
        told("the former handlers and keys stay", number + 1).await;
    }
    assert!(gateway.log().contains("upstream[0].retries"), "{}", gateway.log());
    assert!(gateway.log().contains("takes a restart"), "{}", gateway.log());
    ann.result("Third", json!([])).await;
    two.gets("Third", 1).await;
}

pub(super) fn check(args: &[&str], text: &str) -> Output {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    let mut command = hubcast_tests::built::gateway_command();
    command.args(["check", "--config"]).arg(file.path()).args(args);
    command.output().expect("hubcast runs")
}

#[tokio::test(flavor = "multi_thread")]
async fn check_prints_handlers_and_asks_them() {
    let receiver = Receiver::with(|seen| {
        let answer = match seen.target.as_str() {
            "/good/chat/validate?code=s3cret" => allowed("chat.example.org"),
            "/other/chat/validate?code=s3cret" => allowed("other.example.org"),
            "/get/chat/validate?code=s3cret" if seen.method == "GET" => allowed("*"),
            "/auth/chat/validate?code=s3cret" => StatusCode::UNAUTHORIZED.into_response(),
            _ => StatusCode::NOT_FOUND.into_response(),
        };
        Box::pin(std::future::ready(answer))
    })
    .await;
    let text = |path: &str| {
        let url = receiver.url(&format!("/{path}/{{hub}}/{{event}}?code=s3cret"));
        format!(
            "server.public_host = \"chat.example.org\"\n[[upstream]]\nhubs = [\"chat\"]\nform = \"cloudevents\"\nurl = \"{url}\"\n"
        )
    };
    for path in ["good", "get"] {
        let done = check(&["--upstream"], &text(path));
        let out = String::from_utf8(done.stdout).unwrap();
        assert!(done.status.success(), "{path}: {out}");
        assert!(
            out.contains("Handlers that want requests of this gateway: 1"),
            "{out}"
        );
        assert!(out.contains("code=***") && !out.contains("s3cret"), "{out}");
    }
    for (path, part) in [
        (
            "other",
            "it allows other.example.org, and this gateway is chat.example.org",
        ),
        ("auth", "status 401: a function app wants its key in the URL"),
        ("none", "status 404: is the path right?"),
    ] {
        let done = check(&["--upstream"], &text(path));
        let error = String::from_utf8(done.stderr).unwrap();
        assert_eq!(done.status.code(), Some(1), "{path}: {error}");
        assert!(
            error.contains("hub \"chat\"") && error.contains(part),
            "{path}: {error}"
        );
        assert!(!error.contains("s3cret"), "{error}");
    }
    let away = text("good").replace(&format!(":{}/", receiver.port()), ":1/");
    let error = String::from_utf8(check(&["--upstream"], &away).stderr).unwrap();
    assert!(
        error.contains("can't be reached") && !error.contains("s3cret"),
        "{error}"
    );
    let nobody = check(&["--upstream"], "[hubs.chat]\n");
    assert_eq!(nobody.status.code(), Some(2), "{nobody:?}");
}
