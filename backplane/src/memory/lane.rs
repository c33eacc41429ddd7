//! The way from one hub's log to its sink.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::backplane::{Delivery, HubSink, Message};
use crate::position::Offset;
use crate::topic::Topic;
use crate::wire::Envelope;

/// Most deliveries that the sink is given in one call.
const BATCH: usize = 256;

/// One item of the lane: deliveries for the sink, and the caller that waits for them.
#[derive(Default)]
pub(super) struct Item {
    /// The messages about presence and states of a change, which are delivered before the change itself.
    pub(super) deliveries: Vec<Delivery>,
    /// The delivery; `None` for an item that only waits for the ones before it.
    pub(super) delivery: Option<Delivery>,
    /// Notified once the sink was given the delivery.
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
            ..Self::default()
        }
    }
}

/// Hands deliveries to the sink, in the order they came in, until cancelled.
pub(super) async fn run_lane(
    sink: Arc<dyn HubSink>,
    mut items: mpsc::Receiver<Item>,
    closing: CancellationToken,
) {
    let mut batch = Vec::with_capacity(BATCH);
    loop {
        let received = tokio::select! {
            biased;
            () = closing.cancelled() => 0,
            received = items.recv_many(&mut batch, BATCH) => received,
        };
        if received == 0 {
            return;
        }
        let (mut deliveries, mut done) = (Vec::with_capacity(batch.len()), Vec::new());
        for item in batch.drain(..) {
            deliveries.extend(item.deliveries.into_iter().chain(item.delivery));
            done.extend(item.done);
        }
        if !deliveries.is_empty() {
            sink.deliver(&deliveries);
        }
        for done in done {
            let _ = done.send(()); // the caller may have stopped waiting
        }
    }
}
