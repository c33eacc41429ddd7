//! Reliable connections that go on: wherever they come back, every message once and in order.

use hubcast_tests::cluster::{Cluster, Plan};
use hubcast_tests::eventually::eventually;
use hubcast_tests::jwt::{ACCESS_KEY, now, token_with};
use hubcast_tests::rest::{Rest, dated};
use hubcast_tests::webpubsub::{End, OVER, Refused, to_group, upgrade};
use hubcast_tests::websocket::Message;
use serde_json::{Value, json};

use super::{
    CHAT, JSON, RELIABLE, RELIABLE_PROTOBUF, WebPubSub, at, chat, connect, demo, send_all, texts, token,
    with_chat, with_query,
};

/// The fate of the node on which a client is, and where the client comes back.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    TakesItBack,
    LosesIt,
    IsDrained,
    IsKilled,
    IsPaused,
}

/// A client on the first of three nodes, in a group, and one on the last that sends.
async fn two_clients(cluster: &Cluster, protocol: &str) -> (WebPubSub, WebPubSub) {
    let mut client = demo(cluster, 0, protocol).await;
    client.join("g").await;
    (client, demo(cluster, 2, JSON).await)
}

async fn goes_on(fate: Fate, protocol: &str) {
    let mut cluster = Plan::nodes(3).trace().start().await;
    let (mut client, mut sender) = two_clients(&cluster, protocol).await;
    send_all(&mut sender, "g", 0..10).await;
    let mut ids = Vec::new();
    for text in texts(0..10) {
        assert_eq!(client.fresh().await["data"], text);
        ids.push(client.last);
    }
    client.acknowledge(ids[6]).await;
    match fate {
        Fate::TakesItBack | Fate::LosesIt => client.lose(),
        Fate::IsDrained => {
            cluster.nodes[0].terminate();
            assert_eq!(client.rest().await, (vec![], End::Cut), "so that it comes back");
            assert_eq!(cluster.nodes[0].exit().await.code(), Some(0));
        }
        Fate::IsKilled => cluster.nodes[0].kill(),
        Fate::IsPaused => cluster.nodes[0].pause(),
    }
    send_all(&mut sender, "g", 10..110).await;
    let node = usize::from(fate != Fate::TakesItBack);
    let mut old = client;
    let mut client = old.recover(at(&cluster, node)).await.expect("it goes on");
    cluster.secrets.add(client.token());
    let first = client.message().await;
    let again = ids.iter().position(|id| first["sequenceId"] == *id);
    let again = again.unwrap_or_else(|| panic!("{fate:?}: {first} came after more than the last ack"));
    if matches!(fate, Fate::IsKilled | Fate::IsPaused) {
        // Messages that were acknowledged in the last second may come again.
        assert!(again <= 7, "{fate:?}: {again}");
    } else {
        assert_eq!(again, 7, "{fate:?}: it begins right after the last ack");
    }
    for id in &ids[again + 1..] {
        assert_eq!(client.message().await["sequenceId"], *id, "{fate:?}");
    }
    let mut last = ids[9];
    for text in texts(10..110) {
        let message = client.message().await;
        assert_eq!(message["data"], text, "{fate:?}");
        let id = message["sequenceId"].as_u64().expect("a number");
        assert!(id > last, "{fate:?}: numbers grow");
        last = id;
    }
    // The client is in its group, and has its identity.
    sender.send("g", "live").await;
    let mut quiet = to_group("g", "not for its sender");
    quiet["noEcho"] = json!(true);
    client.done(quiet).await;
    client.send("g", "loud").await;
    assert_eq!(client.fresh_data(2).await, ["live", "loud"], "{fate:?}");
    if fate == Fate::IsPaused {
        cluster.nodes[0].resume();
        let (messages, end) = old.rest().await;
        assert_eq!(end, End::Cut, "who was shut out does not say that it is over");
        let said = messages.iter().map(|message| message["data"].clone());
        let mut expected = texts(10..110);
        expected.extend(["live".into(), "loud".into()]);
        assert!(
            expected.starts_with(&said.collect::<Vec<_>>()),
            "nor anything wrong: {messages:?}"
        );
        client.is_heard().await;
    }
    client.acknowledge(client.last).await;
    client.socket().send(Message::Close(None)).await;
    sender.socket().send(Message::Close(None)).await;
    cluster.is_tidy().await;
}

#[tokio::test]
async fn a_lost_socket_is_replaced_on_the_same_node() {
    for protocol in [RELIABLE, RELIABLE_PROTOBUF] {
        goes_on(Fate::TakesItBack, protocol).await;
    }
}

