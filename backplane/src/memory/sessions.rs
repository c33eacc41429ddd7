//! Resumable connections of a node that is alone: they are parked and taken over by itself.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::time::Instant;

use super::connections::TopicsChange;
use super::hub::MemoryHub;
use crate::error::BackplaneError;
use crate::history::HistoryPage;
use crate::position::{Epoch, Offset, Position};
use crate::replay::{Past, Replay};
use crate::sessions::{
    Checkpoint, Listing, Recorded, RecordedCall, SessionState, Sessions, TakeOver, Taken, Version,
};
use crate::topic::{ConnectionId, NodeId, Topic};
use crate::wire::Envelope;

/// The records of a resumable connection.
pub(super) struct Session {
    pub(super) state: SessionState,
    checkpoint: Checkpoint,
    received: u64,
    calls: HashMap<String, NodeId>,
    /// Changes of its groups since the checkpoint.
    changes: VecDeque<Past>,
    /// Changes up to this offset are not known.
    changes_from: Offset,
}

impl Session {
    pub(super) fn new(state: SessionState, epoch: &Epoch, entered: Offset) -> Self {
        Self {
            state,
            checkpoint: Checkpoint {
                sequence: 0,
                position: Position {
                    epoch: epoch.clone(),
                    offset: entered,
                },
            },
            received: 0,
            calls: HashMap::new(),
            changes: VecDeque::new(),
            changes_from: entered,
        }
    }

    pub(super) fn changed(&mut self, change: Past, most: usize) {
        self.changes.push_back(change);
        if self.changes.len() > most.max(1)
            && let Some(dropped) = self.changes.pop_front()
        {
            self.changes_from = dropped.offset;
        }
    }

    /// Checkpoints only move forward: one that another checkpoint has overtaken is ignored.
    fn set_checkpoint(&mut self, checkpoint: &Checkpoint) {
        if checkpoint.sequence < self.checkpoint.sequence {
            return;
        }
        self.checkpoint = checkpoint.clone();
        while let Some(change) = self.changes.front()
            && change.offset <= checkpoint.position.offset
        {
            self.changes_from = change.offset;
            self.changes.pop_front();
        }
    }
}

impl MemoryHub {
    /// Calls `work` with the session of a connection that this node owns in this version.
    fn with_session<T>(
        &self,
        id: &ConnectionId,
        version: Version,
        work: impl FnOnce(&mut Session) -> T,
    ) -> Option<T> {
        let mut state = self.state.lock();
        let connection = state.connections.get_mut(id)?;
        if connection.version != version || connection.parked.is_some() {
            return None;
        }
        connection.session.as_mut().map(work)
    }

    async fn become_owner(&self, id: &ConnectionId, version: Version) -> Result<TakeOver, BackplaneError> {
        let mut outcome = TakeOver::Gone;
        let changed = self
            .change(id, |state| {
                outcome = state.take_over(id, version, &self.epoch);
                let TakeOver::Taken(taken) = &outcome else {
                    return None;
                };
                let topics = state.connections.get(&taken.record.id)?.topics();
                let topics = topics
                    .into_iter()
                    .chain([Topic::Connection(id.clone())])
                    .collect();
                Some(TopicsChange::new(true, topics, false, true))
            })
            .await;
        match changed {
            Ok(_) | Err(BackplaneError::NotOwner { .. }) => Ok(outcome),
            Err(error) => Err(error),
        }
    }

    fn replay_page(&self, replay: &mut Replay, most_bytes: usize) -> HistoryPage {
        if replay.after.epoch != self.epoch {
            return HistoryPage::OtherEpoch(self.epoch.clone());
        }
        let state = self.state.lock();
        if replay.memberships.is_none() {
            let known = state.connections.get(&replay.connection.id);
            let session = known.and_then(|known| known.session.as_ref());
            let after = replay.after.offset;
            let Some(session) = session.filter(|session| session.changes_from <= after) else {
                return HistoryPage::Trimmed;
            };
            let within = |change: &&Past| change.offset > after && change.offset <= replay.upto;
            let changes: Vec<_> = session.changes.iter().filter(within).cloned().collect();
            replay.learn(&changes);
        }
        let mut page = state
            .log
            .page(&replay.topics(), replay.after.offset, replay.upto, most_bytes);
        if let HistoryPage::Exact {
            messages, reached, ..
        } = &mut page
        {
            replay.after.offset = *reached;
            messages.retain(|message| replay.has_received(&message.topic, message.offset));
        }
        page
    }
}

impl super::hub::HubState {
    /// Takes a connection over with the next entry of the log.
    fn take_over(&mut self, id: &ConnectionId, version: Version, epoch: &Epoch) -> TakeOver {
        match self.connections.get(id) {
            None => return TakeOver::Gone,
            Some(connection) if connection.session.is_none() => return TakeOver::Gone,
            Some(connection) if connection.version != version => return TakeOver::Changed,
            Some(_) => {}
        }
        self.adopt(id);
        let Some((connection, session)) = self
            .connections
            .get(id)
            .and_then(|connection| Some((connection, connection.session.as_ref()?)))
        else {
            return TakeOver::Gone;
        };
        TakeOver::Taken(Box::new(Taken {
            record: connection.record(id),
            version: connection.version,
            position: Position {
                epoch: epoch.clone(),
                offset: self.log.next(),
            },
            groups: connection.groups.iter().cloned().collect(),
            checkpoint: session.checkpoint.clone(),
            received: session.received,
            calls: session.calls.clone().into_iter().collect(),
        }))
    }
}

