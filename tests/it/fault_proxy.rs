//! The fault proxy between a client and a real server.

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::StreamExt;
use hubcast_tests::eventually::{eventually, within};
use hubcast_tests::fault_proxy::{Action, FaultProxy, On, Rule};
use hubcast_tests::redis::Redis;
use redis::aio::MultiplexedConnection;
use redis::{AsyncCommands, RedisResult};
use tokio::time::{Instant, timeout};

const SHORT: Duration = Duration::from_millis(200);

fn proxy(redis: &Redis) -> FaultProxy {
    FaultProxy::start(redis.address(), 1)
}

async fn client(url: &str) -> MultiplexedConnection {
    let client = redis::Client::open(url).expect("a valid address");
    let connection = client.get_multiplexed_async_connection().await;
    connection.expect("the server answers")
}

async fn increase(connection: &mut MultiplexedConnection) -> RedisResult<u64> {
    within("INCR ends", connection.incr("n", 1)).await
}

fn on_increase() -> On {
    On::request(|command| command.is("INCRBY"))
}

#[tokio::test]
async fn a_swallowed_answer_is_of_a_command_that_was_carried_out() {
    let redis = Redis::start().await;
    let proxy = proxy(&redis);
    let mut through = client(&proxy.url()).await;
    assert_eq!(increase(&mut through).await.ok(), Some(1));
    proxy.rule(Rule::once(on_increase(), Action::Swallow(SHORT)));
    let begun = Instant::now();
    // An answer to an earlier command is none of those that are swallowed.
    let mut other = through.clone();
    let (earlier, lost) = tokio::join!(other.get::<_, u64>("n"), increase(&mut through));
    assert_eq!(earlier.ok(), Some(1));
    assert!(lost.is_err(), "{lost:?}");
    assert!(begun.elapsed() >= SHORT, "the link is cut after a while");
    let value: u64 = redis.connection().await.get("n").await.expect("it is there");
    assert_eq!(value, 2);
    assert_eq!(increase(&mut client(&proxy.url()).await).await.ok(), Some(3));
    assert_eq!(proxy.fired().get("swallowed"), Some(&1));
}

#[tokio::test]
async fn a_command_that_meets_a_cut_is_never_carried_out() {
    let redis = Redis::start().await;
    let proxy = proxy(&redis);
    let mut through = client(&proxy.url()).await;
    proxy.rule(Rule::once(on_increase(), Action::Cut));
    assert!(increase(&mut through).await.is_err());
    assert_eq!(
        redis.connection().await.get::<_, Option<u64>>("n").await.ok(),
        Some(None)
    );
    proxy.rule(Rule::always(on_increase(), Action::Delay(SHORT, 2 * SHORT)));
    let begun = Instant::now();
    assert_eq!(increase(&mut client(&proxy.url()).await).await.ok(), Some(1));
    assert!(begun.elapsed() >= SHORT, "it is late");
    proxy.clear();
    proxy.rule(Rule::once(on_increase(), Action::Hold(SHORT)));
    let begun = Instant::now();
    assert_eq!(increase(&mut client(&proxy.url()).await).await.ok(), Some(2));
    assert!(begun.elapsed() >= SHORT, "it is held back");
}

#[tokio::test]
async fn a_truncated_push_never_arrives() {
    let redis = Redis::start().await;
    let proxy = proxy(&redis);
    for protocol in ["", "?protocol=resp3"] {
        let client = redis::Client::open(format!("{}{protocol}", proxy.url())).expect("a valid address");
        let mut listener = client.get_async_pubsub().await.expect("the server answers");
        listener.subscribe("c").await.expect("it is confirmed");
        proxy.clear();
        let mut publisher = redis.connection().await;
        publisher
            .publish::<_, _, ()>("c", "first")
            .await
            .expect("it is published");
        proxy_truncates_the_second(&proxy, &mut listener, &mut publisher).await;
    }
    assert_eq!(proxy.fired().get("truncated"), Some(&2));
}

async fn proxy_truncates_the_second(
    proxy: &FaultProxy,
    listener: &mut redis::aio::PubSub,
    publisher: &mut MultiplexedConnection,
) {
    let mut messages = listener.on_message();
    let first = within("the first message", messages.next()).await;
    let text: String = first
        .and_then(|message| message.get_payload().ok())
        .expect("a text");
    assert_eq!(text, "first");
    proxy.rule(Rule::once(On::Push, Action::Truncate));
    publisher
        .publish::<_, _, ()>("c", "second")
        .await
        .expect("it is published");
    let end = within("the link ends", messages.next()).await;
    assert!(end.is_none(), "{end:?}");
}

#[tokio::test]
async fn everything_is_held_back_until_it_is_released_or_cut() {
    let redis = Redis::start().await;
    let proxy = proxy(&redis);
    let mut through = client(&proxy.url()).await;
    proxy.hold();
    let mut held = through.clone();
    let waiting = tokio::spawn(async move { increase(&mut held).await });
    let direct: RedisResult<Option<u64>> = redis.connection().await.get("n").await;
    assert_eq!(direct.ok(), Some(None));
    proxy.release();
    assert_eq!(waiting.await.expect("it ends").ok(), Some(1));
    proxy.hold();
    let mut held = through.clone();
    let waiting = tokio::spawn(async move { increase(&mut held).await });
    assert!(
        timeout(SHORT, async { through.ping::<String>().await })
            .await
            .is_err()
    );
    proxy.cut();
    assert!(waiting.await.expect("it ends").is_err());
    proxy.release();
    assert!(client(&proxy.url()).await.ping::<String>().await.is_ok());
}

#[tokio::test]
async fn links_lead_to_another_server_when_they_are_told_to() {
    let (first, second) = (Redis::start().await, Redis::start().await);
    let proxy = proxy(&first);
    let mut through = client(&proxy.url()).await;
    through.set::<_, _, ()>("who", "first").await.expect("it is set");
    let mut direct = second.connection().await;
    direct.set::<_, _, ()>("who", "second").await.expect("it is set");
    proxy.lead_to(second.address());
    eventually("the old link is cut", async || {
        through.ping::<String>().await.is_err().then_some(())
    })
    .await;
    let who: String = client(&proxy.url()).await.get("who").await.expect("it is there");
    assert_eq!(who, "second");
    let nobody = SocketAddr::from(([127, 0, 0, 1], 1));
    proxy.lead_to(nobody);
    let client = redis::Client::open(proxy.url()).expect("a valid address");
    assert!(client.get_multiplexed_async_connection().await.is_err());
}

#[tokio::test]
async fn a_replica_follows_through_it() {
    let (master, replica) = (Redis::start().await, Redis::start().await);
    let proxy = proxy(&master);
    replica.follow(proxy.address()).await;
    client(&proxy.url())
        .await
        .set::<_, _, ()>("k", "v")
        .await
        .expect("it is set");
    let mut copy = replica.connection().await;
    eventually("the replica has it", async || {
        (copy.get::<_, Option<String>>("k").await.ok()? == Some("v".to_owned())).then_some(())
    })
    .await;
}
