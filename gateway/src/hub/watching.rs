//! Watching groups: their members, and each join and leave.

use std::collections::BTreeSet;

use hubcast_backplane::{ConnectionId, GroupName};
use serde::Serialize;

use super::members::MAX_PAGE;
use super::{Context, Groups, HubHandle, InGroup};
use crate::error::Error;

impl Context {
    /// Has the calling connection watch a group, whether it is in it or not: from here on it receives a message for each
    /// connection that joins the group or leaves it, in the order in which that happens, once each. Their target is
    /// `presence`; they have one argument:
    ///
    /// ```json
    /// {"event": "join", "group": "tea", "connectionId": "4yJcZgx0", "userId": "ann"}
    /// ```
    ///
    /// `event` is `join` or `leave`; `userId` is missing where there is no user. A connection leaves with its end, also
    /// by the death of its node. One with stateful reconnect stays as long as its client may come back.
    ///
    /// Watch first, then read [`InGroup::members`]: every change since the list was read comes as a message, perhaps
    /// besides some that the list has already. A join of a listed member, or a leave of another one, changes
    /// nothing. After Redis has lost its data connections join anew: read it again.
    ///
    /// A watch counts as one of `limits.groups_per_connection`, and ends with the connection or
    /// [`unwatch`](Self::unwatch).
    ///
    /// ```
    /// use hubcast::hub::MemberPage;
    /// use hubcast::testing::HubTester;
    /// use hubcast::{Context, Hub, HubError};
    ///
    /// async fn watch(context: Context, room: String) -> Result<MemberPage, HubError> {
    ///     context.watch(&room).await?;
    ///     Ok(context.hub().in_group(&room).members(None, 100).await?)
    /// }
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let hub = Hub::new("rooms").method("Watch", watch).configure(|hub| hub.hubs.presence = true);
    /// let tester = HubTester::new(hub).await?;
    /// let (mut ann, bob) = (tester.connect_as("ann").await, tester.connect_as("bob").await);
    /// let page: serde_json::Value = ann.invoke("Watch", ("tea",)).await?;
    /// assert_eq!(page["members"], serde_json::json!([]));
    /// tester.hub().groups().add(bob.id(), "tea").await?;
    /// let told: serde_json::Value = ann.expect("presence").await?.argument(0).ok_or("no argument")?;
    /// assert_eq!((&told["event"], &told["userId"]), (&"join".into(), &"bob".into()));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::NoPresence`] where the hub has not set `hubs.presence`; else as for [`join`](Self::join).
    pub async fn watch(&self, group: impl AsRef<str> + Send) -> Result<(), Error> {
        let groups = self.hub().groups();
        groups.watch(self.connection_id().as_str(), group).await
    }

    /// The reverse of [`watch`](Self::watch).
    ///
    /// # Errors
    /// As for [`leave`](Self::leave).
    pub async fn unwatch(&self, group: impl AsRef<str> + Send) -> Result<(), Error> {
        let groups = self.hub().groups();
        groups.unwatch(self.connection_id().as_str(), group).await
    }
}

impl Groups {
    /// Has a connection watch a group: see [`Context::watch`]. A connection that does not exist is ignored.
    ///
    /// # Errors
    /// [`Error::NoPresence`] where the hub has not set `hubs.presence`; else as for [`add`](Self::add).
    pub async fn watch(&self, connection: &str, group: impl AsRef<str> + Send) -> Result<(), Error> {
        let watched = GroupName::presence_of(&GroupName::parse(group)?);
        if !self.hub.announces_presence() {
            return Err(Error::NoPresence);
        }
        self.change_named(connection, &watched, true).await
    }

    /// The reverse of [`watch`](Self::watch).
    ///
    /// # Errors
    /// As for [`remove`](Self::remove).
    pub async fn unwatch(&self, connection: &str, group: impl AsRef<str> + Send) -> Result<(), Error> {
        let watched = GroupName::presence_of(&GroupName::parse(group)?);
        self.change_named(connection, &watched, false).await
    }
}

impl HubHandle {
    /// Returns whether groups of this hub can be watched (`hubs.presence`).
    #[must_use]
    pub fn announces_presence(&self) -> bool {
        self.runtime().options().hubs.presence
    }
}

impl InGroup {
    /// As [`connections`](Self::connections), with their users. It works on every hub. The work is that of the page, not
    /// of the group.
    ///
    /// ```
    /// use hubcast::testing::HubTester;
    /// use hubcast::Hub;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let tester = HubTester::new(Hub::new("games")).await?;
    /// let (ann, nobody) = (tester.connect_as("ann").await, tester.connect().await);
    /// for client in [&ann, &nobody] {
    ///     tester.hub().groups().add(client.id(), "chess").await?;
    /// }
    /// let page = tester.hub().in_group("chess").members(None, 100).await?;
    /// assert_eq!((page.members.len(), page.next.as_deref()), (2, None));
    /// assert_eq!(page.users().into_iter().collect::<Vec<_>>(), ["ann"]);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As for [`connections`](Self::connections).
    pub async fn members(&self, after: Option<&str>, limit: usize) -> Result<MemberPage, Error> {
        let (group, hub) = (self.group()?, self.hub.runtime());
        let after = after.map(ConnectionId::parse).transpose()?;
        let backplane = hub.backplane();
        let (limit, asked) = limited(limit);
        let mut found = backplane.present(group, after.as_ref(), asked).await?;
        let more = found.len() > limit;
        found.truncate(limit);
        let next = found.last().filter(|_| more);
        Ok(MemberPage {
            next: next.map(|last| last.connection.to_string()),
            members: found
                .into_iter()
                .map(|present| Member {
                    connection: present.connection.to_string(),
                    user: present.user.map(|user| user.to_string()),
                })
                .collect(),
        })
    }
}

/// A part of a list of a group's connections, in the order of their ids. A connection that is in the group all the time
/// while its pages are read is on exactly one of them. As an answer to clients it is `{"members": [{"connectionId": …,
/// "userId": …}], "next": …}`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct MemberPage {
    /// The connections.
    pub members: Vec<Member>,
    /// The value of `after` for the next page; `None` on the last one.
    pub next: Option<String>,
}

impl MemberPage {
    /// The users on this page, each once.
    #[must_use]
    pub fn users(&self) -> BTreeSet<&str> {
        let users = self.members.iter().filter_map(|member| member.user.as_deref());
        users.collect()
    }
}

/// A connection that is in a group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Member {
    /// The connection's id.
    #[serde(rename = "connectionId")]
    pub connection: String,
    /// The connection's user, if it has one.
    #[serde(rename = "userId", skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
}

/// The sizes of a page and of its query: one more shows whether there is another page.
pub(super) fn limited(limit: usize) -> (usize, usize) {
    let limit = limit.clamp(1, MAX_PAGE);
    (limit, limit.saturating_add(1))
}
