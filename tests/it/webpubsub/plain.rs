//! WebSockets without a subprotocol.

use hubcast_tests::application::Application;
use hubcast_tests::cluster::{Cluster, Plan};
use hubcast_tests::event_source::EventSource;
use hubcast_tests::eventually::eventually;
use hubcast_tests::rest::{Rest, dated};
use hubcast_tests::webpubsub::{End, upgrade};
use serde_json::{Value, json};

use super::{
    CHAT, DEMO, JSON, PLAIN, WebPubSub, at, chat, connect, demo, send_all, texts, token, with_chat,
    with_query,
};

/// A client that has a place in the log: from then on it misses nothing.
async fn open(cluster: &Cluster, node: usize, query: &str) -> (WebPubSub, String) {
    let mut client = connect(cluster, node, &with_query(DEMO, query), PLAIN).await;
    let place = client.next().await.expect("a place");
    assert_eq!(place["type"], "place", "{place}");
    let id = place["id"].as_str().expect("an id").to_owned();
    (client, id)
}

async fn resume(cluster: &Cluster, node: usize, query: &str, last: &str) -> WebPubSub {
    let target = with_query(DEMO, &format!("{query}&lastEventId={last}"));
    connect(cluster, node, &target, PLAIN).await
}

/// The next message.
async fn message(client: &mut WebPubSub) -> Value {
    loop {
        let message = client.next().await.expect("the socket lives");
        match message["type"].as_str() {
            Some("message") => return message,
            Some("place") => {}
            _ => panic!("no message: {message}"),
        }
    }
}

/// The last argument of each of the next messages, and the id of the last one.
async fn read(client: &mut WebPubSub, count: usize) -> (Vec<Value>, String) {
    let (mut seen, mut id) = (Vec::new(), String::new());
    for _ in 0..count {
        let message = message(client).await;
        let arguments = message["arguments"].as_array().expect("arguments");
        seen.push(arguments.last().expect("one").clone());
        message["id"].as_str().expect("an id").clone_into(&mut id);
    }
    (seen, id)
}

#[tokio::test]
async fn frames_are_json_and_say_who_and_what() {
    let mut cluster = Plan::nodes(2).trace().start().await;
    let of_ann = token(&cluster, "ann", &json!({ "role": ["hubcast.join.g h"] }));
    let target = with_query(DEMO, &format!("access_token={of_ann}&group=g%20h"));
    let mut client = WebPubSub::open(at(&cluster, 0), &target, PLAIN)
        .await
        .expect("it opens");
    let first = client.frame().await.expect("a frame");
    let id = first
        .strip_prefix("{\"type\":\"connected\",\"connectionId\":\"")
        .expect(&first);
    let id = id
        .strip_suffix("\",\"userId\":\"ann\"}")
        .expect(&first)
        .to_owned();
    let place = client.frame().await.expect("a frame");
    assert!(place.starts_with("{\"type\":\"place\",\"id\":\""), "{place}");
    let of_bob = token(&cluster, "bob", &json!({ "role": ["hubcast.send"] }));
    let target = with_query(DEMO, &format!("access_token={of_bob}"));
    let mut bob = connect(&cluster, 1, &target, JSON).await;
    bob.done(json!({ "type": "sendToGroup", "group": "g h", "dataType": "text", "data": "hi" }))
        .await;
    let frame = client.frame().await.expect("a frame");
    let rest = frame
        .strip_prefix("{\"type\":\"message\",\"id\":\"")
        .and_then(|rest| rest.split_once('"'));
    let expected = ",\"group\":\"g h\",\"fromUserId\":\"bob\",\"target\":\"message\",\"arguments\":[\"hi\"]}";
    assert_eq!(rest.map(|(_, rest)| rest), Some(expected), "{frame}");
    let rest = Rest::on(&cluster.nodes[1]);
    for path in [
        "/:send".to_owned(),
        "/users/ann/:send".to_owned(),
        format!("/connections/{id}/:send"),
    ] {
        rest.send(&path, &json!({ "target": "Say", "arguments": [1, {}] }))
            .await;
        let frame = client.frame().await.expect("a frame");
        let ends = "\",\"target\":\"Say\",\"arguments\":[1,{}]}";
        assert!(frame.ends_with(ends) && !frame.contains("fromUserId"), "{frame}");
    }
    let path = dated(&format!("/connections/{id}?reason=that%27s%20all"));
    assert_eq!(rest.fetch(&rest.request("DELETE", &path)).await.status(), 204);
    let close = "{\"type\":\"close\",\"error\":\"that's all\",\"allowReconnect\":false}";
    assert_eq!(client.frame().await.as_deref(), Some(close));
    assert_eq!(client.rest().await, (vec![], End::Closed(1000)));
    drop(bob);
    let anonymous = connect(&cluster, 1, DEMO, PLAIN).await;
    assert_eq!(anonymous.connected.get("userId"), None);
    drop(anonymous);
    cluster.is_tidy().await;
}

