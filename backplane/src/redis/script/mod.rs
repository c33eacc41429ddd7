//! The atomic operations: the scripts, and the task that carries out changes exactly once.

pub(in crate::redis) mod answers;
pub(in crate::redis) mod arguments;
pub(in crate::redis) mod calls;
pub(in crate::redis) mod catalog;
pub(in crate::redis) mod change;
pub(in crate::redis) mod declaration;
pub(in crate::redis) mod declared;
pub(in crate::redis) mod entries;
pub(in crate::redis) mod frame;
#[cfg(test)]
mod headers;
pub(in crate::redis) mod hub_scripts;
pub(in crate::redis) mod invocation;
pub(in crate::redis) mod sender;
pub(in crate::redis) mod settings;
pub(in crate::redis) mod writer;
