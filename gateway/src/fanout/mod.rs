//! From one entry of the log to the sessions of this node.

mod deliver;
mod encode;
mod registry;

pub(crate) use deliver::{Except, cut_at_close, deliver};
pub(crate) use encode::{Carriage, Frames};
pub(crate) use registry::Registry;
