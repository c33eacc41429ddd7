//! Tests with events of a living server by which it forgets nothing: no node may report a gap. And with events by which
//! it may have forgotten something: every node reports a gap, once.

use std::collections::BTreeSet;
use std::sync::Arc;

use hubcast_backplane::conformance::{Member, eventually, group, open};
use hubcast_backplane::{Backplane, ConnectionId, Delivery, Epoch, Gap, Status, Topic};

use crate::support::RedisServer;
use crate::{many, publish_until_it_works, status};

/// Nodes with a connection each, in one group.
struct Scene {
    members: Vec<Member>,
    connections: Vec<ConnectionId>,
    exchanges: usize,
    /// The hub's epoch at first, and those that came after it.
    epochs: Vec<Epoch>,
}

impl Scene {
    async fn new(server: &RedisServer) -> Self {
        Self::of(&server.nodes(2).await).await
    }

    /// Opens a hub that is new to these nodes.
    async fn of(nodes: &[Arc<dyn Backplane>]) -> Self {
        let members = open(nodes, many()).await;
        let epoch = members[0].hub.position().await.unwrap().epoch;
        let mut scene = Self {
            members: Vec::new(),
            connections: Vec::new(),
            exchanges: 0,
            epochs: vec![epoch],
        };
        for member in members {
            scene.add(member).await;
        }
        scene.exchange().await;
        scene
    }

    async fn add(&mut self, member: Member) {
        let connection = member.connect(Some("u")).await;
        member.join(&connection, "g").await;
        self.members.push(member);
        self.connections.push(connection);
    }

    /// One more node: its connections to the server are younger than those of the others.
    async fn add_node(&mut self, server: &RedisServer) {
        let node: Arc<dyn Backplane> = server.node(&format!("node-{}", self.members.len())).await;
        let member = Member::open(&node, self.members[0].hub.name(), many()).await;
        self.add(member).await;
    }

    /// All nodes publish in turn on each of their connections to the server, and receive all messages.
    async fn exchange(&mut self) {
        self.exchanges += 1;
        for number in 0..10 {
            for member in &self.members {
                let target = format!("{}-{number}", self.exchanges);
                publish_until_it_works(member, Topic::Group(group("g")), &target).await;
            }
        }
        let end = format!("{}-end", self.exchanges);
        publish_until_it_works(&self.members[0], Topic::All, &end).await;
        for (member, connection) in self.members.iter().zip(&self.connections) {
            let received = member.sink.received_until(connection, &end).await;
            let begins = format!("{}-", self.exchanges);
            let of_this = received.iter().filter(|(_, target)| target.starts_with(&begins));
            assert!(of_this.count() > 10 * self.members.len());
        }
    }

    async fn connected(&self) {
        for member in &self.members {
            status(member.node.as_ref(), Status::Connected).await;
        }
    }

    fn gaps(member: &Member) -> Vec<Gap> {
        let deliveries = member.sink.deliveries().into_iter();
        let gaps = deliveries.filter_map(|delivery| match delivery {
            Delivery::Gap(gap) => Some(gap),
            _ => None,
        });
        gaps.collect()
    }

    /// On each connection to the server, the epoch is the first one, and no node reported a gap.
    async fn is_as_it_was(&self) {
        for member in &self.members {
            for _ in 0..4 {
                let position = member.hub.position().await.unwrap();
                assert_eq!([position.epoch], *self.epochs);
            }
            assert_eq!(Self::gaps(member), []);
        }
    }

    /// There is one more epoch, which every node reported once. Gaps of the last moments may be reported besides.
    async fn has_one_new_epoch(&mut self) {
        self.connected().await;
        eventually("everybody hears of a new epoch", async || {
            let reported = |member| Self::gaps(member).len() >= self.epochs.len();
            self.members.iter().all(reported).then_some(())
        })
        .await;
        self.registered().await;
        self.exchange().await;
        let position = self.members[0].hub.position().await;
        self.epochs.push(position.unwrap().epoch);
        let reported: Vec<_> = self.epochs[1..].iter().cloned().map(Gap::NewEpoch).collect();
        for member in &self.members {
            let mut gaps = Self::gaps(member);
            gaps.retain(|gap| matches!(gap, Gap::NewEpoch(_)));
            assert_eq!(gaps, reported);
        }
    }

    /// Waits until the server has every connection again.
    async fn registered(&self) {
        for (member, connection) in self.members.iter().zip(&self.connections) {
            eventually("the connection is registered again", async || {
                let found = member.hub.look_up(connection).await.ok()??;
                (found.owner.as_ref() == Some(member.node.node())).then_some(())
            })
            .await;
        }
    }
}

async fn replication_id(server: &RedisServer) -> String {
    let reported = server.info("replication").await;
    let line = reported.lines().find(|line| line.starts_with("master_replid:"));
    line.unwrap().to_owned()
}

