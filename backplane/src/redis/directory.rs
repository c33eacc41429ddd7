//! Which node owns which connection.

use std::sync::Arc;
use std::time::Duration;

use redis::Value;
use tokio::sync::RwLockReadGuard;
use tokio::time::Instant;
use uuid::Uuid;

use super::hub::Hub;
use super::inner::Inner;
use super::link::{decode, items, malformed};
use super::local::{Subject, Unfinished};
use super::writer::Patience;
use crate::backplane::{Claim, ConnectionRecord};
use crate::error::BackplaneError;
use crate::position::{Epoch, Position};
use crate::sessions::{Entered, State};
use crate::topic::{ConnectionId, GroupName, NodeId, Topic, UserId};

impl Inner {
    pub(super) async fn claim(
        self: Arc<Self>,
        hub: Arc<Hub>,
        connection: ConnectionRecord,
        epoch: Option<Epoch>,
    ) -> Result<Claim, BackplaneError> {
        self.check_admitted()?;
        let id = &connection.id;
        if let Some(claim) = self.claim_here(&hub, &connection).await? {
            return Ok(claim);
        }
        let outcome = self.claim_on_server(&hub, &connection, epoch.as_ref()).await;
        let mut local = hub.local.lock();
        match &outcome {
            Ok(Claim::Claimed) => local.set_owned(id),
            outcome => {
                local.remove(id);
                if outcome
                    .as_ref()
                    .is_err_and(|error| !matches!(error, BackplaneError::Unsettled))
                {
                    // The server may have carried it out.
                    local.unfinished.insert(id.clone(), Unfinished::Release);
                }
            }
        }
        hub.claimed.notify_waiters();
        outcome
    }

    /// Makes the connection this node's to claim on the server; an answer where this node knows better.
    async fn claim_here(
        &self,
        hub: &Hub,
        connection: &ConnectionRecord,
    ) -> Result<Option<Claim>, BackplaneError> {
        let deadline = self.deadline();
        loop {
            let other_claim = hub.claimed.notified();
            {
                let mut local = hub.local.lock();
                if matches!(
                    local.unfinished.get(&connection.id),
                    Some(Unfinished::Remove { .. } | Unfinished::Park)
                ) {
                    return Ok(Some(Claim::Closed));
                }
                if local.insert(connection) {
                    local.unfinished.remove(&connection.id);
                    return Ok(None);
                }
                if local.is_owned(&connection.id) {
                    return Ok(Some(Claim::Owned(self.options.node.clone())));
                }
            }
            // Another call of this node claims it at this moment: the outcome tells who owns it.
            if self.until(deadline, other_claim).await?.is_none() {
                return Err(BackplaneError::Timeout {
                    waited: self.commands.bound(),
                });
            }
        }
    }

    async fn claim_on_server(
        &self,
        hub: &Hub,
        connection: &ConnectionRecord,
        epoch: Option<&Epoch>,
    ) -> Result<Claim, BackplaneError> {
        let _gate = self.pass(hub, self.deadline()).await?;
        let call = hub
            .scripts
            .claim_call(
                &connection.id,
                connection.user.as_ref(),
                epoch.map_or("", Epoch::as_str),
            )
            .number(self.options.settled(false).as_millis())
            .arg(hub.first_epoch.as_str().to_owned())
            .number(self.options.settled(true).as_millis());
        let answer = hub.scripts.writer.carry_out(call, Patience::Short).await?;
        if matches!(answer, Value::Int(_)) {
            hub.set_behind(); // this node may not have heard of the epoch yet
            return Err(BackplaneError::Unsettled);
        }
        match decode::<Option<(String, bool)>>(answer)? {
            None => Ok(Claim::Closed),
            // Without a local record, the server has this node from an earlier try whose answer was lost.
            Some((owner, new)) if new || owner == self.options.node.as_str() => Ok(Claim::Claimed),
            Some((owner, _)) => NodeId::parse(owner)
                .map(Claim::Owned)
                .map_err(|_| malformed("the id of an owner")),
        }
    }

    pub(super) async fn enter(
        self: Arc<Self>,
        hub: Arc<Hub>,
        connection: ConnectionRecord,
        groups: Vec<GroupName>,
        claim: bool,
    ) -> Result<Entered, BackplaneError> {
        self.check_admitted()?;
        let id = &connection.id;
        let refused = || BackplaneError::NotOwner {
            connection: id.clone(),
        };
        let user = {
            let mut local = hub.local.lock();
            if claim && (local.unfinished.contains_key(id) || !local.insert(&connection)) {
                return Err(refused());
            }
            local.user(id).ok_or_else(refused)?
        };
        let record = ConnectionRecord {
            user, // as it was claimed
            ..connection.clone()
        };
        let outcome = self.enter_on_server(&hub, &record, &groups, claim).await;
        if claim && let Err(error) = &outcome {
            let mut local = hub.local.lock();
            if local.remove(id) && !matches!(error, BackplaneError::NotOwner { .. }) {
                // The server may have carried it out; nobody was told the id, so it may be closed for good.
                local
                    .unfinished
                    .insert(id.clone(), removal(Duration::from_secs(60)));
            }
        }
        hub.claimed.notify_waiters();
        outcome
    }

