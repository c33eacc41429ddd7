//! Clients that make a node hold something for them: Pongs that they don't read, messages, bodies and requests that they
//! don't finish, answers that they don't fetch. By raw sockets, because no client library would do that.

use std::net::SocketAddr;
use std::time::Duration;

use hubcast_tests::cluster::{Cluster, Plan};
use hubcast_tests::entry_point::EntryPoint;
use hubcast_tests::eventually::{eventually, within};
use hubcast_tests::http::{Connection, Request};
use hubcast_tests::hub_client::{HubClient, Transport};
use serde_json::json;
use tokio::time::timeout;

pub(super) const MEGABYTE: usize = 1 << 20;
const HANDSHAKE: &[u8] = b"{\"protocol\":\"json\",\"version\":1}\x1e";

/// Kinds of sockets: their path, their subprotocol, and what they begin with.
async fn kinds(entry: &EntryPoint) -> Vec<(String, &'static str, Vec<u8>)> {
    let stateful = entry
        .negotiate_with("negotiateVersion=1&useStatefulReconnect=true")
        .await
        .json();
    let token = stateful["connectionToken"].as_str().expect("a token").to_owned();
    let path = "/client/hubs/demo";
    vec![
        ("/hubs/demo".to_owned(), "", Vec::new()), // before the handshake
        ("/hubs/demo".to_owned(), "", frame(0x81, HANDSHAKE)),
        (
            format!("/hubs/demo?id={token}"),
            "",
            frame(0x81, b"{\"protocol\":\"json\",\"version\":2}\x1e"),
        ),
        (path.to_owned(), "", Vec::new()),
        (path.to_owned(), "json.webpubsub.azure.v1", Vec::new()),
        (path.to_owned(), "json.reliable.webpubsub.azure.v1", Vec::new()),
    ]
}

/// A masked frame; the mask is zero.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = head(first, payload.len());
    bytes.extend_from_slice(payload);
    bytes
}

fn head(first: u8, length: usize) -> Vec<u8> {
    let mut bytes = vec![first];
    match (u8::try_from(length), u16::try_from(length)) {
        (Ok(short @ 0..=125), _) => bytes.push(0x80 | short),
        (_, Ok(length)) => {
            bytes.push(0x80 | 126);
            bytes.extend(length.to_be_bytes());
        }
        _ => {
            bytes.push(0x80 | 127);
            bytes.extend((length as u64).to_be_bytes());
        }
    }
    bytes.extend([0; 4]);
    bytes
}

async fn socket(address: SocketAddr, target: &str, subprotocol: &str) -> Connection {
    let mut request = Request::upgrade(target);
    if !subprotocol.is_empty() {
        request = request.header("Sec-WebSocket-Protocol", subprotocol);
    }
    let mut connection = Connection::open(address).await.expect("a connection");
    let head = within("an upgrade", connection.start(&request))
        .await
        .expect("an answer");
    assert_eq!(head.status, 101, "{target} {subprotocol}");
    connection
}

/// Sends the same again and again, until that many bytes were taken or nothing more is. How many were.
async fn pour(connection: &mut Connection, bytes: &[u8], most: usize) -> usize {
    let mut sent = 0;
    while sent < most {
        match timeout(Duration::from_secs(1), connection.send(bytes)).await {
            Ok(Ok(())) => sent += bytes.len(),
            _ => break,
        }
    }
    sent
}

/// Waits for the end of a connection, whatever comes before it.
async fn ends(connection: &mut Connection) {
    within("the connection ends", async {
        while let Ok(Some(_)) = connection.piece().await {}
    })
    .await;
}

/// Sessions that outlive their sockets don't do so for long.
pub(super) fn plan() -> Plan {
    Plan::one_node().set("hubs.resume_window_seconds", 2)
}

fn resident(cluster: &Cluster) -> usize {
    cluster.nodes[0].resident_bytes()
}

#[tokio::test]
async fn pings_of_a_client_that_does_not_read_cost_next_to_nothing() {
    let mut cluster = plan().set("timeouts.send_seconds", 2).start().await;
    let entry = cluster.entry();
    let pings = frame(0x89, &[b'p'; 125]).repeat(500);
    for (target, subprotocol, beginning) in kinds(&entry).await {
        let mut client = socket(entry.turn(), &target, subprotocol).await;
        client.send(&beginning).await.expect("it is open");
        let before = resident(&cluster);
        let sent = pour(&mut client, &pings, 64 * MEGABYTE).await;
        let grown = resident(&cluster).saturating_sub(before);
        assert!(sent < 64 * MEGABYTE, "{target} {subprotocol} is read without end");
        assert!(
            grown < 8 * MEGABYTE,
            "{target} {subprotocol}: {grown} bytes for {sent}"
        );
        drop(client);
    }
    cluster.is_tidy().await;
}

