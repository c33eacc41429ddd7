//! Messages that are not what the protocol says.

use hubcast_tests::cluster::Plan;
use hubcast_tests::eventually::eventually;
use hubcast_tests::hub_client::{HubClient, Transport};
use hubcast_tests::messagepack::{self, Value as Pack};
use serde_json::{Value, json};

use super::{Target, mistake};

/// The largest message: 32 KiB with its separator or length prefix.
const LIMIT: usize = 32_768;

fn padded_call(total: usize) -> String {
    let (head, tail) = (
        "{\"type\":1,\"invocationId\":\"0\",\"target\":\"Echo\",\"arguments\":[\"",
        "\"]}\u{1e}",
    );
    format!("{head}{}{tail}", "x".repeat(total - head.len() - tail.len()))
}

#[tokio::test]
async fn a_message_over_the_limit_ends_the_connection() {
    let target = Target::start(|plan| plan).await;
    for transport in Transport::ALL {
        let mut client = HubClient::connect(&target.entry, transport).await;
        client.send(padded_call(LIMIT)).await;
        let answer = client.next().await.expect("the largest message is answered");
        assert_eq!(
            (&answer["type"], &answer["invocationId"]),
            (&json!(3), &json!("0")),
            "{transport:?}"
        );
        client.send(padded_call(LIMIT + 1)).await;
        assert_eq!(client.rest().await, [too_large()], "{transport:?}");
    }
    target.ends_unharmed().await;
}

#[tokio::test]
async fn a_message_that_never_ends_ends_the_connection() {
    let target = Target::start(|plan| plan).await;
    for transport in Transport::ALL {
        let mut client = HubClient::connect(&target.entry, transport).await;
        for _ in 0..9 {
            client.send("x".repeat(LIMIT / 8)).await;
        }
        assert_eq!(client.rest().await, [too_large()], "{transport:?}");
    }
    target.ends_unharmed().await;
}

#[tokio::test]
async fn a_messagepack_message_over_the_limit_ends_the_connection() {
    let target = Target::start(|plan| plan).await;
    for transport in [Transport::WebSockets, Transport::LongPolling] {
        let call = |argument: usize| {
            messagepack::frame(&messagepack::invocation(
                "0",
                "Echo",
                vec![Pack::Binary(vec![7; argument])],
            ))
        };
        let overhead = call(20_000).len() - 20_000;
        let mut client = HubClient::connect_messagepack(&target.entry, transport).await;
        client.send(call(LIMIT - overhead)).await;
        let answer = client
            .next_messagepack()
            .await
            .expect("the largest message is answered");
        assert_eq!(
            answer[4],
            Pack::Binary(vec![7; LIMIT - overhead]),
            "{transport:?}"
        );
        client.send(call(LIMIT - overhead + 1)).await;
        assert_eq!(
            client.next_messagepack().await,
            Some(packed_too_large()),
            "{transport:?}"
        );
        assert_eq!(client.next_messagepack().await, None, "{transport:?}");

        let mut client = HubClient::connect_messagepack(&target.entry, transport).await;
        client.send([0xFF, 0xFF, 0xFF, 0xFF, 0x07]).await; // announces 2 GiB - 1
        assert_eq!(
            client.next_messagepack().await,
            Some(packed_too_large()),
            "{transport:?}"
        );
    }
    target.ends_unharmed().await;
}

