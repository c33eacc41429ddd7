//! The examples of back ends, each with its real framework, beside three nodes.

mod model;
mod outbox;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use hubcast_tests::cluster::{Cluster, Plan};
use hubcast_tests::eventually::eventually;
use hubcast_tests::js::{Connect, Js};
use hubcast_tests::jwt::ACCESS_KEY;
use hubcast_tests::ports::free_port;
use hubcast_tests::process::Process;
use hubcast_tests::webpubsub::{JSON, RELIABLE, upgrade};
use serde_json::json;

use super::*;
use crate::clients::{installing, prepare_python, say};

fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../deploy/examples")
        .join(name)
}

/// The plan of three nodes with the settings of the example's Compose file, with the application at this address.
fn plan(name: &str, application: SocketAddr) -> Plan {
    let text =
        std::fs::read_to_string(example(name).join("compose.override.yml")).expect("the file is there");
    let mut plan = Plan::nodes(3).set("auth.allow_anonymous", false);
    let gateway = text.split("\n\n").next().unwrap_or_default();
    for line in gateway
        .lines()
        .map(str::trim)
        .filter(|line| line.starts_with("HUBCAST_"))
    {
        let (variable, value) = line.split_once(": ").unwrap_or_default();
        // A demo node is what the tests start.
        if !variable.is_empty() && variable != "HUBCAST_DEMO" {
            let value = value
                .trim_matches('"')
                .replace("application:3000", &application.to_string());
            plan = plan.variable(
                variable,
                value.replace("application:8000", &application.to_string()),
            );
        }
    }
    plan
}

async fn cluster(name: &str, application: SocketAddr) -> Cluster {
    plan(name, application).start().await
}

async fn listens(application: &mut Process, address: SocketAddr) {
    eventually("the application listens", async || {
        assert!(
            application.exited().is_none(),
            "it has ended: {}{}",
            application.output(),
            application.errors()
        );
        tokio::net::TcpStream::connect(address).await.ok()
    })
    .await;
}

/// The example's modules, below the target folder: the example itself stays as it is.
fn with_modules(name: &str) -> Result<PathBuf, String> {
    let _alone = installing();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../target/clients")
        .join(name);
    std::fs::create_dir_all(&folder).expect("the folder can be made");
    for file in ["package.json", "package-lock.json", "server.mjs"] {
        std::fs::copy(example(name).join(file), folder.join(file)).expect("the file can be copied");
    }
    let lock = std::fs::read(folder.join("package-lock.json")).expect("it is there");
    let mark = folder.join("installed.json");
    if std::fs::read(&mark).ok().as_ref() != Some(&lock) {
        let mut npm = Command::new("npm");
        npm.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"])
            .current_dir(&folder);
        let done = npm.output().map_err(|error| format!("npm: {error}"))?;
        if !done.status.success() {
            return Err(format!("npm: {}", String::from_utf8_lossy(&done.stderr)));
        }
        std::fs::write(&mark, lock).expect("it can be written");
    }
    Ok(folder)
}