#[tokio::test]
async fn what_may_not_or_can_not_be_read_is_refused() {
    let cluster = with_chat(Plan::nodes(2))
        .set("limits.groups_per_connection", 2)
        .start()
        .await;
    let shown = token(
        &cluster,
        "ann",
        &json!({ "role": ["webpubsub.joinLeaveGroup.a", "hubcast.join.b*"] }),
    );
    let target = |query: &str| with_query(CHAT, &format!("access_token={shown}&{query}"));
    let (_, id) = open_chat(&cluster, &target("group=a")).await;
    let turned: String = id.chars().rev().collect();
    for (query, status) in [
        ("group=c".to_owned(), 403),
        ("group=a&group=c".to_owned(), 403),
        ("group=".to_owned(), 400),
        ("group=a%00b".to_owned(), 403),
        ("group=a&group=b1&group=b2".to_owned(), 400),
        ("rewind=-1".to_owned(), 400),
        ("rewind=10001".to_owned(), 400),
        ("lastEventId=0".to_owned(), 101), // it is of another log
        (format!("lastEventId={turned}"), 101),
        (format!("since={id}A"), 101),
        (format!("group=b1&lastEventId={id}"), 101),
        ("lastEventId=".to_owned(), 101),
    ] {
        let answer = upgrade(at(&cluster, 1), &target(&query), PLAIN).await;
        assert_eq!(answer.status(), status, "{query}: {}", answer.text());
    }
    let demo = with_query(DEMO, &format!("access_token={shown}&lastEventId={id}"));
    let answer = upgrade(at(&cluster, 1), &demo, PLAIN).await;
    assert_eq!(
        answer.status(),
        101,
        "a place in one hub is in another one that of a lost log"
    );
}

async fn open_chat(cluster: &Cluster, target: &str) -> (WebPubSub, String) {
    let mut client = connect(cluster, 0, target, PLAIN).await;
    let place = client.next().await.expect("a place");
    (client, place["id"].as_str().expect("an id").to_owned())
}

#[tokio::test]
async fn groups_that_the_token_names_are_read_as_well() {
    let cluster = with_chat(Plan::nodes(2)).start().await;
    let shown = token(&cluster, "ann", &json!({ "webpubsub.group": ["a", "b"] }));
    let (mut client, _) = open_chat(&cluster, &with_query(CHAT, &format!("access_token={shown}"))).await;
    let mut sender = chat(&cluster, 1, JSON, "bob", &["hubcast.send"]).await;
    for group in ["c", "a", "b"] {
        sender.send(group, group).await;
    }
    assert_eq!(read(&mut client, 2).await.0, ["a", "b"]);
}

#[tokio::test]
async fn who_comes_back_to_another_node_gets_exactly_what_it_missed() {
    let mut cluster = Plan::nodes(3).start().await;
    let (mut client, _) = open(&cluster, 0, "group=g").await;
    let mut sender = demo(&cluster, 1, JSON).await;
    send_all(&mut sender, "g", 0..20).await;
    let (seen, last) = read(&mut client, 20).await;
    assert_eq!(seen, texts(0..20));
    client.lose();
    send_all(&mut sender, "g", 20..120).await;
    let mut again = resume(&cluster, 2, "group=g", &last).await;
    assert_eq!(read(&mut again, 100).await.0, texts(20..120));
    sender.send("g", "120").await;
    let (seen, last) = read(&mut again, 1).await;
    assert_eq!(seen, texts(120..121), "nothing comes between or twice");
    // Also when its node is killed.
    cluster.nodes[2].kill();
    send_all(&mut sender, "g", 121..130).await;
    let mut again = resume(&cluster, 0, "group=g", &last).await;
    assert_eq!(read(&mut again, 9).await.0, texts(121..130));
}

#[tokio::test]
async fn places_are_the_same_as_those_of_event_streams() {
    let cluster = Plan::nodes(3).start().await;
    let mut sender = demo(&cluster, 1, JSON).await;
    let (mut client, place) = open(&cluster, 0, "group=g").await;
    send_all(&mut sender, "g", 0..5).await;
    let (_, last) = read(&mut client, 5).await;
    send_all(&mut sender, "g", 5..10).await;
    for (id, rest) in [(&place, 0..10), (&last, 5..10)] {
        let mut events = EventSource::resume(at(&cluster, 2), "group=g", id).await;
        assert_eq!(events.texts(rest.len()).await, texts(rest));
    }
    let mut events = EventSource::open(at(&cluster, 1), "group=g").await.begun().await;
    let begun = events.last_id.clone();
    send_all(&mut sender, "g", 10..15).await;
    events.texts(3).await;
    for (id, rest) in [(&begun, 10..15), (&events.last_id, 13..15)] {
        let mut again = resume(&cluster, 0, "group=g", id).await;
        assert_eq!(read(&mut again, rest.len()).await.0, texts(rest));
    }
    let mut newest = connect(&cluster, 2, &with_query(DEMO, "group=g&rewind=3"), PLAIN).await;
    assert_eq!(read(&mut newest, 3).await.0, texts(12..15));
    sender.send("g", "live").await;
    assert_eq!(read(&mut newest, 1).await.0, ["live"]);
}

