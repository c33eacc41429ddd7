//! Asks a Redis Cluster which master serves which slots.
//!
//! The `redis` crate's own client for clusters can't call scripts whose hash differs from server to server, nor say
//! on which connection a push arrived; the log's order and epochs depend on both.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use redis::{ErrorKind, RedisError, RedisResult, Value};
use tracing::debug;

use crate::redis::server::connector::{Connector, within};
use crate::redis::server::location::Address;
use crate::redis::server::run::field;
use crate::redis::server::slots;

/// The time limit for one server's answer.
const PATIENCE: Duration = Duration::from_secs(1);
/// Servers that are asked at a time.
const ASKED: usize = 3;

/// The slots that each master serves, as ranges from the first to the last.
pub(in crate::redis) type Assignment = BTreeMap<Address, Vec<(u16, u16)>>;

pub(in crate::redis) struct Cluster {
    connector: Connector,
    /// Servers that were part of it when the node was configured.
    seeds: Vec<Address>,
    turn: AtomicUsize,
}

/// The cluster as one server sees it.
struct View {
    assignment: Assignment,
    /// True where the server is in touch with the others, with the newest change that it knows of.
    standing: (bool, u64),
}

impl Cluster {
    pub(in crate::redis) fn new(servers: &Connector, seeds: Vec<Address>) -> Self {
        Self {
            connector: servers.bounded(PATIENCE.min(servers.bound())),
            seeds,
            turn: AtomicUsize::new(0),
        }
    }

    /// Asks the known servers until one answers.
    pub(in crate::redis) async fn ask(
        &self,
        known: impl Iterator<Item = Address>,
    ) -> RedisResult<Assignment> {
        let mut servers: Vec<_> = known.collect();
        for seed in &self.seeds {
            if !servers.contains(seed) {
                servers.push(seed.clone());
            }
        }
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) % servers.len().max(1);
        servers.rotate_left(turn);
        let mut failed = None;
        for asked in servers.chunks(ASKED) {
            let mut best: Option<View> = None;
            for answer in join_all(asked.iter().map(|server| self.ask_one(server))).await {
                match answer {
                    Ok(view) if best.as_ref().is_none_or(|best| best.standing < view.standing) => {
                        best = Some(view);
                    }
                    Ok(_) => {}
                    Err(error) => {
                        failed.get_or_insert(error);
                    }
                }
            }
            if let Some(view) = best {
                return Ok(view.assignment);
            }
        }
        Err(failed.unwrap_or_else(|| (ErrorKind::Io, "no server of the cluster is known").into()))
    }

    async fn ask_one(&self, server: &Address) -> RedisResult<View> {
        let asking = async {
            let mut connection = self.connector.open(server, None).await?;
            let mut ask = redis::pipe();
            ask.cmd("CLUSTER").arg("INFO").cmd("CLUSTER").arg("SLOTS");
            ask.query_async::<(String, Value)>(&mut connection).await
        };
        let answer = within(self.connector.bound(), asking).await;
        let (info, found) = answer.map_err(|error| {
            debug!(%server, %error, "server does not tell the slots");
            explained(error)
        })?;
        let epoch = field(&info, "cluster_current_epoch").and_then(|epoch| epoch.parse().ok());
        Ok(View {
            assignment: assignment(server, found)
                .ok_or_else(|| RedisError::from((ErrorKind::Parse, "the server does not tell its slots")))?,
            standing: (
                field(&info, "cluster_state") == Some("ok"),
                epoch.unwrap_or_default(),
            ),
        })
    }
}

/// Reads `[first, last, [host, port, …], replicas…]…`.
fn assignment(asked: &Address, found: Value) -> Option<Assignment> {
    let mut assignment = Assignment::new();
    for range in array(found)? {
        let mut parts = array(range)?.into_iter();
        let (first, last) = (number(parts.next()?)?, number(parts.next()?)?);
        if first > last || last >= slots::COUNT {
            return None;
        }
        let mut master = array(parts.next()?)?.into_iter();
        let (host, port) = (master.next()?, number(master.next()?)?);
        let host = redis::from_redis_value::<Option<String>>(host).ok()?;
        // A server that does not know its own host name returns none: it is the host that was asked.
        let host = host.filter(|host| !host.is_empty() && host != "?");
        let address = Address {
            host: host.unwrap_or_else(|| asked.host.clone()),
            port,
        };
        assignment.entry(address).or_default().push((first, last));
    }
    assignment.values_mut().for_each(|ranges| ranges.sort_unstable());
    Some(assignment)
}

fn array(value: Value) -> Option<Vec<Value>> {
    match value {
        Value::Array(items) => Some(items),
        _ => None,
    }
}

fn number(value: Value) -> Option<u16> {
    redis::from_redis_value(value).ok()
}

fn explained(error: RedisError) -> RedisError {
    if error.to_string().contains("cluster support disabled") {
        let problem = "the server is not part of a Redis Cluster; its URL is redis://…";
        return (ErrorKind::InvalidClientConfig, problem).into();
    }
    error
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Value {
        Value::BulkString(text.into())
    }

    fn range(first: i64, last: i64, host: Value, port: i64) -> Value {
        let server = Value::Array(vec![host, Value::Int(port), text("id"), Value::Array(Vec::new())]);
        let replica = Value::Array(vec![text("replica"), Value::Int(1), text("id")]);
        Value::Array(vec![Value::Int(first), Value::Int(last), server, replica])
    }

    #[test]
    fn an_assignment_is_read_by_master() {
        let asked = Address {
            host: "asked".to_owned(),
            port: 1,
        };
        let found = Value::Array(vec![
            range(101, 16_383, text("b"), 7_000),
            range(0, 99, text("b"), 7_000),
            range(100, 100, Value::Nil, 7_001),
        ]);
        let read = assignment(&asked, found).unwrap();
        let read: Vec<_> = read
            .iter()
            .map(|(address, ranges)| (address.to_string(), ranges.clone()))
            .collect();
        assert_eq!(
            read,
            [
                ("asked:7001".to_owned(), vec![(100, 100)]),
                ("b:7000".to_owned(), vec![(0, 99), (101, 16_383)]),
            ]
        );
        for wrong in [
            Value::Nil,
            Value::Array(vec![Value::Int(1)]),
            Value::Array(vec![range(0, 16_384, text("b"), 1)]),
            Value::Array(vec![range(2, 1, text("b"), 1)]),
        ] {
            assert!(assignment(&asked, wrong).is_none());
        }
    }
}
