//! Tokens over a connection's life, and what roles permit in hubs without code: on several nodes, with the official client
//! where it takes part.

use std::sync::Arc;

use hubcast_tests::cluster::{Cluster, Plan};
use hubcast_tests::entry_point::EntryPoint;
use hubcast_tests::eventually::eventually;
use hubcast_tests::http::Request;
use hubcast_tests::hub_client::{HubClient, Transport};
use hubcast_tests::js::{Connect, Js};
use hubcast_tests::jwt::{ACCESS_KEY, now, token_for, token_with};
use serde_json::{Value, json};

/// A token for a user of the hub `chat` with roles.
fn with_roles(cluster: &Cluster, user: &str, roles: &[&str]) -> String {
    let audience = "https://gw.example/client/?hub=chat";
    let claims = json!({ "asrs.s.uid": user, "role": roles, "aud": audience, "exp": now() + 3_600 });
    let token = token_with(&claims, ACCESS_KEY);
    cluster.secrets.add(&token);
    token
}

/// The hub `chat` of a configuration, for the bearer of this token.
fn chat(cluster: &Cluster, token: &str) -> Arc<EntryPoint> {
    Arc::new(cluster.entry().at("/hubs/chat").with_bearer(token))
}

fn is_refused(answer: &Value, role: &str) {
    let error = answer["error"].as_str().unwrap_or_default();
    assert!(
        error.ends_with(&format!("Not permitted: it takes the role {role}")),
        "{answer}"
    );
}

#[tokio::test]
async fn a_hub_of_the_configuration_serves_what_roles_permit() {
    let plan = Plan::nodes(2)
        .trace()
        .set("hubs.names", "chat")
        .set("auth.allow_anonymous", false);
    let mut cluster = plan.start().await;
    let ann = with_roles(&cluster, "ann", &["hubcast.join.room-*", "hubcast.send.room-1"]);
    let bob = with_roles(
        &cluster,
        "bob",
        &["webpubsub.joinLeaveGroup.room-1", "hubcast.send"],
    );
    for transport in Transport::ALL {
        let mut ann = HubClient::connect(&chat(&cluster, &ann), transport).await;
        let mut bob = HubClient::connect(&chat(&cluster, &bob), transport).await;
        ann.result("JoinGroup", json!(["room-1"])).await;
        bob.result("JoinGroup", json!(["room-1"])).await;
        let said = json!({ "deep": [1.50, null, "ä"] });
        ann.result("SendToGroup", json!(["room-1", "Said", said, 7]))
            .await;
        assert_eq!(ann.expect("Said").await, json!([said, 7]));
        assert_eq!(bob.expect("Said").await, json!([said, 7]), "on another node");
        bob.result("SendToUser", json!(["ann", "Mail"])).await;
        assert_eq!(ann.expect("Mail").await, json!([]));
        bob.result("SendToAll", json!(["News", 1])).await;
        assert_eq!(ann.expect("News").await, json!([1]));
        for (method, arguments, role) in [
            ("JoinGroup", json!(["hall"]), "hubcast.join or hubcast.join.hall"),
            (
                "SendToGroup",
                json!(["room-2", "x"]),
                "hubcast.send or hubcast.send.room-2",
            ),
            ("SendToUser", json!(["bob", "x"]), "hubcast.send"),
            ("SendToAll", json!(["x"]), "hubcast.send"),
        ] {
            is_refused(&ann.call(method, arguments).await, role);
        }
        is_refused(
            &bob.call("LeaveGroup", json!(["room-2"])).await,
            "hubcast.join or hubcast.join.room-2",
        );
        ann.close().await;
        bob.close().await;
    }
    cluster.is_tidy().await;
}

