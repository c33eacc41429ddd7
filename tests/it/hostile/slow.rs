//! Clients that take nothing.

use std::sync::Arc;

use hubcast_tests::cluster::Plan;
use hubcast_tests::eventually::eventually;
use hubcast_tests::hub_client::{HubClient, Transport};
use serde_json::json;

#[tokio::test]
async fn a_client_that_does_not_read_is_closed_and_the_others_get_everything() {
    let plan = Plan::nodes(2)
        .set("limits.outbox_bytes", 100_000)
        .set("timeouts.send_seconds", 60);
    let mut cluster = plan.start().await;
    let door = cluster.door();
    let lazy = HubClient::connect(&Arc::new(door.on(0)), Transport::WebSockets).await;
    let mut eager = HubClient::connect(&Arc::new(door.on(0)), Transport::WebSockets).await;
    let mut sender = HubClient::connect(&Arc::new(door.on(1)), Transport::WebSockets).await;
    cluster.has_connections(3).await;
    let text = "x".repeat(30_000);
    let mut sent = 0;
    // The kernel's buffers take some megabytes before anything waits in the gateway.
    while cluster.sum("hubcast_slow_consumers_total").await == 0.0 {
        assert!(sent < 2_000, "60 MB and still nobody is slow");
        for _ in 0..20 {
            let message = json!([sent.to_string(), text]);
            sender.result("SendMessage", message.clone()).await;
            assert_eq!(
                eager.expect("ReceiveMessage").await,
                message,
                "in order, without holes"
            );
            sent += 1;
        }
    }
    eventually("the slow client is closed", async || {
        (cluster.sum("hubcast_connections").await == 2.0).then_some(())
    })
    .await;
    drop(lazy);
    assert_eq!(
        sender.expect("ReceiveMessage").await[0],
        "0",
        "what the sender did not read meanwhile was kept for it"
    );
    drop((eager, sender));
    cluster.is_tidy().await;
}
