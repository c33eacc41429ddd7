//! Pages of other origins.

use hubcast_tests::cluster::Cluster;
use hubcast_tests::http::{Head, Request};
use hubcast_tests::hub_client::{HubClient, Transport};
use hubcast_tests::websocket::WebSocket;
use serde_json::json;

proves_on_one_node_and_on_two! { |plan| plan.set("cors.allowed_origins", "https://a.example,https://b.example");
    a_page_of_an_allowed_origin_may_ask_before_it_asks,
    a_page_of_another_origin_is_not_told_that_it_may,
    every_answer_names_the_exact_origin,
    a_websocket_is_opened_for_allowed_origins_only,
}

fn preflight(target: &str, origin: &str, method: &str) -> Request {
    Request::new("OPTIONS", target)
        .header("Origin", origin)
        .header("Access-Control-Request-Method", method)
        .header(
            "Access-Control-Request-Headers",
            "authorization,x-requested-with,x-signalr-user-agent,traceparent",
        )
}

fn is_allowed(head: &Head, origin: &str) {
    assert_eq!(
        head.header("access-control-allow-origin"),
        Some(origin),
        "the exact origin, because of credentials"
    );
    assert_eq!(head.header("access-control-allow-credentials"), Some("true"));
    assert!(
        head.list("vary").contains(&"origin".to_owned()),
        "caches must know: {:?}",
        head.list("vary")
    );
}

async fn a_page_of_an_allowed_origin_may_ask_before_it_asks(cluster: &mut Cluster) {
    for origin in ["https://a.example", "https://b.example"] {
        for (target, method) in [
            ("/hubs/demo/negotiate?negotiateVersion=1", "POST"),
            ("/client/negotiate?hub=demo", "POST"),
            ("/hubs/demo?id=x", "GET"),
            ("/hubs/demo?id=x", "DELETE"),
        ] {
            let response = cluster.entry().fetch(&preflight(target, origin, method)).await;
            assert!(
                matches!(response.status(), 200 | 204),
                "{method} {target}: {}",
                response.status()
            );
            is_allowed(&response.head, origin);
            let methods = response.head.list("access-control-allow-methods");
            assert!(
                ["get", "post", "delete"]
                    .iter()
                    .all(|m| methods.contains(&(*m).to_owned())),
                "{methods:?}"
            );
            let headers = response.head.list("access-control-allow-headers");
            for header in [
                "authorization",
                "x-requested-with",
                "x-signalr-user-agent",
                "traceparent", // whatever its libraries add
            ] {
                assert!(
                    headers.contains(&header.to_owned()),
                    "{header} is not among {headers:?}"
                );
            }
        }
    }
}

async fn a_page_of_another_origin_is_not_told_that_it_may(cluster: &mut Cluster) {
    for origin in [
        "https://evil.example",
        "https://a.example.evil.example",
        "http://a.example",
        "null",
    ] {
        let target = "/hubs/demo/negotiate?negotiateVersion=1";
        let response = cluster.entry().fetch(&preflight(target, origin, "POST")).await;
        assert_eq!(
            response.head.header("access-control-allow-origin"),
            None,
            "{origin}"
        );
        let response = cluster
            .entry()
            .fetch(&Request::post(target, "").header("Origin", origin))
            .await;
        assert_eq!(
            response.head.header("access-control-allow-origin"),
            None,
            "{origin}"
        );
    }
}

async fn every_answer_names_the_exact_origin(cluster: &mut Cluster) {
    let entry = cluster.entry();
    let origin = "https://b.example";
    let client = HubClient::connect(&entry, Transport::LongPolling).await;
    let events = entry.negotiate().await.token;
    let requests = [
        Request::post(
            &entry.target("negotiateVersion=1").replace('?', "/negotiate?"),
            "",
        ),
        entry.request("POST", client.token()).body("{\"type\":6}\u{1e}"),
        entry.request("DELETE", client.token()),
        entry
            .request("GET", &events)
            .header("Accept", "text/event-stream"),
        entry.request("GET", "unknown"),
        Request::get(&entry.target("")),
    ];
    for request in requests {
        let (head, _) = entry.start(&request.header("Origin", origin)).await;
        is_allowed(&head, origin);
    }
}

async fn a_websocket_is_opened_for_allowed_origins_only(cluster: &mut Cluster) {
    let entry = cluster.entry();
    let own = format!("http://{}", cluster.nodes[0].address());
    for origin in ["https://a.example", "https://b.example", &own] {
        let socket = WebSocket::open(
            cluster.nodes[0].address(),
            &entry.target(""),
            &[("Origin", origin)],
        )
        .await;
        assert!(socket.is_ok(), "{origin}: {:?}", socket.err());
    }
    // Browsers send no preflight before a WebSocket, and they send cookies along.
    for origin in ["https://evil.example", "null"] {
        let socket = WebSocket::open(entry.turn(), &entry.target(""), &[("Origin", origin)]).await;
        assert_eq!(socket.err(), Some(403), "{origin}");
    }
    let mut client = HubClient::connect(&entry, Transport::WebSockets).await;
    assert_eq!(
        client.result("Echo", json!([1])).await,
        1,
        "no browser, no origin"
    );
}