#[tokio::test]
async fn hubs_that_nobody_named_are_not_there() {
    let plan = Plan::nodes(2)
        .set("hubs.names", "chat")
        .set("auth.allow_anonymous", false);
    let mut cluster = plan.start().await;
    let token = token_for("ann");
    for node in 0..2 {
        let entry = cluster.entry_on(node);
        for (target, status) in [
            ("/hubs/chat/negotiate", 200),
            ("/hubs/chat/negotiate/", 200),
            ("/client/negotiate?hub=chat", 200),
            ("/client/negotiate/?hub=chat", 200),
            ("/hubs/news/negotiate", 404),
            ("/hubs/Chat/negotiate", 200), // SDKs write names in letters of another case
            ("/client/negotiate?hub=news", 404),
            ("/client/negotiate?hub=", 404),
            ("/client/negotiate", 400),
            ("/client/?hub=chat&id=x", 404),
            ("/client?hub=chat&id=x", 404),
            ("/client/", 400),
        ] {
            let answer = entry.fetch(&Request::post(target, "").bearer(Some(&token))).await;
            assert_eq!(answer.status(), status, "{target}: {}", answer.text());
        }
    }
    cluster.is_tidy().await;
}

#[tokio::test]
async fn strangers_may_what_strangers_may() {
    let mut cluster = Plan::one_node()
        .set("hubs.names", "chat")
        .set("auth.anonymous_roles", "hubcast.join.lobby")
        .start()
        .await;
    let entry = Arc::new(cluster.entry().at("/hubs/chat"));
    let mut stranger = HubClient::connect(&entry, Transport::WebSockets).await;
    stranger.result("JoinGroup", json!(["lobby"])).await;
    is_refused(
        &stranger.call("SendToGroup", json!(["lobby", "x"])).await,
        "hubcast.send or hubcast.send.lobby",
    );
    stranger.close().await;
    cluster.is_tidy().await;
}

/// A token that ends so soon.
fn ending(user: &str, seconds: i64) -> String {
    token_with(&json!({ "nameid": user, "exp": now() + seconds }), ACCESS_KEY)
}

#[tokio::test]
async fn a_connection_ends_with_its_token() {
    let plan = Plan::nodes(2)
        .trace()
        .set("auth.close_on_expiry", true)
        .set("auth.leeway_seconds", 0);
    let mut cluster = plan.start().await;
    for transport in Transport::ALL {
        let ends = now() + 3;
        let entry = Arc::new(cluster.entry().with_bearer(&ending("ann", 3)));
        let mut client = HubClient::open(&entry, transport).await;
        client.send(hubcast_tests::hub_client::JSON_HANDSHAKE).await;
        assert_eq!(client.next().await, Some(json!({})));
        if transport == Transport::LongPolling {
            continue; // its polls are refused from then on; the session ends below
        }
        let close = client.next().await.expect("a Close message");
        let expected = json!({ "type": 7, "error": "The access token has expired.", "allowReconnect": true });
        assert_eq!(close, expected, "{transport:?}");
        assert!(
            (ends..=ends + 2).contains(&now()),
            "not sooner and not much later"
        );
    }
    cluster.has_connections(0).await;
    let lasting = Arc::new(cluster.entry().with_bearer(&token_for("ann")));
    let mut lasting = HubClient::connect(&lasting, Transport::WebSockets).await;
    assert_eq!(lasting.result("Echo", json!(["alive"])).await, "alive");
    lasting.close().await;
    cluster.is_tidy().await;
}

/// Azure SignalR's tokens carry such a claim.
#[tokio::test]
async fn a_token_may_say_itself_that_its_connection_ends_with_it() {
    let mut cluster = Plan::one_node().start().await;
    let claims = json!({
        "asrs.s.uid": "ann", "exp": now() + 600, "asrs.s.coae": "true", "asrs.s.aeo": (now() + 2).to_string(),
    });
    let entry = Arc::new(cluster.entry().with_bearer(&token_with(&claims, ACCESS_KEY)));
    let mut client = HubClient::connect(&entry, Transport::WebSockets).await;
    assert_eq!(
        client.next().await.expect("a Close message")["allowReconnect"],
        true
    );
    let no_sockets = json!({ "asrs.s.htt": "6", "exp": now() + 600 });
    let entry = cluster.entry().with_bearer(&token_with(&no_sockets, ACCESS_KEY));
    let offered = entry.negotiate_with("negotiateVersion=1").await.json()["availableTransports"].clone();
    let names: Vec<_> = offered
        .as_array()
        .expect("a list")
        .iter()
        .map(|one| one["transport"].clone())
        .collect();
    assert_eq!(names, ["ServerSentEvents", "LongPolling"]);
    assert_eq!(entry.upgrade("").await.status(), 404);
    cluster.is_tidy().await;
}

