//! Nodes that start before what they need is there.

use std::path::Path;

use hubcast_tests::built;
use hubcast_tests::entry_point::EntryPoint;
use hubcast_tests::eventually::eventually;
use hubcast_tests::gateway::{Gateway, Settings};
use hubcast_tests::http::{Request, Response};
use hubcast_tests::hub_client::{HubClient, Transport};
use hubcast_tests::jwt::token_for;
use hubcast_tests::ports::free_port;
use hubcast_tests::redis::{Redis, Setup};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

/// Waits until `/readyz` says why not.
async fn not_ready(gateway: &Gateway, why: &str) -> Response {
    eventually(&format!("/readyz says {why:?}"), async || {
        let answer = gateway.readyz().await?;
        (answer.status() == 503 && answer.text().contains(why)).then_some(answer)
    })
    .await
}

#[tokio::test]
async fn a_node_that_starts_before_its_redis_waits_for_it() {
    let port = free_port();
    let settings = Settings::default().redis(&format!("redis://127.0.0.1:{port}"));
    let mut gateway = Gateway::launch(settings).await;
    let told = not_ready(
        &gateway,
        &format!("starting: redis (127.0.0.1:{port}) can't be reached"),
    )
    .await;
    assert!(told.text().contains("refused"), "{}", told.text());
    assert_eq!(told.head.header("connection"), Some("close"));
    assert_eq!(gateway.fetch(&Request::get("/healthz")).await.status(), 200);
    assert_eq!(gateway.metrics().await.sum("hubcast_backplane_up"), 0.0);
    for request in [
        Request::post("/hubs/demo/negotiate?negotiateVersion=1", ""),
        Request::get("/hubs/demo?id=x"),
        Request::upgrade("/client/hubs/demo"),
        Request::post("/api/hubs/demo/:send", "{}"),
    ] {
        let answer = gateway.fetch(&request).await;
        assert_eq!(
            (answer.status(), answer.head.header("retry-after")),
            (503, Some("1")),
            "{request:?}: {answer:?}"
        );
        assert!(
            !answer.text().contains("redis"),
            "clients are not told of it: {answer:?}"
        );
    }
    // An `EventSource` would give up after an error.
    let events = gateway.fetch(&Request::get("/sse/demo")).await;
    assert_eq!(
        (events.status(), events.head.header("content-type")),
        (200, Some("text/event-stream"))
    );
    assert!(gateway.is_running(), "{}", gateway.log());

    let _redis = Redis::start_at(port, Setup::default()).await;
    gateway.ready().await;
    let entry = EntryPoint::new(&[gateway.address()], &Default::default());
    let mut client = HubClient::connect(&std::sync::Arc::new(entry), Transport::WebSockets).await;
    assert_eq!(client.result("Echo", json!(["here"])).await, "here");
    assert_eq!(gateway.metrics().await.sum("hubcast_backplane_up"), 1.0);
    gateway.terminate();
    assert_eq!(gateway.exit().await.code(), Some(0));
    let log = gateway.log();
    assert!(
        log.contains("the node can't start yet") && log.contains("the node has started"),
        "{log}"
    );
}

#[tokio::test]
async fn a_node_that_waits_for_a_name_can_be_stopped() {
    let settings = Settings::default().redis("redis://no-such-host.invalid");
    let mut gateway = Gateway::launch(settings).await;
    not_ready(&gateway, "no-such-host.invalid:6379").await;
    gateway.terminate();
    assert_eq!(gateway.exit().await.code(), Some(0), "{}", gateway.log());
}

#[tokio::test]
async fn a_node_that_waits_tells_operators_on_their_own_port() {
    let (redis, admin) = (free_port(), free_port());
    let settings = Settings::default()
        .redis(&format!("redis://127.0.0.1:{redis}"))
        .set("server.admin_listen", format!("127.0.0.1:{admin}"));
    let gateway = Gateway::launch(settings).await;
    not_ready(&gateway, "can't be reached").await;
    let operators = ([127, 0, 0, 1], admin).into();
    for (path, status) in [
        ("/healthz", 200),
        ("/readyz", 503),
        ("/metrics", 200),
        ("/hubs/demo", 503),
    ] {
        let answer = hubcast_tests::http::fetch(operators, &Request::get(path)).await;
        assert_eq!(answer.status(), status, "{path}");
    }
    assert_eq!(gateway.fetch(&Request::get("/metrics")).await.status(), 503);
}

