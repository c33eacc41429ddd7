//! The names that almost every hub needs: `use hubcast::prelude::*;`
//!
//! ```
//! use std::sync::atomic::{AtomicUsize, Ordering};
//!
//! use hubcast::prelude::*;
//!
//! async fn arrived(context: Context) -> Result<(), HubError> {
//!     context.clients().others().send("Arrived", ()).await?;
//!     Ok(())
//! }
//!
//! async fn left(context: Context, end: Disconnected, left: State<AtomicUsize>) {
//!     left.fetch_add(1, Ordering::Relaxed);
//!     println!("{} left: {end:?}", context.connection_id());
//! }
//!
//! let hub = Hub::new("rooms").state(AtomicUsize::new(0)).on_connected(arrived).on_disconnected(left);
//! ```

pub use crate::gateway::Gateway;
pub use crate::hub::{
    Clients, Connection, ConnectionData, Context, Disconnected, Groups, Hub, HubError, HubHandle, State,
    Upload,
};
pub use crate::options::Options;