#[tokio::test]
async fn a_lost_socket_is_replaced_on_another_node() {
    for protocol in [RELIABLE, RELIABLE_PROTOBUF] {
        goes_on(Fate::LosesIt, protocol).await;
    }
}

#[tokio::test]
async fn a_drained_node_hands_its_clients_on() {
    for protocol in [RELIABLE, RELIABLE_PROTOBUF] {
        goes_on(Fate::IsDrained, protocol).await;
    }
}

#[tokio::test]
async fn a_killed_node_loses_nothing() {
    for protocol in [RELIABLE, RELIABLE_PROTOBUF] {
        goes_on(Fate::IsKilled, protocol).await;
    }
}

#[tokio::test]
async fn a_paused_node_is_shut_out() {
    for protocol in [RELIABLE, RELIABLE_PROTOBUF] {
        goes_on(Fate::IsPaused, protocol).await;
    }
}

/// The recovery counts on whatever node the client comes back.
#[tokio::test]
async fn who_comes_back_again_and_again_and_gets_no_further_begins_anew() {
    let cluster = Plan::nodes(3).start().await;
    let mut client = demo(&cluster, 0, RELIABLE).await;
    let mut times = 0;
    let refused = loop {
        client.lose();
        match client.recover(at(&cluster, times % 3)).await {
            Ok(back) => client = back,
            Err(refused) => break refused,
        }
        times += 1;
        assert!(times < 20, "nobody ends it");
    };
    assert_eq!(times, 12);
    assert_eq!(refused, Refused::Ended(End::Closed(OVER)));
}

/// Breaks off again and again while messages come, on whichever node is next, with whatever was acknowledged.
#[tokio::test]
async fn two_groups_keep_one_order_across_recoveries() {
    let cluster = Plan::nodes(3).start().await;
    let mut client = demo(&cluster, 0, RELIABLE).await;
    let mut witness = demo(&cluster, 1, JSON).await;
    for group in ["a", "b"] {
        client.join(group).await;
        witness.join(group).await;
    }
    let mut sending = Vec::new();
    for (node, group) in [(1, "a"), (2, "b")] {
        let mut sender = demo(&cluster, node, JSON).await;
        sending.push(tokio::spawn(async move {
            for number in 0..200 {
                sender.send(group, &format!("{group}{number}")).await;
            }
        }));
    }
    let (mut seen, mut expected) = (Vec::new(), Vec::new());
    for round in 1..=20_u64 {
        seen.extend(client.fresh_data(17).await);
        if !round.is_multiple_of(3) {
            client.acknowledge(client.last.saturating_sub(round)).await;
        }
        client.come_back(at(&cluster, (round / 2 % 3) as usize)).await;
    }
    seen.extend(client.fresh_data(400 - seen.len()).await);
    for _ in 0..400 {
        expected.push(witness.message().await["data"].clone());
    }
    assert_eq!(seen, expected);
    for sending in sending {
        sending.await.expect("it sends");
    }
}

/// A client may notice that its socket is lost before its node does.
#[tokio::test]
async fn a_new_socket_takes_the_place_of_one_that_seems_open() {
    let mut cluster = Plan::nodes(3).start().await;
    let (mut client, mut sender) = two_clients(&cluster, RELIABLE).await;
    for (round, node) in [0, 1, 1, 2, 0].into_iter().enumerate() {
        let mut old = client;
        client = old.recover(at(&cluster, node)).await.expect("it goes on");
        // The official Python client closes its old socket seconds later.
        old.socket().send(Message::Close(None)).await;
        send_all(&mut sender, "g", round..round + 1).await;
        assert_eq!(client.fresh_data(1).await, texts(round..round + 1));
        let (late, end) = old.rest().await;
        assert_eq!((late, end), (vec![], End::Cut), "to {node}");
        client.acknowledge(client.last).await;
    }
    client.socket().send(Message::Close(None)).await;
    sender.socket().send(Message::Close(None)).await;
    cluster.is_tidy().await;
}

#[tokio::test]
async fn what_was_sent_before_is_not_sent_again() {
    let mut cluster = Plan::nodes(3).start().await;
    let (mut client, mut other) = two_clients(&cluster, RELIABLE).await;
    other.join("g").await;
    let id = client.ask(to_group("g", "once")).await;
    assert_eq!(other.message().await["data"], "once");
    // The ack was lost with the socket, as far as the client knows.
    client.come_back(at(&cluster, 1)).await;
    for kill in [false, true] {
        if kill {
            cluster.nodes[1].kill();
            client.come_back(at(&cluster, 0)).await;
        }
        let mut again = to_group("g", "once");
        again["ackId"] = json!(id);
        client.say(&again).await;
        let ack = client.ack(id).await;
        assert_eq!(
            (&ack["success"], &ack["error"]["name"]),
            (&json!(false), &json!("Duplicate"))
        );
    }
    client.send("g", "end").await;
    assert_eq!(other.message().await["data"], "end");
    assert_eq!(client.fresh_data(2).await, ["once", "end"]);
}

