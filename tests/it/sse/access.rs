//! Access to event streams.

use hubcast_tests::cluster::Plan;
use hubcast_tests::event_source::{EventSource, events};
use hubcast_tests::jwt::{ACCESS_KEY, now, token_with};
use hubcast_tests::rest::Rest;
use serde_json::json;

use super::{open, send, sender, texts};

/// A token of a user with roles.
fn token(roles: &[&str]) -> String {
    let claims = json!({ "sub": "ann", "exp": now() + 600, "role": roles });
    token_with(&claims, ACCESS_KEY)
}

#[tokio::test]
async fn a_group_needs_a_role_that_lets_join_it() {
    let cluster = Plan::nodes(2).start().await;
    let node = cluster.nodes[0].address();
    let mut other = sender(&cluster, 1).await;
    for (roles, query, refused) in [
        (&[][..], "group=a", Some("a")),
        (&["hubcast.join.a"], "group=a&group=b%20c", Some("b c")),
        (&["hubcast.send"], "group=a", Some("a")),
        (
            &["hubcast.join.a", "hubcast.join.b*"],
            "group=a&group=b%20c",
            None,
        ),
        (&["hubcast.join"], "group=a", None),
        (&[], "", None),
    ] {
        let request = events(query, "").bearer(Some(&token(roles)));
        if let Some(group) = refused {
            let (status, text) = EventSource::refusal(node, &request).await;
            assert_eq!(status, 403, "{roles:?} {query}");
            assert!(text.contains(&format!("{group:?}")), "{text}");
        } else {
            let (head, _source) = EventSource::start(node, &request).await;
            assert_eq!(head.status, 200, "{roles:?} {query}");
        }
    }
    let request = events(
        &format!("group=a&access_token={}", token(&["hubcast.join.a"])),
        "",
    );
    let (_, source) = EventSource::start(node, &request).await;
    let mut source = source.begun().await;
    send(&mut other, "a", "0").await;
    assert_eq!(source.texts(1).await, texts(0..1));
}

#[tokio::test]
async fn who_is_nobody_is_refused_where_nobody_may_come() {
    let cluster = Plan::one_node().set("auth.allow_anonymous", false).start().await;
    let node = cluster.nodes[0].address();
    assert_eq!(EventSource::refusal(node, &events("", "")).await.0, 401);
    let bad = events("access_token=a.b.c", "");
    assert_eq!(EventSource::refusal(node, &bad).await.0, 401);
    let good = events("", "").bearer(Some(&token(&[])));
    assert_eq!(EventSource::start(node, &good).await.0.status, 200);
}

/// An error would be final for a browser, whose id may be of a log that was lost together with its secret.
#[tokio::test]
async fn an_id_that_can_not_be_read_is_of_another_log_and_an_empty_one_is_none() {
    let cluster = Plan::nodes(2).start().await;
    let node = cluster.nodes[1].address();
    let id = open(&cluster, 0, "").await.last_id;
    let turned: String = id.chars().rev().collect();
    for forged in ["0", "nonsense!", turned.as_str(), &id[1..], &format!("{id}A")] {
        let query = format!("since={forged}").replace('!', "%21");
        for request in [events("", forged), events(&query, "")] {
            let (head, mut source) = EventSource::start(node, &request).await;
            assert_eq!(head.status, 200, "{forged}");
            let reset = source.event().await;
            assert_eq!(
                (reset.name.as_str(), &reset.data),
                ("reset", &json!({ "reason": "epoch" }))
            );
        }
    }
    for empty in ["lastEventId=", "since=", "lastEventId=&since="] {
        let source = EventSource::open(node, empty).await.begun().await;
        assert!(!source.last_id.is_empty());
    }
    let empty = events("", "").header("Last-Event-ID", "");
    let (head, _source) = EventSource::start(node, &empty).await;
    assert_eq!(head.status, 200);
}

#[tokio::test]
async fn what_can_not_be_asked_for_is_refused() {
    let cluster = Plan::one_node()
        .set("limits.groups_per_connection", 3)
        .start()
        .await;
    let node = cluster.nodes[0].address();
    for query in [
        "group=",
        "group=a&group=b&group=c&group=d",
        "rewind=-1",
        "rewind=x",
        "rewind=10001",
    ] {
        let (status, text) = EventSource::refusal(node, &events(query, "")).await;
        assert_eq!(status, 400, "{query}: {text}");
        assert!(!text.is_empty());
    }
    let mut same = EventSource::open(node, "group=a&group=b&group=a&group=b&group=c")
        .await
        .begun()
        .await;
    let mut other = sender(&cluster, 0).await;
    send(&mut other, "c", "0").await;
    assert_eq!(same.texts(1).await, texts(0..1));
}

#[tokio::test]
async fn the_groups_of_a_user_are_those_of_its_readers() {
    let cluster = Plan::nodes(2).start().await;
    let rest = Rest::on(&cluster.nodes[1]);
    assert_eq!(rest.call("PUT", "/users/ann/groups/before").await.status(), 200);
    let query = format!("access_token={}", token(&[]));
    let mut source = open(&cluster, 0, &query).await;
    assert_eq!(rest.call("PUT", "/users/ann/groups/later").await.status(), 200);
    for group in ["before", "later"] {
        let message = json!({ "target": "GroupMessage", "arguments": [group, "0"] });
        assert_eq!(
            rest.send(&format!("/groups/{group}/:send"), &message)
                .await
                .status(),
            202
        );
        assert_eq!(source.texts(1).await, texts(0..1), "{group}");
    }
    assert_eq!(
        rest.call("DELETE", "/users/ann/groups/before").await.status(),
        204
    );
    for (group, text) in [("before", "1"), ("later", "2")] {
        let message = json!({ "target": "GroupMessage", "arguments": [group, text] });
        assert_eq!(
            rest.send(&format!("/groups/{group}/:send"), &message)
                .await
                .status(),
            202
        );
    }
    assert_eq!(source.texts(1).await, texts(2..3), "it left the other one");
}
