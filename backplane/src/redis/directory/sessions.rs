//! Resumable connections: their records in the server, and parking them.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use prost::Message as _;
use redis::Value;
use tokio::time::Instant;

use crate::error::BackplaneError;
use crate::events::NOT_RESUMED;
use crate::history::HistoryPage;
use crate::position::{Offset, Position};
use crate::redis::directory::departures::Departure;
use crate::redis::feed::hub::Hub;
use crate::redis::hub::RedisHub;
use crate::redis::inner::Inner;
use crate::redis::script::calls::connections::LookUp;
use crate::redis::script::calls::messages::{Finish, Record, Reply, StoreCheckpoint};
use crate::redis::script::calls::sessions::{Park, Restate};
use crate::redis::script::hub_scripts::{HubScripts, place};
use crate::redis::script::invocation::Invocation;
use crate::redis::script::writer::Patience;
use crate::redis::server::commands::Repeat;
use crate::redis::server::replies::{decode, malformed};
use crate::replay::Replay;
use crate::sessions::{
    Checkpoint, Listing, Recorded, RecordedCall, SessionState, Sessions, TakeOver, Version,
};
use crate::topic::{ConnectionId, NodeId, Topic, UserId};
use crate::wire::{self, Envelope};

/// Checkpoints that are written in one round trip.
const CHECKPOINTS: usize = 500;
impl HubScripts {
    pub(in crate::redis) fn park_call(
        &self,
        owner: &NodeId,
        id: &ConnectionId,
        version: Option<Version>,
        checkpoint: Option<&Checkpoint>,
        reason: &'static str,
    ) -> Invocation {
        Invocation::of(Park {
            connection: self.keys.connection(id),
            owned: self.keys.node(owner),
            parked: self.keys.parked(),
            owner,
            version,
            id,
            wait: self.options.resume_window.as_millis(),
            checkpoint,
            reason,
        })
    }

    fn checkpoint_call(&self, id: &ConnectionId, version: Version, checkpoint: &Checkpoint) -> Invocation {
        Invocation::of(StoreCheckpoint {
            connection: self.keys.connection(id),
            node: &self.node,
            version,
            epoch: checkpoint.position.epoch.as_str(),
            sequence: checkpoint.sequence,
            offset: checkpoint.position.offset,
        })
    }

    fn record_call(
        &self,
        id: &ConnectionId,
        version: Version,
        received: u64,
        call: Option<&str>,
    ) -> Invocation {
        Invocation::of(Record {
            connection: self.keys.connection(id),
            calls: self.keys.calls(id),
            request: None,
            node: &self.node,
            version,
            received: Some(received),
            call,
            request_life: None,
        })
    }

    fn record_once_call(&self, id: &ConnectionId, version: Version, call: &str, once: &str) -> Invocation {
        Invocation::of(Record {
            connection: self.keys.connection(id),
            calls: self.keys.calls(id),
            request: Some(self.keys.once(once)),
            node: &self.node,
            version,
            received: None,
            call: Some(call),
            request_life: Some(self.options.retention.as_millis().max(1)),
        })
    }

    fn reply_call(&self, id: &ConnectionId, call: RecordedCall<'_>, entry: Bytes, last: bool) -> Invocation {
        Invocation::of(Reply {
            connection: self.keys.connection(id),
            calls: self.keys.calls(id),
            call: call.id,
            node: call.host,
            last,
            lane_prefix: self.keys.lane_prefix(),
            topic: Topic::Connection(id.clone()).key(),
            entry,
            kept: self.options.kept(),
        })
    }

    fn finish_call(&self, id: &ConnectionId, call: RecordedCall<'_>) -> Invocation {
        Invocation::of(Finish {
            calls: self.keys.calls(id),
            call: call.id,
            node: call.host,
        })
    }
}

impl Inner {
    pub(in crate::redis) async fn look_up(
        &self,
        hub: &Hub,
        id: &ConnectionId,
    ) -> Result<Option<Listing>, BackplaneError> {
        let keys = &hub.scripts.keys;
        let script = Invocation::of(LookUp {
            log: keys.log(),
            connection: keys.connection(id),
            tombstone: keys.closed(id),
        });
        let answer = self.commands.script(&script, Repeat::Safe).await?;
        if answer == Value::Nil {
            return Ok(None);
        }
        if matches!(&answer, Value::Array(items) if items.len() == 2) {
            let (epoch, age): (String, u64) = decode(answer)?;
            let settled = self.options.settled(epoch == hub.first_epoch.as_str());
            let age = Duration::from_millis(age);
            return if age < settled && !self.is_settled(hub, &epoch, age).await? {
                Err(BackplaneError::Unsettled)
            } else {
                Ok(None)
            };
        }
        let (node, version, user, state): (String, Option<u64>, Option<String>, Option<Vec<u8>>) =
            decode(answer)?;
        let owner = (!node.is_empty()).then(|| NodeId::parse(node)).transpose();
        Ok(Some(Listing {
            owner: owner.map_err(|_| malformed("the id of an owner"))?,
            version: Version(version.unwrap_or(0)),
            user: user.and_then(|user| UserId::from_stored(&user).ok()),
            state: state.map(SessionState::from),
        }))
    }

