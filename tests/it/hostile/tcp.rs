//! Clients that use up connections as such, leave answers unread, or send a foreign host name.

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::future::join_all;
use hubcast_tests::cluster::Plan;
use hubcast_tests::eventually::{eventually, within};
use hubcast_tests::http::{Connection, Request, try_fetch};
use hubcast_tests::ports::free_port;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

#[tokio::test]
async fn tcp_connections_are_bounded_and_operators_have_a_listener_of_their_own() {
    for limit in ["limits.tcp_connections", "limits.tcp_connections_per_address"] {
        let admin = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let plan = Plan::one_node().set("server.admin_listen", admin);
        let cluster = plan.set(limit, 8).start().await;
        let entry = cluster.entry();
        let address = entry.turn();
        let mut idle = Vec::new();
        eventually("the node is full", async || {
            let mut stream = TcpStream::connect(address).await.expect("the kernel accepts");
            let refused = timeout(Duration::from_millis(100), stream.read(&mut [0; 1])).await;
            idle.push(stream);
            matches!(refused, Ok(Ok(0) | Err(_))).then_some(())
        })
        .await;
        for path in ["/healthz", "/readyz", "/metrics", "/api/openapi.json"] {
            let answer = try_fetch(admin, &Request::get(path))
                .await
                .expect("it is not full");
            assert_eq!(answer.status(), 200, "{path}");
            if path == "/metrics" {
                let name = limit.trim_start_matches("limits.");
                let line = format!("hubcast_limited_total{{limit=\"{name}\"}} ");
                let count = answer.text().lines().find_map(|text| text.strip_prefix(&line));
                assert_ne!(count, Some("0"), "{line}");
            }
        }
        drop(idle);
        eventually("there is room again", async || {
            let answer = try_fetch(address, &Request::get("/healthz")).await.ok()?;
            (answer.status() == 200).then_some(())
        })
        .await;
        for path in ["/metrics", "/api/openapi.json"] {
            let answer = try_fetch(address, &Request::get(path)).await.expect("an answer");
            assert_eq!(answer.status(), 404, "{path} is for operators alone");
        }
        let answer = try_fetch(admin, &Request::post("/hubs/demo/negotiate", "")).await;
        assert_eq!(answer.expect("an answer").status(), 404);
    }
}

#[tokio::test]
async fn who_does_not_read_answers_is_closed() {
    let mut cluster = Plan::one_node().set("timeouts.send_seconds", 1).start().await;
    let entry = cluster.entry();
    let pipeline = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n".repeat(500);
    let mut stream = TcpStream::connect(entry.turn()).await.expect("a connection");
    within("a pipeline that nobody reads ends", async {
        while stream.write_all(&pipeline).await.is_ok() {}
    })
    .await;
    cluster.is_tidy().await;
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("it is short").to_be_bytes();
    let mut bytes = length[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// A GET in HPACK: indexed where the static table has it, else a literal with an indexed name.
fn get(path: &str) -> Vec<u8> {
    let mut block = vec![0x82, 0x86, 0x04, u8::try_from(path.len()).expect("it is short")];
    block.extend(path.as_bytes());
    block.extend([0x01, 1, b'x']);
    block
}

#[tokio::test]
async fn who_keeps_http2_windows_closed_holds_few_answers_and_not_for_long() {
    let plan = Plan::one_node().set("timeouts.send_seconds", 1);
    let mut cluster = plan.set("limits.least_bytes_per_second", 100_000).start().await;
    let entry = cluster.entry();
    for window in [0_u32, 1, 600] {
        let mut stream = TcpStream::connect(entry.turn()).await.expect("a connection");
        let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        let mut settings = vec![0, 4];
        settings.extend(window.to_be_bytes());
        bytes.extend(frame(4, 0, 0, &settings));
        for number in 0..100 {
            bytes.extend(frame(1, 5, 1 + 2 * number, &get("/metrics")));
        }
        stream.write_all(&bytes).await.expect("it is open");
        let mut answers = Vec::new();
        within("it is closed", async {
            stream.read_to_end(&mut answers).await.ok()
        })
        .await;
        let mut heads = 0;
        let mut rest = answers.as_slice();
        while let [a, b, c, kind, ..] = *rest {
            let length = u32::from_be_bytes([0, a, b, c]) as usize;
            heads += u32::from(kind == 1);
            rest = rest.get(9 + length..).unwrap_or_default();
        }
        assert_eq!(heads, 100, "each is answered, most with a refusal");
    }
    // An admitted client may send more requests at once.
    let http2 = entry.over_http2().await;
    assert_eq!(http2.negotiate_with("negotiateVersion=1").await.status(), 200);
    let request = Request::get("/healthz");
    for answer in join_all((0..40).map(|_| http2.fetch(&request))).await {
        assert_eq!(answer.status(), 200);
    }
    cluster.is_tidy().await;
}

async fn status(address: SocketAddr, head: &str) -> u16 {
    let mut connection = Connection::open(address).await.expect("a connection");
    let request = format!("GET /healthz HTTP/1.1\r\n{head}\r\n");
    connection.send(request.as_bytes()).await.expect("it is open");
    within("an answer", connection.head("GET"))
        .await
        .expect("an answer")
        .status
}

#[tokio::test]
async fn a_request_is_for_one_host_and_on_loopback_for_no_foreign_one() {
    let local = Plan::one_node().start().await;
    let listed = Plan::one_node()
        .set("server.allowed_hosts", "app.example.org")
        .start()
        .await;
    let proxied = Plan::one_node()
        .set("server.trusted_proxies", "127.0.0.1")
        .start()
        .await;
    let [local, listed, proxied] = [local, listed, proxied].map(|cluster| (cluster.entry().turn(), cluster));
    for (address, _) in [&local, &listed, &proxied] {
        assert_eq!(status(*address, "").await, 400, "no host");
        assert_eq!(status(*address, "Host: a\r\nHost: a\r\n").await, 400, "two hosts");
        assert_eq!(status(*address, &format!("Host: {address}\r\n")).await, 200);
        assert_eq!(status(*address, "Host: localhost:8080\r\n").await, 200);
    }
    for ((address, _), expected) in [
        (&local, [421, 421]),
        (&listed, [200, 421]),
        (&proxied, [200, 200]),
    ] {
        for (host, expected) in ["app.example.org", "evil.example"].iter().zip(expected) {
            assert_eq!(
                status(*address, &format!("Host: {host}:80\r\n")).await,
                expected,
                "{host}"
            );
        }
    }
}
