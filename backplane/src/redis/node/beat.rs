//! The connection for this node's beats alone: no large answer to another command delays them.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use redis::Value;
use tokio::time::{Instant, timeout};

use crate::error::BackplaneError;
use crate::redis::node::liveness::Observation;
use crate::redis::script::catalog::Scripts;
use crate::redis::script::invocation::Invocation;
use crate::redis::server::commands::{Commands, not_a_cluster};
use crate::redis::server::connector::within;
use crate::redis::server::link::Link;
use crate::redis::server::replies::{Trouble, decode, items, malformed};
use crate::redis::server::topology::Shard;
use crate::topic::NodeId;

/// A connection to the master that has the cluster's own keys. It is opened when it is needed.
#[derive(Default)]
pub(in crate::redis) struct BeatLink {
    open: Option<(Arc<Shard>, Link)>,
}

/// The answer to a beat.
pub(in crate::redis) struct Beat {
    pub(in crate::redis) observation: Observation,
    /// The server's time in milliseconds.
    pub(in crate::redis) time: u64,
    /// This node's count; `None` while another node removes its connections.
    pub(in crate::redis) count: Option<i64>,
    /// The cluster's secret, where it differs from this node's.
    pub(in crate::redis) secret: Option<Vec<u8>>,
    /// Nodes whose connections are being removed, with the entries of the nodes that remove them.
    pub(in crate::redis) dying: HashMap<String, String>,
}

impl BeatLink {
    /// Calls the script, once more where the connection turned out to be lost, all within `bound`. Also returns the
    /// number of tries.
    pub(in crate::redis) async fn call(
        &mut self,
        commands: &Commands,
        call: &Invocation,
        bound: Duration,
    ) -> (u32, Result<Beat, BackplaneError>) {
        let begun = Instant::now();
        let reused = self.open.is_some();
        let trouble = match self.attempt(commands, call, bound).await {
            Ok(beat) => return (1, beat),
            Err(trouble @ Trouble::Lost(_)) if !reused => trouble,
            Err(Trouble::Lost(_)) => {
                let left = bound.saturating_sub(begun.elapsed());
                match self.attempt(commands, call, left).await {
                    Ok(beat) => return (2, beat),
                    Err(trouble) => trouble,
                }
            }
            Err(trouble) => trouble,
        };
        commands.topology().doubt();
        let error = match trouble {
            Trouble::Final(error) => error,
            Trouble::Moved(_) if !commands.topology().is_cluster() => not_a_cluster(),
            trouble => BackplaneError::Unavailable {
                waited: begun.elapsed(),
                reason: trouble.reason(),
            },
        };
        (2, Err(error))
    }

    /// Calls the script once. A connection that did not answer is closed.
    async fn attempt(
        &mut self,
        commands: &Commands,
        call: &Invocation,
        bound: Duration,
    ) -> Result<Result<Beat, BackplaneError>, Trouble> {
        let (shard, link) = self.link(commands, call, bound).await?;
        let script = |scripts: &Scripts| call.command(scripts);
        let sent = Instant::now();
        let answer = link.call(&script, call.key().unwrap_or_default());
        match within(bound, link.unless_broken(answer)).await {
            Ok(value) => {
                self.open = Some((shard, link));
                Ok(Beat::read(value, sent))
            }
            Err(error) => Err(Trouble::of(&error)),
        }
    }

    /// The open connection, or a new one to the present master.
    async fn link(
        &mut self,
        commands: &Commands,
        call: &Invocation,
        bound: Duration,
    ) -> Result<(Arc<Shard>, Link), Trouble> {
        let map = commands.topology().current();
        let shard = call.key().and_then(|key| map.shard(key));
        let shard = shard.ok_or_else(|| Trouble::Wait("the cluster lacks a master".to_owned()))?;
        if let Some((known, link)) = self.open.take()
            && Arc::ptr_eq(&known.pool, &shard.pool)
            && shard.pool.master.is_known(&link.run)
            && !link.broken.is_cancelled()
        {
            return Ok((known, link));
        }
        let opened = Link::open(&shard.endpoint.bounded(bound)).await;
        let link = opened.map_err(|error| Trouble::of(&error))?;
        let confirmed = timeout(bound, shard.pool.master.confirms(&link.run)).await;
        if confirmed != Ok(true) {
            return Err(Trouble::NotNow(
                "the server is not the master any more".to_owned(),
            ));
        }
        Ok((Arc::clone(shard), link))
    }
}

impl Beat {
    fn read(value: Value, sent: Instant) -> Result<Self, BackplaneError> {
        let Ok([epoch, time, count, secret, counts, dying]) = <[Value; 6]>::try_from(items(value)?) else {
            return Err(malformed("a heartbeat of another length"));
        };
        let counts: HashMap<String, i64> = decode(counts)?;
        let node = |(node, count): (String, i64)| Some((NodeId::parse(node).ok()?, count));
        Ok(Self {
            observation: Observation {
                sent,
                heard: Instant::now(),
                epoch: decode(epoch)?,
                counts: counts.into_iter().filter_map(node).collect(),
            },
            time: decode(time)?,
            count: decode(count)?,
            secret: decode(secret)?,
            dying: decode(dying)?,
        })
    }
}
