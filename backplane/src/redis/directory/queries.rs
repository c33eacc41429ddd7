//! Queries about groups, users and connections, as the server answers them.

use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use redis::{Cmd, FromRedisValue, Value};
use uuid::Uuid;

use crate::backplane::{ConnectionRecord, End};
use crate::directory::{
    ConnectionStatistics, Directory, Members, Parked, ParkedCursor, Present, USER_GROUP_TTL,
};
use crate::error::BackplaneError;
use crate::events::EventRecord;
use crate::redis::directory::removal::{Removal, removed};
use crate::redis::feed::hub::Hub;
use crate::redis::hub::RedisHub;
use crate::redis::inner::Inner;
use crate::redis::keys::HubKeys;
use crate::redis::script::calls::connections::CountConnections;
use crate::redis::script::calls::groups::{ReadPresent, UserGroups, UserJoin};
use crate::redis::script::calls::sessions::ListParked;
use crate::redis::script::hub_scripts::group_names;
use crate::redis::script::invocation::Invocation;
use crate::redis::script::writer::Patience;
use crate::redis::server::commands::Repeat;
use crate::redis::server::replies::{decode, items, malformed};
use crate::topic::{ConnectionId, GroupName, NodeId, UserId};

/// Parked connections that are looked at in one round trip.
const PARKED: u64 = 500;

impl HubKeys {
    /// Sorted set without scores: the connections of a group or a user.
    fn members(&self, of: Members<'_>) -> String {
        match of {
            Members::Group(group) => format!("{}{}", self.group_prefix(), group.stored()),
            Members::User(user) => format!("{}{}", self.user_prefix(), user.stored()),
        }
    }
}

impl Inner {
    async fn query<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, BackplaneError> {
        decode(self.commands.command(command, Repeat::Safe).await?)
    }

    async fn connection_statistics(&self, hub: &Hub) -> Result<ConnectionStatistics, BackplaneError> {
        // A dead node is in one of the two lists until its connections are removed, and for a moment in both.
        let mut nodes: Vec<String> = Vec::new();
        for key in [self.keys.beats(), self.keys.dying()] {
            let mut command = redis::cmd("HKEYS");
            command.arg(key);
            nodes.extend(self.query::<Vec<String>>(&command).await?);
        }
        nodes.sort();
        nodes.dedup();
        let nodes: Vec<_> = nodes
            .into_iter()
            .filter_map(|node| NodeId::parse(node).ok())
            .collect();
        let keys = &hub.scripts.keys;
        let call = Invocation::of(CountConnections {
            parked: keys.parked(),
            group_names: keys.group_names(),
            nodes: nodes.iter().map(|node| keys.node(node)).collect(),
        });
        let counts: Vec<u64> = decode(self.commands.script(&call, Repeat::Safe).await?)?;
        let [parked, groups, owned @ ..] = counts.as_slice() else {
            return Err(malformed("statistics of another length"));
        };
        Ok(ConnectionStatistics {
            nodes: nodes.into_iter().zip(owned.iter().copied()).collect(),
            parked: *parked,
            groups: *groups,
        })
    }

    async fn present(
        &self,
        hub: &Hub,
        group: &GroupName,
        after: Option<&ConnectionId>,
        limit: usize,
    ) -> Result<Vec<Present>, BackplaneError> {
        let keys = &hub.scripts.keys;
        let call = Invocation::of(ReadPresent {
            members: keys.members(Members::Group(group)),
            from: page_start(after),
            most: limit,
            connection_prefix: keys.connection_prefix(),
        });
        let found: Vec<(String, String)> = decode(self.commands.script(&call, Repeat::Safe).await?)?;
        let present = |(id, user): (String, String)| {
            Some(Present {
                connection: ConnectionId::parse(id).ok()?,
                user: UserId::from_stored(&user).ok(),
            })
        };
        Ok(found.into_iter().filter_map(present).collect())
    }

