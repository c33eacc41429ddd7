//! Calls that can't be served: the errors for the caller, word for word.

use hubcast_tests::hub_client::{HubClient, Transport};
use serde_json::{Value, json};

use super::Target;

const BINDING: &str = "Error binding arguments. Make sure that the types of the provided values match the types of the \
                       hub method being invoked.";

fn failed(target: &str, detail: &str) -> String {
    format!("Failed to invoke '{target}' due to an error on the server.{detail}")
}

#[tokio::test]
async fn a_call_that_cannot_be_served_is_told_why() {
    let target = Target::start(|plan| plan).await;
    let unknown = |method: &str| failed(method, " HubException: Method does not exist.");
    for transport in Transport::ALL {
        let mut client = HubClient::connect(&target.entry, transport).await;
        for (method, arguments, error) in [
            ("Nothing", json!([]), unknown("Nothing")),
            ("", json!([]), unknown("")),
            ("nothing ä€😀 \u{1e}'\"", json!([1]), unknown("nothing ä€😀 \u{1e}'\"")),
            ("Echo", json!([]), failed("Echo", "")),
            ("Echo", json!([1, 2]), failed("Echo", "")),
            ("JoinGroup", json!([7]), failed("JoinGroup", "")),
            ("JoinGroup", json!([null]), failed("JoinGroup", "")),
            ("SendMessage", json!(["user", { "no": "text" }]), failed("SendMessage", "")),
            (
                "Throw",
                json!(["reason"]),
                "An unexpected error occurred invoking 'Throw' on the server. HubException: reason".to_owned(),
            ),
            (
                "Counter",
                json!([1, 1]),
                "The client attempted to invoke the streaming 'Counter' method with a non-streaming invocation."
                    .to_owned(),
            ),
        ] {
            let completion = client.call(method, arguments.clone()).await;
            assert_eq!(completion["error"], error, "{method}{arguments}");
            assert_eq!(completion.get("result"), None, "{method}{arguments}");
        }
    }
    target.ends_unharmed().await;
}

#[tokio::test]
async fn details_are_told_where_they_are_switched_on() {
    let target = Target::start(|plan| plan.set("hubs.detailed_errors", true)).await;
    let mut client = HubClient::connect(&target.entry, Transport::WebSockets).await;
    for (method, arguments, detail) in [
        (
            "Echo",
            json!([]),
            " InvalidDataException: Invocation provides 0 argument(s) but target expects 1.".to_owned(),
        ),
        (
            "Echo",
            json!([1, 2]),
            " InvalidDataException: Invocation provides 2 argument(s) but target expects 1.".to_owned(),
        ),
        (
            "JoinGroup",
            json!([7]),
            format!(" InvalidDataException: {BINDING}"),
        ),
    ] {
        assert_eq!(
            client.call(method, arguments.clone()).await["error"],
            failed(method, &detail),
            "{method}{arguments}"
        );
    }
    client.send("nonsense\u{1e}").await;
    let close = client.next().await.expect("a Close message");
    let error = close["error"].as_str().unwrap_or_default();
    assert!(
        error.starts_with("Connection closed with an error. InvalidDataException: "),
        "{close}"
    );
    client.rest().await;
    target.ends_unharmed().await;
}

#[tokio::test]
async fn a_call_that_wants_no_answer_gets_none() {
    let target = Target::start(|plan| plan).await;
    let mut client = HubClient::connect(&target.entry, Transport::WebSockets).await;
    for message in [
        json!({ "type": 1, "target": "Nothing", "arguments": [] }),
        json!({ "type": 1, "target": "Echo", "arguments": [] }),
        json!({ "type": 1, "target": "Throw", "arguments": ["x"] }),
        json!({ "type": 1, "target": "Echo", "arguments": [1], "invocationId": "" }),
    ] {
        client.say(&message).await;
    }
    client
        .say(&json!({ "type": 1, "invocationId": "end", "target": "Echo", "arguments": [1] }))
        .await;
    assert_eq!(client.next().await.expect("an answer")["invocationId"], "end");
    drop(client);
    target.ends_unharmed().await;
}

