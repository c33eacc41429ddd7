//! Asks Redis Sentinels where the master is.
//!
//! The `redis` crate's own client for sentinels asks them for all masters that they watch, trusts the first answer, and
//! waits without bound for each; after a failover, that answer may name the former master for seconds.

use std::collections::HashMap;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use redis::{ErrorKind, RedisError, RedisResult, Value};
use tokio::time::{Instant, timeout_at};
use tracing::debug;

use crate::redis::server::connector::{Connector, within};
use crate::redis::server::location::{Address, Login};
use crate::redis::server::replies::Trouble;

/// The time limit for one sentinel's answer.
const PATIENCE: Duration = Duration::from_secs(1);
/// Time that the other sentinels are waited for after most have named the same master.
const GRACE: Duration = Duration::from_millis(100);

pub(in crate::redis) struct Sentinels {
    connector: Connector,
    addresses: Vec<Address>,
    /// The name under which the sentinels know the master.
    master: String,
}

impl Sentinels {
    pub(in crate::redis) fn new(
        servers: &Connector,
        login: &Login,
        addresses: Vec<Address>,
        master: String,
    ) -> Self {
        Self {
            connector: servers.for_sentinels(login, PATIENCE.min(servers.bound())),
            addresses,
            master,
        }
    }

    /// The master's address after the newest failover that any sentinel knows of. A sentinel that was cut off, or does
    /// not know of the failover yet, still names the former master, which may live and take itself for the master.
    pub(in crate::redis) async fn master(&self) -> RedisResult<Address> {
        let mut asked: FuturesUnordered<_> = self.addresses.iter().map(|address| self.ask(address)).collect();
        let majority = self.addresses.len() / 2 + 1;
        let mut votes: Vec<Vote> = Vec::new();
        let mut failed = None;
        let mut until = Instant::now() + self.connector.bound();
        while let Ok(Some(answer)) = timeout_at(until, asked.next()).await {
            match answer {
                // The refusal of one sentinel is a better reason than the absence of another.
                Err(error) if failed.is_none() || error.kind() == ErrorKind::InvalidClientConfig => {
                    failed = Some(error);
                }
                Err(_) => {}
                Ok(named) => add(&mut votes, named),
            }
            if votes.iter().any(|vote| vote.count >= majority) {
                until = until.min(Instant::now() + GRACE);
            }
        }
        let newest = votes.into_iter().max_by_key(|vote| (vote.failover, vote.count));
        match (newest, failed) {
            (Some(vote), _) => Ok(vote.master),
            (None, Some(error)) => Err(error),
            (None, None) => Err((ErrorKind::Io, "no sentinel answers").into()),
        }
    }

    async fn ask(&self, sentinel: &Address) -> RedisResult<NamedMaster> {
        let asking = async {
            let mut connection = self.connector.open(sentinel, None).await?;
            let mut ask = redis::pipe();
            ask.cmd("SENTINEL")
                .arg("GET-MASTER-ADDR-BY-NAME")
                .arg(&self.master);
            ask.cmd("SENTINEL").arg("MASTER").arg(&self.master);
            let answers: Vec<RedisResult<Value>> = ask.ignore_errors().query_async(&mut connection).await?;
            let mut answers = answers.into_iter();
            let address = answers.next().unwrap_or(Ok(Value::Nil))?;
            let address: Option<(String, u16)> = redis::from_redis_value(address)?;
            // A user without the permission for this command goes by the answer of most sentinels.
            let failover = answers.next().and_then(|facts| config_epoch(facts.ok()?));
            Ok((address, failover.unwrap_or_default()))
        };
        match within(self.connector.bound(), asking).await {
            Ok((Some((host, port)), failover)) => Ok(NamedMaster {
                master: Address { host, port },
                failover,
            }),
            Ok((None, _)) => Err(self.unknown_master()),
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

/// One sentinel's answer.
struct NamedMaster {
    master: Address,
    /// The number of the newest failover that it knows of.
    failover: u64,
}

/// An answer that some sentinels share.
struct Vote {
    master: Address,
    failover: u64,
    count: usize,
}

fn add(votes: &mut Vec<Vote>, NamedMaster { master, failover }: NamedMaster) {
    match votes.iter_mut().find(|vote| vote.master == master) {
        Some(vote) => {
            vote.count += 1;
            vote.failover = vote.failover.max(failover);
        }
        None => votes.push(Vote {
            master,
            failover,
            count: 1,
        }),
    }
}

/// Reads the failover's number from a list of names and values.
fn config_epoch(facts: Value) -> Option<u64> {
    let facts: HashMap<String, String> = redis::from_redis_value(facts).ok()?;
    facts.get("config-epoch")?.parse().ok()
}

/// Adds to an error that a sentinel refused, not a server.
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
