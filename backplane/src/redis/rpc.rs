//! Requests from node to node, outside of the log.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use prost::Message as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::commands::Repeat;
use super::inner::Inner;
use super::link::decode;
use crate::error::BackplaneError;
use crate::topic::NodeId;
use crate::wire::{Cancel, NodeMessage, Reply, Request, node_message::Body};

/// How long a node that leaves waits for replies that it owes.
const LAST_REPLIES: Duration = Duration::from_millis(500);

pub(super) struct Rpc {
    next: AtomicU64,
    /// Requests of this node that wait for their reply.
    waiting: Mutex<HashMap<u64, oneshot::Sender<Reply>>>,
    /// Requests of other nodes that are being served, by node and number.
    serving: Mutex<HashMap<(String, u64), CancellationToken>>,
    room: Arc<Semaphore>,
}

impl Rpc {
    pub(super) fn new(served: usize) -> Self {
        Self {
            next: AtomicU64::new(1),
            waiting: Mutex::default(),
            serving: Mutex::default(),
            room: Arc::new(Semaphore::new(served)),
        }
    }
}

impl Inner {
    pub(super) async fn request(
        self: &Arc<Self>,
        node: &NodeId,
        payload: Bytes,
        bound: Duration,
    ) -> Result<Bytes, BackplaneError> {
        if *node == self.options.node {
            return self.request_own(payload, bound).await;
        }
        let begun = Instant::now();
        let asked = Asked::new(self, node);
        let request = Request {
            id: asked.id,
            reply_to: self.options.node.to_string(),
            payload,
        };
        let deadline = begun + bound;
        let sent = timeout_at(deadline, self.send(node, Body::Request(request))).await;
        let unreachable = || BackplaneError::NodeUnreachable { node: node.clone() };
        if sent.map_err(|_| BackplaneError::Timeout { waited: bound })?? == 0 {
            return Err(unreachable());
        }
        let reply = tokio::select! {
            () = self.closing.cancelled() => return Err(BackplaneError::Closed),
            () = self.gone(node) => return Err(unreachable()),
            reply = timeout_at(deadline, asked.reply()) => reply,
        };
        match reply {
            Err(_) => Err(BackplaneError::Timeout {
                waited: begun.elapsed(),
            }),
            Ok(None) => Err(BackplaneError::Closed),
            Ok(Some(reply)) if reply.error.is_empty() => Ok(reply.payload),
            Ok(Some(reply)) => Err(BackplaneError::NodeFailed {
                node: node.clone(),
                reason: reply.error,
            }),
        }
    }

    async fn request_own(&self, payload: Bytes, bound: Duration) -> Result<Bytes, BackplaneError> {
        let node = &self.options.node;
        let service = self
            .service()
            .ok_or_else(|| BackplaneError::NodeUnreachable { node: node.clone() })?;
        match timeout(bound, service.serve(payload)).await {
            Err(_) => Err(BackplaneError::Timeout { waited: bound }),
            Ok(outcome) => outcome.map_err(|reason| BackplaneError::NodeFailed {
                node: node.clone(),
                reason,
            }),
        }
    }

    /// Waits, for a bounded time, until no other node's request is being served: replies that are ready still go out.
    pub(super) async fn answered_all(&self) {
        let room = u32::try_from(self.options.served_requests).unwrap_or(u32::MAX);
        let all = timeout(LAST_REPLIES, self.rpc.room.acquire_many(room)).await;
        if all.is_err() {
            debug!("requests of other nodes were left without a reply");
        }
    }

    /// Resolves when a node is not alive any more. One that this node has not seen alive is given time to be: it may
    /// have started between two heartbeats.
    async fn gone(&self, node: &NodeId) {
        let mut living = self.nodes.living();
        let patience = self.options.heartbeat_interval.saturating_mul(2);
        let seen = timeout(patience, living.wait_for(|living| living.contains(node)))
            .await
            .map(|seen| seen.is_ok());
        let gone = match seen {
            Err(_) => true,
            Ok(false) => false,
            Ok(true) => living.wait_for(|living| !living.contains(node)).await.is_ok(),
        };
        if !gone {
            std::future::pending::<()>().await; // no more news: the timeout decides
        }
    }

    /// A dead node cancels nothing, and what is served for it must not wait for ever.
    async fn asking_node_gone(&self, node: Option<&NodeId>) {
        match node {
            Some(node) => self.gone(node).await,
            None => std::future::pending().await,
        }
    }

