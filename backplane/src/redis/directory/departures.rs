//! Departures: connections that this node has given up and the server still lists. They are sent in batches, with a
//! pause after each, until the server has all of them.

use std::collections::HashMap;
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::join_all;
use redis::Value;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tracing::{debug, warn};
use uuid::Uuid;

use crate::backplane::End;
use crate::error::BackplaneError;
use crate::events::NOT_RESUMED;
use crate::position::Epoch;
use crate::redis::directory::removal::{Removal, removed};
use crate::redis::feed::hub::Hub;
use crate::redis::feed::local::Reported;
use crate::redis::inner::Inner;
use crate::redis::script::calls::connections::Release;
use crate::redis::script::invocation::Invocation;
use crate::redis::script::writer::Patience;
use crate::redis::server::replies::decode;
use crate::sessions::Version;
use crate::topic::ConnectionId;

/// Departures in one round trip.
const BATCH: usize = 32;

/// A change of a connection that this node no longer has and that the server is still to carry out.
#[derive(Clone, Debug)]
pub(in crate::redis) enum Departure {
    /// The connection was claimed and not entered.
    Release,
    Park,
    Remove {
        end: End,
        /// The name of this removal, by which a repetition is recognised.
        name: String,
        known: Known,
    },
}

/// The epoch in which a connection that is missing in the server was removed by another node, and not forgotten.
#[derive(Clone, Debug, Default)]
pub(in crate::redis) enum Presence {
    /// No epoch: the connection was never registered there, or the server forgot it.
    #[default]
    Unknown,
    /// The epoch in which the server had it, as far as this node knows.
    Known(Epoch),
    /// Any epoch: the other nodes took this one for dead, and removed its connections.
    ShutOut,
}

impl Presence {
    /// The value as an argument of `remove.lua`.
    pub(in crate::redis) fn text(&self) -> String {
        match self {
            Self::Unknown => String::new(),
            Self::Known(epoch) => epoch.as_str().to_owned(),
            Self::ShutOut => "*".to_owned(),
        }
    }
}

/// This node's knowledge of the directory entry of a connection that departs.
#[derive(Clone, Debug, Default)]
pub(in crate::redis) struct Known {
    pub(in crate::redis) presence: Presence,
    /// The version in which this node owned the connection, where it is known.
    pub(in crate::redis) version: Option<Version>,
    /// The events of the connection, where it has some.
    pub(in crate::redis) event: Option<Box<Reported>>,
}

/// The outcome of a departure: whether this node owned the connection until now.
type OutcomeReceiver = oneshot::Receiver<Result<bool, BackplaneError>>;

#[derive(Default)]
pub(in crate::redis) struct Departures {
    waiting: HashMap<ConnectionId, QueuedDeparture>,
}

struct QueuedDeparture {
    what: Departure,
    /// The departure is on its way to the server.
    sent: bool,
    answer: oneshot::Sender<Result<bool, BackplaneError>>,
}

impl Departure {
    pub(in crate::redis) fn remove(end: End, known: Known) -> Self {
        let name = Uuid::new_v4().simple().to_string();
        Self::Remove { end, name, known }
    }
}

impl Departures {
    pub(in crate::redis) fn insert(&mut self, id: ConnectionId, what: Departure) -> OutcomeReceiver {
        let (answer, outcome) = oneshot::channel();
        let waiting = QueuedDeparture {
            what,
            sent: false,
            answer,
        };
        self.waiting.insert(id, waiting);
        outcome
    }

    pub(in crate::redis) fn contains(&self, id: &ConnectionId) -> bool {
        self.waiting.contains_key(id)
    }

    pub(in crate::redis) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    pub(in crate::redis) fn get(&self, id: &ConnectionId) -> Option<&Departure> {
        self.waiting.get(id).map(|waiting| &waiting.what)
    }

    /// Withdraws a departure that is no longer wanted; `false` where it is on its way to the server already.
    pub(in crate::redis) fn withdraw(&mut self, id: &ConnectionId) -> bool {
        let sent = self.waiting.get(id).is_some_and(|waiting| waiting.sent);
        if !sent {
            self.waiting.remove(id);
        }
        !sent
    }

    fn take(&mut self, most: usize) -> Vec<(ConnectionId, Departure)> {
        let mut taken = Vec::new();
        for (id, waiting) in self.waiting.iter_mut().filter(|(_, waiting)| !waiting.sent) {
            if taken.len() == most {
                break;
            }
            waiting.sent = true;
            taken.push((id.clone(), waiting.what.clone()));
        }
        taken
    }

    /// Records that the other nodes have removed this node's connections, and report their ends.
    pub(in crate::redis) fn be_shut_out(&mut self) {
        for waiting in self.waiting.values_mut() {
            if let Departure::Remove { known, .. } = &mut waiting.what {
                known.presence = Presence::ShutOut;
            }
        }
    }

    /// Puts departures back that did not reach the server.
    fn put_back(&mut self, ids: impl Iterator<Item = ConnectionId>) {
        for id in ids {
            if let Some(waiting) = self.waiting.get_mut(&id) {
                waiting.sent = false;
            }
        }
    }

