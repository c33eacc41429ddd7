//! The Redis servers: where they are, which of them is the master, and the connections to them.

pub(in crate::redis) mod backoff;
pub(in crate::redis) mod cluster;
pub(in crate::redis) mod commands;
pub(in crate::redis) mod connector;
pub(in crate::redis) mod endpoint;
pub(in crate::redis) mod info;
pub(in crate::redis) mod link;
pub(in crate::redis) mod location;
pub(in crate::redis) mod master;
pub(in crate::redis) mod pool;
pub(in crate::redis) mod replies;
pub(in crate::redis) mod run;
pub(in crate::redis) mod sentinel;
pub(in crate::redis) mod slots;
pub(in crate::redis) mod topology;
pub(in crate::redis) mod watch;
