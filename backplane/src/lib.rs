//! The state that the nodes of a Hubcast cluster share: an ordered log for each hub, the topics that connections
//! receive, their groups, the directory that says which node owns which connection, and the liveness of nodes.
//!
//! # Guarantees
//! * **One order.** A message gets its [`Offset`] in the same step in which it is stored and pushed. Every node hands a
//!   hub's entries to its [`HubSink`] in offset order, each at most once.
//! * **Membership is part of the log.** A connection receives a topic from exactly the offset at which it joined until
//!   exactly the offset at which it left.
//! * **Exact or explicit.** Entries that a node missed (lost connection, full queue) are read from the log. When the
//!   log can't prove that nothing is missing, the sink gets a [`Delivery::Gap`].
//! * **One owner.** A connection has one owning node. A closed one never comes back.
//!
//! A node's [`Backplane`] opens hubs; each [`HubBackplane`] has what concerns one hub: [`Log`], [`History`],
//! [`Connections`], [`Sessions`], [`Directory`], [`Events`] and [`GroupStates`].
//!
//! There are two implementations, [`memory`] for one process and [`redis`] for a cluster; both pass the
//! same conformance rules (feature `conformance`).
// The future of a lane is deeper than what the compiler looks into unasked.
#![recursion_limit = "256"]

mod backplane;
#[cfg(feature = "conformance")]
pub mod conformance;
mod connections;
mod directory;
mod error;
mod events;
pub mod group_states;
mod history;
mod hub;
mod log;
pub mod memory;
mod numbered;
mod once;
mod position;
pub mod presence;
mod proof;
mod random;
#[cfg(feature = "redis")]
pub mod redis;
mod replay;
mod sessions;
mod stored;
mod topic;
mod turns;

pub use backplane::{
    Backplane, Claim, ConnectionRecord, Delivery, End, Gap, HubOptions, HubSink, Message, NodeService,
    Statistics, Status, Unheard,
};
pub use connections::Connections;
pub use directory::{
    ConnectionStatistics, Directory, Members, Parked, ParkedCursor, Present, USER_GROUP_TTL,
};
pub use error::{BackplaneError, ServiceError};
pub use events::{
    ConnectionEvent, EventKind, EventOptions, EventPage, EventPlace, EventRecord, Events,
    MAX_EVENT_RECORD_BYTES, NODE_DIED, NOT_RESUMED, NoEventPlace, PendingEvents,
};
pub use group_states::{GroupStates, MemberState, StateError, StateSet, StatesSnapshot};
pub use history::{History, HistoryPage};
pub use hub::HubBackplane;
pub use log::Log;
pub use numbered::{Counted, Numbered};
pub use once::{Once, Published};
pub use position::{Epoch, Offset, Position, Step, step};
pub use replay::Replay;
pub use sessions::{
    Checkpoint, Entered, Listing, Recorded, RecordedCall, SessionState, Sessions, TakeOver, Taken, Version,
};
pub use topic::{
    ConnectionId, GroupName, HubName, MAX_CONNECTION_ID_CHARS, MAX_GROUP_NAME_CHARS, MAX_HUB_NAME_CHARS,
    MAX_USER_ID_CHARS, NameError, NodeId, Topic, UserId,
};
pub use turns::{Turns, TurnsWanted};

/// The messages that nodes store in Redis and send to each other, generated from `proto/hubcast.proto`.
pub mod wire {
    #![allow(missing_docs)]
    include!(concat!(env!("OUT_DIR"), "/hubcast.v1.rs"));
}
