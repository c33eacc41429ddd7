//! Tests of requests between nodes whose subscriptions are lost.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use hubcast_backplane::conformance::eventually;
use hubcast_backplane::{
    Backplane, BackplaneError, ConnectionId, ConnectionRecord, HubName, NodeId, NodeService, ServiceError,
    Unheard,
};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use crate::support::RedisServer;
use crate::support::frozen::Freezer;
use crate::support::way::Way;

const LONG: Duration = Duration::from_secs(60);

/// A service that counts how often it serves each request, and hands out things one by one to requests for the `next`.
#[derive(Default)]
struct Shop {
    served: Arc<Mutex<BTreeMap<Bytes, usize>>>,
    things: Arc<Mutex<VecDeque<Bytes>>>,
    filled: Arc<Notify>,
    /// A token of which each request that waits for the next thing holds a clone.
    waiting: Arc<()>,
}

impl Shop {
    fn waiting(&self) -> usize {
        Arc::strong_count(&self.waiting) - 1
    }

    fn on(node: &dyn Backplane) -> Arc<Self> {
        let shop = Arc::new(Self::default());
        node.set_service(Arc::clone(&shop) as Arc<dyn NodeService>);
        shop
    }

    fn put(&self, thing: Bytes) {
        self.things.lock().push_back(thing);
        self.filled.notify_one();
    }
}

impl NodeService for Shop {
    fn serve(&self, payload: Bytes) -> BoxFuture<'static, Result<Bytes, ServiceError>> {
        if payload.as_ref() == b"next" {
            let (things, filled) = (Arc::clone(&self.things), Arc::clone(&self.filled));
            let waiting = Arc::clone(&self.waiting);
            return async move {
                let _waiting = waiting;
                loop {
                    let next = things.lock().pop_front();
                    if let Some(next) = next {
                        return Ok(next);
                    }
                    filled.notified().await;
                }
            }
            .boxed();
        }
        let times = {
            let mut served = self.served.lock();
            let times = served.entry(payload.clone()).or_default();
            *times += 1;
            *times
        };
        async move {
            tokio::task::yield_now().await;
            Ok(Bytes::from(
                [payload.as_ref(), format!(" {times}").as_bytes()].concat(),
            ))
        }
        .boxed()
    }

    fn undelivered(&self, reply: Bytes) -> bool {
        if !reply.starts_with(b"thing") {
            return false;
        }
        self.things.lock().push_front(reply);
        self.filled.notify_one();
        true
    }

    fn orphan_removed(&self, _hub: &HubName, _connection: ConnectionRecord, _report: Bytes) {}

    fn connection_lost(&self, _hub: &HubName, _connection: &ConnectionId) {}

    fn fenced(&self) {}
}

async fn ask(asking: &dyn Backplane, node: &NodeId, payload: String) -> String {
    let reply = asking.request(node, payload.into(), LONG, Unheard::Wait).await;
    String::from_utf8(reply.unwrap().to_vec()).unwrap()
}

