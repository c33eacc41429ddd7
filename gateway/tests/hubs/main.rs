//! Hubs as their authors see them, in one process.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod cancellation;
mod clients;
mod functional;
#[path = "../../examples/functional_tests/hubs.rs"]
mod functional_hubs;
mod hooks;
mod methods;
mod settings;