#[tokio::test]
async fn a_new_log_is_told_to_those_who_are_here_and_to_those_who_come_back() {
    let mut cluster = Plan::nodes(3).start().await;
    let (mut stays, _) = open(&cluster, 0, "group=g").await;
    let (leaves, old) = open(&cluster, 1, "group=g").await;
    drop(leaves);
    cluster.redis().kill();
    cluster.redis().restart().await;
    assert_eq!(
        stays.next().await,
        Some(json!({ "type": "reset", "reason": "epoch" }))
    );
    let target = with_query(DEMO, &format!("group=g&lastEventId={old}"));
    // While the node has no Redis yet, its sockets end at once.
    let (mut again, reset) = eventually("it can read again", async || {
        let mut again = WebPubSub::open(at(&cluster, 2), &target, PLAIN).await.ok()?;
        again.next().await.filter(|first| first["type"] == "connected")?;
        let reset = again.next().await?;
        Some((again, reset))
    })
    .await;
    assert_eq!(
        (&reset["type"], &reset["reason"]),
        (&json!("reset"), &json!("epoch"))
    );
    let mut sender = demo(&cluster, 1, JSON).await;
    send_all(&mut sender, "g", 0..5).await;
    let (seen, last) = read(&mut stays, 5).await;
    assert_eq!(seen, texts(0..5));
    assert_eq!(read(&mut again, 5).await.0, texts(0..5));
    send_all(&mut sender, "g", 5..10).await;
    for (id, rest) in [(reset["id"].as_str().expect("an id"), 0..10), (&last, 5..10)] {
        let mut exact = resume(&cluster, 0, "group=g", id).await;
        assert_eq!(read(&mut exact, rest.len()).await.0, texts(rest));
    }
}

#[tokio::test]
async fn who_was_away_for_too_long_is_told_that_messages_may_be_missing() {
    let cluster = Plan::nodes(2).set("hubs.retention_messages", 10).start().await;
    let (client, old) = open(&cluster, 0, "group=g").await;
    drop(client);
    let mut sender = demo(&cluster, 1, JSON).await;
    send_all(&mut sender, "g", 0..300).await;
    let mut again = resume(&cluster, 1, "group=g", &old).await;
    let reset = again.next().await.expect("a frame");
    assert_eq!(
        (&reset["type"], &reset["reason"]),
        (&json!("reset"), &json!("trimmed"))
    );
    sender.send("g", "300").await;
    assert_eq!(read(&mut again, 1).await.0, ["300"]);
}

#[tokio::test]
async fn a_frame_calls_the_hub_and_its_result_is_a_message() {
    let application = Application::start().await;
    let mut client = WebPubSub::connect(application.address(), "/client/hubs/testhub", PLAIN).await;
    assert_eq!(client.next().await.expect("a place")["type"], "place");
    for text in ["hi", "{\"a\": 1}", "\u{0} \"ä\"\n", ""] {
        client.socket().text(text).await;
        let answer = message(&mut client).await;
        let seen = [&answer["target"], &answer["arguments"]];
        assert_eq!(seen, [&json!("message"), &json!([text])], "text stays text");
        assert_eq!(answer.get("group").or(answer.get("fromUserId")), None);
    }
    for (bytes, expected) in [
        (&[0xFF, 0xFE][..], "//4="),
        (b"\xc3\x28", "wyg="),
        (b"text", "text"),
    ] {
        client.socket().binary(bytes).await;
        assert_eq!(message(&mut client).await["arguments"], json!([expected]));
    }
    // One after the other, in their order.
    for number in 0..50 {
        client.socket().text(&number.to_string()).await;
    }
    assert_eq!(read(&mut client, 50).await.0, texts(0..50));
}

#[tokio::test]
async fn a_hub_without_such_a_method_says_so() {
    let cluster = Plan::nodes(2).start().await;
    let (mut client, _) = open(&cluster, 0, "group=g").await;
    client.socket().text("hi").await;
    let text =
        "Failed to invoke 'message' due to an error on the server. HubException: Method does not exist.";
    let error = json!({ "type": "error", "error": text });
    assert_eq!(client.next().await, Some(error));
    demo(&cluster, 1, JSON).await.send("g", "still there").await;
    assert_eq!(read(&mut client, 1).await.0, ["still there"]);
}
