//! Take-over: makes this node the owner of a parked connection, or of another node's connection.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use redis::Value;
use tokio::time::Instant;

use crate::backplane::ConnectionRecord;
use crate::error::BackplaneError;
use crate::events::EventRecord;
use crate::position::{Epoch, Offset, Position};
use crate::redis::directory::departures::Departure;
use crate::redis::feed::hub::Hub;
use crate::redis::feed::interest::Subject;
use crate::redis::feed::local::Reported;
use crate::redis::inner::Inner;
use crate::redis::script::calls::sessions::{Seize, TakeOverConnection};
use crate::redis::script::hub_scripts::{HubScripts, Place, place};
use crate::redis::script::invocation::Invocation;
use crate::redis::script::writer::Patience;
use crate::redis::server::commands::Repeat;
use crate::redis::server::replies::{decode, items, malformed};
use crate::sessions::{Checkpoint, SessionState, TakeOver, Taken, Version};
use crate::topic::{ConnectionId, GroupName, NodeId, Topic, UserId};
use crate::wire::membership::Change;

/// Most attempts of a take-over, which begins anew when other calls change the connection meanwhile.
const ATTEMPTS: usize = 5;

/// Fields of a connection's hash: version, changes of its groups, user, state; and of its events: the part that their ids
/// share, payload, state.
type TakeOverFields = (
    Option<u64>,
    Option<u64>,
    Option<String>,
    Option<SessionState>,
    Option<String>,
    Option<Bytes>,
    Option<Bytes>,
);

/// A connection as it is before it is taken over.
struct Candidate {
    record: ConnectionRecord,
    version: Version,
    /// Number of changes of the connection's groups.
    changes: u64,
    groups: Vec<GroupName>,
    /// The part that the ids of its events share, where it has some.
    event_base: Option<String>,
    /// The node that owned it before this node seized it.
    former: String,
}

impl HubScripts {
    fn take_over_call(&self, candidate: &Candidate, topics: &[Topic]) -> Invocation {
        let id = &candidate.record.id;
        Invocation::of(TakeOverConnection {
            connection: self.keys.connection(id),
            owned: self.keys.node(&self.node),
            calls: self.keys.calls(id),
            parked: self.keys.parked(),
            node: &self.node,
            id,
            version: candidate.version,
            changes: candidate.changes,
            node_prefix: self.keys.node_prefix(),
            lane_prefix: self.keys.lane_prefix(),
            channel: self.keys.lane_channel(&self.node),
            topic: Topic::Connection(id.clone()).key(),
            entry: self.membership(id, Change::Taken, topics, false),
            kept: self.options.kept(),
            former: &candidate.former,
        })
    }

    fn seize_call(&self, candidate: &Candidate) -> Invocation {
        let id = &candidate.record.id;
        Invocation::of(Seize {
            connection: self.keys.connection(id),
            owned: self.keys.node(&self.node),
            parked: self.keys.parked(),
            node: &self.node,
            id,
            version: candidate.version,
            node_prefix: self.keys.node_prefix(),
        })
    }
}

impl Inner {
    pub(in crate::redis) async fn take_over(
        self: Arc<Self>,
        hub: Arc<Hub>,
        id: ConnectionId,
        version: Version,
    ) -> Result<TakeOver, BackplaneError> {
        self.check_admitted()?;
        for _ in 0..ATTEMPTS {
            let Some(candidate) = self.candidate(&hub, &id).await? else {
                return Ok(TakeOver::Gone);
            };
            if candidate.version != version {
                return Ok(TakeOver::Changed);
            }
            if matches!(
                hub.local.lock().departures.get(&id),
                Some(Departure::Remove { .. })
            ) {
                return Ok(TakeOver::Gone); // the connection was closed, and its departure waits for the server
            }
            if !self.begin_taking(&hub, &candidate.record).await? {
                continue; // the connection may have changed while another call had it
            }
            let outcome = self.take_as_it_is(&hub, candidate).await;
            match &outcome {
                Ok(Some(_)) => {}
                Ok(None) => hub.local.lock().end_taking(&id),
                Err(_) => {
                    hub.local.lock().remove(&id);
                    drop(self.depart(&hub, id.clone(), Departure::Park)); // the take-over may have been carried out
                }
            }
            hub.claimed.notify_waiters();
            if let Some(outcome) = outcome? {
                return Ok(outcome);
            }
        }
        Ok(TakeOver::Changed)
    }

    /// Takes a connection over with its present groups. Where they change meanwhile, this node seizes the connection
    /// first: changes of a connection of this node wait. `None` where another node was faster.
    async fn take_as_it_is(
        self: &Arc<Self>,
        hub: &Arc<Hub>,
        mut candidate: Candidate,
    ) -> Result<Option<TakeOver>, BackplaneError> {
        let begun = Instant::now();
        let mut seized = false;
        for _ in 0..ATTEMPTS {
            let taken = self.take_over_once(hub, &candidate).await?;
            if taken.is_some() {
                return Ok(taken);
            }
            if !seized {
                let Some((version, former)) = self.seize(hub, &candidate).await? else {
                    return Ok(None);
                };
                (candidate.version, candidate.former) = (version, former);
                seized = true;
            }
            let (version, former) = (candidate.version, candidate.former);
            match self.candidate(hub, &candidate.record.id).await? {
                Some(now) if now.version == version => candidate = Candidate { former, ..now },
                _ => return Ok(None), // this node was shut out
            }
        }
        Err(BackplaneError::Unavailable {
            waited: begun.elapsed(),
            reason: "the connection's groups change all the time".to_owned(),
        })
    }

