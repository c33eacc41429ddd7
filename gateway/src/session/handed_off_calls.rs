//! Calls that go on on the node where they began after their connection moved to another one.
//!
//! Their answers go through the log, wherever the connection is. The client's messages to them come to its new node,
//! which carries them here: items and ends of uploads, cancellations, and client results that they requested.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use hubcast_backplane::NodeId;
use tokio::sync::mpsc;
use tokio::time::sleep;

use super::Session;
use super::invocations::Invocations;
use crate::protocol::{ClientProtocol, Decoder, HubMessage, HubProtocol, encode};

/// Batches that wait for the calls of one connection.
const WAITING: usize = 4;
/// Messages that wait to be carried before the client is no longer read.
const CARRIED: usize = 64;
/// Bytes of messages that are carried at once.
const BATCH_BYTES: usize = 64 * 1024;
/// How often it is checked whether a call still waits for a client result.
const LOOK: Duration = Duration::from_secs(1);

/// Runs the calls that a session left here when it moved, until nothing of it runs any more, or the node leaves and
/// waits no longer.
pub(super) async fn host(session: Arc<Session>, mut invocations: Invocations) {
    let (sender, mut carried) = mpsc::channel(WAITING);
    let here = session.hub.handed_off_calls().arrive(session.id(), sender);
    let mut waiting = VecDeque::new();
    while invocations.any_runs() || session.client_results.any_waits() {
        while invocations.may_take()
            && let Some(message) = waiting.pop_front()
        {
            invocations.hear(&session, message);
        }
        tokio::select! {
            biased;
            () = session.hub.shared().calls_over().cancelled() => {
                drop(here);
                return break_off(&session, invocations).await;
            }
            () = invocations.next() => {}
            batch = carried.recv(), if waiting.is_empty() => waiting.extend(batch.into_iter().flatten()),
            () = sleep(LOOK), if !invocations.any_runs() => {}
        }
    }
    drop(here);
}

/// Notifies the clients of calls that this node can't bring to their end.
async fn break_off(session: &Session, invocations: Invocations) {
    let calls = invocations.break_off();
    tracing::info!(
        hub = %session.hub.name(),
        connection_id = %session.id(),
        calls = calls.len(),
        "ended the calls of clients that had moved: this node is stopping"
    );
    let node = session.hub.shared().backplane().node();
    for call in calls {
        session.interrupt(&call, node).await;
    }
}

/// Reads the messages that another node carried here.
pub(crate) fn read_carried(protocol: HubProtocol, frames: &[u8]) -> Vec<HubMessage> {
    let mut decoder = Decoder::new(protocol, frames.len().max(1));
    decoder.push(frames);
    let mut messages = Vec::new();
    while let Ok(Some(message)) = decoder.next_message() {
        messages.push(message);
    }
    messages
}

/// Carries messages of a client to nodes where its earlier calls still run.
pub(super) struct CallRelay {
    queue: mpsc::Sender<HubMessage>,
}

impl CallRelay {
    pub(super) fn new(session: &Arc<Session>, hosts: Vec<NodeId>) -> Option<Self> {
        // Others send nothing that is for a call which runs.
        let protocol = session.connection.protocol().and_then(ClientProtocol::hub)?;
        if hosts.is_empty() {
            return None;
        }
        let (queue, messages) = mpsc::channel(CARRIED);
        let carrying = carry(Arc::clone(session), hosts, protocol, messages);
        session.hub.shared().tasks().spawn(carrying);
        Some(Self { queue })
    }

    /// Waits for room.
    pub(super) async fn take(&self, message: HubMessage) {
        let _ = self.queue.send(message).await; // the carrier ends with the session
    }
}

async fn carry(
    session: Arc<Session>,
    hosts: Vec<NodeId>,
    protocol: HubProtocol,
    mut messages: mpsc::Receiver<HubMessage>,
) {
    let mut batch = Vec::new();
    loop {
        batch.clear();
        tokio::select! {
            () = session.closing.cancelled() => return,
            received = messages.recv_many(&mut batch, CARRIED) => if received == 0 { return },
        }
        let mut frames = BytesMut::new();
        let mut parts = Vec::new();
        for frame in batch.iter().filter_map(|message| encode(protocol, message).ok()) {
            if !frames.is_empty() && frames.len().saturating_add(frame.len()) > BATCH_BYTES {
                parts.push(frames.split().freeze());
            }
            frames.extend_from_slice(&frame);
        }
        parts.push(frames.freeze());
        for part in parts {
            carry_to(&session, &hosts, protocol, &part).await;
        }
    }
}

async fn carry_to(session: &Session, hosts: &[NodeId], protocol: HubProtocol, frames: &Bytes) {
    for host in hosts {
        let peers = session.hub.shared().peers();
        if let Err(error) = peers.carry(session, host, protocol, frames.clone()).await {
            // The calls of a node that died are answered by the node that looks after them.
            tracing::debug!(connection_id = %session.id(), %host, %error, "messages for an earlier call were not taken");
        }
    }
}
