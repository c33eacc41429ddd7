//! HTTP/2 in cleartext: all that clients do, also WebSockets (RFC 8441), on streams of one connection to each node.

use std::collections::HashSet;
use std::sync::Arc;

use hubcast_tests::cluster::Cluster;
use hubcast_tests::entry_point::EntryPoint;
use hubcast_tests::eventually::{eventually, within};
use hubcast_tests::http::Request;
use hubcast_tests::http2::Http2;
use hubcast_tests::hub_client::{HubClient, JSON_HANDSHAKE, Transport};
use hubcast_tests::messagepack::{self, Value as Pack};
use serde_json::json;

proves_on_one_node_and_on_two! { |plan| plan.set("timeouts.disconnect_seconds", 3);
    every_transport_works,
    messagepack_works,
    streams_of_one_connection_are_different_clients,
    a_stream_that_is_reset_ends_its_client_alone,
    a_poll_that_is_reset_no_longer_holds_its_client,
    a_connection_that_breaks_ends_the_clients_on_its_streams,
    a_client_that_closes_is_answered_and_forgotten,
    requests_are_refused_as_over_http_1,
    pages_of_the_gateway_itself_are_admitted,
    a_connect_for_something_else_than_a_websocket_is_refused,
}

async fn entry(cluster: &Cluster) -> Arc<EntryPoint> {
    Arc::new(cluster.entry().over_http2().await)
}

async fn every_transport_works(cluster: &mut Cluster) {
    let entry = entry(cluster).await;
    for transport in Transport::ALL {
        let mut client = HubClient::connect(&entry, transport).await;
        let me = client.result("WhoAmI", json!([])).await;
        assert_eq!(me["connectionId"], client.id());
        assert_eq!(me["transport"], format!("{transport:?}"));
        for i in 0..10 {
            let value = json!([i, "ä€😀", "x".repeat(1_000)]);
            assert_eq!(
                client.result("Echo", json!([value])).await,
                value,
                "{transport:?}"
            );
        }
        client
            .say(&json!({ "type": 4, "invocationId": "s", "target": "Counter", "arguments": [3, 1] }))
            .await;
        for item in 0..3 {
            let expected = json!({ "type": 2, "invocationId": "s", "item": item });
            assert_eq!(client.next().await, Some(expected), "{transport:?}");
        }
        let end = json!({ "type": 3, "invocationId": "s" });
        assert_eq!(client.next().await, Some(end), "{transport:?}");
    }
}

/// The host is in `:authority`, and there is no `Host`.
async fn pages_of_the_gateway_itself_are_admitted(cluster: &mut Cluster) {
    let address = cluster.nodes[0].address();
    let connection = Http2::open(address).await;
    let own = format!("http://{address}");
    for target in ["/hubs/demo", "/client/hubs/demo"] {
        let socket = connection.websocket(target, &[("Origin", &own)]).await;
        socket.expect("a page of its own may connect").vanish();
        let foreign = connection
            .websocket(target, &[("Origin", "http://evil.example")])
            .await;
        assert_eq!(foreign.err(), Some(403), "{target}");
    }
    for (origin, status) in [(own.as_str(), 200), ("http://evil.example", 403)] {
        let request = Request::get("/sse/demo").header("Origin", origin);
        let (head, _) = connection.start(&request).await.expect("it is answered");
        assert_eq!(head.status, status, "{origin}");
    }
}

async fn messagepack_works(cluster: &mut Cluster) {
    let entry = entry(cluster).await;
    for transport in [Transport::WebSockets, Transport::LongPolling] {
        let mut client = HubClient::connect_messagepack(&entry, transport).await;
        let bytes = Pack::Binary((0..=255).collect());
        let call = messagepack::invocation("0", "Echo", vec![bytes.clone()]);
        client.send(messagepack::frame(&call)).await;
        let answer = client.next_messagepack().await.expect("an answer");
        assert_eq!(answer[4], bytes, "{transport:?}");
    }
}

async fn streams_of_one_connection_are_different_clients(cluster: &mut Cluster) {
    let entry = entry(cluster).await;
    let mut clients = Vec::new();
    for _ in 0..4 {
        for transport in Transport::ALL {
            let mut client = HubClient::connect(&entry, transport).await;
            client.result("JoinGroup", json!(["all"])).await;
            clients.push(client);
        }
    }
    let ids: HashSet<String> = clients.iter().map(|client| client.id().to_owned()).collect();
    assert_eq!(ids.len(), clients.len(), "each has an id of its own");
    cluster.has_connections(12).await;
    for id in &ids {
        let text = json!([id, format!("for {id}")]);
        clients[0].result("SendToConnection", text).await;
    }
    clients[0].result("SendToGroup", json!(["all", "the end"])).await;
    for client in &mut clients {
        // The message to all is the last one: what came before it is all that was for this client.
        let direct = client.next().await.expect("a message");
        assert_eq!(direct["target"], "DirectMessage");
        assert_eq!(direct["arguments"], json!([format!("for {}", client.id())]));
        let last = client.next().await.expect("a message");
        assert_eq!(last["arguments"], json!(["all", "the end"]));
    }
}

