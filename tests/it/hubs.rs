//! Several hubs of one application, one of which admits only some clients.

use std::sync::Arc;

use hubcast_tests::application::Application;
use hubcast_tests::hub_client::{HubClient, Transport};
use hubcast_tests::js::{Connect, Js};
use serde_json::{Value, json};

const OPEN: &str = "testhub";
const ADMINS: &str = "authorizedhub";
const UNCREATABLE: &str = "uncreatable";
const TRANSPORTS: [&str; 3] = ["WebSockets", "ServerSentEvents", "LongPolling"];

#[tokio::test]
async fn a_client_on_two_hubs_hears_each_on_its_own() {
    let (application, js) = tokio::join!(Application::start(), Js::start());
    let token = application.token("ann", "admin").await;
    for transport in TRANSPORTS {
        let connect = async |hub: &str| {
            let to = Connect::to(&application.url(hub)).transport(transport);
            js.connect(to.token(&token).listening(&["Received", "Message"]))
                .await
        };
        let (open, admins) = (connect(OPEN).await, connect(ADMINS).await);
        assert_eq!(open.call("GetUser", json!([])).await, "ann");
        assert_eq!(admins.call("GetUser", json!([])).await, "ann");
        let ids = (open.id().await, admins.id().await);
        assert_ne!(ids.0, ids.1, "a connection for each hub");
        open.call("JoinGroup", json!(["g"])).await;
        for (whom, name) in [
            ("all", ""),
            ("group", "g"),
            ("user", "ann"),
            ("connection", &ids.1),
            ("connection", &ids.0),
        ] {
            let value = format!("to {whom} {name}");
            open.call("SendTo", json!([whom, name, value])).await;
        }
        // The messages of a hub come in order: once the last one is there, none of the earlier ones is missing.
        open.receives("Received", json!([format!("to connection {}", ids.0)]))
            .await;
        let expected = ["to all ", "to group g", "to user ann"].map(|text| json!([text]));
        assert_eq!(open.received("Received")[..3], expected, "{transport}");
        assert_eq!(
            open.received("Received").len(),
            4,
            "not the other hub's connection"
        );
        assert_eq!(admins.call("EchoString", json!(["here"])).await, "here");
        assert_eq!(admins.events("message"), Vec::<Value>::new(), "{transport}");
        // A method of one hub is none of the other.
        let error = admins.invoke("JoinGroup", json!(["g"])).await.unwrap_err();
        assert!(error.contains("Method does not exist"), "{error}");
        admins.stop().await;
        assert_eq!(open.call("EchoString", json!(["alone"])).await, "alone");
        open.stop().await;
    }
    assert!(!application.log().contains("panicked"));
}

#[tokio::test]
async fn a_hub_admits_whom_it_wants() {
    let (application, js) = tokio::join!(Application::start(), Js::start());
    let (admin, guest) = (
        application.token("ann", "admin").await,
        application.token("bob", "guest").await,
    );
    for transport in TRANSPORTS {
        let to = |hub: &str| Connect::to(&application.url(hub)).transport(transport);
        let anonymous = js.try_connect(to(ADMINS)).await.err();
        let anonymous = anonymous.expect("nobody comes in without a token");
        assert!(anonymous.contains("401"), "{transport}: {anonymous}");
        let wrong = js.try_connect(to(ADMINS).token(&guest)).await.err();
        let wrong = wrong.expect("a guest is no admin");
        assert!(wrong.contains("403"), "{transport}: {wrong}");
        for (hub, connect, user) in [
            (ADMINS, to(ADMINS).token(&admin), json!("ann")),
            (OPEN, to(OPEN).token(&guest), json!("bob")),
            (OPEN, to(OPEN), Value::Null),
        ] {
            let client = js.connect(connect).await;
            assert_eq!(client.call("GetUser", json!([])).await, user, "{hub} {transport}");
            client.stop().await;
        }
        // The same rule for one method.
        for (connect, expected) in [
            (to(OPEN).token(&admin), Ok(json!("you are one"))),
            (to(OPEN).token(&guest), Err(UNAUTHORIZED.to_owned())),
            (to(OPEN), Err(UNAUTHORIZED.to_owned())),
        ] {
            let client = js.connect(connect).await;
            assert_eq!(
                client.invoke("OnlyAdmins", json!([])).await,
                expected,
                "{transport}"
            );
            client.stop().await;
        }
    }
}

