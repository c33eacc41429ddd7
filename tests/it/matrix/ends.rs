//! The ends of connections.

use hubcast_tests::eventually::eventually;
use serde_json::{Value, json};

use super::Party;

pub(super) async fn clients_that_stop_or_vanish_are_forgotten(mut party: Party) {
    let (stops, is_ended, vanishes) = (
        party.connect().await,
        party.connect().await,
        party.connect().await,
    );
    for client in [&stops, &is_ended, &vanishes] {
        client.call("JoinGroup", json!(["g"])).await;
    }
    party.cluster.has_connections(3).await;

    stops.stop().await;
    stops.has_events("closed", 1).await;
    assert_eq!(stops.events("closed")[0]["error"], Value::Null);
    party.cluster.has_connections(2).await;

    is_ended.send("Abort", json!([])).await.expect("it is sent");
    is_ended.has_events("closed", 1).await;
    assert_eq!(
        is_ended.events("closed")[0]["error"],
        Value::Null,
        "an abort is no error"
    );
    party.cluster.has_connections(1).await;

    vanishes.call("SendToGroup", json!(["g", "to me alone"])).await;
    eventually("it arrives", async || {
        (vanishes.received("GroupMessage").len() == 1).then_some(())
    })
    .await;
    drop(party.js); // kills the process: no Close message, no DELETE
    party.cluster.is_tidy().await;
}
