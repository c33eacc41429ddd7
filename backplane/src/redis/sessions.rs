//! Resumable connections: what is written down of them, and taking them over.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use prost::Message as _;
use redis::Value;
use tokio::time::Instant;

use super::RedisBackplane;
use super::commands::Repeat;

use super::hub::Hub;
use super::inner::Inner;
use super::link::{decode, items, malformed};
use super::local::{Subject, Unfinished};
use super::script::{HubScripts, Invocation, Name, Place, place};
use crate::backplane::{ConnectionRecord, LogRead};
use crate::error::BackplaneError;
use crate::position::{Epoch, Offset, Position};
use crate::sessions::{Call, Checkpoint, Listing, Sessions, State, TakeOver, Taken, Version};
use crate::topic::{ConnectionId, GroupName, HubName, NodeId, Topic, UserId};
use crate::wire::{self, Envelope, membership::Change};

/// Checkpoints that are written in one round trip.
const CHECKPOINTS: usize = 500;
/// How often a take-over begins anew because the connection's groups change.
const ATTEMPTS: usize = 5;

impl HubScripts {
    pub(super) fn park_call(
        &self,
        owner: &NodeId,
        id: &ConnectionId,
        version: Option<Version>,
        checkpoint: Option<&Checkpoint>,
    ) -> Invocation {
        let keys = vec![
            self.keys.connection(id),
            self.keys.node(owner),
            self.keys.parked(),
        ];
        let call = Invocation::new(Name::Park, keys)
            .arg(owner.to_string())
            .arg(version.map(|version| version.0.to_string()).unwrap_or_default())
            .arg(id.to_string())
            .number(self.options.resume_window.as_millis());
        match checkpoint {
            None => call.arg("").arg("").arg(""),
            Some(checkpoint) => checkpoint_arguments(call, checkpoint),
        }
    }

    fn checkpoint_call(&self, id: &ConnectionId, version: Version, checkpoint: &Checkpoint) -> Invocation {
        let call = Invocation::new(Name::Checkpoint, vec![self.keys.connection(id)])
            .arg(self.node.to_string())
            .number(version.0.into());
        checkpoint_arguments(call, checkpoint)
    }

    fn note_call(
        &self,
        id: &ConnectionId,
        version: Version,
        received: u64,
        call: Option<&str>,
    ) -> Invocation {
        Invocation::new(Name::Note, vec![self.keys.connection(id), self.keys.calls(id)])
            .arg(self.node.to_string())
            .number(version.0.into())
            .number(received.into())
            .arg(call.unwrap_or_default().to_owned())
    }

    fn answer_call(&self, id: &ConnectionId, call: Call<'_>, entry: Bytes, last: bool) -> Invocation {
        let topic = Topic::Connection(id.clone()).key();
        let mut keys = self.log_keys(&topic);
        keys.extend([self.keys.connection(id), self.keys.calls(id)]);
        let script = Invocation::new(Name::Answer, keys)
            .arg(call.id.to_owned())
            .arg(call.host.to_string())
            .arg(if last { "1" } else { "0" })
            .arg(self.keys.lane_prefix())
            .arg(topic);
        self.entry_arguments(script, entry, self.kept())
    }

    fn settle_call(&self, id: &ConnectionId, call: Call<'_>) -> Invocation {
        Invocation::new(Name::Settle, vec![self.keys.calls(id)])
            .arg(call.id.to_owned())
            .arg(call.host.to_string())
    }

    fn take_over_call(&self, candidate: &Candidate, topics: &[Topic]) -> Invocation {
        let id = &candidate.record.id;
        let mut keys = self.log_keys(&Topic::Connection(id.clone()).key());
        keys.extend([
            self.keys.connection(id),
            self.keys.node(&self.node),
            self.keys.groups(id),
            self.keys.calls(id),
            self.keys.parked(),
        ]);
        let call = self
            .own(Name::TakeOver, keys, id)
            .number(candidate.version.0.into())
            .number(candidate.changes.into())
            .arg(self.keys.node_prefix())
            .arg(self.keys.lane_prefix());
        self.membership_arguments(call, id, Change::Taken, topics)
    }
}

fn checkpoint_arguments(call: Invocation, checkpoint: &Checkpoint) -> Invocation {
    call.arg(checkpoint.position.epoch.as_str().to_owned())
        .number(checkpoint.sequence.into())
        .number(checkpoint.position.offset.into())
}

/// A connection as it is before it is taken over.
struct Candidate {
    record: ConnectionRecord,
    version: Version,
    /// How often its groups changed.
    changes: u64,
    groups: Vec<GroupName>,
}

