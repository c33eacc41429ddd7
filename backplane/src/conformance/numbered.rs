//! Rules about messages that are published in the order of their numbers.

use std::time::Duration;

use futures_util::future::join_all;

use super::{Member, Nodes, envelope, eventually, group, open};
use crate::backplane::HubOptions;
use crate::numbered::{Counted, Numbered};
use crate::topic::Topic;

const LIFE: Duration = Duration::from_secs(60);

async fn publish(member: &Member, number: u64, last: Option<&str>) -> Counted {
    let numbered = Numbered {
        key: "k",
        number,
        last,
        life: LIFE,
    };
    let (topic, message) = (Topic::Group(group("g")), envelope(&format!("m{number}")));
    let publishing = member.hub.publish_numbered(&topic, &message, numbered);
    publishing.await.unwrap()
}

async fn count(member: &Member, begins: bool) -> Counted {
    member.hub.counted("k", LIFE, begins).await.unwrap()
}

/// However many nodes repeat a message, it is published once, and none without the ones before it.
pub async fn numbered_messages_are_published_once_and_in_order(nodes: &Nodes) {
    let members = open(nodes, HubOptions::default()).await;
    let (first, last) = (&members[0], &members[members.len() - 1]);
    let connection = first.connect(None).await;
    first.join(&connection, "g").await;
    assert_eq!(publish(last, 1, None).await, Counted::Unknown);
    assert_eq!(count(last, false).await, Counted::Unknown);
    assert_eq!(count(last, true).await, Counted::Expects(1));
    assert_eq!(count(first, true).await, Counted::Expects(1), "it is under way");
    for number in 1..=3 {
        assert_eq!(publish(first, number + 1, None).await, Counted::Expects(number));
        let repeated = members.iter().cycle().take(8.max(members.len()));
        let outcomes = join_all(repeated.map(|member| publish(member, number, None))).await;
        let (now, others): (Vec<_>, Vec<_>) = outcomes
            .iter()
            .partition(|outcome| matches!(outcome, Counted::Now(_)));
        assert_eq!(now.len(), 1, "{outcomes:?}");
        assert!(
            others.iter().all(|other| **other == Counted::Expects(number + 1)),
            "{outcomes:?}"
        );
    }
    assert_eq!(count(last, true).await, Counted::Expects(4), "it goes on");
    assert!(matches!(
        publish(last, 4, Some("all said")).await,
        Counted::Now(_)
    ));
    let over = Counted::Over {
        number: 4,
        last: "all said".to_owned(),
    };
    for number in [1, 4, 5] {
        assert_eq!(publish(first, number, None).await, over);
    }
    assert_eq!(count(first, false).await, over);
    assert_eq!(count(first, true).await, Counted::Expects(1), "it begins anew");
    first.publish(Topic::All, "end").await;
    let received = first.sink.received_until(&connection, "end").await;
    let targets: Vec<_> = received.iter().map(|(_, target)| target.as_str()).collect();
    assert_eq!(targets, ["m1", "m2", "m3", "m4", "end"]);
    assert!(first.remove(&connection).await);
}

/// A count is forgotten at the end of its life.
pub async fn a_count_has_a_life(nodes: &Nodes) {
    let member = &open(nodes, HubOptions::default()).await[0];
    let short = Duration::from_millis(1);
    assert_eq!(
        member.hub.counted("k", short, true).await.unwrap(),
        Counted::Expects(1)
    );
    eventually("the count is forgotten", async || {
        let counted = member.hub.counted("k", short, false).await.unwrap();
        (counted == Counted::Unknown).then_some(())
    })
    .await;
    assert_eq!(publish(member, 1, None).await, Counted::Unknown);
}
