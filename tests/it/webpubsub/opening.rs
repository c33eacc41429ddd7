//! The upgrade and the first message.

use hubcast_tests::cluster::Plan;
use hubcast_tests::http::Request;
use hubcast_tests::jwt::{ACCESS_KEY, now, token_with};
use hubcast_tests::webpubsub::upgrade;
use serde_json::json;

use super::{
    CHAT, DEMO, JSON, PLAIN, PROTOBUF, RELIABLE, RELIABLE_PROTOBUF, SUBPROTOCOLS, WebPubSub, at, token,
    with_chat, with_query,
};

#[tokio::test]
async fn connected_is_the_first_message_and_says_who_one_is() {
    for volatile in [false, true] {
        let cluster = Plan::nodes(2).set("hubs.volatile", volatile).start().await;
        let of_ann = format!("access_token={}", token(&cluster, "ann \"x\"", &json!({})));
        for (query, user) in [("", ""), (&of_ann, ",\"userId\":\"ann \\\"x\\\"\"")] {
            for protocol in [JSON, RELIABLE] {
                let target = with_query(DEMO, query);
                let mut client = WebPubSub::open(at(&cluster, 0), &target, protocol)
                    .await
                    .expect("it opens");
                let frame = client.frame().await.expect("a message");
                let beginning =
                    format!("{{\"type\":\"system\",\"event\":\"connected\"{user},\"connectionId\":\"");
                let rest = frame.strip_prefix(&beginning);
                let rest = rest.unwrap_or_else(|| panic!("{frame} does not begin with {beginning}"));
                let (id, rest) = rest.split_once('"').expect("an id");
                assert_eq!(id.len(), 22, "{frame}");
                if protocol == RELIABLE && !volatile {
                    let token = rest.strip_prefix(",\"reconnectionToken\":\"").expect(&frame);
                    let token = token.strip_suffix("\"}").expect(&frame);
                    assert!(token.len() >= 22 && !token.contains(id), "{frame}");
                } else {
                    assert_eq!(rest, "}", "what can't be recovered has no token");
                }
            }
        }
    }
}

#[tokio::test]
async fn the_first_subprotocol_that_is_known_is_spoken() {
    let cluster = Plan::one_node().start().await;
    let node = at(&cluster, 0);
    for (offers, chosen) in [
        (JSON.to_owned(), Some(JSON)),
        (RELIABLE.to_owned(), Some(RELIABLE)),
        (format!("{JSON}, {RELIABLE}"), Some(JSON)),
        (format!("{RELIABLE},{JSON}"), Some(RELIABLE)),
        (PROTOBUF.to_owned(), Some(PROTOBUF)),
        (RELIABLE_PROTOBUF.to_owned(), Some(RELIABLE_PROTOBUF)),
        (format!("mqtt, protobuf.webpubsub.azure.v2,{JSON}"), Some(JSON)),
        (
            format!("mqtt, {RELIABLE_PROTOBUF},{JSON}"),
            Some(RELIABLE_PROTOBUF),
        ),
        (format!("{JSON},{PROTOBUF}"), Some(JSON)),
        (PLAIN.to_owned(), None),
    ] {
        let answer = upgrade(node, DEMO, &offers).await;
        assert_eq!(answer.status(), 101, "{offers}");
        let echoed = answer.head.header("sec-websocket-protocol");
        assert_eq!(echoed, chosen, "{offers}");
    }
    for offers in ["mqtt", "protobuf.webpubsub.azure.v2, json.webpubsub.azure.v2"] {
        let answer = upgrade(node, DEMO, offers).await;
        assert_eq!(answer.status(), 400, "{offers}");
        for known in SUBPROTOCOLS {
            assert!(answer.text().contains(known), "{}", answer.text());
        }
    }
}

