//! The hub code of several nodes, to which ends are reported as a gateway reports them.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock, Weak};

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use hubcast_backplane::{Backplane, ConnectionId, ConnectionRecord, HubName, NodeService};
use parking_lot::Mutex;

/// The reported ends, by connection, with the reports of each.
pub type Told = Arc<Mutex<BTreeMap<String, Vec<Bytes>>>>;

/// One node's service.
pub struct Teller {
    node: OnceLock<Weak<dyn Backplane>>,
    told: Told,
}

impl Teller {
    pub fn of(node: &Arc<dyn Backplane>, told: &Told) {
        let teller = Self {
            node: OnceLock::from(Arc::downgrade(node)),
            told: Arc::clone(told),
        };
        node.set_service(Arc::new(teller));
    }
}

impl NodeService for Teller {
    fn serve(&self, _payload: Bytes) -> BoxFuture<'static, Result<Bytes, String>> {
        std::future::pending().boxed()
    }

    fn orphan_removed(&self, hub: &HubName, connection: ConnectionRecord, tells: Bytes) {
        note(&self.told, &connection.id, tells);
        if let Some(node) = self.node.get().and_then(Weak::upgrade) {
            node.told(hub, &connection.id);
        }
    }

    fn connection_lost(&self, _hub: &HubName, _connection: &ConnectionId) {}

    fn fenced(&self) {}
}

/// Records the report of an end.
pub fn note(told: &Told, id: &ConnectionId, tells: Bytes) {
    told.lock().entry(id.to_string()).or_default().push(tells);
}
