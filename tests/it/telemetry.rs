//! One trace through the whole house, over two nodes.

use std::collections::BTreeSet;

use hubcast_tests::collector::Collector;
use hubcast_tests::entry_point::{EntryPoint, Secrets};
use hubcast_tests::eventually::eventually;
use hubcast_tests::gateway::{Gateway, Settings};
use hubcast_tests::hub_client::{HubClient, Transport};
use hubcast_tests::redis::Redis;
use serde_json::json;

/// The ids of the traces of spans whose name or attributes contain a text.
fn traces(collector: &Collector) -> BTreeSet<Vec<u8>> {
    collector.spans().into_iter().map(|span| span.trace_id).collect()
}

#[tokio::test]
async fn a_trace_spans_the_publishing_and_the_delivering_node() {
    let redis = Redis::start().await;
    let (publishing, delivering) = (Collector::start().await, Collector::start().await);
    let node = async |collector: &Collector| {
        let settings = Settings::default()
            .redis(&redis.url())
            .set("telemetry.otlp_endpoint", collector.url());
        Gateway::start(settings.variable("OTEL_BSP_SCHEDULE_DELAY", 100)).await
    };
    let (publisher, deliverer) = (node(&publishing).await, node(&delivering).await);
    let client = async |gateway: &Gateway| {
        let entry = EntryPoint::new(&[gateway.address()], &Secrets::default());
        HubClient::connect(&std::sync::Arc::new(entry), Transport::WebSockets).await
    };
    let (mut sender, mut receiver) = (client(&publisher).await, client(&deliverer).await);
    receiver.result("JoinGroup", json!(["g"])).await;
    sender.result("SendToGroup", json!(["g", "traced"])).await;
    assert_eq!(receiver.expect("GroupMessage").await, json!(["g", "traced"]));
    let both = eventually("a trace is seen on both nodes", async || {
        let both: Vec<_> = traces(&publishing)
            .intersection(&traces(&delivering))
            .cloned()
            .collect();
        (!both.is_empty()).then_some(both)
    })
    .await;
    assert_eq!(both.len(), 1, "one message crossed, so one trace did");
    assert!(both[0].iter().any(|byte| *byte != 0), "a trace id is not zero");

    // The spans hang together: the delivering node's span has its parent among the publishing node's spans.
    let of_trace = |collector: &Collector| {
        let mut spans = collector.spans();
        spans.retain(|span| span.trace_id == both[0]);
        spans
    };
    eventually("the spans hang together", async || {
        let parents: BTreeSet<_> = of_trace(&publishing)
            .into_iter()
            .map(|span| span.span_id)
            .collect();
        of_trace(&delivering)
            .iter()
            .any(|span| parents.contains(&span.parent_span_id))
            .then_some(())
    })
    .await;
    for (gateway, collector) in [(publisher, &publishing), (deliverer, &delivering)] {
        gateway.terminate();
        let names: Vec<_> = collector.spans().into_iter().map(|span| span.name).collect();
        assert!(names.iter().all(|name| !name.is_empty()), "{names:?}");
    }
}

#[tokio::test]
async fn spans_that_are_not_sent_yet_are_sent_before_the_end() {
    let collector = Collector::start().await;
    let settings = Settings::default().set("telemetry.otlp_endpoint", collector.url());
    let mut gateway = Gateway::start(settings.variable("OTEL_BSP_SCHEDULE_DELAY", 600_000)).await;
    let entry = std::sync::Arc::new(EntryPoint::new(&[gateway.address()], &Secrets::default()));
    let mut client = HubClient::connect(&entry, Transport::WebSockets).await;
    client.result("SendToGroup", json!(["g", "traced"])).await;
    drop(client);
    gateway.terminate();
    assert_eq!(gateway.exit().await.code(), Some(0), "{}", gateway.log());
    assert!(!collector.spans().is_empty(), "the last spans count");
}

#[tokio::test]
async fn a_collector_that_is_gone_harms_nobody() {
    let url = Collector::start().await.url();
    let mut gateway = Gateway::start(Settings::default().set("telemetry.otlp_endpoint", url)).await;
    let entry = std::sync::Arc::new(EntryPoint::new(&[gateway.address()], &Secrets::default()));
    let mut client = HubClient::connect(&entry, Transport::WebSockets).await;
    for i in 0..10 {
        client.result("SendToGroup", json!(["g", i.to_string()])).await;
    }
    drop(client);
    gateway.terminate();
    assert_eq!(gateway.exit().await.code(), Some(0), "{}", gateway.log());
}
