//! The HTTP surface: which request goes where.

mod admit;
mod bodies;
mod events;
mod expiry;
mod health;
mod hubs;
mod negotiate;
pub(crate) mod owned;
mod refresh;
mod reply;
mod request;
mod rest;
mod router;
#[cfg(feature = "cli")]
mod serve;

pub(crate) use router::router;
#[cfg(feature = "cli")]
pub(crate) use serve::{Heads, serve};
