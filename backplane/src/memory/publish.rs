//! Messages into the log, and to the sink.

use std::sync::Arc;

use tokio::time::Instant;

use super::hub::{Hub, State};
use super::lane::{Item, Room};
use crate::error::BackplaneError;
use crate::once::{Once, Published};
use crate::position::Offset;
use crate::presence;
use crate::topic::{ConnectionId, GroupName, Topic, UserId};
use crate::wire::Envelope;

impl Hub {
    pub(super) async fn publish(
        &self,
        topic: &Topic,
        envelope: &Arc<Envelope>,
    ) -> Result<Option<Offset>, BackplaneError> {
        // Waiting for room comes before the lock: entries then reach the lane in the order of their offsets.
        let room = self.lane.reserve().await?;
        Ok(self.append(&mut self.state.lock(), room, topic, envelope))
    }

    /// Publishes, unless a request of that name has done so.
    pub(super) async fn publish_once(
        &self,
        topic: &Topic,
        envelope: &Arc<Envelope>,
        once: &Once,
    ) -> Result<Published, BackplaneError> {
        let room = self.lane.reserve().await?;
        let mut state = self.state.lock();
        let now = Instant::now();
        match state.requests.get(&once.key) {
            Some((content, end)) if *end > now => {
                let same = *content == once.content;
                return Ok(if same {
                    Published::Before
                } else {
                    Published::Differs
                });
            }
            _ => {}
        }
        let known = (once.content.clone(), now + self.options.retention);
        state.requests.insert(once.key.clone(), known);
        self.append(&mut state, room, topic, envelope);
        Ok(Published::Now)
    }

    fn append(
        &self,
        state: &mut State,
        room: Room<'_>,
        topic: &Topic,
        envelope: &Arc<Envelope>,
    ) -> Option<Offset> {
        let receivers = match topic {
            Topic::Connection(id) => {
                let connection = state.connections.get(id)?;
                connection.entered && connection.parked.is_none()
            }
            topic => state.interest.contains_key(topic),
        };
        let offset = state.log.publish(topic, envelope);
        if receivers {
            room.send(Item::message(topic, offset, envelope));
        }
        Some(offset)
    }
}

impl State {
    /// Tells those who watch a group that a connection came or went: part of the change itself.
    pub(super) fn announce(
        &mut self,
        joined: bool,
        topic: &Topic,
        connection: &ConnectionId,
        user: Option<&UserId>,
    ) {
        let (Some(lane), Topic::Group(group)) = (&self.presence, topic) else {
            return;
        };
        if group.is_reserved() {
            return;
        }
        let envelope = Arc::new(presence::message(joined, group, connection, user));
        let topic = Topic::Group(GroupName::presence_of(group));
        let offset = self.log.publish(&topic, &envelope);
        if self.interest.contains_key(&topic) {
            lane.send(Item::message(&topic, offset, &envelope));
        }
    }
}