    async fn parked(
        &self,
        hub: &Hub,
        of: Option<Members<'_>>,
        from: ParkedCursor,
    ) -> Result<Parked, BackplaneError> {
        let keys = &hub.scripts.keys;
        let call = Invocation::of(ListParked {
            parked: keys.parked(),
            members: of.map(|of| keys.members(of)),
            cursor: from.0,
            count: PARKED,
        });
        let answer = items(self.commands.script(&call, Repeat::Safe).await?)?;
        let Ok([next, ids]) = <[Value; 2]>::try_from(answer) else {
            return Err(malformed("a list of parked connections of another length"));
        };
        let next: u64 = decode(next)?;
        Ok(Parked {
            connections: connections(decode(ids)?),
            next: (next > 0).then_some(ParkedCursor(next)),
        })
    }

    async fn remove_parked(
        &self,
        hub: &Hub,
        id: &ConnectionId,
        end: &End,
    ) -> Result<Option<ConnectionRecord>, BackplaneError> {
        let removal = Removal {
            name: &Uuid::new_v4().simple().to_string(),
            // Without a tombstone a repetition could not be distinguished from another caller's removal.
            tombstone: end.tombstone.max(Duration::from_secs(1)),
            early: true,
            reporter: Some(&self.options.node),
            report: end.report.as_ref(),
            reason: &end.reason,
            ..Removal::default()
        };
        let noted = hub.scripts.options.reports_ends && end.report.is_some();
        if noted {
            hub.ends.lock().begin(id.clone());
        }
        let call = hub.scripts.remove_call(id, &removal);
        let gone = hub
            .scripts
            .writer
            .carry_out(call, Patience::Short)
            .await
            .and_then(removed);
        if noted && !matches!(gone, Ok(Some(_))) {
            hub.ends.lock().abandon(id);
        }
        let Some(gone) = gone? else { return Ok(None) };
        hub.events.news.notify_waiters();
        if gone.left > 0 {
            self.unlist(&hub.scripts, vec![id.clone()]).await;
        }
        let reports = !noted || self.is_reporter(hub, id).await;
        Ok(reports.then(|| ConnectionRecord {
            id: id.clone(),
            user: gone.user,
            state: gone.state,
            event: EventRecord::default(),
        }))
    }

    async fn ask_user(
        &self,
        hub: &Hub,
        user: &UserId,
        group: Option<&GroupName>,
    ) -> Result<Value, BackplaneError> {
        let call = Invocation::of(UserGroups {
            user_groups: hub.scripts.keys.user_groups(user.stored()),
            group,
        });
        self.commands.script(&call, Repeat::Safe).await
    }
}

/// The beginning of a page of a sorted set without scores, as an argument of `ZRANGEBYLEX`.
fn page_start(after: Option<&ConnectionId>) -> String {
    after.map_or("-".to_owned(), |after| format!("({after}"))
}

fn connections(ids: Vec<String>) -> Vec<ConnectionId> {
    ids.into_iter()
        .filter_map(|id| ConnectionId::parse(id).ok())
        .collect()
}

/// Parses group names and sorts them, because the server's sets have no order.
fn in_order(names: &[String]) -> Vec<GroupName> {
    let mut groups = group_names(names);
    groups.sort();
    groups
}

impl Directory for RedisHub {
    fn count<'a>(&'a self, of: Members<'a>) -> BoxFuture<'a, Result<u64, BackplaneError>> {
        async move {
            let mut command = redis::cmd("ZCARD");
            command.arg(self.hub.scripts.keys.members(of));
            self.inner.query(&command).await
        }
        .boxed()
    }

