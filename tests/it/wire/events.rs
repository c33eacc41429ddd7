//! Server-sent events.

use hubcast_tests::cluster::Cluster;
use hubcast_tests::entry_point::Negotiated;
use hubcast_tests::eventually::within;
use hubcast_tests::http::Body;
use hubcast_tests::hub_client::{HubClient, JSON_HANDSHAKE, Transport};
use serde_json::json;

proves_on_one_node_and_on_two! { |plan| plan;
    the_stream_begins_with_the_bytes_that_every_client_understands,
    each_event_is_one_line_that_ends_with_cr_lf,
    a_second_stream_on_a_connection_is_refused,
    the_stream_ends_with_its_connection,
    a_stream_that_breaks_ends_its_connection,
    the_accept_header_may_be_a_list,
}

async fn read(connection: &mut Body, length: usize) -> String {
    let mut bytes = Vec::new();
    while bytes.len() < length {
        let piece = within("bytes of the stream", connection.piece()).await.unwrap();
        bytes.extend_from_slice(&piece.expect("the stream goes on"));
    }
    String::from_utf8(bytes).unwrap()
}

async fn the_stream_begins_with_the_bytes_that_every_client_understands(cluster: &mut Cluster) {
    let entry = cluster.entry();
    let Negotiated { token, .. } = entry.negotiate().await;
    let (head, mut connection) = entry.events(&token).await;
    assert_eq!(head.status, 200);
    assert_eq!(head.header("content-type"), Some("text/event-stream"));
    assert_eq!(
        head.list("cache-control"),
        ["no-cache", "no-store", "no-transform"]
    );
    assert_eq!(head.header("pragma"), Some("no-cache"));
    assert_eq!(head.header("content-encoding"), Some("identity"));
    assert_eq!(head.header("content-length"), None);
    assert_eq!(
        read(&mut connection, 3).await,
        ":\r\n",
        "before anything was sent"
    );
}

async fn each_event_is_one_line_that_ends_with_cr_lf(cluster: &mut Cluster) {
    let entry = cluster.entry();
    let Negotiated { token, .. } = entry.negotiate().await;
    let (_, mut connection) = entry.events(&token).await;
    read(&mut connection, 3).await;
    assert_eq!(entry.post(&token, JSON_HANDSHAKE).await.outcome(), (200, ""));
    assert_eq!(read(&mut connection, 13).await, "data: {}\u{1e}\r\n\r\n");
    let text = "line\nline\r\nä€😀";
    let call = json!({ "type": 1, "invocationId": "0", "target": "Echo", "arguments": [text] });
    assert_eq!(
        entry.post(&token, format!("{call}\u{1e}")).await.outcome(),
        (200, "")
    );
    let expected =
        "data: {\"type\":3,\"invocationId\":\"0\",\"result\":\"line\\nline\\r\\nä€😀\"}\u{1e}\r\n\r\n";
    assert_eq!(read(&mut connection, expected.len()).await, expected);
}

async fn a_second_stream_on_a_connection_is_refused(cluster: &mut Cluster) {
    let entry = cluster.entry();
    let mut client = HubClient::connect(&entry, Transport::ServerSentEvents).await;
    for _ in 0..entry.nodes() {
        let request = entry
            .request("GET", client.token())
            .header("Accept", "text/event-stream");
        assert_eq!(entry.fetch(&request).await.outcome(), (409, ""));
    }
    assert_eq!(client.result("Echo", json!([1])).await, 1);
}

async fn the_stream_ends_with_its_connection(cluster: &mut Cluster) {
    let entry = cluster.entry();
    let mut client = HubClient::connect(&entry, Transport::ServerSentEvents).await;
    client.say(&json!({ "type": 7 })).await;
    assert_eq!(client.rest().await, [json!({ "type": 7 })]);
    let mut client = HubClient::connect(&entry, Transport::ServerSentEvents).await;
    client
        .say(&json!({ "type": 1, "target": "Abort", "arguments": [] }))
        .await;
    assert_eq!(client.rest().await, [json!({ "type": 7 })]);
    cluster.has_connections(0).await;
}

async fn a_stream_that_breaks_ends_its_connection(cluster: &mut Cluster) {
    let entry = cluster.entry();
    let clients = [
        HubClient::connect(&entry, Transport::ServerSentEvents).await,
        HubClient::connect(&entry, Transport::ServerSentEvents).await,
    ];
    cluster.has_connections(2).await;
    drop(clients);
    cluster.has_connections(0).await;
}

async fn the_accept_header_may_be_a_list(cluster: &mut Cluster) {
    let entry = cluster.entry();
    for accept in [
        "text/event-stream, */*",
        "application/json;q=0.5, text/event-stream;q=0.9",
    ] {
        let Negotiated { token, .. } = entry.negotiate().await;
        let (head, _) = entry
            .start(&entry.request("GET", &token).header("Accept", accept))
            .await;
        assert_eq!(head.header("content-type"), Some("text/event-stream"), "{accept}");
    }
}
