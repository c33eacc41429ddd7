//! Calls that still run on this node for connections that moved to other nodes.

use std::collections::HashMap;
use std::sync::Arc;

use hubcast_backplane::ConnectionId;
use parking_lot::Mutex;
use tokio::sync::mpsc;

use crate::protocol::HubMessage;

type Batches = mpsc::Sender<Vec<HubMessage>>;

/// The queues of messages to such calls, by connection. A connection that came and went several times has several.
#[derive(Default, Clone)]
pub(crate) struct HandedOffCalls {
    of: Arc<Mutex<HashMap<ConnectionId, Vec<Batches>>>>,
}

impl HandedOffCalls {
    /// Takes calls in, until the returned value is dropped.
    pub(crate) fn arrive(&self, connection: &ConnectionId, batches: Batches) -> HandedOffCall {
        let mut of = self.of.lock();
        of.entry(connection.clone()).or_default().push(batches.clone());
        HandedOffCall {
            handed_off_calls: self.clone(),
            connection: connection.clone(),
            batches,
        }
    }

    /// Hands messages of a connection to its calls.
    pub(crate) async fn take(
        &self,
        connection: &ConnectionId,
        messages: Vec<HubMessage>,
    ) -> Result<(), NoCalls> {
        let batches = self.of.lock().get(connection).cloned().unwrap_or_default();
        let mut taken = Err(NoCalls);
        for batches in batches {
            if batches.send(messages.clone()).await.is_ok() {
                taken = Ok(());
            }
        }
        taken
    }
}

/// No call of the connection runs here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NoCalls;

/// Keeps calls reachable.
pub(crate) struct HandedOffCall {
    handed_off_calls: HandedOffCalls,
    connection: ConnectionId,
    batches: Batches,
}

impl Drop for HandedOffCall {
    fn drop(&mut self) {
        let mut of = self.handed_off_calls.of.lock();
        if let Some(batches) = of.get_mut(&self.connection) {
            batches.retain(|batches| !batches.same_channel(&self.batches));
            if batches.is_empty() {
                of.remove(&self.connection);
            }
        }
    }
}