#[tokio::test]
async fn control_frames_count_as_messages_and_bytes() {
    for (limit, value) in [
        ("limits.messages_per_second", 20),
        ("limits.bytes_per_second", 2_000),
    ] {
        let mut cluster = plan()
            .set("limits.message_bytes", 1_000)
            .set(limit, value)
            .start()
            .await;
        let entry = cluster.entry();
        for (target, subprotocol, beginning) in kinds(&entry).await {
            let mut client = socket(entry.turn(), &target, subprotocol).await;
            client.send(&beginning).await.expect("it is open");
            let begun = tokio::time::Instant::now();
            // 60 of 100 bytes, three times what a second allows for.
            client
                .send(&frame(0x8A, &[b'p'; 94]).repeat(60))
                .await
                .expect("it is open");
            client.send(&frame(0x89, b"last")).await.expect("it is open");
            let mut answer = Vec::new();
            within("the last one is answered", async {
                while !answer.windows(4).any(|window| window == b"last") {
                    answer.extend(client.piece().await.expect("it is open").expect("it goes on"));
                }
            })
            .await;
            let took = begun.elapsed();
            assert!(
                took >= Duration::from_millis(1_900),
                "{target} {subprotocol} {limit}: {took:?}"
            );
        }
        cluster.is_tidy().await;
    }
}

#[tokio::test]
async fn unfinished_messages_are_held_small_and_not_for_long() {
    let plan = plan()
        .set("timeouts.receive_seconds", 2)
        .set("limits.least_bytes_per_second", 1_000_000);
    let mut cluster = plan.start().await;
    let entry = cluster.entry();
    let part = vec![b'x'; MEGABYTE - 1_000];
    for (name, last) in [("one frame", 0x81), ("fragments", 0x01)] {
        for (target, subprotocol, beginning) in kinds(&entry).await {
            if target.contains("id=") {
                continue; // a token makes one connection; its socket is like the others
            }
            let before = resident(&cluster);
            let mut clients = Vec::new();
            for _ in 0..30 {
                let mut client = socket(entry.turn(), &target, subprotocol).await;
                client.send(&beginning).await.expect("it is open");
                client.send(&head(last, MEGABYTE)).await.expect("it is open");
                let _ = client.send(&part).await; // it may be refused meanwhile
                clients.push(client);
            }
            let grown = resident(&cluster).saturating_sub(before);
            assert!(
                grown < 10 * MEGABYTE,
                "{name} {target} {subprotocol}: {grown} bytes"
            );
            for client in &mut clients {
                ends(client).await;
            }
        }
    }
    cluster.is_tidy().await;
}

#[tokio::test]
async fn a_message_that_does_not_get_on_ends_its_connection_however_alive_the_client_seems() {
    let mut cluster = plan().set("timeouts.receive_seconds", 1).start().await;
    let entry = cluster.entry();
    for (target, subprotocol, beginning) in kinds(&entry).await {
        let mut client = socket(entry.turn(), &target, subprotocol).await;
        client.send(&beginning).await.expect("it is open");
        client
            .send(&frame(0x01, b"{\"begun\":"))
            .await
            .expect("it is open");
        eventually("it is closed", async || {
            // A Pong between the frames of a message is a sign of life.
            let sent = client.send(&frame(0x8A, b"")).await;
            let read = timeout(Duration::from_millis(50), client.piece()).await;
            (sent.is_err() || matches!(read, Ok(Err(_) | Ok(None)))).then_some(())
        })
        .await;
    }
    cluster.is_tidy().await;
}

/// A POST's head and the first bytes of its body.
async fn begin_post(entry: &EntryPoint, token: &str, length: usize, first: &[u8]) -> Connection {
    let mut connection = Connection::open(entry.turn()).await.expect("a connection");
    let target = entry.target(&format!("id={token}"));
    let head = format!("POST {target} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n");
    connection.send(head.as_bytes()).await.expect("it is open");
    connection.send(first).await.expect("it is open");
    connection
}

