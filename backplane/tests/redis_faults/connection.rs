//! Tests in which the server, or the way to it, is lost and comes back.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hubcast_backplane::conformance::{Member, envelope, eventually, group, open, owner, record};
use hubcast_backplane::redis::{RedisBackplane, RedisOptions};
use hubcast_backplane::{
    Backplane, BackplaneError, Claim, ConnectionId, ConnectionRecord, Delivery, EventRecord, Gap, Offset,
    Status, Topic,
};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::support::RedisServer;
use crate::{many, one, publish_until_it_works, status};

/// Publishes numbered messages until stopped; messages that may not have been carried out count as unknown.
pub(crate) struct Publisher {
    stop: Arc<AtomicBool>,
    task: JoinHandle<(BTreeSet<Offset>, usize)>,
}

impl Publisher {
    pub(crate) fn start(member: &Member, topic: Topic) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, member) = (Arc::clone(&stop), member.clone());
        let task = tokio::spawn(async move {
            let (mut offsets, mut unknown) = (BTreeSet::new(), 0);
            while !stopped.load(Ordering::Acquire) {
                match member
                    .hub
                    .publish(std::slice::from_ref(&topic), &envelope("m"))
                    .await
                {
                    Ok(receipts) => offsets.extend(receipts.into_iter().flatten()),
                    Err(BackplaneError::Timeout { .. }) => unknown += 1,
                    Err(error) => assert!(error.is_transient(), "{error}"),
                }
                tokio::task::yield_now().await;
            }
            (offsets, unknown)
        });
        Self { stop, task }
    }

    pub(crate) async fn stop(self) -> (BTreeSet<Offset>, usize) {
        self.stop.store(true, Ordering::Release);
        self.task.await.unwrap()
    }
}

fn record_of(id: &ConnectionId) -> ConnectionRecord {
    ConnectionRecord {
        id: id.clone(),
        user: None,
        state: None,
        event: EventRecord::default(),
    }
}

fn received_offsets(member: &Member, connection: &ConnectionId) -> Vec<Offset> {
    let received = member.sink.received(connection).into_iter();
    received
        .filter(|(_, target)| target == "m")
        .map(|(offset, _)| offset)
        .collect()
}

async fn cut_repeatedly(kind: &str) {
    let server = RedisServer::start().await;
    let nodes = server.nodes(2).await;
    let members = open(&nodes, many()).await;
    let connection = members[1].connect(Some("u")).await;
    members[1].join(&connection, "g").await;
    let publishers = [
        Publisher::start(&members[0], Topic::Group(group("g"))),
        Publisher::start(&members[0], Topic::All),
        Publisher::start(&members[1], Topic::Connection(connection.clone())),
    ];
    for round in 0..10 {
        let seen = received_offsets(&members[1], &connection).len();
        server.command(&format!("CLIENT KILL TYPE {kind}")).await;
        eventually(&format!("traffic goes on after cut {round}"), async || {
            (received_offsets(&members[1], &connection).len() > seen + 20).then_some(())
        })
        .await;
    }
    let (mut published, mut unknown) = (BTreeSet::new(), 0);
    for publisher in publishers {
        let (offsets, uncertain) = publisher.stop().await;
        published.extend(offsets);
        unknown += uncertain;
    }
    publish_until_it_works(&members[0], Topic::All, "end").await;
    members[1].sink.received_until(&connection, "end").await;
    let received = received_offsets(&members[1], &connection);
    assert!(received.is_sorted_by(|a, b| a < b), "order and once");
    let missing: Vec<_> = published
        .iter()
        .filter(|offset| received.binary_search(offset).is_err())
        .collect();
    assert!(
        missing.is_empty(),
        "{} of {} are missing",
        missing.len(),
        published.len()
    );
    assert!(received.len() <= published.len() + unknown);
    assert_eq!(members[1].sink.gaps(), 0);
}

#[tokio::test]
async fn nothing_is_missing_after_subscriptions_are_cut() {
    cut_repeatedly("pubsub").await;
}

#[tokio::test]
async fn nothing_is_missing_after_commands_are_cut() {
    cut_repeatedly("normal").await;
}

