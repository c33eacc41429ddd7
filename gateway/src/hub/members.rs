//! The connections of the whole cluster: listing, counting and ending them, wherever they are.
//!
//! Everything begins at a [`HubHandle`]; choosing costs nothing and can't fail:
//!
//! | call | gives |
//! | --- | --- |
//! | `hub.in_group(g)` | [`InGroup`]: `exists`, `count`, `contains(connection)`, `connections(after, limit)`, `members(after, limit)`, `close_all(reason, except)` |
//! | `hub.of_user(u)` | [`OfUser`]: `exists`, `count`, `connections(after, limit)`, `groups`, `is_in(g)`, `join(g, ttl)`, `leave(g)`, `leave_all`, `close_all(reason, except)` |
//! | `hub.of_connection(c)` | [`OfConnection`]: `exists`, `user`, `groups`, `leave_all`, `close(reason)` |
//! | `hub.close_all(reason, except)` | ends every connection of the hub |
//! | `hub.connection_statistics()` | [`ConnectionStatistics`]: connections, on which node, groups |
//! | `hub.rebalance(settled)` | [`Rebalance`](crate::drain::Rebalance): nodes with many connections let some go |
//!
//! Each is async and answers `Result<_, Error>`. Questions cost the backplane the same however many connections there
//! are, and no node is asked. Unknown ids are no error: no connection has them. What can't be a group's
//! name or a user's id where one is needed is [`Error::Name`]; a backplane or node that can't be reached is
//! [`Error::Backplane`], transient, and the call may be tried again.

use std::time::Duration;

use hubcast_backplane::{ConnectionId, GroupName, Members, NameError, UserId};

use super::HubHandle;
use super::of_connection::OfConnection;
use super::watching::limited;
use crate::error::Error;

/// Most connections of one [`Page`].
pub const MAX_PAGE: usize = 1_000;
/// Longest reason for closing connections, in bytes.
pub const MAX_REASON_BYTES: usize = 4_096;

/// A part of a list of connections, in the order of their ids. A connection that is in the list all the time while its
/// pages are read is on exactly one of them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Page {
    /// Their ids.
    pub connections: Vec<String>,
    /// The value of `after` for the next page; `None` on the last one.
    pub next: Option<String>,
}

/// The connections of a hub, everywhere.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConnectionStatistics {
    /// All of them.
    pub connections: u64,
    /// How many each node has, in the order of the nodes' ids. A node that died has its own until they are removed.
    pub nodes: Vec<(String, u64)>,
    /// Connections among them with stateful reconnect that no node has: their clients may come back.
    pub parked: u64,
    /// Groups that have a connection.
    pub groups: u64,
}

impl HubHandle {
    /// The connections of a group.
    #[must_use]
    pub fn in_group(&self, group: impl AsRef<str>) -> InGroup {
        InGroup {
            hub: self.clone(),
            group: GroupName::parse(group),
        }
    }

    /// The connections of a user, and the groups that they join when they come.
    #[must_use]
    pub fn of_user(&self, user: impl AsRef<str>) -> OfUser {
        OfUser {
            hub: self.clone(),
            user: UserId::parse(user),
        }
    }

    /// One connection.
    #[must_use]
    pub fn of_connection(&self, connection: impl AsRef<str>) -> OfConnection {
        OfConnection {
            hub: self.clone(),
            connection: ConnectionId::parse(connection).ok(),
        }
    }

    /// Ends every connection of the hub but those of `except`, on all nodes: see [`InGroup::close_all`].
    ///
    /// # Errors
    /// [`Error::ReasonTooLong`], or a backplane that can't be reached.
    pub async fn close_all<I>(&self, reason: Option<&str>, except: I) -> Result<(), Error>
    where
        I: IntoIterator,
        I::Item: Into<String>,
    {
        self.runtime().close_all(None, reason, collect(except)).await
    }

    /// Counts the hub's connections.
    ///
    /// ```
    /// use hubcast::testing::HubTester;
    /// use hubcast::Hub;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let tester = HubTester::new(Hub::new("games")).await?;
    /// let (ann, _bob) = (tester.connect_as("ann").await, tester.connect_as("bob").await);
    /// tester.hub().groups().add(ann.id(), "chess").await?;
    /// let statistics = tester.hub().connection_statistics().await?;
    /// assert_eq!((statistics.connections, statistics.groups, statistics.nodes.len()), (2, 1, 1));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// A backplane that can't be reached.
    pub async fn connection_statistics(&self) -> Result<ConnectionStatistics, Error> {
        let hub = self.runtime();
        let statistics = hub.backplane().connection_statistics().await?;
        let owned: u64 = statistics.nodes.iter().map(|(_, count)| count).sum();
        let mut nodes: Vec<_> = statistics
            .nodes
            .into_iter()
            .map(|(node, count)| (node.to_string(), count))
            .collect();
        nodes.sort();
        Ok(ConnectionStatistics {
            connections: owned.saturating_add(statistics.parked),
            nodes,
            parked: statistics.parked,
            groups: statistics.groups,
        })
    }
}

