//! Hubcast: a realtime gateway that speaks the SignalR hub protocol over WebSocket, server-sent events and long
//! polling. Any node serves any request of any client; there are no sticky sessions.
//!
//! A [`Hub`] is a set of async functions that clients call, and of clients that are called. A [`Gateway`] is a node that
//! serves hubs; it gives an axum `Router` to mount in any application. With a Redis
//! [`Backplane`](hubcast_backplane::Backplane) many nodes form one cluster.
//!
//! ```
//! use hubcast::{Context, Hub, HubError};
//!
//! async fn join(context: Context, room: String) -> Result<(), HubError> {
//!     context.join(&room).await?;
//!     let joined = context.connection_id().to_string();
//!     context.clients().others_in_group(&room).send("Joined", (joined,)).await?;
//!     Ok(())
//! }
//!
//! let hub = Hub::new("rooms").method("Join", join);
//! ```

mod auth;
mod bom;
#[cfg(feature = "cli")]
mod builtin;
#[cfg(feature = "cli")]
pub mod cli;
mod cluster;
#[cfg(feature = "cli")]
mod config;
#[cfg(feature = "cli")]
mod demo;
mod drain;
mod error;
mod fanout;
mod gateway;
mod http;
mod hub;
mod limits;
#[cfg(feature = "cli")]
mod node;
mod options;
pub mod protocol;
mod session;
mod telemetry;
mod tester;
mod transport;

pub use auth::{Identity, Permissions};
pub use drain::{Drained, Rebalance, SETTLED, Share};
pub use error::Error;
pub use gateway::{Gateway, GatewayBuilder};
pub use hub::{
    Arguments, BindError, Call, CallerClients, Census, Clients, Connected, Connection, ConnectionData,
    Context, Disconnected, Event, Filter, FromHook, FromInvocation, Groups, Hook, HookOutcome, Hub, HubError,
    HubHandle, HubSettings, InGroup, IntoOutcome, IntoStream, Invoked, MAX_PAGE, MAX_REASON_BYTES, Member,
    MemberPage, Method, Needed, Next, NextHook, OfConnection, OfUser, Page, Question, Recipient, Recipients,
    Reply, Rest, Resumed, State, StreamMethod, Upload, UploadError, marker,
};
pub use hubcast_backplane as backplane;
pub use options::{
    AuthOptions, CorsOptions, HubDefaults, KeyAge, KeyInterval, Leeway, Limits, OptionError, Options,
    ServerOptions, Timeouts,
};
pub use protocol::Transport;
pub use tester::{Called, Closed, HubTester, TestCall, TestClient, TestClientBuilder, TestUpload};
