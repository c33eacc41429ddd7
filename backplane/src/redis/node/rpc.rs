//! The asking side of requests from node to node, outside of the log. [`serving`](crate::redis::node::serving) is the
//! other side.
//!
//! Requests and replies are pushes, which are lost with a subscription. So a request has an id and is repeated until
//! its reply comes, the other node is dead, or the caller stops waiting; a cancellation is repeated in the same way.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use prost::Message as _;
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, timeout, timeout_at};
use tracing::{debug, warn};
use uuid::Uuid;

use crate::backplane::Unheard;
use crate::error::BackplaneError;
use crate::redis::inner::Inner;
use crate::redis::node::serving::Serving;
use crate::redis::server::backoff::Backoff;
use crate::redis::server::commands::Repeat;
use crate::redis::server::replies::decode;
use crate::topic::NodeId;
use crate::wire::{Cancel, NodeMessage, Reply, Request, node_message::Body};

/// Time without a reply after which a request is repeated: the first time, and at most later.
const REPEAT: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(8));
/// The same, where the other node was not subscribed.
const SEEK: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));
/// Time beyond a request's deadline for which its cancellation is repeated.
const CANCELLING: Duration = Duration::from_secs(120);

pub(in crate::redis) struct Rpc {
    /// The next request's id. It begins at a random number: a node that restarts with the same name must not repeat old
    /// ids.
    next: AtomicU64,
    /// Requests of this node that wait for their reply, or for the answer to their cancellation.
    waiting: Mutex<HashMap<u64, AwaitedReply>>,
    pub(in crate::redis) serving: Serving,
    /// The number of times that this node's channel was subscribed to: earlier pushes may be lost.
    subscribed: watch::Sender<u64>,
}

enum AwaitedReply {
    Reply(oneshot::Sender<Reply>),
    Cancelled(oneshot::Sender<()>),
}

impl Rpc {
    pub(in crate::redis) fn new(served: usize) -> Self {
        let (first, _) = Uuid::new_v4().as_u64_pair();
        Self {
            next: AtomicU64::new(first),
            waiting: Mutex::default(),
            serving: Serving::new(served),
            subscribed: watch::Sender::default(),
        }
    }

    /// Repeats all requests that wait for a reply, because this node's channel was subscribed to anew.
    pub(in crate::redis) fn resubscribed(&self) {
        self.subscribed
            .send_modify(|times| *times = times.wrapping_add(1));
    }

    fn take_reply(&self, reply: Reply) {
        let mut waiting = self.waiting.lock();
        let cancelled = match waiting.get(&reply.id) {
            None => return, // a repeated reply
            Some(AwaitedReply::Reply(_)) => false,
            Some(AwaitedReply::Cancelled(_)) => true,
        };
        if cancelled && !reply.cancelled {
            return; // the reply crossed the cancellation, which is repeated
        }
        // The caller may have stopped waiting.
        match waiting.remove(&reply.id) {
            Some(AwaitedReply::Reply(wait)) => drop(wait.send(reply)),
            Some(AwaitedReply::Cancelled(wait)) => drop(wait.send(())),
            None => {}
        }
    }
}

impl Inner {
    pub(in crate::redis) async fn request(
        self: &Arc<Self>,
        node: &NodeId,
        payload: Bytes,
        bound: Duration,
        unheard: Unheard,
    ) -> Result<Bytes, BackplaneError> {
        if *node == self.options.node {
            return self.request_own(payload, bound).await;
        }
        let mut asked = PendingRequest::new(self, node, Instant::now() + bound);
        let outcome = tokio::select! {
            () = self.closing.cancelled() => return Err(BackplaneError::Closed),
            outcome = timeout(bound, asked.ask(payload, unheard)) => outcome,
        };
        outcome.map_err(|_| BackplaneError::Timeout { waited: bound })?
    }

    async fn request_own(&self, payload: Bytes, bound: Duration) -> Result<Bytes, BackplaneError> {
        let node = &self.options.node;
        let service = self
            .service()
            .ok_or_else(|| BackplaneError::NodeUnreachable { node: node.clone() })?;
        match timeout(bound, service.serve(payload)).await {
            Err(_) => Err(BackplaneError::Timeout { waited: bound }),
            Ok(outcome) => outcome.map_err(|error| BackplaneError::NodeFailed {
                node: node.clone(),
                reason: error.to_string(),
            }),
        }
    }

    /// Publishes to a node's channel. Returns the number of subscribers.
    pub(in crate::redis) async fn send(
        &self,
        node: &NodeId,
        body: Body,
        repeat: Repeat,
    ) -> Result<u64, BackplaneError> {
        let message = NodeMessage { body: Some(body) }.encode_to_vec();
        let mut command = redis::cmd(self.commands.publish());
        command.arg(self.keys.node_channel(node)).arg(message);
        decode(self.commands.command(&command, repeat).await?)
    }

