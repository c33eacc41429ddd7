//! Proxies between the official client and the gateways that refuse transports, and the credentials that it brings
//! along: access tokens, cookies.

use std::collections::BTreeSet;

use hubcast_tests::balancer::{Balanced, Rules};
use hubcast_tests::cluster::{Cluster, Plan};
use hubcast_tests::eventually::eventually_equals;
use hubcast_tests::js::{Connect, Js};
use hubcast_tests::jwt::token_for;
use serde_json::json;

const TRANSPORTS: [&str; 3] = ["WebSockets", "ServerSentEvents", "LongPolling"];

const NO_WEBSOCKETS: Rules = Rules {
    no_websockets: true,
    no_event_streams: false,
    sets_cookie: false,
    checks_life: false,
    serves_unready: false,
};
const ONLY_POLLS: Rules = Rules {
    no_event_streams: true,
    ..NO_WEBSOCKETS
};

/// Lets a client without wishes connect and talk. The balancer saw these requests before its handshake.
async fn falls_back(cluster: &mut Cluster, protocol: &'static str, to: &str, expected: &[(&str, u16)]) {
    let before = cluster.balancer().requests_with("/hubs/demo").len();
    let js = Js::start().await;
    let connect = Connect::to(&cluster.hub_url()).protocol(protocol);
    let client = js.connect(connect.listening(&["GroupMessage"])).await;
    let me = client.who_am_i().await;
    assert_eq!(
        (&me["transport"], &me["protocol"]),
        (&json!(to), &json!(protocol))
    );
    client.call("JoinGroup", json!(["g"])).await;
    for i in 0..6 {
        let message = json!(["g", i.to_string()]);
        client.call("SendToGroup", message.clone()).await;
        client.receives("GroupMessage", message).await;
    }
    client.stop().await;
    cluster.is_tidy().await;
    let expected: Vec<_> = expected
        .iter()
        .map(|(what, status)| ((*what).to_owned(), *status))
        .collect();
    eventually_equals("one attempt by each transport, in order", &expected, async || {
        let requests = cluster.balancer().requests_with("/hubs/demo");
        let requests = requests.iter().skip(before).take(expected.len());
        let what = |request: &Balanced| match request.target.contains("/negotiate") {
            true => "negotiate".to_owned(),
            false => request.method.clone(),
        };
        requests.map(|request| (what(request), request.status)).collect()
    })
    .await;
}

#[tokio::test]
async fn a_client_falls_back_to_an_event_stream_where_websockets_are_refused() {
    let mut cluster = Plan::nodes(2).balanced_by(NO_WEBSOCKETS).start().await;
    let attempts = [("negotiate", 200), ("GET", 403), ("negotiate", 200), ("GET", 200)];
    falls_back(&mut cluster, "json", "ServerSentEvents", &attempts).await;
}

#[tokio::test]
async fn a_client_falls_back_to_polls_where_an_event_stream_cannot_carry_its_protocol() {
    let mut cluster = Plan::nodes(2).balanced_by(NO_WEBSOCKETS).start().await;
    let attempts = [("negotiate", 200), ("GET", 403), ("negotiate", 200), ("GET", 200)];
    falls_back(&mut cluster, "messagepack", "LongPolling", &attempts).await;
}

#[tokio::test]
async fn a_client_falls_back_to_polls_where_nothing_else_is_let_through() {
    let mut cluster = Plan::nodes(2).balanced_by(ONLY_POLLS).start().await;
    let attempts = [
        ("negotiate", 200),
        ("GET", 403),
        ("negotiate", 200),
        ("GET", 403),
        ("negotiate", 200),
        ("GET", 200),
    ];
    falls_back(&mut cluster, "json", "LongPolling", &attempts).await;
}

#[tokio::test]
async fn a_client_that_wants_one_transport_is_refused_with_it() {
    let cluster = Plan::one_node().balanced_by(ONLY_POLLS).start().await;
    let js = Js::start().await;
    for transport in ["WebSockets", "ServerSentEvents"] {
        let to = Connect::to(&cluster.hub_url()).transport(transport);
        let refusal = js.try_connect(to).await.err().expect("it can't connect");
        assert!(refusal.contains(transport), "{refusal}");
    }
}

