//! The registry: the sessions of this node that receive a topic.

use std::borrow::Borrow;
use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::ops::Deref;
use std::sync::Arc;

use hubcast_backplane::{ConnectionId, GroupName, Topic};
use parking_lot::RwLock;

use crate::session::{MembershipChange, Session, push_tightly};

/// Lockable parts of each map.
const SHARDS: usize = 16;

/// The receivers of a topic, or of one part of [`Topic::All`].
#[derive(Clone)]
pub(crate) enum Receivers {
    One(Arc<Session>),
    Several(List),
}

/// Shared copy-on-write: a fan-out holds the list it began with, and a change copies it only while a fan-out does.
type List = Arc<Vec<Arc<Session>>>;

impl Deref for Receivers {
    type Target = [Arc<Session>];

    fn deref(&self) -> &Self::Target {
        match self {
            Self::One(session) => std::slice::from_ref(session),
            Self::Several(list) => list,
        }
    }
}

/// A session among others, which differ by their ids.
struct ById(Arc<Session>);

impl Borrow<ConnectionId> for ById {
    fn borrow(&self) -> &ConnectionId {
        self.0.id()
    }
}

impl PartialEq for ById {
    fn eq(&self, other: &Self) -> bool {
        self.0.id() == other.0.id()
    }
}

impl Eq for ById {}

impl Hash for ById {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.id().hash(state);
    }
}

/// The sessions of one hub on this node, and the topics that they receive.
///
/// Guards never leave a function, and no function holds two.
pub(crate) struct Registry {
    hasher: RandomState,
    sessions: [RwLock<HashSet<ById>>; SHARDS],
    /// All but the topics of single connections, whose receivers are found among the sessions.
    topics: [RwLock<HashMap<Topic, List>>; SHARDS],
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
        let mut sessions = self.sessions_of(session.id()).write();
        if sessions.contains(session.id()) {
            return Insertion::IdInUse;
        }
        sessions.insert(ById(Arc::clone(session)));
        Insertion::Done
    }

    /// The session of a connection.
    pub(crate) fn find(&self, connection: &ConnectionId) -> Option<Arc<Session>> {
        let sessions = self.sessions_of(connection).read();
        sessions.get(connection).map(|found| Arc::clone(&found.0))
    }

    /// How many sessions there are.
    pub(crate) fn len(&self) -> usize {
        self.sessions.iter().map(|shard| shard.read().len()).sum()
    }

    /// Bytes that wait for clients.
    pub(crate) fn queued_bytes(&self) -> usize {
        self.of_shards().map(|session| session.queued_bytes()).sum()
    }

    /// Every session, as of now.
    pub(crate) fn all(&self) -> Vec<Arc<Session>> {
        self.of_shards().collect()
    }

    fn of_shards(&self) -> impl Iterator<Item = Arc<Session>> {
        let sessions = |shard: &RwLock<HashSet<ById>>| {
            let sessions = shard.read();
            sessions
                .iter()
                .map(|found| Arc::clone(&found.0))
                .collect::<Vec<_>>()
        };
        self.sessions.iter().flat_map(sessions)
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
            .is_some_and(|found| Arc::ptr_eq(&found.0, session))
        {
            sessions.remove(session.id());
        }
    }

    /// Lets a session receive a topic from now on.
    pub(crate) fn add(&self, session: &Arc<Session>, topic: &Topic) {
        if session.note_topic(topic) == MembershipChange::Nothing {
            return; // it does already, or it has ended
        }
        if let Topic::Connection(_) = topic {
            return;
        }
        {
            let mut topics = self.topics_of(topic, session.id()).write();
            let list = topics.entry(topic.clone()).or_default();
            push_tightly(Arc::make_mut(list), Arc::clone(session));
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
        let (one, parts) = match topic {
            Topic::Connection(id) => (self.find(id), 0..0),
            Topic::All => (None, 0..SHARDS),
            _ => {
                let index = self.index(topic);
                (None, index..index.saturating_add(1))
            }
        };
        let one = one.filter(|session| session.receives_topic(topic));
        let lists = parts.filter_map(|index| self.topics.get(index)?.read().get(topic).cloned());
        one.map(Receivers::One)
            .into_iter()
            .chain(lists.map(Receivers::Several))
    }

    /// The same name, in the memory that others have it in: the many members of a group share it.
    pub(crate) fn shared_name(&self, group: &GroupName) -> GroupName {
        let topic = Topic::Group(group.clone());
        let index = self.index(&topic);
        let topics = self.topics.get(index).map(RwLock::read);
        let known = topics.as_ref().and_then(|topics| topics.get_key_value(&topic));
        match known {
            Some((Topic::Group(known), _)) => known.clone(),
            _ => group.clone(),
        }
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

    fn sessions_of(&self, connection: &ConnectionId) -> &RwLock<HashSet<ById>> {
        &self.sessions[self.index(connection)]
    }

    /// [`Topic::All`] is not one list: each shard has the part of its connections.
    fn topics_of(&self, topic: &Topic, connection: &ConnectionId) -> &RwLock<HashMap<Topic, List>> {
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
