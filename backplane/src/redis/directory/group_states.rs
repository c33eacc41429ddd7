//! The states of members in their groups.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use crate::error::BackplaneError;
use crate::group_states::{GroupStates, MAX_GROUP_BYTES, MemberState, StateSet, StatesSnapshot};
use crate::position::{Epoch, Offset, Position};
use crate::redis::directory::connections::owned;
use crate::redis::feed::hub::Hub;
use crate::redis::hub::RedisHub;
use crate::redis::inner::Inner;
use crate::redis::script::arguments::Marked;
use crate::redis::script::calls::groups::{ReadStates, SetState};
use crate::redis::script::hub_scripts::HubScripts;
use crate::redis::script::invocation::Invocation;
use crate::redis::script::writer::Patience;
use crate::redis::server::commands::Repeat;
use crate::redis::server::replies::{decode, malformed};
use crate::topic::{ConnectionId, GroupName};

/// A state that is to be set.
struct Setting {
    id: ConnectionId,
    group: GroupName,
    state: Option<MemberState>,
    /// The name of the request, where it may be repeated.
    once: Option<String>,
    /// The state is set once more, for a server that may have forgotten it: one that is there is left as it is.
    again: bool,
}

impl HubScripts {
    /// `None` where this node does not own the connection.
    async fn set_state(&self, setting: &Setting) -> Result<Option<StateSet>, BackplaneError> {
        let Setting {
            id,
            group,
            state,
            once,
            again,
        } = setting;
        let call = Invocation::of(SetState {
            connection: self.keys.connection(id),
            request: once.as_ref().map(|once| self.keys.once(once)),
            owner: &self.node,
            id,
            group,
            state: state.as_ref().map(|state| Marked(state.json())),
            again: *again,
            most: MAX_GROUP_BYTES,
            group_prefix: self.keys.group_prefix(),
            request_life: once.as_ref().map(|_| self.options.life_ms()),
        });
        let answer: Option<i64> = decode(self.writer.carry_out(call, Patience::Long).await?)?;
        let set = |answer| match answer {
            0 => Ok(StateSet::Nothing),
            -1 => Ok(StateSet::Before),
            -2 => Ok(StateSet::NotMember),
            -3 => Ok(StateSet::GroupFull),
            other => Offset::try_from(other)
                .map(StateSet::Now)
                .map_err(|_| malformed(&format!("set_state answered {other}"))),
        };
        answer.map(set).transpose()
    }
}

impl Inner {
    async fn set_state(self: Arc<Self>, hub: Arc<Hub>, setting: Setting) -> Result<StateSet, BackplaneError> {
        self.check_admitted()?;
        let deadline = self.deadline();
        let _gate = self.pass_with(&hub, &setting.id, deadline).await?;
        let set = owned(hub.scripts.set_state(&setting).await?, &setting.id)?;
        if let StateSet::Now(_) | StateSet::Nothing = set {
            let mut local = hub.local.lock();
            local.set_state(&setting.id, &setting.group, setting.state.as_ref());
        }
        Ok(set)
    }

    /// Sets the states of a connection of this node once more, which the server may have forgotten with the connection.
    pub(in crate::redis) async fn register_states(
        &self,
        hub: &Hub,
        id: &ConnectionId,
    ) -> Result<(), BackplaneError> {
        let known = hub.local.lock().states(id);
        if known.is_empty() {
            return Ok(());
        }
        let _gate = hub.gate.write().await; // no change is under way
        let states = hub.local.lock().states(id);
        for (group, state) in states {
            let setting = Setting {
                id: id.clone(),
                group,
                state: Some(state),
                once: None,
                again: true,
            };
            hub.scripts.set_state(&setting).await?;
        }
        Ok(())
    }

    async fn states(&self, hub: &Hub, group: &GroupName) -> Result<StatesSnapshot, BackplaneError> {
        let call = Invocation::of(ReadStates {
            log: hub.scripts.keys.log(),
            states: hub.scripts.keys.states(group),
        });
        let answer = self.commands.script(&call, Repeat::Safe).await?;
        let (epoch, offset, items): (String, Offset, Vec<u8>) = decode(answer)?;
        Ok(StatesSnapshot {
            position: Position {
                epoch: Epoch::new(&epoch),
                offset,
            },
            items: Bytes::from(items),
        })
    }
}

impl GroupStates for RedisHub {
    fn set_state<'a>(
        &'a self,
        connection: &'a ConnectionId,
        group: &'a GroupName,
        state: Option<&'a MemberState>,
        once: Option<&'a str>,
    ) -> BoxFuture<'a, Result<StateSet, BackplaneError>> {
        async move {
            let setting = Setting {
                id: connection.clone(),
                group: group.clone(),
                state: state.cloned(),
                once: once.map(str::to_owned),
                again: false,
            };
            self.carry_out(|inner, hub| inner.set_state(hub, setting)).await
        }
        .boxed()
    }

    fn states<'a>(&'a self, group: &'a GroupName) -> BoxFuture<'a, Result<StatesSnapshot, BackplaneError>> {
        async move { self.inner.states(&self.hub, group).await }.boxed()
    }
}
