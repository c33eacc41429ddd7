//! First messages.

use hubcast_tests::hub_client::{HubClient, Transport};
use serde_json::json;

use super::Target;

const MALFORMED: &str = "An unexpected error occurred during connection handshake.";

#[tokio::test]
async fn a_handshake_that_cannot_be_served_is_told_why() {
    let target = Target::start(|plan| plan).await;
    for (handshake, error) in [
        (
            "{\"protocol\":\"xml\",\"version\":1}",
            "The protocol 'xml' is not supported.",
        ),
        (
            "{\"protocol\":\"\",\"version\":1}",
            "The protocol '' is not supported.",
        ),
        (
            "{\"protocol\":\"json\",\"version\":3}",
            "The server does not support version 3 of the 'json' protocol.",
        ),
        (
            "{\"protocol\":\"messagepack\",\"version\":99}",
            "The server does not support version 99 of the 'messagepack' protocol.",
        ),
        ("{\"protocol\":\"json\"}", MALFORMED),
        ("{\"version\":1}", MALFORMED),
        ("{\"protocol\":1,\"version\":1}", MALFORMED),
        ("{\"protocol\":\"json\",\"version\":\"1\"}", MALFORMED),
        ("{}", MALFORMED),
        ("[]", MALFORMED),
        ("", MALFORMED),
        ("nonsense", MALFORMED),
        ("{\"type\":6}", MALFORMED),
    ] {
        for transport in Transport::ALL {
            let mut client = HubClient::open(&target.entry, transport).await;
            client.send(format!("{handshake}\u{1e}")).await;
            assert_eq!(
                client.rest().await,
                [json!({ "error": error })],
                "{handshake} by {transport:?}"
            );
        }
    }
    target.ends_unharmed().await;
}

#[tokio::test]
async fn a_handshake_that_is_too_large_or_too_slow_is_cancelled() {
    let target = Target::start(|plan| plan.set("timeouts.handshake_seconds", 1)).await;
    for transport in Transport::ALL {
        for beginning in ["", "{\"protocol\":", &"x".repeat(33_000)] {
            let mut client = HubClient::open(&target.entry, transport).await;
            client.send(beginning).await;
            let shown: String = beginning.chars().take(20).collect();
            let expected = json!({ "error": "Handshake was canceled." });
            assert_eq!(client.rest().await, [expected], "{shown:?} by {transport:?}");
        }
    }
    target.ends_unharmed().await;
}

#[tokio::test]
async fn a_handshake_may_be_written_in_any_way() {
    let target = Target::start(|plan| plan).await;
    for handshake in [
        "{\"version\":1,\"protocol\":\"json\"}",
        "{\"protocol\":\"JSON\",\"version\":1}",
        "{\"protocol\":\"json\",\"version\":0}",
        "{\"protocol\":\"json\",\"version\":2}",
        " { \"future\" : [1, {}], \"protocol\" : \"js\\u006fn\", \"version\" : 1 } ",
    ] {
        let mut client = HubClient::open(&target.entry, Transport::WebSockets).await;
        for byte in format!("{handshake}\u{1e}").as_bytes().chunks(7) {
            client.send(byte).await;
        }
        assert_eq!(client.next().await, Some(json!({})), "{handshake}");
        assert_eq!(client.result("Echo", json!([1])).await, 1, "{handshake}");
    }
    target.ends_unharmed().await;
}
