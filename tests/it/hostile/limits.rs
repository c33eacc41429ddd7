//! Clients that want more than their share: of connections, of a node's time, of a request.

use std::sync::Arc;
use std::time::Duration;

use hubcast_tests::cluster::{Cluster, Plan};
use hubcast_tests::entry_point::EntryPoint;
use hubcast_tests::eventually::{eventually, eventually_equals};
use hubcast_tests::http::{Connection, Request, Response};
use hubcast_tests::hub_client::{HubClient, Transport};
use hubcast_tests::jwt::token_for;
use hubcast_tests::resumable::Resumable;
use serde_json::json;
use tokio::time::Instant;

/// Each limit is one node's: what holds on one must hold on each of two.
fn plans() -> [Plan; 2] {
    [Plan::one_node(), Plan::nodes(2)]
}

async fn limited(cluster: &Cluster, node: usize, limit: &str) -> f64 {
    let metrics = cluster.nodes[node].metrics().await;
    metrics.sum_where("hubcast_limited_total", &[("limit", limit)])
}

fn of(entry: &EntryPoint, user: &str) -> Arc<EntryPoint> {
    Arc::new(entry.with_bearer(&token_for(user)))
}

/// Refusals of each transport's first request.
async fn refusals(entry: &EntryPoint) -> Vec<Response> {
    let poll = entry.poll(&entry.negotiate().await.token).await;
    let post = entry.post(&entry.negotiate().await.token, "x").await;
    let negotiated = entry
        .upgrade(&format!("id={}", entry.negotiate().await.token))
        .await;
    vec![entry.upgrade("").await, negotiated, poll, post]
}

fn upgrade(forwarded_for: &str) -> Request {
    Request::upgrade("/hubs/demo").header("X-Forwarded-For", forwarded_for)
}

#[tokio::test]
async fn a_user_has_so_many_connections_to_a_node_and_others_have_theirs() {
    for plan in plans() {
        let mut cluster = plan.set("limits.connections_per_user", 2).start().await;
        for node in 0..cluster.nodes.len() {
            let entry = cluster.entry_on(node);
            let alice = of(&entry, "alice");
            let mut first = HubClient::connect(&alice, Transport::WebSockets).await;
            let mut second = HubClient::connect(&alice, Transport::LongPolling).await;
            for refusal in refusals(&alice).await {
                assert_eq!(refusal.status(), 429);
                assert!(
                    refusal.text().contains("limits.connections_per_user"),
                    "{}",
                    refusal.text()
                );
            }
            assert_eq!(limited(&cluster, node, "connections_per_user").await, 4.0);
            let mut others = vec![HubClient::connect(&of(&entry, "bob"), Transport::WebSockets).await];
            for _ in 0..3 {
                others.push(HubClient::connect(&entry, Transport::ServerSentEvents).await); // of no user
            }
            assert_eq!(first.result("Echo", json!([1])).await, 1);
            assert_eq!(second.result("Echo", json!([2])).await, 2);
            first.close().await;
            let third = eventually("the place of who has gone is free", async || {
                alice.websocket_with("").await.ok()
            })
            .await;
            third.vanish();
            second.close().await;
        }
        cluster.is_tidy().await;
    }
}

#[tokio::test]
async fn polls_of_a_connection_elsewhere_need_no_place() {
    let mut cluster = Plan::nodes(2)
        .set("limits.connections_per_user", 1)
        .set("limits.connections_per_address", 2)
        .set("limits.handshakes_per_second", 3)
        .start()
        .await;
    let everywhere = of(&cluster.entry(), "alice");
    let mut here = HubClient::connect(&of(&cluster.entry_on(0), "alice"), Transport::WebSockets).await;
    let there = of(&cluster.entry_on(1), "alice");
    let mut polling = HubClient::connect(&there, Transport::LongPolling).await;
    let token = polling.token().to_owned();
    for round in 0..8 {
        assert_eq!(polling.result("Echo", json!([round])).await, round);
        let call = format!("{{\"type\":1,\"target\":\"Echo\",\"arguments\":[{round}]}}\u{1e}");
        assert_eq!(everywhere.on(0).post(&token, call).await.status(), 200);
    }
    assert_eq!(limited(&cluster, 0, "connections_per_user").await, 0.0);
    assert_eq!(limited(&cluster, 0, "handshakes_per_second").await, 0.0);
    assert_eq!(here.result("Echo", json!([1])).await, 1);
    here.close().await;
    polling.close().await;
    cluster.is_tidy().await;
}

