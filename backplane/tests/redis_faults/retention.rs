//! Tests that the log is bounded by age and bytes, that a full server still serves calls that free memory, and that
//! eviction is reported.

use std::time::Duration;

use bytes::Bytes;
use hubcast_backplane::conformance::sessions::of_group;
use hubcast_backplane::conformance::whole::Whole;
use hubcast_backplane::conformance::{Member, envelope, eventually, open};
use hubcast_backplane::wire::Envelope;
use hubcast_backplane::{BackplaneError, HubOptions, Position, RecordedCall, Status, Topic};

use tokio::time::Instant;

use crate::support::RedisServer;
use crate::{many, one, publish_until_it_works, status};

/// Publishes a message of so many bytes.
async fn publish(member: &Member, topic: &Topic, bytes: usize) -> Result<(), BackplaneError> {
    let large = Envelope {
        arguments: vec![Bytes::from(vec![b'"'; bytes])],
        ..envelope("large")
    };
    let topics = std::slice::from_ref(topic);
    member.hub.publish(topics, &large).await.map(drop)
}

async fn entries(server: &RedisServer, member: &Member, topic: &Topic) -> usize {
    let key = format!("hubcast:{{{}}}:stream:{}", member.hub.name(), topic.key());
    redis::cmd("XLEN")
        .arg(key)
        .query_async(&mut server.look().await)
        .await
        .unwrap()
}

async fn read(member: &Member, topic: &Topic, after: &Position) -> Whole {
    member.read(topic, after).await
}

#[tokio::test]
async fn an_active_topic_keeps_nothing_that_is_too_old() {
    let server = RedisServer::start().await;
    let options = HubOptions {
        retention: Duration::from_millis(400),
        ..many()
    };
    let member = one(server.node("a").await, options).await;
    let topic = of_group("busy");
    let begin = member.hub.position().await.unwrap();
    let mut published = 0;
    eventually("old entries are forgotten while new ones come", async || {
        member.publish(topic.clone(), "x").await;
        published += 1;
        (entries(&server, &member, &topic).await < published).then_some(())
    })
    .await;
    assert!(matches!(read(&member, &topic, &begin).await, Whole::Trimmed));
    let before = member.hub.position().await.unwrap();
    member.publish(topic.clone(), "new").await;
    assert!(matches!(read(&member, &topic, &before).await, Whole::Exact(found) if found.len() == 1));
    eventually(
        "nothing is left of a topic that is not used any more",
        async || (entries(&server, &member, &topic).await == 0).then_some(()),
    )
    .await;
    eventually("nor of what was noted for it", async || {
        let keys = server.keys().await;
        (!keys
            .iter()
            .any(|key| key.contains(":slice:") || key.contains(":stream:")))
        .then_some(())
    })
    .await;
}

#[tokio::test]
async fn bytes_are_bounded_for_a_topic() {
    let server = RedisServer::start().await;
    let options = HubOptions {
        retention_topic_bytes: 100_000,
        ..many()
    };
    let member = one(server.node("a").await, options).await;
    let topic = of_group("large");
    let begin = member.hub.position().await.unwrap();
    for _ in 0..200 {
        publish(&member, &topic, 2_000).await.unwrap();
    }
    let kept = entries(&server, &member, &topic).await;
    assert!((20..=60).contains(&kept), "{kept} entries of 2 KB");
    assert!(matches!(read(&member, &topic, &begin).await, Whole::Trimmed));
}

/// Nothing is counted for each topic: a topic is looked at as often as its share of the hub's bytes makes likely.
#[tokio::test]
async fn bytes_are_bounded_for_a_topic_among_others() {
    let server = RedisServer::start().await;
    let options = HubOptions {
        retention_topic_bytes: 100_000,
        ..many()
    };
    let member = one(server.node("a").await, options).await;
    let large = of_group("large");
    for number in 0..300 {
        publish(&member, &large, 2_000).await.unwrap();
        for small in 0..number % 4 {
            let other = of_group(&format!("small-{small}"));
            publish(&member, &other, 300).await.unwrap();
        }
    }
    let kept = entries(&server, &member, &large).await;
    assert!((20..=100).contains(&kept), "{kept} entries of 2 KB");
}

