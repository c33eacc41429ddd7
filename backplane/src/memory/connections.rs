//! The life of connections: claimed, entered, in groups, removed.

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::hub::{HubState, MemoryHub};
use super::lane::Item;
use super::sessions::Session;
use crate::backplane::{Claim, ConnectionRecord, Delivery, End};
use crate::connections::Connections;
use crate::error::BackplaneError;
use crate::position::{Epoch, Offset, Position};
use crate::replay::Past;
use crate::sessions::{Entered, Version};
use crate::topic::{ConnectionId, GroupName, Topic};

impl Connections for MemoryHub {
    fn claim_of<'a>(
        &'a self,
        connection: &'a ConnectionRecord,
        _epoch: Option<&'a Epoch>,
    ) -> BoxFuture<'a, Result<Claim, BackplaneError>> {
        async move { Ok(self.state.lock().claim(&self.node, connection)) }.boxed()
    }

    fn enter_with<'a>(
        &'a self,
        connection: &'a ConnectionRecord,
        groups: &'a [GroupName],
        claim: bool,
    ) -> BoxFuture<'a, Result<Entered, BackplaneError>> {
        async move {
            connection.event.check()?;
            let (mut version, mut awaiting) = (Version(0), Vec::new());
            let offset = self
                .change(&connection.id, |state| {
                    if claim && state.claim(&self.node, connection) != Claim::Claimed {
                        return None;
                    }
                    let known = state.connections.get(&connection.id)?;
                    if known.parked.is_some() {
                        return None;
                    }
                    version = known.version;
                    if let Some(user) = &known.user {
                        awaiting = state.members.user_groups(user);
                    }
                    let entered = state.enter(&connection.id, groups)?;
                    let at = state.log.next(); // the offset of this change's entry
                    if let Some(kept) = &connection.state {
                        let known = state.connections.get_mut(&connection.id)?;
                        known.session = Some(Session::new(kept.clone(), &self.epoch, at));
                    }
                    state.report_connected(&connection.id, &self.epoch, at, &connection.event);
                    Some(entered)
                })
                .await?;
            let position = Position {
                epoch: self.epoch.clone(),
                offset,
            };
            Ok(Entered {
                position,
                version,
                groups: awaiting,
            })
        }
        .boxed()
    }

    fn release<'a>(&'a self, id: &'a ConnectionId) -> BoxFuture<'a, Result<(), BackplaneError>> {
        async move {
            let removed = self.state.lock().take_owned(id, "");
            if removed {
                Ok(())
            } else {
                Err(BackplaneError::NotOwner {
                    connection: id.clone(),
                })
            }
        }
        .boxed()
    }

    fn remove<'a>(&'a self, id: &'a ConnectionId, end: End) -> BoxFuture<'a, Result<bool, BackplaneError>> {
        async move {
            let removed = self
                .removing(|state| {
                    let removed = state.take_owned(id, &end.reason);
                    if removed {
                        state
                            .tombstones
                            .insert(id.clone(), Instant::now() + end.tombstone);
                    }
                    removed
                })
                .await;
            Ok(removed)
        }
        .boxed()
    }

    /// No other node could report an end in place of this one: there is no end record to delete.
    fn end_reported(&self, _connection: &ConnectionId) {}

    fn join<'a>(
        &'a self,
        id: &'a ConnectionId,
        group: &'a GroupName,
    ) -> BoxFuture<'a, Result<Offset, BackplaneError>> {
        self.change(id, |state| {
            let connection = state.connections.get_mut(id)?;
            let (real, owned) = (
                connection.groups.insert(group.clone()),
                connection.parked.is_none(),
            );
            let topic = Topic::Group(group.clone());
            state.list(&topic, id);
            if real && owned {
                state.gain(topic.clone());
            }
            Some(TopicsChange::new(true, vec![topic], real, owned))
        })
        .boxed()
    }

    fn leave<'a>(
        &'a self,
        id: &'a ConnectionId,
        group: &'a GroupName,
    ) -> BoxFuture<'a, Result<Offset, BackplaneError>> {
        self.change(id, |state| {
            let connection = state.connections.get_mut(id)?;
            let (real, owned) = (connection.groups.remove(group), connection.parked.is_none());
            let topic = Topic::Group(group.clone());
            let user = connection.user.clone();
            state.unlist(&topic, id, user.as_ref());
            if real && owned {
                state.lose(&topic);
            }
            Some(TopicsChange::new(false, vec![topic], real, owned))
        })
        .boxed()
    }
}

impl MemoryHub {
    /// Applies a change of membership, logs it in the same step and waits until the sink was given it.
    pub(super) async fn change(
        &self,
        id: &ConnectionId,
        apply: impl FnOnce(&mut HubState) -> Option<TopicsChange>,
    ) -> Result<Offset, BackplaneError> {
        let room = self.room().await?;
        let (done, given) = oneshot::channel();
        let offset = {
            let mut state = self.state.lock();
            let change = apply(&mut state).ok_or_else(|| BackplaneError::NotOwner {
                connection: id.clone(),
            })?;
            let offset = state.log.append(&Topic::Connection(id.clone()), None);
            if let (true, Some(session)) = (
                change.real,
                state
                    .connections
                    .get_mut(id)
                    .and_then(|connection| connection.session.as_mut()),
            ) {
                session.changed(
                    Past {
                        offset,
                        topics: change.topics.clone(),
                        joined: change.joined,
                    },
                    self.options.retention_messages,
                );
            }
            let deliveries = std::mem::take(&mut state.deliveries);
            if !change.owned {
                room.send(Item {
                    deliveries,
                    ..Item::default()
                }); // the change itself is not delivered: the connection is parked
                return Ok(offset);
            }
            room.send(Item {
                deliveries,
                delivery: Some(change.delivery(id.clone(), offset)),
                done: Some(done),
            });
            offset
        };
        given.await.map_err(|_| BackplaneError::Closed)?;
        Ok(offset)
    }
}

pub(super) struct TopicsChange {
    joined: bool,
    topics: Vec<Topic>,
    /// True if the change is a real one: the membership was different before.
    real: bool,
    /// True if this node owns the connection.
    owned: bool,
}

impl TopicsChange {
    pub(super) fn new(joined: bool, topics: Vec<Topic>, real: bool, owned: bool) -> Self {
        Self {
            joined,
            topics,
            real,
            owned,
        }
    }

    fn delivery(self, connection: ConnectionId, offset: Offset) -> Delivery {
        let topics = self.topics;
        if self.joined {
            Delivery::Joined {
                connection,
                topics,
                offset,
            }
        } else {
            Delivery::Left {
                connection,
                topics,
                offset,
            }
        }
    }
}
