//! The driver does to real servers what it says.

use hubcast_tests::clock::Clock;
use hubcast_tests::eventually::{eventually, eventually_equals};
use hubcast_tests::redis::cluster::ClusterSet;
use hubcast_tests::redis::sentinel::SentinelSet;
use hubcast_tests::redis::{Redis, Setup};

async fn get(redis: &Redis, key: &str) -> Option<String> {
    redis.command(&["GET", key]).await.expect("it answers")
}

#[tokio::test]
async fn a_replica_takes_over_what_it_follows() {
    let master = Redis::start_with(Setup::default().set("repl-backlog-ttl", 1)).await;
    let before = master.info("master_replid").await;
    let replica = master.attach_replica().await;
    assert_ne!(master.info("master_replid").await, before, "as Redis does");
    master.does(&["SET", "k", "v"]).await;
    eventually_equals("it has the key", &Some("v".to_owned()), async || {
        get(&replica, "k").await
    })
    .await;
    replica.promote().await;
    replica.does(&["SET", "k", "own"]).await;
    assert_eq!(get(&master, "k").await.as_deref(), Some("v"));
}

#[tokio::test]
async fn a_server_is_restored_from_an_earlier_moment() {
    for (setup, is_durable) in [(Setup::default(), false), (Setup::default().durable(), true)] {
        let mut redis = Redis::start_with(setup).await;
        redis.does(&["SET", "k", "early"]).await;
        let snapshot = redis.snapshot().await;
        redis.does(&["SET", "k", "late"]).await;
        redis.restore(&snapshot).await;
        assert_eq!(get(&redis, "k").await.as_deref(), Some("early"));
        redis.does(&["SET", "k", "again"]).await;
        redis.kill();
        redis.restart().await;
        let kept = get(&redis, "k").await;
        let expected = if is_durable { "again" } else { "early" };
        assert_eq!(
            kept.as_deref(),
            Some(expected),
            "not later than it was written down"
        );
        redis.forget();
        redis.restart().await;
        assert_eq!(get(&redis, "k").await, None);
    }
}

#[tokio::test]
async fn memory_runs_out_by_policy() {
    let redis = Redis::start().await;
    let big = "x".repeat(100_000);
    redis.does(&["SET", "lasting", &big]).await;
    redis.does(&["SET", "mortal", &big, "EX", "1000"]).await;
    assert!(redis.evict("volatile-lru", 50_000).await >= 1);
    let left = (
        get(&redis, "lasting").await.is_some(),
        get(&redis, "mortal").await,
    );
    assert_eq!(left, (true, None));
    redis.is_full().await;
    let refused = redis.command::<String>(&["SET", "k", "v"]).await;
    assert!(refused.is_err_and(|error| error.code() == Some("OOM")));
    redis.has_room_again().await;
    redis.does(&["SET", "k", "v"]).await;
}

#[tokio::test]
async fn a_clock_steps_under_a_living_server() {
    let clock = Clock::new();
    let redis = Redis::start_with(Setup::default().clock(&clock)).await;
    let difference = async || {
        let (seconds, _): (i64, i64) = redis.command(&["TIME"]).await.expect("it answers");
        // Two clocks that are read in turn may be a second apart.
        ((seconds - hubcast_tests::jwt::now() + 5).div_euclid(10)) * 10
    };
    assert_eq!(difference().await, 0);
    for ahead in [60, -60] {
        clock.is_ahead_by(ahead);
        eventually_equals("the step is seen", &ahead, difference).await;
    }
}

#[tokio::test]
async fn clients_are_cut_by_type_and_scripts_and_data_forgotten() {
    let redis = Redis::start().await;
    let mut connection = redis.connection().await;
    redis.cut_clients("normal").await;
    eventually("the connection is cut", async || {
        let answer: redis::RedisResult<String> = redis::cmd("PING").query_async(&mut connection).await;
        answer.err()
    })
    .await;
    let hash: String = redis
        .command(&["SCRIPT", "LOAD", "return 1"])
        .await
        .expect("it answers");
    redis.does(&["EVALSHA", &hash, "0"]).await;
    redis.forget_scripts().await;
    let forgotten = redis.command::<i64>(&["EVALSHA", &hash, "0"]).await;
    assert!(forgotten.is_err_and(|error| error.code() == Some("NOSCRIPT")));
    redis.does(&["SET", "k", "v"]).await;
    redis.flush().await;
    assert_eq!(get(&redis, "k").await, None);
}

#[tokio::test]
async fn sentinels_fail_over_through_proxies() {
    let mut set = SentinelSet::start(2, 1).await;
    assert_eq!(set.master().await, 0);
    set.servers[0].redis.does(&["SET", "k", "v"]).await;
    set.switch().await;
    set.is_settled().await;
    let master = set.master().await;
    assert_eq!(get(&set.servers[master].redis, "k").await.as_deref(), Some("v"));
    set.servers[master].redis.kill();
    set.has_another_than(master).await;
    set.servers[master].redis.restart().await;
    set.is_settled().await;
}

#[tokio::test]
async fn a_cluster_fails_over_through_proxies() {
    let set = ClusterSet::start(1).await;
    let master = set.master_of("demo").await;
    set.servers[master].redis.does(&["SET", "{demo}k", "v"]).await;
    set.switch("demo").await;
    set.is_settled().await;
    let master = set.master_of("demo").await;
    assert_eq!(
        get(&set.servers[master].redis, "{demo}k").await.as_deref(),
        Some("v")
    );
}