/// The end of a process that can't start, and what it said.
async fn refused(settings: &[(&str, &str)]) -> String {
    let mut command = built::gateway_command();
    command.args(["serve", "--listen", "127.0.0.1:0"]);
    for (key, value) in settings {
        command.args(["--set", &format!("{key}={value}")]);
    }
    let mut command = tokio::process::Command::from(command);
    let output = command.kill_on_drop(true).output();
    let output = hubcast_tests::eventually::within("the process ends", output)
        .await
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{errors}");
    errors
}

#[tokio::test]
async fn what_waiting_can_not_mend_ends_the_process_with_the_key() {
    let redis = Redis::start().await;
    redis
        .does(&["ACL", "SETUSER", "node", "on", ">right-word", "~*", "&*", "+@all"])
        .await;
    let port = redis.address().port();
    for (url, told) in [
        (format!("redis://node:wrong-word@127.0.0.1:{port}"), "password"),
        (
            format!("redis+cluster://node:right-word@127.0.0.1:{port}"),
            "not part of a Redis Cluster",
        ),
        (
            format!("redis://node:right-word@127.0.0.1:{port}/99"),
            "does not have the database",
        ),
        ("redis://h:port".to_owned(), "can't be read"),
    ] {
        let errors = refused(&[("redis", &url)]).await;
        assert!(
            errors.contains("redis") && errors.contains(told),
            "{url}: {errors}"
        );
        assert!(!errors.contains("-word"), "{errors}");
    }
}

#[tokio::test]
async fn a_wrong_configuration_shows_though_redis_is_away() {
    let away = format!("redis://127.0.0.1:{}", free_port());
    let missing = Path::new("/no/such/key.pem").display().to_string();
    let errors = refused(&[("redis", &away), ("auth.key_files", &missing)]).await;
    assert!(errors.contains("auth.key_files"), "{errors}");
    let away = away.replace("redis", "rediss");
    let errors = refused(&[("redis", &away), ("backplane.ca_file", &missing)]).await;
    assert!(errors.contains("backplane.ca_file"), "{errors}");
}

/// Answers every request with this key set.
async fn serve_keys(port: u16, set: &'static str) {
    let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
    loop {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = [0; 2048];
        let _ = stream.read(&mut request).await;
        let head = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length";
        let _ = stream
            .write_all(format!("{head}: {}\r\n\r\n{set}", set.len()).as_bytes())
            .await;
    }
}

/// An Ed25519 key (RFC 8037, appendix A), and a token that names another one.
const KEY_SET: &str = r#"{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"one","alg":"EdDSA","use":"sig","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;

#[tokio::test]
async fn a_node_without_its_key_set_is_not_ready_and_tries_on() {
    let port = free_port();
    let url = format!("http://127.0.0.1:{port}/keys");
    let mut gateway = Gateway::launch(Settings::default().set("auth.jwks_url", url)).await;
    let told = not_ready(&gateway, "the key set of 127.0.0.1").await;
    assert!(
        told.text().contains("can't be fetched") || told.text().contains("not asked"),
        "{}",
        told.text()
    );
    assert_eq!(gateway.fetch(&Request::get("/healthz")).await.status(), 200);
    let negotiate =
        |token: &str| Request::post("/hubs/demo/negotiate?negotiateVersion=1", "").bearer(Some(token));
    // No node can tell yet whether it is valid.
    let unknown = "eyJhbGciOiJFZERTQSIsImtpZCI6InR3byJ9.e30.AAAA";
    let answer = gateway.fetch(&negotiate(unknown)).await;
    assert_eq!(
        (answer.status(), answer.head.header("retry-after")),
        (503, Some("1")),
        "{answer:?}"
    );
    let events = gateway
        .fetch(&Request::get("/sse/demo").bearer(Some(unknown)))
        .await;
    assert_eq!(
        (events.status(), events.head.header("content-type")),
        (200, Some("text/event-stream"))
    );
    // Other keys are there.
    let own = token_for("ann");
    assert_eq!(gateway.fetch(&negotiate(&own)).await.status(), 200);

    let serving = tokio::spawn(serve_keys(port, KEY_SET));
    gateway.ready().await;
    assert_eq!(gateway.fetch(&negotiate(unknown)).await.status(), 401);
    serving.abort();
    // They stay, and so does the node.
    assert_eq!(gateway.readiness().await, Some(200));
}

#[tokio::test]
async fn a_node_that_is_stopped_while_it_has_no_keys_leaves() {
    let url = format!("http://127.0.0.1:{}/keys", free_port());
    let mut gateway = Gateway::launch(Settings::default().set("auth.jwks_url", url)).await;
    not_ready(&gateway, "the key set").await;
    gateway.terminate();
    assert_eq!(gateway.exit().await.code(), Some(0), "{}", gateway.log());
}
