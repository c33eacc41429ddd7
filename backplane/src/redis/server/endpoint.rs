//! A master: where it is now, and connections to it.

use std::sync::Arc;
use std::time::Duration;

use redis::RedisResult;
use redis::aio::MultiplexedConnection;

use crate::redis::server::connector::{Connector, Take, within};
use crate::redis::server::info::{ServerInfo, master_info};
use crate::redis::server::location::Address;
use crate::redis::server::sentinel::Sentinels;

/// The way to reach one master.
#[derive(Clone)]
pub(in crate::redis) struct Endpoint {
    pub(in crate::redis) connector: Connector,
    pub(in crate::redis) place: MasterSource,
    /// The master is one of a cluster: messages to its channels stay on it.
    pub(in crate::redis) sharded: bool,
}

/// The source of the master's address.
#[derive(Clone)]
pub(in crate::redis) enum MasterSource {
    /// A fixed address.
    Server(Address),
    /// The address that sentinels name.
    Sentinels(Arc<Sentinels>),
}

/// A connection to a master.
pub(in crate::redis) struct Opened<T> {
    pub(in crate::redis) connection: MultiplexedConnection,
    /// The server's description of itself.
    pub(in crate::redis) info: ServerInfo,
    pub(in crate::redis) address: Address,
    /// The value that `listen` made for this connection.
    pub(in crate::redis) listener: T,
}

impl Endpoint {
    /// Opens a connection to a server that is a master. `listen` makes the receiver of its pushes.
    pub(in crate::redis) async fn connect<T>(
        &self,
        listen: impl Fn() -> (T, Take),
    ) -> RedisResult<Opened<T>> {
        let address = match &self.place {
            MasterSource::Server(address) => address.clone(),
            MasterSource::Sentinels(sentinels) => sentinels.master().await?,
        };
        let (listener, take) = listen();
        let opening = async {
            let mut connection = self.connector.open(&address, Some(take)).await?;
            let info = master_info(&mut connection, self.sharded).await?;
            Ok((connection, info))
        };
        let (connection, info) = within(self.connector.bound(), opening).await?;
        Ok(Opened {
            connection,
            info,
            address,
            listener,
        })
    }

    /// Returns whether sentinels name another server than this one. Where none of them answers, the master is where
    /// it was.
    pub(in crate::redis) async fn has_left(&self, address: &Address) -> bool {
        match &self.place {
            MasterSource::Server(_) => false,
            MasterSource::Sentinels(sentinels) => {
                sentinels.master().await.is_ok_and(|named| named != *address)
            }
        }
    }

    /// The same endpoint with another bound.
    pub(in crate::redis) fn bounded(&self, bound: Duration) -> Self {
        Self {
            connector: self.connector.bounded(bound),
            ..self.clone()
        }
    }

    /// The command that publishes to channels of this server.
    pub(in crate::redis) fn publish(&self) -> &'static str {
        if self.sharded { "SPUBLISH" } else { "PUBLISH" }
    }
}
