//! The hub code of several nodes, to which ends are reported as a gateway reports them.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use hubcast_backplane::{
    Backplane, ConnectionId, ConnectionRecord, HubBackplane, HubName, NodeService, ServiceError,
};
use parking_lot::Mutex;

/// The reported ends, by connection, with the reports of each.
pub type Reported = Arc<Mutex<BTreeMap<String, Vec<Bytes>>>>;

/// The service of a node with one hub.
pub struct Reporter {
    hub: Weak<dyn HubBackplane>,
    reported: Reported,
}

impl Reporter {
    pub fn of(node: &dyn Backplane, hub: &Arc<dyn HubBackplane>, reported: &Reported) {
        let reporter = Self {
            hub: Arc::downgrade(hub),
            reported: Arc::clone(reported),
        };
        node.set_service(Arc::new(reporter));
    }
}

impl NodeService for Reporter {
    fn serve(&self, _payload: Bytes) -> BoxFuture<'static, Result<Bytes, ServiceError>> {
        std::future::pending().boxed()
    }

    fn orphan_removed(&self, _hub: &HubName, connection: ConnectionRecord, report: Bytes) {
        note(&self.reported, &connection.id, report);
        if let Some(hub) = self.hub.upgrade() {
            hub.end_reported(&connection.id);
        }
    }

    fn connection_lost(&self, _hub: &HubName, _connection: &ConnectionId) {}

    fn fenced(&self) {}
}

/// Records the report of an end.
pub fn note(reported: &Reported, id: &ConnectionId, report: Bytes) {
    reported.lock().entry(id.to_string()).or_default().push(report);
}
