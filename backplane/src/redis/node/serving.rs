//! Serves requests of other nodes: each is served once, however often it is repeated, and its reply is kept for
//! repetitions.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::error::BackplaneError;
use crate::redis::inner::Inner;
use crate::redis::server::commands::Repeat;
use crate::topic::NodeId;
use crate::wire::{Cancel, Reply, Request, node_message::Body};

/// Time that a node that leaves waits for replies to requests that it serves.
const LAST_REPLIES: Duration = Duration::from_millis(500);
/// Time that a request without a deadline is remembered, and time beyond its deadline for any other: a repetition may
/// still be on its way.
const MEMORY: (Duration, Duration) = (Duration::from_secs(120), Duration::from_secs(10));
/// The longest time that a request waits.
const LONGEST: Duration = Duration::from_secs(24 * 3_600);
/// Most bytes of replies that are kept, of all nodes together.
const KEPT_BYTES: usize = 32 * 1_024 * 1_024;
/// Most requests that are remembered.
const REMEMBERED: usize = 262_144;
/// The error for a repeated request whose reply is not kept any more.
const NOT_KEPT: &str = "the request was served, and its reply is not kept any more";

/// The identity of a request: the asking node and its number.
type RequestKey = (Arc<str>, u64);

/// The requests that this node serves and has served.
pub(in crate::redis) struct Serving {
    table: Mutex<Table>,
    room: Arc<Semaphore>,
    served: usize,
}

#[derive(Default)]
struct Table {
    requests: HashMap<RequestKey, ServedRequest>,
    /// The times at which requests are forgotten.
    ends: BTreeMap<(Instant, u64), RequestKey>,
    /// Counts requests, so that those that end at one moment differ.
    count: u64,
    /// The requests whose replies are kept, the oldest first.
    replies: VecDeque<RequestKey>,
    bytes: usize,
}

enum ServedRequest {
    /// The request is being served, until this token is cancelled.
    Running(CancellationToken),
    Done(Done),
    /// The asking node takes no reply any more.
    Cancelled,
}

struct Done {
    /// The reply; `None` where it is not kept any more.
    reply: Option<Reply>,
    /// Number of sendings of the reply that are under way.
    sending: usize,
    /// True if the asking node may have the reply.
    heard: bool,
}

/// The treatment of a request that has come.
enum Arrival {
    /// The request is served, until this token is cancelled.
    New(CancellationToken),
    /// The kept reply is sent again.
    Repeated(Reply),
    /// The request was given up: the asking node has cancelled it, or was taken for dead and lives.
    GivenUp,
    /// There is nothing to do: the request is being served, or comes again when there is room.
    Ignored,
}

impl Serving {
    pub(in crate::redis) fn new(served: usize) -> Self {
        Self {
            table: Mutex::default(),
            room: Arc::new(Semaphore::new(served)),
            served,
        }
    }
}

impl Table {
    fn arrive(&mut self, key: &RequestKey, left: Duration, has_room: bool) -> Arrival {
        self.forget_old();
        let has_room = has_room && self.requests.len() < REMEMBERED;
        match self.requests.get_mut(key) {
            None if !has_room => Arrival::Ignored,
            None => {
                let cancelled = CancellationToken::new();
                self.remember(key, ServedRequest::Running(cancelled.clone()), left);
                Arrival::New(cancelled)
            }
            Some(ServedRequest::Done(done)) => {
                done.sending += 1;
                let not_kept = || Reply {
                    id: key.1,
                    error: NOT_KEPT.to_owned(),
                    ..Reply::default()
                };
                Arrival::Repeated(done.reply.clone().unwrap_or_else(not_kept))
            }
            Some(ServedRequest::Cancelled) => Arrival::GivenUp,
            Some(ServedRequest::Running(_)) => Arrival::Ignored,
        }
    }

    fn remember(&mut self, key: &RequestKey, state: ServedRequest, left: Duration) {
        self.count += 1;
        let end = Instant::now() + left + MEMORY.1;
        self.ends.insert((end, self.count), key.clone());
        self.requests.insert(key.clone(), state);
    }

