//! Clients that take nothing.

use std::sync::Arc;

use hubcast_tests::cluster::Plan;
use hubcast_tests::eventually::eventually;
use hubcast_tests::hub_client::{HubClient, Transport};
use hubcast_tests::rest::{Rest, latest};
use serde_json::{Value, json};

#[tokio::test]
async fn a_client_that_does_not_read_is_closed_and_the_others_get_everything() {
    let plan = Plan::nodes(2)
        .set("limits.outbox_bytes", 100_000)
        .set("timeouts.send_seconds", 60);
    let mut cluster = plan.start().await;
    let entry = cluster.entry();
    let lazy = HubClient::connect(&Arc::new(entry.on(0)), Transport::WebSockets).await;
    let mut eager = HubClient::connect(&Arc::new(entry.on(0)), Transport::WebSockets).await;
    let mut sender = HubClient::connect(&Arc::new(entry.on(1)), Transport::WebSockets).await;
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

/// Three bodies of about 900 KB that meet are more than waits for one client, but no fault of one that reads.
#[tokio::test]
async fn a_client_that_reads_gets_bodies_that_meet() {
    const ROUNDS: usize = 3;
    let mut cluster = Plan::nodes(2).start().await;
    let text = "x".repeat(90_000);
    let message = json!({ "to": "all", "target": "T", "arguments": [text] });
    let batch = json!({ "messages": vec![message; 10] });
    for transport in Transport::ALL {
        let mut client = HubClient::connect(&cluster.entry_on(0), transport).await;
        for _ in 0..ROUNDS {
            let rest = Rest::on(&cluster.nodes[1]);
            let sending = async || rest.post(&latest("/:batch"), &batch).await.status();
            let (one, two, three) = tokio::join!(sending(), sending(), sending());
            assert_eq!([one, two, three], [202; 3]);
            for _ in 0..30 {
                assert_eq!(client.expect("T").await, json!([text]), "{transport:?}");
            }
        }
        client.close().await;
    }
    cluster.is_tidy().await;
}

#[tokio::test]
async fn who_reads_too_slowly_is_told_so() {
    let mut cluster = Plan::one_node()
        .set("limits.message_bytes", 1024)
        .set("limits.outbox_bytes", 1024)
        .start()
        .await;
    let mut client = HubClient::connect(&cluster.entry_on(0), Transport::LongPolling).await;
    let rest = Rest::on(&cluster.nodes[0]);
    let message = json!({ "to": "all", "target": "T", "arguments": ["x".repeat(500)] });
    let batch = json!({ "messages": vec![message; 100] });
    assert_eq!(rest.post(&latest("/:batch"), &batch).await.status(), 202);
    let told: Vec<Value> = client.rest().await;
    let end = told.last().expect("it is told");
    assert!(
        end["error"]
            .as_str()
            .is_some_and(|error| error.contains("Slow consumer")),
        "{end}"
    );
    cluster.is_tidy().await;
}
