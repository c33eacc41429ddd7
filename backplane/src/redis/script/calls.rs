//! All scripts, by subject: each with the names of its keys and arguments.

pub(in crate::redis) mod connections;
pub(in crate::redis) mod events;
pub(in crate::redis) mod groups;
pub(in crate::redis) mod log;
pub(in crate::redis) mod messages;
pub(in crate::redis) mod nodes;
pub(in crate::redis) mod sessions;
