//! The hub code of several nodes, to which ends are reported as a gateway reports them.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use hubcast_backplane::{Backplane, ConnectionId, ConnectionRecord, HubBackplane, HubName, NodeService};
use parking_lot::Mutex;

/// The reported ends, by connection, with the reports of each.
pub type Told = Arc<Mutex<BTreeMap<String, Vec<Bytes>>>>;

/// The service of a node with one hub.
pub struct Teller {
    hub: Weak<dyn HubBackplane>,
    told: Told,
}

impl Teller {
    pub fn of(node: &dyn Backplane, hub: &Arc<dyn HubBackplane>, told: &Told) {
        let teller = Self {
            hub: Arc::downgrade(hub),
            told: Arc::clone(told),
        };
        node.set_service(Arc::new(teller));
    }
}

impl NodeService for Teller {
    fn serve(&self, _payload: Bytes) -> BoxFuture<'static, Result<Bytes, String>> {
        std::future::pending().boxed()
    }

    fn orphan_removed(&self, _hub: &HubName, connection: ConnectionRecord, tells: Bytes) {
        note(&self.told, &connection.id, tells);
        if let Some(hub) = self.hub.upgrade() {
            hub.told(&connection.id);
        }
    }

    fn connection_lost(&self, _hub: &HubName, _connection: &ConnectionId) {}

    fn fenced(&self) {}
}

/// Records the report of an end.
pub fn note(told: &Told, id: &ConnectionId, tells: Bytes) {
    told.lock().entry(id.to_string()).or_default().push(tells);
}
