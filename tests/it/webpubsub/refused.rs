//! Reliable connections that can't go on: their clients are notified, and begin anew.

use hubcast_tests::cluster::{Cluster, Plan};
use hubcast_tests::eventually::{eventually, eventually_equals};
use hubcast_tests::hub_client::{HubClient, Transport};
use hubcast_tests::jwt::{ACCESS_KEY, now, token_with};
use hubcast_tests::rest::{Rest, dated};
use hubcast_tests::resumable::Resumable;
use hubcast_tests::webpubsub::{End, OVER, Refused, upgrade};
use hubcast_tests::websocket::Message;
use serde_json::json;

use super::{CHAT, DEMO, JSON, RELIABLE, WebPubSub, at, demo, send_all, with_query};

/// The clients take any other answer for an outage.
const IS_OVER: Option<Refused> = Some(Refused::Ended(End::Closed(OVER)));

fn way(id: &str, token: &str) -> String {
    with_query(
        DEMO,
        &format!("awps_connection_id={id}&awps_reconnection_token={token}"),
    )
}

async fn is_over(cluster: &Cluster, node: usize, target: &str) {
    let answer = upgrade(at(cluster, node), target, RELIABLE).await;
    assert_eq!(answer.status(), 101, "{target}: {}", answer.text());
    assert_eq!(answer.head.header("sec-websocket-protocol"), Some(RELIABLE));
    let mut socket = WebPubSub::open(at(cluster, node), target, RELIABLE)
        .await
        .expect("it opens");
    assert_eq!(socket.rest().await, (vec![], End::Closed(OVER)), "{target}");
}

#[tokio::test]
async fn a_token_is_for_its_connection_alone() {
    let cluster = Plan::nodes(2).set("hubs.names", "chat").trace().start().await;
    let mut client = demo(&cluster, 0, RELIABLE).await;
    let other = demo(&cluster, 0, RELIABLE).await;
    let without = demo(&cluster, 1, JSON).await;
    client.join("g").await;
    let (id, token) = (client.id().to_owned(), client.token().to_owned());
    let turned: String = token.chars().rev().collect();
    for node in [0, 1] {
        for target in [
            with_query(DEMO, &format!("awps_connection_id={id}")),
            way(&id, ""),
            way(&id, "x"),
            way(&id, &turned),
            way(&id, &token[1..]),
            way(&id, &format!("{token}A")),
            way(&id, other.token()),
            way(other.id(), &token),
            way(without.id(), &token),
            way("", &token),
            way("unknown", &token),
            way("no%20id", &token),
            client.way_back().replace(DEMO, CHAT),
        ] {
            is_over(&cluster, node, &target).await;
        }
    }
    client.send("g", "unharmed").await;
    assert_eq!(client.message().await["data"], "unharmed");
    // Without recovery there is nothing to come back to.
    let mut fresh = WebPubSub::connect(at(&cluster, 0), &client.way_back(), JSON).await;
    assert_ne!(fresh.id(), id);
    fresh.send("g", "2").await;
    assert_eq!(client.message().await["data"], "2");
    cluster.logs_are_clean();
}

#[tokio::test]
async fn what_has_ended_does_not_come_back() {
    let mut cluster = Plan::nodes(2).start().await;
    let rest = Rest::on(&cluster.nodes[1]);
    let end = async |id: &str| {
        let path = dated(&format!("/connections/{id}?reason=enough"));
        let answer = rest.fetch(&rest.request("DELETE", &path)).await;
        assert_eq!(answer.status(), 204, "{}", answer.text());
    };
    let mut left = demo(&cluster, 0, RELIABLE).await;
    left.socket().send(Message::Close(None)).await;
    assert_eq!(left.rest().await.0, Vec::<serde_json::Value>::new());
    let mut ended = demo(&cluster, 0, RELIABLE).await;
    end(ended.id()).await;
    let told = json!({ "type": "system", "event": "disconnected", "message": "enough" });
    assert_eq!(ended.rest().await, (vec![told], End::Closed(OVER)));
    let mut away = demo(&cluster, 0, RELIABLE).await;
    away.lose();
    end(away.id()).await;
    cluster.has_connections(0).await;
    let mut aborted = demo(&cluster, 0, RELIABLE).await;
    aborted
        .say(&json!({ "type": "event", "event": "Abort", "dataType": "json" }))
        .await;
    aborted
        .say(&json!({ "type": "invoke", "invocationId": "1", "event": "Abort" }))
        .await;
    assert_eq!(aborted.rest().await.1, End::Closed(OVER));
    for client in [&left, &ended, &away, &aborted] {
        for node in [1, 0] {
            is_over(&cluster, node, &client.way_back()).await;
        }
    }
    cluster.is_tidy().await;
}