/// The connections of a group, on whatever node they are: [`HubHandle::in_group`].
///
/// ```
/// use hubcast::testing::HubTester;
/// use hubcast::Hub;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let tester = HubTester::new(Hub::new("games")).await?;
/// let (mut ann, bob) = (tester.connect().await, tester.connect().await);
/// for client in [&ann, &bob] {
///     tester.hub().groups().add(client.id(), "chess").await?;
/// }
/// let chess = tester.hub().in_group("chess");
/// assert!(chess.exists().await? && chess.contains(ann.id()).await?);
/// assert_eq!(chess.count().await?, 2);
///
/// let first = chess.connections(None, 1).await?;
/// let second = chess.connections(first.next.as_deref(), 1).await?;
/// assert_eq!((second.connections.len(), second.next), (1, None));
///
/// chess.close_all(Some("The game is over."), [bob.id()]).await?;
/// assert_eq!(ann.closed().await.error.as_deref(), Some("The game is over."));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct InGroup {
    pub(super) hub: HubHandle,
    group: Result<GroupName, NameError>,
}

impl InGroup {
    /// Returns whether a connection is in the group.
    ///
    /// # Errors
    /// [`Error::Name`], or a backplane that can't be reached.
    pub async fn exists(&self) -> Result<bool, Error> {
        Ok(self.count().await? > 0)
    }

    /// How many connections are in the group.
    ///
    /// # Errors
    /// As for [`exists`](Self::exists).
    pub async fn count(&self) -> Result<u64, Error> {
        count(&self.hub, Members::Group(self.group()?)).await
    }

    /// Returns whether a connection is in the group.
    ///
    /// # Errors
    /// As for [`exists`](Self::exists).
    pub async fn contains(&self, connection: impl AsRef<str> + Send) -> Result<bool, Error> {
        let group = self.group()?;
        let Ok(connection) = ConnectionId::parse(connection) else {
            return Ok(false); // no connection has such an id
        };
        let hub = self.hub.runtime();
        let backplane = hub.backplane();
        Ok(backplane.contains(Members::Group(group), &connection).await?)
    }

    /// The connections of the group that come after `after`, at most `limit` of them and at most [`MAX_PAGE`].
    ///
    /// # Errors
    /// [`Error::Name`] for a name or an `after` that can't be used, or a backplane that can't be reached.
    pub async fn connections(&self, after: Option<&str>, limit: usize) -> Result<Page, Error> {
        page(&self.hub, Members::Group(self.group()?), after, limit).await
    }

    /// Ends the connections of the group but those of `except`. Their clients get `reason` as the error of their
    /// end, and don't reconnect by themselves.
    ///
    /// It has a place in the hub's log, like a message: the members at that place are closed, after messages
    /// sent before, also while it moves to another node. When this returns, the place is certain, and connections end
    /// soon after.
    ///
    /// # Errors
    /// [`Error::Name`], [`Error::ReasonTooLong`], or a backplane that can't be reached.
    pub async fn close_all<I>(&self, reason: Option<&str>, except: I) -> Result<(), Error>
    where
        I: IntoIterator,
        I::Item: Into<String>,
    {
        let group = Members::Group(self.group()?);
        self.hub
            .runtime()
            .close_all(Some(group), reason, collect(except))
            .await
    }

    pub(super) fn group(&self) -> Result<&GroupName, Error> {
        self.group.as_ref().map_err(|error| error.clone().into())
    }
}

/// A user: the connections that it has, on whatever node, and the groups that its connections join when they come.
/// [`HubHandle::of_user`] gives it.
///
/// ```
/// use std::time::Duration;
/// use hubcast::testing::HubTester;
/// use hubcast::Hub;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let tester = HubTester::new(Hub::new("news")).await?;
/// let ann = tester.hub().of_user("ann");
/// ann.join("sports", Some(Duration::from_secs(3_600))).await?;
/// assert!(ann.is_in("sports").await? && !ann.exists().await?);
///
/// let client = tester.connect_as("ann").await;
/// assert_eq!(client.groups(), ["sports"]);
/// assert_eq!(ann.connections(None, 10).await?.connections, [client.id()]);
///
/// ann.leave("sports").await?;
/// assert!(client.groups().is_empty() && ann.groups().await?.is_empty());
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct OfUser {
    hub: HubHandle,
    user: Result<UserId, NameError>,
}

impl OfUser {
    /// Returns whether the user has a connection.
    ///
    /// # Errors
    /// A backplane that can't be reached.
    pub async fn exists(&self) -> Result<bool, Error> {
        Ok(self.count().await? > 0)
    }

    /// How many connections the user has.
    ///
    /// # Errors
    /// A backplane that can't be reached.
    pub async fn count(&self) -> Result<u64, Error> {
        match &self.user {
            Ok(user) => count(&self.hub, Members::User(user)).await,
            Err(_) => Ok(0), // no user has such an id
        }
    }