async fn a_stream_that_is_reset_ends_its_client_alone(cluster: &mut Cluster) {
    let entry = entry(cluster).await;
    for transport in [Transport::ServerSentEvents, Transport::WebSockets] {
        let gone = HubClient::connect(&entry, transport).await;
        let mut others = Vec::new();
        for transport in Transport::ALL {
            others.push(HubClient::connect(&entry, transport).await);
        }
        cluster.has_connections(4).await;
        drop(gone); // RST_STREAM, and nothing else: the connection is needed for the others
        cluster.has_connections(3).await;
        for mut other in others {
            assert_eq!(other.result("Echo", json!(["still here"])).await, "still here");
            other.close().await;
        }
        cluster.has_connections(0).await;
    }
    cluster.is_tidy().await;
}

async fn a_poll_that_is_reset_no_longer_holds_its_client(cluster: &mut Cluster) {
    let entry = entry(cluster).await;
    let client = HubClient::connect(&entry, Transport::LongPolling).await;
    let poll = || {
        let (entry, token) = (Arc::clone(&entry), client.token().to_owned());
        tokio::spawn(async move { entry.poll(&token).await })
    };
    let (one, other) = (poll(), poll());
    // One of them ends because the other one waits.
    eventually("one of the polls ends", async || {
        (one.is_finished() || other.is_finished()).then_some(())
    })
    .await;
    let waiting = if one.is_finished() { other } else { one };
    waiting.abort(); // RST_STREAM
    cluster.is_tidy().await; // long before the poll's own end
}

async fn a_connection_that_breaks_ends_the_clients_on_its_streams(cluster: &mut Cluster) {
    let (breaking, lasting) = (entry(cluster).await, entry(cluster).await);
    let mut other = HubClient::connect(&lasting, Transport::ServerSentEvents).await;
    let mut clients = Vec::new();
    for _ in 0..3 {
        for transport in [Transport::ServerSentEvents, Transport::WebSockets] {
            clients.push(HubClient::connect(&breaking, transport).await);
        }
    }
    cluster.has_connections(7).await;
    for connection in breaking.http2() {
        connection.vanish();
    }
    cluster.has_connections(1).await;
    for mut client in clients {
        assert_eq!(client.rest().await, Vec::<serde_json::Value>::new());
    }
    assert_eq!(other.result("Echo", json!([1])).await, 1);
}

async fn a_client_that_closes_is_answered_and_forgotten(cluster: &mut Cluster) {
    let entry = entry(cluster).await;
    for transport in Transport::ALL {
        let mut client = HubClient::connect(&entry, transport).await;
        client.say(&json!({ "type": 7 })).await;
        assert_eq!(client.rest().await, [json!({ "type": 7 })], "{transport:?}");
    }
    cluster.is_tidy().await;
}

async fn requests_are_refused_as_over_http_1(cluster: &mut Cluster) {
    let (one, two) = (cluster.entry(), entry(cluster).await);
    let socket = HubClient::connect(&two, Transport::WebSockets).await;
    let events = HubClient::connect(&two, Transport::ServerSentEvents).await;
    let stream = |token: &str| two.request("GET", token).header("Accept", "text/event-stream");
    for request in [
        Request::get("/hubs/demo"),
        Request::post("/hubs/demo", "x"),
        Request::get("/hubs/demo?id=x"),
        Request::delete("/hubs/demo?id=x"),
        Request::get("/hubs/demo/negotiate"),
        Request::post("/hubs/nothing/negotiate", ""),
        Request::new("PUT", "/hubs/demo").body(""),
        two.request("POST", socket.token()).body("x"),
        two.request("DELETE", socket.token()),
        two.request("GET", socket.token()),
        two.request("DELETE", events.token()),
        stream(events.token()),
        stream(socket.token()),
    ] {
        for _ in 0..two.nodes() {
            let (expected, refusal) = (one.fetch(&request).await, two.fetch(&request).await);
            assert_eq!(refusal.outcome(), expected.outcome(), "{request:?}");
            assert!(refusal.status() >= 400, "{request:?}");
        }
    }
    for _ in 0..two.nodes() {
        assert_eq!(two.websocket("x").await.err(), Some(404));
        assert_eq!(two.websocket(socket.token()).await.err(), Some(409));
        assert_eq!(two.websocket(events.token()).await.err(), Some(400));
    }
    let mut fresh = two.websocket_with("").await.expect("a WebSocket needs no id");
    fresh.text(JSON_HANDSHAKE).await;
    assert!(fresh.next().await.is_some());
}

async fn a_connect_for_something_else_than_a_websocket_is_refused(cluster: &mut Cluster) {
    let entry = entry(cluster).await;
    for connection in entry.http2() {
        for protocol in ["connect-udp", "websockets", "x"] {
            let refusal = within("a refusal", connection.connect(protocol, "/hubs/demo", &[])).await;
            assert!(
                refusal.status().is_client_error(),
                "{protocol}: {}",
                refusal.status()
            );
        }
    }
    let mut client = HubClient::connect(&entry, Transport::WebSockets).await;
    assert_eq!(client.result("Echo", json!(["unharmed"])).await, "unharmed");
}
