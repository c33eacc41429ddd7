//! A chat in an axum application of your own: a hub with typed methods, groups, and the same hub used from an HTTP
//! handler and from a background task.
//!
//! ```sh
//! cargo run -p hubcast --example chat
//! curl -X POST localhost:8080/announce -d 'Tea is ready'
//! ```
//!
//! Connect any SignalR client to `http://localhost:8080/hubs/chat`. Another address to listen on can be given as an
//! argument.

mod common;

use std::error::Error;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use hubcast::hub::{Disconnected, HubHandle};
use hubcast::{Context, Gateway, Hub, HubError, Options};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio::time::{MissedTickBehavior, interval};

#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Post {
    room: String,
    author: String,
    text: String,
}

async fn join(context: Context, room: String) -> Result<usize, HubError> {
    if room.len() > 40 {
        return Err(HubError::new("a room's name has at most 40 characters"));
    }
    context.join(&room).await?;
    context
        .clients()
        .others_in_group(&room)
        .send("Joined", (&room, context.connection_id().as_str()))
        .await?;
    Ok(context.groups().len())
}

async fn say(context: Context, post: Post) -> Result<(), HubError> {
    context.clients().group(&post.room).send("Said", (&post,)).await?;
    Ok(())
}

async fn greet(context: Context) -> Result<(), HubError> {
    let id = context.connection_id().to_string();
    context.clients().caller().send("Welcome", (id,)).await?;
    Ok(())
}

async fn part(context: Context, reason: Disconnected) {
    println!("{} left: {reason}", context.connection_id());
}

/// Hubs can be used from anywhere in the application, here from an HTTP handler.
async fn announce(State(hub): State<HubHandle>, text: String) -> Result<StatusCode, (StatusCode, String)> {
    let sent = hub.clients().all().send("Announced", (text,)).await;
    sent.map_err(|error| (StatusCode::SERVICE_UNAVAILABLE, error.to_string()))?;
    Ok(StatusCode::ACCEPTED)
}

/// Sends the time from a background task.
async fn tell_the_time(hub: HubHandle) {
    let mut ticks = interval(Duration::from_secs(10));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    for tick in 0_u64.. {
        ticks.tick().await;
        if let Err(error) = hub.clients().all().send("Tick", (tick,)).await {
            eprintln!("not sent: {error}");
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let chat = Hub::new("chat")
        .method("Join", join)
        .method("Say", say)
        .on_connected(greet)
        .on_disconnected(part);
    let mut options = Options::default();
    options.auth.allow_anonymous = Some(true);
    let gateway = Gateway::builder().hub(chat).options(options).build().await?;

    let hub = gateway.hub("chat")?;
    tokio::spawn(tell_the_time(hub.clone()));
    let app = Router::new()
        .route("/announce", post(announce))
        .with_state(hub)
        .merge(gateway.router());

    let address = std::env::args().nth(1);
    let stopped = common::stopped()?;
    let listener = TcpListener::bind(address.as_deref().unwrap_or("127.0.0.1:8080")).await?;
    println!("listening on http://{}", listener.local_addr()?);
    axum::serve(listener, app)
        .with_graceful_shutdown(async move {
            stopped.await;
            gateway.shutdown(Duration::from_secs(10)).await;
        })
        .await?;
    Ok(())
}