/// Kills and restarts the server under a connected client, which must get the gap and further messages.
async fn restart(arguments: &[&str]) {
    let mut server = RedisServer::start_with(arguments).await;
    let nodes = server.nodes(2).await;
    let members = open(&nodes, many()).await;
    let connection = members[1].connect(Some("u")).await;
    members[1].join(&connection, "g").await;
    members[1].join(&connection, "left").await;
    members[1].leave(&connection, "left").await;
    members[0].publish(Topic::Group(group("g")), "before").await;
    members[1].sink.received_until(&connection, "before").await;
    server.kill().await;
    status(nodes[1].as_ref(), Status::Disconnected).await;
    let begun = Instant::now();
    let failed = members[0].hub.publish(&[Topic::All], &envelope("lost")).await;
    assert!(
        matches!(
            failed,
            Err(BackplaneError::Unavailable { .. } | BackplaneError::Timeout { .. })
        ),
        "{failed:?}"
    );
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    assert!(server.restart().await);
    for node in &nodes {
        status(node.as_ref(), Status::Connected).await;
    }
    for topic in [Topic::Group(group("g")), Topic::Connection(connection.clone())] {
        publish_until_it_works(&members[0], topic, "after").await;
    }
    publish_until_it_works(&members[0], Topic::All, "end").await;
    let received = members[1].sink.received_until(&connection, "end").await;
    let targets: Vec<_> = received.iter().map(|(_, target)| target.as_str()).collect();
    assert_eq!(targets, ["before", "after", "after", "end"]);
    let gaps = members[1]
        .sink
        .deliveries()
        .into_iter()
        .filter_map(|delivery| match delivery {
            Delivery::Gap(gap) => Some(gap),
            _ => None,
        });
    let epoch = members[0].hub.position().await.unwrap().epoch;
    assert_eq!(gaps.collect::<Vec<_>>(), [Gap::NewEpoch(epoch)]);
    let located = owner(&members[0], &connection).await;
    assert_eq!(located.as_ref(), Some(nodes[1].node()));
    let keys = server.keys().await;
    assert!(keys.iter().any(|key| key.ends_with(":group:g")), "{keys:?}");
    assert!(!keys.iter().any(|key| key.ends_with(":group:left")), "{keys:?}");
    assert!(members[1].remove(&connection).await);
}

#[tokio::test]
async fn a_server_that_lost_everything_begins_a_new_epoch() {
    restart(&[]).await;
}

#[tokio::test]
async fn a_server_that_kept_its_data_begins_a_new_epoch() {
    restart(&["--appendonly yes", "--appendfsync always"]).await;
}

#[tokio::test]
async fn a_flushed_server_begins_a_new_epoch_without_a_lost_connection() {
    let server = RedisServer::start().await;
    let nodes = server.nodes(2).await;
    let members = open(&nodes, many()).await;
    let connection = members[1].connect(None).await;
    members[1].join(&connection, "g").await;
    let secret = nodes[0].cluster_secret();
    server.command("FLUSHALL").await;
    eventually("the connection is registered again", async || {
        owner(&members[0], &connection).await
    })
    .await;
    members[0].publish(Topic::Group(group("g")), "after").await;
    members[1].sink.received_until(&connection, "after").await;
    assert_eq!(members[1].sink.gaps(), 1);
    eventually("the secret is back", async || {
        let keys = server.keys().await;
        keys.iter().any(|key| key.ends_with(":secret")).then_some(())
    })
    .await;
    assert_eq!(nodes[0].cluster_secret(), secret);
    assert_eq!(nodes[1].cluster_secret(), secret);
}

#[tokio::test]
async fn a_server_that_forgot_its_scripts_is_told_them_again() {
    let server = RedisServer::start().await;
    let member = one(server.node("a").await, many()).await;
    let connection = member.connect(None).await;
    server.command("SCRIPT FLUSH").await;
    member.publish(Topic::All, "one").await;
    server.command("SCRIPT FLUSH").await;
    let topics = [Topic::All, Topic::All, Topic::All];
    member.hub.publish(&topics, &envelope("end")).await.unwrap();
    member.sink.received_until(&connection, "end").await;
    eventually("all four", async || {
        (member.sink.received(&connection).len() == 4).then_some(())
    })
    .await;
    assert_eq!(member.sink.gaps(), 0);
}

