//! The registry: the sessions of this node that receive a topic.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use hubcast_backplane::{ConnectionId, Topic};
use parking_lot::RwLock;

use crate::session::{MembershipChange, Session};

/// Lockable parts of each map.
const SHARDS: usize = 16;

/// The receivers of a topic, or of one part of [`Topic::All`]. Shared copy-on-write: a fan-out holds the list it began
/// with, and a change copies it only while a fan-out does.
pub(crate) type Receivers = Arc<Vec<Arc<Session>>>;

/// The sessions of one hub on this node, and the topics that they receive.
///
/// Guards never leave a function, and no function holds two.
pub(crate) struct Registry {
    hasher: RandomState,
    sessions: [RwLock<HashMap<ConnectionId, Arc<Session>>>; SHARDS],
    topics: [RwLock<HashMap<Topic, Receivers>>; SHARDS],
}

/// The outcome of making a session findable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Insertion {
    Done,
    /// There is a session of that id already.
    IdInUse,
}

impl Registry {
    pub(crate) fn new() -> Self {
        Self {
            hasher: RandomState::new(),
            sessions: Default::default(),
            topics: Default::default(),
        }
    }

    /// Makes a session findable.
    pub(crate) fn insert(&self, session: &Arc<Session>) -> Insertion {
        match self.sessions_of(session.id()).write().entry(session.id().clone()) {
            Entry::Occupied(_) => Insertion::IdInUse,
            Entry::Vacant(vacant) => {
                vacant.insert(Arc::clone(session));
                Insertion::Done
            }
        }
    }

    /// The session of a connection.
    pub(crate) fn find(&self, connection: &ConnectionId) -> Option<Arc<Session>> {
        self.sessions_of(connection).read().get(connection).cloned()
    }

    /// How many sessions there are.
    pub(crate) fn len(&self) -> usize {
        self.sessions.iter().map(|shard| shard.read().len()).sum()
    }

    /// Bytes that wait for clients.
    pub(crate) fn queued_bytes(&self) -> usize {
        self.sessions
            .iter()
            .flat_map(|shard| shard.read().values().cloned().collect::<Vec<_>>())
            .map(|s| s.queued_bytes())
            .sum()
    }

    /// Every session, as of now.
    pub(crate) fn all(&self) -> Vec<Arc<Session>> {
        self.sessions
            .iter()
            .flat_map(|shard| shard.read().values().cloned().collect::<Vec<_>>())
            .collect()
    }

    /// Takes a session out of its topics, for good. It can still be found.
    pub(crate) fn retire(&self, session: &Arc<Session>) {
        for topic in session.take_topics() {
            self.unlist(session, &topic);
        }
    }

    /// Takes a session out of everything.
    pub(crate) fn remove(&self, session: &Arc<Session>) {
        self.retire(session);
        session.vacate();
        let mut sessions = self.sessions_of(session.id()).write();
        if sessions
            .get(session.id())
            .is_some_and(|found| Arc::ptr_eq(found, session))
        {
            sessions.remove(session.id());
        }
    }

    /// Lets a session receive a topic from now on.
    pub(crate) fn add(&self, session: &Arc<Session>, topic: &Topic) {
        if session.note_topic(topic) == MembershipChange::Nothing {
            return; // it does already, or it has ended
        }
        {
            let mut topics = self.topics_of(topic, session.id()).write();
            Arc::make_mut(topics.entry(topic.clone()).or_default()).push(Arc::clone(session));
        }
        if session.has_left() {
            self.unlist(session, topic); // it was removed while this call was between its two steps
        }
    }

    /// Ends what [`add`](Self::add) began.
    pub(crate) fn leave(&self, session: &Arc<Session>, topic: &Topic) {
        if session.forget_topic(topic) == MembershipChange::Made {
            self.unlist(session, topic);
        }
    }

    /// The receivers of a topic, as of now.
    pub(crate) fn receivers(&self, topic: &Topic) -> impl Iterator<Item = Receivers> {
        let parts = match topic {
            Topic::All => 0..SHARDS,
            _ => {
                let index = self.index(topic);
                index..index.saturating_add(1)
            }
        };
        parts.filter_map(|index| self.topics.get(index)?.read().get(topic).cloned())
    }

    fn unlist(&self, session: &Arc<Session>, topic: &Topic) {
        let mut topics = self.topics_of(topic, session.id()).write();
        let Some(receivers) = topics.get_mut(topic) else {
            return;
        };
        if let Some(index) = receivers
            .iter()
            .position(|receiver| Arc::ptr_eq(receiver, session))
        {
            let list = Arc::make_mut(receivers);
            list.swap_remove(index);
            if list.is_empty() {
                topics.remove(topic);
            } else if list.capacity() > 64 && list.len() < list.capacity() / 4 {
                list.shrink_to_fit();
            }
        }
    }

    fn sessions_of(&self, connection: &ConnectionId) -> &RwLock<HashMap<ConnectionId, Arc<Session>>> {
        &self.sessions[self.index(connection)]
    }

    /// [`Topic::All`] is not one list: each shard has the part of its connections.
    fn topics_of(&self, topic: &Topic, connection: &ConnectionId) -> &RwLock<HashMap<Topic, Receivers>> {
        let index = match topic {
            Topic::All => self.index(connection),
            _ => self.index(topic),
        };
        &self.topics[index]
    }

    fn index(&self, key: impl std::hash::Hash) -> usize {
        self.hasher.hash_one(key) as usize % SHARDS
    }
}