/// The client lacks many times what its outbox may hold, and gets it page by page while more is sent.
#[tokio::test]
async fn a_client_that_lacks_much_gets_all_of_it() {
    let cluster = Plan::nodes(3).set("limits.outbox_bytes", 50_000).start().await;
    let (mut client, mut sender) = two_clients(&cluster, RELIABLE).await;
    send_all(&mut sender, "g", 0..1).await;
    assert_eq!(client.fresh_data(1).await, texts(0..1));
    client.acknowledge(client.last).await;
    client.lose();
    let large = |number: usize| format!("{number} {}", "x".repeat(5_000));
    for number in 0..200 {
        sender.send("g", &large(number)).await;
    }
    client.come_back(at(&cluster, 1)).await;
    sender.send("g", &large(200)).await;
    let mut seen = client.fresh_data(120).await;
    client.acknowledge(client.last).await;
    client.come_back(at(&cluster, 0)).await;
    seen.extend(client.fresh_data(81).await);
    let expected: Vec<_> = (0..=200).map(|number| Value::from(large(number))).collect();
    assert!(seen == expected, "each of them, once and in order");
}

/// Of an event whose ack was lost, as far as the client knows.
#[tokio::test]
async fn an_event_is_not_called_again() {
    let mut cluster = Plan::nodes(3).start().await;
    let mut client = demo(&cluster, 0, RELIABLE).await;
    let event = json!({ "type": "event", "event": "Echo", "data": "once" });
    let id = client.ask(event.clone()).await;
    for node in [0, 1, 2] {
        if node == 2 {
            cluster.nodes[1].kill();
        }
        client.come_back(at(&cluster, node)).await;
        let mut again = event.clone();
        again["ackId"] = json!(id);
        client.say(&again).await;
        let mut ack = client.ack(id).await;
        if ack["success"] == json!(true) {
            ack = client.ack(id).await; // the first answer came again, with what is replayed
        }
        assert_eq!(
            (&ack["success"], &ack["error"]["name"]),
            (&json!(false), &json!("Duplicate")),
            "{node}"
        );
    }
    let other = json!({ "type": "event", "event": "Echo", "data": "end" });
    client.done(other).await;
    assert_eq!(client.fresh_data(2).await, ["once", "end"]);
}

#[tokio::test]
async fn a_result_that_was_not_received_comes_again() {
    let mut cluster = Plan::nodes(3).start().await;
    let mut client = demo(&cluster, 0, RELIABLE).await;
    client
        .done(json!({ "type": "event", "event": "Echo", "data": "cut" }))
        .await;
    client.come_back(at(&cluster, 1)).await;
    assert_eq!(client.fresh_data(1).await, ["cut"]);
    client
        .done(json!({ "type": "event", "event": "Echo", "data": "killed" }))
        .await;
    cluster.nodes[1].kill();
    client.come_back(at(&cluster, 2)).await;
    assert_eq!(client.fresh_data(1).await, ["killed"]);
    let invoke = json!({ "type": "invoke", "invocationId": "1", "target": "event", "event": "WhoAmI" });
    client.say(&invoke).await;
    let known = client.invoked("1").await["data"].clone();
    let seen = [&known["connectionId"], &known["protocol"], &known["transport"]];
    assert_eq!(seen, [client.id(), RELIABLE, "WebSockets"], "{known}");
}

/// Acknowledged messages are forgotten, but only messages that were sent.
#[tokio::test]
async fn an_ack_of_what_was_not_sent_skips_nothing() {
    let cluster = Plan::nodes(3).start().await;
    let (mut client, mut sender) = two_clients(&cluster, RELIABLE).await;
    for (round, node) in [0, 1, 2, 2].into_iter().enumerate() {
        send_all(&mut sender, "g", round..round + 1).await;
        assert_eq!(client.fresh_data(1).await, texts(round..round + 1));
        client.acknowledge(u64::MAX).await;
        client.acknowledge(0).await;
        client.lose();
        send_all(&mut sender, "g", 100..110).await;
        client.come_back(at(&cluster, node)).await;
        let first = client.message().await;
        assert_eq!(first["data"], "100", "what it has is not sent again");
        client.last = first["sequenceId"].as_u64().expect("a number");
        assert_eq!(client.fresh_data(9).await, texts(101..110));
    }
}

