//! Lets sessions leave this node, one after the other, at the pace of the whole cluster.
//!
//! Clients that leave one node arrive at the others, so the number that leaves all nodes in a second counts. Nodes take
//! turns through the backplane ([`TurnsWanted`]); where that is away, each keeps to the rate by itself.

mod rebalance;

use std::future::pending;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use hubcast_backplane::{Backplane, Turns, TurnsWanted};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::hub::Shared;
use crate::session::{CloseReason, Session};

pub use rebalance::{Rebalance, SETTLED, Share};

/// The parts of a node's need, and of the rate, that it takes at once: the more it needs, the greater its share.
const SHARES: (f64, f64) = (0.2, 0.02);
/// How late a connection may leave for the next one to leave as if it were not.
const LATE: Duration = Duration::from_millis(50);
/// The part of the rate that is left for clients that jitter and slowness push together.
const ROOM: u32 = 10;
/// How long the backplane may take to give turns, and how long it is not asked after it gave none.
const PATIENCE: Duration = Duration::from_secs(1);
const ALONE: Duration = Duration::from_secs(5);

/// Time that the last connections of a drain have to end; half of the deadline where that is less.
const LAST: Duration = Duration::from_secs(5);

/// How a shutdown went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drained {
    /// Every connection and task has ended.
    Clean,
    /// The deadline came first; this many tasks were left behind.
    Abandoned {
        /// Tasks that had not ended.
        tasks: usize,
    },
}

/// The pace at which sessions leave.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    /// Most of all nodes in a second; 0 for as fast as they can.
    pub(crate) rate: u32,
    /// The latest time at which the last session leaves, whatever the rate says.
    pub(crate) deadline: Option<Instant>,
}

impl Pace {
    /// How many a second have to leave for all to leave in time; 0 without a deadline.
    fn need(&self, left: usize) -> f64 {
        let Some(deadline) = self.deadline else { return 0.0 };
        let time = deadline.saturating_duration_since(Instant::now());
        let left = u32::try_from(left).unwrap_or(u32::MAX);
        f64::from(left) / time.as_secs_f64().max(0.001)
    }
}

/// Has every session of the node leave, and waits for all tasks, but no longer than `deadline`.
pub(crate) async fn leave(
    shared: &Shared,
    sessions: impl Fn() -> Vec<Arc<Session>>,
    deadline: Duration,
) -> Drained {
    shared.stopping().cancel();
    let within = deadline - LAST.min(deadline / 2);
    let pace = Pace {
        rate: shared.drain_rate(),
        deadline: Some(Instant::now() + within),
    };
    let ending_calls = async {
        sleep(shared.drain_calls().min(within)).await;
        shared.calls_over().cancel();
        pending::<()>().await;
    };
    let leaving = async {
        let_go(shared.backplane(), pace, sessions(), &CloseReason::NodeStops).await;
        // Sessions that came after the list was made.
        for late in sessions() {
            late.leave(CloseReason::NodeStops);
        }
        shared.tasks().close();
        if !shared.tasks().is_empty() {
            tracing::info!(
                tasks = shared.tasks().len(),
                "waiting for the last connections and calls"
            );
        }
        shared.tasks().wait().await;
    };
    let finished = timeout(deadline, async {
        tokio::select! {
            () = leaving => {}
            () = ending_calls => {}
        }
    })
    .await;
    let drained = match finished {
        Ok(()) => Drained::Clean,
        Err(_) => Drained::Abandoned {
            tasks: shared.tasks().len(),
        },
    };
    // Short even when the server can't be reached: the node's lease ends by itself.
    let _ = timeout(Duration::from_secs(2), shared.backplane().shutdown()).await;
    drained
}

/// Has every session leave: stateful ones go on elsewhere, others end for this reason, and their clients may
/// reconnect. In no order, and not in step.
pub(crate) async fn let_go(
    backplane: &dyn Backplane,
    pace: Pace,
    mut sessions: Vec<Arc<Session>>,
    reason: &CloseReason,
) {
    let random = shuffle(&mut sessions);
    let mut queue = Queue {
        backplane,
        next: Instant::now(),
        alone: None,
    };
    while !sessions.is_empty() {
        if pace.rate == 0 || pace.deadline.is_some_and(|deadline| deadline <= Instant::now()) {
            sessions
                .drain(..)
                .for_each(|session| session.leave(reason.clone()));
            return;
        }
        let need = pace.need(sessions.len());
        let count = SHARES.0 * need + SHARES.1 * f64::from(pace.rate);
        let wanted = TurnsWanted {
            count: (count.ceil() as u32).clamp(1, u32::try_from(sessions.len()).unwrap_or(u32::MAX)),
            rate: (pace.rate - pace.rate / ROOM).max(1),
            need,
        };
        let (mut at, apart) = queue.take(&wanted).await;
        let leaving = sessions.split_off(sessions.len().saturating_sub(wanted.count as usize));
        for session in leaving {
            // A node that was held up does not catch up at once.
            at = Instant::now().checked_sub(LATE).map_or(at, |late| at.max(late));
            let within = (random.hash_one(session.id()) % 1024) as u32;
            let due = at + apart * within / 1024;
            let due = pace.deadline.map_or(due, |deadline| due.min(deadline));
            at += apart;
            // Sleeping is not exact to less than a millisecond, so that several leave at once.
            if due.saturating_duration_since(Instant::now()) >= Duration::from_millis(1) {
                sleep_until(due).await;
            }
            session.leave(reason.clone());
        }
    }
}

/// Puts sessions into an order of chance. Returns where that came from.
pub(crate) fn shuffle(sessions: &mut [Arc<Session>]) -> RandomState {
    let random = RandomState::new();
    sessions.sort_by_cached_key(|session| random.hash_one(session.id()));
    random
}

/// The source of this node's turns.
struct Queue<'a> {
    backplane: &'a dyn Backplane,
    /// The time of the next turn, by this node alone.
    next: Instant,
    /// The time until which the backplane is not asked, because it did not answer.
    alone: Option<Instant>,
}

impl Queue<'_> {
    async fn take(&mut self, wanted: &TurnsWanted) -> (Instant, Duration) {
        let turns = self.shared(wanted).await.unwrap_or_else(|| Turns {
            wait: self.next.saturating_duration_since(Instant::now()),
            apart: wanted.apart(wanted.need),
        });
        let first = Instant::now() + turns.wait;
        self.next = first + turns.apart * wanted.count;
        (first, turns.apart)
    }

    /// Turns among those of all nodes.
    async fn shared(&mut self, wanted: &TurnsWanted) -> Option<Turns> {
        if self.alone.is_some_and(|until| Instant::now() < until) {
            return None;
        }
        let asked = timeout(PATIENCE, self.backplane.take_turns(wanted)).await;
        let turns = asked.ok().and_then(Result::ok);
        self.alone = turns.is_none().then(|| Instant::now() + ALONE);
        turns
    }
}
