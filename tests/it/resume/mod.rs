//! Connections that continue after a lost socket: on the node where they were, on another one, and through a roll-out.

mod moves;
mod rolling;
mod stateful;
