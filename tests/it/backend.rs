//! The example back end in FastAPI beside three nodes: it logs users in, sends their official clients on, and pushes.

use std::path::Path;
use std::process::Command;

use hubcast_tests::cluster::Plan;
use hubcast_tests::eventually::eventually;
use hubcast_tests::http::{Request, fetch, try_fetch};
use hubcast_tests::js::{Connect, Js};
use hubcast_tests::jwt::ACCESS_KEY;
use hubcast_tests::ports::free_port;
use hubcast_tests::process::Process;
use serde_json::json;

use super::clients::{prepare_python, say};

#[tokio::test]
async fn a_back_end_in_another_language_logs_users_in_and_pushes() {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/examples/fastapi");
    let interpreter = match prepare_python("fastapi", &example.join("requirements.txt")) {
        Ok(interpreter) => interpreter,
        Err(reason) => return say(&format!("the FastAPI example skipped: {reason}")),
    };
    let plan = Plan::nodes(3)
        .balanced()
        .trace()
        .set("hubs.names", "chat")
        .set("auth.allow_anonymous", false)
        .set("timeouts.disconnect_seconds", 3);
    let mut cluster = plan.start().await;
    let gateway = format!("http://{}", cluster.balancer().address());
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], free_port()));
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut command = Command::new(&interpreter);
    command
        .args([
            "-B",
            "-m",
            "uvicorn",
            "app:app",
            "--no-access-log",
            "--port",
            &address.port().to_string(),
        ])
        .current_dir(&example)
        .env("HUBCAST_ENDPOINT", &gateway)
        .env("HUBCAST_ACCESS_KEY", ACCESS_KEY);
    let mut back_end = Process::start("fastapi", &mut command, directory.path());
    eventually("the back end answers", async || {
        assert!(back_end.exited().is_none(), "it has ended: {}", back_end.errors());
        try_fetch(address, &Request::get("/openapi.json")).await.ok()
    })
    .await;

    let login = async |user: &str, password: &str| {
        let given = json!({ "user": user, "password": password }).to_string();
        let request = Request::post("/login", given).header("Content-Type", "application/json");
        let answer = fetch(address, &request).await;
        (answer.status() == 200).then(|| answer.json()["token"].as_str().expect("a token").to_owned())
    };
    assert_eq!(login("ann", "coffee").await, None);
    assert_eq!(login("nobody", "").await, None);
    let (ann, bob) = (
        login("ann", "tea").await.expect("ann"),
        login("bob", "coffee").await.expect("bob"),
    );
    for secret in [&ann, &bob] {
        cluster.secrets.add(secret);
    }

    let js = Js::start().await;
    let hub = format!("http://{address}/chat");
    assert!(js.try_connect(Connect::to(&hub).token("nonsense")).await.is_err());
    for transport in ["WebSockets", "ServerSentEvents", "LongPolling"] {
        let options = |token| {
            Connect::to(&hub)
                .token(token)
                .transport(transport)
                .listening(&["Announced", "Said"])
        };
        let (ann_client, bob_client) = (js.connect(options(&ann)).await, js.connect(options(&bob)).await);
        for client in [&ann_client, &bob_client] {
            client.call("JoinGroup", json!(["room-1"])).await;
        }
        ann_client
            .call("SendToGroup", json!(["room-1", "Said", "hello", transport]))
            .await;
        for client in [&ann_client, &bob_client] {
            client.receives("Said", json!(["hello", transport])).await;
        }
        let announce = Request::post(&format!("/announce?text={transport}"), "").bearer(Some(&bob));
        let answer = fetch(address, &announce).await;
        assert_eq!(answer.status(), 200, "{}\n{}", answer.text(), back_end.errors());
        for client in [&ann_client, &bob_client] {
            client.receives("Announced", json!(["bob", transport])).await;
            client.stop().await;
        }
    }
    let stranger = Request::post("/announce?text=x", "").bearer(Some("nonsense"));
    assert_eq!(fetch(address, &stranger).await.status(), 401);
    cluster.is_tidy().await;
}
