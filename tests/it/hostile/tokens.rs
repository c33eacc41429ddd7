//! Tokens that should open nothing, other things shown in the place of a token, and what is done with good ones that
//! should not be done.

use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hubcast_tests::cluster::{Cluster, Plan};
use hubcast_tests::entry_point::EntryPoint;
use hubcast_tests::eventually::{eventually, within};
use hubcast_tests::http::Request;
use hubcast_tests::hub_client::{HubClient, JSON_HANDSHAKE, Transport};
use hubcast_tests::jwt::{ACCESS_KEY, now, token_as, token_for, token_with, unsigned_token};
use jsonwebtoken::Algorithm;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::{Value, json};
use tempfile::NamedTempFile;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A public key of an identity provider. The private one was thrown away.
const PUBLIC_KEY: &str = "-----BEGIN PUBLIC KEY-----
MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEA4F1NHq2sjeuUoATV7g/B
zXe3ebJg0PSIBPnJYYk1H3bGKIYuFqJT1cCtm/a3qzk4+cCKb86kB1zGnLME/T9m
lxxrV84SpAtOPT2wEt+X9iiYJf05xn5s6lVHas1sCj0HOjVkuN7ukWuxnyFQ37HV
Mdiww18JANnQ1s+dgFK+z6IUL4OFrAtjblSxtSV1vMFQbqjEQ21mSQ9l61DL3x9a
i7liP/47GYPzyvVdYlKEiguVflBLleSkUfrkY8FQp7G6LOigMX2PcBebDukA839l
hemGthN3d6upaeaWYsGtC+O56RyqrxeVnIwBJLBnLtoR1jd9ye6GOqGE4kclxfRC
UQIDAQAB
-----END PUBLIC KEY-----
";

/// Two nodes that know a public key, an issuer and an audience, and admit no client without a token.
async fn start(change: impl FnOnce(Plan) -> Plan) -> (Cluster, NamedTempFile) {
    let mut key = NamedTempFile::new().expect("a temporary file");
    key.write_all(PUBLIC_KEY.as_bytes())
        .expect("it can be written to");
    let plan = Plan::nodes(2)
        .trace()
        .set("auth.allow_anonymous", false)
        .set("auth.key_files", key.path().display())
        .set("auth.issuers", "https://idp.example")
        .set("auth.audiences", "my-app")
        .set("auth.refresh", true)
        .set("timeouts.disconnect_seconds", 3);
    (change(plan).start().await, key)
}

fn claims(more: &Value) -> Value {
    let mut claims = json!({ "nameid": "mallory", "exp": now() + 3_600 });
    let more = more.as_object().expect("claims are an object").clone();
    claims.as_object_mut().expect("so are these").extend(more);
    claims
}

/// Tokens that an attacker may try, with names.
fn bad_tokens() -> Vec<(String, String)> {
    let mut tokens = vec![
        ("unsigned".to_owned(), unsigned_token(&claims(&json!({})))),
        (
            "too large".to_owned(),
            token_with(&claims(&json!({ "x": "x".repeat(20_000) })), ACCESS_KEY),
        ),
        ("the access key itself".to_owned(), ACCESS_KEY.to_owned()),
    ];
    for (what, more) in [
        ("expired", json!({ "exp": now() - 3_600 })),
        ("not valid yet", json!({ "nbf": now() + 1_800 })),
        ("of another issuer", json!({ "iss": "https://evil.example" })),
        ("for another application", json!({ "aud": "other-app" })),
        ("for another hub", json!({ "aud": "http://x/client/?hub=news" })),
        ("for app servers", json!({ "aud": "http://x/server/?hub=demo" })),
        (
            "for REST",
            json!({ "aud": "http://x/api/hubs/demo/:send?api-version=2022-06-01" }),
        ),
    ] {
        tokens.push((what.to_owned(), token_with(&claims(&more), ACCESS_KEY)));
    }
    let der = PUBLIC_KEY
        .lines()
        .filter(|line| !line.starts_with('-'))
        .collect::<String>();
    let der = STANDARD.decode(der).expect("base64");
    let idp = claims(&json!({ "iss": "https://idp.example", "aud": "my-app" }));
    for algorithm in [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512] {
        for secret in [PUBLIC_KEY.as_bytes(), PUBLIC_KEY.trim().as_bytes(), &der] {
            let what = format!("{algorithm:?} with the public key as secret");
            tokens.push((what, token_as(algorithm, &idp, secret)));
        }
    }
    tokens
}