#[tokio::test]
async fn an_address_has_so_many_connections_to_a_node() {
    for plan in plans() {
        let mut cluster = plan.set("limits.connections_per_address", 1).start().await;
        for node in 0..cluster.nodes.len() {
            let entry = cluster.entry_on(node);
            let mut first = HubClient::connect(&of(&entry, "alice"), Transport::ServerSentEvents).await;
            for refusal in refusals(&of(&entry, "bob")).await {
                assert_eq!(refusal.status(), 429);
                let text = refusal.text();
                assert!(text.contains("limits.connections_per_address"), "{text}");
            }
            // Only a trusted proxy's header is believed.
            assert_eq!(entry.fetch(&upgrade("1.2.3.4")).await.status(), 429);
            assert_eq!(limited(&cluster, node, "connections_per_address").await, 5.0);
            assert_eq!(first.result("Echo", json!([1])).await, 1);
            drop(first);
            eventually("the place of who has gone is free", async || {
                entry.websocket_with("").await.ok()
            })
            .await
            .vanish();
        }
        cluster.is_tidy().await;
    }
}

#[tokio::test]
async fn behind_a_trusted_proxy_the_last_hop_counts() {
    for plan in plans() {
        let mut cluster = plan
            .set("limits.connections_per_address", 1)
            .set("server.trusted_proxies", "10.0.0.0/8, 127.0.0.1")
            .start()
            .await;
        for node in 0..cluster.nodes.len() {
            let entry = cluster.entry_on(node);
            let (first, open) = entry.start(&upgrade("9.9.9.9, 1.1.1.1")).await;
            let (second, open_too) = entry.start(&upgrade("1.1.1.1, 2.2.2.2, 10.1.2.3")).await;
            assert_eq!((first.status, second.status), (101, 101));
            for again in ["8.8.8.8, 1.1.1.1", "2.2.2.2:55", "1.1.1.1, 10.0.0.1"] {
                assert_eq!(entry.fetch(&upgrade(again)).await.status(), 429, "{again}");
            }
            drop((open, open_too));
            eventually("the places are free", async || {
                let (head, _) = entry.start(&upgrade("1.1.1.1")).await;
                (head.status == 101).then_some(())
            })
            .await;
        }
        cluster.is_tidy().await;
    }
}

#[tokio::test]
async fn a_node_that_is_full_says_which_limit_it_is() {
    for plan in plans() {
        let mut cluster = plan.set("limits.connections", 1).start().await;
        for node in 0..cluster.nodes.len() {
            let entry = cluster.entry_on(node);
            let only = HubClient::connect(&entry, Transport::WebSockets).await;
            for refusal in refusals(&entry).await {
                assert_eq!(refusal.status(), 503);
                assert!(
                    refusal.text().contains("(limits.connections)"),
                    "{}",
                    refusal.text()
                );
            }
            assert_eq!(limited(&cluster, node, "connections").await, 4.0);
            only.close().await;
        }
        cluster.is_tidy().await;
    }
}

#[tokio::test]
async fn a_node_takes_so_many_new_connections_a_second() {
    for plan in plans() {
        let mut cluster = plan.set("limits.handshakes_per_second", 3).start().await;
        for node in 0..cluster.nodes.len() {
            let entry = cluster.entry_on(node);
            let begun = Instant::now();
            let mut open = Vec::new();
            let refusal = eventually("one too many", async || {
                let (head, body) = entry.start(&upgrade("")).await;
                if head.status == 101 {
                    open.push(body);
                    return None;
                }
                Some(head)
            })
            .await;
            assert_eq!(refusal.status, 503);
            assert_eq!(refusal.header("retry-after"), Some("1"));
            assert!(open.len() >= 3, "a second's worth may come at once");
            let due = 3.0 + 3.0 * begun.elapsed().as_secs_f64();
            assert!(
                open.len() as f64 <= due,
                "{} in {:?}",
                open.len(),
                begun.elapsed()
            );
            assert!(limited(&cluster, node, "handshakes_per_second").await >= 1.0);
            eventually("others come in later", async || {
                entry.websocket_with("").await.ok()
            })
            .await
            .vanish();
        }
        cluster.is_tidy().await;
    }
}

