//! Hubs that nobody has declared: opened by those who use them, where that is set.

use std::sync::Arc;

use axum::response::IntoResponse;
use hubcast_tests::cluster::{Cluster, Plan};
use hubcast_tests::entry_point::EntryPoint;
use hubcast_tests::eventually::eventually;
use hubcast_tests::http::{Request, Response, fetch};
use hubcast_tests::hub_client::{HubClient, Transport};
use hubcast_tests::jwt::{ACCESS_KEY, now, token_with};
use hubcast_tests::webpubsub::{JSON, WebPubSub, with_query};
use serde_json::{Value, json};

use crate::upstream::receiver::Receiver;

fn token(user: &str) -> String {
    let roles = [
        "hubcast.join",
        "hubcast.send",
        "webpubsub.joinLeaveGroup",
        "webpubsub.sendToGroup",
    ];
    token_with(
        &json!({ "sub": user, "role": roles, "exp": now() + 600 }),
        ACCESS_KEY,
    )
}

fn entry(cluster: &Cluster, hub: &str, user: &str) -> Arc<EntryPoint> {
    let entry = cluster.entry().at(&format!("/hubs/{hub}"));
    Arc::new(entry.with_bearer(&token(user)))
}

/// A request of a back end to a node.
async fn rest(cluster: &Cluster, node: usize, target: &str, body: &Value) -> Response {
    let address = cluster.nodes[node].address();
    let aud = format!("http://{address}{target}");
    let token = token_with(&json!({ "aud": aud, "exp": now() + 60 }), ACCESS_KEY);
    let request = Request::post(target, body.to_string())
        .header("content-type", "application/json")
        .bearer(Some(&token));
    fetch(address, &request).await
}

fn send_to(hub: &str) -> String {
    format!("/api/hubs/{hub}/:send?api-version=2022-06-01")
}

async fn negotiates(cluster: &Cluster, node: usize, hub: &str, user: Option<&str>) -> (u16, String) {
    let entry = cluster.entry_on(node).at(&format!("/hubs/{hub}"));
    let answer = match user {
        Some(user) => {
            entry
                .with_bearer(&token(user))
                .negotiate_with("negotiateVersion=1")
                .await
        }
        None => entry.negotiate_with("negotiateVersion=1").await,
    };
    (answer.status(), answer.text().to_owned())
}

#[tokio::test]
async fn a_hub_is_opened_on_each_node_by_its_first_client_or_back_end() {
    let receiver = Receiver::start(|_| ().into_response()).await;
    let plan = Plan::nodes(3)
        .set("hubs.undeclared", 4)
        .set("upstream.0.form", "signalr")
        .set("upstream.0.categories", "connections")
        .set("upstream.0.url", receiver.url("/{hub}"));
    let mut cluster = plan.start().await;
    let said = json!({ "target": "Said", "arguments": ["hi"] });
    for (number, transport) in Transport::ALL.into_iter().enumerate() {
        // Each request goes to another node, and none has the hub. Its name has no case.
        let user = format!("u{number}");
        let mut client =
            HubClient::connect(&entry(&cluster, &format!("Room_{number}"), &user), transport).await;
        client.result("JoinGroup", json!(["tea"])).await;
        for node in 0..3 {
            let sent = rest(&cluster, node, &send_to(&format!("room_{number}")), &said).await;
            assert_eq!(sent.status(), 202, "{}", sent.text());
            assert_eq!(client.expect("Said").await, json!(["hi"]));
        }
        let connected = receiver.gets("connected", number + 1).await;
        assert!(
            connected
                .iter()
                .any(|seen| seen.target == format!("/room_{number}")),
            "handlers of all hubs are theirs"
        );
        client.close().await;
    }
    // Web PubSub clients, too; and many who come at once open one hub.
    let target = with_query("/client/hubs/crowd", &format!("access_token={}", token("ann")));
    let coming = (0..9).map(|number| WebPubSub::connect(cluster.nodes[number % 3].address(), &target, JSON));
    let mut crowd = futures_util::future::join_all(coming).await;
    for client in &mut crowd {
        client.done(json!({ "type": "joinGroup", "group": "g" })).await;
    }
    let said = json!({ "type": "sendToGroup", "group": "g", "dataType": "text", "data": "all" });
    crowd[0].done(said).await;
    for client in &mut crowd {
        assert_eq!(client.message().await["data"], "all");
    }
    drop(crowd);
    cluster.has_connections(0).await;
    cluster.logs_are_clean();
}

