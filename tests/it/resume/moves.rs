//! Sessions that go on on another node, message by message. What becomes of them under load is `chaos.rs`.

use hubcast_tests::cluster::{Cluster, Plan};
use hubcast_tests::eventually::eventually;
use hubcast_tests::hub_client::{HubClient, Transport};
use hubcast_tests::resumable::Resumable;
use serde_json::{Value, json};

/// The fate of the node on which a client is.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    Lives,
    IsDrained,
    IsKilled,
    IsPaused,
}

const FATES: [Fate; 4] = [Fate::Lives, Fate::IsDrained, Fate::IsKilled, Fate::IsPaused];

/// A client on the first of three nodes, in a group, and one on the last that sends.
async fn two_clients(cluster: &Cluster) -> (Resumable, HubClient) {
    let mut client = Resumable::connect(&cluster.entry_on(0)).await;
    client.invoke("join", "JoinGroup", json!(["g"])).await;
    client.result("join").await;
    let sender = HubClient::connect(&cluster.entry_on(2), Transport::WebSockets).await;
    (client, sender)
}

async fn meet(fate: Fate, cluster: &mut Cluster, client: &mut Resumable) {
    match fate {
        Fate::Lives => client.lose(),
        Fate::IsDrained => {
            cluster.nodes[0].terminate();
            assert_eq!(client.next().await, None, "neither Close nor anything else");
            assert_eq!(cluster.nodes[0].exit().await.code(), Some(0));
        }
        Fate::IsKilled => cluster.nodes[0].kill(),
        Fate::IsPaused => cluster.nodes[0].pause(),
    }
}

fn text(number: u64) -> Value {
    json!(["g", format!("{number}")])
}

/// The sessions that running nodes took over in one way, with one outcome.
async fn resumes(cluster: &mut Cluster, kind: &str, outcome: &str) -> f64 {
    let mut sum = 0.0;
    for node in cluster.nodes.iter_mut().skip(1) {
        if node.is_running() {
            let labels = [("kind", kind), ("outcome", outcome)];
            sum += node
                .metrics()
                .await
                .sum_where("hubcast_session_resumes_total", &labels);
        }
    }
    sum
}

#[tokio::test]
async fn a_session_goes_on_on_another_node_with_the_same_numbers() {
    for (fate, kind) in FATES
        .into_iter()
        .zip(["handed_over", "parked", "shut_out", "shut_out"])
    {
        let mut cluster = Plan::nodes(3).start().await;
        let (mut client, mut sender) = two_clients(&cluster).await;
        for number in 0..5 {
            sender.result("SendToGroup", text(number)).await;
            assert_eq!(client.numbered().await["arguments"], text(number), "{fate:?}");
        }
        client.acknowledge(3).await;
        client.invoke("a", "Echo", json!(["a"])).await;
        assert_eq!(client.result("a").await, "a", "the Ack was read before the call");

        meet(fate, &mut cluster, &mut client).await;
        for number in 5..10 {
            sender.result("SendToGroup", text(number)).await;
        }
        client.turn_to(&cluster.entry_on(1));
        let first = client.resume().await;
        // Messages that were acknowledged in the last second may be sent again: the client drops them by their number.
        assert!((1..=4).contains(&first), "{fate:?}: {first}");
        let mut sent = vec![json!({ "type": 3, "invocationId": "join", "result": null })];
        let message = |number| json!({ "type": 1, "target": "GroupMessage", "arguments": text(number) });
        sent.extend((0..5).map(message));
        sent.push(json!({ "type": 3, "invocationId": "a", "result": "a" }));
        sent.extend((5..10).map(message));
        for expected in &sent[first as usize - 1..] {
            assert_eq!(&client.numbered().await, expected, "{fate:?}");
        }
        assert_eq!(resumes(&mut cluster, kind, "exact").await, 1.0, "{fate:?}");

        client.continue_at(1).await;
        for id in ["join", "a"] {
            client.invoke(id, "Echo", json!(["again"])).await; // these were taken on the first node
        }
        client.invoke("b", "SendToGroup", text(10)).await;
        assert_eq!(
            client.numbered().await["arguments"],
            text(10),
            "{fate:?}: it is in its group"
        );
        assert_eq!(client.result("b").await, Value::Null);
        assert_eq!(sender.result("Echo", json!(["x"])).await, "x");
        if fate == Fate::IsPaused {
            cluster.nodes[0].resume();
        }
        cluster.logs_are_clean();
    }
}