/// Sends so many calls at once, and says how long their answers took.
async fn flood(client: &mut HubClient, calls: usize, argument: &str) -> Duration {
    let call = |id: usize| {
        let call =
            json!({ "type": 1, "invocationId": format!("f{id}"), "target": "Echo", "arguments": [argument] });
        format!("{call}\u{1e}")
    };
    let begun = Instant::now();
    let batch: String = (0..calls).map(call).collect();
    assert_eq!(client.send(batch).await, 200);
    for id in 0..calls {
        let answer = client
            .next()
            .await
            .expect("nobody is closed for sending too fast");
        assert_eq!(
            answer["invocationId"],
            format!("f{id}"),
            "in order, and all of them"
        );
        assert_eq!(answer["result"], argument);
    }
    begun.elapsed()
}

#[tokio::test]
async fn a_client_that_sends_too_many_messages_is_read_no_faster_and_loses_nothing() {
    for plan in plans() {
        let mut cluster = plan.set("limits.messages_per_second", 20).start().await;
        let last = cluster.nodes.len() - 1;
        let entry = cluster.entry_on(last);
        for transport in Transport::ALL {
            let before = limited(&cluster, last, "messages_per_second").await;
            let mut client = HubClient::connect(&entry, transport).await;
            let took = flood(&mut client, 50, "x").await;
            assert!(took >= Duration::from_millis(1_450), "{transport:?}: {took:?}");
            let held = limited(&cluster, last, "messages_per_second").await - before;
            assert!(held >= 20.0, "{transport:?}: {held}"); // a slow node gives some back meanwhile
            client.close().await;
        }
        cluster.is_tidy().await;
    }
}

#[tokio::test]
async fn a_client_that_sends_too_many_bytes_is_read_no_faster_and_loses_nothing() {
    for plan in plans() {
        let mut cluster = plan
            .set("limits.bytes_per_second", 10_000)
            .set("limits.message_bytes", 10_000)
            .start()
            .await;
        let entry = cluster.entry_on(0);
        for transport in Transport::ALL {
            let mut client = HubClient::connect(&entry, transport).await;
            let took = flood(&mut client, 5, &"x".repeat(5_000)).await;
            assert!(took >= Duration::from_millis(900), "{transport:?}: {took:?}");
            assert!(limited(&cluster, 0, "bytes_per_second").await >= 1.0);
            client.close().await;
        }
        cluster.is_tidy().await;
    }
}

#[tokio::test]
async fn pings_are_no_messages() {
    for plan in plans() {
        let mut cluster = plan.set("limits.messages_per_second", 5).start().await;
        let mut client = HubClient::connect(&cluster.entry_on(0), Transport::WebSockets).await;
        client.send("{\"type\":6}\u{1e}".repeat(5_000)).await;
        assert_eq!(client.result("Echo", json!(["read"])).await, "read");
        assert_eq!(limited(&cluster, 0, "messages_per_second").await, 0.0);
        client.close().await;
        cluster.is_tidy().await;
    }
}

#[tokio::test]
async fn a_stateful_client_is_slowed_down_too_and_keeps_its_place_wherever_it_goes() {
    let mut cluster = Plan::nodes(2)
        .set("limits.messages_per_second", 10)
        .set("limits.connections_per_user", 1)
        .set("hubs.resume_window_seconds", 2)
        .start()
        .await;
    let (one, two) = (
        of(&cluster.entry_on(0), "alice"),
        of(&cluster.entry_on(1), "alice"),
    );
    let mut client = Resumable::connect(&one).await;
    let begun = Instant::now();
    for id in 0..25 {
        let id = id.to_string();
        client
            .say(&json!({ "type": 1, "invocationId": id, "target": "Echo", "arguments": [id] }))
            .await;
    }
    let mut answers = Vec::new();
    while answers.len() < 25 {
        let message = client.next().await.expect("the session goes on");
        if message["type"] == 3 {
            answers.push(message["invocationId"].as_str().expect("an id").to_owned());
        }
    }
    let expected: Vec<_> = (0..25).map(|id| id.to_string()).collect();
    assert_eq!(answers, expected);
    assert!(
        begun.elapsed() >= Duration::from_millis(1_400),
        "{:?}",
        begun.elapsed()
    );
    assert!(limited(&cluster, 0, "messages_per_second").await >= 15.0);
    assert_eq!(one.upgrade("").await.status(), 429);
    let busy = two.websocket_with("").await.expect("the other node has a place");
    client.turn_to(&two);
    client.resume().await; // never refused
    assert_eq!(two.upgrade("").await.status(), 429, "but counted");
    let again = eventually("the place that it left is free", async || {
        one.websocket_with("").await.ok()
    })
    .await;
    busy.vanish();
    again.vanish();
    client.lose();
    cluster.is_tidy().await;
}

