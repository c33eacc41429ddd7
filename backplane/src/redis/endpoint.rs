//! A master: where it is now, and connections to it.

use std::sync::Arc;
use std::time::Duration;

use redis::RedisResult;
use redis::aio::MultiplexedConnection;

use super::connector::{Connector, Take, within};
use super::info::{ServerInfo, master_info};
use super::location::Address;
use super::sentinel::Sentinels;

/// The way to reach one master.
#[derive(Clone)]
pub(super) struct Endpoint {
    pub(super) connector: Connector,
    pub(super) place: Place,
    /// The master is one of a cluster: messages to its channels stay on it.
    pub(super) sharded: bool,
}

/// The source of the master's address.
#[derive(Clone)]
pub(super) enum Place {
    /// A fixed address.
    Server(Address),
    /// The address that sentinels name.
    Sentinels(Arc<Sentinels>),
}

/// A connection to a master.
pub(super) struct Opened<T> {
    pub(super) connection: MultiplexedConnection,
    /// The server's description of itself.
    pub(super) info: ServerInfo,
    pub(super) address: Address,
    /// The value that `listen` made for this connection.
    pub(super) listener: T,
}

impl Endpoint {
    /// Opens a connection to a server that is a master. `listen` makes the receiver of its pushes.
    pub(super) async fn connect<T>(&self, listen: impl Fn() -> (T, Take)) -> RedisResult<Opened<T>> {
        let address = match &self.place {
            Place::Server(address) => address.clone(),
            Place::Sentinels(sentinels) => sentinels.master().await?,
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

    /// Whether sentinels name another server than this one. Where none of them answers, the master is where it was.
    pub(super) async fn has_left(&self, address: &Address) -> bool {
        match &self.place {
            Place::Server(_) => false,
            Place::Sentinels(sentinels) => sentinels.master().await.is_ok_and(|named| named != *address),
        }
    }

    /// The same endpoint with another bound.
    pub(super) fn bounded(&self, bound: Duration) -> Self {
        Self {
            connector: self.connector.bounded(bound),
            ..self.clone()
        }
    }

    /// The command that publishes to channels of this server.
    pub(super) fn publish(&self) -> &'static str {
        if self.sharded { "SPUBLISH" } else { "PUBLISH" }
    }
}
