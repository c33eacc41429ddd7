//! Invocations and streams.

use hubcast_tests::eventually::eventually;
use serde_json::{Value, json};

use super::Party;

pub(super) async fn values_come_back_as_they_were_sent(party: &Party) {
    let client = party.connect().await;
    let me = client.who_am_i().await;
    assert_eq!(me["connectionId"], client.id().await.as_str());
    assert_eq!(
        (&me["transport"], &me["protocol"]),
        (&json!(party.transport), &json!(party.protocol))
    );
    for value in values(party.protocol) {
        assert_eq!(client.call("Echo", json!([value])).await, value);
    }
    assert_eq!(
        client.call("echo", json!([1])).await,
        1,
        "a method's name may be written in any case"
    );
    assert_eq!(
        client.call("JoinGroup", json!(["g"])).await,
        Value::Null,
        "nothing is null"
    );

    let error = client
        .invoke("Throw", json!(["told \"you\" ä€😀"]))
        .await
        .unwrap_err();
    let text = "An unexpected error occurred invoking 'Throw' on the server. HubException: told \"you\" ä€😀";
    assert_eq!(error, text);
    let error = client.invoke("Nothing", json!([])).await.unwrap_err();
    let text =
        "Failed to invoke 'Nothing' due to an error on the server. HubException: Method does not exist.";
    assert_eq!(error, text);
    client
        .send("Nothing", json!([]))
        .await
        .expect("without an answer wanted there is none, not even an error");
    assert_eq!(client.call("Echo", json!(["unharmed"])).await, "unharmed");
}

fn values(protocol: &str) -> Vec<Value> {
    let mut values = vec![
        Value::Null,
        json!(true),
        json!(false),
        json!(0),
        json!(-1),
        json!(9_007_199_254_740_991_i64),
        json!(-9_007_199_254_740_991_i64),
        json!(0.1),
        json!(-1.5e-7),
        json!(1.0e21),
        json!(""),
        json!("\u{0}\u{1e}\u{7f}\"\\/\n\r\t\u{2028}"),
        json!("ä€😀🏳️‍🌈 \u{202e}עברית"),
        json!([]),
        json!({}),
        json!([[], [[]], {}, null, [1, "2", 3.5]]),
        json!({ "": "empty", "a b": { "ä€😀": [true] }, "type": 7, "nested": { "x": { "y": { "z": null } } } }),
        json!((0..2_000).collect::<Vec<_>>()),
        // Just under the limit of 32 KiB for a message.
        json!("x".repeat(32_500)),
        json!("😀".repeat(8_100)),
    ];
    if protocol == "messagepack" {
        values.extend([
            json!({ "$bytes": "" }),
            json!({ "$bytes": "AAECA/3+/w==" }),
            json!({ "deep": [{ "$bytes": "/w==" }] }),
            json!({ "$date": "2026-01-02T03:04:05.678Z" }),
        ]);
    }
    values
}

pub(super) async fn a_stream_gives_its_items_until_it_ends_or_is_cancelled(party: &mut Party) {
    let client = party.connect().await;
    let all = client.stream("Counter", json!([5, 1])).await;
    let none = client.stream("Counter", json!([0, 0])).await;
    let endless = client.stream("Counter", json!([1_000_000, 5])).await;
    assert_eq!(all.completed().await, [0, 1, 2, 3, 4]);
    assert_eq!(none.completed().await, [0; 0]);
    eventually("some items", async || (endless.items().len() > 3).then_some(())).await;
    assert_eq!(
        client.call("Echo", json!(["meanwhile"])).await,
        "meanwhile",
        "streams block nothing"
    );
    endless.cancel().await;
    // A long one that is not stopped ends with its client.
    let abandoned = client.stream("Counter", json!([1_000_000, 5])).await;
    eventually("some items", async || (abandoned.items().len() > 3).then_some(())).await;
    assert!(
        endless.items().iter().enumerate().all(|(i, item)| *item == i),
        "in order, without holes"
    );

    let unknown = client.stream("Nothing", json!([])).await;
    let text =
        "Failed to invoke 'Nothing' due to an error on the server. HubException: Method does not exist.";
    assert_eq!(unknown.failed().await, text);
    client.stop().await;
    party.cluster.is_tidy().await;
}
