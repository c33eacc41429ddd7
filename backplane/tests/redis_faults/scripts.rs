//! Tests of what the scripts that publish leave out to be fast.

use hubcast_backplane::conformance::sessions::of_group;
use hubcast_backplane::conformance::{Member, envelope, eventually};
use hubcast_backplane::wire::Envelope;
use hubcast_backplane::{BackplaneError, HubOptions, Topic};

use crate::support::RedisServer;
use crate::{many, one};

fn key(member: &Member, name: &str) -> String {
    format!("hubcast:{{{}}}:{name}", member.hub.name())
}

async fn ask<T: redis::FromRedisValue>(server: &RedisServer, words: &[&str]) -> T {
    let mut command = redis::cmd(words[0]);
    command.arg(&words[1..]);
    command.query_async(&mut server.look().await).await.unwrap()
}

#[tokio::test]
async fn a_full_server_refuses_messages_of_either_kind_before_anything_of_them_is_seen() {
    let server = RedisServer::start().await;
    for volatile in [false, true] {
        let options = HubOptions { volatile, ..many() };
        let member = one(server.node(&format!("full-{volatile}")).await, options).await;
        let receiver = member.connect(None).await;
        let before = member.publish(Topic::All, "before").await.unwrap();
        server.command("CONFIG SET maxmemory 1").await;
        let publish = async || {
            let topics = [Topic::All, of_group("g")];
            member.hub.publish(&topics, &envelope("full")).await
        };
        for outcome in futures_util::future::join_all((0..20).map(|_| publish())).await {
            assert!(
                matches!(outcome, Err(BackplaneError::Full)),
                "{volatile}: {outcome:?}"
            );
        }
        server.command("CONFIG SET maxmemory 0").await;
        // No offset was taken, and nothing was pushed.
        let after = member.publish(Topic::All, "after").await.unwrap();
        assert_eq!(after, before + 1, "{volatile}");
        let received = member.sink.received_until(&receiver, "after").await;
        let targets: Vec<_> = received.iter().map(|(_, target)| target.as_str()).collect();
        assert_eq!(targets, ["before", "after"], "{volatile}");
    }
}

#[tokio::test]
async fn a_log_of_an_earlier_form_begins_a_new_epoch_after_its_last_offset() {
    let server = RedisServer::start().await;
    let member = one(server.node("a").await, many()).await;
    let log = key(&member, "log");
    member.publish(Topic::All, "x").await;
    let epoch = member.hub.position().await.unwrap().epoch;
    let run: String = ask(&server, &["HGET", &log, "run"]).await;
    let run = run.split_once('/').unwrap().1;
    ask::<i64>(&server, &["HDEL", &log, "state"]).await;
    ask::<i64>(&server, &["HSET", &log, "run", run, "offset", "41"]).await;
    let offset = eventually("publishing goes on", async || {
        let published = member.hub.publish(&[Topic::All], &envelope("y")).await;
        published.ok().and_then(|offsets| offsets[0])
    })
    .await;
    assert!(offset > 41, "{offset}");
    assert_ne!(member.hub.position().await.unwrap().epoch, epoch);
}

#[tokio::test]
async fn records_of_nodes_that_are_gone_are_forgotten() {
    let server = RedisServer::start().await;
    let member = one(server.node("a").await, many()).await;
    let log = key(&member, "log");
    member.publish(Topic::All, "x").await;
    let now: Vec<u64> = ask(&server, &["TIME"]).await;
    let (lately, long_ago) = (
        format!("3 {}\n", now[0] - 3_000),
        format!("3 {}\n", now[0] - 4_000),
    );
    ask::<i64>(
        &server,
        &["HSET", &log, "batch:late", &lately, "batch:gone", &long_ago],
    )
    .await;
    ask::<i64>(&server, &["HDEL", &log, "tidied"]).await;
    eventually("the old record is gone", async || {
        let left: bool = ask(&server, &["HEXISTS", &log, "batch:gone"]).await;
        (!left).then_some(())
    })
    .await;
    for node in ["batch:late", "batch:a"] {
        assert!(ask::<bool>(&server, &["HEXISTS", &log, node]).await, "{node}");
    }
}

/// Ends the present slice of a log: the next entry begins another one. `STATE` in `log.lua` says what the state is.
const END_SLICE: &str = "local state = {struct.unpack('<dddddddd', redis.call('HGET', KEYS[1], 'state'))} state[5] = 0 \
     return redis.call('HSET', KEYS[1], 'state', struct.pack('<dddddddd', unpack(state, 1, 8)))";

#[tokio::test]
async fn a_tail_lives_its_whole_life_again_after_messages_to_nobody() {
    let server = RedisServer::start().await;
    let member = one(server.node("a").await, many()).await;
    let (topic, id) = (of_group("g"), member.connect(None).await);
    let tail = key(&member, "tail:g:g");
    let life = async || ask::<i64>(&server, &["PTTL", &tail]).await;
    member.join(&id, "g").await;
    member.publish(topic.clone(), "first").await;
    let whole = life().await;
    assert!(whole >= 600_000, "{whole}");
    member.publish(topic.clone(), "second").await;
    assert!(life().await > 600_000, "it lasts for the rest of the slice, too");
    member.leave(&id, "g").await;
    // A later slice: within one a tail lives long enough anyway.
    ask::<i64>(&server, &["EVAL", END_SLICE, "1", &key(&member, "log")]).await;
    ask::<i64>(&server, &["PEXPIRE", &tail, "60000"]).await;
    let unattended = Envelope {
        by_client: true,
        ..envelope("to nobody")
    };
    let topics = std::slice::from_ref(&topic);
    member.hub.publish(topics, &unattended).await.unwrap();
    assert!(life().await <= 60_000, "its life goes on as it was");
    member.join(&id, "g").await;
    member.publish(topic.clone(), "third").await;
    assert!(life().await >= 600_000);
}

/// A stream that begins after messages to nobody ends with its slice, as any other.
#[tokio::test]
async fn a_stream_after_messages_to_nobody_lives_no_longer_than_others() {
    let server = RedisServer::start().await;
    let member = one(server.node("a").await, many()).await;
    let (topic, id) = (of_group("g"), member.connect(None).await);
    member.publish(Topic::All, "the slice begins").await;
    let unattended = Envelope {
        by_client: true,
        ..envelope("to nobody")
    };
    let topics = std::slice::from_ref(&topic);
    member.hub.publish(topics, &unattended).await.unwrap();
    member.join(&id, "g").await;
    member.publish(topic.clone(), "kept").await;
    let stream = key(&member, "stream:g:g");
    assert_eq!(ask::<u64>(&server, &["XLEN", &stream]).await, 1);
    assert!(ask::<i64>(&server, &["PTTL", &stream]).await > 0, "it has no end");
    let slices: Vec<String> = ask(
        &server,
        &["KEYS", &key(&member, "log:slice:*").replace('{', "\\{")],
    )
    .await;
    let [slice] = slices.as_slice() else {
        panic!("{slices:?}")
    };
    assert!(
        ask::<bool>(&server, &["SISMEMBER", slice, &stream]).await,
        "it is not swept"
    );
}
