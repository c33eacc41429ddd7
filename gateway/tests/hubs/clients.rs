//! Tests of the test client.

use std::time::Duration;

use futures_util::stream::{self, Stream, StreamExt, TryStreamExt};
use hubcast::hub::Upload;
use hubcast::protocol::{Binary, HubProtocol};
use hubcast::testing::HubTester;
use hubcast::{Context, Hub, HubError};
use serde_json::json;

fn hub() -> Hub {
    Hub::new("h")
        .method("Nothing", async || ())
        .method("Echo", async |bytes: Binary| bytes)
        .method(
            "Sum",
            async |more: i64, items: Upload<i64>| -> Result<i64, HubError> {
                Ok(items.try_fold(more, async |sum, item| Ok(sum + item)).await?)
            },
        )
        .stream("Merge", async |left: Upload<i64>, right: Upload<i64>| {
            stream::select(left, right)
        })
        .method("Tell", async |context: Context, target: String| {
            context.clients().caller().send(&target, (1,)).await
        })
        .method("Ask", async |context: Context| {
            context.clients().caller().invoke::<u32>("Number", ()).await
        })
}

#[tokio::test]
async fn a_client_shows_who_it_is_and_what_it_came_with() {
    let describe = async |context: Context| {
        let connection = context.connection();
        let identity = connection.identity();
        let roles: Vec<_> = identity.roles().map(str::to_owned).collect();
        let cookies: Vec<_> = connection
            .cookies()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        let room = connection.query("room").map(str::to_owned);
        let agent = connection.header("User-Agent").map(str::to_owned);
        let team = identity.claim("team").cloned();
        (
            context.user().map(ToString::to_string),
            roles,
            cookies,
            room,
            agent,
            team,
        )
    };
    let tester = HubTester::new(hub().method("Describe", describe)).await.unwrap();
    let ann = tester
        .client()
        .user("ann")
        .role("admin")
        .role("editor")
        .claim("team", 7);
    let ann = ann
        .cookie("a", "1")
        .cookie("b", "\"2 \"")
        .query("room", "blue")
        .header("user-agent", "tests");
    let described: serde_json::Value = ann.connect().await.invoke("Describe", ()).await.unwrap();
    let expected = json!(["ann", ["admin", "editor"], ["a=1", "b=2 "], "blue", "tests", 7]);
    assert_eq!(described, expected);
    let nobody: serde_json::Value = tester.connect().await.invoke("Describe", ()).await.unwrap();
    assert_eq!(nobody, json!([null, [], [], null, null, null]));
}

#[tokio::test]
async fn a_client_that_would_not_get_in_has_a_connection_that_has_ended() {
    let tester = HubTester::new(hub().admit(|identity| identity.has_role("guest")))
        .await
        .unwrap();
    let cases = [
        (tester.client().user("ann"), "403"),
        (tester.client().role("guest").user(""), "401"),
        (tester.client().role("guest").claim("nameid", true), "401"),
        (tester.client().role("guest").header("a b", "c"), "400"),
        (tester.client().role("guest").header("a", "\n"), "400"),
    ];
    for (client, status) in cases {
        let mut client = client.connect().await;
        let closed = client.closed().await;
        assert!(closed.error.unwrap().starts_with(status));
        assert_eq!(closed.reason, None, "hub code never saw it");
        let error = client.invoke::<()>("Nothing", ()).await.unwrap_err().to_string();
        assert!(error.starts_with("the connection has ended: "), "{error}");
    }
    assert_eq!(tester.hub().local_connections(), 0);
    tester
        .client()
        .role("guest")
        .connect()
        .await
        .invoke::<()>("Nothing", ())
        .await
        .unwrap();
}

#[tokio::test]
async fn uploads_are_sent_finished_and_broken_off() {
    let tester = HubTester::new(hub()).await.unwrap();
    let mut client = tester.connect().await;
    // Far more than the buffers of upload and connection hold.
    assert_eq!(
        client.upload::<i64, i64>("Sum", (5,), 1..=1000).await,
        Ok(500_505)
    );
    let items = client.open_upload();
    let call = client.begin("Sum", (0,), &[&items]).await.unwrap();
    client.push(&items, 1).await.unwrap();
    client
        .finish(items, Err("Stream canceled by client."))
        .await
        .unwrap();
    let error = client.result::<i64>(&call).await.unwrap_err().to_string();
    assert!(
        error.ends_with("HubException: Stream canceled by client."),
        "{error}"
    );

    let (left, right) = (client.open_upload(), client.open_upload());
    let merged = client.begin_stream("Merge", (), &[&left, &right]).await.unwrap();
    client.push(&left, 1).await.unwrap();
    assert_eq!(client.item(&merged).await, Ok(Some(1)));
    client.push(&right, 2).await.unwrap();
    assert_eq!(client.item(&merged).await, Ok(Some(2)));
    client.finish(right, Ok(())).await.unwrap();
    client.finish(left, Ok(())).await.unwrap();
    assert_eq!(client.item::<i64>(&merged).await, Ok(None));
}

