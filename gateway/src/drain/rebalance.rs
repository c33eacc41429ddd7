//! Spreading a hub's connections over the nodes again, after nodes have come.
//!
//! Nodes that have many connections let some go, as in a drain and at its pace; their clients come back to whatever node the
//! load balancer chooses. Nothing is moved by force: stateful sessions go on, other clients may reconnect.

use std::sync::Arc;
use std::time::Duration;

use hubcast_backplane::BackplaneError;

use super::{Pace, let_go, shuffle};
use crate::error::Error;
use crate::hub::{HubHandle, HubRuntime};
use crate::session::CloseReason;

/// How long connections have been on their node before they may be asked to leave it, unless the call says otherwise.
pub const SETTLED: Duration = Duration::from_secs(300);
/// How many connections more than the mean a node may have: the larger of a tenth and this.
const SLACK: u64 = 20;

/// The outcome of [`HubHandle::rebalance`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rebalance {
    /// Connections of the hub that nodes have.
    pub connections: u64,
    /// How many each node would have, rounded up.
    pub mean: u64,
    /// The nodes, in the order of their ids.
    pub nodes: Vec<Share>,
}

/// One node of a [`Rebalance`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Share {
    /// The node's id.
    pub node: String,
    /// Connections that it had.
    pub connections: u64,
    /// How many of them leave now, one after the other.
    pub leaving: u64,
}

impl HubHandle {
    /// Has nodes that have more connections of the hub than the mean by a tenth, and by 20, let those above the mean go: at the rate
    /// of drains, which all nodes share, and in no order. Connections that came to their node within `settled` stay; so does
    /// everything where a node still lets connections go.
    ///
    /// Returns when it has begun. Clients come back to whatever node the load balancer chooses, so with plain round robin each time
    /// makes the difference smaller, and with one that looks at connections once is enough.
    ///
    /// # Errors
    /// A backplane that can't be reached. A node that does not answer lets nothing go.
    pub async fn rebalance(&self, settled: Duration) -> Result<Rebalance, Error> {
        let hub = self.runtime();
        let statistics = hub.backplane().connection_statistics().await?;
        let connections: u64 = statistics.nodes.iter().map(|(_, count)| count).sum();
        let mean = connections.div_ceil(statistics.nodes.len().max(1) as u64);
        let mut nodes = Vec::with_capacity(statistics.nodes.len());
        for (node, count) in statistics.nodes {
            let leaving = match excess(count, mean) {
                0 => 0,
                excess if node == *hub.shared().backplane().node() => hub.let_go(excess, settled),
                excess => match hub.shared().peers().let_go(hub, &node, excess, settled).await {
                    Ok(leaving) => leaving,
                    Err(error @ BackplaneError::Unavailable { .. }) => return Err(error.into()),
                    Err(error) => {
                        tracing::warn!(%node, %error, "a node lets no connections go");
                        0
                    }
                },
            };
            nodes.push(Share {
                node: node.to_string(),
                connections: count,
                leaving,
            });
        }
        nodes.sort_by(|one, other| one.node.cmp(&other.node));
        Ok(Rebalance {
            connections,
            mean,
            nodes,
        })
    }
}

/// How many connections a node should let go.
fn excess(connections: u64, mean: u64) -> u64 {
    let above = connections.saturating_sub(mean);
    if above > SLACK.max(mean / 10) { above } else { 0 }
}

impl HubRuntime {
    /// Has connections of this node leave it, one after the other, at the pace of drains. Returns how many; none while others do.
    pub(crate) fn let_go(self: &Arc<Self>, most: u64, settled: Duration) -> u64 {
        let Ok(place) = Arc::clone(self.rebalancing()).try_lock_owned() else {
            return 0;
        };
        let mut sessions = self.registry().all();
        sessions.retain(|session| session.has_settled(settled));
        shuffle(&mut sessions);
        sessions.truncate(usize::try_from(most).unwrap_or(usize::MAX));
        let leaving = sessions.len() as u64;
        if leaving > 0 {
            tracing::info!(hub = %self.name(), leaving, "rebalancing: connections leave for nodes that have fewer");
        }
        let shared = Arc::clone(self.shared());
        let stopping = shared.stopping().clone();
        let pace = Pace {
            rate: shared.drain_rate(),
            deadline: None,
        };
        let tasks = shared.tasks().clone();
        tasks.spawn(async move {
            let _place = place;
            let leaving = let_go(shared.backplane(), pace, sessions, &CloseReason::Rebalanced);
            stopping.run_until_cancelled(leaving).await; // a drain takes all of them
        });
        leaving
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_differences_are_left_alone() {
        for (connections, mean, expected) in [
            (100, 100, 0),
            (0, 100, 0),
            (20, 0, 0),
            (21, 0, 21),
            (120, 100, 0),
            (121, 100, 21),
            (1_100, 1_000, 0),
            (1_101, 1_000, 101),
        ] {
            assert_eq!(excess(connections, mean), expected, "{connections} of {mean}");
        }
    }
}
