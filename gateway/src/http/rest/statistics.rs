//! How many connections and groups a hub has, over the whole cluster.

use axum::Json;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::call::Call;
use super::error::Refusal;

pub(super) async fn count(call: &Call<'_>) -> Result<Response, Refusal> {
    let census = call.hub().census().await?;
    let nodes: Vec<Value> = census
        .nodes
        .into_iter()
        .map(|(node, connections)| json!({ "node": node, "connections": connections }))
        .collect();
    let answer = json!({
        "hub": call.hub().name(),
        "connections": census.connections,
        "parked": census.parked,
        "groups": census.groups,
        "nodes": nodes,
    });
    Ok(Json(answer).into_response())
}
