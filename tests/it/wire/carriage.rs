//! Requests that need a connection id, and what is said when it is missing or not known.

use hubcast_tests::cluster::Cluster;
use hubcast_tests::http::Request;
use hubcast_tests::rest::{Rest, dated};

use super::UNKNOWN;

proves_on_one_node_and_on_two! { |plan| plan;
    a_request_without_an_id_is_refused,
    a_request_with_an_unknown_id_is_refused,
    refusals_are_plain_text,
    no_answer_may_be_stored,
    health_and_metrics_are_there,
}

fn requests(query: &str) -> Vec<(&'static str, Request)> {
    let target = format!("/hubs/demo{query}");
    vec![
        ("poll", Request::get(&target)),
        (
            "event stream",
            Request::get(&target).header("Accept", "text/event-stream"),
        ),
        ("POST", Request::post(&target, "x")),
        ("DELETE", Request::delete(&target)),
    ]
}

async fn a_request_without_an_id_is_refused(cluster: &mut Cluster) {
    let entry = cluster.entry();
    for query in ["", "?id=", "?ids=x", "?x=id"] {
        for (what, request) in requests(query) {
            assert_eq!(
                entry.fetch(&request).await.outcome(),
                (400, "Connection ID required"),
                "{what} {query}"
            );
        }
    }
}

async fn a_request_with_an_unknown_id_is_refused(cluster: &mut Cluster) {
    let entry = cluster.entry();
    for id in [
        "x",
        "AAAAAAAAAAAAAAAAAAAAAA",
        "%00",
        "%E2%82%AC",
        &"A".repeat(2_000),
    ] {
        for _ in 0..entry.nodes() {
            for (what, request) in requests(&format!("?id={id}")) {
                assert_eq!(entry.fetch(&request).await.outcome(), UNKNOWN, "{what} {id}");
            }
            assert_eq!(
                entry.upgrade(&format!("id={id}")).await.outcome(),
                UNKNOWN,
                "WebSocket {id}"
            );
        }
    }
}

async fn refusals_are_plain_text(cluster: &mut Cluster) {
    for query in ["", "?id=x"] {
        for (what, request) in requests(query) {
            let response = cluster.entry().fetch(&request).await;
            let kind = response.head.header("content-type").unwrap_or_default();
            assert!(kind.starts_with("text/plain"), "{what}: {kind}");
        }
    }
}

async fn no_answer_may_be_stored(cluster: &mut Cluster) {
    let rest = Rest::on(&cluster.nodes[0]);
    let mut requests: Vec<_> = ["", "?id=x"].into_iter().flat_map(requests).collect();
    requests.extend(
        [
            "/hubs/none",
            "/sse/none",
            "/client/",
            "/client/hubs/none",
            "/none",
            "/healthz",
            "/readyz",
            "/metrics",
            "/api/health",
            "/api/openapi.json",
            "/api/hubs/demo/users/x",
        ]
        .map(|path| ("GET", Request::get(path))),
    );
    requests.push(("REST", rest.request("HEAD", &dated("/users/x"))));
    requests.push(("negotiate", Request::post("/hubs/demo/negotiate", "")));
    requests.push(("421", Request::get("/healthz").header("Host", "evil.example.org")));
    for (what, request) in requests {
        let response = cluster.nodes[0].fetch(&request).await;
        let caches = response.head.header("cache-control").unwrap_or_default();
        assert!(caches.contains("no-store"), "{what} {request:?}: {caches:?}");
    }
}

async fn health_and_metrics_are_there(cluster: &mut Cluster) {
    for node in &cluster.nodes {
        assert_eq!(node.fetch(&Request::get("/healthz")).await.status(), 200);
        assert_eq!(node.fetch(&Request::get("/readyz")).await.status(), 200);
        let metrics = node.metrics().await;
        for name in ["hubcast_connections", "hubcast_tasks", "hubcast_outbox_bytes"] {
            assert!(metrics.has(name), "{name} is missing among {:?}", metrics.names());
        }
    }
}