impl Inner {
    async fn look_up(&self, hub: &Hub, id: &ConnectionId) -> Result<Option<Listing>, BackplaneError> {
        let mut command = redis::cmd("HMGET");
        command
            .arg(hub.scripts.keys.connection(id))
            .arg(&["node", "version", "user", "state"]);
        let answer: (Option<String>, Option<u64>, Option<String>, Option<Vec<u8>>) =
            decode(self.commands.command(&command, Repeat::Safe).await?)?;
        let (Some(node), version, user, state) = answer else {
            return Ok(None);
        };
        let owner = (!node.is_empty()).then(|| NodeId::parse(node)).transpose();
        Ok(Some(Listing {
            owner: owner.map_err(|_| malformed("the id of an owner"))?,
            version: Version(version.unwrap_or(0)),
            user: user.and_then(|user| UserId::parse(user).ok()),
            state: state.map(State::from),
        }))
    }

    async fn candidate(&self, hub: &Hub, id: &ConnectionId) -> Result<Option<Candidate>, BackplaneError> {
        let keys = &hub.scripts.keys;
        let mut command = redis::cmd("HMGET");
        command
            .arg(keys.connection(id))
            .arg(&["version", "groups", "user", "state"]);
        let answer: (Option<u64>, Option<u64>, Option<String>, Option<Vec<u8>>) =
            decode(self.commands.command(&command, Repeat::Safe).await?)?;
        let (Some(version), changes, user, Some(state)) = answer else {
            return Ok(None);
        };
        let mut command = redis::cmd("SMEMBERS");
        command.arg(keys.groups(id));
        let groups: Vec<String> = decode(self.commands.command(&command, Repeat::Safe).await?)?;
        Ok(Some(Candidate {
            record: ConnectionRecord {
                id: id.clone(),
                user: user.and_then(|user| UserId::parse(user).ok()),
                state: Some(State::from(state)),
            },
            version: Version(version),
            changes: changes.unwrap_or(0),
            groups: groups
                .iter()
                .filter_map(|group| GroupName::parse(group).ok())
                .collect(),
        }))
    }

    async fn take_over(
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
                hub.local.lock().unfinished.get(&id),
                Some(Unfinished::Remove { .. })
            ) {
                return Ok(TakeOver::Gone); // it was closed, and the server is told as soon as it can be
            }
            if !self.begin_taking(&hub, &candidate.record).await? {
                continue; // it may have changed while another call had it
            }
            let outcome = self.take_over_once(&hub, &candidate).await;
            {
                let mut local = hub.local.lock();
                match &outcome {
                    Ok(Some(_)) => {}
                    Ok(None) => local.end_taking(&id),
                    Err(_) => {
                        local.remove(&id);
                        local.unfinished.insert(id.clone(), Unfinished::Park); // it may have been carried out
                    }
                }
            }
            hub.claimed.notify_waiters();
            if let Some(outcome) = outcome? {
                return Ok(outcome);
            }
        }
        Ok(TakeOver::Changed)
    }

    /// `false`, after a while, where another call of this node claims the connection or takes it over.
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

    /// Gives a connection up. Where it is not known whether the server was told, it is told later.
    async fn park(
        self: Arc<Self>,
        hub: Arc<Hub>,
        id: ConnectionId,
        version: Version,
        checkpoint: Option<Checkpoint>,
    ) -> Result<bool, BackplaneError> {
        if !hub.local.lock().is_version(&id, version) {
            return Ok(false);
        }
        let parked = async {
            let _gate = self.pass(&hub, self.deadline()).await?;
            let call = hub
                .scripts
                .park_call(&self.options.node, &id, Some(version), checkpoint.as_ref());
            decode::<bool>(self.commands.script(&call, Repeat::Safe).await?)
        };
        let parked = parked.await;
        let mut local = hub.local.lock();
        // Another call of this node may have taken it over since.
        if local.is_version(&id, version) && !matches!(parked, Ok(false)) {
            local.remove(&id);
            if parked.is_err() {
                local.unfinished.insert(id, Unfinished::Park);
            }
        }
        parked
    }

    /// `None` where the connection was not as it had been found.
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
            // Where the answer is lost, a repetition finds another version.
            let answer = self.commands.script(&call, Repeat::Never).await?;
            let Some((place, taken)) = read_taken(answer, candidate)? else {
                return Ok(None);
            };
            hub.local.lock().set_taken(id, taken.version, &candidate.groups);
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
        return Ok(None); // gone, or changed
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

