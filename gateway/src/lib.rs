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

pub mod auth;
mod bom;
mod cluster;
pub mod drain;
mod error;
mod fanout;
mod gateway;
mod http;
pub mod hub;
mod limits;
mod odata;
pub mod options;
pub mod prelude;
pub mod protocol;
pub mod server;
mod session;
pub mod telemetry;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
mod transport;
pub mod upstream;

pub use error::Error;
pub use gateway::{Gateway, GatewayBuilder};
pub use hub::{Context, Hub, HubError};
pub use hubcast_backplane as backplane;
pub use options::Options;