    /// Publishes to a node. Returns how many listened.
    async fn send(&self, node: &NodeId, body: Body) -> Result<u64, BackplaneError> {
        let message = NodeMessage { body: Some(body) }.encode_to_vec();
        let mut command = redis::cmd(self.commands.publish());
        command.arg(self.keys.node_channel(node)).arg(message);
        decode(self.commands.command(&command, Repeat::Never).await?)
    }

    /// Takes a push on this node's channel. Never waits.
    pub(super) fn take_node_message(self: &Arc<Self>, payload: Bytes) {
        let Ok(message) = NodeMessage::decode(payload) else {
            warn!("node message of an unknown form");
            return;
        };
        match message.body {
            None => {} // a probe
            Some(Body::Request(request)) => self.take_request(request),
            Some(Body::Reply(reply)) => {
                if let Some(waiting) = self.rpc.waiting.lock().remove(&reply.id) {
                    let _ = waiting.send(reply); // the caller may have stopped waiting
                }
            }
            Some(Body::Cancel(Cancel { id, reply_to })) => {
                if let Some(serving) = self.rpc.serving.lock().remove(&(reply_to, id)) {
                    serving.cancel();
                }
            }
        }
    }

    fn take_request(self: &Arc<Self>, request: Request) {
        let Ok(room) = Arc::clone(&self.rpc.room).try_acquire_owned() else {
            warn!("too many requests of other nodes"); // theirs run into their timeouts
            return;
        };
        let cancelled = CancellationToken::new();
        let key = (request.reply_to.clone(), request.id);
        self.rpc.serving.lock().insert(key, cancelled.clone());
        self.tasks.spawn(Arc::clone(self).serve(request, cancelled, room));
    }

    async fn serve(
        self: Arc<Self>,
        request: Request,
        cancelled: CancellationToken,
        _room: OwnedSemaphorePermit,
    ) {
        let Request {
            id,
            reply_to,
            payload,
        } = request;
        let served = async {
            match self.service() {
                Some(service) => service.serve(payload.clone()).await,
                None => Err("the node does not serve requests yet".to_owned()),
            }
        };
        let asking = NodeId::parse(&reply_to).ok();
        let outcome = tokio::select! {
            () = self.closing.cancelled() => None,
            () = cancelled.cancelled() => None,
            () = self.asking_node_gone(asking.as_ref()) => None,
            outcome = served => Some(outcome),
        };
        self.rpc.serving.lock().remove(&(reply_to.clone(), id));
        let (Some(outcome), Some(node)) = (outcome, asking) else {
            return;
        };
        let reply = match outcome {
            Ok(payload) => Reply {
                id,
                payload,
                error: String::new(),
            },
            Err(error) if error.is_empty() => Reply {
                id,
                error: "failed".to_owned(),
                ..Reply::default()
            },
            Err(error) => Reply {
                id,
                error,
                ..Reply::default()
            },
        };
        let answer = reply.payload.clone();
        let heard = match self.send(&node, Body::Reply(reply)).await {
            Ok(listeners) => listeners > 0,
            // It may have been sent after all: what was taken must not be handed out twice.
            Err(BackplaneError::Timeout { .. }) => true,
            Err(error) => {
                debug!(%error, "reply could not be sent");
                false
            }
        };
        if !heard && let Some(service) = self.service() {
            service.undelivered(payload, answer);
        }
    }
}

/// A request that waits. When it ends without a reply, the other node is told.
struct Asked {
    inner: Arc<Inner>,
    node: NodeId,
    id: u64,
    reply: Mutex<Option<oneshot::Receiver<Reply>>>,
}

impl Asked {
    fn new(inner: &Arc<Inner>, node: &NodeId) -> Self {
        let id = inner.rpc.next.fetch_add(1, Ordering::Relaxed);
        let (replied, reply) = oneshot::channel();
        inner.rpc.waiting.lock().insert(id, replied);
        Self {
            inner: Arc::clone(inner),
            node: node.clone(),
            id,
            reply: Mutex::new(Some(reply)),
        }
    }

    async fn reply(&self) -> Option<Reply> {
        let reply = self.reply.lock().take()?;
        reply.await.ok()
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        let unanswered = self.inner.rpc.waiting.lock().remove(&self.id).is_some();
        if !unanswered || self.inner.closing.is_cancelled() {
            return;
        }
        let (inner, node, id) = (Arc::clone(&self.inner), self.node.clone(), self.id);
        self.inner.tasks.spawn(async move {
            let cancel = Cancel {
                id,
                reply_to: inner.options.node.to_string(),
            };
            if let Err(error) = inner.send(&node, Body::Cancel(cancel)).await {
                debug!(%error, "cancellation could not be sent");
            }
        });
    }
}
