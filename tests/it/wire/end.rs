//! How connections end.

use hubcast_tests::cluster::Cluster;
use hubcast_tests::hub_client::{HubClient, JSON_HANDSHAKE, Transport};
use hubcast_tests::messagepack;
use hubcast_tests::websocket::{CloseCode, CloseFrame, Message, WebSocket};
use serde_json::json;

proves_on_one_node_and_on_two! { |plan| plan;
    a_websocket_ends_with_close_message_and_close_frame,
    a_client_that_closes_is_answered_and_forgotten,
    a_close_frame_is_answered_with_its_code,
    what_breaks_the_protocol_ends_with_1000_behind_all_answers,
    an_aborted_client_may_not_reconnect,
    messagepack_clients_get_a_messagepack_close,
    a_client_that_vanishes_is_forgotten,
    a_client_that_never_spoke_is_forgotten,
}

async fn a_websocket_ends_with_close_message_and_close_frame(cluster: &mut Cluster) {
    let mut socket = cluster
        .entry()
        .websocket_with("")
        .await
        .expect("the WebSocket opens");
    socket.text(JSON_HANDSHAKE).await;
    assert_eq!(socket.next().await, Some(Message::text("{}\u{1e}")));
    socket
        .text("{\"type\":1,\"target\":\"Abort\",\"arguments\":[]}\u{1e}")
        .await;
    assert_eq!(socket.next().await, Some(Message::text("{\"type\":7}\u{1e}")));
    let Some(Message::Close(Some(frame))) = socket.next().await else {
        panic!("no Close frame")
    };
    assert_eq!((frame.code, frame.reason.as_str()), (CloseCode::Normal, ""));
}

async fn a_client_that_closes_is_answered_and_forgotten(cluster: &mut Cluster) {
    let entry = cluster.entry();
    for transport in Transport::ALL {
        let mut client = HubClient::connect(&entry, transport).await;
        client.say(&json!({ "type": 7 })).await;
        assert_eq!(client.rest().await, [json!({ "type": 7 })], "{transport:?}");
    }
    cluster.is_tidy().await;
}

/// A socket of the demo hub after its handshake, with stateful reconnect or without.
async fn greeted(cluster: &Cluster, version: u8) -> WebSocket {
    let entry = cluster.entry();
    let mut socket = match version {
        1 => entry.websocket_with("").await,
        _ => {
            let negotiated = entry
                .negotiate_with("negotiateVersion=1&useStatefulReconnect=true")
                .await;
            let token = negotiated.json()["connectionToken"].clone();
            entry.websocket(token.as_str().expect("a token")).await
        }
    }
    .expect("the WebSocket opens");
    let handshake = format!("{{\"protocol\":\"json\",\"version\":{version}}}\u{1e}");
    socket.text(&handshake).await;
    assert_eq!(socket.next().await, Some(Message::text("{}\u{1e}")));
    socket
}

async fn a_close_frame_is_answered_with_its_code(cluster: &mut Cluster) {
    for version in [1, 2] {
        for code in [1000, 1001, 4321] {
            let mut socket = greeted(cluster, version).await;
            let (code, reason) = (CloseCode::from(code), "bye".into());
            socket
                .send(Message::Close(Some(CloseFrame { code, reason })))
                .await;
            let Some(Message::Close(Some(frame))) = socket.next().await else {
                panic!("no Close frame")
            };
            assert_eq!(frame.code, code, "version {version}");
        }
    }
    cluster.is_tidy().await;
}

async fn what_breaks_the_protocol_ends_with_1000_behind_all_answers(cluster: &mut Cluster) {
    const CALLS: usize = 50;
    for version in [1, 2] {
        let mut socket = greeted(cluster, version).await;
        for call in 0..CALLS {
            let call =
                json!({ "type": 1, "invocationId": call.to_string(), "target": "Echo", "arguments": [call] });
            socket.text(&format!("{call}\u{1e}")).await;
        }
        socket.text("{\"type\":1}\u{1e}").await;
        let mut texts = String::new();
        let code = loop {
            match socket.next().await {
                Some(Message::Text(text)) => texts.push_str(&text),
                Some(Message::Close(Some(frame))) => break frame.code,
                other => panic!("{other:?} after {texts}"),
            }
        };
        let of = |kind: &str| texts.matches(kind).count();
        assert_eq!(
            (of("\"type\":3"), of("\"type\":7")),
            (CALLS, 1),
            "version {version}: {texts}"
        );
        assert_eq!(
            code,
            CloseCode::Normal,
            "any other makes clients drop what they have received"
        );
    }
    cluster.is_tidy().await;
}

async fn an_aborted_client_may_not_reconnect(cluster: &mut Cluster) {
    let entry = cluster.entry();
    for transport in Transport::ALL {
        let mut client = HubClient::connect(&entry, transport).await;
        client
            .say(&json!({ "type": 1, "invocationId": "1", "target": "Abort", "arguments": [] }))
            .await;
        assert_eq!(client.rest().await, [json!({ "type": 7 })], "{transport:?}");
    }
    cluster.is_tidy().await;
}

async fn messagepack_clients_get_a_messagepack_close(cluster: &mut Cluster) {
    let entry = cluster.entry();
    for transport in [Transport::WebSockets, Transport::LongPolling] {
        let mut client = HubClient::connect_messagepack(&entry, transport).await;
        client
            .send(messagepack::frame(&messagepack::invocation(
                "1",
                "Abort",
                Vec::new(),
            )))
            .await;
        let close = loop {
            let message = client.next_messagepack().await.expect("a Close message");
            if message[0] != messagepack::Value::from(3) {
                break message;
            }
        };
        assert_eq!(
            (&close[0], &close[1]),
            (&7.into(), &messagepack::Value::Nil),
            "{transport:?}"
        );
        assert_ne!(close[2], messagepack::Value::from(true), "{transport:?}");
        assert_eq!(client.next_messagepack().await, None, "{transport:?}");
    }
}

async fn a_client_that_vanishes_is_forgotten(cluster: &mut Cluster) {
    let entry = cluster.entry();
    let mut clients = Vec::new();
    for transport in [Transport::WebSockets, Transport::ServerSentEvents] {
        let mut client = HubClient::connect(&entry, transport).await;
        client.result("JoinGroup", json!(["g"])).await;
        clients.push(client);
    }
    cluster.has_connections(2).await;
    drop(clients);
    cluster.is_tidy().await;
}

async fn a_client_that_never_spoke_is_forgotten(cluster: &mut Cluster) {
    let entry = cluster.entry();
    for transport in [Transport::WebSockets, Transport::ServerSentEvents] {
        drop(HubClient::open(&entry, transport).await);
    }
    cluster.is_tidy().await;
}
