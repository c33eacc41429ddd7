//! Nodes that leave, die, and come back from the dead.

use std::sync::Arc;

use hubcast_tests::cluster::{Cluster, Plan};
use hubcast_tests::eventually::{eventually, eventually_equals};
use hubcast_tests::http::{Connection, Request};
use hubcast_tests::hub_client::{HubClient, Transport};
use hubcast_tests::js::{Connect, Js};
use hubcast_tests::messagepack;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

fn goodbye() -> Value {
    json!({ "type": 7, "allowReconnect": true })
}

/// A client of each transport, all of whose requests go to one node, and all in one group.
async fn clients_of(cluster: &Cluster, node: usize) -> Vec<HubClient> {
    let mut clients = Vec::new();
    for transport in Transport::ALL {
        let mut client = HubClient::connect(&cluster.entry_on(node), transport).await;
        client.result("JoinGroup", json!(["g"])).await;
        clients.push(client);
    }
    clients
}

/// Begins to read all that comes until the end, and returns when the node has these clients' polls.
async fn listen(cluster: &Cluster, clients: Vec<HubClient>) -> Vec<JoinHandle<Vec<Value>>> {
    let listen = |mut client: HubClient| tokio::spawn(async move { client.rest().await });
    let listening = clients.into_iter().map(listen).collect();
    for _ in 0..3 {
        // Bytes that were sent before these requests have arrived when the requests are answered.
        assert_eq!(
            cluster.nodes[0].fetch(&Request::get("/healthz")).await.status(),
            200
        );
    }
    listening
}

#[tokio::test]
async fn a_node_that_is_asked_to_leave_says_goodbye_and_exits_with_0() {
    let mut cluster = Plan::nodes(2).set("drain.deadline_seconds", 20).start().await;
    let clients = clients_of(&cluster, 0).await;
    let mut packed = HubClient::connect_messagepack(&cluster.entry_on(0), Transport::WebSockets).await;
    let mut survivor = HubClient::connect(&cluster.entry_on(1), Transport::WebSockets).await;
    let listening = listen(&cluster, clients).await;
    cluster.nodes[0].terminate();
    for client in listening {
        assert_eq!(client.await.unwrap(), [goodbye()]);
    }
    let packed = packed.next_messagepack().await.expect("a Close message");
    assert_eq!(
        (&packed[0], &packed[1], &packed[2]),
        (&7.into(), &messagepack::Value::Nil, &true.into())
    );
    let status = cluster.nodes[0].exit().await;
    assert_eq!(status.code(), Some(0), "{}", cluster.nodes[0].log());
    assert_eq!(survivor.result("Echo", json!(["fine"])).await, "fine");
    survivor.close().await;
    cluster.redis_is_tidy().await;
    cluster.logs_are_clean();
}

#[tokio::test]
async fn a_node_without_redis_leaves_in_the_same_way() {
    let mut cluster = Plan::one_node().start().await;
    let clients = clients_of(&cluster, 0).await;
    let listening = listen(&cluster, clients).await;
    cluster.nodes[0].terminate();
    for client in listening {
        assert_eq!(client.await.unwrap(), [goodbye()]);
    }
    assert_eq!(
        cluster.nodes[0].exit().await.code(),
        Some(0),
        "{}",
        cluster.nodes[0].log()
    );
    cluster.logs_are_clean();
}

#[tokio::test]
async fn the_goodbye_to_a_polling_client_may_be_fetched_through_another_node() {
    let mut cluster = Plan::nodes(2).set("drain.deadline_seconds", 20).start().await;
    let client = HubClient::connect(&cluster.entry_on(0), Transport::LongPolling).await;
    cluster.nodes[0].terminate();
    // The balancer sends the next poll, which comes between two others, to a ready node.
    let elsewhere = cluster.entry_on(1);
    assert_eq!(
        elsewhere.poll(client.token()).await.outcome(),
        (200, "{\"type\":7,\"allowReconnect\":true}\u{1e}")
    );
    assert_eq!(elsewhere.poll(client.token()).await.outcome(), (204, ""));
    assert_eq!(
        cluster.nodes[0].exit().await.code(),
        Some(0),
        "{}",
        cluster.nodes[0].log()
    );
}

#[tokio::test]
async fn a_node_that_leaves_says_that_it_is_not_ready() {
    let mut cluster = Plan::nodes(2).set("drain.notice_seconds", 3).start().await;
    let mut client = HubClient::connect(&cluster.entry_on(0), Transport::WebSockets).await;
    let address = cluster.nodes[0].address();
    let mut connection = Connection::open(address).await.unwrap();
    let mut readiness = async || {
        connection
            .fetch(&Request::get("/readyz"))
            .await
            .map(|response| response.status())
    };
    assert_eq!(readiness().await.unwrap(), 200);
    cluster.nodes[0].terminate();
    eventually_equals("the node is not ready", &Some(503), async || {
        cluster.nodes[0].readiness().await
    })
    .await;
    assert_eq!(
        client.result("Echo", json!(["still served"])).await,
        "still served"
    );
    assert_eq!(client.rest().await, [goodbye()]);
    assert_eq!(cluster.nodes[0].exit().await.code(), Some(0));
}