#[tokio::test]
async fn undeclared_hubs_are_bounded_and_for_those_alone_who_show_who_they_are() {
    let plan = Plan::nodes(2).set("hubs.undeclared", 2).set("hubs.names", "chat");
    let cluster = plan.start().await; // whose demo lets clients in without a token
    let said = json!({ "target": "Said", "arguments": [] });
    for hub in ["a", "b", "c"] {
        assert_eq!(
            negotiates(&cluster, 0, hub, None).await.0,
            404,
            "nobody declares {hub}"
        );
        let forged = token_with(
            &json!({ "sub": "eve", "exp": now() + 60 }),
            "another key of at least 32 bytes",
        );
        let entry = cluster
            .entry_on(0)
            .at(&format!("/hubs/{hub}"))
            .with_bearer(&forged);
        assert_eq!(entry.negotiate_with("negotiateVersion=1").await.status(), 404);
        let other = token_with(
            &json!({ "sub": "eve", "exp": now() + 60, "aud": "http://h/hubs/other" }),
            ACCESS_KEY,
        );
        let entry = cluster
            .entry_on(0)
            .at(&format!("/hubs/{hub}"))
            .with_bearer(&other);
        assert_eq!(entry.negotiate_with("negotiateVersion=1").await.status(), 404);
        let unsigned = Request::post(&send_to(hub), said.to_string());
        assert_eq!(fetch(cluster.nodes[0].address(), &unsigned).await.status(), 401);
    }
    for bad in ["7up", "_x", "a%20b", "a%7Bb%7D", &"a".repeat(129)] {
        assert_eq!(negotiates(&cluster, 0, bad, Some("ann")).await.0, 404, "{bad}");
    }
    assert_eq!(negotiates(&cluster, 0, "a", Some("ann")).await.0, 200);
    assert_eq!(
        negotiates(&cluster, 0, "A", Some("ann")).await.0,
        200,
        "the same one"
    );
    assert_eq!(rest(&cluster, 0, &send_to("b"), &said).await.status(), 202);
    assert_eq!(
        negotiates(&cluster, 0, "chat", Some("ann")).await.0,
        200,
        "declared ones don't count"
    );
    let (status, text) = negotiates(&cluster, 0, "c", Some("ann")).await;
    assert!(
        status == 404 && text.contains("hubs.undeclared"),
        "{status} {text}"
    );
    let full = rest(&cluster, 0, &send_to("c"), &said).await;
    assert!(
        full.status() == 400 && full.text().contains("hubs.undeclared"),
        "{}",
        full.text()
    );
    let named = rest(&cluster, 0, &send_to("_x"), &said).await;
    assert_eq!(named.status(), 400, "{}", named.text());
    for hub in ["a", "b", "chat"] {
        assert_eq!(negotiates(&cluster, 0, hub, Some("ann")).await.0, 200, "{hub}");
    }
    assert_eq!(
        negotiates(&cluster, 1, "c", Some("ann")).await.0,
        200,
        "each node counts its own"
    );
    cluster.logs_are_clean();
}