#[tokio::test]
async fn what_is_no_websocket_or_for_no_hub_is_refused() {
    let cluster = Plan::one_node().start().await;
    let node = &cluster.nodes[0];
    for request in [
        Request::get(DEMO),
        Request::post(DEMO, "x"),
        Request::delete(DEMO),
    ] {
        let answer = node.fetch(&request).await;
        assert_eq!(answer.status(), 426, "{request:?}");
        assert!(answer.text().contains("/sse/"), "{}", answer.text());
    }
    for protocols in [PLAIN, JSON, RELIABLE, "mqtt"] {
        for target in ["/client/hubs/news", "/client/hubs/", "/client/hubs/demo/x"] {
            let answer = upgrade(at(&cluster, 0), target, protocols).await;
            assert_eq!(answer.status(), 404, "{target} {protocols}");
        }
    }
    let answer = upgrade(at(&cluster, 0), "/client/hubs/demo/", JSON).await;
    assert_eq!(answer.status(), 101);
}

#[tokio::test]
async fn a_token_is_needed_and_must_be_for_clients_of_the_hub() {
    let cluster = with_chat(Plan::nodes(2)).start().await;
    let signed = |claims: serde_json::Value, key: &str| token_with(&claims, key);
    let until = now() + 600;
    let aud = |path: &str| json!({ "sub": "ann", "exp": until, "aud": format!("http://127.0.0.1{path}") });
    let other_key = "some-other-access-key-0123456789abcdef";
    for (token, status) in [
        (String::new(), 401),
        ("a.b.c".to_owned(), 401),
        (
            signed(json!({ "sub": "ann", "exp": now() - 3_600 }), ACCESS_KEY),
            401,
        ),
        (signed(json!({ "sub": "ann", "exp": until }), other_key), 401),
        (signed(aud("/api/hubs/chat/:send"), ACCESS_KEY), 401),
        (signed(aud("/client/hubs/demo"), ACCESS_KEY), 401),
        (signed(aud("/client/hubs/chat"), ACCESS_KEY), 101),
        (signed(json!({ "sub": "ann", "exp": until }), ACCESS_KEY), 101),
    ] {
        for protocol in [PLAIN, JSON, RELIABLE] {
            let query = if token.is_empty() {
                String::new()
            } else {
                format!("access_token={token}")
            };
            let target = with_query(CHAT, &query);
            let answer = upgrade(at(&cluster, 1), &target, protocol).await;
            assert_eq!(answer.status(), status, "{token} {protocol}: {}", answer.text());
        }
    }
    let token = token(&cluster, "ann", &json!({}));
    let request = Request::get(CHAT)
        .bearer(Some(&token))
        .header("Connection", "Upgrade")
        .header("Upgrade", "websocket")
        .header("Sec-WebSocket-Version", "13")
        .header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==");
    let (head, _body) = cluster.entry_on(0).start(&request).await;
    assert_eq!(head.status, 101, "a header may show it as well");
    let (head, _body) = cluster
        .entry_on(0)
        .start(&request.header("Origin", "https://elsewhere.example"))
        .await;
    assert_eq!(head.status, 403, "other pages may not use it");
}

#[tokio::test]
async fn sockets_are_streams_of_http2_as_well() {
    let cluster = Plan::nodes(2).start().await;
    let entry = cluster.entry().over_http2().await;
    for (protocol, begins) in [
        (PLAIN, "{\"type\":\"connected\""),
        (JSON, "{\"type\":\"system\""),
        (RELIABLE, "{\"type\":\"system\""),
    ] {
        let headers = [("sec-websocket-protocol", protocol)];
        let headers = if protocol.is_empty() { &[] } else { &headers[..] };
        for connection in entry.http2() {
            let mut socket = connection.websocket(DEMO, headers).await.expect("it opens");
            let first = socket.next().await.expect("a frame").into_text().expect("text");
            assert!(first.starts_with(begins), "{first}");
            let refused = connection.websocket("/client/hubs/news", headers).await;
            assert_eq!(refused.err(), Some(404));
        }
    }
    let unknown = [("sec-websocket-protocol", "mqtt")];
    let refused = entry.http2()[0].websocket(DEMO, &unknown).await;
    assert_eq!(refused.err(), Some(400));
}
