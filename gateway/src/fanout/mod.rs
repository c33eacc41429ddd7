//! The way of messages from one entry of the log to the sessions of this node.

mod deliver;
mod registry;

pub(crate) use deliver::{Except, cut_at_close, deliver};
pub(crate) use registry::Registry;
