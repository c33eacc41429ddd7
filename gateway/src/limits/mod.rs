//! What keeps one client, user or address from taking everything: who may come in, and how fast clients are read.

mod bucket;
mod client;
mod gate;
mod held;
mod places;

pub(crate) use bucket::Bucket;
pub(crate) use client::TrustedProxies;
pub(crate) use gate::{Gate, Seat};
pub(crate) use held::{Budget, Held, Terms};
