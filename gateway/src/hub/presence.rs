//! Ending connections and changing the groups of users, wherever the connections are.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, StreamExt};
use hubcast_backplane::{
    BackplaneError, ConnectionId, ConnectionRecord, GroupName, Listing, Members, ParkedCursor, Topic, UserId,
    wire,
};
use tokio::time::{sleep, timeout};

use super::members::{MAX_PAGE, MAX_REASON_BYTES};
use super::peers::Closing;
use super::{Disconnected, HubRuntime};
use crate::error::Error;
use crate::session::{CloseReason, Session};

/// Connections that are changed at the same time, on behalf of one call.
const AT_ONCE: usize = 16;
/// How often, and how long apart, a connection is looked for that is on its way to another node.
const ATTEMPTS: (usize, Duration) = (5, Duration::from_millis(50));

/// How long a connection takes at most to be closed by its log, as a rule.
const CLOSED: Duration = Duration::from_secs(1);

impl HubRuntime {
    /// Ends a connection. Answers whether there was one.
    pub(crate) async fn close_connection(
        self: &Arc<Self>,
        connection: &ConnectionId,
        reason: Option<&str>,
    ) -> Result<bool, Error> {
        let reason = checked(reason)?;
        for _ in 0..ATTEMPTS.0 {
            let listing = self.look_up(connection).await?;
            let Some(listing) = listing else {
                return Ok(false);
            };
            let closed = if listing.state.is_some() {
                self.close_stateful(connection, &listing, reason.clone()).await?
            } else {
                self.close_plain(connection, &listing, reason.clone()).await?
            };
            if closed == Closing::Ends {
                return Ok(true);
            }
            sleep(ATTEMPTS.1).await; // it has just ended, or is on its way between two nodes
        }
        Err(BackplaneError::Unavailable {
            waited: ATTEMPTS
                .1
                .saturating_mul(u32::try_from(ATTEMPTS.0).unwrap_or(u32::MAX)),
            reason: "the connection is on its way to another node; try again".to_owned(),
        }
        .into())
    }

    /// Has its owner end it.
    async fn close_plain(
        self: &Arc<Self>,
        connection: &ConnectionId,
        listing: &Listing,
        reason: Option<String>,
    ) -> Result<Closing, Error> {
        let Some(owner) = &listing.owner else {
            return Ok(Closing::NotHere);
        };
        if owner == self.shared().backplane().node() {
            let session = self.find_settled(connection).await;
            return Ok(match session {
                Some(session) => session.close_for_good(reason).await,
                None => Closing::NotHere,
            });
        }
        Ok(self
            .shared()
            .peers()
            .close(self, owner, connection, reason)
            .await?)
    }

    /// Ends it by its log: whichever node has it when it comes to that place, or goes on with it later, ends it.
    async fn close_stateful(
        self: &Arc<Self>,
        connection: &ConnectionId,
        listing: &Listing,
        reason: Option<String>,
    ) -> Result<Closing, Error> {
        let topic = Topic::Connection(connection.clone());
        if self.publish_close(topic, reason, Vec::new()).await? == Closing::NotHere {
            return Ok(Closing::NotHere);
        }
        if listing.owner.is_none() {
            self.remove_parked(connection, Disconnected::ByServer).await?;
        }
        Ok(Closing::Ends)
    }

    /// Ends the connections of a group, a user or the hub but those of `except`.
    pub(crate) async fn close_all(
        self: &Arc<Self>,
        of: Option<Members<'_>>,
        reason: Option<&str>,
        except: Vec<String>,
    ) -> Result<(), Error> {
        let topic = match of {
            None => Topic::All,
            Some(Members::Group(group)) => Topic::Group(group.clone()),
            Some(Members::User(user)) => Topic::User(user.clone()),
        };
        self.publish_close(topic, checked(reason)?, except.clone())
            .await?;
        // Connections that no node owns would hear of it when they are taken over, and count until then.
        let spared: HashSet<&str> = except.iter().map(String::as_str).collect();
        let mut next = Some(ParkedCursor::default());
        while let Some(from) = next {
            let backplane = self.backplane();
            let mut parked = backplane.parked(of, from).await?;
            parked.connections.retain(|id| !spared.contains(id.as_str()));
            for_each(parked.connections, |id| async move {
                self.remove_parked(&id, Disconnected::ByServer).await
            })
            .await?;
            next = parked.next;
        }
        Ok(())
    }

    /// Appends to a topic that its connections end.
    async fn publish_close(
        &self,
        topic: Topic,
        reason: Option<String>,
        except: Vec<String>,
    ) -> Result<Closing, Error> {
        let envelope = wire::Envelope {
            close: Some(Box::new(wire::Close { reason, lost: false })),
            except,
            ..wire::Envelope::default()
        };
        let backplane = self.backplane();
        let receipts = backplane.publish(&[topic], &envelope).await?;
        Ok(if receipts.iter().any(Option::is_some) {
            Closing::Ends
        } else {
            Closing::NotHere // there is no connection of that id
        })
    }

    /// Removes a connection that no node owns, if it is one, and runs the hub's hook.
    pub(crate) async fn remove_parked(
        self: &Arc<Self>,
        connection: &ConnectionId,
        reason: Disconnected,
    ) -> Result<(), Error> {
        let backplane = self.backplane();
        let removed = backplane.remove_parked(connection, self.end(Some(&reason)));
        if let Some(record) = removed.await? {
            self.removed(record, reason);
        }
        Ok(())
    }

