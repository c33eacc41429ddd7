//! The connection events that this node has to deliver to code of a hub: read from the backplane, finished when that code
//! has taken them.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use hubcast_backplane::{BackplaneError, ConnectionEvent};
use tokio::time::sleep;

use super::HubRuntime;

/// Events of a hub that are being delivered at the same time; more wait in the backplane.
const AT_ONCE: usize = 1_000;
/// How long the backplane is asked for the next events, while the node serves and while it leaves.
const WAITS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_millis(50));
/// How often the events that wait are counted.
const COUNTS: Duration = Duration::from_secs(5);
/// Time between two attempts where the backplane fails.
const AGAIN: Duration = Duration::from_secs(1);
/// How often it is tried to say that an event was delivered. If that fails, the event is delivered once more.
const FINISHES: usize = 10;

/// Code that is told of connections, each event until it has taken it.
pub(crate) trait EventHandler: Send + Sync {
    /// Returns whether the hub's events are delivered at all. It stays as it is.
    fn delivers(&self) -> bool;

    /// Delivers one event, with as many attempts as it takes.
    fn deliver(&self, hub: Arc<HubRuntime>, event: ConnectionEvent) -> BoxFuture<'static, Delivering>;
}

/// The outcome of delivering an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Delivering {
    /// The event was taken, or given up: no node delivers it again.
    Finished,
    /// Another node goes on with the event.
    LeftToOthers,
}

/// Delivers the hub's events until the node has left, and counts those that wait meanwhile.
pub(crate) async fn deliver_events(hub: Arc<HubRuntime>) {
    let Some(handler) = hub.hub().event_handler().cloned() else {
        return;
    };
    let delivers = handler.delivers();
    tokio::select! {
        () = deliver(&hub, handler) => {}
        () = count_pending(&hub), if delivers => {}
    }
}

/// Notes the hub's events that wait, on all nodes: every node does, so that each says the same.
async fn count_pending(hub: &HubRuntime) {
    let pending = hub.shared().metrics().events_pending.of(hub.name().as_str());
    loop {
        match hub.backplane().pending_events().await {
            Ok(found) => pending.set(&found),
            Err(error) => {
                tracing::debug!(hub = %hub.name(), %error, "connection events that wait can't be counted now");
            }
        }
        sleep(COUNTS).await;
    }
}

async fn deliver(hub: &Arc<HubRuntime>, handler: Arc<dyn EventHandler>) {
    let shared = Arc::clone(hub.shared());
    let mut running = FuturesUnordered::new();
    loop {
        let leaves = shared.stopping().is_cancelled();
        let last = leaves && running.is_empty() && hub.registry().len() == 0;
        let room = AT_ONCE.saturating_sub(running.len());
        let wait = if leaves { WAITS.1 } else { WAITS.0 };
        tokio::select! {
            Some(()) = running.next(), if !running.is_empty() => {}
            read = read(hub, room, wait), if room > 0 => match read {
                Ok(events) if events.is_empty() && last => return,
                Ok(events) => running.extend(events.into_iter().map(|event| {
                    let place = event.place;
                    let delivering = handler.deliver(Arc::clone(hub), event);
                    let hub = Arc::clone(hub);
                    async move {
                        if delivering.await == Delivering::Finished {
                            finish(&hub, place).await;
                        }
                    }
                })),
                Err(_) if last => return, // they are in the backplane, for another node
                Err(_) => {} // it is tried again
            },
        }
    }
}

/// The next events. An error comes after a while, in which those that run go on.
async fn read(
    hub: &HubRuntime,
    count: usize,
    wait: Duration,
) -> Result<Vec<ConnectionEvent>, BackplaneError> {
    let read = hub.backplane().read_events(count, wait).await;
    if let Err(error) = &read {
        tracing::debug!(hub = %hub.name(), %error, "connection events can't be read now");
        sleep(AGAIN).await;
    }
    read
}

async fn finish(hub: &HubRuntime, place: hubcast_backplane::EventPlace) {
    for _ in 0..FINISHES {
        match hub.backplane().finish_events(&[place]).await {
            Ok(()) => return,
            Err(error) => {
                tracing::debug!(hub = %hub.name(), %error, "an event's delivery can't be noted now");
            }
        }
        sleep(AGAIN).await;
    }
    tracing::warn!(hub = %hub.name(), %place, "an event's delivery could not be noted: it may be delivered once more");
}