#[tokio::test]
async fn clients_that_skip_negotiation_meet_across_nodes() {
    let mut cluster = Plan::nodes(2).balanced().start().await;
    let js = Js::start().await;
    let mut clients = Vec::new();
    let mut nodes = BTreeSet::new();
    for protocol in ["json", "messagepack", "json", "messagepack"] {
        let to = Connect::to(&cluster.hub_url())
            .transport("WebSockets")
            .protocol(protocol)
            .listening(&["GroupMessage", "DirectMessage"])
            .skip_negotiation();
        let client = js.connect(to).await;
        let me = client.who_am_i().await;
        nodes.insert(me["node"].to_string());
        client.call("JoinGroup", json!(["g"])).await;
        clients.push((client, me["connectionId"].clone()));
    }
    assert_eq!(nodes.len(), 2, "the balancer has spread them");
    assert_eq!(cluster.balancer().requests_with("negotiate").len(), 0);
    for (i, (sender, _)) in clients.iter().enumerate() {
        let message = json!(["g", format!("from {i}")]);
        sender.call("SendToGroup", message.clone()).await;
        for (receiver, id) in &clients {
            receiver.receives("GroupMessage", message.clone()).await;
            let direct = format!("from {i} to {id}");
            sender.call("SendToConnection", json!([id, direct])).await;
            receiver.receives("DirectMessage", json!([direct])).await;
        }
    }
    cluster.has_connections(4).await;
    for (client, _) in &clients {
        client.stop().await;
    }
    cluster.is_tidy().await;
}

#[tokio::test]
async fn the_official_client_shows_its_token_by_every_transport() {
    let plan = Plan::nodes(2).balanced().set("auth.allow_anonymous", false);
    let cluster = plan.start().await;
    let js = Js::start().await;
    for transport in TRANSPORTS {
        let to = || Connect::to(&cluster.hub_url()).transport(transport);
        let token = token_for("alice");
        cluster.secrets.add(&token);
        let client = js.connect(to().token(&token)).await;
        for _ in 0..4 {
            assert_eq!(client.who_am_i().await["userId"], "alice", "{transport}");
        }
        client.stop().await;
        let refusal = js.try_connect(to()).await.err().expect("it can't connect");
        assert!(refusal.contains("401"), "{transport}: {refusal}");
        if transport == "WebSockets" {
            let direct = js.connect(to().token(&token).skip_negotiation()).await;
            assert_eq!(direct.who_am_i().await["userId"], "alice");
            assert!(js.try_connect(to().skip_negotiation()).await.is_err());
        }
    }
    // So that the test proves something for both ways: the client shows it in the query for event streams only.
    let shown = cluster.balancer().requests_with("access_token=");
    assert!(!shown.is_empty() && shown.iter().all(|request| request.method == "GET"));
    cluster.logs_are_clean();
}

#[tokio::test]
async fn cookies_come_with_every_request() {
    let rules = Rules {
        sets_cookie: true,
        ..Rules::default()
    };
    let cluster = Plan::nodes(2).balanced_by(rules).start().await;
    let js = Js::start().await;
    let given = ("given", None, "-", "balancer=met");
    let own = ("own", Some("own=mine"), "own=mine", "own=mine");
    for transport in TRANSPORTS {
        for (name, header, first_cookie, cookie) in [given, own] {
            let mark = format!("mark={name}{transport}");
            let to = Connect::to(&format!("{}?{mark}", cluster.hub_url())).transport(transport);
            let to = match header {
                Some(header) => to.header("Cookie", header),
                None => to,
            };
            let client = js.connect(to).await;
            for _ in 0..3 {
                let seen = &client.who_am_i().await["headers"]["cookie"];
                assert_eq!(
                    only_pair(seen.as_str().unwrap_or_default()),
                    cookie,
                    "{transport}"
                );
            }
            client.stop().await;
            let requests = cluster.balancer().requests_with(&mark);
            let (first, later) = requests.split_first().expect("there were requests");
            assert_eq!(first.cookies, first_cookie, "{transport}: {first:?}");
            assert!(!later.is_empty());
            for request in later {
                assert_eq!(only_pair(&request.cookies), cookie, "{transport}: {request:?}");
            }
        }
    }
}

/// The client writes attributes such as the path after a cookie when it opens a WebSocket.
fn only_pair(cookie: &str) -> &str {
    cookie.split(';').next().unwrap_or_default()
}
