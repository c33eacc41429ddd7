//! The messages of a call come before its result.

use serde_json::json;

use super::Party;

/// Calls of each kind.
const CALLS: usize = 100;
/// Connections that end themselves.
const ENDED: usize = 10;

pub(super) async fn what_a_call_sends_comes_before_its_result(party: &Party) {
    let client = party.connect().await;
    let id = client.id().await;
    client.call("JoinGroup", json!(["order"])).await;
    let mut overtaken = Vec::new();
    for number in 0..CALLS {
        let text = number.to_string();
        let calls = [
            ("SendMessage", "all", "ReceiveMessage"),
            ("SendToGroup", "order", "GroupMessage"),
            ("SendToConnection", id.as_str(), "DirectMessage"),
        ];
        for (method, to, target) in calls {
            client.call(method, json!([to, text])).await;
            if client.received(target).len() != number + 1 {
                overtaken.push((method, number));
            }
        }
    }
    assert!(
        overtaken.is_empty(),
        "results came first: {} of {}: {overtaken:?}",
        overtaken.len(),
        3 * CALLS
    );
}

pub(super) async fn what_was_sent_before_an_abort_arrives(party: &Party) {
    for _ in 0..ENDED {
        let client = party.connect().await;
        let id = client.id().await;
        // Neither is waited for: both calls are in one frame, or in one body.
        let (sent, aborted) = tokio::join!(
            client.send("SendToConnection", json!([id, "last words"])),
            client.send("Abort", json!([]))
        );
        sent.and(aborted).expect("both calls are sent");
        client.has_events("closed", 1).await;
        assert_eq!(client.received("DirectMessage"), [json!(["last words"])]);
    }
}