#[tokio::test]
async fn signalr_and_web_pubsub_have_tokens_of_their_own() {
    let cluster = Plan::nodes(2).start().await;
    let entry = cluster.entry_on(0);
    let mut signalr = Resumable::connect(&entry).await;
    signalr.invoke("1", "WhoAmI", json!([])).await;
    let id = signalr.result("1").await["connectionId"]
        .as_str()
        .expect("an id")
        .to_owned();
    let client = demo(&cluster, 0, RELIABLE).await;
    for node in [0, 1] {
        for token in [signalr.token(), client.token()] {
            is_over(&cluster, node, &way(&id, token)).await;
            is_over(&cluster, node, &way(signalr.token(), token)).await;
        }
        let entry = cluster.entry_on(node);
        for id in [client.token(), client.id()] {
            assert_eq!(entry.upgrade(&format!("id={id}")).await.status(), 404);
            assert_eq!(entry.post(id, "x").await.status(), 404);
        }
    }
    signalr.invoke("2", "Echo", json!(["unharmed"])).await;
    assert_eq!(signalr.result("2").await, "unharmed");
}

#[tokio::test]
async fn who_stays_away_for_too_long_is_over() {
    let plan = Plan::nodes(3)
        .with_short_leases()
        .set("hubs.resume_window_seconds", 1);
    let mut cluster = plan.start().await;
    let mut late = demo(&cluster, 1, RELIABLE).await;
    late.join("g").await;
    late.lose();
    cluster.has_connections(0).await;
    let mut orphan = demo(&cluster, 0, RELIABLE).await;
    orphan.join("g").await;
    cluster.nodes[0].kill();
    cluster.redis_is_tidy().await;
    for client in [&late, &orphan] {
        for node in [1, 2] {
            is_over(&cluster, node, &client.way_back()).await;
        }
    }
}

#[tokio::test]
async fn what_the_log_has_no_more_is_not_pretended() {
    let mut cluster = Plan::nodes(3).set("hubs.retention_messages", 5).start().await;
    let mut client = demo(&cluster, 0, RELIABLE).await;
    client.join("g").await;
    let mut sender = demo(&cluster, 2, JSON).await;
    cluster.nodes[0].kill();
    send_all(&mut sender, "g", 0..500).await;
    assert_eq!(client.recover(at(&cluster, 1)).await.err(), IS_OVER);
    is_over(&cluster, 2, &client.way_back()).await;
}

#[tokio::test]
async fn a_new_log_ends_connections_and_says_so() {
    let mut cluster = Plan::nodes(3).start().await;
    let mut here = demo(&cluster, 0, RELIABLE).await;
    let mut away = demo(&cluster, 1, RELIABLE).await;
    here.join("g").await;
    away.join("g").await;
    away.lose();
    cluster.redis().kill();
    cluster.redis().restart().await;
    let (mut told, end) = here.rest().await;
    assert_eq!(end, End::Closed(OVER));
    let last = told.pop().expect("a message");
    assert_eq!((&last["event"], told.len()), (&json!("disconnected"), 0));
    for client in [&away, &here] {
        // While a node has no Redis yet, it answers that it does not know.
        let refused = eventually("it is over", async || {
            match client.recover(at(&cluster, 2)).await {
                Err(Refused::Status(503)) => None,
                answer => Some(answer.err()),
            }
        })
        .await;
        assert_eq!(refused, IS_OVER);
    }
}

/// The clients try again, and a balancer has better nodes for them.
#[tokio::test]
async fn a_node_that_leaves_sends_who_comes_back_elsewhere() {
    let cluster = Plan::nodes(2).set("drain.notice_seconds", 20).start().await;
    let mut client = demo(&cluster, 1, RELIABLE).await;
    client.join("g").await;
    cluster.nodes[0].terminate();
    eventually_equals("it leaves", &Some(503), async || {
        cluster.nodes[0].readiness().await
    })
    .await;
    client.lose();
    let refused = client.recover(at(&cluster, 0)).await.err();
    assert_eq!(refused, Some(Refused::Status(503)));
    client.come_back(at(&cluster, 1)).await;
    client.send("g", "there").await;
    assert_eq!(client.fresh_data(1).await, ["there"]);
    let mut others = HubClient::connect(&cluster.entry_on(1), Transport::WebSockets).await;
    assert_eq!(others.result("Echo", json!([1])).await, 1);
}

/// Its node has died, so no node can notify it before it comes back.
#[tokio::test]
async fn who_was_ended_while_it_was_away_hears_it_when_it_comes_back() {
    let mut cluster = Plan::nodes(3).start().await;
    let mut client = demo(&cluster, 0, RELIABLE).await;
    client.join("g").await;
    let mut sender = demo(&cluster, 2, JSON).await;
    cluster.nodes[0].kill();
    sender.send("g", "before").await;
    let rest = Rest::on(&cluster.nodes[2]);
    let path = dated(&format!("/connections/{}?reason=enough", client.id()));
    let ended = rest.fetch(&rest.request("DELETE", &path)).await;
    assert_eq!(ended.status(), 204, "{}", ended.text());
    sender.send("g", "after").await;
    let mut socket = WebPubSub::open(at(&cluster, 1), &client.way_back(), RELIABLE)
        .await
        .expect("it opens");
    let (messages, end) = socket.rest().await;
    assert_eq!(end, End::Closed(OVER));
    let after = messages.iter().find(|message| message["data"] == "after");
    assert_eq!(after, None, "nothing comes after the end");
    is_over(&cluster, 2, &client.way_back()).await;
}

