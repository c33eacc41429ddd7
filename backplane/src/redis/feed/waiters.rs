//! Calls that wait until the lane has reached a place.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::position::{Epoch, Offset};
use crate::redis::script::hub_scripts::Place;

pub(in crate::redis) struct Waiters {
    state: Mutex<WaitersState>,
}

struct WaitersState {
    epoch: Epoch,
    done: Offset,
    waiting: BTreeMap<Offset, Vec<oneshot::Sender<()>>>,
    /// Places of an epoch that the lane does not know yet.
    ahead: Vec<(Place, oneshot::Sender<()>)>,
}

impl Waiters {
    pub(in crate::redis) fn new(epoch: Epoch, done: Offset) -> Self {
        Self {
            state: Mutex::new(WaitersState {
                epoch,
                done,
                waiting: BTreeMap::new(),
                ahead: Vec::new(),
            }),
        }
    }

    /// The epoch that the lane is in.
    pub(in crate::redis) fn epoch(&self) -> Epoch {
        self.state.lock().epoch.clone()
    }

    /// The receiver resolves when the lane has reached `place`, or fails when it never will.
    pub(in crate::redis) fn wait(&self, place: Place) -> oneshot::Receiver<()> {
        let (reached, wait) = oneshot::channel();
        let mut state = self.state.lock();
        if place.epoch != state.epoch {
            state.ahead.retain(|(_, waiting)| !waiting.is_closed());
            state.ahead.push((place, reached));
        } else if place.offset <= state.done {
            let _ = reached.send(());
        } else {
            state.waiting.entry(place.offset).or_default().push(reached);
        }
        wait
    }

    /// As [`wait`](Self::wait) for an offset of the present epoch; `None` where the lane has reached it already.
    pub(in crate::redis) fn come_to(&self, offset: Offset) -> Option<oneshot::Receiver<()>> {
        let mut state = self.state.lock();
        if offset <= state.done {
            return None;
        }
        let (reached, wait) = oneshot::channel();
        state.waiting.entry(offset).or_default().push(reached);
        Some(wait)
    }

    /// Records that the sink was given all entries up to `offset`.
    pub(in crate::redis) fn done(&self, offset: Offset) {
        let mut state = self.state.lock();
        state.done = offset;
        while let Some(first) = state.waiting.first_entry().filter(|first| *first.key() <= offset) {
            for reached in first.remove() {
                let _ = reached.send(()); // the caller may have stopped waiting
            }
        }
    }

    /// Begins a new epoch: calls that wait for a place of an older one fail.
    pub(in crate::redis) fn restart(&self, epoch: &Epoch, done: Offset) {
        let ahead = {
            let mut state = self.state.lock();
            state.epoch = epoch.clone();
            state.done = done;
            state.waiting.clear();
            std::mem::take(&mut state.ahead)
        };
        for (place, reached) in ahead.into_iter().filter(|(place, _)| place.epoch == *epoch) {
            let mut state = self.state.lock();
            if place.offset <= state.done {
                let _ = reached.send(());
            } else {
                state.waiting.entry(place.offset).or_default().push(reached);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(epoch: &str, offset: Offset) -> Place {
        Place {
            epoch: Epoch::new(epoch),
            offset,
        }
    }

    #[test]
    fn a_place_is_waited_for_in_its_own_epoch() {
        let waiters = Waiters::new(Epoch::new("a"), 5);
        let past = waiters.wait(place("a", 5)).try_recv();
        assert!(waiters.come_to(5).is_none());
        let mut same = waiters.come_to(6).unwrap();
        let mut next = waiters.wait(place("a", 7));
        let mut later = waiters.wait(place("b", 6));
        assert_eq!(past, Ok(()));
        assert!(same.try_recv().is_err());
        waiters.done(6);
        assert_eq!(same.try_recv(), Ok(()));
        assert!(next.try_recv().is_err());
        waiters.restart(&Epoch::new("b"), 2);
        assert_eq!(next.try_recv(), Err(oneshot::error::TryRecvError::Closed));
        assert_eq!(later.try_recv(), Err(oneshot::error::TryRecvError::Empty));
        waiters.done(6);
        assert_eq!(later.try_recv(), Ok(()));
    }

    #[test]
    fn who_stopped_waiting_leaves_nothing_behind() {
        let waiters = Waiters::new(Epoch::new("a"), 0);
        for _ in 0..100 {
            drop(waiters.wait(place("b", 1)));
        }
        assert!(waiters.state.lock().ahead.len() <= 1);
    }
}