    fn forget_old(&mut self) {
        let now = Instant::now();
        while let Some(first) = self.ends.first_entry().filter(|first| first.key().0 <= now) {
            let key = first.remove();
            if let Some(ServedRequest::Done(done)) = self.requests.remove(&key) {
                self.bytes -= done.reply.as_ref().map_or(0, weight);
            }
        }
        while let Some(oldest) = self.replies.front() {
            let kept =
                matches!(self.requests.get(oldest), Some(ServedRequest::Done(done)) if done.reply.is_some());
            if kept && self.bytes <= KEPT_BYTES {
                return;
            }
            let Some(oldest) = self.replies.pop_front() else {
                return;
            };
            if let Some(ServedRequest::Done(done)) = self.requests.get_mut(&oldest)
                && let Some(reply) = done.reply.take()
            {
                self.bytes -= weight(&reply);
            }
        }
    }

    /// Keeps the reply, which is about to be sent; `false` where the request was cancelled.
    fn finish(&mut self, key: &RequestKey, reply: &Reply) -> bool {
        match self.requests.get_mut(key) {
            Some(state @ ServedRequest::Running(_)) => {
                *state = ServedRequest::Done(Done {
                    reply: Some(reply.clone()),
                    sending: 1,
                    heard: false,
                });
            }
            _ => return false,
        }
        self.bytes += weight(reply);
        self.replies.push_back(key.clone());
        self.forget_old();
        true
    }

    /// Records the outcome of one sending of a reply. Returns the reply where it has reached no node and is not on its
    /// way; its request counts as being served again for the time being.
    fn sent(&mut self, key: &RequestKey, heard: bool) -> Option<Reply> {
        let Some(state @ ServedRequest::Done(_)) = self.requests.get_mut(key) else {
            return None;
        };
        let ServedRequest::Done(done) = state else {
            return None;
        };
        done.sending -= 1;
        done.heard |= heard;
        if done.heard || done.sending > 0 {
            return None;
        }
        let reply = done.reply.take()?;
        self.bytes -= weight(&reply);
        *state = ServedRequest::Running(CancellationToken::new());
        Some(reply)
    }

    /// Forgets a request that was undone: it may be served anew.
    fn undo(&mut self, key: &RequestKey) {
        if matches!(self.requests.get(key), Some(ServedRequest::Running(_))) {
            self.requests.remove(key);
        }
    }

    /// Keeps a reply that has reached no node for the next repetition of its request.
    fn keep(&mut self, key: &RequestKey, reply: &Reply) {
        if self.finish(key, reply)
            && let Some(ServedRequest::Done(done)) = self.requests.get_mut(key)
        {
            done.sending = 0;
        }
    }

    /// Cancels a request, or makes sure that it will not be served. Returns the reply that has no taker.
    fn cancel(&mut self, key: &RequestKey) -> Option<Reply> {
        self.forget_old();
        match self.requests.get_mut(key) {
            None => {
                self.remember(key, ServedRequest::Cancelled, MEMORY.0);
                None
            }
            Some(state) => match std::mem::replace(state, ServedRequest::Cancelled) {
                ServedRequest::Running(running) => {
                    running.cancel();
                    None
                }
                ServedRequest::Done(done) => {
                    self.bytes -= done.reply.as_ref().map_or(0, weight);
                    done.reply
                }
                ServedRequest::Cancelled => None,
            },
        }
    }
}

/// The node has no service yet.
#[derive(Debug, thiserror::Error)]
#[error("the node does not serve requests yet")]
struct NotServing;

fn weight(reply: &Reply) -> usize {
    reply.payload.len() + reply.error.len()
}

impl Inner {
    /// Waits, for a bounded time, until no other node's request is being served: replies that are ready still go out.
    pub(in crate::redis) async fn answered_all(&self) {
        let serving = &self.rpc.serving;
        let room = u32::try_from(serving.served).unwrap_or(u32::MAX);
        if timeout(LAST_REPLIES, serving.room.acquire_many(room))
            .await
            .is_err()
        {
            debug!("requests of other nodes were left without a reply");
        }
    }

