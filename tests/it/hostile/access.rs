//! Access tokens.

use hubcast_tests::entry_point::EntryPoint;
use hubcast_tests::http::Request;
use hubcast_tests::hub_client::{HubClient, JSON_HANDSHAKE, Transport};
use hubcast_tests::jwt::{ACCESS_KEY, now, token_for, token_with, unsigned_token};
use serde_json::json;

use super::Target;

fn bad_tokens() -> Vec<(&'static str, String)> {
    let claims = json!({ "nameid": "mallory", "exp": now() + 3_600 });
    let good = token_for("mallory");
    let (head, signature) = good.rsplit_once('.').unwrap();
    let other_claims = token_with(&json!({ "nameid": "admin", "exp": now() + 3_600 }), ACCESS_KEY);
    let (other_head, _) = other_claims.rsplit_once('.').unwrap();
    vec![
        (
            "signed with another key",
            token_with(&claims, "another-key-that-nobody-should-ever-accept"),
        ),
        ("signed with an empty key", token_with(&claims, "")),
        (
            "expired",
            token_with(&json!({ "nameid": "mallory", "exp": now() - 3_600 }), ACCESS_KEY),
        ),
        (
            "not valid yet",
            token_with(
                &json!({ "nameid": "m", "exp": now() + 7_200, "nbf": now() + 3_600 }),
                ACCESS_KEY,
            ),
        ),
        (
            "without an end",
            token_with(&json!({ "nameid": "mallory" }), ACCESS_KEY),
        ),
        ("unsigned", unsigned_token(&claims)),
        ("with its signature taken off", format!("{head}.")),
        (
            "with the signature of another one",
            format!("{other_head}.{signature}"),
        ),
        ("cut", good[..good.len() - 4].to_owned()),
        ("no token at all", "nonsense".to_owned()),
        ("empty parts", "..".to_owned()),
    ]
}

#[tokio::test]
async fn a_bad_token_opens_nothing() {
    let target = Target::start(|plan| plan).await;
    let mut client = HubClient::connect(&target.entry, Transport::LongPolling).await;
    for (what, token) in bad_tokens() {
        let entry = target.entry.with_bearer(&token);
        assert_eq!(
            entry.negotiate_with("negotiateVersion=1").await.status(),
            401,
            "negotiate, {what}"
        );
        assert_eq!(entry.upgrade("").await.status(), 401, "a WebSocket, {what}");
        assert_eq!(entry.poll(client.token()).await.status(), 401, "a poll, {what}");
        assert_eq!(
            entry.post(client.token(), "{\"type\":6}\u{1e}").await.status(),
            401,
            "a POST, {what}"
        );
        assert_eq!(
            entry.delete(client.token()).await.status(),
            401,
            "a DELETE, {what}"
        );
        let query = format!("access_token={token}");
        assert_eq!(
            target.entry.upgrade(&query).await.status(),
            401,
            "a WebSocket with it in the query, {what}"
        );
    }
    assert_eq!(client.result("Echo", json!(["unharmed"])).await, "unharmed");
    client.close().await;
    target.ends_unharmed().await;
}

#[tokio::test]
async fn nobody_comes_in_without_a_token_where_one_is_needed() {
    let cluster = hubcast_tests::cluster::Plan::nodes(2)
        .trace()
        .set("auth.allow_anonymous", false)
        .start()
        .await;
    let entry = cluster.entry();
    let mut target = Target {
        bystander: HubClient::connect(
            &std::sync::Arc::new(entry.with_bearer(&token_for("alice"))),
            Transport::WebSockets,
        )
        .await,
        entry,
        cluster,
    };
    let entry = &target.entry;
    is_closed(entry).await;
    // The connection token alone opens nothing.
    let alice = entry.with_bearer(&token_for("alice"));
    let token = alice.negotiate().await.token;
    for node in 0..entry.nodes() {
        let entry = entry.on(node);
        assert_eq!(entry.upgrade(&format!("id={token}")).await.status(), 401);
        assert_eq!(entry.poll(&token).await.status(), 401);
        assert_eq!(entry.post(&token, JSON_HANDSHAKE).await.status(), 401);
        let query = Request::get(&entry.target(&format!("id={token}&access_token={}", token_for("mallory"))));
        assert_eq!(entry.fetch(&query).await.status(), 403, "another user's");
    }
    assert_eq!(alice.poll(&token).await.outcome(), (200, ""));
    assert_eq!(alice.delete(&token).await.status(), 202);
    assert_eq!(
        target.bystander.result("WhoAmI", json!([])).await["userId"],
        "alice"
    );
    target.ends_unharmed().await;
}

async fn is_closed(entry: &EntryPoint) {
    assert_eq!(entry.negotiate_with("negotiateVersion=1").await.status(), 401);
    assert_eq!(entry.negotiate_with("").await.status(), 401);
    assert_eq!(entry.upgrade("").await.status(), 401);
    assert_eq!(entry.upgrade("access_token=").await.status(), 401);
    assert_eq!(
        entry.poll("x").await.status(),
        401,
        "not even whether an id is known"
    );
    let events = entry.request("GET", "x").header("Accept", "text/event-stream");
    assert_eq!(entry.fetch(&events).await.status(), 401);
}

#[tokio::test]
async fn the_user_is_whom_the_token_names() {
    let target = Target::start(|plan| plan).await;
    for (claims, user) in [
        (json!({ "nameid": "alice" }), json!("alice")),
        (json!({ "sub": "bob" }), json!("bob")),
        (json!({ "nameid": "alice", "sub": "other" }), json!("alice")),
        (json!({ "sub": "ä€ 😀" }), json!("ä€ 😀")),
        (json!({ "role": "admin" }), json!(null)),
    ] {
        let mut claims = claims;
        claims["exp"] = (now() + 600).into();
        let token = token_with(&claims, ACCESS_KEY);
        for transport in Transport::ALL {
            let entry = std::sync::Arc::new(target.entry.with_bearer(&token));
            let mut client = HubClient::connect(&entry, transport).await;
            assert_eq!(
                client.result("WhoAmI", json!([])).await["userId"],
                user,
                "{claims} by {transport:?}"
            );
            client.close().await;
        }
    }
    target.ends_unharmed().await;
}
