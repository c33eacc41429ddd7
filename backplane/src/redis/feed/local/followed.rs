//! The local state as the lane follows the log: its functions are called in the order of the entries.

use super::{LocalConnections, Seen};
use crate::position::{Epoch, Offset, Position};
use crate::redis::feed::interest::Subject;
use crate::topic::{ConnectionId, Topic};

impl LocalConnections {
    /// Whether the connection is being taken over, so that changes of its topics are of an ownership that is over.
    pub(in crate::redis) fn is_being_taken(&self, id: &ConnectionId) -> bool {
        self.connections
            .get(id)
            .is_some_and(|connection| connection.taking && !connection.former)
    }

    /// Applies the entry of another node's take-over of a connection, which the lane has reached. Returns whether this
    /// node owned it until then. A lane that begins an epoch once more reaches entries older than this node's
    /// ownership.
    pub(in crate::redis) fn taken(&mut self, id: &ConnectionId, epoch: &Epoch, offset: Offset) -> bool {
        match self.connections.get_mut(id) {
            Some(known)
                if !known.taking
                    && known
                        .took_at
                        .as_ref()
                        .is_some_and(|took| is_after(took, epoch, offset)) =>
            {
                false
            }
            Some(known) if known.taking => {
                let former = std::mem::take(&mut known.former);
                self.silence(id);
                former
            }
            _ => self.remove(id),
        }
    }

    /// Applies the entry of this node's take-over. Returns whether a subscription is missing.
    pub(in crate::redis) fn took(&mut self, id: &ConnectionId, topics: &[Topic], offset: Offset) -> bool {
        self.silence(id);
        if let Some(connection) = self.connections.get_mut(id) {
            (connection.taking, connection.former) = (false, false);
        }
        self.joined(id, topics, offset)
    }

    pub(in crate::redis) fn seen(&self, topic: &Topic) -> Seen {
        let seen = match topic {
            Topic::Connection(id) => {
                let seen = self.connections.get(id).and_then(|connection| connection.seen);
                seen.map(|seen| (seen, 1))
            }
            topic => self.interests.seen(topic),
        };
        seen.map_or(Seen::Nobody, |(offset, receivers)| Seen::UpTo {
            offset,
            receivers,
        })
    }

    pub(in crate::redis) fn set_seen(&mut self, topic: &Topic, offset: Offset) {
        let seen = match topic {
            Topic::Connection(id) => self
                .connections
                .get_mut(id)
                .and_then(|connection| connection.seen.as_mut()),
            topic => self.interests.seen_mut(topic),
        };
        if let Some(seen) = seen {
            *seen = offset;
        }
    }

    /// Applies the beginning of memberships at `offset`. Returns whether a subscription is missing.
    pub(in crate::redis) fn joined(&mut self, id: &ConnectionId, topics: &[Topic], offset: Offset) -> bool {
        let Some(connection) = self.connections.get_mut(id) else {
            return false;
        };
        let mut gained = Vec::new();
        for topic in topics {
            match topic {
                Topic::Connection(_) => connection.seen = Some(offset),
                Topic::Group(group) => {
                    let group = &match connection.groups.get(group) {
                        Some(_) => group.clone(),
                        None => self.interests.shared_name(group),
                    };
                    let was_live = connection
                        .groups
                        .change(group, |membership| std::mem::replace(&mut membership.live, true));
                    if !was_live {
                        gained.push(topic);
                    }
                }
                Topic::All | Topic::User(_) if !connection.entered.live => gained.push(topic),
                Topic::All | Topic::User(_) => {}
            }
        }
        if topics.contains(&Topic::All) {
            connection.entered.live = true;
        }
        let mut missing = false;
        for topic in gained {
            missing |= self.interests.receive(topic, offset);
        }
        missing
    }

    /// Applies the end of memberships.
    pub(in crate::redis) fn left(&mut self, id: &ConnectionId, topics: &[Topic]) {
        for topic in topics {
            let Some(connection) = self.connections.get_mut(id) else {
                return;
            };
            let Topic::Group(group) = topic else { continue };
            let was_live = connection
                .groups
                .change(group, |membership| std::mem::take(&mut membership.live));
            if was_live {
                self.interests.lose(&Subject::Topic(topic.clone()));
            }
        }
    }

    /// All topics that may have entries for this node.
    pub(in crate::redis) fn topics(&self) -> Vec<Topic> {
        let own = self.connections.keys().map(|id| Topic::Connection(id.clone()));
        self.interests.topics().chain(own).collect()
    }

    /// Begins a new epoch: all topics count as delivered up to its start.
    pub(in crate::redis) fn restart(&mut self, start: Offset) {
        self.interests.restart(start);
        let own = self
            .connections
            .values_mut()
            .filter_map(|connection| connection.seen.as_mut());
        own.for_each(|seen| *seen = start);
    }
}

/// Whether a position is later than another one, also of another epoch of the same hub.
fn is_after(place: &Position, epoch: &Epoch, offset: Offset) -> bool {
    if place.epoch == *epoch {
        return place.offset > offset;
    }
    began(&place.epoch) > began(epoch)
}

/// The start of an epoch in the server's time (microseconds): its name ends with that (`begin_epoch` in `log.lua`).
fn began(epoch: &Epoch) -> u64 {
    let began = epoch.as_str().rsplit('-').next();
    began.and_then(|began| began.parse().ok()).unwrap_or(0)
}
