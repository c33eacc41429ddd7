//! Limits that keep one client, user or address from taking everything: on connections and on the pace of reading.

mod bucket;
mod doors;
mod gate;
mod held;
mod permits;

pub(crate) use bucket::Bucket;
pub(crate) use doors::{CountedConnection, Doors};
pub(crate) use gate::{ConnectionPermit, Gate};
pub(crate) use held::{Budget, Full, Held, Terms};