#[tokio::test]
async fn a_newer_token_keeps_a_connection_alive_and_changes_its_roles() {
    let plan = Plan::nodes(3)
        .trace()
        .set("hubs.names", "chat")
        .set("auth.close_on_expiry", true)
        .set("auth.refresh", true)
        .set("auth.leeway_seconds", 0);
    let mut cluster = plan.start().await;
    let of = |roles: &[&str], seconds: i64| {
        token_with(
            &json!({ "nameid": "ann", "role": roles, "exp": now() + seconds }),
            ACCESS_KEY,
        )
    };
    // Long enough for all that is done with it, also on a slow machine.
    const LIFETIME: i64 = 20;
    let first = of(&["hubcast.join"], LIFETIME);
    let ends = now() + LIFETIME;
    let entry = chat(&cluster, &first);
    let negotiated = entry.negotiate_with("negotiateVersion=1").await.json();
    assert!(
        negotiated["tokenLifetimeSeconds"]
            .as_u64()
            .is_some_and(|seconds| seconds <= LIFETIME as u64),
        "{negotiated}"
    );
    let mut sockets = Vec::new();
    for transport in [Transport::WebSockets, Transport::ServerSentEvents] {
        sockets.push(HubClient::connect(&entry, transport).await);
    }
    let later = of(&["hubcast.send"], 3_600);
    for client in &mut sockets {
        client.result("JoinGroup", json!(["a"])).await;
        for node in 0..3 {
            let entry = cluster.entry_on(node);
            for path in ["/hubs/chat/refresh?", "/client/refresh?hub=chat&"] {
                let request = Request::post(&format!("{path}id={}", client.token()), "");
                let answer = entry.fetch(&request.bearer(Some(&later))).await;
                assert_eq!(answer.status(), 200, "{}", answer.text());
                assert!(answer.json()["tokenLifetimeSeconds"].as_u64() > Some(3_500));
            }
        }
    }
    eventually("the first token is over", async || (now() > ends).then_some(())).await;
    // The first token's permission is over; a socket needs no further token for the second one's.
    let mut socket = sockets.remove(0);
    socket.result("SendToGroup", json!(["a", "Still", "here"])).await;
    assert_eq!(socket.expect("Still").await, json!(["here"]));
    is_refused(
        &socket.call("JoinGroup", json!(["b"])).await,
        "hubcast.join or hubcast.join.b",
    );
    assert_eq!(
        sockets[0].expect("Still").await,
        json!(["here"]),
        "the event stream lives, too"
    );
    socket.close().await;
    drop(sockets);
    cluster.is_tidy().await;
}

#[tokio::test]
async fn a_refresh_is_unknown_unless_it_is_wanted() {
    let mut cluster = Plan::one_node().start().await;
    let token = token_for("ann");
    let entry = Arc::new(cluster.entry().with_bearer(&token));
    let negotiated = entry.negotiate_with("negotiateVersion=1").await.json();
    assert!(negotiated.get("tokenLifetimeSeconds").is_none() && negotiated.get("accessToken").is_none());
    let client = HubClient::connect(&entry, Transport::WebSockets).await;
    let request = Request::post(&format!("/hubs/demo/refresh?id={}", client.token()), "");
    assert_eq!(entry.fetch(&request.bearer(Some(&token))).await.status(), 404);
    client.close().await;
    cluster.is_tidy().await;
}