    /// Publishes to a node again and again, until `answered` resolves or the node is dead.
    async fn send_until<T>(
        &self,
        node: &NodeId,
        body: impl Fn() -> Body,
        unheard: Unheard,
        answered: impl Future<Output = T>,
    ) -> Result<T, BackplaneError> {
        let mut subscribed = self.rpc.subscribed.subscribe();
        let (mut repeat, mut seek) = (Backoff::between(REPEAT), Backoff::between(SEEK));
        let unreachable = || BackplaneError::NodeUnreachable { node: node.clone() };
        let repeating = async {
            loop {
                // A lost request is repeated here, and the other node recognises the repetition.
                let heard = match self.send(node, body(), Repeat::Safe).await {
                    Ok(0) if unheard == Unheard::GiveUp => return unreachable(),
                    Ok(listeners) => listeners > 0,
                    Err(error) if error.is_transient() => false,
                    Err(error) => return error,
                };
                let pause = if heard { &mut repeat } else { &mut seek };
                tokio::select! {
                    () = pause.wait() => {}
                    Ok(()) = subscribed.changed() => {}
                }
            }
        };
        tokio::select! {
            biased;
            answer = answered => Ok(answer),
            error = repeating => Err(error),
            () = self.nodes.missing(node) => Err(unreachable()),
        }
    }

    /// Takes a push on this node's channel. Never waits.
    pub(in crate::redis) fn take_node_message(self: &Arc<Self>, payload: Bytes) {
        let Ok(message) = NodeMessage::decode(payload) else {
            warn!(
                "ignored a node-to-node message that can't be read; is another version of Hubcast on this Redis?"
            );
            return;
        };
        match message.body {
            None => {} // a probe
            Some(Body::Request(request)) => self.take_request(request),
            Some(Body::Reply(reply)) => self.rpc.take_reply(reply),
            Some(Body::Cancel(cancel)) => self.take_cancel(cancel),
        }
    }

    /// Sends a node the cancellation of a request until it answers. Things that it took for the reply must not be lost
    /// with the reply.
    async fn cancel(
        self: Arc<Self>,
        node: NodeId,
        id: u64,
        until: Instant,
        mut heard: oneshot::Receiver<()>,
    ) {
        let cancel = || {
            Body::Cancel(Cancel {
                id,
                reply_to: self.options.node.to_string(),
            })
        };
        let reporting = async {
            loop {
                // A node that was taken for dead may still serve the request when it comes back.
                self.nodes.alive(&node).await;
                match self.send_until(&node, cancel, Unheard::Wait, &mut heard).await {
                    Err(BackplaneError::NodeUnreachable { .. }) => {}
                    reported => return reported.is_ok(),
                }
            }
        };
        tokio::select! {
            () = self.closing.cancelled() => {}
            reported = timeout_at(until, reporting) => if !reported.unwrap_or(false) {
                debug!(%node, "a cancellation was not heard");
            }
        }
        self.rpc.waiting.lock().remove(&id);
    }
}

/// A request that waits for its reply. When it is dropped without one, the request is cancelled on the other node.
struct PendingRequest {
    inner: Arc<Inner>,
    node: NodeId,
    id: u64,
    deadline: Instant,
    reply: oneshot::Receiver<Reply>,
    /// True if the other node may have the request.
    sent: bool,
}

impl PendingRequest {
    fn new(inner: &Arc<Inner>, node: &NodeId, deadline: Instant) -> Self {
        let id = inner.rpc.next.fetch_add(1, Ordering::Relaxed);
        let (replied, reply) = oneshot::channel();
        inner.rpc.waiting.lock().insert(id, AwaitedReply::Reply(replied));
        Self {
            inner: Arc::clone(inner),
            node: node.clone(),
            id,
            deadline,
            reply,
            sent: false,
        }
    }

    async fn ask(&mut self, payload: Bytes, unheard: Unheard) -> Result<Bytes, BackplaneError> {
        self.sent = true;
        let asked = Instant::now();
        let (inner, id, deadline) = (&self.inner, self.id, self.deadline);
        let request = || {
            // The deadline is made anew for each try, because the server's clock may have been set.
            let left = deadline.saturating_duration_since(Instant::now());
            Body::Request(Request {
                id,
                reply_to: inner.options.node.to_string(),
                payload: payload.clone(),
                deadline: inner.commands.clock().deadline(left),
            })
        };
        let replied = inner
            .send_until(&self.node, request, unheard, &mut self.reply)
            .await;
        self.sent = replied.is_err();
        let reply = replied?.map_err(|_| BackplaneError::Closed)?;
        if reply.cancelled {
            let reason = format!(
                "node {} took this one for dead and gave its request up",
                self.node
            );
            let waited = asked.elapsed();
            return Err(BackplaneError::Unavailable { waited, reason });
        }
        if reply.error.is_empty() {
            return Ok(reply.payload);
        }
        Err(BackplaneError::NodeFailed {
            node: self.node.clone(),
            reason: reply.error,
        })
    }
}

impl Drop for PendingRequest {
    fn drop(&mut self) {
        let mut waiting = self.inner.rpc.waiting.lock();
        if !self.sent || self.inner.closing.is_cancelled() {
            waiting.remove(&self.id);
            return;
        }
        // This is so also where the reply has just come: no caller has taken it.
        let (cancelled, heard) = oneshot::channel();
        waiting.insert(self.id, AwaitedReply::Cancelled(cancelled));
        drop(waiting);
        let inner = Arc::clone(&self.inner);
        let until = self.deadline.max(Instant::now()) + CANCELLING;
        self.inner
            .tasks
            .spawn(inner.cancel(self.node.clone(), self.id, until, heard));
    }
}
