//! Clients that break the protocol, take nothing, or fall silent.

use hubcast_tests::cluster::{Cluster, Plan};
use hubcast_tests::rest::Rest;
use hubcast_tests::webpubsub::{End, OVER, to_group};
use hubcast_tests::websocket::Message;
use serde_json::json;

use super::{DEMO, JSON, PLAIN, RELIABLE, connect, demo, with_query};

const ERROR: &str = "Connection closed with an error.";

/// The code of a message's Close where a client without recovery would get `code`.
fn code_of(message: &Message, code: u16) -> u16 {
    let is_text = std::str::from_utf8(&message.clone().into_data()).is_ok();
    if code == OVER || is_text { code } else { 1007 }
}

#[tokio::test]
async fn what_is_no_message_ends_its_connection_alone() {
    let mut cluster = Plan::nodes(2).trace().start().await;
    let deep = format!(r#"{{"type":"ping","data":{}"#, "[".repeat(20_000));
    let texts = [
        "{",
        "x",
        "null",
        "[]",
        "1",
        "\"ping\"",
        "{}",
        "{\"type\":1}",
        "{\"type\":\"dance\"}",
        r#"{"type":"ping"}{"type":"ping"}"#,
        r#"{"type":"joinGroup"}"#,
        r#"{"type":"joinGroup","group":7}"#,
        r#"{"type":"joinGroup","group":"g","ackId":-1}"#,
        r#"{"type":"joinGroup","group":"g","ackId":1.5}"#,
        r#"{"type":"joinGroup","group":"g","ackId":"1"}"#,
        r#"{"type":"joinGroup","group":"g","ackId":18446744073709551616}"#,
        r#"{"type":"sendToGroup","group":"g","dataType":"xml","data":1}"#,
        r#"{"type":"sendToGroup","group":"g","dataType":"text","data":1}"#,
        r#"{"type":"sendToGroup","group":"g","dataType":"text"}"#,
        r#"{"type":"sendToGroup","group":"g","dataType":"binary","data":"no base64"}"#,
        r#"{"type":"sendToGroup","group":"g","noEcho":"yes","data":1}"#,
        r#"{"type":"event","data":1}"#,
        r#"{"type":"invoke","event":"Echo","data":1}"#,
        r#"{"type":"invoke","invocationId":"1","target":"group","event":"Echo","data":1}"#,
        r#"{"type":"sequenceAck"}"#,
        r#"{"type":"sequenceAck","sequenceId":-1}"#,
        deep.as_str(),
    ];
    let texts = texts.iter().map(|text| Message::text(*text));
    let garbage = [vec![0xFF, 0xFE], vec![0; 100], b"\xc3".to_vec()];
    let garbage = garbage.into_iter().map(Message::binary);
    let bad: Vec<_> = texts.chain(garbage).collect();
    for (protocol, code) in [(JSON, 1002), (RELIABLE, OVER)] {
        let mut witness = demo(&cluster, 0, protocol).await;
        witness.join("g").await;
        for message in &bad {
            let mut client = demo(&cluster, 0, protocol).await;
            client.join("g").await;
            client.socket().send(message.clone()).await;
            let end = client.rest().await;
            let told = end
                .0
                .first()
                .map(|told| told["message"].to_string())
                .unwrap_or_default();
            assert!(
                told.contains(&format!("{ERROR} InvalidDataException: ")),
                "what was wrong: {told}"
            );
            assert_eq!(
                (end.0.len(), end.1),
                (1, End::Closed(code_of(message, code))),
                "{message:?}"
            );
        }
        witness.send("g", "fine").await;
        assert_eq!(witness.message().await["data"], "fine");
        witness.socket().send(Message::Close(None)).await;
    }
    cluster.is_tidy().await;
}

#[tokio::test]
async fn a_message_over_the_limit_ends_its_connection() {
    let plan = Plan::nodes(2)
        .set("limits.message_bytes", 1_000)
        .set("limits.http_body_bytes", 10_000)
        .set("hubs.detailed_errors", true);
    let mut cluster = plan.start().await;
    for (protocol, code) in [(JSON, 1009), (RELIABLE, OVER)] {
        let mut client = demo(&cluster, 0, protocol).await;
        client.join("g").await;
        let request = |length: usize| {
            let frame = to_group("g", "").to_string();
            to_group("g", &"x".repeat(length - frame.len())).to_string()
        };
        client.socket().text(&request(1_000)).await;
        assert_eq!(
            client.message().await["type"],
            "message",
            "the limit itself is none too many"
        );
        client.socket().text(&request(1_001)).await;
        let (rest, end) = client.rest().await;
        assert_eq!(end, End::Closed(code));
        let text = rest[0]["message"].as_str().unwrap_or_default();
        assert!(text.contains("limits.message_bytes"), "{text}");
        assert_eq!(rest.len(), 1);
        // Of a message that is much larger no more is read than shows that.
        let mut client = demo(&cluster, 1, protocol).await;
        client.socket().text(&request(20_000)).await;
        let (rest, end) = client.rest().await;
        assert_eq!(end, End::Closed(code));
        let text = rest[0]["message"].as_str().unwrap_or_default();
        assert!(text.contains("limits.message_bytes"), "{text}");
    }
    cluster.is_tidy().await;
}

/// Sends until a node reports a slow consumer, and checks that a client that reads gets everything.
async fn flood(cluster: &mut Cluster, group: &str) -> usize {
    let mut sender = demo(cluster, 1, JSON).await;
    let mut eager = demo(cluster, 0, RELIABLE).await;
    eager.join(group).await;
    let before = cluster.sum("hubcast_slow_consumers_total").await;
    let text = "x".repeat(30_000);
    let mut sent = 0;
    while cluster.sum("hubcast_slow_consumers_total").await == before {
        assert!(sent < 2_000, "60 MB and still nobody is slow");
        for _ in 0..20 {
            sender.send(group, &format!("{sent} {text}")).await;
            let data = eager.fresh_data(1).await;
            let seen = data[0].as_str().and_then(|data| data.split_once(' '));
            assert_eq!(seen, Some((sent.to_string().as_str(), text.as_str())));
            sent += 1;
        }
        eager.acknowledge(eager.last).await;
    }
    eager.socket().send(Message::Close(None)).await;
    sender.socket().send(Message::Close(None)).await;
    sent
}

fn patient(outbox_bytes: usize) -> Plan {
    Plan::nodes(2)
        .set("limits.outbox_bytes", outbox_bytes)
        .set("timeouts.send_seconds", 60)
}

#[tokio::test]
async fn a_client_that_does_not_read_is_closed_and_the_others_get_everything() {
    let mut cluster = patient(100_000).start().await;
    for protocol in [JSON, PLAIN] {
        let mut lazy = connect(&cluster, 0, &with_query(DEMO, "group=g"), protocol).await;
        if protocol == JSON {
            lazy.join("g").await;
        }
        flood(&mut cluster, "g").await;
        cluster.has_connections(0).await;
        let (rest, end) = lazy.rest().await;
        assert_ne!(end, End::Closed(OVER), "it may begin anew");
        let messages = rest.iter().filter(|message| message["type"] == "message");
        assert!(messages.count() > 0, "what was written before is there");
    }
    cluster.is_tidy().await;
}

/// The log has what did not fit. The bound is larger here, because some times that much may come again, and the kernel
/// holds some megabytes that were not acknowledged.
#[tokio::test]
async fn a_reliable_client_that_does_not_read_gets_everything_when_it_comes_back() {
    let mut cluster = patient(4_000_000)
        .set("hubs.retention_topic_bytes", 64_000_000)
        .start()
        .await;
    let mut lazy = demo(&cluster, 0, RELIABLE).await;
    lazy.join("g").await;
    let sent = flood(&mut cluster, "g").await;
    let mut seen = Vec::new();
    let mut node = 1;
    while seen.len() < sent {
        while let Some(message) = lazy.next().await {
            let id = message["sequenceId"].as_u64().unwrap_or_default();
            if id > lazy.last {
                lazy.last = id;
                let data = message["data"].as_str().expect("text");
                seen.push(data.split(' ').next().expect("a number").to_owned());
                // Heard or not: the socket may be over already.
                lazy.say(&json!({ "type": "sequenceAck", "sequenceId": id }))
                    .await;
            }
            if seen.len() == sent {
                break;
            }
        }
        if seen.len() < sent {
            lazy.come_back(super::at(&cluster, node)).await;
            node = 1 - node;
        }
    }
    let all: Vec<_> = (0..sent).map(|number| number.to_string()).collect();
    assert_eq!(seen, all);
}

#[tokio::test]
async fn who_answers_no_pings_is_gone_and_who_does_stays() {
    let plan = Plan::nodes(2)
        .set("timeouts.keep_alive_seconds", 0.3)
        .set("timeouts.client_timeout_seconds", 1.5)
        .set("hubs.resume_window_seconds", 1);
    let mut cluster = plan.start().await;
    for protocol in [JSON, PLAIN, RELIABLE] {
        let mut listens = demo(&cluster, 1, protocol).await;
        if protocol == PLAIN {
            assert_eq!(listens.next().await.expect("a place")["type"], "place");
        }
        // Reading answers pings.
        let listening = tokio::spawn(async move {
            let frame = listens.frame().await;
            (listens, frame)
        });
        for _ in 0..2 {
            // This one is never read. When the second of its kind is gone, the other has lived through two timeouts.
            let silent = demo(&cluster, 0, protocol).await;
            cluster.has_connections(2).await;
            cluster.has_connections(1).await;
            drop(silent);
        }
        let end = json!({ "target": "message", "arguments": ["end"] });
        assert_eq!(
            Rest::on(&cluster.nodes[0]).send("/:send", &end).await.status(),
            202
        );
        let (listens, frame) = listening.await.expect("it listens");
        assert!(
            frame.is_some_and(|frame| frame.contains("\"end\"")),
            "who answers pings is there"
        );
        drop(listens);
        cluster.is_tidy().await;
    }
}