/// The official client shows the ticket of negotiate by itself, on every transport, and no token stands in a URL.
#[tokio::test]
async fn the_official_client_uses_tickets() {
    let plan = Plan::nodes(3)
        .balanced()
        .trace()
        .set("auth.tickets", true)
        .set("auth.allow_anonymous", false);
    let mut cluster = plan.start().await;
    let token = token_for("ann");
    cluster.secrets.add(&token);
    let js = Js::start().await;
    for transport in ["WebSockets", "ServerSentEvents", "LongPolling"] {
        for protocol in ["json", "messagepack"] {
            if (transport, protocol) == ("ServerSentEvents", "messagepack") {
                continue;
            }
            let options = Connect::to(&cluster.hub_url()).token(&token);
            let client = js.connect(options.transport(transport).protocol(protocol)).await;
            assert_eq!(client.who_am_i().await["userId"], "ann", "{transport} {protocol}");
            assert_eq!(client.call("Echo", json!(["x"])).await, "x");
            client.stop().await;
        }
    }
    let seen = cluster.balancer().requests_with("/hubs/demo");
    assert!(seen.len() > 15, "{}", seen.len());
    assert!(seen.iter().all(|request| !request.target.contains(&token)));
    let tickets = seen
        .iter()
        .filter(|request| request.target.contains("access_token=ticket_"));
    assert!(tickets.count() >= 1, "an event stream at least");
    cluster.is_tidy().await;
}

/// A stateful client comes back with the ticket that it has, to whatever node, and has its identity again.
#[tokio::test]
async fn a_ticket_is_good_until_its_connection_ends_for_good() {
    let plan = Plan::nodes(3)
        .trace()
        .set("hubs.names", "chat")
        .set("auth.tickets", true)
        .set("auth.allow_anonymous", false);
    let mut cluster = plan.start().await;
    let ann = with_roles(&cluster, "ann", &["hubcast.send"]);
    let entry = chat(&cluster, &ann);
    let negotiated = entry
        .negotiate_with("negotiateVersion=1&useStatefulReconnect=true")
        .await
        .json();
    assert_eq!(negotiated["useStatefulReconnect"], true, "{negotiated}");
    let text = |name: &str| negotiated[name].as_str().expect("text").to_owned();
    let query = format!(
        "id={}&access_token={}",
        text("connectionToken"),
        text("accessToken")
    );
    cluster.secrets.add(&text("connectionToken"));
    cluster.secrets.add(&text("accessToken"));
    let entries: Vec<_> = (0..3)
        .map(|node| cluster.entry_on(node).at("/hubs/chat"))
        .collect();
    let mut socket = entries[0].websocket_with(&query).await.expect("it opens");
    socket.text("{\"protocol\":\"json\",\"version\":2}\u{1e}").await;
    assert!(socket.next().await.is_some());
    let mut sent = 0;
    let mut send = async |socket: &mut hubcast_tests::websocket::WebSocket, sequence: &str| {
        sent += 1;
        let call = json!({
            "type": 1, "invocationId": sent.to_string(), "target": "SendToUser", "arguments": ["ann", "Note", sent],
        });
        socket.text(&format!("{sequence}{call}\u{1e}")).await;
        let done = format!("\"invocationId\":\"{sent}\"");
        loop {
            let message = socket
                .next()
                .await
                .expect("the socket lives")
                .into_text()
                .expect("text");
            if message.contains(&done) {
                assert!(!message.contains("error"), "{message}");
                return;
            }
        }
    };
    send(&mut socket, "").await;
    for (node, sequence) in [(1, 2), (2, 3), (2, 4)] {
        socket.vanish();
        socket = entries[node].websocket_with(&query).await.expect("it comes back");
        send(
            &mut socket,
            &format!("{{\"type\":9,\"sequenceId\":{sequence}}}\u{1e}"),
        )
        .await;
    }
    socket.text("{\"type\":7}\u{1e}").await;
    cluster.has_connections(0).await;
    for entry in &entries {
        assert_eq!(entry.upgrade(&query).await.status(), 404, "it has ended");
    }
    cluster.is_tidy().await;
}