#[tokio::test]
async fn bytes_are_bounded_for_a_hub_whichever_topics_they_are_of() {
    let server = RedisServer::start().await;
    let options = HubOptions {
        retention_bytes: 200_000,
        ..many()
    };
    let member = one(server.node("a").await, options).await;
    for number in 0..300 {
        let topic = of_group(&format!("g{number}"));
        publish(&member, &topic, 2_000).await.unwrap();
    }
    eventually("older topics are forgotten", async || {
        let keys = server.keys().await;
        let streams = keys.iter().filter(|key| key.contains(":stream:g:")).count();
        ((40..=60).contains(&streams)).then_some(()) // a stream takes 4 KiB at least
    })
    .await;
    assert_eq!(
        entries(&server, &member, &of_group("g299")).await,
        1,
        "the newest is there"
    );
}

#[tokio::test]
async fn a_full_server_refuses_what_grows_and_nothing_else() {
    let server = RedisServer::start_with(&["--maxmemory 20mb", "--maxmemory-policy noeviction"]).await;
    let options = HubOptions {
        retention: Duration::from_secs(3),
        retention_topic_bytes: 0,
        retention_bytes: 0,
        ..many()
    };
    let node = server.node("a").await;
    let member = one(node.clone(), options).await;
    let leaver = member.connect(None).await;
    member.join(&leaver, "g").await;
    let mut position = member.hub.position().await.unwrap();
    let full = eventually("the server is full", async || {
        publish(&member, &of_group("flood"), 100_000).await.err()
    })
    .await;
    assert!(matches!(full, BackplaneError::Full), "{full:?}");
    assert!(
        full.is_transient() && full.to_string().contains("maxmemory"),
        "{full}"
    );
    // Beats, reading, leaving and ending go on.
    assert_eq!(*member.node.status().borrow(), Status::Connected);
    position.offset = member.hub.position().await.unwrap().offset;
    assert!(matches!(
        read(&member, &of_group("flood"), &position).await,
        Whole::Exact(_)
    ));
    member.leave(&leaver, "g").await;
    assert!(member.remove(&leaver).await);
    // Publishing goes on as soon as enough is forgotten.
    publish_until_it_works(&member, of_group("flood"), "again").await;
    status(member.node.as_ref(), Status::Connected).await;
}

#[tokio::test]
async fn evicted_entries_are_a_gap() {
    let server = RedisServer::start().await;
    let member = one(server.node("a").await, many()).await;
    let topic = of_group("g");
    let begin = member.hub.position().await.unwrap();
    member.publish(topic.clone(), "evicted").await;
    assert!(matches!(read(&member, &topic, &begin).await, Whole::Exact(found) if found.len() == 1));
    // All keys with an expiry are evicted: streams and tails.
    server
        .command("CONFIG SET maxmemory-policy volatile-random")
        .await;
    server.command("CONFIG SET maxmemory 1").await;
    eventually("the server evicts", async || {
        let _ = redis::cmd("SET")
            .arg("any")
            .arg("x")
            .query_async::<()>(&mut server.look().await)
            .await;
        let keys = server.keys().await;
        (!keys
            .iter()
            .any(|key| key.contains(":tail:") || key.contains(":stream:")))
        .then_some(())
    })
    .await;
    server.command("CONFIG SET maxmemory 0").await;
    assert!(matches!(read(&member, &topic, &begin).await, Whole::Trimmed));
    let now = member.hub.position().await.unwrap();
    member.publish(topic.clone(), "after").await;
    assert!(matches!(read(&member, &topic, &now).await, Whole::Exact(found) if found.len() == 1));
}

/// Streams of a log that the server has deleted may be left. Their entries are of an older epoch.
#[tokio::test]
async fn entries_of_a_log_that_was_evicted_are_not_taken_for_newer_ones() {
    let server = RedisServer::start().await;
    // Another node publishes the old entries: a node that meets the new epoch within a round trip of its own last message
    // appends a gap for that message, since it can't know whether the message came before the epoch.
    let members = open(&server.nodes(2).await, many()).await;
    let [member, other] = &members[..] else {
        panic!("two nodes");
    };
    let (old, new) = (of_group("old"), of_group("new"));
    for number in 0..20 {
        other.publish(old.clone(), &format!("old {number}")).await;
    }
    let before = member.hub.position().await.unwrap();
    server
        .command(&format!("DEL hubcast:{{{}}}:log", member.hub.name()))
        .await;
    let begin = member.hub.position().await.unwrap();
    assert_ne!(begin.epoch, before.epoch);
    for number in 0..30 {
        member.publish(new.clone(), &format!("new {number}")).await;
    }
    assert!(matches!(read(member, &old, &begin).await, Whole::Exact(found) if found.is_empty()));
    assert!(matches!(read(member, &new, &begin).await, Whole::Exact(found) if found.len() == 30));
    member.publish(old.clone(), "newest").await;
    assert!(matches!(read(member, &old, &begin).await, Whole::Exact(found) if found.len() == 1));
}

