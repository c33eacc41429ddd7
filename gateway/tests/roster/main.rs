//! Who is connected anywhere in a cluster, and ending it from anywhere.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![cfg(feature = "cli")]

mod closing;
mod nodes;
mod questions;
mod users;
mod watching;
