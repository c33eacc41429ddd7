//! The differences of messages in protobuf: frames are binary, and other bytes are no message.

use hubcast_tests::cluster::Plan;
use hubcast_tests::webpubsub::{End, OVER, to_group};
use hubcast_tests::websocket::Message;
use serde_json::json;

use super::{JSON, PROTOBUF, RELIABLE, RELIABLE_PROTOBUF, WebPubSub, at, demo};

#[tokio::test]
async fn what_is_no_protobuf_ends_its_connection_alone() {
    let mut cluster = Plan::nodes(2).trace().start().await;
    let lies = b"\x32\xff\xff\xff\xff\x0f".to_vec(); // a message of 4 GiB
    let groups = vec![0x53; 30_000]; // as deep as it can be
    for (protocol, invalid, unknown) in [(PROTOBUF, 1007, 1002), (RELIABLE_PROTOBUF, OVER, OVER)] {
        let mut witness = demo(&cluster, 0, protocol).await;
        witness.join("g").await;
        for (frame, code, expected) in [
            (b"\xff".to_vec(), invalid, "Error reading protobuf: "),
            (vec![0; 100], invalid, "Error reading protobuf: "),
            (lies.clone(), invalid, "Error reading protobuf: "),
            (groups.clone(), invalid, "Error reading protobuf: "),
            (
                b"\x32\x03\x0a\x01\xff".to_vec(),
                invalid,
                "Error reading protobuf: ",
            ),
            (
                b"{\"type\":\"ping\"}".to_vec(),
                invalid,
                "Error reading protobuf: ",
            ),
            (
                b"\x52\x00".to_vec(),
                unknown,
                "Messages of the type 'field 10' are not supported.",
            ),
            (
                b"\x0a\x08\x0a\x01g\x1a\x03\x22\x01{".to_vec(),
                unknown,
                "Expected 'json_data' to be JSON.",
            ),
        ] {
            let mut client = demo(&cluster, 0, protocol).await;
            client.join("g").await;
            client.socket().send(Message::binary(frame.clone())).await;
            let (told, end) = client.rest().await;
            assert_eq!((told.len(), end), (1, End::Closed(code)), "{frame:x?}");
            let told = told[0]["message"].as_str().expect("words");
            assert!(
                told.contains(&format!("InvalidDataException: {expected}")),
                "{told}"
            );
        }
        // An empty frame, which the official .NET client sends in place of an invoke, says nothing.
        witness.socket().send(Message::binary(Vec::new())).await;
        witness.send("g", "fine").await;
        assert_eq!(witness.message().await["data"], "fine");
        witness.socket().send(Message::Close(None)).await;
    }
    cluster.is_tidy().await;
}

#[tokio::test]
async fn a_text_ends_the_connection() {
    let cluster = Plan::one_node().start().await;
    for protocol in [PROTOBUF, RELIABLE_PROTOBUF] {
        for text in ["", "x", "{\"type\":\"ping\"}"] {
            let mut client = demo(&cluster, 0, protocol).await;
            client.socket().text(text).await;
            let (told, end) = client.rest().await;
            assert_eq!((told, end), (vec![], End::Closed(1003)), "{protocol}: {text}");
        }
    }
}

#[tokio::test]
async fn a_message_over_the_limit_ends_its_connection() {
    let plan = Plan::one_node().set("limits.message_bytes", 1_000);
    let cluster = plan.start().await;
    for (protocol, code) in [(PROTOBUF, 1009), (RELIABLE_PROTOBUF, OVER)] {
        for (length, over) in [(900, false), (1_000, true), (60_000, true)] {
            let mut client = demo(&cluster, 0, protocol).await;
            client.join("g").await;
            client.say(&to_group("g", &"x".repeat(length))).await;
            if !over {
                client.message().await;
                continue;
            }
            let (told, end) = client.rest().await;
            assert_eq!((told.len(), end), (1, End::Closed(code)), "{length}");
            let told = told[0]["message"].as_str().expect("words");
            assert!(told.contains("limits.message_bytes"), "{told}");
        }
    }
}