/// A request that is sent while such a connection closes would be lost.
#[tokio::test]
async fn connections_that_are_not_to_be_used_again_are_told_to_close() {
    let mut cluster = Plan::one_node().set("drain.notice_seconds", 3).start().await;
    let address = cluster.nodes[0].address();
    let mut stream = Connection::open(address).await.unwrap();
    let begun = stream.start(&Request::get("/sse/demo")).await.unwrap();
    assert_eq!(begun.header("connection"), Some("close"), "{begun:?}");
    let mut kept = Connection::open(address).await.unwrap();
    let healthy = kept.fetch(&Request::get("/healthz")).await.unwrap();
    assert_eq!(healthy.head.header("connection"), None);
    cluster.nodes[0].terminate();
    let leaving = eventually("the node is not ready", async || {
        let answer = kept.fetch(&Request::get("/readyz")).await.unwrap();
        if answer.status() == 503 {
            return Some(answer);
        }
        // The node may begin to leave between this answer's status and its head.
        if answer.head.header("connection").is_some() {
            kept = Connection::open(address).await.unwrap();
        }
        None
    })
    .await;
    assert_eq!(leaving.head.header("connection"), Some("close"), "{leaving:?}");
    assert_eq!(cluster.nodes[0].exit().await.code(), Some(0));
}

#[tokio::test]
async fn clients_that_do_not_leave_delay_the_end_by_no_more_than_the_deadline() {
    let mut cluster = Plan::nodes(2)
        .set("drain.deadline_seconds", 2)
        .set("timeouts.close_seconds", 60)
        .start()
        .await;
    // None of them reads, or answers, or closes.
    let _clients = clients_of(&cluster, 0).await;
    let _idle = Connection::open(cluster.nodes[0].address()).await.unwrap();
    let mut half = Connection::open(cluster.nodes[0].address()).await.unwrap();
    half.send(b"POST /hubs/demo?id=x HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhalf")
        .await
        .unwrap();
    cluster.nodes[0].terminate();
    assert_eq!(
        cluster.nodes[0].exit().await.code(),
        Some(0),
        "{}",
        cluster.nodes[0].log()
    );
}

#[tokio::test]
async fn clients_move_from_a_node_that_leaves_to_another() {
    let mut cluster = Plan::nodes(2)
        .balanced()
        .set("timeouts.disconnect_seconds", 3)
        .start()
        .await;
    let js = Js::start().await;
    let mut clients = Vec::new();
    for transport in [
        "WebSockets",
        "ServerSentEvents",
        "LongPolling",
        "WebSockets",
        "ServerSentEvents",
        "LongPolling",
    ] {
        let connect = Connect::to(&cluster.hub_url())
            .transport(transport)
            .reconnecting();
        let client = js.connect(connect.listening(&["GroupMessage"])).await;
        let first = client.who_am_i().await["node"]
            .as_str()
            .expect("a name")
            .starts_with("node-0");
        clients.push((first, client));
    }
    cluster.nodes[0].terminate();
    for (first, client) in &clients {
        if *first {
            client.has_events("reconnected", 1).await;
        }
        let node = client.who_am_i().await["node"].clone();
        assert!(
            node.as_str().is_some_and(|node| node.starts_with("node-1")),
            "{node}"
        );
        client.call("JoinGroup", json!(["g"])).await;
    }
    assert_eq!(cluster.nodes[0].exit().await.code(), Some(0));
    clients[0].1.call("SendToGroup", json!(["g", "after"])).await;
    for (_, client) in &clients {
        client.receives("GroupMessage", json!(["g", "after"])).await;
        assert_eq!(client.events("closed").len(), 0, "nobody was given up");
    }
    cluster.has_connections(6).await;
}

#[tokio::test]
async fn what_a_killed_node_leaves_is_removed_by_the_others() {
    let mut cluster = Plan::nodes(3).with_short_leases().start().await;
    let dead = clients_of(&cluster, 0).await;
    let mut living = HubClient::connect(&cluster.entry_on(1), Transport::WebSockets).await;
    living.result("JoinGroup", json!(["g"])).await;
    assert_eq!(traces(&mut cluster, &dead).await.len(), 3, "all are known before");
    cluster.nodes[0].kill();
    let what = "nothing is known of the dead node's connections";
    eventually_equals(what, &Vec::<String>::new(), async || {
        traces(&mut cluster, &dead).await
    })
    .await;
    let unknown = (404, "No Connection with that ID");
    for client in &dead {
        for node in [1, 2] {
            assert_eq!(
                cluster.entry_on(node).post(client.token(), "x").await.outcome(),
                unknown
            );
        }
    }
    living.result("SendToGroup", json!(["g", "to who is left"])).await;
    assert_eq!(
        living.expect("GroupMessage").await,
        json!(["g", "to who is left"])
    );
    living.close().await;
    cluster.redis_is_tidy().await;
    // And it may come back.
    cluster.nodes[0].restart().await;
    let mut newcomer = HubClient::connect(&cluster.entry_on(0), Transport::WebSockets).await;
    assert_eq!(newcomer.result("Echo", json!([1])).await, 1);
}