#[tokio::test]
async fn who_one_is_and_what_one_may_goes_with_the_connection() {
    let cluster = with_chat(Plan::nodes(3)).start().await;
    let roles = [
        "webpubsub.joinLeaveGroup.a",
        "webpubsub.joinLeaveGroup.b",
        "webpubsub.sendToGroup.a",
    ];
    let shown = token(
        &cluster,
        "ann",
        &json!({ "role": roles, "webpubsub.group": "named" }),
    );
    let target = with_query(CHAT, &format!("access_token={shown}"));
    let mut client = connect(&cluster, 0, &target, RELIABLE).await;
    let mut sender = chat(&cluster, 2, JSON, "bob", &["hubcast.send"]).await;
    client.join("a").await;
    client.join("b").await;
    client.leave("b").await;
    for node in [1, 0, 1] {
        if node == 0 {
            cluster.nodes[1].pause();
        }
        client.come_back(at(&cluster, node)).await;
        cluster.nodes[1].resume();
        assert_eq!(client.connected["userId"], "ann");
        for group in ["b", "named", "a"] {
            sender.send(group, group).await;
        }
        assert_eq!(client.fresh_data(2).await, ["named", "a"]);
        client.send("a", "mine").await;
        assert_eq!(client.fresh().await["fromUserId"], "ann");
        for request in [to_group("b", "x"), json!({ "type": "joinGroup", "group": "c" })] {
            assert_eq!(client.refusal(request).await.0, "Forbidden");
        }
    }
}

/// The official clients show the token that they began with.
#[tokio::test]
async fn the_reconnection_token_decides_when_the_access_token_has_ended() {
    let plan = with_chat(Plan::nodes(2)).set("auth.leeway_seconds", 0);
    let cluster = plan.start().await;
    let claims = json!({ "sub": "ann", "role": "webpubsub.joinLeaveGroup", "exp": now() + 3 });
    let shown = token_with(&claims, ACCESS_KEY);
    let target = with_query(CHAT, &format!("access_token={shown}"));
    let mut client = connect(&cluster, 0, &target, RELIABLE).await;
    client.join("g").await;
    eventually("the token has ended", async || {
        (upgrade(at(&cluster, 1), &target, RELIABLE).await.status() == 401).then_some(())
    })
    .await;
    let mut sender = chat(&cluster, 1, JSON, "bob", &["hubcast.send"]).await;
    for node in [0, 1] {
        client.come_back(at(&cluster, node)).await;
        sender.send("g", "still").await;
        assert_eq!(client.fresh_data(1).await, ["still"]);
        client.join("other").await;
    }
    // Nor is one needed at all.
    let query = client.way_back();
    let (_, recovery) = query.split_once("awps_").expect("a way back");
    let mut bare = WebPubSub::open(at(&cluster, 0), &format!("{CHAT}?awps_{recovery}"), RELIABLE)
        .await
        .expect("it opens");
    assert_eq!(bare.next().await.expect("a message")["userId"], "ann");
}

#[tokio::test]
async fn one_node_without_redis_takes_its_clients_back() {
    let mut cluster = Plan::one_node().start().await;
    let mut client = demo(&cluster, 0, RELIABLE).await;
    let mut sender = demo(&cluster, 0, JSON).await;
    client.join("g").await;
    client.lose();
    send_all(&mut sender, "g", 0..50).await;
    client.come_back(at(&cluster, 0)).await;
    assert_eq!(client.fresh_data(50).await, texts(0..50));
    client.socket().send(Message::Close(None)).await;
    sender.socket().send(Message::Close(None)).await;
    cluster.is_tidy().await;
}

/// Messages on a socket that the client gave up must not be handled after its messages on the next one.
#[tokio::test]
async fn who_was_shut_out_does_nothing_that_it_reads_late() {
    let mut cluster = Plan::nodes(3).start().await;
    let (mut old, mut sender) = two_clients(&cluster, RELIABLE).await;
    cluster.nodes[0].pause();
    // These wait in the kernel of a node that does not run.
    old.say(&json!({ "type": "leaveGroup", "group": "g" })).await;
    old.say(&json!({ "type": "joinGroup", "group": "late" })).await;
    let mut client = old.recover(at(&cluster, 1)).await.expect("it goes on");
    client.leave("g").await;
    client.join("g").await;
    cluster.nodes[0].resume();
    assert_eq!(old.rest().await.1, End::Cut);
    let path = dated(&format!("/groups/g/connections/{}", sender.id()));
    let rest = Rest::on(&cluster.nodes[0]);
    let joined = rest.fetch(&rest.request("PUT", &path)).await;
    assert_eq!(joined.status(), 200, "the node serves again: {}", joined.text());
    for group in ["late", "g"] {
        sender.send(group, group).await;
    }
    assert_eq!(client.fresh_data(1).await, [Value::from("g")]);
    let _ = &mut cluster;
}