    /// Takes a request that may have come before. Never waits.
    pub(in crate::redis) fn take_request(self: &Arc<Self>, request: Request) {
        let Some(left) = self.time_left(request.deadline) else {
            return; // the asking node does not wait any more
        };
        let Ok(asking) = NodeId::parse(&request.reply_to) else {
            warn!("ignored a node-to-node request that does not name its sender");
            return;
        };
        let serving = &self.rpc.serving;
        let key: RequestKey = (request.reply_to.as_str().into(), request.id);
        let room = Arc::clone(&serving.room).try_acquire_owned().ok();
        let arrival = serving.table.lock().arrive(&key, left, room.is_some());
        match (arrival, room) {
            (Arrival::New(cancelled), Some(room)) => {
                let inner = Arc::clone(self);
                self.tasks
                    .spawn(inner.serve(request, asking, key, cancelled, room));
            }
            (Arrival::Repeated(reply), _) => {
                let inner = Arc::clone(self);
                self.tasks
                    .spawn(async move { inner.reply(&asking, &key, reply).await });
            }
            (Arrival::GivenUp, _) => self.give_up_request(asking, request.id),
            (_, None) => warn!("refused a request of another node: too many are being served"), // the requests come again
            _ => {}
        }
    }

    /// The time for which the asking node still waits; `None` when it does not.
    fn time_left(&self, deadline: u64) -> Option<Duration> {
        match self.commands.clock().now() {
            Some(now) if deadline > 0 => {
                let left = Duration::from_millis(deadline.checked_sub(now)?);
                Some(left.min(LONGEST))
            }
            _ => Some(MEMORY.0),
        }
    }

    /// Takes the cancellation of a request. Never waits.
    pub(in crate::redis) fn take_cancel(self: &Arc<Self>, Cancel { id, reply_to }: Cancel) {
        let Ok(asking) = NodeId::parse(&reply_to) else {
            return;
        };
        let key: RequestKey = (reply_to.into(), id);
        let untaken = self.rpc.serving.table.lock().cancel(&key);
        if let Some(reply) = untaken {
            self.undelivered(reply);
        }
        self.give_up_request(asking, id);
    }

    /// Replies to the asking node that its request was given up.
    fn give_up_request(self: &Arc<Self>, asking: NodeId, id: u64) {
        let inner = Arc::clone(self);
        self.tasks.spawn(async move {
            let given_up = Reply {
                id,
                cancelled: true,
                ..Reply::default()
            };
            if let Err(error) = inner.send(&asking, Body::Reply(given_up), Repeat::Safe).await {
                debug!(%error, "the end of a request could not be confirmed yet");
            }
        });
    }

    async fn serve(
        self: Arc<Self>,
        request: Request,
        asking: NodeId,
        key: RequestKey,
        cancelled: CancellationToken,
        _room: OwnedSemaphorePermit,
    ) {
        let served = async {
            match self.service() {
                Some(service) => service.serve(request.payload).await,
                None => Err(NotServing.into()),
            }
        };
        let outcome = tokio::select! {
            () = self.closing.cancelled() => return,
            () = cancelled.cancelled() => return,
            () = self.nodes.missing(&asking) => {
                self.rpc.serving.table.lock().cancel(&key);
                return;
            }
            outcome = served => outcome,
        };
        let mut reply = Reply {
            id: request.id,
            ..Reply::default()
        };
        match outcome {
            Ok(payload) => reply.payload = payload,
            Err(error) => {
                reply.error = error.to_string();
                if reply.error.is_empty() {
                    reply.error = "failed".to_owned(); // an empty one would say that it was served
                }
            }
        }
        let taken = self.rpc.serving.table.lock().finish(&key, &reply);
        if taken {
            self.reply(&asking, &key, reply).await;
        } else {
            self.undelivered(reply); // the request was cancelled at this moment
        }
    }

    /// Sends a reply. Where it certainly reaches no node, its request is undone, or the reply is kept for a repetition.
    async fn reply(&self, asking: &NodeId, key: &RequestKey, reply: Reply) {
        let heard = match self.send(asking, Body::Reply(reply), Repeat::Never).await {
            Ok(listeners) => listeners > 0,
            // The reply may have been sent after all: things that were taken for it must not be handed out twice.
            Err(BackplaneError::Timeout { .. }) => true,
            Err(error) => {
                debug!(%error, "reply could not be sent");
                false
            }
        };
        let unheard = self.rpc.serving.table.lock().sent(key, heard);
        let Some(reply) = unheard else { return };
        let undone = self.undelivered(reply.clone());
        let mut table = self.rpc.serving.table.lock();
        if undone {
            table.undo(key);
        } else {
            table.keep(key, &reply);
        }
    }

