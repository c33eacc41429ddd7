//! Stateful reconnect, message by message, by a client that resumes on the node where it was. What the official client
//! makes of it is in `clients/js/protocol.mjs`.

use std::sync::Arc;

use hubcast_tests::cluster::{Cluster, Plan};
use hubcast_tests::entry_point::EntryPoint;
use hubcast_tests::hub_client::{HubClient, Transport};
use hubcast_tests::resumable::{RESUMABLE_HANDSHAKE, Resumable};
use hubcast_tests::websocket::{CloseCode, Message};
use serde_json::{Value, json};
use tokio::time::{Duration, Instant};

proves_on_one_node_and_on_two! { |plan| plan.set("hubs.resume_window_seconds", 5).set("limits.outbox_bytes", 100_000);
    the_messages_are_these_bytes,
    what_was_not_acknowledged_is_sent_again,
    acks_are_at_most_one_each_second_and_tell_news,
    what_has_no_number_is_not_acknowledged,
    what_the_client_repeats_is_done_once,
    a_message_that_was_cut_off_is_begun_anew,
    what_was_sent_meanwhile_is_delivered_afterwards,
    a_sequence_that_leaves_messages_out_ends_the_connection,
    a_newer_socket_takes_the_place_of_the_older_one,
    who_said_goodbye_does_not_come_back,
    a_version_1_client_does_not_come_back,
    messages_without_ack_are_kept_however_many,
    messages_with_ack_are_not_kept,
}

/// The node on which the client stays.
fn home(cluster: &Cluster) -> Arc<EntryPoint> {
    cluster.entry_on(0)
}

/// A client that sends from another node, if there is one.
async fn sender(cluster: &Cluster) -> HubClient {
    HubClient::connect(&cluster.entry_on(cluster.nodes.len() - 1), Transport::WebSockets).await
}

async fn the_messages_are_these_bytes(cluster: &mut Cluster) {
    let entry = home(cluster);
    let mut client = Resumable::connect(&entry).await;
    client.invoke("a", "Echo", json!([1])).await;
    let answer = Message::text("{\"type\":3,\"invocationId\":\"a\",\"result\":1}\u{1e}");
    assert_eq!(client.socket().next().await.as_ref(), Some(&answer));
    let ack = Message::text("{\"type\":8,\"sequenceId\":1}\u{1e}");
    assert_eq!(client.socket().next().await, Some(ack));
    drop(client.replace().await.expect("it resumes"));
    let sequence = Message::text("{\"type\":9,\"sequenceId\":1}\u{1e}");
    assert_eq!(client.socket().next().await, Some(sequence));
    assert_eq!(client.socket().next().await, Some(answer));

    let mut client = Resumable::open(&entry).await;
    let handshake = RESUMABLE_HANDSHAKE.replace("json", "messagepack");
    client.socket().text(&handshake).await;
    let call = [
        0x0E, 0x96, 0x01, 0x80, 0xA1, b'a', 0xA4, b'E', b'c', b'h', b'o', 0x91, 0xC4, 0x00, 0x90,
    ];
    client.socket().binary(&call).await;
    for expected in [
        &b"{}\x1e"[..],
        &[0x08, 0x95, 0x03, 0x80, 0xA1, b'a', 0x03, 0xC4, 0x00],
        &[0x03, 0x92, 0x08, 0x01],
    ] {
        assert_eq!(
            client.socket().next().await,
            Some(Message::binary(expected.to_vec()))
        );
    }
    drop(client.replace().await.expect("it resumes"));
    let sequence = Message::binary(vec![0x03, 0x92, 0x09, 0x01]);
    assert_eq!(client.socket().next().await, Some(sequence), "and no handshake");
}

async fn what_was_not_acknowledged_is_sent_again(cluster: &mut Cluster) {
    let mut client = Resumable::connect(&home(cluster)).await;
    for id in ["1", "2", "3"] {
        client.invoke(id, "Echo", json!([id])).await;
        assert_eq!(client.result(id).await, id);
    }
    for _ in 0..2 {
        assert_eq!(client.resume().await, 1, "nothing was acknowledged");
        for id in ["1", "2", "3"] {
            assert_eq!(client.result(id).await, id);
        }
    }
    client.continue_at(4).await;
    client.acknowledge(2).await;
    client.invoke("4", "Echo", json!(["4"])).await;
    assert_eq!(client.result("4").await, "4");
    assert_eq!(client.resume().await, 3, "the oldest that was not acknowledged");
    assert_eq!(client.result("3").await, "3");
    assert_eq!(client.result("4").await, "4");

    client.continue_at(5).await;
    client.acknowledge(4).await;
    client.acknowledge(1).await; // an older one takes nothing back
    client
        .say(&json!({ "type": 1, "target": "Echo", "arguments": ["unanswered"] }))
        .await;
    client.is_acknowledged(5).await;
    assert_eq!(client.resume().await, 5, "everything was: it is the next one");
    client.continue_at(6).await;
    client.invoke("6", "Echo", json!(["6"])).await;
    assert_eq!(client.result("6").await, "6");
}

