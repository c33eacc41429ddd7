//! The hubs of the example `functional_tests`, as clients see them.

use std::time::Duration;

use hubcast::protocol::{Binary, Encoding, HubProtocol, Timestamp, Value};
use hubcast::testing::{HubTester, TestClient, TestError};
use hubcast::{Hub, HubError};
use serde_json::{Value as Json, json};
use tokio::time::timeout;

use crate::functional_hubs::{authorized_hub, parallel_hub, test_hub, uncreatable_hub};

const PROTOCOLS: [HubProtocol; 2] = HubProtocol::ALL;

/// The bound on what must happen: it says "never", not "slow".
const BOUND: Duration = Duration::from_secs(30);

async fn connect(tester: &HubTester, protocol: HubProtocol) -> TestClient {
    tester.client().protocol(protocol).connect().await
}

async fn same<T>(client: &mut TestClient, method: &str, value: T)
where
    T: serde::Serialize + serde::de::DeserializeOwned + PartialEq + std::fmt::Debug + Send + Sync,
{
    for method in [method, "Echo"] {
        let echoed = client.invoke::<T>(method, (&value,)).await;
        assert_eq!(echoed.as_ref(), Ok(&value), "{method}");
    }
}

#[tokio::test]
async fn values_of_every_type_come_back_as_they_were() {
    let tester = HubTester::new(test_hub()).await.unwrap();
    for protocol in PROTOCOLS {
        let mut client = connect(&tester, protocol).await;
        for number in [
            i64::MIN,
            -9_007_199_254_740_993,
            -1,
            0,
            127,
            9_007_199_254_740_993,
            i64::MAX,
        ] {
            same(&mut client, "EchoInteger", number).await;
        }
        for number in [0, 255, u64::from(u32::MAX) + 1, u64::MAX] {
            same(&mut client, "EchoUnsigned", number).await;
        }
        for number in [0.0, -0.1, f64::MIN_POSITIVE, f64::MAX, 1e21] {
            same(&mut client, "EchoFloat", number).await;
        }
        for text in ["", "Grüße, 世界 🙂", "\u{1e}\0\"\\\u{2028}"] {
            same(&mut client, "EchoString", text.to_owned()).await;
        }
        same(&mut client, "EchoBoolean", true).await;
        same(&mut client, "EchoBinary", Binary((0..=255).collect())).await;
        same(&mut client, "EchoBinary", Binary(Vec::new())).await;
        let date = "2026-01-02T03:04:05.678Z".to_owned();
        same(&mut client, "EchoDate", date).await;
        let call = client.begin("SendComplexObject", (), &[]).await.unwrap();
        let sample = client.result_value(&call).await.unwrap();
        let call = client
            .begin("EchoComplexObject", vec![sample.clone()], &[])
            .await
            .unwrap();
        assert_eq!(client.result_value(&call).await.as_ref(), Ok(&sample));
        let sample: Json = sample.transcode(Encoding::Json).unwrap().decode().unwrap();
        assert_eq!(
            (&sample["flag"], &sample["list"][0]["missing"]),
            (&json!(false), &Json::Null)
        );
        let call = client.begin("EchoTwo", (Binary(vec![1]), 2), &[]).await.unwrap();
        let two = client.result_value(&call).await.unwrap();
        assert_eq!(two.decode::<(Binary, i32)>().unwrap(), (Binary(vec![1]), 2));
        let text = client
            .invoke::<String>("EchoUnsigned", (-1,))
            .await
            .unwrap_err()
            .to_string();
        assert_eq!(
            text,
            "Failed to invoke 'EchoUnsigned' due to an error on the server."
        );
    }
}

