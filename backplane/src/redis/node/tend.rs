//! Tends a hub's log in the background: forgets slices that are too old or too much.

use std::sync::Arc;

use tokio::time::sleep;
use tracing::{debug, warn};

use crate::events::EVENTS_DROPPED;
use crate::redis::feed::hub::Hub;
use crate::redis::inner::Inner;

impl Inner {
    /// Sweeps a hub's log each heartbeat interval until closing. So the writer also notices a new epoch of a hub
    /// without other changes.
    pub(in crate::redis) async fn tend_log(self: Arc<Self>, hub: Arc<Hub>) {
        loop {
            tokio::select! {
                () = self.closing.cancelled() => return,
                () = sleep(self.options.heartbeat_interval) => self.sweep(&hub).await,
            }
        }
    }

    /// Forgets slices that are too old or too much, until all of them are swept.
    async fn sweep(&self, hub: &Hub) {
        loop {
            match hub.scripts.sweep().await {
                Ok((left, dropped)) => {
                    if dropped > 0 {
                        warn!(hub = %hub.name, events = dropped, "{EVENTS_DROPPED}");
                        hub.note_dropped(dropped);
                    }
                    if left == 0 {
                        return;
                    }
                }
                Err(error) => return debug!(hub = %hub.name, %error, "the log can't be swept yet"),
            }
        }
    }
}
