//! Joining and leaving groups.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::error::BackplaneError;
use crate::position::Offset;
use crate::redis::directory::connections::owned;
use crate::redis::feed::hub::Hub;
use crate::redis::feed::interest::Subject;
use crate::redis::inner::Inner;
use crate::redis::server::commands::Repeat;
use crate::redis::server::replies::decode;
use crate::topic::{ConnectionId, GroupName, Topic};
use crate::wire::membership::Change;

/// The pause between two looks for a connection that this node has seized and not taken over yet.
const SEIZED: Duration = Duration::from_millis(50);

impl Inner {
    /// Joins or leaves. The node subscribes first, so that no message after the change is missed.
    pub(in crate::redis) async fn change_group(
        self: Arc<Self>,
        hub: Arc<Hub>,
        id: ConnectionId,
        group: GroupName,
        change: Change,
    ) -> Result<Offset, BackplaneError> {
        self.check_admitted()?;
        let begun = Instant::now();
        let deadline = self.deadline();
        while !hub.local.lock().is_owned(&id) {
            // As far as this node knows, the connection is not its own. Where it owns it once it was found not parked,
            // it was taken over here meanwhile.
            let taken_over = hub.claimed.notified();
            let changed = self.change_parked(&hub, &id, &group, change).await;
            if !matches!(changed, Err(BackplaneError::NotOwner { .. })) {
                return changed;
            }
            if hub.local.lock().is_owned(&id) {
                break;
            }
            let mut command = redis::cmd("HGET");
            command.arg(hub.scripts.keys.connection(&id)).arg("node");
            let owner: Option<String> = decode(self.commands.command(&command, Repeat::Safe).await?)?;
            if owner.as_deref() != Some(self.options.node.as_str()) || Instant::now() >= deadline {
                return changed;
            }
            let soon = deadline.min(Instant::now() + SEIZED); // the connection is being taken over here
            self.until(soon, taken_over).await?;
        }
        let topics = if change == Change::Joined {
            vec![Topic::Group(group.clone())]
        } else {
            Vec::new()
        };
        let interested = self
            .interest(&hub, topics.into_iter().map(Subject::Topic).collect(), deadline)
            .await?;
        loop {
            let place = {
                let _gate = self.pass_with(&hub, &id, deadline).await?;
                let place = hub.scripts.change_group(&id, &group, change, false).await?;
                let Some(place) = place else {
                    // Another node took it over, which the lane has yet to see; it may have been parked since.
                    return self.change_parked(&hub, &id, &group, change).await;
                };
                hub.local.lock().set_member(&id, &group, change == Change::Joined);
                place
            };
            let offset = place.offset;
            // Where the epoch ended before the lane reached this place, the change is not in the new epoch.
            if self.reached(hub.waiters.wait(place), begun, deadline).await? {
                drop(interested);
                return Ok(offset);
            }
        }
    }

    /// Joins or leaves for a parked connection: no sink gets a delivery.
    async fn change_parked(
        &self,
        hub: &Hub,
        id: &ConnectionId,
        group: &GroupName,
        change: Change,
    ) -> Result<Offset, BackplaneError> {
        let call = hub.scripts.change_group(id, group, change, true);
        Ok(owned(call.await?, id)?.offset)
    }
}
