//! Nodes lose their connections to Redis while messages flow. What was accepted arrives: once, and in order.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use hubcast_tests::cluster::{Cluster, Plan};
use hubcast_tests::entry_point::EntryPoint;
use hubcast_tests::eventually::{eventually, eventually_equals};
use hubcast_tests::hub_client::{HubClient, Transport};
use hubcast_tests::redis::Redis;
use serde_json::json;
use tokio::task::JoinHandle;

/// The outcomes reported to one publisher for its messages, by number: accepted or not.
type Told = (String, Vec<bool>);

/// How often a connection is killed.
const FAULTS: usize = 8;

/// Counts what one publisher or one member has come to, while it goes on.
type Count = Arc<AtomicUsize>;

/// Publishes to the group, one message after the other, until `stop` is set. Counts what is accepted.
fn publish(entry: Arc<EntryPoint>, stop: Arc<AtomicBool>, count: Count) -> JoinHandle<Told> {
    tokio::spawn(async move {
        let mut publisher = HubClient::connect(&entry, Transport::WebSockets).await;
        let mut accepted = Vec::new();
        while !stop.load(Ordering::Relaxed) {
            let text = format!("{} {}", publisher.id(), accepted.len());
            let completion = publisher.call("SendToGroup", json!(["g", text])).await;
            accepted.push(completion.get("error").is_none());
            count.fetch_add(usize::from(completion.get("error").is_none()), Ordering::Relaxed);
        }
        (publisher.id().to_owned(), accepted)
    })
}

/// Collects what a member gets, up to the message that says that it was the last one.
fn collect(mut member: HubClient, count: Count) -> JoinHandle<Vec<String>> {
    tokio::spawn(async move {
        let mut texts = Vec::new();
        loop {
            let arguments = member.expect("GroupMessage").await;
            let text = arguments[1].as_str().expect("text").to_owned();
            if text == "last" {
                return texts;
            }
            texts.push(text);
            count.fetch_add(1, Ordering::Relaxed);
        }
    })
}

struct Traffic {
    stop: Arc<AtomicBool>,
    publishers: Vec<JoinHandle<Told>>,
    accepted: Vec<Count>,
    members: Vec<JoinHandle<Vec<String>>>,
    received: Vec<Count>,
}

impl Traffic {
    /// Members on every transport and node, and a publisher on every node.
    async fn start(cluster: &Cluster) -> Self {
        let (mut members, mut received) = (Vec::new(), Vec::new());
        for node in 0..cluster.nodes.len() {
            for transport in Transport::ALL {
                let mut member = HubClient::connect(&cluster.entry_on(node), transport).await;
                member.result("JoinGroup", json!(["g"])).await;
                received.push(Count::default());
                members.push(collect(member, Arc::clone(received.last().unwrap())));
            }
        }
        let stop = Arc::new(AtomicBool::new(false));
        let accepted: Vec<_> = cluster.nodes.iter().map(|_| Count::default()).collect();
        let publishers = accepted
            .iter()
            .enumerate()
            .map(|(node, count)| publish(cluster.entry_on(node), Arc::clone(&stop), Arc::clone(count)));
        Self {
            publishers: publishers.collect(),
            accepted,
            stop,
            members,
            received,
        }
    }

    /// Waits until each publisher has had some more messages accepted.
    async fn goes_on(&self) {
        let counts = || self.accepted.iter().map(|count| count.load(Ordering::Relaxed));
        let before: Vec<_> = counts().collect();
        eventually("messages are accepted", async || {
            let go_on = counts().zip(&before).all(|(now, before)| now >= before + 5);
            go_on.then_some(())
        })
        .await;
    }

    /// Waits until each member has received as many messages as were accepted by now.
    async fn is_delivered(&self) {
        let accepted: usize = self
            .accepted
            .iter()
            .map(|count| count.load(Ordering::Relaxed))
            .sum();
        eventually("messages are delivered", async || {
            let mut counts = self.received.iter().map(|count| count.load(Ordering::Relaxed));
            counts.all(|received| received >= accepted).then_some(())
        })
        .await;
    }

    /// Kills connections again and again while messages flow: half of the times as soon as some were accepted, perhaps
    /// before all is well again, and half of the times after.
    async fn under_faults(&self, redis: &Redis, kinds: &[&str]) {
        let mut hits = 0;
        for fault in 0..FAULTS {
            self.goes_on().await;
            if fault % 2 == 0 {
                self.is_delivered().await;
            }
            for kind in kinds {
                hits += usize::from(kill_connections(redis, kind).await > 0);
            }
        }
        assert!(hits >= FAULTS / 2, "connections were killed {hits} times");
        self.goes_on().await;
    }

