//! Publishing: messages go into the log and to the sink.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::hub::{Count, HubState, MemoryHub};
use super::lane::Item;
use crate::backplane::{Delivery, Message};
use crate::error::BackplaneError;
use crate::log::Log;
use crate::numbered::{Counted, Numbered};
use crate::once::{Once, Published};
use crate::position::{Epoch, Offset, Position};
use crate::presence;
use crate::topic::{ConnectionId, GroupName, Topic, UserId};
use crate::wire::Envelope;

impl MemoryHub {
    /// Waits for room in the lane.
    pub(super) async fn room(&self) -> Result<mpsc::Permit<'_, Item>, BackplaneError> {
        self.lane.reserve().await.map_err(|_| BackplaneError::Closed)
    }

    /// Removes connections, and delivers the messages about that (presence, states) in the same step.
    pub(super) async fn removing<T>(&self, remove: impl FnOnce(&mut HubState) -> T) -> T {
        let room = self.room().await.ok(); // nothing is delivered when the lane has ended
        let mut state = self.state.lock();
        let removed = remove(&mut state);
        let deliveries = std::mem::take(&mut state.deliveries);
        if let Some(room) = room.filter(|_| !deliveries.is_empty()) {
            room.send(Item {
                deliveries,
                ..Item::default()
            });
        }
        removed
    }

    /// Records a request for which nothing is published; `false` where it was recorded before.
    pub(super) fn begin_request(&self, key: &str) -> bool {
        let mut state = self.state.lock();
        let now = Instant::now();
        if state.requests.get(key).is_some_and(|(_, end)| *end > now) {
            return false;
        }
        let known = (Bytes::new(), now + self.options.retention);
        state.requests.insert(key.to_owned(), known);
        true
    }

    fn append(
        &self,
        state: &mut HubState,
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
        let attended = !envelope.by_client || state.is_attended(topic);
        let offset = state.log.publish(topic, envelope, attended);
        if receivers {
            room.send(Item::message(topic, offset, envelope));
        }
        Some(offset)
    }
}

impl Log for MemoryHub {
    fn epoch(&self) -> Epoch {
        self.epoch.clone()
    }

    fn position(&self) -> BoxFuture<'_, Result<Position, BackplaneError>> {
        async move {
            Ok(Position {
                epoch: self.epoch.clone(),
                offset: self.state.lock().log.last(),
            })
        }
        .boxed()
    }

    fn publish<'a>(
        &'a self,
        topics: &'a [Topic],
        envelope: &'a Envelope,
    ) -> BoxFuture<'a, Result<Vec<Option<Offset>>, BackplaneError>> {
        async move {
            let envelope = Arc::new(envelope.clone());
            let mut receipts = Vec::with_capacity(topics.len());
            for topic in topics {
                // Waiting for room comes before the lock: entries then reach the lane in the order of their offsets.
                let room = self.room().await?;
                receipts.push(self.append(&mut self.state.lock(), room, topic, &envelope));
            }
            Ok(receipts)
        }
        .boxed()
    }

    fn publish_once<'a>(
        &'a self,
        topic: &'a Topic,
        envelope: &'a Envelope,
        once: &'a Once,
    ) -> BoxFuture<'a, Result<Published, BackplaneError>> {
        async move {
            let envelope = Arc::new(envelope.clone());
            let room = self.room().await?;
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
            Ok(Published::Now(self.append(&mut state, room, topic, &envelope)))
        }
        .boxed()
    }

    fn counted<'a>(
        &'a self,
        key: &'a str,
        life: Duration,
        begins: bool,
    ) -> BoxFuture<'a, Result<Counted, BackplaneError>> {
        async move {
            let mut state = self.state.lock();
            let ends = Instant::now() + life;
            match state.count_of(key) {
                Some(count) if !begins || count.last.is_none() => {
                    count.ends = ends;
                    return Ok(count.to_outcome());
                }
                None if !begins => return Ok(Counted::Unknown),
                _ => {}
            }
            let begun = Count {
                number: 1,
                last: None,
                ends,
            };
            state.counts.insert(key.to_owned(), begun);
            Ok(Counted::Expects(1))
        }
        .boxed()
    }

    fn publish_numbered<'a>(
        &'a self,
        topic: &'a Topic,
        envelope: &'a Envelope,
        numbered: Numbered<'a>,
    ) -> BoxFuture<'a, Result<Counted, BackplaneError>> {
        async move {
            let envelope = Arc::new(envelope.clone());
            let room = self.room().await?;
            let mut state = self.state.lock();
            let Some(count) = state.count_of(numbered.key) else {
                return Ok(Counted::Unknown);
            };
            if count.last.is_some() || count.number != numbered.number {
                return Ok(count.to_outcome());
            }
            count.ends = Instant::now() + numbered.life;
            match numbered.last {
                Some(last) => count.last = Some(last.to_owned()),
                None => count.number = count.number.saturating_add(1),
            }
            let offset = self.append(&mut state, room, topic, &envelope);
            Ok(Counted::Now(offset.unwrap_or_default()))
        }
        .boxed()
    }

    fn passed(&self, _offset: Offset) -> BoxFuture<'_, Result<(), BackplaneError>> {
        async move { self.await_sink().await.map(drop) }.boxed()
    }
}

impl Count {
    fn to_outcome(&self) -> Counted {
        match &self.last {
            Some(last) => Counted::Over {
                number: self.number,
                last: last.clone(),
            },
            None => Counted::Expects(self.number),
        }
    }
}

impl HubState {
    fn count_of(&mut self, key: &str) -> Option<&mut Count> {
        self.counts
            .get_mut(key)
            .filter(|count| count.ends > Instant::now())
    }

    /// Whether a topic has receivers now.
    fn is_attended(&self, topic: &Topic) -> bool {
        match topic {
            Topic::Group(_) | Topic::User(_) => self.members.has(topic),
            Topic::All | Topic::Connection(_) => true,
        }
    }

    pub(super) fn list(&mut self, topic: &Topic, id: &ConnectionId) {
        if self.members.list(topic, id) {
            let user = self.connections.get(id).and_then(|known| known.user.clone());
            self.announce(true, topic, id, user.as_ref());
        }
    }

    pub(super) fn unlist(&mut self, topic: &Topic, id: &ConnectionId, user: Option<&UserId>) {
        if self.members.unlist(topic, id) {
            if !self.members.has(topic) {
                self.log.note_left(topic);
            }
            self.end_state(topic, id, user);
            self.announce(false, topic, id, user);
        }
    }

    /// Appends the presence message of a join or leave, as a part of the change itself.
    fn announce(&mut self, joined: bool, topic: &Topic, connection: &ConnectionId, user: Option<&UserId>) {
        let Topic::Group(group) = topic else { return };
        if !self.presence || group.is_reserved() {
            return;
        }
        let message = presence::message(joined, group, connection, user);
        self.append_own(GroupName::presence_of(group), message);
    }

    /// Appends a message of the backplane's own to a reserved group, as a part of a change. Returns its offset.
    pub(super) fn append_own(&mut self, group: GroupName, envelope: Envelope) -> Offset {
        let (topic, envelope) = (Topic::Group(group), Arc::new(envelope));
        let attended = self.is_attended(&topic);
        let offset = self.log.publish(&topic, &envelope, attended);
        if self.interest.contains_key(&topic) {
            self.deliveries.push(Delivery::Message(Message {
                topic,
                offset,
                envelope,
            }));
        }
        offset
    }
}