    /// Runs the hub's hook for an ended connection that no node ran.
    fn removed(self: &Arc<Self>, record: ConnectionRecord, reason: Disconnected) {
        let hub = Arc::clone(self);
        self.shared()
            .tasks()
            .spawn(async move { hub.ended_elsewhere(record, reason).await });
    }

    /// Puts a user's connections into a group: the present ones, and for a time those that come.
    pub(crate) async fn join_user(
        self: &Arc<Self>,
        user: &UserId,
        group: &GroupName,
        ttl: Option<Duration>,
    ) -> Result<(), Error> {
        if ttl != Some(Duration::ZERO) {
            // First, so that a connection that comes meanwhile is listed below or finds this.
            let most = self.options().limits.groups_per_connection;
            let backplane = self.backplane();
            backplane.join_user(user, group, ttl, most).await?;
        }
        self.for_each_of(
            user,
            |id| async move { self.change_group(&id, group, true).await },
        )
        .await
    }

    /// Takes a user's connections out of a group, or of all.
    pub(crate) async fn leave_user(
        self: &Arc<Self>,
        user: &UserId,
        group: Option<&GroupName>,
    ) -> Result<(), Error> {
        let backplane = self.backplane();
        backplane.leave_user(user, group).await?;
        self.for_each_of(user, |id| async move {
            match group {
                Some(group) => self.change_group(&id, group, false).await,
                None => self.leave_all_groups(&id).await,
            }
        })
        .await
    }

    pub(crate) async fn groups_of(&self, connection: &ConnectionId) -> Result<Vec<GroupName>, Error> {
        Ok(self.backplane().groups(connection).await?)
    }

    pub(crate) async fn leave_all_groups(self: &Arc<Self>, connection: &ConnectionId) -> Result<(), Error> {
        let groups = self.groups_of(connection).await?;
        for_each(groups, |group| async move {
            self.change_group(connection, &group, false).await
        })
        .await
    }

    /// Joins a connection that has just entered to the groups of its user.
    pub(crate) async fn join_groups_of_user(
        &self,
        session: &Session,
        groups: Vec<GroupName>,
    ) -> Result<(), Error> {
        let Some(user) = session.connection().user().filter(|_| !groups.is_empty()) else {
            return Ok(());
        };
        for_each(groups.clone(), |group| async move {
            match self.change_local_group(session.id(), &group, true).await {
                Err(error @ Error::TooManyGroups { .. }) => {
                    tracing::warn!(hub = %self.name(), connection_id = %session.id(), %error, "a connection can't join all groups of its user");
                    Ok(())
                }
                joined => joined,
            }
        })
        .await?;
        // Another node may have taken the user out of a group before this connection joined it.
        let current = self.backplane().user_groups(user).await?;
        let left = groups.into_iter().filter(|group| !current.contains(group));
        for_each(left.collect(), |group| async move {
            self.change_local_group(session.id(), &group, false).await
        })
        .await
    }

    /// Does something to each connection of a user, page by page.
    async fn for_each_of<F>(&self, user: &UserId, change: impl Fn(ConnectionId) -> F) -> Result<(), Error>
    where
        F: Future<Output = Result<(), Error>>,
    {
        let (mut after, mut outcome) = (None, Ok(()));
        loop {
            let backplane = self.backplane();
            let of = Members::User(user);
            let page = backplane.page(of, after.as_ref(), MAX_PAGE).await?;
            let last = page.last().cloned().filter(|_| page.len() == MAX_PAGE);
            outcome = outcome.and(for_each(page, &change).await);
            match last {
                Some(last) => after = Some(last),
                None => return outcome,
            }
        }
    }
}

impl Session {
    /// Ends the connection with a reason for its client, after the messages that were sent to it before, unless it goes on
    /// on another node.
    pub(crate) async fn close_for_good(&self, reason: Option<String>) -> Closing {
        if self.receives() {
            let topic = Topic::Connection(self.id().clone());
            let closing = self.hub().publish_close(topic, reason.clone(), Vec::new());
            if let Err(error) = closing.await {
                tracing::debug!(connection_id = %self.id(), %error, "a connection is closed before what was sent to it");
            } else {
                let _ = timeout(CLOSED, self.closing().cancelled()).await;
            }
        }
        self.close(CloseReason::Closed { reason }); // where its log did not
        if self.has_moved() {
            Closing::NotHere
        } else {
            Closing::Ends
        }
    }

    /// Returns whether the application has closed the connection.
    pub(crate) fn is_closed(&self) -> bool {
        matches!(self.reason(), Some(CloseReason::Closed { .. }))
    }
}

/// Does something to each, several at a time. All are tried; the first error is the outcome.
async fn for_each<T, F>(items: Vec<T>, change: impl Fn(T) -> F) -> Result<(), Error>
where
    F: Future<Output = Result<(), Error>>,
{
    let mut changes = stream::iter(items.into_iter().map(change)).buffer_unordered(AT_ONCE);
    let mut outcome = Ok(());
    while let Some(changed) = changes.next().await {
        outcome = outcome.and(changed);
    }
    outcome
}

fn checked(reason: Option<&str>) -> Result<Option<String>, Error> {
    match reason {
        Some(reason) if reason.len() > MAX_REASON_BYTES => Err(Error::ReasonTooLong {
            length: reason.len(),
            limit: MAX_REASON_BYTES,
        }),
        reason => Ok(reason.map(str::to_owned)),
    }
}