/// They would keep a node that leaves until the drain's deadline.
#[tokio::test]
async fn calls_that_go_on_end_with_an_error_when_the_node_waits_no_longer() {
    let mut cluster = Plan::nodes(2)
        .set("drain.deadline_seconds", 600)
        .set("drain.calls_seconds", 1)
        .start()
        .await;
    let mut client = Resumable::connect(&cluster.entry_on(0)).await;
    let stream = json!({ "type": 4, "invocationId": "s", "target": "Counter", "arguments": [1_000_000, 20] });
    client.say(&stream).await;
    assert_eq!(client.numbered().await["type"], 2);
    client.is_acknowledged(1).await;
    cluster.nodes[0].terminate();
    while client.next().await.is_some() {}
    client.turn_to(&cluster.entry_on(1));
    client.resume().await;
    client.continue_at(2).await;
    let end = loop {
        let message = client.numbered().await;
        if message["type"] == 3 {
            break message;
        }
    };
    assert_eq!(end["invocationId"], "s");
    assert!(
        end["error"]
            .as_str()
            .is_some_and(|error| error.contains("interrupted")),
        "{end}"
    );
    assert_eq!(cluster.nodes[0].exit().await.code(), Some(0));
    assert!(cluster.nodes[0].log().contains("drained"), "before the deadline");
    client.invoke("x", "Echo", json!([1])).await;
    assert_eq!(client.result("x").await, 1);
}

#[tokio::test]
async fn streams_and_uploads_go_on_where_they_began() {
    let cluster = Plan::nodes(2).start().await;
    let mut client = Resumable::connect(&cluster.entry_on(0)).await;
    let say = async |client: &mut Resumable, message: Value| client.say(&message).await;
    say(
        &mut client,
        json!({ "type": 4, "invocationId": "s", "target": "Counter", "arguments": [40, 20] }),
    )
    .await;
    say(
        &mut client,
        json!({ "type": 1, "invocationId": "u", "target": "Sum", "arguments": [], "streamIds": ["up"] }),
    )
    .await;
    say(&mut client, json!({ "type": 2, "invocationId": "up", "item": 1 })).await;
    say(
        &mut client,
        json!({ "type": 4, "invocationId": "e", "target": "Counter", "arguments": [1000000, 20] }),
    )
    .await;
    let (mut items, mut endless) = (0, 0);
    while items < 5 || endless < 5 {
        let message = client.numbered().await;
        assert_eq!(message["type"], 2);
        if message["invocationId"] == "s" {
            items += 1;
        } else {
            endless += 1;
        }
    }
    // The client knows that its four messages arrived, and how far it was sent.
    client.is_acknowledged(4).await;

    client.turn_to(&cluster.entry_on(1));
    // The client has acknowledged nothing, so it is sent everything again.
    let first = client.resume().await;
    assert_eq!(first, 1);
    let mut number = first - 1;
    client.continue_at(5).await;
    say(
        &mut client,
        json!({ "type": 2, "invocationId": "up", "item": 20 }),
    )
    .await;
    say(&mut client, json!({ "type": 3, "invocationId": "up" })).await;
    say(&mut client, json!({ "type": 5, "invocationId": "e" })).await;
    let (mut counted, mut ended) = (Vec::new(), Vec::new());
    while ended.len() < 3 {
        let message = client.numbered().await;
        number += 1;
        match (message["type"].as_u64(), message["invocationId"].as_str()) {
            (Some(2), Some("s")) => counted.push(message["item"].as_u64().expect("a number")),
            (Some(2), Some("e")) => {}
            (Some(3), Some(id)) => {
                ended.push((id.to_owned(), message["result"].clone(), message["error"].clone()));
            }
            _ => panic!("{message}"),
        }
    }
    let whole: Vec<u64> = (0..40).collect();
    assert_eq!(counted, whole, "no item is missing, none comes twice");
    ended.sort_by(|a, b| a.0.cmp(&b.0));
    let end = |id: &str, result: Value| (id.to_owned(), result, Value::Null);
    assert_eq!(
        ended,
        [
            end("e", Value::Null),
            end("s", Value::Null),
            end("u", json!(21.0))
        ]
    );
    client.acknowledge(number).await;
    cluster.logs_are_clean();
}

#[tokio::test]
async fn a_call_that_died_with_its_node_ends_with_an_error_and_is_not_run_again() {
    let mut cluster = Plan::nodes(3).start().await;
    let (mut client, mut watcher) = two_clients(&cluster).await;
    // The call waits for its client, which never answers.
    client.invoke("q", "AskCaller", json!([])).await;
    let question = client.numbered().await;
    assert_eq!(question["target"], "GetAnswer");
    cluster.nodes[0].kill();
    client.turn_to(&cluster.entry_on(1));
    client.resume().await;
    client.continue_at(1).await;
    client.invoke("join", "Echo", json!(["taken before"])).await;
    client.invoke("q", "Echo", json!(["taken before"])).await;
    let failed = loop {
        let message = client.numbered().await;
        if message["invocationId"] == "q" {
            break message;
        }
    };
    assert_eq!(failed["type"], 3);
    assert!(
        failed["error"]
            .as_str()
            .is_some_and(|text| text.contains("interrupted")),
        "{failed}"
    );
    assert_eq!(watcher.result("Echo", json!([1])).await, 1);
}