#[tokio::test]
async fn json_that_breaks_the_protocol_ends_the_connection() {
    let target = Target::start(|plan| plan).await;
    let deep = format!(
        "{{\"type\":1,\"target\":\"Echo\",\"arguments\":[{}{}]}}",
        "[".repeat(100),
        "]".repeat(100)
    );
    let abyss = format!(
        "{{\"type\":1,\"target\":\"Echo\",\"arguments\":[{}",
        "[".repeat(30_000)
    );
    for message in [
        "",
        "nonsense",
        "[]",
        "null",
        "{",
        "{}",
        "{\"type\":\"1\",\"target\":\"Echo\",\"arguments\":[1]}",
        "{\"type\":1.5}",
        "{\"type\":1,\"arguments\":[1]}",
        "{\"type\":1,\"target\":\"Echo\"}",
        "{\"type\":1,\"target\":7,\"arguments\":[1]}",
        "{\"type\":1,\"target\":\"Echo\",\"arguments\":{}}",
        "{\"type\":1,\"target\":\"Echo\",\"arguments\":[1],}",
        "{\"type\":1,\"target\":\"Echo\",\"arguments\":[1],\"streamIds\":\"1\"}",
        "{\"type\":1,\"target\":\"Echo\",\"arguments\":[1],\"streamIds\":[null]}",
        "{\"type\":2,\"item\":1}",
        "{\"type\":3,\"invocationId\":\"1\",\"result\":1,\"error\":\"both\"}",
        "{\"type\":4,\"target\":\"Counter\",\"arguments\":[1,1]}",
        "{\"type\":4,\"invocationId\":\"\",\"target\":\"Counter\",\"arguments\":[1,1]}",
        "{\"type\":5}",
        &deep,
        &abyss,
    ] {
        let mut client = HubClient::connect(&target.entry, Transport::WebSockets).await;
        client.send(format!("{message}\u{1e}")).await;
        let shown: String = message.chars().take(80).collect();
        assert_eq!(client.rest().await, [mistake()], "{shown}");
    }
    for transport in [Transport::ServerSentEvents, Transport::LongPolling] {
        let mut client = HubClient::connect(&target.entry, transport).await;
        client.send("nonsense\u{1e}").await;
        assert_eq!(client.rest().await, [mistake()], "{transport:?}");
    }
    target.ends_unharmed().await;
}

#[tokio::test]
async fn bytes_that_are_not_text_end_a_json_connection() {
    let target = Target::start(|plan| plan).await;
    for transport in Transport::ALL {
        let mut client = HubClient::connect(&target.entry, transport).await;
        client
            .send(b"{\"type\":1,\"target\":\"Echo\",\"arguments\":[\"\xff\xfe\"]}\x1e")
            .await;
        assert_eq!(client.rest().await, [mistake()], "{transport:?}");
    }
    target.ends_unharmed().await;
}

fn packed_mistake() -> Pack {
    packed_close("Connection closed with an error.")
}

fn packed_close(error: &str) -> Pack {
    Pack::Array(vec![7.into(), error.into(), true.into()])
}

const TOO_LARGE: &str = "Connection closed with an error. InvalidDataException: The maximum message size of 32768B was \
     exceeded. The message size can be configured with limits.message_bytes.";

fn too_large() -> Value {
    json!({ "type": 7, "error": TOO_LARGE, "allowReconnect": true })
}

fn packed_too_large() -> Pack {
    packed_close(TOO_LARGE)
}