#[tokio::test]
async fn no_bad_token_opens_anything() {
    let (mut cluster, _key) = start(|plan| plan).await;
    let entry = cluster.entry();
    let alice = Arc::new(entry.with_bearer(&token_for("alice")));
    let mut client = HubClient::connect(&alice, Transport::LongPolling).await;
    for (what, token) in bad_tokens() {
        cluster.secrets.add(&token);
        let bad = entry.with_bearer(&token);
        let id = client.token();
        let answers = [
            bad.negotiate_with("negotiateVersion=1").await,
            bad.upgrade("").await,
            bad.poll(id).await,
            bad.post(id, "{\"type\":6}\u{1e}").await,
            bad.delete(id).await,
            bad.fetch(&refresh(id).bearer(Some(&token))).await,
            entry.upgrade(&format!("access_token={token}")).await,
        ];
        for (i, answer) in answers.iter().enumerate() {
            assert_eq!(answer.status(), 401, "{what}, request {i}: {}", answer.text());
            assert!(!answer.text().contains(&token), "{what}: the answer repeats it");
        }
        let events = Request::get(&entry.target(&format!("id={id}&access_token={token}")));
        let (head, _) = entry.start(&events.header("Accept", "text/event-stream")).await;
        assert_eq!(head.status, 401, "{what}, an event stream");
    }
    assert_eq!(client.result("Echo", json!(["unharmed"])).await, "unharmed");
    client.close().await;
    cluster.is_tidy().await;
}

#[tokio::test]
async fn a_token_that_fills_the_head_of_a_request_is_cut_off() {
    let (mut cluster, _key) = start(|plan| plan).await;
    let token = token_with(&claims(&json!({ "x": "x".repeat(100_000) })), ACCESS_KEY);
    let entry = cluster.entry();
    for request in [
        Request::post("/hubs/demo/negotiate", "").bearer(Some(&token)),
        Request::get(&format!("/hubs/demo?access_token={token}")),
    ] {
        let answer = hubcast_tests::http::try_fetch(entry.turn(), &request).await;
        // Either an answer that says so, or the end of the connection while the head is still being sent.
        if let Ok(answer) = answer {
            assert!(matches!(answer.status(), 414 | 431), "{}", answer.status());
        }
    }
    cluster.is_tidy().await;
}

fn refresh(id: &str) -> Request {
    Request::post(&format!("/hubs/demo/refresh?id={id}"), "")
}

/// Its client refreshes once, and is refused there because the user has changed.
#[tokio::test]
async fn a_poll_with_the_credentials_of_another_user_is_told_to_refresh() {
    let (mut cluster, _key) = start(|plan| plan).await;
    let entry = cluster.entry();
    let alice = Arc::new(entry.with_bearer(&token_for("alice")));
    let client = HubClient::connect(&alice, Transport::LongPolling).await;
    let mallory = entry.with_bearer(&token_for("mallory"));
    for _ in 0..entry.nodes() {
        let answer = mallory.poll(client.token()).await;
        let told = "{\"error\":\"authentication_refresh_required\"}";
        assert_eq!((answer.status(), answer.text()), (409, told));
        assert_eq!(mallory.post(client.token(), "x").await.status(), 403);
    }
    client.close().await;
    cluster.is_tidy().await;
}

