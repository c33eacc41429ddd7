//! How many connections and groups a hub has, over the whole cluster, and spreading them anew.

use std::time::Duration;

use axum::Json;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::call::Call;
use super::error::Refusal;
use crate::drain::{SETTLED, Share};

/// The greatest value of `settled`, in seconds: a year.
pub(super) const MOST_SETTLED: u64 = 31_536_000;

pub(super) async fn count(call: &Call<'_>) -> Result<Response, Refusal> {
    let statistics = call.hub().connection_statistics().await?;
    let nodes: Vec<Value> = statistics
        .nodes
        .into_iter()
        .map(|(node, connections)| json!({ "node": node, "connections": connections }))
        .collect();
    let answer = json!({
        "hub": call.hub().name(),
        "connections": statistics.connections,
        "parked": statistics.parked,
        "groups": statistics.groups,
        "nodes": nodes,
    });
    Ok(Json(answer).into_response())
}

pub(super) async fn rebalance(call: &Call<'_>) -> Result<Response, Refusal> {
    let settled = call.number("settled", 0, MOST_SETTLED)?;
    let settled = settled.map_or(SETTLED, Duration::from_secs);
    let reported = call.hub().rebalance(settled).await?;
    let share = |share: Share| json!({ "node": share.node, "connections": share.connections, "leaving": share.leaving });
    let nodes: Vec<Value> = reported.nodes.into_iter().map(share).collect();
    let answer = json!({
        "hub": call.hub().name(),
        "connections": reported.connections,
        "mean": reported.mean,
        "nodes": nodes,
    });
    Ok(Json(answer).into_response())
}