    /// Hands a reply without a taker back to the service. Returns whether that undoes the request.
    fn undelivered(&self, reply: Reply) -> bool {
        let service = self.service().filter(|_| reply.error.is_empty());
        service.is_some_and(|service| service.undelivered(reply.payload))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(id: u64) -> RequestKey {
        ("asking".into(), id)
    }

    fn reply(id: u64, size: usize) -> Reply {
        Reply {
            id,
            payload: vec![b'x'; size].into(),
            ..Reply::default()
        }
    }

    const LEFT: Duration = Duration::from_secs(30);

    #[tokio::test(start_paused = true)]
    async fn a_request_is_served_once_and_its_reply_repeated() {
        let mut table = Table::default();
        assert!(matches!(table.arrive(&key(1), LEFT, false), Arrival::Ignored));
        assert!(matches!(table.arrive(&key(1), LEFT, true), Arrival::New(_)));
        assert!(matches!(table.arrive(&key(1), LEFT, true), Arrival::Ignored));
        assert!(table.finish(&key(1), &reply(1, 3)));
        assert_eq!(table.sent(&key(1), true), None);
        for _ in 0..2 {
            let again = table.arrive(&key(1), LEFT, false);
            assert!(matches!(again, Arrival::Repeated(again) if again == reply(1, 3)));
            assert_eq!(table.sent(&key(1), false), None, "it was heard before");
        }
        tokio::time::advance(LEFT + MEMORY.1).await;
        assert!(matches!(table.arrive(&key(1), LEFT, true), Arrival::New(_)));
        assert_eq!((table.bytes, table.replies.len(), table.ends.len()), (0, 0, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_reply_that_reached_nobody_is_undone_or_kept() {
        let mut table = Table::default();
        for id in [1, 2] {
            assert!(matches!(table.arrive(&key(id), LEFT, true), Arrival::New(_)));
            assert!(table.finish(&key(id), &reply(id, 3)));
            assert!(matches!(table.arrive(&key(id), LEFT, true), Arrival::Repeated(_)));
            assert_eq!(table.sent(&key(id), false), None, "it is on its way once more");
            assert_eq!(table.sent(&key(id), false), Some(reply(id, 3)));
            assert!(matches!(table.arrive(&key(id), LEFT, true), Arrival::Ignored));
        }
        table.undo(&key(1));
        assert!(matches!(table.arrive(&key(1), LEFT, true), Arrival::New(_)));
        table.keep(&key(2), &reply(2, 3));
        assert!(matches!(table.arrive(&key(2), LEFT, true), Arrival::Repeated(_)));
        assert_eq!(table.bytes, 3);
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_cancelled_is_not_served_and_its_reply_given_back_once() {
        let mut table = Table::default();
        assert_eq!(table.cancel(&key(1)), None);
        assert!(matches!(table.arrive(&key(1), LEFT, true), Arrival::GivenUp));
        let Arrival::New(running) = table.arrive(&key(2), LEFT, true) else {
            panic!("it is new");
        };
        assert_eq!(table.cancel(&key(2)), None);
        assert!(running.is_cancelled());
        assert!(!table.finish(&key(2), &reply(2, 3)));
        assert!(matches!(table.arrive(&key(3), LEFT, true), Arrival::New(_)));
        assert!(table.finish(&key(3), &reply(3, 3)));
        assert_eq!(table.cancel(&key(3)), Some(reply(3, 3)));
        assert_eq!(table.cancel(&key(3)), None);
        assert_eq!(table.sent(&key(3), false), None);
        assert_eq!(table.bytes, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn replies_are_kept_within_their_bound_and_requests_remembered_beyond() {
        let mut table = Table::default();
        for id in 0..3 {
            assert!(matches!(table.arrive(&key(id), LEFT, true), Arrival::New(_)));
            assert!(table.finish(&key(id), &reply(id, KEPT_BYTES / 2)));
            assert_eq!(table.sent(&key(id), true), None);
        }
        assert!(table.bytes <= KEPT_BYTES);
        let again = table.arrive(&key(0), LEFT, true);
        assert!(matches!(again, Arrival::Repeated(again) if again.error == NOT_KEPT));
        let again = table.arrive(&key(2), LEFT, true);
        assert!(matches!(again, Arrival::Repeated(again) if again == reply(2, KEPT_BYTES / 2)));
    }
}