    /// Makes this node the owner before the take-over: returns the new version and the former owner. `None` where the
    /// connection has changed since it was found.
    async fn seize(
        &self,
        hub: &Hub,
        candidate: &Candidate,
    ) -> Result<Option<(Version, String)>, BackplaneError> {
        let call = hub.scripts.seize_call(candidate);
        let answer = hub.scripts.writer.carry_out(call, Patience::Short).await?;
        let seized: Option<(u64, String)> = decode(answer)?;
        Ok(seized.map(|(version, former)| (Version(version), former)))
    }

    /// Reserves the connection on this node; `false`, after a while, where another call claims it or takes it over.
    async fn begin_taking(&self, hub: &Hub, record: &ConnectionRecord) -> Result<bool, BackplaneError> {
        let other_call = hub.claimed.notified();
        if hub.local.lock().begin_taking(record) {
            return Ok(true);
        }
        match self.until(self.deadline(), other_call).await? {
            Some(()) => Ok(false),
            None => Err(BackplaneError::Timeout {
                waited: self.commands.bound(),
            }),
        }
    }

    async fn candidate(&self, hub: &Hub, id: &ConnectionId) -> Result<Option<Candidate>, BackplaneError> {
        let keys = &hub.scripts.keys;
        let mut command = redis::cmd("HMGET");
        command
            .arg(keys.connection(id))
            .arg(&["version", "groups", "user", "state", "event", "payload", "held"]);
        let (version, changes, user, state, event_base, payload, held): TakeOverFields =
            decode(self.commands.command(&command, Repeat::Safe).await?)?;
        let (Some(version), Some(state)) = (version, state) else {
            return Ok(None);
        };
        let mut command = redis::cmd("SMEMBERS");
        command.arg(keys.groups(id));
        let groups: Vec<String> = decode(self.commands.command(&command, Repeat::Safe).await?)?;
        Ok(Some(Candidate {
            record: ConnectionRecord {
                id: id.clone(),
                user: user.and_then(|user| UserId::from_stored(&user).ok()),
                state: Some(state),
                event: EventRecord {
                    payload: payload.unwrap_or_default(),
                    state: held.unwrap_or_default(),
                },
            },
            event_base,
            version: Version(version),
            changes: changes.unwrap_or(0),
            former: String::new(),
            groups: groups
                .iter()
                .filter_map(|group| GroupName::from_stored(group).ok())
                .collect(),
        }))
    }

    /// Tries the take-over once; `None` where the connection has changed since it was found.
    async fn take_over_once(
        self: &Arc<Self>,
        hub: &Arc<Hub>,
        candidate: &Candidate,
    ) -> Result<Option<TakeOver>, BackplaneError> {
        let begun = Instant::now();
        let deadline = self.deadline();
        let id = &candidate.record.id;
        let groups = candidate.groups.iter().cloned().map(Topic::Group);
        let user = candidate.record.user.clone().map(Topic::User);
        let mut topics: Vec<_> = std::iter::once(Topic::All).chain(user).chain(groups).collect();
        let subjects = topics.iter().cloned().map(Subject::Topic).collect();
        let interested = self.interest(hub, subjects, deadline).await?;
        topics.push(Topic::Connection(id.clone()));
        let (place, taken) = {
            let _gate = self.pass(hub, deadline).await?;
            let call = hub.scripts.take_over_call(candidate, &topics);
            let answer = hub.scripts.writer.carry_out(call, Patience::Short).await?;
            let Some((place, taken)) = read_taken(answer, candidate)? else {
                return Ok(None);
            };
            let event = Reported::new(candidate.event_base.clone(), &candidate.record);
            hub.local.lock().set_taken(
                id,
                taken.version,
                taken.position.clone(),
                &candidate.groups,
                event,
            );
            (place, taken)
        };
        if !self.reached(hub.waiters.wait(place), begun, deadline).await? {
            return Err(BackplaneError::Unavailable {
                waited: begun.elapsed(),
                reason: "the log's epoch ended".to_owned(),
            });
        }
        drop(interested);
        Ok(Some(TakeOver::Taken(Box::new(taken))))
    }
}

fn read_taken(answer: Value, candidate: &Candidate) -> Result<Option<(Place, Taken)>, BackplaneError> {
    if !matches!(answer, Value::Array(_)) {
        return Ok(None); // the connection is gone, or has changed
    }
    let Ok([epoch, offset, version, kept, calls]) = <[Value; 5]>::try_from(items(answer)?) else {
        return Err(malformed("a take-over of another length"));
    };
    let epoch: String = decode(epoch)?;
    let place = place(&epoch, decode(offset)?);
    let (received, at_epoch, sequence, at): (u64, String, u64, Offset) = decode(kept)?;
    let calls: HashMap<String, String> = decode(calls)?;
    let host = |(call, host): (String, String)| Some((call, NodeId::parse(host).ok()?));
    let taken = Taken {
        record: candidate.record.clone(),
        version: Version(decode(version)?),
        position: Position {
            epoch: place.epoch.clone(),
            offset: place.offset,
        },
        groups: candidate.groups.clone(),
        checkpoint: Checkpoint {
            sequence,
            position: Position {
                epoch: Epoch::new(&at_epoch),
                offset: at,
            },
        },
        received,
        calls: calls.into_iter().filter_map(host).collect(),
    };
    Ok(Some((place, taken)))
}