#[tokio::test]
async fn a_question_is_answered_on_the_node_that_the_client_moved_to() {
    let cluster = Plan::nodes(2).start().await;
    let mut client = Resumable::connect(&cluster.entry_on(0)).await;
    client.invoke("q", "AskCaller", json!([])).await;
    let question = client.numbered().await;
    client.is_acknowledged(1).await;
    client.turn_to(&cluster.entry_on(1));
    client.resume().await;
    client.continue_at(2).await;
    let id = question["invocationId"].clone();
    client
        .say(&json!({ "type": 3, "invocationId": id, "result": 42 }))
        .await;
    let answer = loop {
        let message = client.numbered().await;
        if message["type"] == 3 {
            break message;
        }
    };
    assert_eq!(answer, json!({ "type": 3, "invocationId": "q", "result": 42 }));
}

#[tokio::test]
async fn who_is_quiet_for_longer_than_the_log_is_kept_can_come_back() {
    let mut cluster = Plan::nodes(3).set("hubs.retention_seconds", 1).start().await;
    let (mut client, mut sender) = two_clients(&cluster).await;
    client.acknowledge(1).await;
    let node = &cluster.nodes[0];
    let written = async || node.metrics().await.sum("hubcast_checkpoints_total");
    // By the third one, the log of the client's first second is gone.
    eventually("its checkpoint moves on though nothing happens", async || {
        sender.result("SendToGroup", json!(["somebody else", "x"])).await;
        (written().await >= 6.0).then_some(())
    })
    .await;
    cluster.nodes[0].kill();
    sender.result("SendToGroup", text(1)).await;
    client.turn_to(&cluster.entry_on(1));
    assert_eq!(client.resume().await, 2);
    assert_eq!(client.numbered().await["arguments"], text(1));
}

#[tokio::test]
async fn what_the_log_has_no_more_is_not_pretended() {
    let mut cluster = Plan::nodes(3).set("hubs.retention_messages", 5).start().await;
    let (mut client, mut sender) = two_clients(&cluster).await;
    cluster.nodes[0].kill();
    for number in 0..500 {
        sender.result("SendToGroup", text(number)).await;
    }
    client.turn_to(&cluster.entry_on(1));
    assert_eq!(client.replace().await.err(), Some(404));
    assert_eq!(resumes(&mut cluster, "shut_out", "lost").await, 1.0);
    cluster.logs_are_clean();
}

#[tokio::test]
async fn who_does_not_come_back_is_removed_by_one_survivor() {
    let plan = Plan::nodes(3)
        .with_short_leases()
        .set("hubs.resume_window_seconds", 1);
    let mut cluster = plan.start().await;
    let (client, sender) = two_clients(&cluster).await;
    cluster.nodes[0].kill();
    let removed = |cluster: &Cluster| {
        let line = |line: &str| line.contains("ended a connection that no node runs");
        cluster
            .nodes
            .iter()
            .map(|node| node.log().lines().filter(|l| line(l)).count())
            .sum::<usize>()
    };
    eventually("a survivor removes it", async || {
        (removed(&cluster) > 0).then_some(())
    })
    .await;
    sender.close().await;
    cluster.redis_is_tidy().await;
    assert_eq!(removed(&cluster), 1);
    drop(client);
}

#[tokio::test]
async fn a_hub_that_keeps_nothing_does_not_offer_it() {
    let cluster = Plan::nodes(2).set("hubs.volatile", true).start().await;
    let query = "negotiateVersion=1&useStatefulReconnect=true";
    let answer = cluster.entry().negotiate_with(query).await.json();
    assert_eq!(answer["useStatefulReconnect"], Value::Null);
    let mut receiver = HubClient::connect(&cluster.entry_on(0), Transport::WebSockets).await;
    receiver.result("JoinGroup", json!(["g"])).await;
    let mut sender = HubClient::connect(&cluster.entry_on(1), Transport::WebSockets).await;
    for number in 0..20 {
        sender.result("SendToGroup", text(number)).await;
    }
    for number in 0..20 {
        assert_eq!(receiver.expect("GroupMessage").await, text(number));
    }
}
