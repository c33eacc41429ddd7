//! Many connections into groups, out of them, or ended: those that a filter admits, on whatever node they are.
//!
//! Each node asks the filter of its own connections. A connection that moves from one node to another just then may be
//! left out, or be asked twice.

use std::collections::HashSet;
use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::stream;
use hubcast_backplane::{ConnectionId, GroupName, NameError, ParkedCursor};

use super::{Connection, HubRuntime};
use crate::error::Error;
use crate::fanout::Present;
use crate::odata::{Filter, FilterError, Subject};
use crate::session::connection_of;

/// Connections that a node changes at the same time.
const AT_ONCE: usize = 64;

/// A change of groups.
#[derive(Debug)]
pub(crate) struct Regrouping {
    pub(crate) groups: Vec<GroupName>,
    /// As it was written; empty: all connections.
    pub(crate) filter_text: String,
    filter: Option<Filter>,
    pub(crate) wish: RegroupWish,
}

/// The change to the connections that a filter admits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum RegroupWish {
    /// They join the groups.
    Join,
    /// They leave the groups.
    Leave,
    /// They end, for this reason.
    Close(Option<String>),
}

/// The reason why a change of groups can't be understood.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RegroupingError {
    #[error(transparent)]
    Name(#[from] NameError),
    #[error(transparent)]
    Filter(#[from] FilterError),
}

impl Regrouping {
    pub(crate) fn new(
        groups: Vec<String>,
        filter: String,
        wish: RegroupWish,
    ) -> Result<Self, RegroupingError> {
        let groups: Result<_, _> = groups.into_iter().map(GroupName::parse).collect();
        let read = (!filter.is_empty()).then(|| Filter::parse(&filter)).transpose()?;
        Ok(Self {
            groups: groups?,
            filter_text: filter,
            filter: read,
            wish,
        })
    }

    fn admits(&self, subject: &impl Subject) -> bool {
        self.filter.as_ref().is_none_or(|filter| filter.admits(subject))
    }
}

/// A connection that no node owns.
struct Away {
    connection: Connection,
    groups: HashSet<String>,
}

impl Subject for Away {
    fn connection(&self) -> &str {
        self.connection.id().as_str()
    }

    fn user(&self) -> Option<&str> {
        self.connection.user().map(AsRef::as_ref)
    }

    fn protocol(&self) -> Option<&str> {
        self.connection.protocol()?.subprotocol()
    }

    fn is_in(&self, group: &str) -> bool {
        self.groups.contains(group)
    }

    fn groups(&self) -> usize {
        self.groups.len()
    }
}

impl HubRuntime {
    /// Changes the groups of the connections of all nodes. All are tried; the first error is the outcome.
    pub(crate) async fn regroup(self: &Arc<Self>, change: &Regrouping) -> Result<(), Error> {
        let backplane = self.shared().backplane();
        let mut outcome = Ok(());
        for node in backplane.nodes().await? {
            let changed = if node == *backplane.node() {
                self.regroup_here(change).await
            } else {
                self.shared().peers().regroup(self, &node, change).await
            };
            outcome = outcome.and(changed);
        }
        outcome.and(self.regroup_parked(change).await)
    }

    /// Changes the groups of the connections of this node.
    pub(crate) async fn regroup_here(self: &Arc<Self>, change: &Regrouping) -> Result<(), Error> {
        let mut sessions = self.registry().all();
        sessions.retain(|session| session.receives() && change.admits(&Present(session)));
        let ids = sessions.iter().map(|session| session.id().clone()).collect();
        self.regroup_all(ids, change).await
    }

    /// Changes the groups of connections that no node owns at this moment.
    async fn regroup_parked(self: &Arc<Self>, change: &Regrouping) -> Result<(), Error> {
        let (mut next, mut outcome) = (Some(ParkedCursor::default()), Ok(()));
        while let Some(from) = next {
            let parked = self.backplane().parked(None, from).await?;
            let mut admitted = Vec::new();
            for id in parked.connections {
                let Some(away) = self.away(&id).await? else {
                    continue;
                };
                if change.admits(&away) {
                    admitted.push(id);
                }
            }
            outcome = outcome.and(self.regroup_all(admitted, change).await);
            next = parked.next;
        }
        outcome
    }

    async fn away(&self, id: &ConnectionId) -> Result<Option<Away>, Error> {
        let Some(listing) = self.look_up(id).await? else {
            return Ok(None);
        };
        let groups = self.groups_of(id).await?;
        let record = listing.to_record(id.clone());
        Ok(Some(Away {
            connection: connection_of(&record),
            groups: groups.iter().map(ToString::to_string).collect(),
        }))
    }

    async fn regroup_all(
        self: &Arc<Self>,
        connections: Vec<ConnectionId>,
        change: &Regrouping,
    ) -> Result<(), Error> {
        let changes = connections.into_iter().map(|id| async move {
            let join = match &change.wish {
                RegroupWish::Join => true,
                RegroupWish::Leave => false,
                RegroupWish::Close(reason) => {
                    return self.close_connection(&id, reason.as_deref()).await.map(drop);
                }
            };
            let mut outcome = Ok(());
            for group in &change.groups {
                outcome = outcome.and(self.change_group(&id, group, join).await);
            }
            outcome
        });
        let mut changes = stream::iter(changes).buffer_unordered(AT_ONCE);
        let mut outcome = Ok(());
        while let Some(changed) = changes.next().await {
            outcome = outcome.and(changed);
        }
        outcome
    }
}
