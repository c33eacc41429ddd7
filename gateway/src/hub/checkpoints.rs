//! Gathers how far clients are, and writes it down in batches.

use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::sleep;

use super::HubRuntime;
use crate::session::Session;

/// How long checkpoints are gathered. After a crash the client is sent again what it acknowledged within this time.
const GATHER: Duration = Duration::from_secs(1);

/// Sessions of one hub with a checkpoint to write.
#[derive(Default)]
pub(crate) struct Checkpoints {
    waiting: Mutex<Vec<Weak<Session>>>,
}

impl Checkpoints {
    /// Has a session's checkpoint written soon. The first one of a batch starts the task that writes it.
    pub(crate) fn add(&self, hub: &Arc<HubRuntime>, session: &Arc<Session>) {
        let first = {
            let mut waiting = self.waiting.lock();
            waiting.push(Arc::downgrade(session));
            waiting.len() == 1
        };
        if first {
            let hub = Arc::clone(hub);
            hub.shared().tasks().clone().spawn(async move {
                sleep(GATHER).await;
                hub.checkpoints().write(&hub).await;
            });
        }
    }

    async fn write(&self, hub: &HubRuntime) {
        let waiting = std::mem::take(&mut *self.waiting.lock());
        let checkpoint = |session: &Weak<Session>| {
            let session = session.upgrade()?;
            let (version, checkpoint) = session.take_checkpoint()?;
            Some((session.id().clone(), version, checkpoint))
        };
        let checkpoints: Vec<_> = waiting.iter().filter_map(checkpoint).collect();
        if checkpoints.is_empty() {
            return;
        }
        let written = checkpoints.len() as u64;
        match hub
            .shared()
            .backplane()
            .checkpoint(hub.name(), &checkpoints)
            .await
        {
            Ok(()) => drop(hub.shared().metrics().checkpoints.inc_by(written)),
            Err(error) => tracing::debug!(hub = %hub.name(), %error, "checkpoints could not be written"),
        }
    }
}
