//! The gateway as a black box: real processes, the official client, faults at points that the tests choose.
//!
//! A module is a subject, a test's name is the sentence that it proves.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[macro_use]
mod proves;

mod affinity;
mod auth;
mod backend;
mod bench;
mod carried;
mod chaos;
mod cli;
mod clients;
mod connection_events;
mod documents;
mod drains;
mod examples;
mod fanout;
mod fault_proxy;
mod hostile;
mod http2;
mod http_faults;
mod hubs;
mod key_rotation;
mod lifecycle;
mod lost_connections;
mod matrix;
mod members;
mod names;
mod own_messages;
mod presence;
mod rebalance;
mod redirects;
mod redis_driver;
mod redis_outage;
mod rest;
mod resume;
mod sse;
mod start;
mod telemetry;
mod timeouts;
mod undeclared;
mod upstream;
mod webpubsub;
mod wire;