    fn finish(&mut self, id: &ConnectionId) -> Option<oneshot::Sender<Result<bool, BackplaneError>>> {
        self.waiting.remove(id).map(|waiting| waiting.answer)
    }
}

impl Inner {
    /// Sends a hub's departures to the server until closing.
    pub(in crate::redis) async fn run_departures(self: Arc<Self>, hub: Arc<Hub>) {
        self.whenever(
            &hub.departing,
            "the server can't be told of departures yet",
            || self.report_departures(&hub).boxed(),
        )
        .await;
    }

    /// Queues the departure of a connection that is not on this node any more.
    pub(in crate::redis) fn depart(&self, hub: &Hub, id: ConnectionId, what: Departure) -> OutcomeReceiver {
        let outcome = hub.local.lock().departures.insert(id, what);
        hub.departing.notify_one();
        outcome
    }

    /// Sends all departures that wait to the server.
    pub(in crate::redis) async fn report_departures(
        self: &Arc<Self>,
        hub: &Arc<Hub>,
    ) -> Result<(), BackplaneError> {
        let mut count = 0;
        loop {
            let batch = hub.local.lock().departures.take(BATCH);
            if batch.is_empty() {
                break;
            }
            let begun = Instant::now();
            if let Err(error) = self.report_batch(hub, &batch).await {
                let ids = batch.iter().map(|(id, _)| id.clone());
                hub.local.lock().departures.put_back(ids);
                hub.claimed.notify_waiters();
                return Err(error);
            }
            hub.claimed.notify_waiters();
            count += batch.len();
            if count % (BATCH * 32) == 0 {
                debug!(hub = %hub.name, count, "telling the server of departures");
            }
            self.rest(begun).await;
        }
        Ok(())
    }

    async fn report_batch(
        self: &Arc<Self>,
        hub: &Arc<Hub>,
        batch: &[(ConnectionId, Departure)],
    ) -> Result<(), BackplaneError> {
        let call = |(id, what): &(ConnectionId, Departure)| self.departure_call(hub, id, what);
        let calls = batch.iter().map(call);
        let answers = {
            let _gate = hub.gate.read().await;
            join_all(calls.map(|call| hub.scripts.writer.carry_out(call, Patience::Short))).await
        };
        let mut waits = Ok(());
        for ((id, what), outcome) in batch.iter().zip(answers) {
            match outcome {
                Ok(answer) => self.departed(hub, id, what, answer),
                Err(error @ BackplaneError::Refused { .. }) => {
                    warn!(hub = %hub.name, connection_id = %id, %error, "Redis refused to remove a connection");
                    answer(hub, id, Err(error));
                }
                Err(error) => waits = Err(error),
            }
        }
        waits
    }

    fn departure_call(&self, hub: &Hub, id: &ConnectionId, what: &Departure) -> Invocation {
        match what {
            Departure::Release => Invocation::of(Release {
                connection: hub.scripts.keys.connection(id),
                owned: hub.scripts.keys.node(&self.options.node),
                node: &self.options.node,
                id,
            }),
            Departure::Park => hub
                .scripts
                .park_call(&self.options.node, id, None, None, NOT_RESUMED),
            Departure::Remove { end, name, known } => hub.scripts.remove_call(
                id,
                &Removal {
                    owner: Some(&self.options.node),
                    name,
                    tombstone: end.tombstone,
                    presence: known.presence.clone(),
                    version: known.version,
                    reporter: Some(&self.options.node),
                    report: end.report.as_ref(),
                    reason: &end.reason,
                    event: known.event.as_deref(),
                    ..Removal::default()
                },
            ),
        }
    }

    fn departed(self: &Arc<Self>, hub: &Arc<Hub>, id: &ConnectionId, what: &Departure, value: Value) {
        if !matches!(what, Departure::Remove { .. }) {
            return answer(hub, id, decode(value));
        }
        match removed(value) {
            Err(error) => answer(hub, id, Err(error)),
            Ok(None) => answer(hub, id, Ok(false)),
            Ok(Some(gone)) => {
                hub.events.news.notify_waiters();
                if hub.scripts.options.reports_ends
                    && matches!(what, Departure::Remove { end, .. } if end.report.is_some())
                {
                    hub.ends.lock().begin(id.clone());
                }
                if gone.left == 0 {
                    return answer(hub, id, Ok(true));
                }
                let (inner, hub, id) = (Arc::clone(self), Arc::clone(hub), id.clone());
                self.tasks.spawn(async move {
                    inner.unlist(&hub.scripts, vec![id.clone()]).await;
                    answer(&hub, &id, Ok(true));
                });
            }
        }
    }
}

/// Reports the outcome of a departure to the caller that waits for it.
fn answer(hub: &Hub, id: &ConnectionId, outcome: Result<bool, BackplaneError>) {
    let answer = hub.local.lock().departures.finish(id);
    if let Some(answer) = answer {
        let _ = answer.send(outcome); // the caller may have stopped waiting
    }
}
