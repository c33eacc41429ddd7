//! Tests in which the server, the way to it, or a node fails.
#![cfg(feature = "redis")]
#![allow(clippy::panic, clippy::unwrap_used)]

mod answers;
mod connection;
mod ends;
mod events;
mod group_states;
mod identity;
mod lane;
mod life;
mod names;
mod nodes;
mod operators;
mod queries;
mod registration;
mod requests;
mod retention;
mod scripts;
mod server;
mod sessions;
mod settling;
mod split;
#[path = "../support/mod.rs"]
mod support;

use std::sync::Arc;

use hubcast_backplane::conformance::{Member, envelope, eventually, open};
use hubcast_backplane::{Backplane, HubOptions, Status, Topic};

fn many() -> HubOptions {
    HubOptions {
        retention_messages: 1_000_000,
        ..HubOptions::default()
    }
}

async fn one(node: Arc<dyn Backplane>, options: HubOptions) -> Member {
    open(&[node], options).await.remove(0)
}

async fn publish_until_it_works(member: &Member, topic: Topic, target: &str) {
    eventually("publishing works", async || {
        member
            .hub
            .publish(std::slice::from_ref(&topic), &envelope(target))
            .await
            .ok()
    })
    .await;
}

async fn status(node: &dyn Backplane, wanted: Status) {
    node.status().wait_for(|status| *status == wanted).await.unwrap();
}