#[tokio::test]
async fn bodies_of_one_connection_are_read_one_after_the_other_and_go_with_it() {
    let mut cluster = plan()
        .set("timeouts.receive_seconds", 30)
        .set("timeouts.disconnect_seconds", 3)
        .start()
        .await;
    let entry = cluster.entry();
    let token = entry.negotiate().await.token;
    assert_eq!(entry.poll(&token).await.status(), 200);
    let before = resident(&cluster);
    let mut posts = Vec::new();
    let part = vec![b'x'; MEGABYTE - 1_000];
    for _ in 0..40 {
        let mut post = begin_post(&entry, &token, MEGABYTE, b"").await;
        let _ = timeout(Duration::from_millis(50), post.send(&part)).await;
        posts.push(post);
    }
    let grown = resident(&cluster).saturating_sub(before);
    assert!(grown < 10 * MEGABYTE, "{grown} bytes");
    // None of that is a handshake: the first bytes end the connection, and all of the posts with it.
    for post in &mut posts {
        let head = within("an answer", post.head("POST")).await.expect("an answer");
        assert_eq!(head.status, 404);
    }
    cluster.is_tidy().await;
}

#[tokio::test]
async fn a_body_has_to_get_on_whatever_it_is_for() {
    let mut cluster = plan().set("timeouts.receive_seconds", 1).start().await;
    let entry = cluster.entry();
    let token = entry.negotiate().await.token;
    assert_eq!(entry.poll(&token).await.status(), 200);
    let hub = entry.target(&format!("id={token}"));
    let paths = [
        hub.as_str(),
        "/hubs/demo/negotiate?negotiateVersion=1",
        "/healthz",
        "/api/hubs/demo/:send?api-version=2022-06-01",
        "/nowhere",
    ];
    for path in paths {
        let mut connection = Connection::open(entry.turn()).await.expect("a connection");
        let head = format!("POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nx");
        connection.send(head.as_bytes()).await.expect("it is open");
        let head = within("an answer", connection.head("POST"))
            .await
            .expect("an answer");
        assert_eq!(
            head.header("connection"),
            Some("close"),
            "{path}: {}",
            head.status
        );
    }
    // A body that goes on, slowly, is fine.
    let mut slow = begin_post(&entry, &token, 40, HANDSHAKE).await;
    for _ in 0..40 - HANDSHAKE.len() {
        tokio::time::sleep(Duration::from_millis(20)).await;
        slow.send(b" ").await.expect("it is open");
    }
    assert_eq!(slow.head("POST").await.expect("an answer").status, 200);
    cluster.is_tidy().await;
}

/// A client that does not fetch the answers to its calls: its token.
async fn deaf_client(entry: &EntryPoint, calls: usize) -> String {
    let token = entry.negotiate().await.token;
    assert_eq!(entry.post(&token, HANDSHAKE).await.status(), 200);
    assert_eq!(entry.poll(&token).await.status(), 200);
    let text = "x".repeat(30_000);
    let call = |id| json!({ "type": 1, "invocationId": id, "target": "Echo", "arguments": [text] });
    let body: String = (0..calls)
        .map(|id| call(id.to_string()).to_string() + "\u{1e}")
        .collect();
    let answer = entry.post(&token, body).await;
    assert!([200, 404].contains(&answer.status()), "{answer:?}"); // it may be gone by now
    token
}

/// Answers that are not fetched are charged as well. While the node holds as much as it may, clients for whom more than
/// their share waits are not read, and are let go when more comes for them. The others notice nothing.
#[tokio::test]
async fn answers_that_are_not_fetched_are_bounded_for_all_clients_together() {
    let limit = 2 * MEGABYTE as u32;
    let mut cluster = plan()
        .set("limits.held_bytes", limit)
        .set("limits.bytes_per_second", 0)
        .set("timeouts.disconnect_seconds", 60)
        .start()
        .await;
    let entry = cluster.entry();
    let mut bystander = HubClient::connect(&entry, Transport::WebSockets).await;
    let mut tokens = Vec::new();
    for _ in 0..16 {
        tokens.push(deaf_client(&entry, 8).await); // 240 kB, of the 1 MiB that one may have waiting
        assert_eq!(bystander.result("Echo", json!(["fine"])).await, "fine");
        let waiting = cluster.nodes[0].metrics().await.sum("hubcast_outbox_bytes");
        assert!(waiting < 1.5 * f64::from(limit), "{waiting} bytes wait");
    }
    // More comes for clients that have their share waiting.
    eventually("some are let go", async || {
        bystander.result("SendMessage", json!(["news", "for all"])).await;
        let metrics = cluster.nodes[0].metrics().await;
        let limited = metrics.sum_where("hubcast_limited_total", &[("limit", "held_bytes")]);
        let held = metrics.sum("hubcast_held_bytes");
        (limited > 0.0 && held < f64::from(limit)).then_some(())
    })
    .await;
    let mut told = 0;
    for token in &tokens {
        let answer = entry.poll(token).await;
        told += usize::from(answer.text().contains("limits.held_bytes"));
        entry.delete(token).await;
    }
    assert!(told > 0 && told < tokens.len(), "{told}");
    bystander.close().await;
    cluster.is_tidy().await;
}

