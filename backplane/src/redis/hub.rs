//! A hub that this node serves, as the gateway uses it.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::feed::hub::Hub;
use super::inner::Inner;
use crate::backplane::{Claim, ConnectionRecord, End};
use crate::connections::Connections;
use crate::error::BackplaneError;
use crate::hub::HubBackplane;
use crate::log::Log;
use crate::numbered::{Counted, Numbered};
use crate::once::{Once, Published};
use crate::position::{Epoch, Offset, Position};
use crate::sessions::Entered;
use crate::topic::{ConnectionId, GroupName, HubName, Topic};
use crate::wire::{Envelope, membership::Change};

/// An open hub of a node. Its parts are in the files of their subjects: `directory/sessions.rs`, `queries.rs`,
/// `history.rs` and `events.rs`.
pub(super) struct RedisHub {
    pub(super) inner: Arc<Inner>,
    pub(super) hub: Arc<Hub>,
}

impl RedisHub {
    /// Carries a change out to its end, also when the caller stops waiting: see [`Inner::finish`].
    pub(super) fn carry_out<T, F, C>(
        &self,
        change: C,
    ) -> impl Future<Output = Result<T, BackplaneError>> + use<T, F, C>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, BackplaneError>> + Send + 'static,
        C: FnOnce(Arc<Inner>, Arc<Hub>) -> F,
    {
        let change = change(Arc::clone(&self.inner), Arc::clone(&self.hub));
        self.inner.finish(change)
    }

    async fn change_group(
        &self,
        connection: &ConnectionId,
        group: &GroupName,
        change: Change,
    ) -> Result<Offset, BackplaneError> {
        self.carry_out(|inner, hub| inner.change_group(hub, connection.clone(), group.clone(), change))
            .await
    }
}

impl HubBackplane for RedisHub {
    fn name(&self) -> &HubName {
        &self.hub.name
    }
}

impl Log for RedisHub {
    fn epoch(&self) -> Epoch {
        self.hub.waiters.epoch()
    }

    fn position(&self) -> BoxFuture<'_, Result<Position, BackplaneError>> {
        async move {
            let extent = self.hub.scripts.extent(&self.inner.commands).await?;
            Ok(Position {
                epoch: extent.epoch,
                offset: extent.last,
            })
        }
        .boxed()
    }

    fn publish<'a>(
        &'a self,
        topics: &'a [Topic],
        envelope: &'a Envelope,
    ) -> BoxFuture<'a, Result<Vec<Option<Offset>>, BackplaneError>> {
        async move {
            if topics.is_empty() {
                return Ok(Vec::new());
            }
            self.inner
                .commands
                .check_publishing(&self.hub.scripts.keys.log())?;
            self.hub.scripts.publish(topics, envelope).await
        }
        .boxed()
    }

    fn publish_once<'a>(
        &'a self,
        topic: &'a Topic,
        envelope: &'a Envelope,
        once: &'a Once,
    ) -> BoxFuture<'a, Result<Published, BackplaneError>> {
        async move {
            self.inner
                .commands
                .check_publishing(&self.hub.scripts.keys.log())?;
            self.hub.scripts.publish_once(topic, envelope, once).await
        }
        .boxed()
    }

    fn counted<'a>(
        &'a self,
        key: &'a str,
        life: Duration,
        begins: bool,
    ) -> BoxFuture<'a, Result<Counted, BackplaneError>> {
        self.hub.scripts.count(key, life, begins).boxed()
    }

    fn publish_numbered<'a>(
        &'a self,
        topic: &'a Topic,
        envelope: &'a Envelope,
        numbered: Numbered<'a>,
    ) -> BoxFuture<'a, Result<Counted, BackplaneError>> {
        async move {
            self.inner
                .commands
                .check_publishing(&self.hub.scripts.keys.log())?;
            self.hub.scripts.publish_numbered(topic, envelope, numbered).await
        }
        .boxed()
    }

    fn passed(&self, offset: Offset) -> BoxFuture<'_, Result<(), BackplaneError>> {
        async move {
            let Some(reached) = self.hub.waiters.come_to(offset) else {
                return Ok(());
            };
            self.inner.passed(&self.hub, reached).await
        }
        .boxed()
    }
}

impl Connections for RedisHub {
    fn claim_of<'a>(
        &'a self,
        connection: &'a ConnectionRecord,
        epoch: Option<&'a Epoch>,
    ) -> BoxFuture<'a, Result<Claim, BackplaneError>> {
        async move {
            self.carry_out(|inner, hub| inner.claim(hub, connection.clone(), epoch.cloned()))
                .await
        }
        .boxed()
    }

    fn enter_with<'a>(
        &'a self,
        connection: &'a ConnectionRecord,
        groups: &'a [GroupName],
        claim: bool,
    ) -> BoxFuture<'a, Result<Entered, BackplaneError>> {
        async move {
            connection.event.check()?;
            self.carry_out(|inner, hub| inner.enter(hub, connection.clone(), groups.to_vec(), claim))
                .await
        }
        .boxed()
    }

    fn release<'a>(&'a self, connection: &'a ConnectionId) -> BoxFuture<'a, Result<(), BackplaneError>> {
        async move {
            self.carry_out(|inner, hub| inner.release(hub, connection.clone()))
                .await
        }
        .boxed()
    }

    fn remove<'a>(
        &'a self,
        connection: &'a ConnectionId,
        end: End,
    ) -> BoxFuture<'a, Result<bool, BackplaneError>> {
        async move {
            self.carry_out(|inner, hub| inner.remove(hub, connection.clone(), end))
                .await
        }
        .boxed()
    }

    fn end_reported(&self, connection: &ConnectionId) {
        self.inner.end_reported(&self.hub, connection);
    }

    fn join<'a>(
        &'a self,
        connection: &'a ConnectionId,
        group: &'a GroupName,
    ) -> BoxFuture<'a, Result<Offset, BackplaneError>> {
        self.change_group(connection, group, Change::Joined).boxed()
    }

    fn leave<'a>(
        &'a self,
        connection: &'a ConnectionId,
        group: &'a GroupName,
    ) -> BoxFuture<'a, Result<Offset, BackplaneError>> {
        self.change_group(connection, group, Change::Left).boxed()
    }
}
