//! Tests with a sink that is too slow for the pushes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hubcast_backplane::conformance::{Recorder, eventually, record};
use hubcast_backplane::redis::RedisBackplane;
use hubcast_backplane::{Backplane, Delivery, HubOptions, HubSink, Topic};
use parking_lot::{Condvar, Mutex};

use crate::support::RedisServer;
use crate::{many, one};

/// A sink that takes no delivery until it is opened.
#[derive(Default)]
pub(crate) struct Gate {
    pub(crate) recorder: Recorder,
    closed: Mutex<bool>,
    opened: Condvar,
    waiting: AtomicBool,
}

impl Gate {
    pub(crate) fn close(&self) {
        *self.closed.lock() = true;
    }

    /// Waits until a delivery waits for the sink.
    pub(crate) async fn wait(&self) {
        eventually("the sink blocks", async || {
            self.waiting.load(Ordering::Acquire).then_some(())
        })
        .await;
    }

    pub(crate) fn open(&self) {
        *self.closed.lock() = false;
        self.opened.notify_all();
    }
}

impl HubSink for Gate {
    fn deliver(&self, deliveries: &[Delivery]) {
        // Other tasks of this thread go on meanwhile.
        tokio::task::block_in_place(|| {
            let mut closed = self.closed.lock();
            self.waiting.store(*closed, Ordering::Release);
            while *closed {
                self.opened.wait(&mut closed);
            }
        });
        self.recorder.deliver(deliveries);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn what_overflows_the_lane_is_read_from_the_log() {
    let server = RedisServer::start().await;
    let mut options = server.options("slow");
    options.lane_capacity = 10;
    options.delivery_interval = Duration::MAX; // the gate holds up the lane's task, and no connection
    let slow = RedisBackplane::connect(options).await.unwrap();
    let member = one(server.node("fast").await, many()).await;
    let gate = Arc::new(Gate::default());
    let sink = Arc::clone(&gate) as Arc<dyn HubSink>;
    let opened = slow.open_hub(member.hub.name().clone(), many(), sink);
    let hub = opened.await.unwrap();
    let connection = record(None);
    hub.enter(&connection, true).await.unwrap();
    gate.close();
    member.publish(Topic::All, "m").await;
    gate.wait().await;
    for _ in 0..5_000 {
        member.publish(Topic::All, "m").await;
    }
    gate.open();
    member.publish(Topic::All, "end").await;
    let received = gate.recorder.received_until(&connection.id, "end").await;
    assert_eq!(received.len(), 5_002);
    assert!(received.is_sorted_by(|(a, _), (b, _)| a < b));
    assert_eq!(gate.recorder.gaps(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn what_overflows_and_is_trimmed_is_told() {
    let server = RedisServer::start().await;
    let mut options = server.options("slow");
    options.lane_capacity = 10;
    options.delivery_interval = Duration::MAX; // the gate holds up the lane's task, and no connection
    let slow = RedisBackplane::connect(options).await.unwrap();
    let few = HubOptions {
        retention_messages: 10,
        ..HubOptions::default()
    };
    let member = one(server.node("fast").await, few.clone()).await;
    let gate = Arc::new(Gate::default());
    let sink = Arc::clone(&gate) as Arc<dyn HubSink>;
    let opened = slow.open_hub(member.hub.name().clone(), few, sink);
    let hub = opened.await.unwrap();
    let connection = record(None);
    hub.enter(&connection, true).await.unwrap();
    gate.close();
    member.publish(Topic::All, "m").await;
    gate.wait().await;
    for _ in 0..1_000 {
        member.publish(Topic::All, "m").await;
    }
    gate.open();
    member.publish(Topic::All, "end").await;
    let received = gate.recorder.received_until(&connection.id, "end").await;
    assert!(received.len() < 1_002);
    assert_eq!(gate.recorder.gaps(), 1);
}
