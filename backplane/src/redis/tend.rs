//! Tends a hub's log beside what is published: forgets what it has too much of, and tells what a former master has kept to
//! itself.

use std::sync::Arc;

use tokio::time::sleep;
use tracing::{debug, warn};

use super::hub::Hub;
use super::inner::Inner;

impl Inner {
    /// Sweeps a hub's log each heartbeat interval, and tells of splits, until closing.
    pub(super) async fn tend_log(self: Arc<Self>, hub: Arc<Hub>) {
        let splits = hub.scripts.writer.splits();
        loop {
            tokio::select! {
                () = self.closing.cancelled() => return,
                () = splits.notified() => self.tell_split(&hub).await,
                () = sleep(self.options.heartbeat_interval) => self.sweep(&hub).await,
            }
        }
    }

    /// Forgets what is too old or too much, until all of it is swept.
    async fn sweep(&self, hub: &Hub) {
        loop {
            match hub.scripts.sweep().await {
                Ok(0) => return,
                Ok(_) => {}
                Err(error) => return debug!(hub = %hub.name, %error, "the log can't be swept yet"),
            }
        }
    }

    /// Appends to each topic that messages of it are lost: a server that was no longer the master has acknowledged them, and
    /// who was given a new epoch before that was not told.
    async fn tell_split(&self, hub: &Hub) {
        let topics = hub.scripts.writer.take_split();
        if topics.is_empty() {
            return;
        }
        warn!(hub = %hub.name, topics = topics.len(), "a former Redis master has acknowledged messages that are lost");
        if let Err(error) = hub.scripts.publish_gaps(&topics).await {
            warn!(hub = %hub.name, %error, "the loss of messages could not be told");
        }
    }
}
