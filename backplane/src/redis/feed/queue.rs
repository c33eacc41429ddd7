//! The pushes of one hub that wait for its lane, and the lane itself while nobody uses it.
//!
//! A push that finds the lane at rest is delivered where it arrives, by the task that reads the connection: no other task
//! is woken for it. Pushes that follow closely wait for the lane's own task, which delivers them in batches: the more
//! there are, the fewer writes a receiver gets.

use std::collections::VecDeque;
use std::mem;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::redis::feed::lane::Lane;

/// Where a push of the last use had more receivers here than this, the next ones are delivered by the lane's task: while
/// receivers are still written to, pushes gather, and each receiver gets several with one write. The connection's
/// driver goes on to read answers meanwhile.
const FEW: usize = 256;
/// Most pushes that the lane's task takes at once.
pub(in crate::redis) const BATCH: usize = 256;

pub(in crate::redis) struct PushQueue {
    state: Mutex<QueueState>,
    /// Most pushes that wait; further ones are read from the log.
    capacity: usize,
    /// A push that comes within this time of the one before waits for the lane's task.
    interval: Duration,
    /// Notified when the lane is at rest and something waits for it.
    woken: Notify,
}

struct QueueState {
    /// The lane; `None` while somebody uses it, and before it begins.
    lane: Option<Box<Lane>>,
    waiting: VecDeque<Bytes>,
    /// The lane needs to catch up from the log.
    needs_catch_up: bool,
    /// Pushes are paused, because some channels are not subscribed to yet.
    paused: bool,
    /// The lane has ended.
    over: bool,
    /// The time at which the lane was last used.
    used: Instant,
    /// The most receivers of a push then.
    receivers: usize,
}

impl QueueState {
    fn has_work(&self, lane: &Lane) -> bool {
        !self.waiting.is_empty() || self.needs_catch_up || lane.has_pushes()
    }

    /// The lane for a push that comes now, where nothing has to be delivered before it.
    fn take_at_rest(&mut self, interval: Duration) -> Option<Box<Lane>> {
        let lane = self.lane.as_deref()?;
        if self.paused || self.receivers > FEW || self.has_work(lane) || self.used.elapsed() < interval {
            return None;
        }
        self.lane.take()
    }
}

impl PushQueue {
    pub(in crate::redis) fn new(capacity: usize, interval: Duration) -> Self {
        Self {
            state: Mutex::new(QueueState {
                lane: None,
                waiting: VecDeque::new(),
                needs_catch_up: false,
                paused: false,
                over: false,
                used: Instant::now(),
                receivers: 0,
            }),
            capacity,
            interval,
            woken: Notify::new(),
        }
    }

    /// Takes pushes, inside of the connection's driver. Never waits: a push for which there is no room is read from the
    /// log. Returns `false` where that was the case for the first time since the last catch-up.
    pub(in crate::redis) fn push(&self, pushes: impl Iterator<Item = Bytes>) -> bool {
        let mut state = self.state.lock();
        if let Some(mut lane) = state.take_at_rest(self.interval) {
            drop(state);
            lane.deliver(pushes);
            self.give_back(lane);
            return true;
        }
        let missed = state.needs_catch_up;
        for push in pushes {
            if state.waiting.len() < self.capacity {
                state.waiting.push_back(push);
            } else {
                state.needs_catch_up = true;
            }
        }
        let is_full = state.needs_catch_up && !missed;
        self.notify(state.lane.is_some());
        !is_full
    }

    /// Makes the lane catch up from the log.
    pub(in crate::redis) fn request_catch_up(&self) {
        let mut state = self.state.lock();
        state.needs_catch_up = true;
        self.notify(state.lane.is_some());
    }

    /// Pauses pushes until [`resume`](Self::resume): some channels are subscribed to sooner than others, and a push on one
    /// of them would let the lane pass entries that were missed on the others.
    pub(in crate::redis) fn pause(&self) {
        self.state.lock().paused = true;
    }

    /// Ends the pause, because all channels are subscribed to: the lane catches up, and pushes count again. This is one
    /// step, so that no push comes in between.
    pub(in crate::redis) fn resume(&self) {
        let mut state = self.state.lock();
        (state.needs_catch_up, state.paused) = (true, false);
        self.notify(state.lane.is_some());
    }

    /// Returns whether the lane needs to catch up, and whether pushes are paused and must be dropped. The lane calls
    /// this and then catches up.
    pub(in crate::redis) fn take_state(&self) -> (bool, bool) {
        let mut state = self.state.lock();
        (mem::take(&mut state.needs_catch_up), state.paused)
    }

    /// Number of pushes that wait.
    pub(in crate::redis) fn waiting(&self) -> usize {
        self.state.lock().waiting.len()
    }

    /// Ends when there may be a [`turn`](Self::turn).
    pub(in crate::redis) async fn woken(&self) {
        self.woken.notified().await;
    }

    /// The lane with the pushes that wait, for the lane's task; `None` where there is nothing to do, or somebody else uses
    /// the lane and will notify the task.
    pub(in crate::redis) fn turn(&self) -> Option<Box<Lane>> {
        let mut state = self.state.lock();
        let mut lane = state.lane.take()?;
        if !state.has_work(&lane) {
            state.lane = Some(lane);
            return None;
        }
        let count = state.waiting.len().min(BATCH);
        lane.add(state.waiting.drain(..count));
        Some(lane)
    }

    /// Lets the lane rest.
    pub(in crate::redis) fn give_back(&self, mut lane: Box<Lane>) {
        let mut state = self.state.lock();
        state.used = Instant::now();
        state.receivers = mem::take(&mut lane.receivers);
        if !state.over {
            self.notify(state.has_work(&lane));
            state.lane = Some(lane);
        }
    }

    /// Ends the lane.
    pub(in crate::redis) fn end(&self) {
        let mut state = self.state.lock();
        state.over = true;
        let lane = state.lane.take();
        drop(state);
        drop(lane); // it holds the hub, which holds this queue
    }

    fn notify(&self, when: bool) {
        if when {
            self.woken.notify_one();
        }
    }
}