async fn acks_are_at_most_one_each_second_and_tell_news(cluster: &mut Cluster) {
    let mut client = Resumable::connect(&home(cluster)).await;
    let (begin, mut sent, mut answered) = (Instant::now(), 0, 0);
    let mut acks = Vec::new();
    while acks.len() < 3 {
        if answered == sent {
            sent += 1;
            client.invoke("x", "Echo", json!([sent])).await;
        }
        let message = client.next().await.expect("the connection goes on");
        match message["type"].as_u64() {
            Some(8) => acks.push(message["sequenceId"].as_u64().expect("a number")),
            _ => {
                answered += 1;
                client.acknowledge(answered).await;
            }
        }
    }
    let least = Duration::from_secs(3);
    assert!(begin.elapsed() >= least, "{acks:?} after {:?}", begin.elapsed());
    assert!(acks.is_sorted_by(|one, next| one < next), "{acks:?}");
    assert!(acks[2] <= sent, "{acks:?} of {sent}");
    // Whatever was not acknowledged yet is so in the end, and once.
    if acks[2] < sent {
        client.is_acknowledged(sent).await;
    }
    client.invoke("last", "Echo", json!([0])).await;
    let ack = loop {
        let message = client.next().await.expect("the connection goes on");
        if message["type"] == 8 {
            break message;
        }
    };
    assert_eq!(ack["sequenceId"], sent + 1, "news only");
}

async fn what_has_no_number_is_not_acknowledged(cluster: &mut Cluster) {
    let mut client = Resumable::connect(&home(cluster)).await;
    for _ in 0..5 {
        client.say(&json!({ "type": 6 })).await;
        client.acknowledge(0).await;
    }
    for message in [
        json!({ "type": 4, "invocationId": "1", "target": "Scale", "arguments": [2], "streamIds": ["s"] }),
        json!({ "type": 2, "invocationId": "s", "item": 4 }),
        json!({ "type": 3, "invocationId": "s" }),
        json!({ "type": 5, "invocationId": "unknown" }),
        json!({ "type": 1, "target": "Echo", "arguments": [1] }),
    ] {
        client.say(&message).await;
        client.say(&json!({ "type": 6 })).await;
    }
    client.is_acknowledged(5).await;
    assert_eq!(client.resume().await, 1, "an item and the end of its stream");
    let item = client.numbered().await;
    assert_eq!((&item["type"], item["item"].as_f64()), (&json!(2), Some(8.0)));
    assert_eq!(client.numbered().await["type"], 3);
}

async fn what_the_client_repeats_is_done_once(cluster: &mut Cluster) {
    let mut witness = sender(cluster).await;
    witness.result("JoinGroup", json!(["g"])).await;
    let mut client = Resumable::connect(&home(cluster)).await;
    let tell = async |client: &mut Resumable, id: &str| {
        client.invoke(id, "SendToGroup", json!(["g", id])).await;
    };
    for id in ["1", "2", "3"] {
        tell(&mut client, id).await;
        client.result(id).await;
    }
    client.acknowledge(3).await;
    for (from, ids) in [
        (1, &["1", "2", "3", "4"][..]),
        (3, &["3", "4", "5"]),
        (6, &["6"]),
        (1, &["1", "2", "3", "4", "5", "6", "7"]),
    ] {
        client.resume().await;
        client.continue_at(from).await;
        for id in ids {
            tell(&mut client, id).await;
        }
        // Answers to the others were sent already: they may come again, this one comes once.
        let last = ids[ids.len() - 1];
        while client.numbered().await["invocationId"] != last {}
    }
    for id in 1..=7 {
        assert_eq!(witness.expect("GroupMessage").await, json!(["g", id.to_string()]));
    }
    witness.result("SendToGroup", json!(["g", "the end"])).await;
    assert_eq!(witness.expect("GroupMessage").await, json!(["g", "the end"]));
}