/// Ends a connection for commands. Connections of other kinds never call a script.
async fn cut_one_link(server: &RedisServer) {
    let list: String = redis::cmd("CLIENT")
        .arg("LIST")
        .query_async(&mut server.look().await)
        .await
        .unwrap();
    let link = list.lines().find(|line| line.contains("cmd=evalsha"));
    let id = link.and_then(|link| link.split(' ').find_map(|field| field.strip_prefix("id=")));
    server.command(&format!("CLIENT KILL ID {}", id.unwrap())).await;
}

/// Makes every node subscribe anew, on connections that are younger than its connections for commands, which stay.
async fn cut_subscriptions(server: &RedisServer, scene: &mut Scene) {
    let before = subscriptions(server).await;
    server.command("CLIENT KILL TYPE pubsub").await;
    let anew = eventually("all subscribe anew", async || {
        let anew = subscriptions(server).await;
        (anew.len() == before.len() && anew.is_disjoint(&before)).then_some(anew)
    })
    .await;
    scene.exchange().await;
    assert_eq!(subscriptions(server).await, anew, "they are kept");
}

/// Connections of all kinds that are younger than the others agree with those, and no gap is reported.
async fn goes_on_with_younger_connections(server: &RedisServer, scene: &mut Scene) {
    scene.exchange().await;
    cut_one_link(server).await;
    scene.exchange().await;
    cut_subscriptions(server, scene).await;
    scene.add_node(server).await;
    scene.exchange().await;
    scene.is_as_it_was().await;
}

/// Numbers of the connections that are subscribed.
async fn subscriptions(server: &RedisServer) -> BTreeSet<String> {
    let list: String = redis::cmd("CLIENT")
        .arg(&["LIST", "TYPE", "pubsub"])
        .query_async(&mut server.look().await)
        .await
        .unwrap();
    let id = |line: &str| {
        line.split(' ')
            .find_map(|field| field.strip_prefix("id="))
            .map(str::to_owned)
    };
    list.lines().filter_map(id).collect()
}

#[tokio::test]
async fn the_first_replica_may_come_and_links_that_are_younger_agree_with_older_ones() {
    let server = RedisServer::start().await;
    let mut scene = Scene::new(&server).await;
    let before = replication_id(&server).await;
    let replica = RedisServer::start_with(&["--repl-diskless-sync-delay 0"]).await;
    replica.follow(&server).await;
    assert_ne!(replication_id(&server).await, before, "the server took a new id");
    goes_on_with_younger_connections(&server, &mut scene).await;
}

#[tokio::test]
async fn the_last_replica_may_be_gone_for_long() {
    let server = RedisServer::start_with(&["--repl-backlog-ttl 1"]).await;
    let mut replica = RedisServer::start_with(&["--repl-diskless-sync-delay 0"]).await;
    replica.follow(&server).await;
    let mut scene = Scene::new(&server).await;
    let before = replication_id(&server).await;
    replica.kill().await;
    eventually("the server frees its backlog", async || {
        (replication_id(&server).await != before).then_some(())
    })
    .await;
    goes_on_with_younger_connections(&server, &mut scene).await;
}

#[tokio::test]
async fn a_server_may_forget_its_promotion_and_links_that_name_it_agree_with_younger_ones() {
    let server = RedisServer::start_with(&["--repl-backlog-ttl 3"]).await;
    let other = RedisServer::start_with(&["--repl-diskless-sync-delay 0"]).await;
    server.follow(&other).await;
    server.promote().await;
    let mut scene = Scene::new(&server).await;
    let knows = async || !server.info("replication").await.contains("second_repl_offset:-1");
    assert!(knows().await, "it has not forgotten yet");
    eventually("the server frees its backlog", async || {
        (!knows().await).then_some(())
    })
    .await;
    goes_on_with_younger_connections(&server, &mut scene).await;
    // The log of a new hub names no promotion, and some links still do.
    let nodes: Vec<_> = scene
        .members
        .iter()
        .map(|member| Arc::clone(&member.node))
        .collect();
    let mut younger = Scene::of(&nodes).await;
    younger.exchange().await;
    younger.is_as_it_was().await;
    scene.is_as_it_was().await;
}

#[tokio::test]
async fn a_server_that_was_a_replica_for_a_while_is_another_run() {
    let server = RedisServer::start().await;
    let other = RedisServer::start_with(&["--repl-diskless-sync-delay 0"]).await;
    let mut scene = Scene::new(&server).await;
    for _ in 0..2 {
        server.follow(&other).await;
        for member in &scene.members {
            status(member.node.as_ref(), Status::Disconnected).await;
        }
        server.promote().await;
        scene.has_one_new_epoch().await;
    }
}

#[tokio::test]
async fn a_server_that_starts_again_is_another_run() {
    let mut server = RedisServer::start_with(&["--appendonly yes", "--appendfsync always"]).await;
    let mut scene = Scene::new(&server).await;
    server.kill().await;
    assert!(server.restart().await);
    scene.has_one_new_epoch().await;
}