#[tokio::test]
async fn an_answer_comes_whole_though_the_body_was_not_read() {
    let mut cluster = plan().start().await;
    let entry = cluster.entry();
    let refusals = [
        ("POST", "/api/hubs/demo/:send?api-version=2022-06-01", 401),
        ("POST", "/api/hubs/nosuch/nothing/at/all", 404),
        ("POST", "/hubs/demo?id=unknown", 404),
        ("POST", "/hubs/nosuch", 404),
        ("PUT", "/hubs/demo", 405),
        ("POST", "/healthz", 405),
        ("POST", "/nowhere", 404),
        ("POST", "/client/hubs/demo", 426),
    ];
    for (method, path, status) in refusals {
        let mut connection = Connection::open(entry.turn()).await.expect("a connection");
        for _ in 0..2 {
            let head = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
            connection.send(head.as_bytes()).await.expect(path);
            tokio::time::sleep(Duration::from_millis(20)).await;
            let body = format!("{:x}\r\n{}\r\n0\r\n\r\n", 300_000, "x".repeat(300_000));
            connection.send(body.as_bytes()).await.expect(path);
            let head = within("an answer", connection.head(method))
                .await
                .expect("an answer");
            assert_eq!(head.status, status, "{method} {path}");
            while connection.piece().await.expect("a whole answer").is_some() {}
        }
        // A client that sends `Expect` first is answered no, and sends nothing.
        let expecting = format!(
            "{method} {path} HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 300000\r\n\r\n"
        );
        connection.send(expecting.as_bytes()).await.expect("it is open");
        let head = within("an answer", connection.head(method))
            .await
            .expect("an answer");
        assert_eq!(head.status, status, "{method} {path}");
    }
    cluster.is_tidy().await;
}

/// A message that is cut off with its body is not the beginning of the next one.
#[tokio::test]
async fn a_body_that_breaks_off_takes_its_unfinished_message_along() {
    for plan in [plan(), Plan::nodes(2)] {
        let mut cluster = plan.set("timeouts.receive_seconds", 1).start().await;
        let entry = cluster.entry_on(cluster.nodes.len() - 1);
        let mut client = HubClient::connect(&cluster.entry_on(0), Transport::LongPolling).await;
        let call = "{\"type\":1,\"invocationId\":\"0\",\"target\":\"Echo\",\"arguments\":[\"whole\"]}\u{1e}";
        for length in [1_000, MEGABYTE] {
            let mut text = call.repeat(length / call.len());
            let whole = text.matches('\u{1e}').count();
            text.push_str("{\"type\":1,\"target\":\"Echo\",\"arg");
            let (entry, token) = (std::sync::Arc::clone(&entry), client.token().to_owned());
            let broken = tokio::spawn(async move {
                let post = begin_post(&entry, &token, 2 * MEGABYTE, text.as_bytes()).await;
                drop(post);
            });
            let mut answered = 0;
            // Of another node the last part is sent when it is whole.
            let least = if cluster.nodes.len() == 1 {
                whole
            } else {
                whole.saturating_sub(6_000)
            };
            while answered < least {
                assert_eq!(client.next().await.expect("it goes on")["result"], "whole");
                answered += 1;
            }
            broken.await.expect("it does not panic");
            let after = eventually("the next body is read", async || {
                let answer = client.result("Echo", json!(["next"])).await;
                (answer == "next").then_some(answer)
            })
            .await;
            assert_eq!(after, "next");
        }
        drop(client);
        cluster.is_tidy().await;
    }
}
