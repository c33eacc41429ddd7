//! The responses of negotiate.

use hubcast_tests::cluster::Cluster;
use hubcast_tests::http::Request;
use serde_json::{Value, json};

proves_on_one_node_and_on_two! { |plan| plan;
    version_1_gives_an_id_and_another_secret_token,
    version_0_gives_one_id_for_both,
    a_higher_version_is_answered_with_1,
    a_version_that_cannot_be_served_is_an_error_with_status_200,
    only_post_is_allowed,
    every_path_that_clients_use_is_the_same_hub,
    a_hub_that_is_not_there_is_not_found,
    nobody_is_offered_what_it_did_not_ask_for,
}

fn all_transports() -> Value {
    json!([
        { "transport": "WebSockets", "transferFormats": ["Text", "Binary"] },
        { "transport": "ServerSentEvents", "transferFormats": ["Text"] },
        { "transport": "LongPolling", "transferFormats": ["Text", "Binary"] },
    ])
}

async fn version_1_gives_an_id_and_another_secret_token(cluster: &mut Cluster) {
    let response = cluster.entry().negotiate_with("negotiateVersion=1").await;
    assert_eq!(response.status(), 200);
    assert_eq!(response.head.header("content-type"), Some("application/json"));
    assert_eq!(
        response.head.header("content-length"),
        Some(response.body.len().to_string().as_str())
    );
    let answer = response.json();
    assert_eq!(answer["negotiateVersion"], 1);
    assert_eq!(answer["availableTransports"], all_transports());
    let (id, token) = (
        answer["connectionId"].as_str().unwrap(),
        answer["connectionToken"].as_str().unwrap(),
    );
    assert_eq!(id.len(), 22, "16 random bytes: {id}");
    assert!(token.len() >= 22, "at least 16 random bytes: {token}");
    assert!(
        !token.contains(id),
        "the public id gives nothing of the token away"
    );
    let is_url_safe = |text: &str| {
        text.bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_' || b == b'.')
    };
    assert!(
        is_url_safe(id) && is_url_safe(token),
        "both fit into a query as they are: {id} {token}"
    );
    assert_eq!(
        answer.get("ProtocolVersion"),
        None,
        "the mark of an older protocol at which clients give up"
    );
}

async fn version_0_gives_one_id_for_both(cluster: &mut Cluster) {
    let entry = cluster.entry();
    let response = entry.negotiate_with("").await;
    assert_eq!(response.status(), 200);
    let answer = response.json();
    assert_eq!(answer["negotiateVersion"], 0);
    assert_eq!(answer.get("connectionToken"), None);
    assert_eq!(answer["availableTransports"], all_transports());
    let id = answer["connectionId"].as_str().unwrap();
    assert_eq!(entry.poll(id).await.outcome(), (200, ""), "the id is the token");
}

async fn a_higher_version_is_answered_with_1(cluster: &mut Cluster) {
    for query in ["negotiateVersion=2", "negotiateVersion=99", "NegotiateVersion=1"] {
        let answer = cluster.entry().negotiate_with(query).await.json();
        assert_eq!(answer["negotiateVersion"], 1, "{query}");
        assert!(answer["connectionToken"].is_string(), "{query}");
    }
}

async fn a_version_that_cannot_be_served_is_an_error_with_status_200(cluster: &mut Cluster) {
    let negative = "The client requested version '-1', but the server does not support this version.";
    let no_integer = "The client requested a non-integer protocol version.";
    for (query, error) in [
        ("negotiateVersion=-1", negative),
        ("negotiateVersion=one", no_integer),
        ("negotiateVersion=1.0", no_integer),
    ] {
        let response = cluster.entry().negotiate_with(query).await;
        assert_eq!(response.status(), 200, "{query}");
        assert_eq!(response.json()["error"], error, "{query}");
        assert_eq!(response.json().get("connectionId"), None, "{query}");
    }
}

async fn only_post_is_allowed(cluster: &mut Cluster) {
    let entry = cluster.entry();
    for method in ["GET", "PUT", "DELETE"] {
        let response = entry
            .fetch(&Request::new(method, "/hubs/demo/negotiate?negotiateVersion=1"))
            .await;
        assert_eq!(response.outcome(), (405, ""), "{method} negotiate");
    }
    for method in ["PUT", "PATCH"] {
        let response = entry.fetch(&Request::new(method, "/hubs/demo").body("")).await;
        assert_eq!(response.outcome(), (405, ""), "{method} on the hub");
    }
}

async fn every_path_that_clients_use_is_the_same_hub(cluster: &mut Cluster) {
    let entry = cluster.entry();
    for path in [
        "/hubs/demo/negotiate?negotiateVersion=1",
        "/client/negotiate?hub=demo&negotiateVersion=1",
        "/client/negotiate?negotiateVersion=1&hub=demo&x=y",
    ] {
        let response = entry.fetch(&Request::post(path, "")).await;
        assert_eq!(response.status(), 200, "{path}");
        let token = response.json()["connectionToken"].as_str().unwrap().to_owned();
        for hub in [
            "/hubs/demo?",
            "/hubs/demo/?",
            "/client/?hub=demo&",
            "/client?hub=demo&",
        ] {
            let poll = entry
                .fetch(&Request::get(&format!("{hub}id={token}&_=1700000000000")))
                .await;
            assert_eq!(poll.status(), 200, "{hub}");
            if poll.body.is_empty() {
                let handshake = "{\"protocol\":\"json\",\"version\":1}\u{1e}";
                entry
                    .fetch(&Request::post(&format!("{hub}id={token}"), handshake))
                    .await;
            } else {
                assert_eq!(poll.text(), "{}\u{1e}");
                break;
            }
        }
    }
}

async fn a_hub_that_is_not_there_is_not_found(cluster: &mut Cluster) {
    for path in [
        "/hubs/nothing/negotiate",
        "/client/negotiate?hub=nothing",
        "/client/negotiate",
    ] {
        let status = cluster.entry().fetch(&Request::post(path, "")).await.status();
        assert!(matches!(status, 400 | 404), "{path}: {status}");
    }
}

async fn nobody_is_offered_what_it_did_not_ask_for(cluster: &mut Cluster) {
    let answer = cluster.entry().negotiate_with("negotiateVersion=1").await.json();
    assert_eq!(
        answer.get("useStatefulReconnect"),
        None,
        "the official clients would give up"
    );
}
