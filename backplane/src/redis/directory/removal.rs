//! Removes a connection, in several steps where it is in many groups: the first step ends it for all nodes, the others
//! take it out of the groups that still list it.

use std::time::Duration;

use bytes::Bytes;
use redis::Value;
use tokio::time::{Instant, sleep};
use tracing::debug;

use crate::error::BackplaneError;
use crate::redis::directory::departures::Presence;
use crate::redis::feed::local::Reported;
use crate::redis::inner::Inner;
use crate::redis::script::calls::connections::Remove;
use crate::redis::script::calls::groups::Unlist;
use crate::redis::script::hub_scripts::HubScripts;
use crate::redis::script::invocation::Invocation;
use crate::redis::script::writer::Patience;
use crate::redis::server::backoff::Backoff;
use crate::redis::server::replies::{decode, items, malformed};
use crate::sessions::{SessionState, Version};
use crate::topic::{ConnectionId, NodeId, Topic, UserId};

/// Groups that a connection is taken out of in one step: a few milliseconds where each has a presence message.
const STEP: usize = 64;
/// Steps in one round trip.
const STEPS: usize = 2;
/// Groups that a removal takes a connection out of at once, where many are removed in one round trip.
const FIRST: usize = 8;
/// Longest pause after work in the server.
const LONGEST_REST: Duration = Duration::from_millis(20);

/// The arguments of a removal.
#[derive(Default)]
pub(in crate::redis) struct Removal<'a> {
    /// The node that must own the connection; `None` for a parked one.
    pub(in crate::redis) owner: Option<&'a NodeId>,
    /// The name of this removal, by which a repetition is recognised.
    pub(in crate::redis) name: &'a str,
    pub(in crate::redis) tombstone: Duration,
    /// True if a parked connection is removed before its time is up.
    pub(in crate::redis) early: bool,
    pub(in crate::redis) presence: Presence,
    /// The version in which the owner has the connection, where it is known.
    pub(in crate::redis) version: Option<Version>,
    /// The node that reports the end; `None`: any node that serves the hub.
    pub(in crate::redis) reporter: Option<&'a NodeId>,
    /// The report of the end; `None` where the end is not reported.
    pub(in crate::redis) report: Option<&'a Bytes>,
    /// The reason in the connection's event; empty: the one for which it was parked.
    pub(in crate::redis) reason: &'a str,
    /// The owner's knowledge of the connection's events.
    pub(in crate::redis) event: Option<&'a Reported>,
}

/// A connection that was removed.
pub(in crate::redis) struct Removed {
    pub(in crate::redis) user: Option<UserId>,
    pub(in crate::redis) state: Option<SessionState>,
    /// Number of groups that still list the connection.
    pub(in crate::redis) left: usize,
}

impl HubScripts {
    pub(in crate::redis) fn remove_call(&self, id: &ConnectionId, removal: &Removal<'_>) -> Invocation {
        let topic = Topic::Connection(id.clone()).key();
        let report = removal.report.filter(|_| self.options.reports_ends);
        let call = Invocation::of(Remove {
            connection: self.keys.connection(id),
            groups: self.keys.groups(id),
            owned: self.keys.node(removal.owner.unwrap_or(&self.node)),
            tombstone: self.keys.closed(id),
            stream: self.keys.stream(&topic),
            tail: self.keys.tail(&topic),
            calls: self.keys.calls(id),
            parked: self.keys.parked(),
            group_names: self.keys.group_names(),
            leaving: self.keys.leaving(),
            ended: self.keys.ended(),
            owner: removal.owner,
            id,
            tombstone_life: removal.tombstone.as_millis(),
            removal: removal.name,
            group_prefix: self.keys.group_prefix(),
            user_prefix: self.keys.user_prefix(),
            presence: self.presence.as_ref(),
            most: FIRST,
            early: removal.early,
            known_in: removal.presence.text(),
            reports: report.is_some(),
            reporter: removal.reporter,
            report: report.cloned(),
            version: removal.version,
            events: self.events.as_ref(),
            // Where the node does not serve the hub, one that does takes the event over from the dead node.
            assignee: removal.reporter.unwrap_or(&self.node),
            reason: removal.reason,
            reported: removal.event,
        });
        call.costing(2 + FIRST)
    }

    fn unlist_call(&self, id: &ConnectionId) -> Invocation {
        let call = Invocation::of(Unlist {
            connection: self.keys.connection(id),
            groups: self.keys.groups(id),
            group_names: self.keys.group_names(),
            leaving: self.keys.leaving(),
            id,
            group_prefix: self.keys.group_prefix(),
            presence: self.presence.as_ref(),
            most: STEP,
        });
        call.costing(STEP)
    }
}

/// Reads the answer of `remove.lua`.
pub(in crate::redis) fn removed(answer: Value) -> Result<Option<Removed>, BackplaneError> {
    let Ok([removed, user, state, left]) = <[Value; 4]>::try_from(items(answer)?) else {
        return Err(malformed("a removal of another length"));
    };
    if !decode::<bool>(removed)? {
        return Ok(None);
    }
    let state: Option<Vec<u8>> = decode(state)?;
    Ok(Some(Removed {
        user: UserId::from_stored(&decode::<String>(user)?).ok(),
        state: state.map(SessionState::from),
        left: decode(left)?,
    }))
}

impl Inner {
    /// Takes removed connections out of the groups that still list them, one such list at a time. Where the server
    /// can't be reached it goes on later; should this node end, another one finishes it.
    pub(in crate::redis) async fn unlist(&self, scripts: &HubScripts, mut ids: Vec<ConnectionId>) {
        let _turn = self.unlisting.lock().await;
        let mut backoff = Backoff::new();
        while !ids.is_empty() {
            let begun = Instant::now();
            match self.unlist_some(scripts, &mut ids).await {
                Ok(()) => {
                    backoff = Backoff::new();
                    self.rest(begun).await;
                }
                Err(error @ BackplaneError::Closed) => {
                    return debug!(%error, "groups are left to be tidied up");
                }
                Err(error) => {
                    debug!(%error, "groups can't be tidied up yet");
                    backoff.wait().await;
                }
            }
        }
    }

    async fn unlist_some(
        &self,
        scripts: &HubScripts,
        ids: &mut Vec<ConnectionId>,
    ) -> Result<(), BackplaneError> {
        let last = ids.len().saturating_sub(STEPS);
        let calls = ids.iter().skip(last).map(|id| scripts.unlist_call(id)).collect();
        let answers = scripts.writer.carry_out_all(calls, Patience::Short).await?;
        let some = ids.split_off(last);
        for (id, left) in some.into_iter().zip(answers) {
            if decode::<u64>(left)? > 0 {
                ids.push(id);
            }
        }
        Ok(())
    }

    /// Pauses after work in the server for as long as it took since `begun`, so that other calls come in between.
    pub(in crate::redis) async fn rest(&self, begun: Instant) {
        sleep(begun.elapsed().min(LONGEST_REST)).await;
    }
}