    /// Ends the traffic. Returns the outcomes reported to publishers and the messages that members got.
    async fn end(self, cluster: &Cluster) -> (Vec<Told>, Vec<Vec<String>>) {
        self.stop.store(true, Ordering::Relaxed);
        let mut told = Vec::new();
        for publisher in self.publishers {
            told.push(publisher.await.unwrap());
        }
        let mut last = HubClient::connect(&cluster.entry_on(0), Transport::WebSockets).await;
        last.result("SendToGroup", json!(["g", "last"])).await;
        let mut got = Vec::new();
        for member in self.members {
            got.push(member.await.unwrap());
        }
        (told, got)
    }
}

/// Every member got each message at most once, all members in one order, and each publisher's messages in its order.
fn come_once_and_in_one_order(told: &[Told], got: &[Vec<String>]) {
    for texts in got {
        let mut next: HashMap<&str, usize> = HashMap::new();
        for text in texts {
            let (publisher, number) = text.split_once(' ').expect("publisher and number");
            let number: usize = number.parse().expect("a number");
            let next = next.entry(publisher).or_default();
            assert!(
                number >= *next,
                "{text} came twice, or too late: {next} was expected"
            );
            *next = number + 1;
        }
        assert!(
            next.keys()
                .all(|publisher| told.iter().any(|(known, _)| known == publisher))
        );
    }
}

/// All that was accepted came.
fn nothing_is_missing(told: &[Told], got: &[Vec<String>]) {
    for (publisher, accepted) in told {
        let numbers = accepted.iter().enumerate().filter(|(_, accepted)| **accepted);
        let texts: Vec<String> = numbers
            .map(|(number, _)| format!("{publisher} {number}"))
            .collect();
        assert!(!texts.is_empty(), "there was traffic");
        for (member, got) in got.iter().enumerate() {
            let missing: Vec<_> = texts.iter().filter(|text| !got.contains(text)).collect();
            assert_eq!(missing, Vec::<&String>::new(), "member {member} of {}", got.len());
        }
    }
}

/// Returns how many there were.
async fn kill_connections(redis: &Redis, kind: &str) -> u64 {
    let mut connection = redis.connection().await;
    let mut command = redis::cmd("CLIENT");
    command.arg("KILL").arg("TYPE").arg(kind).arg("SKIPME").arg("yes");
    command
        .query_async::<u64>(&mut connection)
        .await
        .expect("Redis answers")
}

async fn nothing_is_lost_or_repeated_without(kinds: &[&str]) {
    let mut cluster = Plan::nodes(2).start().await;
    let traffic = Traffic::start(&cluster).await;
    traffic.under_faults(cluster.redis(), kinds).await;
    let (told, got) = traffic.end(&cluster).await;
    come_once_and_in_one_order(&told, &got);
    nothing_is_missing(&told, &got);
    assert!(got.iter().all(|texts| *texts == got[0]), "one order for all");
    cluster.logs_are_clean();
}

#[tokio::test]
async fn lost_subscriptions_lose_and_repeat_nothing() {
    nothing_is_lost_or_repeated_without(&["pubsub"]).await;
}

#[tokio::test]
async fn lost_command_connections_lose_and_repeat_nothing_that_was_accepted() {
    nothing_is_lost_or_repeated_without(&["normal", "pubsub"]).await;
}

#[tokio::test]
async fn a_redis_that_restarts_empty_repeats_nothing_and_loses_nothing_after() {
    let mut cluster = Plan::nodes(2)
        .set("backplane.command_timeout_seconds", 1)
        .start()
        .await;
    let traffic = Traffic::start(&cluster).await;
    for _ in 0..2 {
        traffic.goes_on().await;
        cluster.redis().kill();
        for node in &cluster.nodes {
            eventually_equals("readiness", &Some(503), async || node.readiness().await).await;
        }
        cluster.redis().restart().await;
        for node in &cluster.nodes {
            eventually_equals("readiness", &Some(200), async || node.readiness().await).await;
        }
    }
    // A message that was accepted in the last moment before may be lost with the Redis that accepted it. From here on
    // nothing may.
    let mut after = HubClient::connect(&cluster.entry_on(1), Transport::WebSockets).await;
    let mut texts = Vec::new();
    for i in 0..50 {
        texts.push(format!("{} {i}", after.id()));
        after.result("SendToGroup", json!(["g", texts[i]])).await;
    }
    let (mut told, got) = traffic.end(&cluster).await;
    told.push((after.id().to_owned(), vec![true; texts.len()]));
    come_once_and_in_one_order(&told, &got);
    nothing_is_missing(&told[told.len() - 1..], &got);
    cluster.logs_are_clean();
}