/// The ids of these clients that Redis has in a set or hash of the directory.
async fn traces(cluster: &mut Cluster, clients: &[HubClient]) -> Vec<String> {
    let contents = cluster.redis().contents().await;
    let is_known = |id: &str| {
        contents.iter().any(|(key, value)| {
            let of_log = ["}:stream:", "}:tail:", "}:closed:", "}:log:slice:", "}:batch:"];
            let is_log = of_log.iter().any(|part| key.contains(part));
            !is_log && (key.contains(id) || value.contains(id))
        })
    };
    clients
        .iter()
        .map(|client| client.id().to_owned())
        .filter(|id| is_known(id))
        .collect()
}

#[tokio::test]
async fn a_node_that_was_paused_too_long_closes_its_clients() {
    let mut cluster = Plan::nodes(2).with_short_leases().start().await;
    let js = Js::start().await;
    let mut raw = clients_of(&cluster, 0).await;
    let connect = Connect::to(&cluster.nodes[0].hub_url())
        .transport("WebSockets")
        .reconnecting();
    let official = js.connect(connect.listening(&["GroupMessage"])).await;
    let id = official.id().await;
    let mut other = HubClient::connect(&cluster.entry_on(1), Transport::WebSockets).await;

    cluster.nodes[0].pause();
    let what = "the other node has removed its connections";
    eventually_equals(what, &Vec::<String>::new(), async || {
        traces(&mut cluster, &raw).await
    })
    .await;
    other
        .result("SendToGroup", json!(["g", "while it was away"]))
        .await;
    cluster.nodes[0].resume();

    for client in &mut raw {
        let rest = client.rest().await;
        let told = rest.last().unwrap();
        assert_eq!(
            (&told["type"], &told["allowReconnect"]),
            (&json!(7), &json!(true))
        );
        let error = told["error"].as_str().unwrap_or_default();
        assert!(
            error.contains("took this one for dead"),
            "its memberships are gone, so it must begin anew: {rest:?}"
        );
    }
    official.has_events("reconnected", 1).await;
    assert_ne!(official.id().await, id);
    official.call("JoinGroup", json!(["g"])).await;
    other.result("SendToGroup", json!(["g", "after"])).await;
    official.receives("GroupMessage", json!(["g", "after"])).await;
    eventually("the node is ready again", async || {
        (cluster.nodes[0].readiness().await? == 200).then_some(())
    })
    .await;
    official.stop().await;
    other.close().await;
    cluster.has_connections(0).await;
    cluster.redis_is_tidy().await;
    cluster.logs_are_clean();
}

#[tokio::test]
async fn requests_for_a_node_that_hangs_end_in_bounded_time() {
    let cluster = Plan::nodes(2).with_short_leases().start().await;
    let entry = cluster.entry_on(0);
    let client = HubClient::connect(&entry, Transport::LongPolling).await;
    let elsewhere = Arc::new(cluster.entry_on(1).on(0));
    cluster.nodes[0].pause();
    // The owner can't answer. The other node says so, rather than wait with the client for ever.
    let status = elsewhere
        .post(client.token(), "{\"type\":6}\u{1e}")
        .await
        .status();
    assert!(matches!(status, 404 | 500 | 502 | 503 | 504), "{status}");
    let status = elsewhere.poll(client.token()).await.status();
    assert!(matches!(status, 204 | 404 | 500 | 502 | 503 | 504), "{status}");
    cluster.nodes[0].resume();
}

#[tokio::test]
async fn a_poll_that_waited_on_a_killed_node_takes_nothing_with_it() {
    let mut cluster = Plan::nodes(3).with_short_leases().start().await;
    let mut client = HubClient::connect(&cluster.entry_on(0), Transport::LongPolling).await;
    client.result("JoinGroup", json!(["g"])).await;
    let through_another = cluster.entry_on(1);
    let token = client.token().to_owned();
    let poll = tokio::spawn(async move { through_another.try_poll(&token).await });
    let forwarded = async || {
        cluster.nodes[1]
            .metrics()
            .await
            .sum("hubcast_forwarded_requests_total")
    };
    eventually("the poll is forwarded", async || {
        (forwarded().await > 0.0).then_some(())
    })
    .await;
    cluster.nodes[1].kill();
    assert!(poll.await.unwrap().is_none(), "the poll ends with its node");
    let mut sender = HubClient::connect(&cluster.entry_on(2), Transport::WebSockets).await;
    sender.result("SendToGroup", json!(["g", "kept"])).await;
    assert_eq!(client.expect("GroupMessage").await, json!(["g", "kept"]));
}