#[tokio::test]
async fn azures_express_middleware_serves_web_pubsub_clients_of_three_nodes() {
    let folder = match with_modules("web-pubsub-express") {
        Ok(folder) => folder,
        Err(reason) => return say(&format!("the Express example skipped: {reason}")),
    };
    let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut command = Command::new("node");
    command
        .arg("server.mjs")
        .current_dir(&folder)
        .env("PORT", address.port().to_string());
    let mut application = Process::start("express", &mut command, directory.path());
    listens(&mut application, address).await;
    let cluster = cluster("web-pubsub-express", address).await;
    let at = |node: usize| cluster.nodes[node].address();

    let mut ann = WebPubSub::connect(at(0), &target("ann", &json!({})), RELIABLE).await;
    cluster.secrets.add(ann.token());
    let mut bob = WebPubSub::connect(at(1), &target("bob", &json!({})), JSON).await;
    ann.ask(json!({ "type": "event", "event": "shout", "dataType": "text", "data": "hällo" }))
        .await;
    assert_eq!(ann.message().await["data"], "HÄLLO");
    for calls in 2..4 {
        if calls == 3 {
            ann.come_back(at(2)).await; // the state goes with it
        }
        ann.ask(json!({ "type": "event", "event": "count", "dataType": "json", "data": {} }))
            .await;
        assert_eq!(
            ann.fresh().await["data"],
            json!({ "user": "ann", "calls": calls })
        );
    }
    bob.done(json!({ "type": "sendToGroup", "group": "hall", "dataType": "text", "data": "hi" }))
        .await;
    assert_eq!(
        ann.fresh().await["data"],
        "hi",
        "connect has put it into the group"
    );
    let (name, text) = bob
        .refusal(json!({ "type": "event", "event": "dance", "data": 1 }))
        .await;
    assert_eq!(name, "InternalServerError");
    assert!(text.contains("status 400"), "{text}");
    assert_eq!(
        upgrade(at(0), &target("mallory", &json!({})), JSON)
            .await
            .status(),
        401
    );
    drop(bob);
    for line in ["ann has connected", "bob has connected", "bob has left"] {
        eventually(line, async || application.output().contains(line).then_some(())).await;
    }
    assert_eq!(
        application.output().matches("ann has connected").count(),
        1,
        "{}",
        application.output()
    );
    assert!(
        !application.output().contains("ann has left"),
        "it came back on another node"
    );
}

#[tokio::test]
async fn an_application_in_python_serves_official_signalr_clients_of_three_nodes() {
    let interpreter = match prepare_python(
        "signalr-fastapi",
        &example("signalr-fastapi").join("requirements.txt"),
    ) {
        Ok(interpreter) => interpreter,
        Err(reason) => return say(&format!("the FastAPI example skipped: {reason}")),
    };
    let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
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
        .current_dir(example("signalr-fastapi"))
        .env("HUBCAST_ACCESS_KEY", format!("another-key,{ACCESS_KEY}"));
    let mut application = Process::start("fastapi", &mut command, directory.path());
    listens(&mut application, address).await;
    let cluster = cluster("signalr-fastapi", address).await;
    let js = Js::start().await;
    for (node, transport) in ["WebSockets", "ServerSentEvents", "LongPolling"]
        .into_iter()
        .enumerate()
    {
        let hub = format!("http://{}/hubs/chat", cluster.nodes[node].address());
        let user = format!("ann{node}");
        let connect = Connect::to(&hub)
            .token(&token(&user, &json!({})))
            .transport(transport);
        let client = js.connect(connect).await;
        assert_eq!(client.call("Add", json!([2, 3])).await, json!(5));
        assert_eq!(
            client.call("Greet", json!(["Bob"])).await,
            json!(format!("Hello Bob, says {user}"))
        );
        client.stop().await;
        for event in ["connected", "disconnected"] {
            let line = format!("{user} {event}");
            eventually(&line, async || application.errors().contains(&line).then_some(())).await;
        }
    }
    let mut raw = signalr(&cluster.nodes[0], "bob").await;
    assert_eq!(raw.call("Withdraw", json!([101])).await["error"], "you have 100");
    assert_eq!(
        raw.call("Fly", json!([])).await["error"],
        "There is no method Fly."
    );
    assert_eq!(
        raw.call("Add", json!([1])).await["error"],
        "Those are no arguments of Add."
    );
    // Nobody else may call it.
    let unsigned = hubcast_tests::http::Request::post("/upstream/messages/Add", "{}");
    assert_eq!(hubcast_tests::http::fetch(address, &unsigned).await.status(), 401);
}

/// Go's command, in the path or where its installer puts it.
fn go() -> Option<&'static str> {
    ["go", "/usr/local/go/bin/go"]
        .into_iter()
        .find(|go| Command::new(go).arg("version").output().is_ok())
}