/// The official .NET client can't bear a message without data, in any protocol.
#[tokio::test]
async fn data_that_is_null_or_missing_is_refused() {
    let cluster = Plan::nodes(2).start().await;
    let mut witness = demo(&cluster, 1, PROTOBUF).await;
    witness.join("g").await;
    for protocol in [JSON, RELIABLE, PROTOBUF, RELIABLE_PROTOBUF] {
        let mut client = demo(&cluster, 0, protocol).await;
        for request in [
            json!({ "type": "sendToGroup", "group": "g" }),
            json!({ "type": "sendToGroup", "group": "g", "dataType": "json" }),
            json!({ "type": "sendToGroup", "group": "g", "dataType": "json", "data": null }),
        ] {
            let (name, text) = client.refusal(request).await;
            assert_eq!(
                (name.as_str(), text.as_str()),
                ("BadRequest", "A message needs data that is not null.")
            );
        }
        let deep = (0..62).fold(json!(1), |inner, _| json!([inner]));
        let request = json!({ "type": "sendToGroup", "group": "g", "dataType": "json", "data": deep });
        let (name, text) = client.refusal(request).await;
        assert_eq!(name, "BadRequest", "{text}");
        client.send("g", protocol).await;
        assert_eq!(witness.message().await["data"], protocol, "nothing else came");
    }
}

/// Bytes that a client with JSON calls protobuf need not be what a client with protobuf can read.
#[tokio::test]
async fn bytes_that_are_no_any_arrive_as_bytes() {
    let cluster = Plan::nodes(2).start().await;
    for protocol in [PROTOBUF, RELIABLE_PROTOBUF] {
        let mut receiver = demo(&cluster, 1, protocol).await;
        receiver.join("g").await;
        let mut sender = demo(&cluster, 0, JSON).await;
        for (data, kind, told) in [
            ("AP/+", "binary", "AP/+"),
            ("CgFBEgFC", "protobuf", "CgFBEgFC"),
            ("EgFCCgFB", "protobuf", "EgFCCgFB"), // in another order
            ("CgFBGgJ4eA==", "protobuf", "CgFB"), // with a field that an Any does not have
            ("", "protobuf", ""),
        ] {
            let request =
                json!({ "type": "sendToGroup", "group": "g", "dataType": "protobuf", "data": data });
            sender.done(request).await;
            let message = receiver.message().await;
            assert_eq!(
                (&message["dataType"], &message["data"]),
                (&json!(kind), &json!(told)),
                "{data}"
            );
        }
    }
}

/// A connection goes on in the subprotocol in which it began.
#[tokio::test]
async fn a_connection_is_not_continued_in_another_subprotocol() {
    let cluster = Plan::nodes(2).start().await;
    for (began, other) in [(RELIABLE, RELIABLE_PROTOBUF), (RELIABLE_PROTOBUF, RELIABLE)] {
        for node in [0, 1] {
            let mut client = demo(&cluster, 0, began).await;
            client.join("g").await;
            client.lose();
            let socket = WebPubSub::open(at(&cluster, node), &client.way_back(), other).await;
            let mut socket = socket.expect("it opens");
            assert_eq!(socket.rest().await, (vec![], End::Closed(OVER)));
            client.come_back(at(&cluster, 1)).await;
            client.send("g", "unharmed").await;
            assert_eq!(client.message().await["data"], "unharmed");
        }
    }
}

#[tokio::test]
async fn a_message_is_written_once_for_all_clients_of_a_subprotocol() {
    let cluster = Plan::one_node().start().await;
    let mut receivers = Vec::new();
    for protocol in [PROTOBUF, RELIABLE_PROTOBUF, PROTOBUF, RELIABLE_PROTOBUF] {
        let mut receiver = demo(&cluster, 0, protocol).await;
        receiver.join("g").await;
        receivers.push(receiver);
    }
    let mut sender = demo(&cluster, 0, JSON).await;
    for number in 0..10 {
        sender.send("g", &number.to_string()).await;
    }
    for receiver in &mut receivers {
        for number in 0..10 {
            assert_eq!(receiver.message().await["data"], number.to_string());
        }
    }
    let metrics = cluster.nodes[0].metrics().await;
    for (protocol, count) in [(PROTOBUF, 10.0), (RELIABLE_PROTOBUF, 10.0), (JSON, 0.0)] {
        let encodes = metrics.sum_where("hubcast_encodes_total", &[("protocol", protocol)]);
        assert_eq!(encodes, count, "{protocol}");
    }
}
