//! The HTTP surface: which request goes where.

mod admit;
mod app;
mod bodies;
mod events;
mod expiry;
mod health;
mod hosts;
mod hubs;
mod negotiate;
mod persistence;
mod refresh;
mod reply;
mod request;
mod rest;
mod router;
#[cfg(feature = "cli")]
mod serve;
#[cfg(feature = "cli")]
pub(crate) mod starting;
#[cfg(feature = "cli")]
mod tcp;

pub(crate) use app::App;
pub(crate) use hosts::Hosts;
#[cfg(feature = "cli")]
pub(crate) use router::admin_router;
pub(crate) use router::router;
#[cfg(feature = "cli")]
pub(crate) use serve::{Rules, serve};
