//! Access to the REST API.

use hubcast_tests::http::Request;
use hubcast_tests::hub_client::{HubClient, Transport};
use hubcast_tests::jwt::{ACCESS_KEY, now, token_as, token_for, token_with, unsigned_token};
use hubcast_tests::rest::{Rest, dated};
use jsonwebtoken::Algorithm;
use serde_json::{Value, json};

use super::{World, say};

const SECOND_KEY: &str = "the-second-access-key-of-the-black-box-tests";

/// The status of a broadcast with this token.
async fn status(rest: &Rest, target: &str, token: &str) -> u16 {
    let request = Request::post(target, say("x").to_string())
        .bearer(Some(token))
        .header("Content-Type", "application/json");
    let response = rest.fetch(&request).await;
    if response.status() == 401 {
        assert_eq!(response.head.header("www-authenticate"), Some("Bearer"));
        assert_eq!(response.json()["code"], "Error.Request.Unauthorized");
        assert!(!response.text().contains(ACCESS_KEY));
        assert!(token.is_empty() || !response.text().contains(token));
    }
    response.status()
}

/// The claims of a good token with some of them changed.
fn claims(rest: &Rest, target: &str, changes: &Value) -> Value {
    let mut claims = rest.claims(target);
    for (name, value) in changes.as_object().unwrap() {
        claims[name] = value.clone();
    }
    claims
}

#[tokio::test]
async fn both_keys_and_both_algorithms_open_every_node() {
    let world = World::with(|plan| plan.set("access_key_secondary", SECOND_KEY)).await;
    let target = dated("/:send");
    for node in &world.cluster.nodes {
        let rest = Rest::on(node);
        for key in [ACCESS_KEY, SECOND_KEY] {
            for algorithm in [Algorithm::HS256, Algorithm::HS512] {
                let token = token_as(algorithm, &rest.claims(&target), key.as_bytes());
                world.cluster.secrets.add(&token);
                assert_eq!(status(&rest, &target, &token).await, 202, "{algorithm:?}");
            }
        }
    }
    world.ends().await;
}

#[tokio::test]
async fn a_token_is_for_its_url_and_its_time() {
    let world = World::with(|plan| plan.trace()).await;
    let (rest, target) = (world.rest, dated("/users/u%201/:send"));
    let url = |path: &str| format!("http://127.0.0.1{path}");
    for good in [
        json!({}),
        json!({ "aud": url("/api/hubs/demo/users/u%201/:send") }),
        json!({ "aud": url("/api/hubs/DEMO/users/u%201/%3Asend/") }),
        json!({ "aud": "https://127.0.0.1:9/api/hubs/demo/users/u%201/:send?api-version=x" }),
        json!({ "aud": ["other", url("/api/hubs/demo/users/u%201/:send")] }),
        json!({ "exp": now() - 5 }), // within the tolerance
    ] {
        let token = token_with(&claims(&rest, &target, &good), ACCESS_KEY);
        assert_eq!(status(&rest, &target, &token).await, 202, "{good}");
    }
    for bad in [
        json!({ "aud": url("/api/hubs/demo/users/U%201/:send") }),
        json!({ "aud": url("/api/hubs/demo/users/u/:send") }),
        json!({ "aud": url("/api/hubs/demo") }),
        json!({ "aud": url("/api/hubs/other/users/u%201/:send") }),
        json!({ "aud": url("/client/?hub=demo") }),
        json!({ "aud": url("/server/?hub=demo") }),
        json!({ "aud": "http://elsewhere.example/api/hubs/demo/users/u%201/:send" }),
        json!({ "aud": "/api/hubs/demo/users/u%201/:send" }),
        json!({ "aud": "/hubs/demo" }),
        json!({ "aud": "*" }),
        json!({ "aud": "" }),
        json!({ "aud": [] }),
        json!({ "aud": null }),
        json!({ "aud": 7 }),
        json!({ "exp": now() - 600 }),
        json!({ "exp": null }),
        json!({ "nbf": now() + 600 }),
    ] {
        let token = token_with(&claims(&rest, &target, &bad), ACCESS_KEY);
        world.cluster.secrets.add(&token);
        assert_eq!(status(&rest, &target, &token).await, 401, "{bad}");
    }
    let good = rest.claims(&target);
    for token in [
        token_with(&good, "another-key-that-nobody-should-ever-accept"),
        token_with(&good, ""),
        token_as(Algorithm::HS384, &good, ACCESS_KEY.as_bytes()),
        unsigned_token(&good),
        "nonsense".to_owned(),
        String::new(),
        "x".repeat(20_000),
    ] {
        assert_eq!(status(&rest, &target, &token).await, 401, "{token}");
    }
    for request in [
        Request::post(&target, "{}"),
        Request::post(&target, "{}").header("Authorization", &format!("Basic {}", rest.token(&target))),
        Request::post(&format!("{target}&access_token={}", rest.token(&target)), "{}"),
    ] {
        let response = rest.fetch(&request).await;
        assert_eq!(response.status(), 401);
    }
    world.ends().await;
}

