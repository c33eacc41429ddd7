//! Messages into the log, and to the sink.

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::time::Instant;

use super::hub::{Hub, State};
use super::lane::Item;
use crate::error::BackplaneError;
use crate::once::{Once, Published};
use crate::position::Offset;
use crate::topic::Topic;
use crate::wire::Envelope;

impl Hub {
    pub(super) async fn publish(
        &self,
        topic: &Topic,
        envelope: &Arc<Envelope>,
    ) -> Result<Option<Offset>, BackplaneError> {
        // Waiting for room comes before the lock: entries then reach the lane in the order of their offsets.
        let room = self.lane.reserve().await.map_err(|_| BackplaneError::Closed)?;
        Ok(self.append(&mut self.state.lock(), room, topic, envelope))
    }

    /// Publishes, unless a request of that name has done so.
    pub(super) async fn publish_once(
        &self,
        topic: &Topic,
        envelope: &Arc<Envelope>,
        once: &Once,
    ) -> Result<Published, BackplaneError> {
        let room = self.lane.reserve().await.map_err(|_| BackplaneError::Closed)?;
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
        room: mpsc::Permit<'_, Item>,
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
        let kept = (!self.options.volatile).then(|| Arc::clone(envelope));
        let offset = match kept {
            Some(kept) => state.log.append(topic, Some(kept)),
            None => state.log.skip(),
        };
        if receivers {
            room.send(Item::message(topic, offset, envelope));
        }
        Some(offset)
    }
}