#[tokio::test]
async fn each_request_is_served_once_and_answered_while_subscriptions_are_cut() {
    let server = RedisServer::start().await;
    let nodes = server.nodes(2).await;
    let shop = Shop::on(nodes[1].as_ref());
    let answered = Arc::new(AtomicUsize::new(0));
    let mut askers = JoinSet::new();
    for asker in 0..20 {
        let (asking, node) = (Arc::clone(&nodes[0]), nodes[1].node().clone());
        let answered = Arc::clone(&answered);
        askers.spawn(async move {
            for number in 0..200 {
                let name = format!("{asker}-{number}");
                assert_eq!(
                    ask(asking.as_ref(), &node, name.clone()).await,
                    format!("{name} 1")
                );
                answered.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    let mut cuts = 0;
    while answered.load(Ordering::Relaxed) < 4_000 {
        let before = answered.load(Ordering::Relaxed);
        server.command("CLIENT KILL TYPE pubsub").await;
        cuts += 1;
        eventually("more are answered", async || {
            let now = answered.load(Ordering::Relaxed);
            (now > before + 200 || now == 4_000).then_some(())
        })
        .await;
    }
    while let Some(asker) = askers.join_next().await {
        asker.unwrap();
    }
    assert!(cuts >= 5, "{cuts}");
    let served = shop.served.lock();
    assert_eq!(served.len(), 4_000);
    assert!(served.values().all(|times| *times == 1));
}

#[tokio::test]
async fn what_is_asked_while_nobody_can_subscribe_is_answered_when_they_can() {
    let server = RedisServer::start().await;
    let nodes = server.nodes(2).await;
    let shop = Shop::on(nodes[1].as_ref());
    let node = nodes[1].node().clone();
    server.command("ACL SETUSER default -subscribe").await;
    server.command("CLIENT KILL TYPE pubsub").await;
    let begun = Instant::now();
    let mut asked = JoinSet::new();
    for number in 0..50 {
        let (asking, node) = (Arc::clone(&nodes[0]), node.clone());
        asked.spawn(async move { ask(asking.as_ref(), &node, number.to_string()).await });
    }
    tokio::time::sleep_until(begun + Duration::from_secs(2)).await; // the fault itself
    server.command("ACL SETUSER default +subscribe").await;
    let mut replies = timeout(LONG / 4, asked.join_all()).await.unwrap();
    replies.sort();
    let mut expected: Vec<_> = (0..50).map(|number| format!("{number} 1")).collect();
    expected.sort();
    assert_eq!(replies, expected);
    assert!(shop.served.lock().values().all(|times| *times == 1));
}

/// Replies that take things with them, as polls do: no thing is lost or handed out twice, also where the asking call is
/// dropped.
#[tokio::test]
async fn what_replies_take_with_them_arrives_once() {
    let server = RedisServer::start().await;
    let nodes = server.nodes(2).await;
    let shop = Shop::on(nodes[1].as_ref());
    let got = Arc::new(Mutex::new(Vec::new()));
    let mut askers = JoinSet::new();
    for asker in 0..4_u64 {
        let (asking, node) = (Arc::clone(&nodes[0]), nodes[1].node().clone());
        let got = Arc::clone(&got);
        askers.spawn(async move {
            for round in 0.. {
                let next = asking.request(&node, Bytes::from_static(b"next"), LONG, Unheard::Wait);
                // Most callers give up now and then, some of them when the reply is on its way.
                let patience = Duration::from_micros(500 + (asker + round) % 7 * 400);
                let patience = if asker == 0 { LONG } else { patience };
                if let Ok(next) = timeout(patience, next).await {
                    got.lock().push(next.unwrap());
                }
            }
        });
    }
    let things: Vec<_> = (0..1_000).map(|number| format!("thing {number:04}")).collect();
    for (number, thing) in things.iter().enumerate() {
        shop.put(Bytes::from(thing.clone()));
        if number % 100 == 50 {
            server.command("CLIENT KILL TYPE pubsub").await;
        }
        if number % 10 == 0 {
            eventually("some are fetched", async || {
                (got.lock().len() + 50 > number).then_some(())
            })
            .await;
        }
    }
    eventually("everything is fetched", async || {
        (got.lock().len() >= 1_000).then_some(())
    })
    .await;
    askers.shutdown().await;
    let mut got: Vec<_> = got
        .lock()
        .iter()
        .map(|thing| String::from_utf8(thing.to_vec()).unwrap())
        .collect();
    got.sort();
    assert_eq!(got, things);
}

#[tokio::test]
async fn a_request_of_a_node_that_was_wrongly_taken_for_dead_ends_with_an_error() {
    let server = RedisServer::start().await;
    let serving = server.node("serving").await;
    let shop = Shop::on(serving.as_ref());
    let (asking, freezer) = Freezer::node(server.options("asking")).await;
    let asked = tokio::spawn(async move {
        let node = NodeId::parse("serving").unwrap();
        asking
            .request(&node, Bytes::from_static(b"next"), LONG, Unheard::Wait)
            .await
    });
    eventually("the request is served", async || {
        (shop.waiting() == 1).then_some(())
    })
    .await;
    let thaw = freezer.freeze().await;
    eventually("the request is given up", async || {
        (shop.waiting() == 0).then_some(())
    })
    .await;
    drop(thaw);
    let answer = asked.await.unwrap();
    assert!(
        matches!(&answer, Err(BackplaneError::Unavailable { reason, .. }) if reason.contains("for dead")),
        "{answer:?}"
    );
}

/// A node that has just started is alive, also where the asking node has had no answered beat since.
#[tokio::test]
async fn a_node_that_started_just_before_an_outage_is_not_taken_for_dead() {
    let server = RedisServer::start().await;
    let way = Way::to(server.port()).await;
    let asking = way.node("asking").await;
    way.lead_to(1); // no node is subscribed there
    let serving = server.node("serving").await;
    let _shop = Shop::on(serving.as_ref());
    let back = async {
        sleep(Duration::from_secs(1)).await; // the outage itself
        way.lead_new_to(server.port());
    };
    let (reply, ()) = tokio::join!(ask(asking.as_ref(), serving.node(), "served".to_owned()), back);
    assert_eq!(reply, "served 1");
}

#[tokio::test]
async fn what_a_node_took_for_a_request_while_it_counted_as_dead_is_given_back() {
    let server = RedisServer::start().await;
    let (serving, freezer) = Freezer::node(server.options("serving")).await;
    let shop = Shop::on(serving.as_ref());
    let asking = server.node("asking").await;
    let next = async || {
        let next = Bytes::from_static(b"next");
        asking.request(serving.node(), next, LONG, Unheard::Wait).await
    };
    let frozen = async {
        eventually("the request is served", async || {
            (shop.waiting() == 1).then_some(())
        })
        .await;
        freezer.freeze().await
    };
    let (given_up, thaw) = tokio::join!(next(), frozen);
    assert!(
        matches!(given_up, Err(BackplaneError::NodeUnreachable { .. })),
        "{given_up:?}"
    );
    shop.put(Bytes::from_static(b"thing")); // the earlier request may take it
    drop(thaw);
    let given = eventually("the node is alive again", async || match next().await {
        Err(BackplaneError::NodeUnreachable { .. }) => None,
        given => Some(given),
    })
    .await;
    assert_eq!(given.unwrap(), "thing");
}