#[tokio::test]
async fn streams_are_told_apart_from_calls() {
    let target = Target::start(|plan| plan).await;
    for transport in Transport::ALL {
        let mut client = HubClient::connect(&target.entry, transport).await;
        let mut stream = async |id: &str, method: &str, arguments: Value| {
            client
                .say(&json!({ "type": 4, "invocationId": id, "target": method, "arguments": arguments }))
                .await;
            client.next().await.expect("an answer")
        };
        let answer = stream("1", "Echo", json!([1])).await;
        let text =
            "The client attempted to invoke the non-streaming 'Echo' method with a streaming invocation.";
        assert_eq!(answer, json!({ "type": 3, "invocationId": "1", "error": text }));
        let answer = stream("1", "Counter", json!([1])).await;
        assert_eq!(
            answer,
            json!({ "type": 3, "invocationId": "1", "error": failed("Counter", "") })
        );
        let answer = stream("1", "Counter", json!([0, 0])).await;
        assert_eq!(
            answer,
            json!({ "type": 3, "invocationId": "1" }),
            "a stream ends without a result"
        );
        let answer = stream("2", "Counter", json!([1_000_000, 20])).await;
        assert_eq!(answer, json!({ "type": 2, "invocationId": "2", "item": 0 }));
        client
            .say(&json!({ "type": 4, "invocationId": "2", "target": "Counter", "arguments": [1, 1] }))
            .await;
        let refusal = loop {
            let message = client.next().await.expect("an answer");
            if message["type"] == 3 {
                break message;
            }
        };
        assert_eq!(refusal["error"], "Invocation ID '2' is already in use.");
        client.say(&json!({ "type": 5, "invocationId": "2" })).await;
        let end = loop {
            let message = client.next().await.expect("an answer");
            if message["type"] == 3 {
                break message;
            }
        };
        assert_eq!(
            end,
            json!({ "type": 3, "invocationId": "2" }),
            "a cancelled stream is completed"
        );
        assert_eq!(
            client.result("Echo", json!(["last"])).await,
            "last",
            "and gives nothing more"
        );
    }
    target.ends_unharmed().await;
}

#[tokio::test]
async fn sending_to_what_is_not_there_succeeds_silently() {
    let target = Target::start(|plan| plan).await;
    let mut client = HubClient::connect(&target.entry, Transport::WebSockets).await;
    let long = "x".repeat(1_000);
    for (method, arguments) in [
        ("SendToConnection", json!(["AAAAAAAAAAAAAAAAAAAAAA", "lost"])),
        ("SendToGroup", json!(["empty", "lost"])),
        ("SendToUser", json!(["nobody", "lost"])),
        ("LeaveGroup", json!(["never joined"])),
    ] {
        assert_eq!(
            client.result(method, arguments.clone()).await,
            Value::Null,
            "{method}{arguments}"
        );
    }
    // Names that Redis, patterns or paths could take for something else, and names that may be refused, but not by force.
    for name in [
        "",
        "*",
        "{demo}",
        "a}b{",
        "g:\r\n\u{0}",
        "../..",
        "%00",
        "ä€😀",
        &long,
    ] {
        for (method, arguments) in [
            ("SendToConnection", json!([name, "x"])),
            ("SendToUser", json!([name, "x"])),
            ("JoinGroup", json!([name])),
            ("SendToGroup", json!([name, "x"])),
            ("LeaveGroup", json!([name])),
        ] {
            let completion = client.call(method, arguments.clone()).await;
            assert_eq!(completion["type"], 3, "{method}{arguments}");
        }
    }
    assert_eq!(client.result("Echo", json!([1])).await, 1);
    drop(client);
    target.ends_unharmed().await;
}

#[tokio::test]
async fn nobody_joins_more_groups_than_allowed() {
    let target = Target::start(|plan| plan.set("limits.groups_per_connection", 3)).await;
    let mut client = HubClient::connect(&target.entry, Transport::WebSockets).await;
    for group in ["a", "b", "c", "a"] {
        client.result("JoinGroup", json!([group])).await;
    }
    assert!(
        client.call("JoinGroup", json!(["d"])).await["error"].is_string(),
        "one too many"
    );
    client.result("LeaveGroup", json!(["a"])).await;
    client.result("JoinGroup", json!(["d"])).await;
    drop(client);
    target.ends_unharmed().await;
}
