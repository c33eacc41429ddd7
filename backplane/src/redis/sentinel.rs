//! Asks Redis Sentinels where the master is.
//!
//! The `redis` crate's own client for sentinels asks them for everything they watch, trusts the first answer, and
//! waits without bound for each; after a failover that may be the master of before for seconds.

use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use redis::{ErrorKind, RedisError, RedisResult};
use tokio::time::{Instant, timeout_at};
use tracing::debug;

use super::connector::{Connector, within};
use super::link::Trouble;
use super::location::{Address, Login};

/// How long one sentinel may take.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long the others may take after most have said the same.
const GRACE: Duration = Duration::from_millis(100);

pub(super) struct Sentinels {
    connector: Connector,
    addresses: Vec<Address>,
    /// The name under which they know the master.
    master: String,
}

impl Sentinels {
    pub(super) fn new(servers: &Connector, login: &Login, addresses: Vec<Address>, master: String) -> Self {
        Self {
            connector: servers.for_sentinels(login, PATIENCE.min(servers.bound())),
            addresses,
            master,
        }
    }

    /// Where the master is, as most sentinels say, then as others say. A failover is known to one of them first, and
    /// one that was cut off may not know of it.
    pub(super) async fn masters(&self) -> RedisResult<Vec<Address>> {
        let mut asked: FuturesUnordered<_> = self.addresses.iter().map(|address| self.ask(address)).collect();
        let majority = self.addresses.len() / 2 + 1;
        let mut votes: Vec<(Address, usize)> = Vec::new();
        let mut failed = None;
        let mut until = Instant::now() + self.connector.bound();
        while let Ok(Some(answer)) = timeout_at(until, asked.next()).await {
            match answer {
                // That a sentinel is not there says less than what another one refuses.
                Err(error) if failed.is_none() || error.kind() == ErrorKind::InvalidClientConfig => {
                    failed = Some(error);
                }
                Err(_) => {}
                Ok(master) => match votes.iter_mut().find(|(named, _)| *named == master) {
                    Some((_, count)) => *count += 1,
                    None => votes.push((master, 1)),
                },
            }
            if votes.iter().any(|(_, count)| *count >= majority) {
                until = until.min(Instant::now() + GRACE);
            }
        }
        votes.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        let masters: Vec<_> = votes.into_iter().map(|(master, _)| master).collect();
        match failed {
            Some(error) if masters.is_empty() => Err(error),
            _ => Ok(masters),
        }
    }

    async fn ask(&self, sentinel: &Address) -> RedisResult<Address> {
        let asking = async {
            let mut connection = self.connector.open(sentinel, None).await?;
            let mut command = redis::cmd("SENTINEL");
            command.arg("GET-MASTER-ADDR-BY-NAME").arg(&self.master);
            command
                .query_async::<Option<(String, u16)>>(&mut connection)
                .await
        };
        let answer = within(self.connector.bound(), asking).await;
        match answer {
            Ok(Some((host, port))) => Ok(Address { host, port }),
            Ok(None) => Err(self.unknown_master()),
            Err(error) => {
                debug!(%sentinel, %error, "sentinel does not tell the master");
                Err(explained(sentinel, error))
            }
        }
    }

    fn unknown_master(&self) -> RedisError {
        let name = self.master.clone();
        let problem = "the sentinels know no master of this name";
        (ErrorKind::InvalidClientConfig, problem, name).into()
    }
}

/// Says that a sentinel refused, not a server.
fn explained(sentinel: &Address, error: RedisError) -> RedisError {
    let problem = match Trouble::of(&error) {
        Trouble::Final(_) if error.kind() == ErrorKind::InvalidClientConfig => return error,
        Trouble::Final(_) => "a sentinel refuses, see sentinel_username and sentinel_password",
        _ => {
            return (
                ErrorKind::Io,
                "a sentinel can't be asked",
                format!("{sentinel}: {error}"),
            )
                .into();
        }
    };
    let reason = error.detail().unwrap_or(error.category());
    let detail = format!("{sentinel}: {reason}");
    (ErrorKind::InvalidClientConfig, problem, detail).into()
}
