//! Joining and leaving groups.

use std::sync::Arc;

use tokio::time::Instant;

use super::directory::owned_place;
use super::hub::Hub;
use super::inner::Inner;
use super::local::Subject;
use crate::error::BackplaneError;
use crate::position::Offset;
use crate::topic::{ConnectionId, GroupName, Topic};
use crate::wire::membership::Change;

impl Inner {
    /// Joins or leaves: subscribed first, so that nothing after the change is missed.
    pub(super) async fn change_group(
        self: Arc<Self>,
        hub: Arc<Hub>,
        id: ConnectionId,
        group: GroupName,
        change: Change,
    ) -> Result<Offset, BackplaneError> {
        self.check_admitted()?;
        if !hub.local.lock().contains(&id) {
            return Err(BackplaneError::NotOwner { connection: id });
        }
        let begun = Instant::now();
        let deadline = self.deadline();
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
                let _gate = self.pass(&hub, deadline).await?;
                let place = hub
                    .scripts
                    .change_group(&self.commands, &id, &group, change)
                    .await?;
                let place = owned_place(place, &id)?;
                hub.local.lock().set_member(&id, &group, change == Change::Joined);
                place
            };
            let offset = place.offset;
            // Where the epoch ended before the lane came there, the change is not in the log that goes on.
            if self.reached(hub.waiters.wait(place), begun, deadline).await? {
                drop(interested);
                return Ok(offset);
            }
        }
    }
}