#[tokio::test]
async fn a_connection_is_refreshed_by_its_user_alone() {
    let (mut cluster, _key) = start(|plan| plan).await;
    let entry = cluster.entry();
    let (alice, mallory) = (token_for("alice"), token_for("mallory"));
    let client = HubClient::connect(&Arc::new(entry.with_bearer(&alice)), Transport::WebSockets).await;
    let outcome = async |request: Request, token: Option<&str>| {
        let answer = entry.fetch(&request.bearer(token)).await;
        (answer.status(), answer.text().to_owned())
    };
    for _ in 0..entry.nodes() {
        let rejected = (403, "{\"error\":\"user_changed\"}".to_owned());
        assert_eq!(outcome(refresh(client.token()), Some(&mallory)).await, rejected);
        let unknown = (404, "{\"error\":\"connection_not_found\"}".to_owned());
        let public_id = client.id();
        assert_eq!(
            outcome(refresh(public_id), Some(&alice)).await,
            unknown,
            "the id is not the token"
        );
        assert_eq!(outcome(refresh("nonsense"), Some(&alice)).await, unknown);
        let negotiated = entry.with_bearer(&alice).negotiate().await;
        assert_eq!(
            outcome(refresh(&negotiated.token), Some(&alice)).await,
            unknown,
            "it is none yet"
        );
        let nothing = Request::post("/hubs/demo/refresh", "");
        assert_eq!(outcome(nothing, Some(&alice)).await.0, 400);
        assert_eq!(outcome(refresh(client.token()), None).await.0, 401);
        let get = Request::get(&format!("/hubs/demo/refresh?id={}", client.token()));
        assert_eq!(outcome(get, Some(&alice)).await.0, 405);
        let foreign = refresh(client.token()).header("Origin", "https://evil.example");
        assert_eq!(outcome(foreign, Some(&alice)).await.0, 403);
        let by_header =
            Request::post("/hubs/demo/refresh", "").header("X-SignalR-Connection-Token", client.token());
        assert_eq!(outcome(by_header, Some(&alice)).await.0, 200);
        let same = entry.with_bearer(&alice).negotiate_with("").await.json()["connectionId"].clone();
        let unsupported = (400, "{\"error\":\"unsupported_negotiate_version\"}".to_owned());
        let same = refresh(same.as_str().expect("an id"));
        assert_eq!(outcome(same, Some(&alice)).await, unsupported);
        let (status, body) = outcome(refresh(client.token()), Some(&alice)).await;
        let lifetime = serde_json::from_str::<Value>(&body).expect("JSON")["tokenLifetimeSeconds"].as_u64();
        assert!(
            status == 200 && lifetime.is_some_and(|seconds| (3_500..=3_600).contains(&seconds)),
            "{body}"
        );
    }
    client.close().await;
    cluster.is_tidy().await;
}

/// Cookies are sent with the requests of any page, so the origin of the page counts.
#[tokio::test]
async fn a_foreign_page_can_not_use_its_visitors_cookie() {
    let (mut cluster, _key) = start(|plan| {
        plan.set("auth.cookie", "session")
            .set("cors.allowed_origins", "https://app.example")
    })
    .await;
    let entry = cluster.entry();
    let cookie = format!("theme=dark; session={}", token_for("alice"));
    let negotiate = || Request::post("/hubs/demo/negotiate?negotiateVersion=1", "").header("Cookie", &cookie);
    let upgrade = || Request::upgrade("/hubs/demo").header("Cookie", &cookie);
    for _ in 0..entry.nodes() {
        for origin in [
            "https://evil.example",
            "null",
            "https://app.example.evil.example",
            "http://app.example",
        ] {
            let (head, _) = entry.start(&upgrade().header("Origin", origin)).await;
            assert_eq!(head.status, 403, "a WebSocket from {origin}");
            let answer = entry.fetch(&negotiate().header("Origin", origin)).await;
            assert_eq!(answer.status(), 403, "negotiate from {origin}");
        }
        let own = entry
            .fetch(&negotiate().header("Origin", "https://app.example"))
            .await;
        assert_eq!(own.status(), 200, "{}", own.text());
        let (head, _) = entry
            .start(&upgrade().header("Origin", "https://app.example"))
            .await;
        assert_eq!(head.status, 101);
    }
    // Hub code sees the other cookies alone.
    let address = entry.turn();
    let opened =
        hubcast_tests::websocket::WebSocket::open(address, "/hubs/demo", &[("Cookie", &cookie)]).await;
    let mut socket = opened.expect("the WebSocket opens");
    socket.text(JSON_HANDSHAKE).await;
    socket.next().await.expect("the handshake's answer");
    socket
        .text("{\"type\":1,\"invocationId\":\"0\",\"target\":\"WhoAmI\",\"arguments\":[]}\u{1e}")
        .await;
    let me = socket
        .next()
        .await
        .expect("an answer")
        .into_text()
        .expect("text")
        .as_str()
        .to_owned();
    assert!(
        me.contains("\"userId\":\"alice\"") && me.contains("\"cookie\":\"theme=dark\""),
        "{me}"
    );
    drop(socket);
    cluster.secrets.add(&cookie);
    cluster.is_tidy().await;
}