    fn contains<'a>(
        &'a self,
        of: Members<'a>,
        connection: &'a ConnectionId,
    ) -> BoxFuture<'a, Result<bool, BackplaneError>> {
        async move {
            let mut command = redis::cmd("ZSCORE");
            command
                .arg(self.hub.scripts.keys.members(of))
                .arg(connection.as_str());
            let score: Option<String> = self.inner.query(&command).await?;
            Ok(score.is_some())
        }
        .boxed()
    }

    fn page<'a>(
        &'a self,
        of: Members<'a>,
        after: Option<&'a ConnectionId>,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<ConnectionId>, BackplaneError>> {
        async move {
            let mut command = redis::cmd("ZRANGEBYLEX");
            command
                .arg(self.hub.scripts.keys.members(of))
                .arg(page_start(after))
                .arg("+")
                .arg("LIMIT")
                .arg(0)
                .arg(limit);
            Ok(connections(self.inner.query(&command).await?))
        }
        .boxed()
    }

    fn present<'a>(
        &'a self,
        group: &'a GroupName,
        after: Option<&'a ConnectionId>,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<Present>, BackplaneError>> {
        async move { self.inner.present(&self.hub, group, after, limit).await }.boxed()
    }

    fn groups<'a>(
        &'a self,
        connection: &'a ConnectionId,
    ) -> BoxFuture<'a, Result<Vec<GroupName>, BackplaneError>> {
        async move {
            let mut command = redis::cmd("SMEMBERS");
            command.arg(self.hub.scripts.keys.groups(connection));
            let groups: Vec<String> = self.inner.query(&command).await?;
            Ok(in_order(&groups))
        }
        .boxed()
    }

    fn connection_statistics(&self) -> BoxFuture<'_, Result<ConnectionStatistics, BackplaneError>> {
        async move { self.inner.connection_statistics(&self.hub).await }.boxed()
    }

    fn join_user<'a>(
        &'a self,
        user: &'a UserId,
        group: &'a GroupName,
        ttl: Option<Duration>,
        most: usize,
    ) -> BoxFuture<'a, Result<(), BackplaneError>> {
        async move {
            let hub = &self.hub;
            let ttl = ttl.map_or(USER_GROUP_TTL, |ttl| ttl.min(USER_GROUP_TTL));
            let call = Invocation::of(UserJoin {
                user_groups: hub.scripts.keys.user_groups(user.stored()),
                group,
                life: ttl.as_millis().max(1),
                most: most.max(1),
            });
            hub.scripts.writer.carry_out(call, Patience::Long).await.map(drop)
        }
        .boxed()
    }

    fn leave_user<'a>(
        &'a self,
        user: &'a UserId,
        group: Option<&'a GroupName>,
    ) -> BoxFuture<'a, Result<(), BackplaneError>> {
        async move {
            let key = self.hub.scripts.keys.user_groups(user.stored());
            let mut command = redis::cmd(if group.is_some() { "ZREM" } else { "DEL" });
            command.arg(key).arg(group.map(GroupName::stored));
            self.inner
                .commands
                .command(&command, Repeat::Safe)
                .await
                .map(drop)
        }
        .boxed()
    }

    fn user_groups<'a>(&'a self, user: &'a UserId) -> BoxFuture<'a, Result<Vec<GroupName>, BackplaneError>> {
        async move {
            let groups: Vec<String> = decode(self.inner.ask_user(&self.hub, user, None).await?)?;
            Ok(in_order(&groups))
        }
        .boxed()
    }

    fn is_user_in<'a>(
        &'a self,
        user: &'a UserId,
        group: &'a GroupName,
    ) -> BoxFuture<'a, Result<bool, BackplaneError>> {
        async move { decode(self.inner.ask_user(&self.hub, user, Some(group)).await?) }.boxed()
    }

    fn parked<'a>(
        &'a self,
        of: Option<Members<'a>>,
        from: ParkedCursor,
    ) -> BoxFuture<'a, Result<Parked, BackplaneError>> {
        async move { self.inner.parked(&self.hub, of, from).await }.boxed()
    }

    fn remove_parked<'a>(
        &'a self,
        connection: &'a ConnectionId,
        end: End,
    ) -> BoxFuture<'a, Result<Option<ConnectionRecord>, BackplaneError>> {
        async move { self.inner.remove_parked(&self.hub, connection, &end).await }.boxed()
    }
}