#[tokio::test]
async fn calls_of_the_server_are_waited_for_by_name_or_taken_as_they_come() {
    let tester = HubTester::new(hub()).await.unwrap();
    let mut client = tester.connect().await;
    for target in ["A", "B", "C"] {
        client.send("Tell", (target,)).await.unwrap();
    }
    assert_eq!(client.expect("B").await.unwrap().argument(0), Some(1));
    assert_eq!(client.receive().await.unwrap().target, "A");
    client.set_patience(Duration::from_millis(50));
    let error = client.expect("D").await.unwrap_err().to_string();
    assert_eq!(
        error,
        "\"D\" was not called, only [\"C\"]: nothing came within 50ms"
    );
    assert_eq!(client.received().len(), 1);
    assert!(client.receive().await.is_none());
}

#[tokio::test]
async fn questions_are_answered_refused_or_ignored() {
    let hub = hub().configure(|settings| settings.timeouts.client_result = Duration::from_millis(50));
    let tester = HubTester::new(hub).await.unwrap();
    let mut client = tester.connect().await;
    let phone = tester.hub().clients();
    client.answer("Number", |_| Ok(7));
    assert_eq!(client.invoke::<u32>("Ask", ()).await, Ok(7));
    let id = client.id().to_owned();
    assert_eq!(
        client
            .during(phone.client(&id).invoke::<u32>("Number", ()))
            .await
            .unwrap(),
        7
    );
    client.answer("Number", |_| Err::<u32, _>("Error: no".to_owned()));
    let error = client.invoke::<u32>("Ask", ()).await.unwrap_err().to_string();
    assert!(error.ends_with("HubException: Error: no"), "{error}");
    client.ignore("Number");
    let error = client.invoke::<u32>("Ask", ()).await.unwrap_err().to_string();
    assert!(error.contains("gave no result within 50ms"), "{error}");
    client.close().await;
    let gone = phone.client(&id).invoke::<u32>("Number", ()).await;
    assert!(
        matches!(gone, Err(hubcast::Error::NoSuchConnection(_))),
        "{gone:?}"
    );
}

#[tokio::test]
async fn clients_speak_either_protocol() {
    let tester = HubTester::new(hub()).await.unwrap();
    let mut client = tester.client().protocol(HubProtocol::MessagePack).connect().await;
    assert_eq!(
        client.connection().protocol(),
        Some(HubProtocol::MessagePack.into())
    );
    let bytes = Binary((0..=255).collect());
    assert_eq!(client.invoke::<Binary>("Echo", (&bytes,)).await, Ok(bytes));
    assert_eq!(client.upload::<i64, i64>("Sum", (1,), [2, 3]).await, Ok(6));
}

/// Counts down; before each item it sends to its caller, with whatever handle.
async fn countdown(context: Context, from: u32) -> impl Stream<Item = Result<u32, HubError>> {
    stream::iter((0..from).rev()).then(move |number| {
        let context = context.clone();
        async move {
            let hub = context.hub();
            let sending = tokio::spawn(async move { hub.clients().all().send("Before", (number,)).await });
            context.clients().caller().send("Before", (number,)).await?;
            sending
                .await
                .map_err(|error| HubError::new(error.to_string()))??;
            Ok(number)
        }
    })
}

#[tokio::test]
async fn items_of_a_stream_come_after_what_was_sent_before_them() {
    let tester = HubTester::new(Hub::new("h").stream("Countdown", countdown))
        .await
        .unwrap();
    let mut client = tester.connect().await;
    let call = client.begin_stream("Countdown", (100,), &[]).await.unwrap();
    let mut received = 0;
    while let Some(number) = client.item::<usize>(&call).await.unwrap() {
        received += client.received().len();
        assert!(
            received >= 2 * (100 - number),
            "item {number} came after {received} messages"
        );
    }
}

#[tokio::test]
async fn what_is_sent_before_a_connection_is_closed_arrives() {
    let kick = async |context: Context, whom: String| -> Result<bool, HubError> {
        context.clients().client(&whom).send("Kicked", ()).await?;
        Ok(context.hub().of_connection(&whom).close(Some("out")).await?)
    };
    let refuse = async |context: Context| -> Result<(), HubError> {
        context.clients().caller().send("Sorry", ()).await?;
        Err(HubError::new("full"))
    };
    let tester = HubTester::new(Hub::new("h").method("Kick", kick)).await.unwrap();
    for _ in 0..20 {
        let (mut ann, mut bob) = (tester.connect().await, tester.connect().await);
        assert_eq!(ann.invoke::<bool>("Kick", (bob.id(),)).await, Ok(true));
        bob.closed().await;
        assert_eq!(bob.received().len(), 1, "it is told before it is closed");
        let id = ann.id().to_owned();
        let _ends = ann.invoke::<bool>("Kick", (id,)).await;
        ann.closed().await;
        assert_eq!(ann.received().len(), 1, "so is who kicks itself");
    }
    let tester = HubTester::new(Hub::new("full").on_connected(refuse))
        .await
        .unwrap();
    let mut refused = tester.connect().await;
    refused.closed().await;
    assert_eq!(refused.received().len(), 1);
}
