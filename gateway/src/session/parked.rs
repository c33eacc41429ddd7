//! Sessions that wait for their clients to come back: they cost memory, and no connection permits.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::{CloseReason, Session};

/// The waiting sessions of a node, the oldest first.
pub(crate) struct Parked {
    /// 0 for no bound.
    limit: usize,
    waiting: Mutex<ByAge>,
}

#[derive(Default)]
struct ByAge {
    next: u64,
    by_age: BTreeMap<u64, Weak<Session>>,
}

/// One of them, until it is dropped.
pub(crate) struct ParkedPlace {
    parked: Arc<Parked>,
    number: u64,
}

impl Parked {
    /// Makes room for as many waiting sessions as connections.
    pub(crate) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self {
            limit,
            waiting: Mutex::default(),
        })
    }

    pub(crate) fn len(&self) -> usize {
        self.waiting.lock().by_age.len()
    }

    /// Adds one. Where there are too many the oldest leaves this node: any node can go on with its state in the log.
    fn add(self: &Arc<Self>, session: &Arc<Session>) -> ParkedPlace {
        let mut waiting = self.waiting.lock();
        let number = waiting.next;
        waiting.next = number.wrapping_add(1);
        waiting.by_age.insert(number, Arc::downgrade(session));
        let too_many = self.limit > 0 && waiting.by_age.len() > self.limit;
        let oldest = too_many.then(|| waiting.by_age.pop_first()).flatten();
        drop(waiting);
        if let Some(oldest) = oldest.and_then(|(_, session)| session.upgrade()) {
            oldest.close(CloseReason::Moved);
        }
        ParkedPlace {
            parked: Arc::clone(self),
            number,
        }
    }
}

impl Drop for ParkedPlace {
    fn drop(&mut self) {
        self.parked.waiting.lock().by_age.remove(&self.number);
    }
}

impl Session {
    /// Its client has gone, and may come back: other connections get its permit.
    pub(crate) fn wait_for_client(self: &Arc<Self>) {
        self.vacate();
        self.pause_states();
        let place = self.hub.shared().parked().add(self);
        let before = self.parked.lock().replace(Box::new(place));
        drop(before); // after the lock
        if self.closing.is_cancelled() {
            self.wait_no_more();
        }
    }

    /// Ends the wait: the client is back, or the session ends.
    pub(crate) fn wait_no_more(&self) {
        let place = self.parked.lock().take();
        drop(place); // after the lock
    }
}