/// Negotiates; a ticket comes with it.
async fn ticket(
    entry: &EntryPoint,
    secrets: &hubcast_tests::entry_point::Secrets,
) -> (String, String, String) {
    let answer = entry.negotiate_with("negotiateVersion=1").await.json();
    let text = |name: &str| {
        answer[name]
            .as_str()
            .unwrap_or_else(|| panic!("no {name}"))
            .to_owned()
    };
    let (id, token, ticket) = (text("connectionId"), text("connectionToken"), text("accessToken"));
    secrets.add(&token);
    secrets.add(&ticket);
    assert_eq!(ticket.matches('.').count(), 0, "it is no JSON Web Token");
    (id, token, ticket)
}

#[tokio::test]
async fn a_ticket_is_good_for_one_connection() {
    let (mut cluster, _key) = start(|plan| plan.set("auth.tickets", true)).await;
    let entry = cluster.entry();
    let jwt = token_for("alice");
    let alice = entry.with_bearer(&jwt);
    for _ in 0..entry.nodes() {
        let (id, token, pass) = ticket(&alice, &cluster.secrets).await;
        let (_, other, _) = ticket(&alice, &cluster.secrets).await;
        // Not without its connection, not for another one, not by the public id, and no token stands in a URL.
        for query in [
            format!("access_token={pass}"),
            format!("id={other}&access_token={pass}"),
            format!("id={id}&access_token={pass}"),
            format!("id={token}"),
            format!("id={token}&access_token={jwt}"),
            format!("id={token}&access_token={}", &pass[..pass.len() - 1]),
        ] {
            assert_eq!(entry.upgrade(&query).await.status(), 401, "{query}");
        }
        assert_eq!(entry.with_bearer(&pass).negotiate_with("").await.status(), 401);
        let query = format!("id={token}&access_token={pass}");
        let mut socket = entry.websocket_with(&query).await.expect("the WebSocket opens");
        for _ in 0..entry.nodes() {
            let again = entry.upgrade(&query).await.status();
            assert!(matches!(again, 400 | 404 | 409), "a second time: {again}");
            let fresh = refresh(&token).bearer(Some(&pass));
            assert_eq!(
                entry.fetch(&fresh).await.status(),
                401,
                "a ticket refreshes nothing"
            );
        }
        socket.text(JSON_HANDSHAKE).await;
        assert!(socket.next().await.is_some(), "the first is not disturbed");
        drop(socket);
        cluster.has_connections(0).await;
        let gone = async || (entry.upgrade(&query).await.status() == 404).then_some(());
        eventually("the ticket has ended with its connection", gone).await;
    }
    // Requests of one connection show it one after the other.
    let (_, token, pass) = ticket(&alice, &cluster.secrets).await;
    let with_ticket = entry.with_bearer(&pass);
    assert_eq!(with_ticket.poll(&token).await.outcome(), (200, ""));
    assert_eq!(
        with_ticket.post(&token, JSON_HANDSHAKE).await.outcome(),
        (200, "")
    );
    assert_eq!(with_ticket.poll(&token).await.text(), "{}\u{1e}");
    assert_eq!(with_ticket.delete(&token).await.status(), 202);
    cluster.secrets.add(&jwt);
    cluster.is_tidy().await;
}