    /// Parks a connection. Where the outcome on the server is not known, a departure repeats it later.
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
            let call = hub.scripts.park_call(
                &self.options.node,
                &id,
                Some(version),
                checkpoint.as_ref(),
                NOT_RESUMED,
            );
            decode::<bool>(hub.scripts.writer.carry_out(call, Patience::Short).await?)
        };
        let parked = parked.await;
        // Another call of this node may have taken the connection over since.
        let given_up = {
            let mut local = hub.local.lock();
            let is_known = local.is_version(&id, version) && !matches!(parked, Ok(false));
            is_known && local.remove(&id)
        };
        if given_up && parked.is_err() {
            drop(self.depart(&hub, id, Departure::Park));
        }
        parked
    }
}

impl Sessions for RedisHub {
    fn look_up<'a>(
        &'a self,
        connection: &'a ConnectionId,
    ) -> BoxFuture<'a, Result<Option<Listing>, BackplaneError>> {
        async move { self.inner.look_up(&self.hub, connection).await }.boxed()
    }

    fn take_over<'a>(
        &'a self,
        connection: &'a ConnectionId,
        version: Version,
    ) -> BoxFuture<'a, Result<TakeOver, BackplaneError>> {
        async move {
            self.carry_out(|inner, hub| inner.take_over(hub, connection.clone(), version))
                .await
        }
        .boxed()
    }

    fn replay<'a>(
        &'a self,
        replay: &'a mut Replay,
        most_bytes: usize,
    ) -> BoxFuture<'a, Result<HistoryPage, BackplaneError>> {
        async move { self.inner.replay(&self.hub, replay, most_bytes).await }.boxed()
    }

    fn record<'a>(
        &'a self,
        connection: &'a ConnectionId,
        version: Version,
        received: u64,
        call: Option<&'a str>,
    ) -> BoxFuture<'a, Result<bool, BackplaneError>> {
        async move {
            let script = self.hub.scripts.record_call(connection, version, received, call);
            decode(self.hub.scripts.writer.carry_out(script, Patience::Long).await?)
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
            let script = self.hub.scripts.record_once_call(connection, version, call, once);
            match decode::<i64>(self.hub.scripts.writer.carry_out(script, Patience::Long).await?)? {
                0 => Ok(Recorded::NotOwner),
                1 => Ok(Recorded::Now),
                2 => Ok(Recorded::Before { running: false }),
                3 => Ok(Recorded::Before { running: true }),
                other => Err(malformed(&format!("record.lua answered {other}"))),
            }
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
            let hub = &self.hub;
            let script = Invocation::of(Restate {
                connection: hub.scripts.keys.connection(connection),
                owner: Some(&hub.scripts.node),
                version,
                state,
                former: None,
            });
            decode(hub.scripts.writer.carry_out(script, Patience::Short).await?)
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
            let hub = &self.hub;
            let script = Invocation::of(Restate {
                connection: hub.scripts.keys.connection(connection),
                owner: None,
                version,
                state,
                former: Some(former),
            });
            decode(hub.scripts.writer.carry_out(script, Patience::Short).await?)
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
            let entry = wire::Entry {
                body: Some(wire::entry::Body::Message(envelope.clone())),
            };
            let script = self
                .hub
                .scripts
                .reply_call(connection, call, entry.encode_to_vec().into(), last);
            let place: Option<i64> =
                decode(self.hub.scripts.writer.carry_out(script, Patience::Long).await?)?;
            place
                .map(|place| Offset::try_from(place).map_err(|_| BackplaneError::Evicted))
                .transpose()
        }
        .boxed()
    }

    fn finish<'a>(
        &'a self,
        connection: &'a ConnectionId,
        call: RecordedCall<'a>,
    ) -> BoxFuture<'a, Result<bool, BackplaneError>> {
        async move {
            let script = self.hub.scripts.finish_call(connection, call);
            decode(self.hub.scripts.writer.carry_out(script, Patience::Long).await?)
        }
        .boxed()
    }

    fn handed_on(&self) -> BoxFuture<'_, Result<Position, BackplaneError>> {
        async move {
            let begun = Instant::now();
            let deadline = self.inner.deadline();
            loop {
                let extent = self.hub.scripts.extent(&self.inner.commands).await?;
                let position = Position {
                    epoch: extent.epoch.clone(),
                    offset: extent.last,
                };
                let place = place(extent.epoch.as_str(), extent.last);
                let mut reached = self.hub.waiters.wait(place);
                if reached.try_recv().is_ok() {
                    return Ok(position);
                }
                self.hub.pushes.request_catch_up(); // no push comes where no entry up to there is for this node
                if self.inner.reached(reached, begun, deadline).await? {
                    return Ok(position);
                }
            }
        }
        .boxed()
    }

    fn checkpoint<'a>(
        &'a self,
        checkpoints: &'a [(ConnectionId, Version, Checkpoint)],
    ) -> BoxFuture<'a, Result<(), BackplaneError>> {
        async move {
            for checkpoints in checkpoints.chunks(CHECKPOINTS) {
                let call = |(id, version, checkpoint): &(ConnectionId, Version, Checkpoint)| {
                    self.hub.scripts.checkpoint_call(id, *version, checkpoint)
                };
                let calls = checkpoints.iter().map(call).collect();
                self.hub
                    .scripts
                    .writer
                    .carry_out_all(calls, Patience::Short)
                    .await?;
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
            self.carry_out(|inner, hub| inner.park(hub, connection.clone(), version, checkpoint.cloned()))
                .await
        }
        .boxed()
    }
}
