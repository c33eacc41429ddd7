//! Tests that a node's word on its connections wins over what a server has kept of them.

use hubcast_backplane::conformance::{Member, Witness, eventually, group, open, record};
use hubcast_backplane::{ConnectionId, HubOptions, Members, Topic};

use crate::support::RedisServer;

/// The server went back to a state in which one connection was another node's, one had not ended, and one was in a
/// group that it has left. The node's other connections go on as they are.
#[tokio::test]
async fn what_a_node_says_of_its_connections_wins() {
    let server = RedisServer::start().await;
    let nodes = server.nodes(2).await;
    let witnesses = [Witness::of(nodes[0].as_ref()), Witness::of(nodes[1].as_ref())];
    let members = open(&nodes, HubOptions::default()).await;
    let [home, other] = [&members[0], &members[1]];
    let (kept, moved) = (home.connect(Some("u")).await, home.connect(None).await);
    home.join(&kept, "g").await;
    let ghost = record(None).id;
    let key = |name: &str, id: &ConnectionId| format!("hubcast:{{{}}}:{name}:{id}", home.hub.name());
    let of_group = |name: &str| format!("hubcast:{{{}}}:group:{name}", home.hub.name());
    let owned = format!("hubcast:{{{}}}:node:{}", home.hub.name(), home.node.node());
    server
        .command(&format!(
            "HSET {} node {}",
            key("connection", &moved),
            other.node.node()
        ))
        .await;
    server
        .command(&format!(
            "HSET {} node {}",
            key("connection", &ghost),
            home.node.node()
        ))
        .await;
    server.command(&format!("SADD {owned} {ghost}")).await;
    for (id, name) in [(&ghost, "g"), (&kept, "left")] {
        server
            .command(&format!("SADD {} {name}", key("groups", id)))
            .await;
        server.command(&format!("ZADD {} 0 {id}", of_group(name))).await;
    }
    server
        .command(&format!("DEL hubcast:{{{}}}:log", home.hub.name()))
        .await;
    eventually("the moved one is given up", async || {
        (witnesses[0].lost() == [moved.clone()]).then_some(())
    })
    .await;
    eventually("the others are as the node knows them", async || {
        let is_listed = async |member: &Member, name: &str| {
            let of = group(name);
            member.hub.count(Members::Group(&of)).await.unwrap()
        };
        let listed = (is_listed(home, "g").await, is_listed(home, "left").await);
        (listed == (1, 0)).then_some(())
    })
    .await;
    home.publish(Topic::Connection(kept.clone()), "end")
        .await
        .unwrap();
    home.sink.received_until(&kept, "end").await;
    let listing = home.hub.look_up(&ghost).await.unwrap();
    assert_eq!(listing, None);
    for witness in &witnesses {
        assert_eq!(witness.fenced(), 0);
        assert!(witness.orphans().is_empty());
    }
}

/// Entering, registering again and removing go in steps, and leave no keys behind.
#[tokio::test]
async fn a_connection_in_many_groups_comes_and_goes_whole() {
    let server = RedisServer::start().await;
    let options = HubOptions {
        presence: true,
        ..HubOptions::default()
    };
    let members = open(&server.nodes(2).await, options).await;
    let home = &members[0];
    let connection = record(Some("u"));
    let groups: Vec<_> = (0..1_000).map(|number| group(&format!("g{number}"))).collect();
    home.hub.enter_with(&connection, &groups, true).await.unwrap();
    let listed = async |member: &Member| member.hub.groups(&connection.id).await.unwrap().len();
    let statistics = async || home.hub.connection_statistics().await.unwrap().groups;
    assert_eq!((listed(&members[1]).await, statistics().await), (1_000, 1_000));
    server.command("FLUSHALL").await;
    eventually("it is registered again", async || {
        (statistics().await == 1_000 && listed(&members[1]).await == 1_000).then_some(())
    })
    .await;
    members[1].publish(Topic::Group(groups[999].clone()), "end").await;
    home.sink.received_until(&connection.id, "end").await;
    assert!(home.remove(&connection.id).await);
    assert_eq!((listed(&members[1]).await, statistics().await), (0, 0));
    let keys = server.keys().await;
    let left = keys.iter().find(|key| {
        [":leaving", ":group:", ":groups:", ":connection:"]
            .iter()
            .any(|part| key.contains(part))
    });
    assert_eq!(left, None);
}