#[tokio::test]
async fn tokens_of_clients_and_back_ends_open_nothing_of_each_other() {
    let world = World::start().await;
    let (rest, target) = (world.rest, dated("/:send"));
    for client in [
        token_for("ann"),
        token_with(
            &json!({ "nameid": "ann", "exp": now() + 600, "aud": "http://127.0.0.1/client/?hub=demo" }),
            ACCESS_KEY,
        ),
    ] {
        assert_eq!(status(&rest, &target, &client).await, 401);
    }
    let entry = world.cluster.entry_on(2).with_bearer(&rest.token(&target));
    assert_eq!(entry.negotiate_with("negotiateVersion=1").await.status(), 401);
    assert_eq!(entry.upgrade("").await.status(), 401);
    let anonymous = world.cluster.entry_on(2);
    let query = format!("access_token={}", rest.token(&target));
    assert_eq!(anonymous.upgrade(&query).await.status(), 401);
    world.ends().await;
}

#[tokio::test]
async fn listed_hosts_take_the_place_of_the_requested_one() {
    let world = World::with(|plan| plan.set("auth.audience_hosts", "signalr.example, b.example")).await;
    let (rest, target) = (world.rest, dated("/:send"));
    for (host, expected) in [
        ("SignalR.example:8443", 202),
        ("b.example", 202),
        ("127.0.0.1", 401),
        ("c.example", 401),
    ] {
        let aud = json!({ "aud": format!("https://{host}{target}") });
        let token = token_with(&claims(&rest, &target, &aud), ACCESS_KEY);
        assert_eq!(status(&rest, &target, &token).await, expected, "{host}");
    }
    world.ends().await;
}

#[tokio::test]
async fn a_back_end_gets_tokens_for_clients() {
    let world = World::start().await;
    let target = "/api/hubs/demo/:generateToken?api-version=2022-11-01&userId=dora&minutesToExpire=5&role=a";
    let response = world.rest.fetch(&world.rest.request("POST", target)).await;
    assert_eq!(response.status(), 200, "{}", response.text());
    let token = response.json()["token"].as_str().unwrap().to_owned();
    assert_eq!(
        status(&world.rest, &dated("/:send"), &token).await,
        401,
        "it is for clients"
    );
    let entry = std::sync::Arc::new(world.cluster.entry_on(0).with_bearer(&token));
    let mut dora = HubClient::connect(&entry, Transport::WebSockets).await;
    assert_eq!(dora.result("WhoAmI", json!([])).await["userId"], "dora");
    dora.close().await;
    for bad in ["minutesToExpire=0", "minutesToExpire=x", "userId="] {
        let target = format!("/api/hubs/demo/:generateToken?api-version=2022-11-01&{bad}");
        let response = world.rest.fetch(&world.rest.request("POST", &target)).await;
        assert_eq!(response.status(), 400, "{bad}");
    }
    assert_eq!(
        world.rest.call("POST", "/:generateToken").await.status(),
        400,
        "too old a version"
    );
    world.ends().await;
}

/// The output of the command line, with the access key of the tests.
fn hubcast(arguments: &[&str]) -> String {
    let output = hubcast_tests::built::gateway_command()
        .args(arguments)
        .env("HUBCAST_ACCESS_KEY", ACCESS_KEY)
        .output()
        .expect("the binary can be started");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).expect("it prints text")
}

#[tokio::test]
async fn the_command_line_makes_tokens_and_connection_strings() {
    let world = World::start().await;
    let target = dated("/:send");
    let url = format!("http://{}{target}", world.rest.address());
    let token = hubcast(&["token", "--rest", &url]);
    assert_eq!(status(&world.rest, &target, token.trim()).await, 202);
    let other = dated("/users/u/:send");
    assert_eq!(status(&world.rest, &other, token.trim()).await, 401);
    let string = hubcast(&["check", "--listen", "0.0.0.0:8888", "--connection-string"]);
    assert_eq!(
        string,
        format!("Endpoint=http://127.0.0.1:8888;AccessKey={ACCESS_KEY};Version=1.0;\n")
    );
    assert!(!hubcast(&["check"]).contains(ACCESS_KEY));
    world.ends().await;
}