#[tokio::test]
async fn objects_nest_and_timestamps_stay_or_become_text() {
    let tester = HubTester::new(test_hub()).await.unwrap();
    let object = json!({
        "text": "t", "integer": i64::MIN, "float": 0.5, "flag": true, "bytes": "AAH/", "date": "d",
        "missing": null, "list": [{
            "text": "", "integer": 0, "float": 0.0, "flag": false, "bytes": "", "date": "", "missing": "m", "list": [],
        }],
    });
    let mut client = connect(&tester, HubProtocol::Json).await;
    same(&mut client, "EchoComplexObject", object.clone()).await;
    assert_eq!(
        client.invoke::<Json>("EchoTwo", (&object, 1)).await,
        Ok(json!([object, 1]))
    );

    let mut packed = connect(&tester, HubProtocol::MessagePack).await;
    let timestamp = Value::from_messagepack(vec![0xd6, 0xff, 0, 0, 0, 1]).unwrap();
    assert_eq!(timestamp.encoding(), Encoding::MessagePack);
    let call = packed
        .begin("EchoDate", vec![timestamp.clone()], &[])
        .await
        .unwrap();
    assert_eq!(
        packed.result::<String>(&call).await,
        Ok("1970-01-01T00:00:01Z".to_owned())
    );
    let call = packed.begin("Echo", vec![timestamp.clone()], &[]).await.unwrap();
    assert_eq!(packed.result_value(&call).await, Ok(timestamp));
}

#[tokio::test]
async fn errors_are_seen_as_far_as_they_are_meant_for_clients() {
    let tester = HubTester::new(test_hub()).await.unwrap();
    let mut client = tester.connect().await;
    let base = |method: &str| format!("An unexpected error occurred invoking '{method}' on the server.");
    let error = client.invoke::<()>("ThrowException", ("why",)).await;
    assert_eq!(
        error,
        Err(TestError::Completion(
            base("ThrowException") + " HubException: why"
        ))
    );
    assert_eq!(
        client.invoke::<()>("ThrowHidden", ("why",)).await,
        Err(TestError::Completion(base("ThrowHidden")))
    );
    assert_eq!(
        client.invoke::<()>("Panic", ("why",)).await,
        Err(TestError::Completion(base("Panic")))
    );
    let error = client.invoke::<()>("OnlyAdmins", ()).await;
    assert_eq!(
        error,
        Err(TestError::Completion(
            "Failed to invoke 'OnlyAdmins' because user is unauthorized".to_owned()
        ))
    );
    let mut admin = tester.client().user("ann").role("admin").connect().await;
    assert_eq!(
        admin.invoke::<String>("OnlyAdmins", ()).await.as_deref(),
        Ok("you are one")
    );
}

#[tokio::test]
async fn streams_end_fail_and_go_on_until_they_are_cancelled() {
    let tester = HubTester::new(test_hub()).await.unwrap();
    for protocol in PROTOCOLS {
        let mut client = connect(&tester, protocol).await;
        assert_eq!(
            client.stream::<String>("Stream", ()).await.unwrap(),
            ["a", "b", "c"]
        );
        assert_eq!(client.stream::<u32>("EmptyStream", ()).await, Ok(vec![]));
        assert_eq!(client.stream::<u64>("Count", (3, 0)).await, Ok(vec![0, 1, 2]));
        let failing = client
            .begin_stream("StreamThrowException", ("why",), &[])
            .await
            .unwrap();
        for item in ["a", "b"] {
            assert_eq!(client.item::<String>(&failing).await, Ok(Some(item.to_owned())));
        }
        let text = "An error occurred on the server while streaming results. HubException: why";
        assert_eq!(
            client.item::<String>(&failing).await,
            Err(TestError::Completion(text.to_owned()))
        );

        let endless = client.begin_stream("InfiniteStream", (), &[]).await.unwrap();
        for item in 0..3 {
            assert_eq!(client.item::<u64>(&endless).await, Ok(Some(item)));
        }
        assert_eq!(client.invoke::<usize>("GetInfiniteStreams", ()).await, Ok(1));
        client.cancel(&endless).await.unwrap();
        client.result::<()>(&endless).await.unwrap();
        assert_eq!(client.invoke::<usize>("GetInfiniteStreams", ()).await, Ok(0));
    }
}

