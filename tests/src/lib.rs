//! The base of the black-box tests and the benchmarks: real processes (redis-server, gateways, HAProxy, Node with
//! the official client), small raw clients that can say anything on the wire, and waiting for conditions.
//!
//! The tests do not know the gateway's code: only its command line, its environment and what it says on its sockets.
//! Every process is killed when the value that stands for it is dropped, and also when the test process dies.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

pub mod application;
pub mod balancer;
pub mod built;
pub mod chaos;
pub mod clock;
pub mod cluster;
pub mod collector;
pub mod entry_point;
pub mod event_source;
pub mod eventually;
pub mod fault_proxy;
pub mod gateway;
pub mod http;
pub mod http2;
pub mod hub_client;
pub mod js;
pub mod jwt;
pub mod messagepack;
pub mod metrics;
pub mod ports;
pub mod process;
pub mod random;
pub mod redis;
pub mod rest;
pub mod resumable;
pub mod stamp;
pub mod usage;
pub mod webpubsub;
pub mod websocket;
