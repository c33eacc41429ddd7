//! The directory: which node owns which connection.

use std::sync::Arc;
use std::time::Duration;

use redis::Value;
use tokio::sync::{RwLockReadGuard, oneshot};
use tokio::time::Instant;

use crate::backplane::{Claim, ConnectionRecord, End};
use crate::error::BackplaneError;
use crate::position::{Epoch, Position};
use crate::redis::directory::departures::{Departure, Known};
use crate::redis::feed::hub::Hub;
use crate::redis::feed::interest::Subject;
use crate::redis::feed::local::Reported;
use crate::redis::inner::Inner;
use crate::redis::script::calls::connections;
use crate::redis::script::calls::groups::List;
use crate::redis::script::hub_scripts::{EnteredThere, HubScripts};
use crate::redis::script::invocation::Invocation;
use crate::redis::script::writer::Patience;
use crate::redis::server::replies::{decode, malformed};
use crate::sessions::Entered;
use crate::topic::{ConnectionId, GroupName, NodeId, Topic};

/// Groups that a connection is listed in by one call.
const STEP: usize = 64;

impl HubScripts {
    fn list_call(&self, id: &ConnectionId, groups: &[GroupName]) -> Invocation {
        let call = Invocation::of(List {
            connection: self.keys.connection(id),
            groups: self.keys.groups(id),
            group_names: self.keys.group_names(),
            node: &self.node,
            id,
            group_prefix: self.keys.group_prefix(),
            presence: self.presence.as_ref(),
            listed: groups.iter().collect(),
        });
        call.costing(groups.len())
    }
}

impl Inner {
    pub(in crate::redis) async fn claim(
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
        if !matches!(outcome, Ok(Claim::Claimed)) {
            hub.local.lock().remove(id);
            if outcome
                .as_ref()
                .is_err_and(|error| !matches!(error, BackplaneError::Unsettled))
            {
                drop(self.depart(&hub, id.clone(), Departure::Release)); // the claim may have been carried out
            }
        }
        hub.claimed.notify_waiters();
        outcome
    }

