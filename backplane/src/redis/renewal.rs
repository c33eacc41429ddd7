//! Tends the hubs of a cluster, each for itself: every master has a run of its own and may be down alone, and the
//! nodes' signs of life go to one of them only.

use std::collections::HashMap;
use std::sync::Arc;

use futures_util::future::{join_all, try_join_all};
use parking_lot::Mutex;
use tokio::time::{MissedTickBehavior, interval};
use tracing::{debug, info};

use super::hub::Hub;
use super::inner::Inner;
use crate::error::BackplaneError;
use crate::position::Epoch;
use crate::topic::HubName;

/// The epoch of each hub in which everything of this node is registered.
#[derive(Default)]
pub(super) struct Told {
    epochs: Mutex<HashMap<HubName, Epoch>>,
}

impl Inner {
    /// Tends the hubs of a cluster until closing: looks for new epochs, also of masters that forgot without a lost
    /// connection, tells what could not be told before, and removes what has expired. Hubs do not wait for each other.
    pub(super) async fn run_renewals(self: Arc<Self>, told: Arc<Told>) {
        let mut ticks = interval(self.options.heartbeat_interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = self.closing.cancelled() => return,
                _ = ticks.tick() => {}
            }
            let hubs = self.all_hubs();
            for outcome in join_all(hubs.iter().map(|hub| self.tend(hub, &told))).await {
                if let Err(error) = outcome {
                    debug!(%error, "a hub can't be tended yet");
                }
            }
        }
    }

    async fn tend(&self, hub: &Hub, told: &Told) -> Result<(), BackplaneError> {
        self.renew_one(hub, told).await?;
        self.finish_hub(hub).await;
        if self.service().is_some() {
            self.remove_expired(hub).await?;
        }
        Ok(())
    }

    /// Registers this node's connections again where the log of a hub is in another epoch.
    pub(super) async fn renew(&self, hubs: &[Arc<Hub>], told: &Told) -> Result<(), BackplaneError> {
        try_join_all(hubs.iter().map(|hub| self.renew_one(hub, told))).await?;
        Ok(())
    }

    async fn renew_one(&self, hub: &Hub, told: &Told) -> Result<(), BackplaneError> {
        let epoch = hub.scripts.extent(&self.commands).await?.epoch;
        if told.epochs.lock().get(&hub.name) == Some(&epoch) {
            return Ok(());
        }
        let (registered, refused) = self.register_hub(hub).await?;
        let known = told.epochs.lock().insert(hub.name.clone(), epoch);
        if known.is_some() {
            info!(hub = %hub.name, connections = registered, "registered again in the hub's new epoch");
        }
        if refused > 0 {
            self.fenced(); // somebody took them over or removed them while this node was away
        }
        Ok(())
    }
}