    async fn enter_on_server(
        self: &Arc<Self>,
        hub: &Arc<Hub>,
        connection: &ConnectionRecord,
        joined: &[GroupName],
        claim: bool,
    ) -> Result<Entered, BackplaneError> {
        let id = &connection.id;
        let begun = Instant::now();
        let deadline = self.deadline();
        let topics = std::iter::once(Topic::All)
            .chain(connection.user.clone().map(Topic::User))
            .chain(joined.iter().cloned().map(Topic::Group));
        let interested = self
            .interest(hub, topics.map(Subject::Topic).collect(), deadline)
            .await?;
        loop {
            let (place, version, groups) = {
                let _gate = self.pass(hub, deadline).await?;
                let entered = hub.scripts.enter(connection, joined, claim).await?;
                let entered = owned(entered, id)?;
                let mut local = hub.local.lock();
                local.set_entered(id, entered.1);
                joined.iter().for_each(|group| local.set_member(id, group, true));
                entered
            };
            let position = Position {
                epoch: place.epoch.clone(),
                offset: place.offset,
            };
            if self.reached(hub.waiters.wait(place), begun, deadline).await? {
                drop(interested);
                return Ok(Entered {
                    position,
                    version,
                    groups,
                });
            }
        }
    }

    pub(super) async fn release(
        self: Arc<Self>,
        hub: Arc<Hub>,
        id: ConnectionId,
    ) -> Result<(), BackplaneError> {
        match self.give_up(&hub, &id, Unfinished::Release).await {
            None => Err(BackplaneError::NotOwner { connection: id }),
            Some(Ok(_)) => Ok(()), // the heartbeat may have been faster
            Some(Err(error)) => Err(error),
        }
    }

    pub(super) async fn remove(
        self: Arc<Self>,
        hub: Arc<Hub>,
        id: ConnectionId,
        tombstone: Duration,
    ) -> Result<bool, BackplaneError> {
        match self.give_up(&hub, &id, removal(tombstone)).await {
            None => Ok(false),
            Some(Err(error)) if error.is_transient() => Ok(true), // it is carried out later
            Some(removed) => removed,
        }
    }

    /// Forgets a connection here, then on the server; `None` where it is not here. Until the server has forgotten it, and
    /// where it can't be told yet, that is noted: nobody may claim it meanwhile.
    async fn give_up(
        &self,
        hub: &Hub,
        id: &ConnectionId,
        what: Unfinished,
    ) -> Option<Result<bool, BackplaneError>> {
        {
            let mut local = hub.local.lock();
            if !local.remove_owned(id) {
                return None;
            }
            local.unfinished.insert(id.clone(), what.clone());
        }
        let told = async {
            let _gate = self.pass(hub, self.deadline()).await?;
            self.finish_one(hub, id, &what).await
        };
        let told = told.await;
        if told.is_ok() {
            hub.local.lock().unfinished.remove(id);
        }
        Some(told)
    }

    /// Tells the server what became of a connection that this node no longer has.
    pub(super) async fn finish_one(
        &self,
        hub: &Hub,
        id: &ConnectionId,
        unfinished: &Unfinished,
    ) -> Result<bool, BackplaneError> {
        match unfinished {
            Unfinished::Release => hub.scripts.release(id).await,
            Unfinished::Park => {
                let call = hub.scripts.park_call(&self.options.node, id, None, None);
                decode(hub.scripts.writer.carry_out(call, Patience::Short).await?)
            }
            Unfinished::Remove { tombstone, name } => {
                let call =
                    hub.scripts
                        .remove_call(Some(&self.options.node), id, tombstone.as_millis(), name, false);
                Ok(removed(hub.scripts.writer.carry_out(call, Patience::Short).await?)?.is_some())
            }
        }
    }

    /// A node whose connections others are removing must not take new ones: they would be removed as well.
    pub(super) fn check_admitted(&self) -> Result<(), BackplaneError> {
        if self.nodes.is_barred() {
            let reason = "this node's lease has ended and its connections are being removed".to_owned();
            return Err(BackplaneError::Unavailable {
                waited: Duration::ZERO,
                reason,
            });
        }
        Ok(())
    }

    /// Waits while the server is told again what it forgot.
    pub(super) async fn pass<'a>(
        &self,
        hub: &'a Hub,
        deadline: Instant,
    ) -> Result<RwLockReadGuard<'a, ()>, BackplaneError> {
        let begun = Instant::now();
        self.until(deadline, hub.gate.read())
            .await?
            .ok_or_else(|| BackplaneError::Unavailable {
                waited: begun.elapsed(),
                reason: "connections are being registered again".to_owned(),
            })
    }
}

/// A removal with a name of its own.
pub(super) fn removal(tombstone: Duration) -> Unfinished {
    Unfinished::Remove {
        tombstone,
        name: Uuid::new_v4().simple().to_string(),
    }
}

/// User and state of a connection that was removed.
type Removed = (Option<UserId>, Option<State>);

/// What `remove.lua` answered: user and state, where the connection was removed by this call.
pub(super) fn removed(answer: Value) -> Result<Option<Removed>, BackplaneError> {
    let Ok([removed, user, state]) = <[Value; 3]>::try_from(items(answer)?) else {
        return Err(malformed("a removal of another length"));
    };
    let user: String = decode(user)?;
    let state: Option<Vec<u8>> = decode(state)?;
    Ok(decode::<bool>(removed)?.then(|| (UserId::parse(user).ok(), state.map(State::from))))
}

pub(super) fn owned<T>(answer: Option<T>, id: &ConnectionId) -> Result<T, BackplaneError> {
    answer.ok_or_else(|| BackplaneError::NotOwner {
        connection: id.clone(),
    })
}