#[tokio::test]
async fn a_connection_that_ends_with_its_token_is_over() {
    let plan = Plan::nodes(2)
        .set("auth.close_on_expiry", true)
        .set("auth.leeway_seconds", 0);
    let cluster = plan.start().await;
    let claims = json!({ "sub": "ann", "exp": now() + 3 });
    let target = with_query(DEMO, &format!("access_token={}", token_with(&claims, ACCESS_KEY)));
    let mut here = WebPubSub::connect(at(&cluster, 0), &target, RELIABLE).await;
    let mut moved = WebPubSub::connect(at(&cluster, 0), &target, RELIABLE).await;
    moved.come_back(at(&cluster, 1)).await;
    let text = "The access token has expired.";
    let told = json!({ "type": "system", "event": "disconnected", "message": text });
    for client in [&mut here, &mut moved] {
        assert_eq!(client.rest().await, (vec![told.clone()], End::Closed(OVER)));
        is_over(&cluster, 1, &client.way_back()).await;
    }
}

/// A client that gets no answer in time tries again. Whichever of its sockets wins, it must not get the answer that all
/// is over.
#[tokio::test]
async fn two_ways_back_at_once_don_t_end_a_connection() {
    let cluster = Plan::nodes(3).start().await;
    let mut client = demo(&cluster, 0, RELIABLE).await;
    client.join("g").await;
    let mut sender = demo(&cluster, 2, JSON).await;
    for (number, (one, two)) in [(1, 1), (2, 0), (1, 2), (0, 0), (2, 2), (1, 0)]
        .into_iter()
        .enumerate()
    {
        client.lose();
        let (first, second) = tokio::join!(
            client.recover(at(&cluster, one)),
            client.recover(at(&cluster, two))
        );
        for refused in [&first, &second].into_iter().filter_map(|way| way.as_ref().err()) {
            assert_ne!(Some(*refused), IS_OVER, "{one} {two}");
        }
        drop((first, second));
        client.come_back(at(&cluster, one)).await;
        sender.send("g", &number.to_string()).await;
        assert_eq!(client.fresh_data(1).await, [json!(number.to_string())]);
        client.acknowledge(client.last).await;
    }
}

#[tokio::test]
async fn what_not_everybody_could_read_is_refused_to_its_sender() {
    let cluster = Plan::nodes(2).start().await;
    let mut witness = demo(&cluster, 0, RELIABLE).await;
    witness.join("g").await;
    let mut sender = demo(&cluster, 1, JSON).await;
    let deep = |levels: usize| {
        let data = (1..levels).fold(json!([]), |inner, _| json!([inner]));
        json!({ "type": "sendToGroup", "group": "g", "dataType": "json", "data": data })
    };
    for (request, told) in [
        (
            json!({ "type": "sendToGroup", "group": "g", "data": null }),
            "not null",
        ),
        (json!({ "type": "sendToGroup", "group": "g" }), "not null"),
        (deep(62), "61 levels"),
    ] {
        let (name, text) = sender.refusal(request).await;
        assert_eq!(name, "BadRequest");
        assert!(text.contains(told), "{text}");
    }
    let half = r#"{"type":"sendToGroup","group":"g","ackId":99,"dataType":"text","data":"\ud83d"}"#;
    sender.socket().text(half).await;
    assert_eq!(sender.rest().await.1, End::Closed(1002), "it is no text at all");
    let mut sender = demo(&cluster, 1, JSON).await;
    sender.done(deep(61)).await;
    assert_eq!(witness.message().await["data"], deep(61)["data"]);
}

#[tokio::test]
async fn who_comes_back_again_and_again_and_gets_no_further_is_ended() {
    let cluster = Plan::one_node().start().await;
    let mut client = demo(&cluster, 0, RELIABLE).await;
    client.join("g").await;
    let mut other = demo(&cluster, 0, JSON).await;
    other.send("g", "what it can't read").await;
    client.lose();
    let mut sockets = 0;
    loop {
        sockets += 1;
        match client.recover(at(&cluster, 0)).await {
            Ok(mut socket) => socket.lose(),
            Err(Refused::Ended(End::Closed(OVER))) => break,
            Err(Refused::Ended(End::Cut)) => {} // it is to come back
            Err(refused) => panic!("it is told by Close, not by {refused:?}"),
        }
        assert!(sockets < 20, "it comes back for ever");
    }
    assert!(sockets > 3, "{sockets}");
}
