//! The way of messages from one entry of the log to the sessions of this node.

mod audience;
mod deliver;
mod registry;

pub(crate) use audience::{Audience, Present};
pub(crate) use deliver::{cut_at_close, deliver};
pub(crate) use registry::Registry;
