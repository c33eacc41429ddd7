//! The connections of a whole cluster: listing them and ending them, from any node.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![cfg(feature = "cli")]

mod closing;
mod nodes;
mod questions;
mod users;
mod watching;
