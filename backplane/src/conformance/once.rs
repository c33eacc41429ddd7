//! Rules about requests to publish that may be repeated.

use bytes::Bytes;
use futures_util::future::join_all;

use super::{Member, Nodes, envelope, group, open};
use crate::backplane::HubOptions;
use crate::once::{Once, Published};
use crate::topic::Topic;

fn once(key: &str, content: &'static str) -> Once {
    Once {
        key: key.to_owned(),
        content: Bytes::from_static(content.as_bytes()),
    }
}

async fn publish(member: &Member, topic: &Topic, target: &str, once: &Once) -> Published {
    let envelope = envelope(target);
    let publishing = member.hub.publish_once(topic, &envelope, once);
    publishing.await.unwrap()
}

/// However many nodes repeat a request at the same time, it is published once.
pub async fn a_request_is_published_once(nodes: &Nodes) {
    let members = open(nodes, HubOptions::default()).await;
    let first = &members[0];
    let connection = first.connect(None).await;
    first.join(&connection, "g").await;
    let own = Topic::Connection(connection.clone());
    for (number, topic) in [Topic::All, Topic::Group(group("g")), own]
        .into_iter()
        .enumerate()
    {
        let (target, request) = (
            format!("m{number}"),
            once(&format!("request {number}"), "content"),
        );
        let repeated = members.iter().cycle().take(8.max(members.len()));
        let outcomes = join_all(repeated.map(|member| publish(member, &topic, &target, &request))).await;
        let now = outcomes
            .iter()
            .filter(|outcome| matches!(outcome, Published::Now(Some(_))));
        assert_eq!(now.count(), 1, "{outcomes:?}");
        assert!(!outcomes.contains(&Published::Differs));
    }
    first.publish(Topic::All, "end").await;
    let received = first.sink.received_until(&connection, "end").await;
    let targets: Vec<_> = received.iter().map(|(_, target)| target.as_str()).collect();
    assert_eq!(targets, ["m0", "m1", "m2", "end"]);
    assert!(first.remove(&connection).await);
}

/// A key that was used for another content publishes nothing; each hub has keys of its own.
pub async fn a_key_is_for_one_content_of_one_hub(nodes: &Nodes) {
    let members = open(nodes, HubOptions::default()).await;
    let (first, last) = (&members[0], &members[members.len() - 1]);
    let connection = first.connect(None).await;
    let all = Topic::All;
    let Published::Now(Some(offset)) = publish(last, &all, "a", &once("k", "a")).await else {
        panic!("it was not published");
    };
    last.hub.passed(offset).await.unwrap();
    assert_eq!(
        publish(first, &all, "b", &once("k", "b")).await,
        Published::Differs
    );
    assert_eq!(
        publish(first, &all, "a", &once("k", "a")).await,
        Published::Before
    );
    let other = &open(nodes, HubOptions::default()).await[0];
    let elsewhere = publish(other, &all, "a", &once("k", "b")).await;
    assert!(matches!(elsewhere, Published::Now(Some(_))), "{elsewhere:?}");
    first.publish(Topic::All, "end").await;
    let received = first.sink.received_until(&connection, "end").await;
    assert_eq!(received.len(), 2, "{received:?}");
    assert!(first.remove(&connection).await);
}

/// A request for a connection that does not exist counts as carried out.
pub async fn a_request_to_nobody_is_not_published_later(nodes: &Nodes) {
    let member = &open(nodes, HubOptions::default()).await[0];
    let nobody = Topic::Connection(super::record(None).id);
    let request = once("k", "content");
    assert_eq!(
        publish(member, &nobody, "a", &request).await,
        Published::Now(None)
    );
    assert_eq!(publish(member, &nobody, "a", &request).await, Published::Before);
}
