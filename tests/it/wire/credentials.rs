//! The places of an access token: the header, or the query.

use std::sync::Arc;

use hubcast_tests::cluster::Cluster;
use hubcast_tests::entry_point::{EntryPoint, Negotiated};
use hubcast_tests::eventually::within;
use hubcast_tests::http::{Body, Request};
use hubcast_tests::hub_client::{HubClient, JSON_HANDSHAKE, Transport};
use hubcast_tests::jwt::token_for;
use hubcast_tests::websocket::WebSocket;
use serde_json::json;

proves_on_one_node_and_on_two! { |plan| plan.trace().set("auth.allow_anonymous", false);
    the_header_counts_for_every_request,
    the_query_counts_for_websockets,
    the_query_counts_for_event_streams,
    the_query_counts_for_negotiation_polls_and_posts,
    the_header_wins,
}

const WHO_AM_I: &str = "{\"type\":1,\"invocationId\":\"0\",\"target\":\"WhoAmI\",\"arguments\":[]}\u{1e}";

/// An access token that must not be logged.
fn token(cluster: &Cluster, user: &str) -> String {
    let token = token_for(user);
    cluster.secrets.add(&token);
    token
}

async fn the_header_counts_for_every_request(cluster: &mut Cluster) {
    let entry = Arc::new(cluster.entry().with_bearer(&token(cluster, "alice")));
    for transport in Transport::ALL {
        let mut client = HubClient::connect(&entry, transport).await;
        for _ in 0..entry.nodes() {
            let me = client.result("WhoAmI", json!([])).await;
            assert_eq!(me["userId"], "alice", "{transport:?}");
        }
        client.close().await;
    }
}

async fn asked_by_websocket(mut socket: WebSocket) -> String {
    socket.text(JSON_HANDSHAKE).await;
    socket.next().await.expect("the handshake's answer");
    socket.text(WHO_AM_I).await;
    let answer = socket.next().await.expect("an answer");
    answer.into_text().expect("text").as_str().to_owned()
}

async fn the_query_counts_for_websockets(cluster: &mut Cluster) {
    let (entry, token) = (cluster.entry(), token(cluster, "alice"));
    let with_token = entry.with_bearer(&token);
    for _ in 0..entry.nodes() {
        let Negotiated { token: id, .. } = with_token.negotiate().await;
        for query in [
            format!("access_token={token}"),
            format!("id={id}&access_token={token}"),
        ] {
            let socket = entry.websocket_with(&query).await.expect("the WebSocket opens");
            let me = asked_by_websocket(socket).await;
            assert!(me.contains("\"userId\":\"alice\""), "{me}");
            assert!(!me.contains(&token), "hub code is not shown the token");
        }
    }
}

/// Opens an event stream with headers and a query; `None` if it is refused with 401.
async fn events(entry: &EntryPoint, query: &str, bearer: Option<&str>) -> Option<Body> {
    let request = Request::get(&entry.target(query))
        .bearer(bearer)
        .header("Accept", "text/event-stream");
    let (head, body) = entry.start(&request).await;
    assert!(matches!(head.status, 200 | 401), "{}", head.status);
    (head.status == 200).then_some(body)
}

async fn asked_by_events(mut events: Body, posts: &EntryPoint, id: &str) -> String {
    assert_eq!(posts.post(id, JSON_HANDSHAKE).await.outcome(), (200, ""));
    assert_eq!(posts.post(id, WHO_AM_I).await.outcome(), (200, ""));
    let mut received = String::new();
    while !received.contains("\"type\":3") || !received.ends_with("\r\n\r\n") {
        let piece = within("an event", events.piece()).await.expect("it is whole");
        received.push_str(std::str::from_utf8(&piece.expect("the stream goes on")).expect("text"));
    }
    received
}

async fn the_query_counts_for_event_streams(cluster: &mut Cluster) {
    let (entry, token) = (cluster.entry(), token(cluster, "alice"));
    let posts = entry.with_bearer(&token);
    for _ in 0..entry.nodes() {
        let Negotiated { token: id, .. } = posts.negotiate().await;
        let query = format!("id={id}&access_token={token}");
        let stream = events(&entry, &query, None).await.expect("the stream opens");
        let me = asked_by_events(stream, &posts, &id).await;
        assert!(me.contains("\"userId\":\"alice\""), "{me}");
        assert!(!me.contains(&token), "hub code is not shown the token");
    }
}

/// Some clients have the token in the hub's URL, whose query goes with every request.
async fn the_query_counts_for_negotiation_polls_and_posts(cluster: &mut Cluster) {
    let (entry, token) = (cluster.entry(), token(cluster, "alice"));
    let with_token = Arc::new(entry.with_bearer(&token));
    let client = HubClient::connect(&with_token, Transport::LongPolling).await;
    let negotiate = format!("/hubs/demo/negotiate?negotiateVersion=1&access_token={token}");
    for _ in 0..entry.nodes() {
        assert_eq!(entry.fetch(&Request::post(&negotiate, "")).await.status(), 200);
        let target = entry.target(&format!("id={}&access_token={token}", client.token()));
        let post = Request::post(&target, "{\"type\":6}\u{1e}");
        assert_eq!(entry.fetch(&post).await.outcome(), (200, ""));
        let refused = target.replace(&token, "nonsense");
        for method in ["GET", "POST", "DELETE"] {
            let request = Request::new(method, &refused).body("");
            assert_eq!(entry.fetch(&request).await.status(), 401, "{method}");
        }
    }
    // A bad one does no harm beside a good header.
    for _ in 0..entry.nodes() {
        let target = entry.target(&format!("id={}&access_token=nonsense", client.token()));
        let post = Request::post(&target, "{\"type\":6}\u{1e}").bearer(Some(&token));
        assert_eq!(entry.fetch(&post).await.outcome(), (200, ""));
    }
    let delete = entry.target(&format!("id={}&access_token=nonsense", client.token()));
    let delete = Request::delete(&delete).bearer(Some(&token));
    assert_eq!(entry.fetch(&delete).await.outcome(), (202, ""));
}

async fn the_header_wins(cluster: &mut Cluster) {
    let (entry, alice, bob) = (cluster.entry(), token(cluster, "alice"), token(cluster, "bob"));
    let as_bob = entry.with_bearer(&bob);
    for other in [alice.as_str(), "nonsense", ""] {
        let query = format!("access_token={other}");
        let socket = as_bob.websocket_with(&query).await.expect("the WebSocket opens");
        let me = asked_by_websocket(socket).await;
        assert!(me.contains("\"userId\":\"bob\""), "{me}");

        let Negotiated { token: id, .. } = as_bob.negotiate().await;
        let query = format!("id={id}&{query}");
        let stream = events(&entry, &query, Some(&bob))
            .await
            .expect("the stream opens");
        let me = asked_by_events(stream, &as_bob, &id).await;
        assert!(me.contains("\"userId\":\"bob\""), "{me}");
    }
    let query = format!("access_token={alice}");
    let nobody = entry.with_bearer("nonsense");
    for _ in 0..entry.nodes() {
        assert_eq!(
            nobody.upgrade(&query).await.status(),
            401,
            "a good one in the query"
        );
        let Negotiated { token: id, .. } = as_bob.negotiate().await;
        let query = format!("id={id}&{query}");
        assert!(events(&entry, &query, Some("nonsense")).await.is_none());
    }
}