#[tokio::test]
async fn commands_fail_within_the_bound_while_the_server_is_down_and_removals_wait() {
    let mut server = RedisServer::start_with(&["--appendonly yes", "--appendfsync always"]).await;
    let mut options = server.options("a");
    options.reconnect_wait = Duration::from_millis(300);
    let node: Arc<dyn Backplane> = Arc::new(RedisBackplane::connect(options).await.unwrap());
    let member = one(Arc::clone(&node), many()).await;
    let (kept, removed) = (member.connect(None).await, member.connect(None).await);
    server.kill().await;
    status(node.as_ref(), Status::Disconnected).await;
    let begun = Instant::now();
    let unavailable =
        |error: BackplaneError| assert!(matches!(error, BackplaneError::Unavailable { .. }), "{error}");
    unavailable(member.hub.join(&kept, &group("g")).await.unwrap_err());
    unavailable(member.hub.enter(&record(None), true).await.unwrap_err());
    unavailable(member.hub.position().await.unwrap_err());
    assert!(begun.elapsed() < Duration::from_secs(3));
    let waiting = tokio::spawn({
        let (member, removed) = (member.clone(), removed.clone());
        async move { member.remove(&removed).await }
    });
    eventually("the removal waits", async || {
        let again = record_of(&removed);
        let claim = member.hub.claim(&again).await;
        matches!(claim, Ok(Claim::Closed)).then_some(())
    })
    .await;
    assert!(!member.remove(&removed).await, "once");
    assert!(!waiting.is_finished(), "whether it removed it is not known yet");
    assert!(server.restart().await);
    status(node.as_ref(), Status::Connected).await;
    member.join(&kept, "g").await;
    assert!(waiting.await.unwrap());
    assert_eq!(owner(&member, &removed).await, None);
    let claim = member.hub.claim(&record_of(&removed)).await;
    assert_eq!(claim.unwrap(), Claim::Closed);
    member.publish(Topic::Group(group("g")), "end").await;
    member.sink.received_until(&kept, "end").await;
}

/// A proxy that can go on taking bytes and stop forwarding the server's.
mod deaf {
    use std::net::Ipv4Addr;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    pub(crate) async fn start(server: u16, deaf: Arc<AtomicBool>) -> u16 {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let upstream = TcpStream::connect((Ipv4Addr::LOCALHOST, server)).await.unwrap();
                let (mut from_client, mut to_client) = client.into_split();
                let (mut from_server, mut to_server) = upstream.into_split();
                tokio::spawn(async move { tokio::io::copy(&mut from_client, &mut to_server).await });
                let deaf = Arc::clone(&deaf);
                tokio::spawn(async move {
                    let (mut buffer, mut stuck) = (vec![0; 65_536], false);
                    while let Ok(read @ 1..) = from_server.read(&mut buffer).await {
                        // Pushes are lost from this moment on; later connections are served well.
                        stuck |=
                            buffer.starts_with(b">3\r\n$7\r\nmessage") && deaf.swap(false, Ordering::AcqRel);
                        if !stuck && to_client.write_all(&buffer[..read]).await.is_err() {
                            return;
                        }
                    }
                });
            }
        });
        port
    }
}

#[tokio::test]
async fn a_deaf_subscription_is_noticed() {
    let server = RedisServer::start().await;
    let deaf = Arc::new(AtomicBool::new(false));
    let port = deaf::start(server.port(), Arc::clone(&deaf)).await;
    let mut options = RedisOptions::parse(&format!("redis://127.0.0.1:{port}")).unwrap();
    options.probe_interval = Duration::from_millis(200);
    let node: Arc<dyn Backplane> = Arc::new(RedisBackplane::connect(options).await.unwrap());
    let member = one(Arc::clone(&node), many()).await;
    let connection = member.connect(None).await;
    member.publish(Topic::All, "before").await;
    member.sink.received_until(&connection, "before").await;
    deaf.store(true, Ordering::Release);
    member.publish(Topic::All, "unheard").await;
    member.publish(Topic::All, "end").await;
    let received = member.sink.received_until(&connection, "end").await;
    assert_eq!(received.len(), 3);
    assert_eq!(member.sink.gaps(), 0);
}