impl Sessions for MemoryHub {
    fn look_up<'a>(
        &'a self,
        connection: &'a ConnectionId,
    ) -> BoxFuture<'a, Result<Option<Listing>, BackplaneError>> {
        async move {
            let state = self.state.lock();
            Ok(state.connections.get(connection).map(|known| Listing {
                owner: known.parked.is_none().then(|| self.node.clone()),
                version: known.version,
                user: known.user.clone(),
                state: known.session.as_ref().map(|session| session.state.clone()),
            }))
        }
        .boxed()
    }

    fn take_over<'a>(
        &'a self,
        connection: &'a ConnectionId,
        version: Version,
    ) -> BoxFuture<'a, Result<TakeOver, BackplaneError>> {
        async move { self.become_owner(connection, version).await }.boxed()
    }

    fn replay<'a>(
        &'a self,
        replay: &'a mut Replay,
        most_bytes: usize,
    ) -> BoxFuture<'a, Result<HistoryPage, BackplaneError>> {
        async move { Ok(self.replay_page(replay, most_bytes)) }.boxed()
    }

    fn record<'a>(
        &'a self,
        connection: &'a ConnectionId,
        version: Version,
        received: u64,
        call: Option<&'a str>,
    ) -> BoxFuture<'a, Result<bool, BackplaneError>> {
        async move {
            let noted = self.with_session(connection, version, |session| {
                session.received = received;
                if let Some(call) = call {
                    session.calls.insert(call.to_owned(), self.node.clone());
                }
            });
            Ok(noted.is_some())
        }
        .boxed()
    }

    fn record_once<'a>(
        &'a self,
        connection: &'a ConnectionId,
        version: Version,
        call: &'a str,
        once: &'a str,
    ) -> BoxFuture<'a, Result<Recorded, BackplaneError>> {
        async move {
            let running = self.with_session(connection, version, |session| session.calls.contains_key(call));
            let Some(running) = running else {
                return Ok(Recorded::NotOwner);
            };
            if !self.begin_request(once) {
                return Ok(Recorded::Before { running });
            }
            let noted = self.with_session(connection, version, |session| {
                session.calls.insert(call.to_owned(), self.node.clone());
            });
            Ok(noted.map_or(Recorded::NotOwner, |()| Recorded::Now))
        }
        .boxed()
    }

    fn restate<'a>(
        &'a self,
        connection: &'a ConnectionId,
        version: Version,
        state: SessionState,
    ) -> BoxFuture<'a, Result<bool, BackplaneError>> {
        async move {
            let restated = self.with_session(connection, version, |session| session.state = state);
            Ok(restated.is_some())
        }
        .boxed()
    }

    fn restate_parked<'a>(
        &'a self,
        connection: &'a ConnectionId,
        version: Version,
        former: SessionState,
        state: SessionState,
    ) -> BoxFuture<'a, Result<bool, BackplaneError>> {
        async move {
            let mut known = self.state.lock();
            let parked = known.connections.get_mut(connection);
            let parked = parked.filter(|known| known.version == version && known.parked.is_some());
            let session = parked.and_then(|known| known.session.as_mut());
            let Some(session) = session.filter(|session| session.state == former) else {
                return Ok(false);
            };
            session.state = state;
            Ok(true)
        }
        .boxed()
    }

    fn reply<'a>(
        &'a self,
        connection: &'a ConnectionId,
        call: RecordedCall<'a>,
        envelope: &'a Envelope,
        last: bool,
    ) -> BoxFuture<'a, Result<Option<Offset>, BackplaneError>> {
        async move {
            let envelope = Arc::new(envelope.clone());
            let allowed = |session: &mut Session| {
                let runs = session.calls.get(call.id) == Some(call.host);
                if runs && last {
                    session.calls.remove(call.id);
                }
                runs
            };
            self.answer(connection, &envelope, allowed).await
        }
        .boxed()
    }

    fn finish<'a>(
        &'a self,
        connection: &'a ConnectionId,
        call: RecordedCall<'a>,
    ) -> BoxFuture<'a, Result<bool, BackplaneError>> {
        async move {
            let mut state = self.state.lock();
            let session = state
                .connections
                .get_mut(connection)
                .and_then(|known| known.session.as_mut());
            let Some(session) = session.filter(|session| session.calls.get(call.id) == Some(call.host))
            else {
                return Ok(false);
            };
            Ok(session.calls.remove(call.id).is_some())
        }
        .boxed()
    }

    fn handed_on(&self) -> BoxFuture<'_, Result<Position, BackplaneError>> {
        async move {
            Ok(Position {
                epoch: self.epoch.clone(),
                offset: self.await_sink().await?,
            })
        }
        .boxed()
    }

    fn checkpoint<'a>(
        &'a self,
        checkpoints: &'a [(ConnectionId, Version, Checkpoint)],
    ) -> BoxFuture<'a, Result<(), BackplaneError>> {
        async move {
            for (id, version, checkpoint) in checkpoints {
                self.with_session(id, *version, |session| session.set_checkpoint(checkpoint));
            }
            Ok(())
        }
        .boxed()
    }

    fn park<'a>(
        &'a self,
        connection: &'a ConnectionId,
        version: Version,
        checkpoint: Option<&'a Checkpoint>,
    ) -> BoxFuture<'a, Result<bool, BackplaneError>> {
        async move {
            if let Some(checkpoint) = checkpoint {
                self.with_session(connection, version, |session| session.set_checkpoint(checkpoint));
            }
            let until = Instant::now() + self.options.resume_window;
            let parked = self.state.lock().park(connection, version, until);
            Ok(parked)
        }
        .boxed()
    }
}
