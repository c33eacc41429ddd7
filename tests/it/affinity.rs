//! Clients move freely between nodes. Without this check, all other tests behind the balancer would prove little.

use std::collections::BTreeSet;
use std::sync::Arc;

use hubcast_tests::balancer::Balanced;
use hubcast_tests::cluster::Plan;
use hubcast_tests::entry_point::EntryPoint;
use hubcast_tests::http::{Connection, Request};
use hubcast_tests::hub_client::{HubClient, Transport};
use hubcast_tests::js::{Connect, Js};
use serde_json::json;

fn nodes<'a>(requests: impl IntoIterator<Item = &'a Balanced>) -> BTreeSet<&'a str> {
    requests
        .into_iter()
        .map(|request| request.node.as_str())
        .collect()
}

#[tokio::test]
async fn the_balancer_spreads_the_requests_of_one_connection() {
    let cluster = Plan::nodes(3).balanced().start().await;
    let mut connection = Connection::open(cluster.balancer().address()).await.unwrap();
    for _ in 0..6 {
        assert_eq!(
            connection
                .fetch(&Request::get("/healthz?pinned"))
                .await
                .unwrap()
                .status(),
            200
        );
    }
    let requests = cluster.balancer().requests_with("pinned");
    assert_eq!(requests.len(), 6);
    for neighbours in requests.windows(3) {
        assert_eq!(
            nodes(neighbours).len(),
            3,
            "three requests in a row reach three nodes: {requests:?}"
        );
    }
}

#[tokio::test]
async fn polls_posts_and_delete_of_one_client_reach_several_nodes() {
    let mut cluster = Plan::nodes(3).balanced().start().await;
    let entry = Arc::new(EntryPoint::new(&[cluster.balancer().address()], &cluster.secrets));
    let mut client = HubClient::connect(&entry, Transport::LongPolling).await;
    for i in 0..12 {
        assert_eq!(client.result("Echo", json!([i])).await, i);
    }
    assert_eq!(entry.delete(client.token()).await.status(), 202);
    let requests = cluster.balancer().requests_with(client.token());
    for method in ["GET", "POST"] {
        let requests: Vec<_> = requests
            .iter()
            .filter(|request| request.method == method)
            .collect();
        assert!(
            requests.iter().all(|request| request.status == 200),
            "{requests:?}"
        );
        assert_eq!(
            nodes(requests).len(),
            3,
            "{method} of one client reached all nodes"
        );
    }
    assert!(
        cluster.sum("hubcast_forwarded_requests_total").await > 0.0,
        "so nodes had to forward"
    );
    cluster.has_connections(0).await;
}

#[tokio::test]
async fn posts_of_an_event_stream_reach_several_nodes() {
    let mut cluster = Plan::nodes(3).balanced().start().await;
    let entry = Arc::new(EntryPoint::new(&[cluster.balancer().address()], &cluster.secrets));
    let mut client = HubClient::connect(&entry, Transport::ServerSentEvents).await;
    for i in 0..12 {
        assert_eq!(client.result("Echo", json!([i])).await, i);
    }
    let requests = cluster.balancer().requests_with(client.token());
    let posts: Vec<_> = requests
        .iter()
        .filter(|request| request.method == "POST")
        .collect();
    assert_eq!(nodes(posts).len(), 3, "POSTs of one client reached all nodes");
    assert!(
        cluster.sum("hubcast_forwarded_requests_total").await > 0.0,
        "so nodes had to forward"
    );
}

#[tokio::test]
async fn requests_of_the_official_client_reach_several_nodes() {
    let cluster = Plan::nodes(3).balanced().start().await;
    let js = Js::start().await;
    let posts = || {
        let mut requests = cluster.balancer().requests_with("/hubs/demo?id=");
        requests.retain(|request| request.method == "POST");
        requests
    };
    for transport in ["LongPolling", "ServerSentEvents"] {
        let before = posts().len();
        let client = js
            .connect(Connect::to(&cluster.hub_url()).transport(transport))
            .await;
        for i in 0..12 {
            assert_eq!(client.call("Echo", json!([i])).await, i);
        }
        client.stop().await;
        let posts = posts();
        assert_eq!(
            nodes(&posts[before..]).len(),
            3,
            "POSTs of one {transport} client reached all nodes"
        );
    }
}