    /// Reserves the connection on this node for a claim on the server; returns an outcome where this node knows it
    /// already.
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
                    local.departures.get(&connection.id),
                    Some(Departure::Remove { .. } | Departure::Park)
                ) {
                    return Ok(Some(Claim::Closed));
                }
                if local.departures.withdraw(&connection.id) && local.insert(connection) {
                    return Ok(None);
                }
                if local.is_owned(&connection.id) {
                    return Ok(Some(Claim::Owned(self.options.node.clone())));
                }
            }
            // Another call of this node claims the connection, or gives it up, at this moment: its outcome shows the
            // owner.
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
        let (keys, id) = (&hub.scripts.keys, &connection.id);
        let call = |epoch: &str| {
            Invocation::of(connections::Claim {
                connection: keys.connection(id),
                owned: keys.node(&hub.scripts.node),
                tombstone: keys.closed(id),
                node: &hub.scripts.node,
                id,
                user: connection.user.as_ref(),
                epoch,
                settled: self.options.settled(false).as_millis(),
                first_epoch: hub.first_epoch.as_str(),
                first_settled: self.options.settled(true).as_millis(),
            })
        };
        let claiming = call(epoch.map_or("", Epoch::as_str));
        let mut answer = hub.scripts.writer.carry_out(claiming, Patience::Short).await?;
        if is_young(&answer) {
            let (present, age, _): (String, u64, Value) = decode(answer)?;
            if !self.is_settled(hub, &present, Duration::from_millis(age)).await? {
                hub.pushes.request_catch_up(); // this node may not know the epoch yet
                return Err(BackplaneError::Unsettled);
            }
            answer = hub
                .scripts
                .writer
                .carry_out(call(&present), Patience::Short)
                .await?;
            if is_young(&answer) {
                return Err(BackplaneError::Unsettled); // yet another one has begun
            }
        }
        match decode::<Option<(String, bool)>>(answer)? {
            None => Ok(Claim::Closed),
            // Without a local record, the server has this node as the owner from an earlier try whose answer was lost.
            Some((owner, new)) if new || owner == self.options.node.as_str() => {
                hub.local.lock().set_owned(&connection.id); // before the gate opens for a registration
                Ok(Claim::Claimed)
            }
            Some((owner, _)) => NodeId::parse(owner)
                .map(Claim::Owned)
                .map_err(|_| malformed("the id of an owner")),
        }
    }

    pub(in crate::redis) async fn enter(
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
            if claim && (local.departures.contains(id) || !local.insert(&connection)) {
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
            let was_here = hub.local.lock().remove(id);
            if was_here && !matches!(error, BackplaneError::NotOwner { .. }) {
                // The server may have carried it out; no client was given the id, so it may be closed for good.
                let end = End::unreported(Duration::from_secs(60));
                drop(self.depart(&hub, id.clone(), Departure::remove(end, Known::default())));
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
        // A connection with many groups is listed in them after it entered, see `list_rest`.
        let (first, rest) = joined.split_at(joined.len().min(STEP));
        loop {
            let (place, version, groups) = {
                let _gate = self.pass_with(hub, id, deadline).await?;
                let entered = hub.scripts.enter(connection, joined, first, claim).await?;
                let EnteredThere {
                    place,
                    version,
                    groups,
                    event_base,
                } = owned(entered, id)?;
                let mut local = hub.local.lock();
                local.set_entered(id, version, Reported::new(event_base, connection));
                first.iter().for_each(|group| local.set_member(id, group, true));
                (place, version, groups)
            };
            hub.events.news.notify_waiters();
            self.list_rest(hub, id, rest, deadline).await?;
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

    /// Lists a connection that has just entered in the rest of its groups, in steps. The messages that it receives
    /// depend only on its entry in the log, which names all of its groups, so they begin for all of them at one offset.
    /// Counts and presence messages come a moment later: by then the connection can be reached. Should the node die in
    /// between, the connection is removed from the groups that list it; only connections that end with their node enter
    /// with groups.
    async fn list_rest(
        &self,
        hub: &Hub,
        id: &ConnectionId,
        groups: &[GroupName],
        deadline: Instant,
    ) -> Result<(), BackplaneError> {
        for groups in groups.chunks(STEP) {
            let begun = Instant::now();
            {
                let _gate = self.pass_with(hub, id, deadline).await?;
                let call = hub.scripts.list_call(id, groups);
                if !decode::<bool>(hub.scripts.writer.carry_out(call, Patience::Short).await?)? {
                    return Err(BackplaneError::NotOwner {
                        connection: id.clone(),
                    });
                }
                let mut local = hub.local.lock();
                groups.iter().for_each(|group| local.set_member(id, group, true));
            }
            self.rest(begun).await;
        }
        Ok(())
    }

    pub(in crate::redis) async fn release(
        self: Arc<Self>,
        hub: Arc<Hub>,
        id: ConnectionId,
    ) -> Result<(), BackplaneError> {
        let begun = Instant::now();
        let Some(outcome) = self.give_up(&hub, &id, |_| Departure::Release) else {
            return Err(BackplaneError::NotOwner { connection: id });
        };
        match self.until(self.deadline(), outcome).await? {
            Some(Ok(outcome)) => outcome.map(drop),
            Some(Err(_)) => Ok(()), // the connection was claimed anew
            None => Err(BackplaneError::Timeout {
                waited: begun.elapsed(),
            }),
        }
    }

    /// Waits for the server's answer: only that shows who removed the connection.
    pub(in crate::redis) async fn remove(
        self: Arc<Self>,
        hub: Arc<Hub>,
        id: ConnectionId,
        end: End,
    ) -> Result<bool, BackplaneError> {
        let noted = hub.scripts.options.reports_ends && end.report.is_some();
        let Some(outcome) = self.give_up(&hub, &id, |known| Departure::remove(end, known)) else {
            return Ok(false);
        };
        let outcome = tokio::select! {
            () = self.closing.cancelled() => return Err(BackplaneError::Closed),
            outcome = outcome => outcome,
        };
        let removed = outcome.unwrap_or(Err(BackplaneError::Closed))?;
        Ok(removed && (!noted || self.is_reporter(&hub, &id).await))
    }

    /// Forgets a connection on this node and queues its departure; `None` where it is not here. Until the server has
    /// the departure, the connection can't be claimed on this node.
    fn give_up(
        &self,
        hub: &Hub,
        id: &ConnectionId,
        what: impl FnOnce(Known) -> Departure,
    ) -> Option<oneshot::Receiver<Result<bool, BackplaneError>>> {
        let outcome = {
            let mut local = hub.local.lock();
            // From here on the connection is not registered again, in whichever epoch the server gets its departure.
            let known = local.known(id);
            if !local.remove_owned(id) {
                return None;
            }
            local.departures.insert(id.clone(), what(known))
        };
        hub.departing.notify_one();
        Some(outcome)
    }

    /// A node whose connections are being removed by another one must not take new ones: they would be removed as well.
    pub(in crate::redis) fn check_admitted(&self) -> Result<(), BackplaneError> {
        if self.nodes.is_barred() {
            let reason = "this node's lease has ended and its connections are being removed".to_owned();
            return Err(BackplaneError::Unavailable {
                waited: Duration::ZERO,
                reason,
            });
        }
        Ok(())
    }

    /// Waits as [`pass`](Self::pass) does; a connection that the server forgot is registered again first.
    pub(in crate::redis) async fn pass_with<'a>(
        &self,
        hub: &'a Hub,
        id: &ConnectionId,
        deadline: Instant,
    ) -> Result<RwLockReadGuard<'a, ()>, BackplaneError> {
        let gate = self.pass(hub, deadline).await?;
        if !hub.local.lock().awaits_registration(id) {
            return Ok(gate);
        }
        drop(gate);
        self.register_now(hub, id).await?;
        self.pass(hub, deadline).await
    }

    /// Waits while a batch of connections that the server forgot is registered again.
    pub(in crate::redis) async fn pass<'a>(
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

pub(in crate::redis) fn owned<T>(answer: Option<T>, id: &ConnectionId) -> Result<T, BackplaneError> {
    answer.ok_or_else(|| BackplaneError::NotOwner {
        connection: id.clone(),
    })
}

/// Returns whether `claim.lua` could not decide because the epoch is young.
fn is_young(answer: &Value) -> bool {
    matches!(answer, Value::Array(items) if items.len() == 3)
}