#[tokio::test]
async fn an_application_in_go_serves_signalr_clients_of_three_nodes() {
    let Some(go) = go() else {
        return say("the Go example skipped: there is no go");
    };
    let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let directory = tempfile::tempdir().expect("a temporary directory");
    let program = directory.path().join("application");
    let mut build = Command::new(go);
    build
        .args(["build", "-o"])
        .arg(&program)
        .arg("main.go")
        .current_dir(example("signalr-go"))
        .env("GOTOOLCHAIN", "local");
    let built = build.output().expect("go can be started");
    assert!(
        built.status.success(),
        "{}",
        String::from_utf8_lossy(&built.stderr)
    );
    let mut command = Command::new(&program);
    command
        .env("PORT", address.port().to_string())
        .env("HUBCAST_ACCESS_KEY", format!("another-key,{ACCESS_KEY}"));
    let mut application = Process::start("go", &mut command, directory.path());
    listens(&mut application, address).await;
    let cluster = cluster("signalr-go", address).await;
    let js = Js::start().await;
    for (node, user) in ["ann", "bob", "eve"].into_iter().enumerate() {
        let hub = format!("http://{}/hubs/chat", cluster.nodes[node].address());
        let client = js
            .connect(Connect::to(&hub).token(&token(user, &json!({}))))
            .await;
        assert_eq!(client.call("Add", json!([2, 3])).await, json!(5));
        assert_eq!(client.call("WhoAmI", json!([])).await, json!(user));
        client.stop().await;
        for event in ["connected", "disconnected"] {
            let line = format!("{user} {event}");
            eventually(&line, async || application.errors().contains(&line).then_some(())).await;
        }
    }
    let mut raw = signalr(&cluster.nodes[0], "ann").await;
    for (method, error) in [
        ("Add", "two numbers are needed"),
        ("Fly", "there is no method Fly"),
    ] {
        assert_eq!(raw.call(method, json!([1])).await["error"], error);
    }
    let unsigned = hubcast_tests::http::Request::post("/upstream/messages/Add", "{}");
    assert_eq!(hubcast_tests::http::fetch(address, &unsigned).await.status(), 401);
}

#[tokio::test]
async fn an_application_in_php_serves_signalr_clients_of_three_nodes() {
    if Command::new("php").arg("--version").output().is_err() {
        return say("the PHP example skipped: there is no php");
    }
    let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let cluster = plan("signalr-php", address).balanced().start().await;
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut command = Command::new("php");
    command
        .args(["-S", &address.to_string(), "app.php"])
        .current_dir(example("signalr-php"))
        .env("PHP_CLI_SERVER_WORKERS", "4")
        .env(
            "HUBCAST_ENDPOINT",
            format!("http://{}", cluster.balancer().address()),
        )
        .env("HUBCAST_ACCESS_KEY", format!("{ACCESS_KEY},another-key"));
    let mut application = Process::start("php", &mut command, directory.path());
    listens(&mut application, address).await;
    let js = Js::start().await;
    for (node, transport) in ["WebSockets", "ServerSentEvents", "LongPolling"]
        .into_iter()
        .enumerate()
    {
        let hub = format!("http://{}/hubs/chat", cluster.nodes[node].address());
        let user = format!("ann{node}");
        let connect = Connect::to(&hub)
            .token(&token(&user, &json!({})))
            .transport(transport);
        let client = js.connect(connect).await;
        assert_eq!(client.call("Add", json!([2, 3])).await, json!(5));
        assert_eq!(client.call("WhoAmI", json!([])).await, json!(user));
        client.stop().await;
        for event in ["connected", "disconnected"] {
            let line = format!("{user} {event}");
            eventually(&line, async || application.errors().contains(&line).then_some(())).await;
        }
    }
    let mut ann = signalr(&cluster.nodes[0], "ann").await;
    let mut bob = signalr(&cluster.nodes[1], "bob").await;
    assert_eq!(bob.result("Say", json!(["grüezi"])).await, json!(null));
    assert_eq!(ann.expect("Said").await, json!(["bob", "grüezi"]));
    for (method, arguments, error) in [
        ("Say", json!([""]), "a text is needed"),
        ("Fly", json!([]), "there is no method Fly"),
        ("Add", json!([1]), "these are no arguments of Add"),
        ("Add", json!([1, "2"]), "these are no arguments of Add"),
    ] {
        assert_eq!(ann.call(method, arguments).await["error"], error);
    }
    // Nobody else may call it.
    let unsigned = hubcast_tests::http::Request::post("/messages/Add", "{}");
    assert_eq!(hubcast_tests::http::fetch(address, &unsigned).await.status(), 401);
}
