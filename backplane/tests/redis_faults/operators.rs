//! Tests of settings that an operator chooses, and of warnings about the server.

use std::sync::Arc;

use hubcast_backplane::conformance::{Member, envelope, eventually};
use hubcast_backplane::redis::RedisBackplane;
use hubcast_backplane::{Backplane, BackplaneError, Once, Topic};

use crate::support::RedisServer;
use crate::{many, one, publish_until_it_works};

/// Waits until publishing is refused because too few replicas follow.
async fn is_refused(member: &Member) {
    eventually("publishing is refused", async || {
        let published = member.hub.publish(&[Topic::All], &envelope("refused")).await;
        matches!(
            published,
            Err(BackplaneError::TooFewReplicas { online: 0, needed: 1 })
        )
        .then_some(())
    })
    .await;
}

#[tokio::test]
async fn nothing_is_published_while_too_few_replicas_follow() {
    let server = RedisServer::start().await;
    let mut options = server.options("a");
    options.min_replicas = 1;
    let node: Arc<dyn Backplane> = Arc::new(RedisBackplane::connect(options).await.unwrap());
    let member = one(Arc::clone(&node), many()).await;
    let connection = member.connect(None).await;
    let refused = member
        .hub
        .publish(&[Topic::All], &envelope("refused"))
        .await
        .unwrap_err();
    assert!(refused.is_transient(), "{refused}");
    assert!(
        refused.to_string().contains("backplane.min_replicas (1)"),
        "{refused}"
    );
    let once = Once {
        key: "k".to_owned(),
        content: "c".into(),
    };
    let refused = member
        .hub
        .publish_once(&Topic::All, &envelope("refused"), &once)
        .await;
    assert!(
        matches!(refused, Err(BackplaneError::TooFewReplicas { .. })),
        "{refused:?}"
    );
    assert_eq!(node.warnings().len(), 1, "{:?}", node.warnings());
    let mut replica = RedisServer::start_with(&["--repl-diskless-sync-delay 0"]).await;
    replica.follow(&server).await;
    publish_until_it_works(&member, Topic::All, "end").await;
    let received = member.sink.received_until(&connection, "end").await;
    assert_eq!(
        received.len(),
        1,
        "what was refused was not published: {received:?}"
    );
    assert_eq!(node.warnings(), Vec::<String>::new());
    replica.kill().await;
    is_refused(&member).await;
    assert!(member.remove(&connection).await, "what is no message goes on");
}

#[tokio::test]
async fn a_policy_that_deletes_what_is_needed_is_told() {
    let server = RedisServer::start_with(&["--maxmemory-policy volatile-lru"]).await;
    let reported = RedisBackplane::inspect(server.options("a")).await.unwrap();
    assert!(
        reported.len() == 1 && reported[0].contains("maxmemory-policy volatile-lru"),
        "{reported:?}"
    );
    let look = server.keys().await;
    assert!(look.is_empty(), "whoever inspects is no node: {look:?}");
    let node = server.node("a").await;
    eventually("the node tells", async || {
        (node.warnings() == reported).then_some(())
    })
    .await;
    server.command("CONFIG SET maxmemory-policy noeviction").await;
    eventually("it is mended", async || node.warnings().is_empty().then_some(())).await;
    server.command("CONFIG SET maxmemory-policy allkeys-lfu").await;
    eventually("the node tells again", async || {
        node.warnings().first()?.contains("allkeys-lfu").then_some(())
    })
    .await;
}