/// A clock that is set back makes nothing expire early.
#[tokio::test]
async fn nothing_is_missing_because_the_servers_clock_was_set_back() {
    let server = RedisServer::start().await;
    let member = one(server.node("a").await, many()).await;
    let topic = of_group("g");
    let begin = member.hub.position().await.unwrap();
    member.publish(topic.clone(), "before").await;
    // As the log is where the marks were made by the former clock.
    let log = format!("hubcast:{{{}}}:log", member.hub.name());
    for field in ["mark_at", "next_at"] {
        server.command(&format!("HINCRBY {log} {field} 3600000")).await;
    }
    member.publish(of_group("other"), "after").await;
    assert!(matches!(read(&member, &topic, &begin).await, Whole::Exact(found) if found.len() == 1));
}

/// It is not known whether a call was answered whose record the server has lost.
#[tokio::test]
async fn a_call_that_was_evicted_can_not_be_answered_and_that_is_told() {
    let server = RedisServer::start().await;
    let member = one(server.node("a").await, many()).await;
    let (connection, entered) = member.connect_resumable(None).await;
    let (node, hub, id) = (&member.node, &member.hub, &connection.id);
    let answer = async |call| {
        let host = node.node();
        let call = RecordedCall { id: call, host };
        hub.reply(id, call, &envelope("answer"), true).await
    };
    for call in ["1 a", "2 b"] {
        let noted = hub.record(id, entered.version, 1, Some(call)).await;
        assert!(noted.unwrap());
    }
    assert!(answer("1 a").await.unwrap().is_some());
    assert_eq!(answer("1 a").await.unwrap(), None);
    server
        .evict(&[format!("hubcast:{{{}}}:calls:{id}", hub.name())])
        .await;
    assert!(matches!(answer("2 b").await, Err(BackplaneError::Evicted)));
}

/// Groups that come and go as fast as a client likes don't fill the server: messages after the last member left are
/// kept for a bounded number of groups per second, and members of the others get a gap.
#[tokio::test]
async fn groups_that_come_and_go_leave_little_behind() {
    const GROUPS: u32 = 12_000;
    let server = RedisServer::start().await;
    let options = HubOptions {
        retention: Duration::from_secs(30),
        ..many()
    };
    let member = one(server.node("a").await, options).await;
    let begin = member.hub.position().await.unwrap();
    let begun = Instant::now();
    for connection in 0..GROUPS / 1_000 {
        let id = member.connect(None).await;
        let joins = (0..1_000).map(|number| {
            let member = &member;
            let id = &id;
            async move { member.join(id, &format!("g{connection}-{number}")).await }
        });
        futures_util::future::join_all(joins).await;
        assert!(member.remove(&id).await);
    }
    eventually("nobody is in a group", async || {
        let keys = server.keys().await;
        (!keys.iter().any(|key| key.contains(":group:"))).then_some(())
    })
    .await;
    let seconds = u32::try_from(begun.elapsed().as_secs()).unwrap() + 2;
    let left: Vec<_> = server.keys().await;
    let left: Vec<_> = left.iter().filter(|key| key.contains(":tail:g:")).collect();
    assert!(!left.is_empty());
    assert!(
        left.len() <= 2_000 * seconds as usize,
        "{} in {seconds} s",
        left.len()
    );
    let mut look = server.look().await;
    let life: u64 = redis::cmd("PTTL")
        .arg(left[0])
        .query_async(&mut look)
        .await
        .unwrap();
    // Four times the retention, after the end of a slice that takes an eighth of it.
    assert!(life <= 123_750, "{life} ms for a retention of 30 s");
    // The message of a group beyond that number was not kept, and its member gets a gap.
    let awaited = |number: u32| {
        let key = format!(
            "hubcast:{{{}}}:tail:g:g{}-{}",
            member.hub.name(),
            number / 1_000,
            number % 1_000
        );
        left.iter().any(|left| **left == key)
    };
    let Some(passed) = (0..GROUPS).find(|number| !awaited(*number)) else {
        return; // this machine is so slow that all groups were kept
    };
    let topic = of_group(&format!("g{}-{}", passed / 1_000, passed % 1_000));
    let passing = Envelope {
        by_client: true,
        ..envelope("passing by")
    };
    let topics = [topic];
    member.hub.publish(&topics, &passing).await.unwrap();
    assert!(matches!(read(&member, &topics[0], &begin).await, Whole::Trimmed));
}
