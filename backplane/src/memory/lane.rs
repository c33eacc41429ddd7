//! The way from one hub's log to its sink.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::backplane::{Delivery, HubSink, Message};
use crate::error::BackplaneError;
use crate::position::Offset;
use crate::topic::Topic;
use crate::wire::Envelope;

/// Most deliveries that the sink is given at once.
const BATCH: usize = 256;

/// Deliveries that may wait for the sink before publishers wait for it.
const CAPACITY: usize = 4_096;

/// The beginning of the way.
#[derive(Clone)]
pub(super) struct Lane {
    items: mpsc::UnboundedSender<Queued>,
    room: Arc<Semaphore>,
}

/// The end of the way.
pub(super) struct Items {
    queue: mpsc::UnboundedReceiver<Queued>,
    room: Arc<Semaphore>,
}

/// An item with its room, which is free again once the sink was given it.
struct Queued {
    item: Item,
    _room: Option<OwnedSemaphorePermit>,
}

/// Room for one item.
pub(super) struct Room<'a> {
    lane: &'a Lane,
    permit: OwnedSemaphorePermit,
}

impl Lane {
    pub(super) fn new() -> (Self, Items) {
        let (items, queue) = mpsc::unbounded_channel();
        let room = Arc::new(Semaphore::new(CAPACITY));
        let lane = Self {
            items,
            room: Arc::clone(&room),
        };
        (lane, Items { queue, room })
    }

    /// Waits for room.
    pub(super) async fn reserve(&self) -> Result<Room<'_>, BackplaneError> {
        let permit = Arc::clone(&self.room).acquire_owned().await;
        let permit = permit.map_err(|_| BackplaneError::Closed)?;
        Ok(Room { lane: self, permit })
    }

    /// Sends without room: for what a change brings with it, and nobody can wait for any more.
    pub(super) fn send(&self, item: Item) {
        let _ = self.items.send(Queued { item, _room: None }); // the node may have closed
    }

    /// Items that wait for the sink, as far as they have room.
    pub(super) fn waiting(&self) -> usize {
        CAPACITY.saturating_sub(self.room.available_permits())
    }
}

impl Room<'_> {
    pub(super) fn send(self, item: Item) {
        let queued = Queued {
            item,
            _room: Some(self.permit),
        };
        let _ = self.lane.items.send(queued); // the node may have closed
    }
}

impl Drop for Items {
    fn drop(&mut self) {
        self.room.close();
    }
}

/// What waits for the sink.
pub(super) struct Item {
    /// Nothing for one that only asks how far the sink is.
    pub(super) delivery: Option<Delivery>,
    /// Told once the sink was given the delivery.
    pub(super) done: Option<oneshot::Sender<()>>,
}

impl Item {
    pub(super) fn message(topic: &Topic, offset: Offset, envelope: &Arc<Envelope>) -> Self {
        let message = Message {
            topic: topic.clone(),
            offset,
            envelope: Arc::clone(envelope),
        };
        Self {
            delivery: Some(Delivery::Message(message)),
            done: None,
        }
    }
}

/// Hands deliveries to the sink, in the order they came in, until cancelled.
pub(super) async fn run_lane(sink: Arc<dyn HubSink>, mut items: Items, closing: CancellationToken) {
    let mut batch = Vec::with_capacity(BATCH);
    loop {
        let received = tokio::select! {
            biased;
            () = closing.cancelled() => 0,
            received = items.queue.recv_many(&mut batch, BATCH) => received,
        };
        if received == 0 {
            return;
        }
        let (deliveries, done): (Vec<_>, Vec<_>) = batch
            .drain(..)
            .map(|Queued { item, _room }| (item.delivery, (item.done, _room)))
            .unzip();
        let deliveries: Vec<_> = deliveries.into_iter().flatten().collect();
        if !deliveries.is_empty() {
            sink.deliver(&deliveries);
        }
        for done in done.into_iter().filter_map(|(done, _room)| done) {
            let _ = done.send(()); // the caller may have stopped waiting
        }
    }
}