async fn a_message_that_was_cut_off_is_begun_anew(cluster: &mut Cluster) {
    let mut client = Resumable::connect(&home(cluster)).await;
    let call = json!({ "type": 1, "invocationId": "1", "target": "Echo", "arguments": ["whole"] });
    for cut in 1..=call.to_string().len() {
        let begun = call.to_string()[..cut].to_owned();
        client.socket().text(&begun).await;
        assert_eq!(client.resume().await, 1);
        client.continue_at(1).await;
    }
    client.say(&call).await;
    assert_eq!(client.result("1").await, "whole");
}

async fn what_was_sent_meanwhile_is_delivered_afterwards(cluster: &mut Cluster) {
    let mut sender = sender(cluster).await;
    let mut client = Resumable::connect(&home(cluster)).await;
    client.invoke("1", "JoinGroup", json!(["g"])).await;
    client.result("1").await;
    client.invoke("2", "WhoAmI", json!([])).await;
    let me = client.result("2").await;
    client.acknowledge(2).await;
    client.invoke("3", "Echo", json!([3])).await;
    client.result("3").await;
    let mut next = 0;
    for _ in 1..=5 {
        client.lose();
        for i in next..next + 10 {
            sender.result("SendToGroup", json!(["g", i.to_string()])).await;
        }
        let first = client.resume().await;
        client.continue_at(4).await;
        // The last acknowledgement may have been lost with the connection.
        for repeated in first..4 + next {
            let message = client.numbered().await;
            assert!(repeated != 3 || message["result"] == 3, "{message}");
        }
        for i in next..next + 10 {
            let message = client.numbered().await;
            assert_eq!(message["arguments"], json!(["g", i.to_string()]), "from {first}");
        }
        next += 10;
        client.acknowledge(3 + next).await;
    }
    client.invoke("4", "WhoAmI", json!([])).await;
    let still = client.result("4").await;
    assert_eq!(still["connectionId"], me["connectionId"]);
    cluster.has_connections(2).await;
}

async fn a_sequence_that_leaves_messages_out_ends_the_connection(cluster: &mut Cluster) {
    for resumes in [false, true] {
        let mut client = Resumable::connect(&home(cluster)).await;
        client.invoke("1", "Echo", json!([1])).await;
        client.result("1").await;
        if resumes {
            client.resume().await;
            client.result("1").await;
        }
        client.continue_at(2).await;
        client.continue_at(3).await;
        let close = loop {
            let message = client.next().await.expect("a Close message");
            if message["type"] != 8 {
                break message;
            }
        };
        let mistake =
            json!({ "type": 7, "error": "Connection closed with an error.", "allowReconnect": true });
        assert_eq!(close, mistake);
        let Some(Message::Close(Some(frame))) = client.socket().next().await else {
            panic!("no Close frame")
        };
        assert_eq!(frame.code, CloseCode::Normal);
        assert_eq!(client.replace().await.err(), Some(404));
    }
    cluster.is_tidy().await;
}

async fn a_newer_socket_takes_the_place_of_the_older_one(cluster: &mut Cluster) {
    let mut client = Resumable::connect(&home(cluster)).await;
    client.invoke("1", "Echo", json!([1])).await;
    client.result("1").await;
    for _ in 0..3 {
        let older = client.replace().await.expect("never refused with 409");
        let mut older = older.expect("it had a socket");
        let sequence = client.next().await.expect("the server speaks first");
        assert_eq!(sequence, json!({ "type": 9, "sequenceId": 1 }));
        assert_eq!(client.result("1").await, 1);
        while let Some(message) = older.next().await {
            assert!(!message.is_text(), "nothing more for the older one: {message}");
        }
    }
    client.continue_at(2).await;
    client.invoke("2", "Echo", json!([2])).await;
    assert_eq!(client.result("2").await, 2);
    cluster.has_connections(1).await;
}

async fn who_said_goodbye_does_not_come_back(cluster: &mut Cluster) {
    let entry = home(cluster);
    for goodbye in [
        json!({ "type": 7 }),
        json!({ "type": 1, "target": "Abort", "arguments": [] }),
    ] {
        let mut client = Resumable::connect(&entry).await;
        client.say(&goodbye).await;
        assert_eq!(client.next().await, Some(json!({ "type": 7 })));
        // The official client tries it at once, and must not be taken in.
        assert_eq!(client.replace().await.err(), Some(404), "{goodbye}");
    }
    let mut client = Resumable::connect(&entry).await;
    client.socket().send(Message::Close(None)).await;
    cluster.is_tidy().await;
    assert_eq!(client.replace().await.err(), Some(404), "a Close frame");
}

