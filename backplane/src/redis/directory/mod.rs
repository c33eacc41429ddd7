//! The connections of all nodes: their owners, groups, missed messages and ends.

pub(in crate::redis) mod connections;
pub(in crate::redis) mod departures;
pub(in crate::redis) mod ends;
pub(in crate::redis) mod events;
pub(in crate::redis) mod group_states;
pub(in crate::redis) mod groups;
pub(in crate::redis) mod history;
pub(in crate::redis) mod queries;
pub(in crate::redis) mod registration;
pub(in crate::redis) mod removal;
pub(in crate::redis) mod replay;
pub(in crate::redis) mod sessions;
pub(in crate::redis) mod settled;
pub(in crate::redis) mod take_over;
