//! The way of messages from one entry of the log to the sessions of this node.

mod audience;
mod deliver;
mod registry;
mod sink;

pub(crate) use audience::{Audience, Present};
pub(crate) use deliver::cut_at_close;
use deliver::deliver;
pub(crate) use registry::{Insertion, Registry};
pub(crate) use sink::Sink;