async fn a_version_1_client_does_not_come_back(cluster: &mut Cluster) {
    let mut client = Resumable::open(&home(cluster)).await;
    let handshake = RESUMABLE_HANDSHAKE.replace('2', "1");
    client.socket().text(&handshake).await;
    assert_eq!(client.next().await, Some(json!({})));
    client.invoke("1", "Echo", json!([1])).await;
    assert_eq!(client.next().await.expect("an answer")["result"], 1);
    assert_eq!(client.replace().await.err(), Some(409), "it has a socket");
    client.lose();
    cluster.is_tidy().await;
    assert_eq!(client.replace().await.err(), Some(404));
}

/// Beyond what the outbox may hold, the log has them.
async fn messages_without_ack_are_kept_however_many(cluster: &mut Cluster) {
    for away in [true, false] {
        let mut sender = sender(cluster).await;
        let mut client = Resumable::connect(&home(cluster)).await;
        client.invoke("1", "JoinGroup", json!(["g"])).await;
        client.result("1").await;
        let message = |number: u64| json!(["g", format!("{number}{}", "x".repeat(30_000))]);
        for (from, upto) in [(0, 3), (3, 5)] {
            if away {
                client.lose();
            }
            for number in from..upto {
                sender.result("SendToGroup", message(number)).await;
                if !away {
                    assert_eq!(client.numbered().await["arguments"], message(number));
                }
            }
            drop(client.replace().await.expect("so much is kept"));
            let sequence = client.next().await.expect("the server speaks first");
            assert_eq!(sequence, json!({ "type": 9, "sequenceId": 1 }));
            client.result("1").await;
            for number in 0..upto {
                assert_eq!(client.numbered().await["arguments"], message(number));
            }
        }
        client.lose();
        for number in 5..15 {
            sender.result("SendToGroup", message(number)).await;
        }
        drop(client.replace().await.expect("the log has it"));
        let sequence = client.next().await.expect("the server speaks first");
        assert_eq!(sequence, json!({ "type": 9, "sequenceId": 1 }));
        client.result("1").await;
        for number in 0..15 {
            assert_eq!(client.numbered().await["arguments"], message(number));
        }
        client.lose();
        sender.close().await;
        cluster.is_tidy().await;
    }
}

async fn messages_with_ack_are_not_kept(cluster: &mut Cluster) {
    let mut sender = sender(cluster).await;
    let mut client = Resumable::connect(&home(cluster)).await;
    client.invoke("0", "JoinGroup", json!(["g"])).await;
    client.result("0").await;
    let mut received = 1;
    for number in 0..20 {
        let message = json!(["g", format!("{number}{}", "x".repeat(30_000))]);
        sender.result("SendToGroup", message.clone()).await;
        assert_eq!(client.numbered().await["arguments"], message);
        client.acknowledge(received + 1).await;
        client.invoke("x", "Echo", json!([number])).await;
        assert_eq!(
            client.result("x").await,
            number,
            "the Ack was read before the call"
        );
        received += 2;
    }
    assert_eq!(cluster.sum("hubcast_slow_consumers_total").await, 0.0);
    assert_eq!(client.resume().await, received, "only the last answer is kept");
}

#[tokio::test]
async fn who_stays_away_too_long_is_forgotten() {
    let plan = Plan::nodes(2).set("hubs.resume_window_seconds", 1);
    let mut cluster = plan.start().await;
    let mut client = Resumable::connect(&home(&cluster)).await;
    client.invoke("1", "JoinGroup", json!(["g"])).await;
    client.result("1").await;
    client.lose();
    cluster.is_tidy().await;
    assert_eq!(client.replace().await.err(), Some(404));
}

#[tokio::test]
async fn it_is_agreed_on_only_where_both_sides_want_it() {
    for (allowed, version, expected) in [
        (true, 1, json!(true)),
        (true, 0, Value::Null),
        (false, 1, Value::Null),
    ] {
        let plan = Plan::one_node().set("hubs.stateful_reconnect", allowed);
        let cluster = plan.start().await;
        let query = format!("negotiateVersion={version}&useStatefulReconnect=true");
        let answer = cluster.entry().negotiate_with(&query).await.json();
        assert_eq!(answer["useStatefulReconnect"], expected, "{allowed} {version}");
    }
}
