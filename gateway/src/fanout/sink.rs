//! The sink of a hub's log on this node: it is there before the hub is opened, and the hub's runtime shares it.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use hubcast_backplane::{Delivery, Epoch, HubName, HubSink};

use super::{Registry, deliver};
use crate::hub::Shared;

/// The sessions of a hub on this node, and the epoch of the messages that they are given.
pub(crate) struct Sink {
    hub: HubName,
    registry: Registry,
    /// The epoch of the log that the deliveries are from; empty until a session first needs it.
    epoch: ArcSwapOption<Epoch>,
    shared: Arc<Shared>,
}

impl Sink {
    pub(crate) fn new(hub: HubName, shared: Arc<Shared>) -> Self {
        Self {
            hub,
            registry: Registry::new(),
            epoch: ArcSwapOption::empty(),
            shared,
        }
    }

    /// The hub's name.
    pub(crate) fn hub(&self) -> &HubName {
        &self.hub
    }

    pub(crate) fn registry(&self) -> &Registry {
        &self.registry
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// The epoch of the deliveries, for connections that have called [`learn_epoch`](Self::learn_epoch).
    pub(crate) fn epoch(&self) -> Option<Arc<Epoch>> {
        self.epoch.load_full()
    }

    /// Records the present epoch before a reader enters: its messages are of this one, or of one that came since.
    pub(crate) fn learn_epoch(&self, epoch: &Epoch) {
        self.epoch
            .rcu(|known| Some(known.clone().unwrap_or_else(|| Arc::new(epoch.clone()))));
    }

    /// Takes the log's new epoch.
    pub(super) fn begin_epoch(&self, epoch: &Epoch) {
        self.epoch.store(Some(Arc::new(epoch.clone())));
    }
}

impl HubSink for Sink {
    fn deliver(&self, deliveries: &[Delivery]) {
        deliver(self, deliveries);
    }
}
