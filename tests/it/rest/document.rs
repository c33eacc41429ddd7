//! The OpenAPI document, and a real node that keeps to it.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use hubcast_tests::cluster::{Cluster, Plan};
use hubcast_tests::http::Request;
use hubcast_tests::jwt::{now, token_with};
use hubcast_tests::rest::dated;
use serde_json::json;
use tokio::time::timeout;

use super::{World, say};
use crate::clients;

/// The bound on the whole run, which has a shorter one of its own.
const BOUND: Duration = Duration::from_secs(300);

/// Requests that keep to the document and requests that don't, of every kind: none may fail in the gateway or be answered
/// in another way than the document says. The node is a demo without a key, for which one token opens every URL.
#[tokio::test]
async fn a_node_keeps_to_its_document() {
    keeps_to_it("signalr", &["--exclude-tag", "Azure Web PubSub"], 60).await;
}

#[tokio::test]
async fn a_node_with_the_api_of_web_pubsub_keeps_to_its_document() {
    keeps_to_it("webpubsub", &["--include-tag", "Azure Web PubSub"], 20).await;
}

/// Checks the operations that `chosen` chooses, for so many seconds, on hubs with this REST API.
async fn keeps_to_it(rest_api: &str, chosen: &[&str], seconds: u64) {
    let interpreter = clients::prepare_python("schemathesis", Path::new(REQUIREMENTS))
        .unwrap_or_else(|error| panic!("schemathesis can't be installed: {error}"));
    let mut cluster = Plan::one_node()
        .set("access_key", "")
        .set("hubs.rest_api", rest_api)
        .set("timeouts.client_result_seconds", 0.1)
        .start()
        .await;
    let log = cluster.nodes[0].log();
    let key = log
        .split("AccessKey=")
        .nth(1)
        .and_then(|rest| rest.split(';').next());
    let key = key.expect("a demo without a key prints its connection string");
    let token = token_with(&json!({ "exp": now() + 3_600 }), key);
    let directory = tempfile::tempdir().unwrap();
    let document = directory.path().join("openapi.json");
    std::fs::write(&document, document_of_demo(&cluster).await).unwrap();
    let mut command = tokio::process::Command::new(interpreter.with_file_name("schemathesis"));
    command
        .arg("run")
        .arg(&document)
        .args(["--url", &format!("http://{}", cluster.nodes[0].address())])
        .args(["--header", &format!("Authorization: Bearer {token}")])
        .args(["--checks", CHECKS])
        .args([
            "--phases",
            "examples,coverage,fuzzing",
            "--max-time",
            &seconds.to_string(),
            "--seed",
            "1",
        ])
        .args(chosen)
        .args(["--continue-on-failure", "--no-color", "--warnings", "off"])
        .current_dir(directory.path())
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let output = timeout(BOUND, command.output())
        .await
        .expect("schemathesis ends")
        .expect("schemathesis can be started");
    let report = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{}\n{report}{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    if let Some(summary) = report.find("Test cases:") {
        let lines = report[summary..].lines().take(4).map(str::trim);
        clients::say(&format!("schemathesis: {}", lines.collect::<Vec<_>>().join(" ")));
    }
    cluster.has_connections(0).await;
    cluster.logs_are_clean();
}

/// The document with the one hub that the node has: most requests shall find it.
async fn document_of_demo(cluster: &Cluster) -> String {
    let response = cluster.nodes[0].fetch(&Request::get("/api/openapi.json")).await;
    let mut document = response.json();
    let paths = document["paths"].as_object_mut().unwrap().values_mut();
    let operations = paths.flat_map(|path| path.as_object_mut().unwrap().values_mut());
    for parameters in operations.filter_map(|operation| operation.get_mut("parameters")) {
        let all = parameters.as_array_mut().unwrap();
        all.retain(|parameter| parameter["name"] != "application");
        for hub in all.iter_mut().filter(|parameter| parameter["name"] == "hub") {
            hub["schema"] = json!({ "type": "string", "enum": ["demo", "DEMO"] });
        }
    }
    document.to_string()
}

const REQUIREMENTS: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/clients/schemathesis/requirements.txt"
);

const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,\
    response_schema_conformance,unsupported_method,allow_header_conformance";

#[tokio::test]
async fn the_document_is_open_and_the_same_on_every_node() {
    let world = World::start().await;
    let mut documents = Vec::new();
    for node in &world.cluster.nodes {
        let response = node.fetch(&Request::get("/api/openapi.json")).await;
        assert_eq!(response.status(), 200);
        assert_eq!(response.head.header("content-type"), Some("application/json"));
        documents.push(response.json());
    }
    assert!(documents.iter().all(|document| *document == documents[0]));
    let paths = documents[0]["paths"].as_object().unwrap();
    for path in [
        "/api/hubs/{hub}/:send",
        "/api/v1/hubs/{hub}",
        "/api/hubs/{hub}/:batch",
    ] {
        assert!(paths.contains_key(path), "{path}");
    }
    world.ends().await;
}

#[tokio::test]
async fn a_key_that_is_configured_is_printed_nowhere() {
    let world = World::with(Plan::trace).await;
    assert_eq!(world.rest.send("/:send", &say("x")).await.status(), 202);
    assert_eq!(
        world
            .rest
            .fetch(&Request::post(&dated("/:send"), "{}"))
            .await
            .status(),
        401
    );
    world.cluster.secrets.add(hubcast_tests::jwt::ACCESS_KEY);
    world.cluster.secrets.add("AccessKey=");
    world.ends().await;
}