impl Sessions for RedisBackplane {
    fn look_up<'a>(
        &'a self,
        hub: &'a HubName,
        connection: &'a ConnectionId,
    ) -> BoxFuture<'a, Result<Option<Listing>, BackplaneError>> {
        async move { self.inner.look_up(&*self.inner.hub(hub)?, connection).await }.boxed()
    }

    fn take_over<'a>(
        &'a self,
        hub: &'a HubName,
        connection: &'a ConnectionId,
        version: Version,
    ) -> BoxFuture<'a, Result<TakeOver, BackplaneError>> {
        async move {
            let hub = self.inner.hub(hub)?;
            let taking = Arc::clone(&self.inner).take_over(hub, connection.clone(), version);
            self.inner.finish(taking).await
        }
        .boxed()
    }

    fn replay<'a>(
        &'a self,
        hub: &'a HubName,
        connection: &'a ConnectionRecord,
        groups: &'a [GroupName],
        after: &'a Position,
        upto: Offset,
    ) -> BoxFuture<'a, Result<LogRead, BackplaneError>> {
        async move {
            let hub = self.inner.hub(hub)?;
            self.inner.replay(&hub, connection, groups, after, upto).await
        }
        .boxed()
    }

    fn note<'a>(
        &'a self,
        hub: &'a HubName,
        connection: &'a ConnectionId,
        version: Version,
        received: u64,
        call: Option<&'a str>,
    ) -> BoxFuture<'a, Result<bool, BackplaneError>> {
        async move {
            let hub = self.inner.hub(hub)?;
            let script = hub.scripts.note_call(connection, version, received, call);
            decode(self.inner.commands.script(&script, Repeat::Safe).await?)
        }
        .boxed()
    }

    fn restate<'a>(
        &'a self,
        hub: &'a HubName,
        connection: &'a ConnectionId,
        version: Version,
        state: State,
    ) -> BoxFuture<'a, Result<bool, BackplaneError>> {
        async move {
            let hub = self.inner.hub(hub)?;
            let script = Invocation::new(Name::Restate, vec![hub.scripts.keys.connection(connection)])
                .arg(hub.scripts.node.to_string())
                .number(version.0.into())
                .arg(state);
            decode(self.inner.commands.script(&script, Repeat::Safe).await?)
        }
        .boxed()
    }

    fn answer<'a>(
        &'a self,
        hub: &'a HubName,
        connection: &'a ConnectionId,
        call: Call<'a>,
        envelope: &'a Envelope,
        last: bool,
    ) -> BoxFuture<'a, Result<bool, BackplaneError>> {
        async move {
            let hub = self.inner.hub(hub)?;
            let entry = wire::Entry {
                body: Some(wire::entry::Body::Message(envelope.clone())),
            };
            let script = hub
                .scripts
                .answer_call(connection, call, entry.encode_to_vec().into(), last);
            // The last one ends the call, so that a repetition does nothing.
            let repeat = if last { Repeat::Safe } else { Repeat::Never };
            let offset: Option<Offset> = decode(self.inner.commands.script(&script, repeat).await?)?;
            Ok(offset.is_some())
        }
        .boxed()
    }

    fn settle<'a>(
        &'a self,
        hub: &'a HubName,
        connection: &'a ConnectionId,
        call: Call<'a>,
    ) -> BoxFuture<'a, Result<bool, BackplaneError>> {
        async move {
            let hub = self.inner.hub(hub)?;
            let script = hub.scripts.settle_call(connection, call);
            decode(self.inner.commands.script(&script, Repeat::Safe).await?)
        }
        .boxed()
    }

    fn handed_on<'a>(&'a self, hub: &'a HubName) -> BoxFuture<'a, Result<Position, BackplaneError>> {
        async move {
            let hub = self.inner.hub(hub)?;
            let begun = Instant::now();
            let deadline = self.inner.deadline();
            loop {
                let extent = hub.scripts.extent(&self.inner.commands).await?;
                let position = Position {
                    epoch: extent.epoch.clone(),
                    offset: extent.last,
                };
                let place = place(extent.epoch.as_str(), extent.last);
                let mut reached = hub.waiters.wait(place);
                if reached.try_recv().is_ok() {
                    return Ok(position);
                }
                hub.set_behind(); // there may be nothing for this node up to there, and then nothing is pushed
                if self.inner.reached(reached, begun, deadline).await? {
                    return Ok(position);
                }
            }
        }
        .boxed()
    }

    fn checkpoint<'a>(
        &'a self,
        hub: &'a HubName,
        checkpoints: &'a [(ConnectionId, Version, Checkpoint)],
    ) -> BoxFuture<'a, Result<(), BackplaneError>> {
        async move {
            let hub = self.inner.hub(hub)?;
            for checkpoints in checkpoints.chunks(CHECKPOINTS) {
                let call = |(id, version, checkpoint): &(ConnectionId, Version, Checkpoint)| {
                    hub.scripts.checkpoint_call(id, *version, checkpoint)
                };
                let calls: Vec<_> = checkpoints.iter().map(call).collect();
                self.inner.commands.scripts(&calls, Repeat::Safe).await?;
            }
            Ok(())
        }
        .boxed()
    }

    fn park<'a>(
        &'a self,
        hub: &'a HubName,
        connection: &'a ConnectionId,
        version: Version,
        checkpoint: Option<&'a Checkpoint>,
    ) -> BoxFuture<'a, Result<bool, BackplaneError>> {
        async move {
            let hub = self.inner.hub(hub)?;
            let parking = Arc::clone(&self.inner).park(hub, connection.clone(), version, checkpoint.cloned());
            self.inner.finish(parking).await
        }
        .boxed()
    }
}