#[tokio::test]
async fn uploads_are_completed_cancelled_and_lost() {
    let tester = HubTester::new(test_hub()).await.unwrap();
    for protocol in PROTOCOLS {
        let mut client = connect(&tester, protocol).await;
        let whole = client
            .upload::<_, String>("UploadingStream", (), ["a", "b"])
            .await;
        assert_eq!(whole.as_deref(), Ok("ab"));
        let report = client.upload::<_, Json>("UploadReport", (), ["a"]).await;
        assert_eq!(report, Ok(json!({ "items": ["a"], "ended": "completed" })));
        let report = client.upload::<_, Json>("UploadReport", (), [1]).await;
        assert_eq!(report, Ok(json!({ "items": [], "ended": "mistyped" })));
        for method in ["UploadReport", "UploadingStream"] {
            let upload = client.open_upload();
            let call = client.begin(method, (), &[&upload]).await.unwrap();
            client.push(&upload, "a").await.unwrap();
            client
                .finish(upload, Err("Stream canceled by client."))
                .await
                .unwrap();
            match client.result::<Json>(&call).await {
                Ok(report) => assert_eq!(report["ended"], "failed: Stream canceled by client."),
                Err(error) => assert!(
                    error
                        .to_string()
                        .ends_with("HubException: Stream canceled by client."),
                    "{error}"
                ),
            }
        }
        assert_eq!(client.upload::<_, u32>("FirstOf", (), 1..20).await, Ok(1));

        let upload = client.open_upload();
        let echo = client.begin_stream("StreamEcho", (), &[&upload]).await.unwrap();
        client.push(&upload, Binary(vec![0, 255])).await.unwrap();
        assert_eq!(client.item(&echo).await, Ok(Some(Binary(vec![0, 255]))));
        client.finish(upload, Ok(())).await.unwrap();
        assert_eq!(client.item::<Binary>(&echo).await, Ok(None));

        let upload = client.open_upload();
        client.begin("UploadReport", (), &[&upload]).await.unwrap();
        client.push(&upload, "a").await.unwrap();
        client.lose().await;
    }
    let mut client = tester.connect().await;
    let reported = async {
        loop {
            let lost: Json = client.invoke("GetLostUpload", ()).await.unwrap();
            if !lost.is_null() {
                return lost;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let lost = timeout(BOUND, reported).await.expect("the method is told");
    assert_eq!(lost, json!({ "items": ["a"], "ended": "lost" }));
}

#[tokio::test]
async fn what_a_client_came_with_is_read_back() {
    let tester = HubTester::new(test_hub()).await.unwrap();
    let client = tester
        .client()
        .user("ann")
        .role("reader")
        .header("X-Test", "1")
        .query("k", "a b");
    let mut client = client.cookie("session", "s").connect().await;
    let id = client.id().to_owned();
    let mut read = async |method: &str, name: Option<&str>| match name {
        Some(name) => client.invoke::<Json>(method, (name,)).await.unwrap(),
        None => client.invoke::<Json>(method, ()).await.unwrap(),
    };
    assert_eq!(read("GetUser", None).await, "ann");
    assert_eq!(read("GetRoles", None).await, json!(["reader"]));
    assert_eq!(read("GetHeader", Some("x-tEST")).await, "1");
    assert_eq!(read("GetQuery", Some("k")).await, "a b");
    assert_eq!(read("GetCookie", Some("session")).await, "s");
    assert_eq!(read("GetCookie", Some("other")).await, Json::Null);
    assert_eq!(read("GetActiveTransportName", None).await, "WebSockets");
    assert_eq!(read("GetProtocolName", None).await, "json");
    assert_eq!(read("GetCallerConnectionId", None).await, id);
    client.send("Abort", ()).await.unwrap();
    let closed = client.closed().await;
    assert_eq!((closed.error, closed.allow_reconnect), (None, false));
}

#[tokio::test]
async fn clients_are_sent_to_and_asked() {
    let tester = HubTester::new(test_hub()).await.unwrap();
    let mut ann = tester.connect_as("ann").await;
    let mut bob = tester.connect_as("bob").await;
    bob.invoke::<()>("JoinGroup", ("g",)).await.unwrap();
    assert_eq!(bob.groups(), ["g"]);
    let id = bob.id().to_owned();
    for (whom, name) in [
        ("all", ""),
        ("others", ""),
        ("group", "g"),
        ("user", "bob"),
        ("connection", &*id),
    ] {
        ann.invoke::<()>("SendTo", (whom, name, whom)).await.unwrap();
        assert_eq!(
            bob.expect("Received").await.unwrap().argument(0),
            Some(whom.to_owned())
        );
    }
    bob.answer("GetAnswer", |_| Ok(42));
    let asked = ann.invoke::<u32>("Ask", (&id, 1000));
    assert_eq!(bob.during(asked).await, Ok(42));
    assert!(ann.invoke::<u32>("Ask", (None::<String>, 1000)).await.is_err());
}

#[tokio::test]
async fn several_calls_run_and_are_cancelled_on_the_parallel_hub() {
    let tester = HubTester::new(parallel_hub()).await.unwrap();
    let mut client = tester.connect().await;
    let waiting = client.begin("WaitForCancel", (), &[]).await.unwrap();
    assert_eq!(client.invoke::<usize>("GetCancelled", ()).await, Ok(0));
    client.cancel(&waiting).await.unwrap();
    assert!(client.result::<()>(&waiting).await.is_err());
    assert_eq!(client.invoke::<usize>("GetCancelled", ()).await, Ok(1));
}

#[tokio::test]
async fn the_other_hubs_let_few_in() {
    let tester = HubTester::new(authorized_hub()).await.unwrap();
    let mut admin = tester.client().user("ann").role("admin").connect().await;
    assert_eq!(admin.invoke::<i64>("EchoInteger", (1,)).await, Ok(1));
    let mut reader = tester.client().user("bob").role("reader").connect().await;
    assert!(reader.closed().await.error.unwrap().starts_with("403"));
    let tester = HubTester::new(uncreatable_hub()).await.unwrap();
    let closed = tester.connect().await.closed().await;
    assert_eq!(
        closed.error.unwrap(),
        "Connection closed with an error. HubException: nobody may connect"
    );
    assert!(!closed.allow_reconnect);
}

#[tokio::test]
async fn a_method_takes_and_returns_timestamps_in_both_encodings() {
    let hub = Hub::new("times").method("Later", async |at: Timestamp, seconds: i64| {
        Ok::<_, HubError>(Timestamp::new(at.seconds() + seconds, at.nanoseconds())?)
    });
    let tester = HubTester::new(hub).await.unwrap();
    let time = |text: &str| text.parse::<Timestamp>().unwrap();
    for protocol in PROTOCOLS {
        let mut client = connect(&tester, protocol).await;
        // As both kinds of clients write it: a timestamp and text.
        for at in [
            Value::encode(&time("2024-02-29T23:59:59.5Z")).unwrap(),
            Value::encode("2024-03-01T01:59:59.5+02:00").unwrap(),
        ] {
            let seconds = Value::encode(&1).unwrap();
            let call = client.begin("Later", vec![at, seconds], &[]).await.unwrap();
            let later = client.result_value(&call).await.unwrap();
            assert_eq!(
                later.decode::<Timestamp>().unwrap(),
                time("2024-03-01T00:00:00.5Z")
            );
            match protocol {
                HubProtocol::Json => assert_eq!(later.bytes(), &br#""2024-03-01T00:00:00.5Z""#[..]),
                HubProtocol::MessagePack => assert_eq!(later.bytes()[..2], [0xd7, 0xff]), // 64 bits, extension -1
            }
        }
        let refused = client
            .invoke::<Timestamp>("Later", ("tomorrow", 1))
            .await
            .unwrap_err()
            .to_string();
        assert_eq!(refused, "Failed to invoke 'Later' due to an error on the server.");
        let far = client
            .invoke::<Timestamp>("Later", ("9999-12-31T23:59:59Z", 1))
            .await;
        assert!(far.is_err());
    }
}