#[tokio::test]
async fn changes_by_filter_reach_nodes_that_have_not_opened_the_hub() {
    let plan = Plan::nodes(3)
        .set("hubs.undeclared", 1)
        .set("hubs.rest_api", "webpubsub");
    let cluster = plan.start().await;
    let target = with_query("/client/hubs/room", &format!("access_token={}", token("ann")));
    let mut ann = WebPubSub::connect(cluster.nodes[0].address(), &target, JSON).await;
    let add = "/api/hubs/room/:addToGroups?api-version=2024-12-01";
    let wish = json!({ "filter": "userId eq 'ann'", "groups": ["tea"] });
    let added = rest(&cluster, 1, add, &wish).await;
    assert_eq!(added.status(), 200, "{}", added.text());
    let send = "/api/hubs/room/groups/tea/:send?api-version=2024-12-01";
    assert_eq!(rest(&cluster, 1, send, &json!("hi")).await.status(), 202);
    assert_eq!(ann.message().await["data"], "hi");
    // A client that comes back to a node that does not know the hub shows no other token than its own.
    let mut bob = WebPubSub::connect(
        cluster.nodes[0].address(),
        &target,
        hubcast_tests::webpubsub::RELIABLE,
    )
    .await;
    bob.come_back(cluster.nodes[2].address()).await;
    bob.is_heard().await;
}

#[tokio::test]
async fn what_a_dead_node_had_alone_ends_when_its_hub_is_used_again() {
    let receiver = Receiver::start(|_| ().into_response()).await;
    let plan = Plan::nodes(2)
        .with_short_leases()
        .set("hubs.undeclared", 1)
        .set("hubs.rest_api", "webpubsub")
        .set("upstream.0.form", "signalr")
        .set("upstream.0.categories", "connections")
        .set("upstream.0.url", receiver.url("/"));
    let mut cluster = plan.start().await;
    let target = with_query("/client/hubs/room", &format!("access_token={}", token("ann")));
    let _ann = WebPubSub::connect(cluster.nodes[0].address(), &target, JSON).await;
    receiver.gets("connected", 1).await;
    cluster.nodes[0].kill();
    let exists = "/api/hubs/room/users/ann?api-version=2024-12-01";
    eventually("the user has gone", async || {
        let address = cluster.nodes[1].address();
        let aud = format!("http://{address}{exists}");
        let token = token_with(&json!({ "aud": aud, "exp": now() + 60 }), ACCESS_KEY);
        let request = Request::new("HEAD", exists).bearer(Some(&token));
        (fetch(address, &request).await.status() == 404).then_some(())
    })
    .await;
    assert_eq!(receiver.gets("disconnected", 1).await.len(), 1);
}

#[tokio::test]
async fn a_hub_that_can_not_be_opened_now_is_opened_when_its_client_tries_again() {
    let plan = Plan::nodes(1)
        .set("hubs.undeclared", 1)
        .set("backplane.command_timeout_seconds", 1);
    let mut cluster = plan.start().await;
    cluster.redis().pause();
    assert_eq!(negotiates(&cluster, 0, "room", Some("ann")).await.0, 503);
    cluster.redis().resume();
    eventually("the hub is open", async || {
        let (status, text) = negotiates(&cluster, 0, "room", Some("ann")).await;
        assert!(matches!(status, 200 | 503), "{status} {text}");
        (status == 200).then_some(())
    })
    .await;
    let mut ann = HubClient::connect(&entry(&cluster, "room", "ann"), Transport::WebSockets).await;
    assert!(ann.result("JoinGroup", json!(["tea"])).await.is_null());
    cluster.logs_are_clean();
}

#[tokio::test]
async fn hubs_must_be_declared_unless_it_is_set_otherwise() {
    let cluster = Plan::one_node().start().await;
    assert_eq!(negotiates(&cluster, 0, "room", Some("ann")).await.0, 404);
    let said = json!({ "target": "Said", "arguments": [] });
    let refused = rest(&cluster, 0, &send_to("room"), &said).await;
    assert!(
        refused.status() == 400 && refused.text().contains("[hubs.room]"),
        "{}",
        refused.text()
    );
}