#[tokio::test]
async fn messagepack_that_breaks_the_protocol_ends_the_connection() {
    let target = Target::start(|plan| plan).await;
    let map = || Pack::Map(Vec::new());
    let array = |items: Vec<Pack>| messagepack::frame(&Pack::Array(items));
    let nested = |depth: usize| {
        let head = [0x95, 0x01, 0x80, 0xC0, 0xA4, b'E', b'c', b'h', b'o', 0x91];
        let body = [&head[..], &vec![0x91; depth], &[0xC0]].concat();
        [messagepack::length_prefix(body.len()), body].concat()
    };
    for (what, bytes) in [
        ("nothing", vec![0x00]),
        ("a length without end", vec![0x80, 0x80, 0x80, 0x80, 0x80, 0x80]),
        ("a length over 2 GiB", vec![0xFF, 0xFF, 0xFF, 0xFF, 0x0F]),
        ("no array", messagepack::frame(&Pack::from("text"))),
        ("a map", messagepack::frame(&map())),
        ("an empty array", array(vec![])),
        ("a type that is text", array(vec!["1".into(), map()])),
        ("half an invocation", array(vec![1.into(), map(), Pack::Nil])),
        (
            "a target that is a number",
            array(vec![1.into(), map(), Pack::Nil, 7.into(), Pack::Array(vec![])]),
        ),
        (
            "arguments that are text",
            array(vec![1.into(), map(), Pack::Nil, "Echo".into(), "x".into()]),
        ),
        (
            "an array that promises too much",
            vec![0x05, 0xDD, 0xFF, 0xFF, 0xFF, 0xFF],
        ),
        ("a message that ends too early", vec![0x02, 0x95, 0x01]),
        (
            "an unknown kind of result",
            array(vec![3.into(), map(), "1".into(), 9.into()]),
        ),
        (
            "an item without a stream",
            array(vec![2.into(), map(), Pack::Nil, 1.into()]),
        ),
        ("deep arguments", nested(100)),
        ("an abyss", nested(30_000)),
        ("the byte that nothing begins with", vec![0x01, 0xC1]),
    ] {
        let mut client = HubClient::connect_messagepack(&target.entry, Transport::WebSockets).await;
        client.send(bytes).await;
        assert_eq!(client.next_messagepack().await, Some(packed_mistake()), "{what}");
        assert_eq!(client.next_messagepack().await, None, "{what}");
    }
    target.ends_unharmed().await;
}

#[tokio::test]
async fn what_future_clients_may_say_is_skipped() {
    let target = Target::start(|plan| plan).await;
    let mut client = HubClient::connect(&target.entry, Transport::WebSockets).await;
    for message in [
        "{\"type\":42,\"future\":true}",
        "{\"type\":6,\"future\":[{}]}",
        "{\"future\":{\"type\":7},\"arguments\":[1],\"target\":\"Echo\",\"type\":1}",
        "{\"type\":2,\"invocationId\":\"no such stream\",\"item\":1}",
        "{\"type\":3,\"invocationId\":\"no such call\",\"result\":1}",
        "{\"type\":5,\"invocationId\":\"no such call\"}",
        "{\"type\":8,\"sequenceId\":5}",
    ] {
        client.send(format!("{message}\u{1e}")).await;
        assert_eq!(client.result("Echo", json!([message])).await, message);
    }
    drop(client);
    let mut client = HubClient::connect_messagepack(&target.entry, Transport::WebSockets).await;
    let map = || Pack::Map(vec![("key".into(), "value".into())]);
    for items in [
        vec![42.into(), "future".into()],
        vec![6.into(), "future".into()],
        vec![
            1.into(),
            map(),
            "9".into(),
            "Echo".into(),
            Pack::Array(vec![1.into()]),
            Pack::Array(vec![]),
            true.into(),
        ],
        vec![5.into(), map(), "no such call".into()],
    ] {
        client.send(messagepack::frame(&Pack::Array(items.clone()))).await;
        client
            .send(messagepack::frame(&messagepack::invocation(
                "1",
                "Echo",
                vec![true.into()],
            )))
            .await;
        loop {
            let answer = client
                .next_messagepack()
                .await
                .unwrap_or_else(|| panic!("it ended after {items:?}"));
            if answer[2] == Pack::from("1") {
                assert_eq!(answer[4], Pack::from(true));
                break;
            }
        }
    }
    drop(client);
    target.ends_unharmed().await;
}

/// An operator who looks for clients that were closed finds them at the level that is the default.
#[tokio::test]
async fn what_ends_a_client_is_in_the_log() {
    let cluster = Plan::one_node().start().await;
    let mut client = HubClient::connect(&cluster.entry(), Transport::WebSockets).await;
    client.send("nonsense\u{1e}").await;
    client.rest().await;
    let line = eventually("it is told", async || {
        let log = cluster.nodes[0].log();
        log.lines()
            .find(|line| line.contains("closed a client for a protocol error"))
            .map(str::to_owned)
    });
    let line = line.await;
    assert!(line.contains("INFO") && line.contains(client.id()), "{line}");
}