const UNAUTHORIZED: &str = "Failed to invoke 'OnlyAdmins' because user is unauthorized";

#[tokio::test]
async fn every_request_to_a_hub_needs_its_admission() {
    let application = Application::start().await;
    let admins = application
        .entry(ADMINS)
        .with_bearer(&application.token("ann", "admin").await);
    let mut client = HubClient::connect(
        &Arc::new(admins.with_bearer(&application.token("ann", "admin").await)),
        Transport::LongPolling,
    )
    .await;
    let guest = application.token("ann", "guest").await; // the same user, no admin by this token
    for (entry, status) in [
        (application.entry(ADMINS), 401),
        (application.entry(ADMINS).with_bearer(&guest), 403),
        (application.entry(ADMINS).with_bearer("nonsense"), 401),
    ] {
        for token in [client.token(), &admins.negotiate().await.token] {
            let events = entry.request("GET", token).header("Accept", "text/event-stream");
            assert_eq!(entry.negotiate_with("negotiateVersion=1").await.status(), status);
            assert_eq!(entry.upgrade("").await.status(), status, "a WebSocket");
            assert_eq!(entry.upgrade(&format!("id={token}")).await.status(), status);
            assert_eq!(entry.poll(token).await.status(), status, "a poll");
            assert_eq!(entry.fetch(&events).await.status(), status, "an event stream");
            assert_eq!(entry.post(token, "x").await.status(), status, "a POST");
            assert_eq!(entry.delete(token).await.status(), status, "DELETE");
        }
    }
    assert_eq!(client.result("EchoString", json!(["unharmed"])).await, "unharmed");
}

#[tokio::test]
async fn a_connection_token_is_for_one_hub() {
    let application = Application::start().await;
    let admin = application.token("ann", "admin").await;
    let (open, admins) = (
        Arc::new(application.entry(OPEN).with_bearer(&admin)),
        application.entry(ADMINS).with_bearer(&admin),
    );
    let mut client = HubClient::connect(&open, Transport::LongPolling).await;
    for token in [client.token(), &open.negotiate().await.token] {
        assert_eq!(admins.poll(token).await.status(), 404, "a poll");
        assert_eq!(admins.post(token, "x").await.status(), 404, "a POST");
        assert_eq!(admins.delete(token).await.status(), 404, "DELETE");
        assert_eq!(admins.upgrade(&format!("id={token}")).await.status(), 404);
    }
    assert_eq!(client.result("EchoString", json!(["unharmed"])).await, "unharmed");
}

#[tokio::test]
async fn a_client_whose_hub_fails_it_is_closed_for_good() {
    let (application, js) = tokio::join!(Application::start(), Js::start());
    for transport in TRANSPORTS {
        let to = Connect::to(&application.url(UNCREATABLE)).transport(transport);
        // The Close message may come together with the handshake's answer.
        let error = match js.try_connect(to.reconnecting()).await {
            Err(error) => error,
            Ok(client) => {
                client.has_events("closed", 1).await;
                assert_eq!(client.events("reconnecting").len(), 0, "{transport}");
                client.events("closed")[0]["error"].to_string()
            }
        };
        assert!(
            error.contains("Connection closed with an error."),
            "{transport}: {error}"
        );
    }
    let entry = Arc::new(application.entry(UNCREATABLE));
    for transport in Transport::ALL {
        let mut client = HubClient::connect(&entry, transport).await;
        let closes = client.rest().await;
        assert_eq!(closes.len(), 1, "{transport:?}: {closes:?}");
        assert_eq!(closes[0]["type"], 7);
        assert_eq!(closes[0].get("allowReconnect"), None, "{transport:?}");
    }
}