/// How many connections say nothing, or stop in the middle. `HALF_OPEN=10000 cargo test … half_open` tries more. Fewer
/// where this process may not have so many files open.
fn half_open() -> usize {
    /// Files that the other tests of this process may need meanwhile.
    const OTHERS: u64 = 1_000;
    let wanted = std::env::var("HALF_OPEN").ok();
    let wanted = wanted.and_then(|count| count.parse().ok()).unwrap_or(2_000);
    let most = getrlimit(Resource::Nofile).maximum;
    let raised = Rlimit {
        current: most,
        maximum: most,
    };
    setrlimit(Resource::Nofile, raised).expect("the soft limit may be as high as the hard one");
    let most = most.map_or(u64::MAX, |most| most.saturating_sub(OTHERS));
    wanted.min(usize::try_from(most).unwrap_or(usize::MAX)).max(400)
}

/// The bytes that a client may have sent when it stops; the last client has a WebSocket then.
fn beginnings(address: SocketAddr) -> [Vec<u8>; 4] {
    [
        Vec::new(),
        b"GET /hubs/demo HTTP/1.1\r\nHost: x\r\n".to_vec(),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
        Request::upgrade("/hubs/demo").bytes(address),
    ]
}

#[tokio::test]
async fn half_open_connections_cost_little_and_keep_nobody_out() {
    let mut cluster = Plan::one_node()
        .set("timeouts.handshake_seconds", 2)
        .start()
        .await;
    let (address, process) = (cluster.nodes[0].address(), cluster.nodes[0].id());
    let beginnings = beginnings(address);
    let (count, mut open) = (half_open(), Vec::new());
    // The cost of the first connections is the node's own: threads, pages of the allocator.
    let (warm, mut before) = (count / 4, 0);
    for i in 0..count {
        if i == warm {
            before = served(&cluster, process).await;
        }
        let mut stream = TcpStream::connect(address).await.expect("it is accepted");
        stream
            .write_all(&beginnings[i % beginnings.len()])
            .await
            .expect("it is taken");
        open.push(stream);
    }
    let growth = served(&cluster, process).await.saturating_sub(before);
    let each = growth as f64 / (count - warm) as f64;
    assert!(each < 20.0, "{each:.1} KiB for each");
    let mut client = HubClient::connect(&cluster.entry(), Transport::WebSockets).await;
    // Connections with a WebSocket and no handshake are ended soon, the others within the patience for a request.
    for stream in open
        .iter_mut()
        .skip(beginnings.len() - 1)
        .step_by(beginnings.len())
    {
        let mut rest = Vec::new();
        let end = stream.read_to_end(&mut rest);
        let _closed_or_reset = within("a client without a handshake is left", end).await;
    }
    cluster.has_connections(1).await;
    assert_eq!(client.result("Echo", json!(["still"])).await, "still");
    drop(open);
    client.close().await;
    cluster.is_tidy().await;
}

/// The memory of a node once it serves a client, and so has accepted all that came before.
async fn served(cluster: &Cluster, process: u32) -> usize {
    let mut client = HubClient::connect(&cluster.entry(), Transport::WebSockets).await;
    assert_eq!(client.result("Echo", json!(["served"])).await, "served");
    client.close().await;
    resident_kib(process)
}

/// The memory of a process.
fn resident_kib(process: u32) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).expect("the process lives");
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .expect("its memory is told");
    let digits: String = line.chars().filter(char::is_ascii_digit).collect();
    digits.parse().expect("a number")
}
