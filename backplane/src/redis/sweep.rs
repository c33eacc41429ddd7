//! Forgets what a hub's log has too much of, also while nothing is published.

use std::sync::Arc;

use tokio::time::sleep;
use tracing::debug;

use super::hub::Hub;
use super::inner::Inner;

impl Inner {
    /// Sweeps a hub's log each heartbeat interval until closing, and at once again while there is more to sweep than one
    /// call does.
    pub(super) async fn run_sweeps(self: Arc<Self>, hub: Arc<Hub>) {
        loop {
            tokio::select! {
                () = self.closing.cancelled() => return,
                () = sleep(self.options.heartbeat_interval) => {}
            }
            loop {
                match hub.scripts.sweep().await {
                    Ok(0) => break,
                    Ok(_) => {}
                    Err(error) => {
                        debug!(hub = %hub.name, %error, "the log can't be swept yet");
                        break;
                    }
                }
            }
        }
    }
}