    /// The connections of the user that come after `after`, at most `limit` of them and at most [`MAX_PAGE`].
    ///
    /// # Errors
    /// [`Error::Name`] for an `after` that can't be used, or a backplane that can't be reached.
    pub async fn connections(&self, after: Option<&str>, limit: usize) -> Result<Page, Error> {
        match &self.user {
            Ok(user) => page(&self.hub, Members::User(user), after, limit).await,
            Err(_) => Ok(Page::default()),
        }
    }

    /// The groups that the user was put into with [`join`](Self::join), in order. Groups that only single connections
    /// joined are not among them.
    ///
    /// # Errors
    /// A backplane that can't be reached.
    pub async fn groups(&self) -> Result<Vec<String>, Error> {
        let Ok(user) = &self.user else {
            return Ok(Vec::new());
        };
        let hub = self.hub.runtime();
        let groups = hub.backplane().user_groups(user).await?;
        Ok(groups.iter().map(ToString::to_string).collect())
    }

    /// Returns whether the user was put into a group with [`join`](Self::join), and is still.
    ///
    /// # Errors
    /// [`Error::Name`] for the group, or a backplane that can't be reached.
    pub async fn is_in(&self, group: impl AsRef<str> + Send) -> Result<bool, Error> {
        let group = GroupName::parse(group)?;
        let Ok(user) = &self.user else {
            return Ok(false);
        };
        let hub = self.hub.runtime();
        let backplane = hub.backplane();
        Ok(backplane.is_user_in(user, &group).await?)
    }

    /// Puts the user into a group: the connections that it has, and those that come within `ttl`, before they are
    /// notified that they are connected. When this returns, messages to the group reach the present ones. A connection
    /// that joined stays when the time is over.
    ///
    /// Without `ttl` it is a year from the last such call, the most; a `ttl` of zero is for present connections only. A
    /// user is in at most `limits.groups_per_connection` groups: one more takes the place of the one whose time
    /// ends first. The backplane's server alone remembers it: one that loses its data forgets, though present
    /// connections stay in their groups.
    ///
    /// # Errors
    /// [`Error::Name`] for user or group, [`Error::TooManyGroups`] when a connection of the user can't join one more
    /// (the others have), or a backplane or node that can't be reached: the call may be repeated.
    pub async fn join(&self, group: impl AsRef<str> + Send, ttl: Option<Duration>) -> Result<(), Error> {
        let group = GroupName::parse(group)?;
        self.hub.runtime().join_user(self.user()?, &group, ttl).await
    }

    /// Takes the user's connections out of a group, those too that joined by themselves, and forgets
    /// [`join`](Self::join).
    ///
    /// # Errors
    /// [`Error::Name`] for user or group, or a backplane or node that can't be reached.
    pub async fn leave(&self, group: impl AsRef<str> + Send) -> Result<(), Error> {
        let group = GroupName::parse(group)?;
        self.hub.runtime().leave_user(self.user()?, Some(&group)).await
    }

    /// Takes the user's connections out of all groups, those too that they joined by themselves. What they watch they go
    /// on watching.
    ///
    /// # Errors
    /// [`Error::Name`] for the user, or a backplane or node that can't be reached.
    pub async fn leave_all(&self) -> Result<(), Error> {
        self.hub.runtime().leave_user(self.user()?, None).await
    }

    /// Ends the connections of the user but those of `except`: see [`InGroup::close_all`].
    ///
    /// # Errors
    /// [`Error::ReasonTooLong`], or a backplane that can't be reached.
    pub async fn close_all<I>(&self, reason: Option<&str>, except: I) -> Result<(), Error>
    where
        I: IntoIterator,
        I::Item: Into<String>,
    {
        match &self.user {
            Ok(user) => {
                let hub = self.hub.runtime();
                hub.close_all(Some(Members::User(user)), reason, collect(except))
                    .await
            }
            Err(_) => Ok(()), // no user has such an id
        }
    }

    fn user(&self) -> Result<&UserId, Error> {
        self.user.as_ref().map_err(|error| error.clone().into())
    }
}

async fn count(hub: &HubHandle, of: Members<'_>) -> Result<u64, Error> {
    let hub = hub.runtime();
    Ok(hub.backplane().count(of).await?)
}

async fn page(hub: &HubHandle, of: Members<'_>, after: Option<&str>, limit: usize) -> Result<Page, Error> {
    let after = after.map(ConnectionId::parse).transpose()?;
    let (limit, asked) = limited(limit);
    let hub = hub.runtime();
    let backplane = hub.backplane();
    let mut found = backplane.page(of, after.as_ref(), asked).await?;
    let more = found.len() > limit;
    found.truncate(limit);
    let next = found.last().filter(|_| more).map(ToString::to_string);
    Ok(Page {
        connections: found.iter().map(ToString::to_string).collect(),
        next,
    })
}

fn collect<I>(except: I) -> Vec<String>
where
    I: IntoIterator,
    I::Item: Into<String>,
{
    except.into_iter().map(Into::into).collect()
}
