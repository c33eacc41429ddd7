//! The HTTP surface: which request goes where.

mod admit;
mod app;
mod app_servers;
mod bodies;
mod declare;
mod event_stream;
mod events;
mod first;
mod head;
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
mod serve;
mod starting;
mod tcp;

pub(crate) use app::App;
pub(crate) use hosts::Hosts;
pub(crate) use router::admin_router;
pub(crate) use router::router;
pub(crate) use serve::{Rules, serve};
pub use starting::Starting;
pub(crate) use starting::{admin_router as starting_admin_router, router as starting_router};
