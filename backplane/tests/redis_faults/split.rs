//! Tests of a node that goes on with the former master after a failover, because it does not know of it.

use hubcast_backplane::conformance::sessions::of_group;
use hubcast_backplane::conformance::{eventually, open};
use hubcast_backplane::{Delivery, Gap};

use crate::support::RedisServer;
use crate::support::way::Way;
use crate::{many, publish_until_it_works};

#[tokio::test]
async fn messages_that_only_the_former_master_has_are_told() {
    let former = RedisServer::start().await;
    let replica = RedisServer::start_with(&["--repl-diskless-sync-delay 0"]).await;
    replica.follow(&former).await;
    let (early, late) = (Way::to(former.port()).await, Way::to(former.port()).await);
    let nodes = [early.node("early").await, late.node("late").await];
    let members = open(&nodes, many()).await;
    let connection = members[0].connect(None).await;
    members[0].join(&connection, "g").await;
    publish_until_it_works(&members[1], of_group("g"), "before").await;
    members[0].sink.received_until(&connection, "before").await;

    replica.command("REPLICAOF NO ONE").await;
    early.lead_to(replica.port());
    eventually("the early node has begun the new epoch", async || {
        (members[0].sink.gaps() == 1).then_some(())
    })
    .await;
    publish_until_it_works(&members[0], of_group("g"), "after").await;
    members[0].sink.received_until(&connection, "after").await;
    assert!(
        members[1].publish(of_group("g"), "lost").await.is_some(),
        "it was acknowledged"
    );
    late.lead_to(replica.port());
    publish_until_it_works(&members[1], of_group("g"), "next").await;
    members[0].sink.received_until(&connection, "next").await;
    let deliveries = members[0].sink.deliveries();
    let place = |found: fn(&Delivery) -> bool| deliveries.iter().position(found);
    let loss =
        place(|delivery| matches!(delivery, Delivery::Gap(Gap::Trimmed(topic)) if *topic == of_group("g")));
    let next =
        place(|delivery| matches!(delivery, Delivery::Message(message) if message.envelope.target == "next"));
    assert!(loss.is_some(), "the loss is told");
    assert!(loss < next, "before what the same node published after it");
    assert_eq!(members[0].sink.gaps(), 2, "the epoch and the loss");
}
