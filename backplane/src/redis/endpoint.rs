//! A master: where it is now, and connections to it.

use std::sync::Arc;

use redis::aio::MultiplexedConnection;
use redis::{ErrorKind, RedisResult};

use super::connector::{Connector, Take, within};
use super::link::server_run;
use super::location::Address;
use super::run::Run;
use super::sentinel::Sentinels;

/// How to reach one master.
#[derive(Clone)]
pub(super) struct Endpoint {
    pub(super) connector: Connector,
    pub(super) place: Place,
    /// It is one of a cluster, so what is published to its channels stays there.
    pub(super) sharded: bool,
}

/// Where the master is.
#[derive(Clone)]
pub(super) enum Place {
    /// There.
    Server(Address),
    /// Where sentinels say.
    Sentinels(Arc<Sentinels>),
}

/// A connection to a master.
pub(super) struct Opened<T> {
    pub(super) connection: MultiplexedConnection,
    /// The run of the server that it leads to.
    pub(super) run: Run,
    pub(super) address: Address,
    /// What was made for this connection.
    pub(super) listener: T,
}

impl Endpoint {
    /// Opens a connection to a server that is a master. `listen` makes what takes its pushes.
    pub(super) async fn connect<T>(&self, listen: impl Fn() -> (T, Take)) -> RedisResult<Opened<T>> {
        let candidates = match &self.place {
            Place::Server(address) => vec![address.clone()],
            Place::Sentinels(sentinels) => sentinels.masters().await?,
        };
        // One that does not answer leaves time for the next one.
        let count = u32::try_from(candidates.len().max(1)).unwrap_or(u32::MAX);
        let bound = self.connector.bound() / count;
        let mut failed = None;
        for address in candidates {
            let (listener, take) = listen();
            let opening = async {
                let mut connection = self.connector.open(&address, Some(take)).await?;
                let run = server_run(&mut connection, self.sharded).await?;
                Ok((connection, run))
            };
            match within(bound, opening).await {
                Ok((connection, run)) => {
                    return Ok(Opened {
                        connection,
                        run,
                        address,
                        listener,
                    });
                }
                Err(error) => {
                    failed.get_or_insert(error);
                }
            }
        }
        Err(failed.unwrap_or_else(|| (ErrorKind::Io, "there is no master").into()))
    }

    /// The command that publishes to channels of this server.
    pub(super) fn publish(&self) -> &'static str {
        if self.sharded { "SPUBLISH" } else { "PUBLISH" }
    }
}