fn with_headers(count: usize) -> Request {
    (0..count).fold(Request::get("/healthz"), |request, n| {
        request.header(&format!("x-{n}"), "x")
    })
}

#[tokio::test]
async fn a_request_has_so_many_headers() {
    for plan in plans() {
        let mut cluster = plan.set("limits.headers", 30).start().await;
        for node in 0..cluster.nodes.len() {
            let entry = cluster.entry_on(node);
            // The Host header is one of them.
            assert_eq!(entry.fetch(&with_headers(29)).await.status(), 200);
            let refusal = entry.fetch(&with_headers(30)).await;
            assert_eq!(refusal.status(), 431);
            assert!(refusal.text().contains("limits.headers"), "{}", refusal.text());
            let mut connection = Connection::open(entry.turn()).await.expect("a connection");
            let head = connection.start(&with_headers(1_000)).await.expect("an answer");
            assert_eq!(head.status, 431, "and nothing of it is kept");
            let http2 = entry.over_http2().await;
            assert_eq!(http2.fetch(&with_headers(30)).await.status(), 200);
            assert_eq!(http2.fetch(&with_headers(31)).await.status(), 431);
            eventually_equals("each is counted", &3.0, async || {
                limited(&cluster, node, "headers").await
            })
            .await;
        }
        cluster.is_tidy().await;
    }
}

#[tokio::test]
async fn a_connection_is_in_so_many_groups() {
    for plan in plans() {
        let plan = plan
            .set("limits.groups_per_connection", 2)
            .set("hubs.detailed_errors", true);
        let mut cluster = plan.start().await;
        let mut client = HubClient::connect(&cluster.entry_on(0), Transport::WebSockets).await;
        for group in ["a", "b", "a"] {
            client.result("JoinGroup", json!([group])).await;
        }
        let refusal = client.call("JoinGroup", json!(["c"])).await;
        let error = refusal["error"].as_str().expect("an error");
        assert!(error.contains("limits.groups_per_connection"), "{error}");
        assert_eq!(limited(&cluster, 0, "groups_per_connection").await, 1.0);
        client.close().await;
        cluster.is_tidy().await;
    }
}

#[tokio::test]
async fn who_has_left_and_may_come_back_takes_no_place_and_the_oldest_goes_first() {
    let cluster = Plan::one_node()
        .set("limits.connections", 2)
        .set("hubs.resume_window_seconds", 20)
        .start()
        .await;
    let entry = cluster.entry();
    let mut gone = Vec::new();
    for _ in 0..5 {
        let mut client = eventually("there is a place", async || {
            let token = entry.websocket_with("").await.ok()?;
            token.vanish();
            Some(Resumable::connect(&entry).await)
        })
        .await;
        client.lose();
        gone.push(client);
    }
    // The youngest are still here, the others were given up for later ones.
    let mut client = gone.pop().expect("five have left");
    client.resume().await;
    client.continue_at(1).await;
    client
        .say(&json!({ "type": 1, "invocationId": "0", "target": "Echo", "arguments": ["back"] }))
        .await;
    while client.next().await.expect("the session goes on")["result"] != "back" {}
    let (metrics, limit) = (cluster.nodes[0].metrics().await, 2.0);
    assert!(
        metrics.sum("hubcast_connections") <= 2.0 * limit,
        "as many wait as may be here"
    );
    client.lose();
    drop(gone);
}
