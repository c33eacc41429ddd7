//! Decides whether the directory of a hub has all connections again after the server forgot them.
//!
//! A connection that is not listed does not exist, once every living node has registered in the present epoch. A node
//! that does not serve the hub never registers; then the age of the epoch decides ([`RedisOptions::settled`]).
//!
//! [`RedisOptions::settled`]: crate::redis::options::RedisOptions::settled

use std::time::Duration;

use crate::error::BackplaneError;
use crate::redis::feed::hub::Hub;
use crate::redis::inner::Inner;
use crate::redis::keys::HubKeys;
use crate::redis::server::commands::Repeat;
use crate::redis::server::replies::decode;
use crate::topic::NodeId;

impl Inner {
    /// Returns whether every living node has registered its connections of the hub in this epoch, which has lasted
    /// for `age`.
    pub(in crate::redis) async fn is_settled(
        &self,
        hub: &Hub,
        epoch: &str,
        age: Duration,
    ) -> Result<bool, BackplaneError> {
        // Every living node has sent a beat in the epoch by then, also one that started just before it.
        let heard = age.saturating_sub(self.options.heartbeat_interval * 3 / 2);
        if !self.nodes.is_fresh(heard) {
            return Ok(false);
        }
        let living = self.nodes.living().borrow().clone();
        let mut command = redis::cmd("HMGET");
        command.arg(hub.scripts.keys.registered());
        for node in living.iter() {
            command.arg(node.as_str());
        }
        let registered: Vec<Option<String>> = decode(self.commands.command(&command, Repeat::Safe).await?)?;
        Ok(registered
            .iter()
            .all(|in_epoch| in_epoch.as_deref() == Some(epoch)))
    }

    /// Records in the server that this node has registered in an epoch.
    pub(in crate::redis) async fn note_registered(
        &self,
        hub: &Hub,
        epoch: &str,
    ) -> Result<(), BackplaneError> {
        let mut command = redis::cmd("HSET");
        command
            .arg(hub.scripts.keys.registered())
            .arg(self.options.node.as_str())
            .arg(epoch);
        self.commands.command(&command, Repeat::Safe).await.map(drop)
    }

    /// Deletes the record of a node that serves the hub no more.
    pub(in crate::redis) async fn forget_registered(
        &self,
        keys: &HubKeys,
        node: &NodeId,
    ) -> Result<(), BackplaneError> {
        let mut command = redis::cmd("HDEL");
        command.arg(keys.registered()).arg(node.as_str());
        self.commands.command(&command, Repeat::Safe).await.map(drop)
    }
}
