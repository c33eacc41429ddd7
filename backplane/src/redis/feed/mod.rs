//! The way from pushes to the sink of a hub: subscriptions, order, gaps.

pub(in crate::redis) mod catch_up;
pub(in crate::redis) mod entry;
pub(in crate::redis) mod hub;
pub(in crate::redis) mod interest;
pub(in crate::redis) mod lane;
pub(in crate::redis) mod local;
pub(in crate::redis) mod queue;
pub(in crate::redis) mod split;
pub(in crate::redis) mod subscriber;
pub(in crate::redis) mod subscription;
pub(in crate::redis) mod waiters;
