//! A node that dies as a killed process does: nothing of it runs any more, and nothing is said.

use std::sync::Arc;
use std::time::Duration;

use hubcast_backplane::conformance::Member;
use hubcast_backplane::redis::{RedisBackplane, RedisOptions};
use hubcast_backplane::{Backplane, HubName, HubOptions};

use super::RedisServer;

/// A node that is about to live for a while and die.
pub struct Dying {
    options: RedisOptions,
    hub: HubName,
    hub_options: HubOptions,
}

impl Dying {
    pub fn new(server: &RedisServer, hub: &HubName, hub_options: HubOptions) -> Self {
        let mut options = server.options("dies");
        options.lease = Duration::from_millis(600);
        Self {
            options,
            hub: hub.clone(),
            hub_options,
        }
    }

    /// Connects the node, does something with it and kills it. Returns when it is dead.
    pub async fn live<T: Send + 'static>(self, life: impl AsyncFnOnce(Member) -> T + Send + 'static) -> T {
        let died = std::thread::spawn(move || {
            let runtime = tokio::runtime::Runtime::new().unwrap();
            let outcome = runtime.block_on(async {
                let node: Arc<dyn Backplane> = Arc::new(RedisBackplane::connect(self.options).await.unwrap());
                let outcome = life(Member::open(&node, &self.hub, self.hub_options).await).await;
                std::mem::forget(node); // it does not say goodbye
                outcome
            });
            runtime.shutdown_background();
            outcome
        });
        tokio::task::spawn_blocking(|| died.join().unwrap())
            .await
            .unwrap()
    }
}
